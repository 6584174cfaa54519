//! What the partner did, seen without mercy: every update that arrived, whatever became of it.
//!
//! This sees requests before anything else does, also those that a fault keeps from being carried
//! out, because a worker that signs two outcomes of one record or sends a nonce twice has broken its
//! promise whether OES noticed or not.

use std::collections::{BTreeSet, HashMap, VecDeque};

use serde::Serialize;
use serde_json::Value;

use super::incoming::Incoming;
use crate::{
    domain::{decision::Outcome, ids::RecordId, job::JobType, time::TimestampMs},
    signer,
};

/// Most updates that are kept with their bodies; the oldest go first, and are still counted.
pub const PUTS_KEPT_MAX: usize = 100_000;

/// Most findings of a kind that are kept; more are only counted.
pub const FINDINGS_MAX: usize = 10_000;

/// Most nonces and records that are remembered.
const REMEMBERED_MAX: usize = 4_000_000;

/// Who signed an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Signer {
    /// A registered key of the partner.
    Partner,
    /// Some other key, or the payload is not what was signed.
    Unknown,
    /// The signature is not one, or there is none.
    None,
}

/// An update that arrived.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Put {
    /// Its number.
    pub seq: u64,
    /// When it arrived.
    pub at: TimestampMs,
    /// The id that its answer had.
    pub request_id: String,
    /// On which route.
    pub route: JobType,
    /// The record that it is about, as it says.
    pub record_id: Option<RecordId>,
    /// The status that it asks for, as it says.
    pub status: Option<Outcome>,
    /// Its nonce.
    pub nonce: Option<String>,
    /// Who signed it.
    pub signer: Signer,
    /// The status of the answer; nothing while there is none, and after a reset.
    pub answered: Option<u16>,
    /// Whether it was obeyed: it ended its record with the status that it asks for.
    pub applied: bool,
    /// What became of it, in one word: `applied`, the name of a refusal, or a fault.
    pub verdict: &'static str,
    /// The fault that happened to it, in one word.
    pub fault: Option<&'static str>,
    /// Its body as it arrived; what is not UTF-8 is replaced.
    pub body: String,
}

/// What a contradiction contradicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Against {
    /// An earlier update of the same record that the partner signed, by its number: the partner has
    /// said both.
    EarlierPut(u64),
    /// The record, which is final with the other outcome, and not because of an earlier update.
    FinalRecord,
}

/// An update that says the other outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Contradiction {
    /// The record.
    pub record_id: RecordId,
    /// What this update says.
    pub said: Outcome,
    /// Its number.
    pub put: u64,
    /// What it contradicts.
    pub against: Against,
}

/// A nonce that arrived again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RepeatedNonce {
    /// The nonce.
    pub nonce: String,
    /// The number of the update that had it first.
    pub first: u64,
    /// The number of the one that repeats it.
    pub put: u64,
}

/// How much of what happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// Updates that arrived.
    pub puts: u64,
    /// Updates that were obeyed.
    pub applied: u64,
    /// The partner's reads, of every kind.
    pub partner_reads: u64,
    /// Clients' allocations and deallocations.
    pub orders: u64,
    /// Clients' reads.
    pub client_reads: u64,
    /// Requests over the rate limit.
    pub rate_limited: u64,
    /// Requests without a token that may do this.
    pub unauthorized: u64,
    /// Requests that a fault happened to.
    pub faults: u64,
    /// Job messages that the broker has.
    pub jobs_published: u64,
    /// Updates that say the other outcome.
    pub contradictions: u64,
    /// Updates with a nonce that arrived before.
    pub repeated_nonces: u64,
    /// Updates that the partner did not sign.
    pub bad_signatures: u64,
}

/// What an update says, read as leniently as possible.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) record_id: Option<RecordId>,
    status: Option<Outcome>,
    nonce: Option<String>,
    /// The public key that signed the payload, whoever's it is.
    key: Option<String>,
    /// What the payload says.
    statement: Option<(RecordId, Outcome)>,
}

impl Reading {
    pub(super) fn of(route: JobType, body: &[u8]) -> Self {
        let value: Value = serde_json::from_slice(body).unwrap_or_default();
        let text = |name: &str| value.get(name).and_then(Value::as_str);
        let payload = text("payload").unwrap_or_default();
        let said: Value = serde_json::from_str(payload).unwrap_or_default();
        Self {
            record_id: record_of(route, &value),
            status: status_of(&value),
            nonce: text("nonce").map(str::to_owned),
            key: text("signature").and_then(|text| signer::recover(payload.as_bytes(), text)),
            statement: record_of(route, &said).zip(status_of(&said)),
        }
    }

    fn signer(&self, keys: &BTreeSet<String>) -> Signer {
        match &self.key {
            None => Signer::None,
            Some(key) if keys.contains(key) => Signer::Partner,
            Some(_) => Signer::Unknown,
        }
    }

    /// The nonce, if one of these keys signed the update.
    pub(super) fn signed_nonce(&self, keys: &BTreeSet<String>) -> Option<&str> {
        match self.signer(keys) {
            Signer::Partner => self.nonce.as_deref(),
            Signer::Unknown | Signer::None => None,
        }
    }
}

fn record_of(route: JobType, value: &Value) -> Option<RecordId> {
    let name = match route {
        JobType::Allocation => "allocationId",
        JobType::Deallocation => "deallocationId",
    };
    value.get(name)?.as_str()?.parse().ok()
}

fn status_of(value: &Value) -> Option<Outcome> {
    let word = value.get("status")?.as_str()?;
    Outcome::ALL.into_iter().find(|outcome| outcome.as_str() == word)
}

/// The record of it all.
#[derive(Debug, Default)]
pub(super) struct Audit {
    puts: VecDeque<Put>,
    pub(super) counts: Counts,
    nonces: HashMap<String, u64>,
    said: HashMap<RecordId, (Outcome, u64)>,
    pub(super) contradictions: Vec<Contradiction>,
    pub(super) repeated_nonces: Vec<RepeatedNonce>,
}

impl Audit {
    /// Takes note of an update; answers its number.
    pub(super) fn arrived(
        &mut self,
        route: JobType,
        reading: &Reading,
        keys: &BTreeSet<String>,
        incoming: &Incoming,
        now: TimestampMs,
    ) -> u64 {
        let signer = reading.signer(keys);
        let seq = self.counts.puts;
        self.counts.puts = seq.saturating_add(1);
        if self.puts.len() >= PUTS_KEPT_MAX {
            self.puts.pop_front();
        }
        self.puts.push_back(Put {
            seq,
            at: now,
            request_id: incoming.request_id.clone(),
            route,
            record_id: reading.record_id,
            status: reading.status,
            nonce: reading.nonce.clone(),
            signer,
            answered: None,
            applied: false,
            verdict: "pending",
            fault: None,
            body: String::from_utf8_lossy(&incoming.body).into_owned(),
        });
        if let Some(nonce) = &reading.nonce {
            self.note_nonce(nonce, seq);
        }
        match (signer, reading.statement) {
            (Signer::Partner, Some((record_id, outcome))) => {
                self.note_statement(record_id, outcome, seq);
            }
            (Signer::Partner, None) => {}
            (Signer::Unknown | Signer::None, _) => {
                self.counts.bad_signatures = self.counts.bad_signatures.saturating_add(1);
            }
        }
        seq
    }

    fn note_nonce(&mut self, nonce: &str, seq: u64) {
        match self.nonces.get(nonce) {
            Some(first) => {
                self.counts.repeated_nonces = self.counts.repeated_nonces.saturating_add(1);
                if self.repeated_nonces.len() < FINDINGS_MAX {
                    self.repeated_nonces.push(RepeatedNonce {
                        nonce: nonce.to_owned(),
                        first: *first,
                        put: seq,
                    });
                }
            }
            None if self.nonces.len() < REMEMBERED_MAX => {
                self.nonces.insert(nonce.to_owned(), seq);
            }
            None => {}
        }
    }

    fn note_statement(&mut self, record_id: RecordId, said: Outcome, seq: u64) {
        match self.said.get(&record_id) {
            Some((before, first)) if *before != said => {
                let against = Against::EarlierPut(*first);
                self.contradiction(record_id, said, seq, against);
            }
            None if self.said.len() < REMEMBERED_MAX => {
                self.said.insert(record_id, (said, seq));
            }
            Some(_) | None => {}
        }
    }

    /// An update says the other outcome of a final record. One that also contradicts an earlier
    /// update is a contradiction already.
    pub(super) fn contradicts_record(&mut self, record_id: RecordId, said: Outcome, seq: u64) {
        let is_known = self.contradictions.iter().any(|known| known.put == seq);
        if !is_known {
            self.contradiction(record_id, said, seq, Against::FinalRecord);
        }
    }

    fn contradiction(&mut self, record_id: RecordId, said: Outcome, put: u64, against: Against) {
        self.counts.contradictions = self.counts.contradictions.saturating_add(1);
        tracing::warn!(%record_id, %said, put, ?against, "an update contradicts");
        if self.contradictions.len() < FINDINGS_MAX {
            self.contradictions.push(Contradiction { record_id, said, put, against });
        }
    }

    /// Takes note of what became of an update.
    pub(super) fn became(&mut self, seq: u64, verdict: &'static str, applied: bool) {
        if applied {
            self.counts.applied = self.counts.applied.saturating_add(1);
        }
        if let Some(put) = self.put_mut(seq) {
            put.verdict = verdict;
            put.applied = applied;
        }
    }

    /// Takes note of a fault that happens to an update.
    pub(super) fn struck(&mut self, seq: u64, fault: &'static str) {
        if let Some(put) = self.put_mut(seq) {
            put.fault = Some(fault);
        }
    }

    /// Takes note of what was answered.
    pub(super) fn answered(&mut self, seq: u64, status: Option<u16>) {
        if let Some(put) = self.put_mut(seq) {
            put.answered = status;
        }
    }

    fn put_mut(&mut self, seq: u64) -> Option<&mut Put> {
        let first = self.puts.front()?.seq;
        let index = usize::try_from(seq.checked_sub(first)?).ok()?;
        self.puts.get_mut(index)
    }

    pub(super) fn puts(&self) -> impl Iterator<Item = &Put> {
        self.puts.iter()
    }
}
