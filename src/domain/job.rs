//! What a job is about: the terms that the exchange and OES agreed on for one record.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, Serialize};
use sha2::{Digest, Sha256};

use super::{
    amount::Amount,
    decision::{Decision, Outcome},
    feed::BookSequence,
    ids::{
        ClientId, ConnectionId, FromStrVisitor, JobSeq, PartnersClientId, PartnersConnectionId,
        PartnersRecordId, RecordId,
    },
    schedule::Tries,
    state::State,
    time::TimestampMs,
};

/// Which way the funds move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum JobType {
    /// From the client's BitGo account to the connection.
    Allocation,
    /// From the connection back to the client's BitGo account.
    Deallocation,
}

impl JobType {
    /// Both types, for listings and tests.
    pub const ALL: [Self; 2] = [Self::Allocation, Self::Deallocation];

    /// The word that OES, messages, rows and metrics use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allocation => "allocation",
            Self::Deallocation => "deallocation",
        }
    }
}

impl fmt::Display for JobType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that names no type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("neither \"allocation\" nor \"deallocation\"")]
pub struct UnknownJobType;

impl FromStr for JobType {
    type Err = UnknownJobType;

    fn from_str(word: &str) -> Result<Self, UnknownJobType> {
        Self::ALL.into_iter().find(|job_type| job_type.as_str() == word).ok_or(UnknownJobType)
    }
}

impl<'de> Deserialize<'de> for JobType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(FromStrVisitor::<Self>::new())
    }
}

/// SHA-256 over the named fields of a job: two messages with one id and one hash are one job.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ContentHash([u8; 32]);

impl ContentHash {
    /// The hash as bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<[u8; 32]> for ContentHash {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Everything about a record that is signed, apart from the decision and the nonce.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct JobTerms {
    /// Allocation or deallocation.
    #[serde(rename = "type")]
    pub job_type: JobType,
    /// The record at OES.
    pub record_id: RecordId,
    /// How much of what.
    pub amount: Amount,
    /// The client at BitGo.
    pub client_id: ClientId,
    /// The connection at BitGo.
    pub connection_id: ConnectionId,
    /// The client on the exchange.
    pub partners_client_id: PartnersClientId,
    /// The connection on the exchange.
    pub partners_connection_id: PartnersConnectionId,
    /// The record on the exchange.
    pub partners_record_id: PartnersRecordId,
}

impl JobTerms {
    /// The hash that tells a repeated message from a contradicting one.
    #[must_use]
    pub fn content_hash(&self) -> ContentHash {
        let mut hasher = Sha256::new();
        // Each field goes in with its length, so that no two different sets of fields are one text.
        for field in [
            self.job_type.as_str(),
            &self.record_id.to_string(),
            self.amount.currency().as_str(),
            &self.amount.quantity().to_string(),
            &self.client_id.to_string(),
            &self.connection_id.to_string(),
            self.partners_client_id.as_str(),
            self.partners_connection_id.as_str(),
            self.partners_record_id.as_str(),
        ] {
            hasher.update(u64::try_from(field.len()).unwrap_or(u64::MAX).to_be_bytes());
            hasher.update(field.as_bytes());
        }
        ContentHash(hasher.finalize().into())
    }
}

/// A job as the book holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Its number here.
    pub seq: JobSeq,
    /// What it is about; never changes.
    pub terms: JobTerms,
    /// The hash of the terms.
    pub content_hash: ContentHash,
    /// When it was taken in.
    pub received_at: TimestampMs,
    /// How far it has come.
    pub state: State,
    /// When it came there.
    pub state_since: TimestampMs,
    /// What was decided, once it was; never changes.
    pub decision: Option<Decision>,
    /// When it was decided.
    pub decided_at: Option<TimestampMs>,
    /// How OES ended it, once it has.
    pub final_outcome: Option<Outcome>,
    /// When the next step of its state is due; `None` when something else will tell.
    pub next_step_at: Option<TimestampMs>,
    /// Attempts prepared.
    pub attempts_made: u32,
    /// Attempts that count against the bound.
    pub attempts_counted: u32,
    /// Reads since the last attempt that settled nothing.
    pub reads_made: u32,
    /// Those of them that OES answered with "there is no such record".
    pub absences: u32,
    /// Since when the bounds of retrying count: the first attempt, or an operator's word.
    pub tried_since: Option<TimestampMs>,
    /// When OES's record was last seen to be what the message says, and younger than the last restore,
    /// as far as these are asked for.
    pub verified_at: Option<TimestampMs>,
    /// The `pendingApprovalId` that the record had then.
    pub approval_before: Option<String>,
    /// How far its connection's feed must have come before it is decided; never changes.
    pub book_sequence: Option<BookSequence>,
    /// The gate's open time from which its waiting for the book counts; `None` if there was no feed.
    pub waits_since: Option<Duration>,
    /// Whether it waits until its connection's feed moves, or its next step is due.
    pub waits_for_book: bool,
}

impl Job {
    /// A job that has just arrived.
    #[must_use]
    pub fn received(seq: JobSeq, terms: JobTerms, now: TimestampMs) -> Self {
        Self {
            seq,
            content_hash: terms.content_hash(),
            terms,
            received_at: now,
            state: State::Received,
            state_since: now,
            decision: None,
            decided_at: None,
            final_outcome: None,
            next_step_at: Some(now),
            attempts_made: 0,
            attempts_counted: 0,
            reads_made: 0,
            absences: 0,
            tried_since: None,
            verified_at: None,
            approval_before: None,
            book_sequence: None,
            waits_since: None,
            waits_for_book: false,
        }
    }

    /// What has been tried, seen at `now`.
    #[must_use]
    pub fn tries(&self, now: TimestampMs) -> Tries {
        Tries {
            attempts: self.attempts_counted,
            reads: self.reads_made,
            absences: self.absences,
            age: self.tried_since.map_or(Duration::ZERO, |since| now.since(since)),
        }
    }
}
