//! OES as the worker meets it: records that end once, answers that may be lost or wrong.
//!
//! Written from the partner protocol, not from the worker: what an update is about is read from the
//! bytes that were sent.

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use serde_json::{Value, json};

use super::{
    edge,
    operation::{AtOes, PutFate, Stance},
};
use crate::domain::{
    decision::Outcome,
    ids::RecordId,
    job::JobTerms,
    record::{OesRecord, PolicyResult, Reading, RecordStatus},
    shown::ShownAmount,
};

/// Whether reads show a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shown {
    InFull,
    WithoutAmount,
    Not,
}

/// A record.
#[derive(Debug)]
pub(super) struct Entry {
    /// What the client asked for.
    pub(super) terms: Rc<JobTerms>,
    pub(super) status: RecordStatus,
    pub(super) shown: Shown,
    /// Whether an approval was asked for, by our update or by somebody else's doing.
    pub(super) has_approval: bool,
    pub(super) policy: Option<PolicyResult>,
    /// The outcome that waits for the approval.
    asked: Option<Outcome>,
}

impl Entry {
    pub(super) fn outcome(&self) -> Option<Outcome> {
        self.status.outcome()
    }

    /// Whether a message is about what the client asked for.
    pub(super) fn is_about(&self, terms: &JobTerms) -> bool {
        let of = |terms: &JobTerms| (terms.job_type, terms.connection_id, terms.amount.clone());
        of(&self.terms) == of(terms)
    }

    /// Whether somebody at BitGo has yet to approve.
    pub(super) fn is_pending(&self) -> bool {
        self.has_approval && self.policy.is_none() && self.outcome().is_none()
    }

    fn end(&mut self, outcome: Outcome) {
        self.status = match outcome {
            Outcome::Cleared => RecordStatus::Cleared,
            Outcome::Released => RecordStatus::Released,
        };
    }
}

pub(super) const fn other(outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Cleared => Outcome::Released,
        Outcome::Released => Outcome::Cleared,
    }
}

/// What comes back from an update.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: String,
    pub(super) retry_after_s: Option<u8>,
}

/// An update as OES reads it.
pub(super) struct Update {
    pub(super) record: RecordId,
    pub(super) outcome: Outcome,
    pub(super) nonce: String,
    fields: Value,
}

impl Update {
    pub(super) fn read(body: &str) -> Self {
        let fields: Value = serde_json::from_str(body).unwrap();
        let text = |name: &str| fields.get(name).and_then(Value::as_str);
        let record = text("allocationId").or_else(|| text("deallocationId")).unwrap();
        let outcome = match text("status").unwrap() {
            "cleared" => Outcome::Cleared,
            "released" => Outcome::Released,
            word => panic!("{word:?} is no status"),
        };
        Self {
            record: record.parse().unwrap(),
            outcome,
            nonce: text("nonce").unwrap().to_owned(),
            fields,
        }
    }

    pub(super) fn reject_reason(&self) -> Option<&str> {
        self.fields.get("rejectReason").and_then(Value::as_str)
    }

    /// Whether this is what the client asked for.
    fn is_about(&self, terms: &JobTerms) -> bool {
        let own = self.fields.get(format!("{}Id", terms.job_type.as_str()));
        own == Some(&json!(terms.record_id))
            && self.fields.get("connectionId") == Some(&json!(terms.connection_id))
            && self.fields.get("amount") == Some(&json!(terms.amount))
    }

    fn echo(&self, extra: &[(&str, &str)]) -> Answer {
        let mut fields = self.fields.clone();
        let object = fields.as_object_mut().unwrap();
        for name in ["status", "rejectReason", "nonce", "payload", "signature"] {
            object.remove(name);
        }
        for (name, value) in extra {
            object.insert((*name).to_owned(), json!(value));
        }
        Answer { status: 200, body: fields.to_string(), retry_after_s: None }
    }
}

fn error(status: u16) -> Answer {
    Answer { status, body: r#"{"error":"simulated"}"#.to_owned(), retry_after_s: None }
}

pub(super) struct Oes {
    stance: Stance,
    pub(super) records: BTreeMap<RecordId, Entry>,
    nonces: BTreeSet<String>,
    /// Updates that were lost to us and are still on their way.
    pub(super) lingering: Vec<String>,
}

impl Oes {
    pub(super) fn new(stance: Stance) -> Self {
        Self { stance, records: BTreeMap::new(), nonces: BTreeSet::new(), lingering: Vec::new() }
    }

    /// A client's request makes a record; the message about it may say something else.
    pub(super) fn reserve(&mut self, message: &Rc<JobTerms>, at_oes: AtOes) {
        let (terms, shown) = match at_oes {
            AtOes::Known => (Rc::clone(message), Shown::InFull),
            AtOes::Missing => (Rc::clone(message), Shown::Not),
            AtOes::WithoutAmount => (Rc::clone(message), Shown::WithoutAmount),
            AtOes::Other(difference) => {
                (Rc::new(edge::altered(message, difference)), Shown::InFull)
            }
        };
        let entry = Entry {
            terms,
            status: RecordStatus::Reserved,
            shown,
            has_approval: false,
            policy: None,
            asked: None,
        };
        self.records.insert(message.record_id, entry);
    }

    /// An update arrives. `None` is no answer.
    pub(super) fn put(&mut self, body: &str, fate: PutFate) -> Option<Answer> {
        let update = Update::read(body);
        match fate {
            PutFate::Works => Some(self.apply(&update)),
            PutFate::AppliedThenLost => {
                self.apply(&update);
                None
            }
            PutFate::LostBefore => None,
            PutFate::Lingers => {
                self.lingering.push(body.to_owned());
                None
            }
            PutFate::AppliedThen500 => {
                self.apply(&update);
                Some(error(500))
            }
            PutFate::Only500 => {
                if self.stance.nonce_consumed_by_500 {
                    self.nonces.insert(update.nonce);
                }
                Some(error(500))
            }
            PutFate::RateLimited { retry_after_s } => Some(Answer { retry_after_s, ..error(429) }),
            PutFate::Refused { status } => Some(error(status)),
            PutFate::WrongEcho { applied } => {
                let answer = if applied { self.apply(&update) } else { error(200) };
                let echo = update.echo(&[("clientId", "00000000-0000-4000-8000-000000000000")]);
                Some(if answer.status == 200 { echo } else { answer })
            }
            PutFate::Garbled { applied } => {
                let answer = if applied { self.apply(&update) } else { error(200) };
                Some(Answer { body: "<html>".to_owned(), ..answer })
            }
            PutFate::AsksApproval => Some(self.ask_approval(&update)),
            PutFate::PolicyRejects { ends } => Some(self.reject_by_policy(&update, ends)),
        }
    }

    /// An update that lingered arrives; nobody waits for the answer.
    pub(super) fn arrive(&mut self, which: usize) {
        if !self.lingering.is_empty() {
            let body = self.lingering.swap_remove(which % self.lingering.len());
            self.apply(&Update::read(&body));
        }
    }

    /// The record that can still end.
    fn open(&mut self, record: RecordId) -> Option<&mut Entry> {
        self.records.get_mut(&record).filter(|entry| {
            entry.shown != Shown::Not
                && entry.outcome().is_none()
                && !entry.is_pending()
                && entry.policy != Some(PolicyResult::Rejected)
        })
    }

    /// The record that an update can still end.
    fn open_to(&mut self, update: &Update) -> Option<&mut Entry> {
        self.open(update.record).filter(|entry| update.is_about(&entry.terms))
    }

    fn apply(&mut self, update: &Update) -> Answer {
        if !self.nonces.insert(update.nonce.clone()) {
            return error(400);
        }
        if let Some(entry) = self.open_to(update) {
            entry.end(update.outcome);
            return update.echo(&[]);
        }
        let stance = self.stance;
        let Some(entry) = self.records.get(&update.record) else { return error(404) };
        match entry.outcome() {
            _ if entry.shown == Shown::Not => error(404),
            _ if !update.is_about(&entry.terms) => error(422),
            Some(outcome) if outcome == update.outcome && stance.repeat_accepted => {
                update.echo(&[])
            }
            Some(outcome) if outcome == update.outcome => error(409),
            Some(_) | None if stance.contrary_is_409 => error(409),
            Some(_) | None => error(422),
        }
    }

    fn ask_approval(&mut self, update: &Update) -> Answer {
        let Some(entry) = self.open_to(update).filter(|entry| !entry.has_approval) else {
            return self.apply(update);
        };
        entry.has_approval = true;
        entry.asked = Some(update.outcome);
        self.nonces.insert(update.nonce.clone());
        update.echo(&[("pendingApprovalId", "approval-1")])
    }

    fn reject_by_policy(&mut self, update: &Update, ends: bool) -> Answer {
        let Some(entry) = self.open_to(update) else { return self.apply(update) };
        entry.policy = Some(PolicyResult::Rejected);
        if ends {
            entry.end(other(update.outcome));
        }
        self.nonces.insert(update.nonce.clone());
        update.echo(&[("policyResult", "rejected")])
    }

    /// OES ends a record by itself.
    pub(super) fn end_by_itself(&mut self, record: RecordId, outcome: Outcome, rejected: bool) {
        if let Some(entry) = self.open(record) {
            entry.end(outcome);
            entry.policy = rejected.then_some(PolicyResult::Rejected);
        }
    }

    /// An approval is asked for that our update did not cause.
    pub(super) fn ask_approval_unasked(&mut self, record: RecordId) {
        if let Some(entry) = self.open(record) {
            entry.has_approval = true;
        }
    }

    pub(super) fn end_approval(&mut self, record: RecordId, approved: bool, ends: bool) {
        let Some(entry) = self.records.get_mut(&record).filter(|entry| entry.is_pending()) else {
            return;
        };
        if approved {
            entry.policy = Some(PolicyResult::Approved);
            if let Some(outcome) = entry.asked {
                entry.end(outcome);
            }
        } else {
            entry.policy = Some(PolicyResult::Rejected);
            if let Some(outcome) = entry.asked.filter(|_| ends) {
                entry.end(other(outcome));
            }
        }
    }

    pub(super) fn show(&mut self, record: RecordId) {
        if let Some(entry) = self.records.get_mut(&record) {
            entry.shown = Shown::InFull;
        }
    }

    /// The record as a read shows it.
    pub(super) fn read(&self, id: RecordId) -> Reading {
        let Some(entry) = self.records.get(&id).filter(|entry| entry.shown != Shown::Not) else {
            return Reading::Absent;
        };
        let amount = ShownAmount {
            currency: entry.terms.amount.currency().to_string(),
            quantity: entry.terms.amount.quantity().to_string(),
        };
        Reading::Found(OesRecord {
            id,
            job_type: entry.terms.job_type,
            status: entry.status,
            connection_id: entry.terms.connection_id,
            amount: (entry.shown == Shown::InFull).then_some(amount),
            reason: None,
            created_at: None,
            pending_approval_id: entry.has_approval.then(|| "approval-1".to_owned()),
            policy_result: entry.policy,
        })
    }
}
