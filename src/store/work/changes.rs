//! What a batch needs to see, and what it will write.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::domain::{
    action::{ActionKind, Operator, Switch},
    book::BookEvent,
    decision::{DecidedBy, Outcome},
    feed::ConnectionFeed,
    ids::{
        AttemptSeq, BookEventId, BookEventSeq, ConnectionId, CurrencyCode, JobSeq, OutboxSeq,
        QuarantineSeq, RecordId,
    },
    job::{ContentHash, Job, JobTerms, JobType},
    ledger::{AccountTotals, Movement},
    message::Refusal,
    payload::{Nonce, Signature},
    state::State,
    time::TimestampMs,
};
use crate::store::alerts::AlertUpdate;
use crate::store::archive::Removal;
use crate::store::runs::FinishedRun;

/// What a batch needs to see.
#[derive(Debug, Default)]
pub struct Needs {
    /// Records that messages name.
    pub records: BTreeSet<RecordId>,
    /// Jobs that answers and reads are about.
    pub jobs: BTreeSet<JobSeq>,
    /// Connections by id; those of the jobs are loaded anyway.
    pub connections: BTreeSet<ConnectionId>,
    /// Currencies by code; those of the jobs are loaded anyway.
    pub currencies: BTreeSet<CurrencyCode>,
    /// Accounts by connection and currency; those of the jobs are loaded anyway.
    pub accounts: BTreeSet<(ConnectionId, CurrencyCode)>,
    /// Book events by the exchange's id.
    pub book_events: BTreeSet<BookEventId>,
    /// Connections all accounts of which are looked at.
    pub whole_connections: BTreeSet<ConnectionId>,
    /// Bad messages by queue and hash.
    pub quarantined: BTreeSet<(String, ContentHashKey)>,
    /// Messages by queue and hash that are bad only if something else is known of their record.
    pub doubtful: Vec<(RecordId, (String, ContentHashKey))>,
    /// Records whose end an operator may have proposed.
    pub proposals: BTreeSet<RecordId>,
    /// Jobs whose record does not plainly bear their message out, with the queue that it came from: what
    /// refusing them takes.
    pub accused: BTreeMap<JobSeq, String>,
    /// Whether records are read before they are decided, whatever else asks for it.
    pub verifies: bool,
    /// How many jobs that are due for an attempt to look for.
    pub due_attempts: usize,
    /// How many jobs that can be decided to look for.
    pub due_decisions: usize,
}

/// A hash that sorts, so that needs have one order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentHashKey(pub [u8; 32]);

impl From<ContentHash> for ContentHashKey {
    fn from(hash: ContentHash) -> Self {
        Self(*hash.as_bytes())
    }
}

/// A signed attempt that goes to disk before it is sent.
#[derive(Clone, Debug)]
pub struct NewAttempt {
    /// Its number in the book.
    pub seq: AttemptSeq,
    /// Its number for the job.
    pub number: u32,
    /// For which job.
    pub job: JobSeq,
    /// The decision's outcome; the database checks it.
    pub outcome: Outcome,
    /// Its own nonce.
    pub nonce: Nonce,
    /// The exact request body.
    pub body: String,
    /// The signature in it.
    pub signature: Signature,
}

/// What is known of an attempt once it is over.
#[derive(Clone, Debug, Default)]
pub struct AttemptEnd {
    /// What the answer meant, one word.
    pub result: &'static str,
    /// The answer's status, if there was an answer.
    pub http_status: Option<u16>,
    /// OES's own id of the request.
    pub request_id: Option<String>,
    /// The start of the answer's body.
    pub response: Option<String>,
    /// What happened, for a reader.
    pub detail: Option<String>,
}

/// What happened to a job that no other table tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobEventKind {
    /// The record was read, and that moved the job.
    ReadBack,
    /// An operator must look.
    Parked,
    /// An operator has looked, and sends it on.
    SentOn,
    /// An operator has approved what is above the threshold.
    Approved,
    /// An operator has refused it.
    Refused,
    /// An operator has said how OES ended a record that is in conflict.
    EndProposed,
    /// Another operator has said the same.
    EndConfirmed,
}

impl JobEventKind {
    pub(in crate::store) const fn as_str(self) -> &'static str {
        match self {
            Self::ReadBack => "read_back",
            Self::Parked => "parked",
            Self::SentOn => "sent_on",
            Self::Approved => "approved",
            Self::Refused => "refused",
            Self::EndProposed => "end_proposed",
            Self::EndConfirmed => "end_confirmed",
        }
    }
}

/// A message that never acts.
#[derive(Clone, Debug)]
pub struct BadMessage {
    /// The queue it came from.
    pub queue: String,
    /// SHA-256 over the bytes.
    pub sha256: [u8; 32],
    /// The message as it came.
    pub bytes: Vec<u8>,
    /// Why it is refused.
    pub refusal: Refusal,
    /// The record it names, where that could be read.
    pub record_id: Option<RecordId>,
}

/// A message that came while another one had its record's id.
#[derive(Clone, Debug)]
pub struct Contender {
    /// What it is about.
    pub terms: JobTerms,
    /// The message as it came.
    pub raw: String,
    /// The queue it came from.
    pub queue: String,
}

/// An outcome to publish.
#[derive(Clone, Debug)]
pub struct OutcomeMessage {
    /// The job that ended.
    pub job: JobSeq,
    /// The id that stays the same for ever.
    pub event_id: Uuid,
    /// What queues bind to.
    pub routing_key: String,
    /// The event as JSON.
    pub body: String,
}

/// Whose movement it is.
#[derive(Clone, Copy, Debug)]
pub enum Owner {
    /// A record's.
    Job(JobSeq),
    /// A fed fact's.
    BookEvent(BookEventSeq),
}

/// What became of a book event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum BookEventOutcome {
    /// It is in the book now.
    Applied,
    /// It was already.
    AlreadyApplied,
    /// The id is known with another content; nothing changed.
    Contradicts,
    /// It is about a connection that the book does not have; nothing changed.
    UnknownConnection,
    /// Its number has come before, or what came since says more; nothing that it says was taken.
    Superseded,
    /// It is a snapshot, and the book has something else: that is told, and no balance changed.
    Differs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) struct Account {
    pub(in crate::store) seq: i64,
    pub(in crate::store) totals: AccountTotals,
    /// As loaded; `None` for an account that this batch makes.
    pub(in crate::store) before: Option<AccountTotals>,
}

/// A sum of two sides that is kept beside the movements it comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::store) struct Sum {
    pub(in crate::store) totals: AccountTotals,
    /// As loaded; `None` for one that this batch begins.
    pub(in crate::store) before: Option<AccountTotals>,
}

impl Sum {
    pub(in crate::store) fn loaded(totals: AccountTotals) -> Self {
        Self { totals, before: Some(totals) }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::store) struct TrackedJob {
    pub(in crate::store) job: Job,
    /// The state as loaded; `None` for a job that this batch takes in.
    pub(in crate::store) before: Option<&'static str>,
    pub(in crate::store) changed: bool,
}

impl TrackedJob {
    /// Whether it was final before this batch.
    pub(in crate::store) fn was_final(&self) -> bool {
        self.before.is_some_and(|state| State::FINAL_NAMES.contains(&state))
    }
}

/// What is known of a feed, and whether that has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::store) struct TrackedFeed {
    pub(in crate::store) feed: ConnectionFeed,
    pub(in crate::store) changed: bool,
}

impl TrackedFeed {
    pub(in crate::store) fn new() -> Self {
        Self { feed: ConnectionFeed::default(), changed: false }
    }
}

/// Something that is wrong with a feed.
pub(in crate::store) struct NewFinding {
    pub(in crate::store) seq: i64,
    pub(in crate::store) kind: &'static str,
    pub(in crate::store) connection: ConnectionId,
    pub(in crate::store) event: BookEventSeq,
    pub(in crate::store) detail: Value,
}

pub(in crate::store) struct NewDecision {
    pub(in crate::store) job: JobSeq,
    pub(in crate::store) seen: String,
    pub(in crate::store) by: DecidedBy,
}

pub(in crate::store) struct NewTransfer {
    pub(in crate::store) seq: i64,
    pub(in crate::store) owner: Owner,
    pub(in crate::store) debit: i64,
    pub(in crate::store) credit: i64,
    pub(in crate::store) movement: Movement,
}

pub(in crate::store) struct NewJobEvent {
    pub(in crate::store) seq: i64,
    pub(in crate::store) job: JobSeq,
    pub(in crate::store) kind: JobEventKind,
    pub(in crate::store) detail: String,
}

/// An operator's action, to be journalled.
#[derive(Clone, Debug)]
pub struct NewAction {
    /// What was done.
    pub kind: ActionKind,
    /// By whom, and why.
    pub by: Operator,
    /// To what.
    pub subject: Subject,
    /// What became of it.
    pub detail: Value,
}

/// What an action was done to.
#[derive(Clone, Copy, Debug)]
pub enum Subject {
    /// A job.
    Job(JobSeq),
    /// A job that is in conflict: how OES is said to have ended its record, and, for the first word about
    /// it, until when another operator may confirm it.
    End(JobSeq, Outcome, Option<TimestampMs>),
    /// A quarantined message.
    Message(QuarantineSeq),
    /// A switch, and whether it is on now.
    Switch(Switch, bool),
    /// A connection.
    Connection(ConnectionId),
}

pub(in crate::store) struct NumberedAction {
    pub(in crate::store) seq: i64,
    pub(in crate::store) action: NewAction,
}

pub(in crate::store) struct NewBookEvent {
    pub(in crate::store) seq: BookEventSeq,
    pub(in crate::store) event: BookEvent,
    pub(in crate::store) body: String,
    pub(in crate::store) source: String,
}

/// Everything that the commit will write.
#[derive(Default)]
pub(in crate::store) struct Changes {
    pub(in crate::store) raw_messages: Vec<(JobSeq, String)>,
    pub(in crate::store) decisions: Vec<NewDecision>,
    pub(in crate::store) transfers: Vec<NewTransfer>,
    pub(in crate::store) attempts: Vec<NewAttempt>,
    /// How many attempts were begun: as many must be written.
    pub(in crate::store) attempts_begun: usize,
    pub(in crate::store) attempt_ends: Vec<(AttemptSeq, AttemptEnd)>,
    pub(in crate::store) job_events: Vec<NewJobEvent>,
    pub(in crate::store) quarantined: Vec<(QuarantineSeq, BadMessage)>,
    pub(in crate::store) seen_again: BTreeMap<QuarantineSeq, u32>,
    pub(in crate::store) outcomes: Vec<(OutboxSeq, OutcomeMessage)>,
    pub(in crate::store) dead_letters: Vec<(OutboxSeq, QuarantineSeq, Uuid, String)>,
    pub(in crate::store) published: BTreeSet<OutboxSeq>,
    pub(in crate::store) book_events: Vec<NewBookEvent>,
    pub(in crate::store) connections: BTreeMap<ConnectionId, BookEventSeq>,
    pub(in crate::store) currencies: BTreeMap<CurrencyCode, BookEventSeq>,
    /// Rows that are removed, because they are in an archive.
    pub(in crate::store) archiving: Option<Removal>,
    pub(in crate::store) connection_caps: BTreeMap<(ConnectionId, CurrencyCode), BookEventSeq>,
    pub(in crate::store) counts: BTreeMap<(&'static str, JobType), i64>,
    pub(in crate::store) runs: Vec<FinishedRun>,
    pub(in crate::store) actions: Vec<NumberedAction>,
    pub(in crate::store) alerts: Vec<AlertUpdate>,
    pub(in crate::store) feed_findings: Vec<NewFinding>,
    /// Whether a heartbeat came.
    pub(in crate::store) heartbeat: bool,
}
