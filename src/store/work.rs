//! The rows that one batch looks at, and what it does to them.
//!
//! The steps of the pipeline act on a [`Work`] in memory; [`super::batch`] loads it, and writes
//! what changed in one transaction. Nothing here touches the database, and nothing is true before
//! that transaction is committed.

mod actions;
mod changes;
mod facts;
mod messages;
mod refusals;
mod sums;
mod turns;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Duration,
};

use serde_json::Value;

pub(super) use changes::{
    Account, Changes, NewBookEvent, NewDecision, NewFinding, NewJobEvent, NewTransfer,
    NumberedAction, Sum, TrackedFeed, TrackedJob,
};
pub use changes::{
    AttemptEnd, BadMessage, BookEventOutcome, Contender, ContentHashKey, JobEventKind, Needs,
    NewAction, NewAttempt, OutcomeMessage, Owner, Subject,
};
pub(super) use sums::daily_key;

use super::alerts::AlertUpdate;
use super::archive::Removal;
use super::runs::FinishedRun;
use crate::domain::{
    action::Proposal,
    amount::{AmountError, Balance},
    book::{Connection, Currency},
    decision::{DecidedBy, Decision, Outcome},
    feed::BookSequence,
    ids::{AttemptSeq, BookEventId, ConnectionId, CurrencyCode, JobSeq, QuarantineSeq, RecordId},
    job::{ContentHash, Job, JobTerms, JobType},
    lag::GateView,
    ledger::{AccountKey, AccountKind, AccountTotals, Movement},
    limits::{ConnectionCaps, DailyKey},
    news::News,
    state::{Event, IllegalTransition},
    time::TimestampMs,
    turns::Turns,
};

/// Why a step could not act. The command that asked for it is refused; nothing of it is written.
#[derive(Debug, thiserror::Error)]
pub enum WorkError {
    /// The state machine forbids it.
    #[error(transparent)]
    Illegal(#[from] IllegalTransition),
    /// A total cannot be represented.
    #[error("record {record}: {source}")]
    Amount {
        /// The record it was about.
        record: String,
        /// What is wrong.
        source: AmountError,
    },
    /// What an operator accepts cannot be booked.
    #[error("connection {connection}: the difference cannot be booked: {reason}")]
    Unaccepted {
        /// Whose.
        connection: ConnectionId,
        /// Why not.
        reason: String,
    },
    /// The job is not in the book.
    #[error("job {0} is not in the book")]
    UnknownJob(JobSeq),
    /// A job without a decision where one is needed, or with one where there must be none.
    #[error("job {0} is not where its decision says it is")]
    Undecided(JobSeq),
    /// A text could not be written as JSON.
    #[error("cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// The signature did not verify against our own public key.
    #[error("the signature for job {0} does not verify: the key or the signer is faulty")]
    BadSignature(JobSeq),
}

impl WorkError {
    fn of_job(seq: JobSeq, source: AmountError) -> Self {
        Self::Amount { record: format!("of job {seq}"), source }
    }

    /// Whether this machine cannot be trusted to go on.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        matches!(self, Self::BadSignature(_))
    }
}

/// What the writer carries from one batch to the next: the last row numbers, which nobody else gives,
/// and whose turn it is.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(test, derive(Default))]
pub struct Counters {
    pub(super) job: i64,
    pub(super) attempt: i64,
    pub(super) account: i64,
    pub(super) transfer: i64,
    pub(super) book_event: i64,
    pub(super) job_event: i64,
    pub(super) quarantine: i64,
    pub(super) outbox: i64,
    pub(super) action: i64,
    pub(super) turns: Turns,
    pub(super) finding: i64,
    /// When the last restore was accepted.
    pub(super) restored_at: Option<TimestampMs>,
    /// For how long the book was far enough for decisions, as written down.
    pub(super) gate_open_ms: i64,
    /// When the exchange sent its last heartbeat.
    pub(super) heartbeat: Option<TimestampMs>,
}

impl Counters {
    /// The last attempt that was signed.
    #[must_use]
    pub fn last_attempt(&self) -> i64 {
        self.attempt
    }

    /// For how long the book was far enough for decisions.
    #[must_use]
    pub fn gate_open_time(&self) -> Duration {
        Duration::from_millis(u64::try_from(self.gate_open_ms).unwrap_or(0))
    }

    /// When the exchange sent its last heartbeat.
    #[must_use]
    pub fn heartbeat(&self) -> Option<TimestampMs> {
        self.heartbeat
    }
}

fn next(counter: &mut i64) -> i64 {
    // Row numbers start at one and would take 292 years at a thousand a microsecond to run out.
    *counter = counter.saturating_add(1);
    *counter
}

/// The rows of one batch.
pub struct Work {
    pub(super) now: TimestampMs,
    pub(super) counters: Counters,
    pub(super) jobs: BTreeMap<JobSeq, TrackedJob>,
    pub(super) by_record: HashMap<RecordId, JobSeq>,
    /// What was refused before, and the messages of what may be.
    pub(super) refused: HashSet<(RecordId, ContentHash)>,
    pub(super) raw_messages: HashMap<JobSeq, String>,
    pub(super) contenders: HashMap<RecordId, Vec<Contender>>,
    pub(super) connections: HashMap<ConnectionId, Connection>,
    pub(super) currencies: HashMap<CurrencyCode, Currency>,
    pub(super) connection_caps: HashMap<(ConnectionId, CurrencyCode), ConnectionCaps>,
    pub(super) currency_totals: BTreeMap<CurrencyCode, Sum>,
    /// What the records of a currency move that were taken in, and those that are final; as loaded.
    pub(super) jobs_before: BTreeMap<CurrencyCode, AccountTotals>,
    pub(super) daily: BTreeMap<DailyKey, Sum>,
    pub(super) accounts: BTreeMap<AccountKey, Account>,
    pub(super) book_events: HashMap<BookEventId, ContentHash>,
    /// What is known of the feeds of the connections above; nothing where nothing is.
    pub(super) feeds: HashMap<ConnectionId, TrackedFeed>,
    /// How the gate before decisions stands.
    pub(super) gate: GateView,
    pub(super) quarantined: HashMap<(String, ContentHashKey), QuarantineSeq>,
    pub(super) proposals: HashMap<JobSeq, Proposal>,
    pub(super) due_attempts: Vec<JobSeq>,
    pub(super) due_decisions: Vec<JobSeq>,
    pub(super) first_attempts_left: bool,
    pub(super) changes: Changes,
    pub(super) news: Vec<News>,
}

impl Work {
    pub(super) fn new(now: TimestampMs, counters: Counters) -> Self {
        Self {
            now,
            counters,
            jobs: BTreeMap::new(),
            by_record: HashMap::new(),
            refused: HashSet::new(),
            raw_messages: HashMap::new(),
            contenders: HashMap::new(),
            connections: HashMap::new(),
            currencies: HashMap::new(),
            connection_caps: HashMap::new(),
            currency_totals: BTreeMap::new(),
            jobs_before: BTreeMap::new(),
            daily: BTreeMap::new(),
            accounts: BTreeMap::new(),
            book_events: HashMap::new(),
            feeds: HashMap::new(),
            gate: GateView::default(),
            quarantined: HashMap::new(),
            proposals: HashMap::new(),
            due_attempts: Vec::new(),
            due_decisions: Vec::new(),
            first_attempts_left: false,
            changes: Changes::default(),
            news: Vec::new(),
        }
    }

    /// The time of this batch.
    #[must_use]
    pub fn now(&self) -> TimestampMs {
        self.now
    }

    /// The connection, if the book has it.
    #[must_use]
    pub fn connection(&self, id: ConnectionId) -> Option<&Connection> {
        self.connections.get(&id)
    }

    /// The currency, if the book has it.
    #[must_use]
    pub fn currency(&self, code: &CurrencyCode) -> Option<&Currency> {
        self.currencies.get(code)
    }

    /// What an account holds, movements of this batch included.
    #[must_use]
    pub fn balance(
        &self,
        connection_id: ConnectionId,
        currency: &CurrencyCode,
        kind: AccountKind,
    ) -> Balance {
        self.totals(connection_id, currency, kind).balance()
    }

    fn totals(
        &self,
        connection_id: ConnectionId,
        currency: &CurrencyCode,
        kind: AccountKind,
    ) -> AccountTotals {
        let key = AccountKey { connection_id, currency: currency.clone(), kind };
        self.accounts.get(&key).map(|account| account.totals).unwrap_or_default()
    }

    /// A job of this batch.
    ///
    /// # Errors
    /// [`WorkError::UnknownJob`].
    pub fn job(&self, seq: JobSeq) -> Result<&Job, WorkError> {
        self.jobs.get(&seq).map(|tracked| &tracked.job).ok_or(WorkError::UnknownJob(seq))
    }

    /// The job about a record, if there is one.
    #[must_use]
    pub fn find(&self, record_id: RecordId) -> Option<&Job> {
        let seq = self.by_record.get(&record_id)?;
        self.jobs.get(seq).map(|tracked| &tracked.job)
    }

    /// When the last restore was accepted, if there was one.
    #[must_use]
    pub fn restored_at(&self) -> Option<TimestampMs> {
        self.counters.restored_at
    }

    /// Notes what is to be told once the batch is committed.
    pub fn tell(&mut self, news: News) {
        self.news.push(news);
    }

    /// What is to be told once the batch is committed.
    #[must_use]
    pub fn take_news(&mut self) -> Vec<News> {
        std::mem::take(&mut self.news)
    }

    /// Takes a job in, with its message as it came.
    pub fn insert_job(
        &mut self,
        terms: JobTerms,
        raw: String,
        book_sequence: Option<BookSequence>,
    ) -> JobSeq {
        let seq = JobSeq::from(next(&mut self.counters.job));
        let mut job = Job::received(seq, terms, self.now);
        job.book_sequence = book_sequence;
        job.waits_since = self.gate.is_fed.then_some(self.gate.open_time);
        self.by_record.insert(job.terms.record_id, seq);
        self.count(job.state.name(), job.terms.job_type, 1);
        self.jobs.insert(seq, TrackedJob { job, before: None, changed: true });
        self.changes.raw_messages.push((seq, raw));
        seq
    }

    fn count(&mut self, state: &'static str, job_type: JobType, by: i64) {
        let count = self.changes.counts.entry((state, job_type)).or_default();
        *count = count.saturating_add(by);
    }

    /// A job that is about to change.
    ///
    /// # Errors
    /// [`WorkError::UnknownJob`].
    pub fn job_mut(&mut self, seq: JobSeq) -> Result<&mut Job, WorkError> {
        let tracked = self.jobs.get_mut(&seq).ok_or(WorkError::UnknownJob(seq))?;
        tracked.changed = true;
        Ok(&mut tracked.job)
    }

    /// Moves a job on by one event and says when its next step is due.
    ///
    /// # Errors
    /// [`WorkError`] when the state machine forbids it.
    pub fn advance(
        &mut self,
        seq: JobSeq,
        event: Event,
        next_step_at: Option<TimestampMs>,
    ) -> Result<(), WorkError> {
        let now = self.now;
        let job = self.job_mut(seq)?;
        let (before, after) = (job.state, job.state.apply(event)?);
        job.state = after;
        job.state_since = now;
        job.next_step_at = next_step_at;
        let job_type = job.terms.job_type;
        self.count(before.name(), job_type, -1);
        self.count(after.name(), job_type, 1);
        Ok(())
    }

    /// Stores the decision of a job with what it saw and who made it, and moves the job on.
    ///
    /// # Errors
    /// [`WorkError`] when the job is decided already.
    pub fn decide(
        &mut self,
        seq: JobSeq,
        decision: Decision,
        seen: String,
        by: DecidedBy,
    ) -> Result<(), WorkError> {
        self.advance(seq, Event::Decide, Some(self.now))?;
        self.store_decision(seq, decision, seen, by)
    }

    /// Stores the decision of a job with what it saw and who made it; the job moves on by another event.
    ///
    /// # Errors
    /// [`WorkError`] when the job is decided already.
    pub fn store_decision(
        &mut self,
        seq: JobSeq,
        decision: Decision,
        seen: String,
        by: DecidedBy,
    ) -> Result<(), WorkError> {
        let now = self.now;
        let job = self.job_mut(seq)?;
        if job.decision.is_some() {
            return Err(WorkError::Undecided(seq));
        }
        let outcome = decision.outcome();
        let news = News::Decided {
            record: job.terms.record_id,
            job_type: job.terms.job_type,
            outcome,
            reject_code: decision.reject_code().map(str::to_owned),
        };
        (job.decision, job.decided_at) = (Some(decision), Some(now));
        self.tell(news);
        self.changes.decisions.push(NewDecision { job: seq, seen, by });
        if outcome == Outcome::Cleared {
            self.sum_up_day(seq)?;
        }
        Ok(())
    }

    /// Books one movement between two accounts of a connection.
    ///
    /// # Errors
    /// [`WorkError::Amount`] when a total cannot be represented.
    pub fn book(
        &mut self,
        owner: Owner,
        connection_id: ConnectionId,
        currency: &CurrencyCode,
        movement: Movement,
    ) -> Result<(), WorkError> {
        let amount_error = |source| match owner {
            Owner::Job(seq) => WorkError::of_job(seq, source),
            Owner::BookEvent(seq) => {
                WorkError::Amount { record: format!("of book event {seq}"), source }
            }
        };
        let debit = {
            let account = self.account_mut(connection_id, currency, movement.debit);
            account.totals.debit(movement.quantity).map_err(amount_error)?;
            account.seq
        };
        let credit = {
            let account = self.account_mut(connection_id, currency, movement.credit);
            account.totals.credit(movement.quantity).map_err(amount_error)?;
            account.seq
        };
        self.sum_up_exposure(currency, &movement).map_err(amount_error)?;
        let seq = next(&mut self.counters.transfer);
        self.changes.transfers.push(NewTransfer { seq, owner, debit, credit, movement });
        Ok(())
    }

    fn account_mut(
        &mut self,
        connection_id: ConnectionId,
        currency: &CurrencyCode,
        kind: AccountKind,
    ) -> &mut Account {
        let key = AccountKey { connection_id, currency: currency.clone(), kind };
        let counter = &mut self.counters.account;
        self.accounts.entry(key).or_insert_with(|| Account {
            seq: next(counter),
            totals: AccountTotals::default(),
            before: None,
        })
    }

    /// Begins the next attempt of a job: answers its number in the book and its number for the job. What is
    /// begun must be added, or the batch is not committed.
    ///
    /// # Errors
    /// [`WorkError`] when the job is not in the book.
    pub fn begin_attempt(&mut self, job: JobSeq) -> Result<(AttemptSeq, u32), WorkError> {
        let seq = AttemptSeq::from(next(&mut self.counters.attempt));
        let now = self.now;
        let job = self.job_mut(job)?;
        job.attempts_made = job.attempts_made.saturating_add(1);
        (job.reads_made, job.absences) = (0, 0);
        job.tried_since.get_or_insert(now);
        let number = job.attempts_made;
        self.changes.attempts_begun = self.changes.attempts_begun.saturating_add(1);
        Ok((seq, number))
    }

    /// Adds attempts that were begun, once they are signed.
    pub fn add_attempts(&mut self, signed: impl IntoIterator<Item = NewAttempt>) {
        self.changes.attempts.extend(signed);
    }

    /// Stores how an attempt ended.
    pub fn finish_attempt(&mut self, seq: AttemptSeq, end: AttemptEnd) {
        self.changes.attempt_ends.push((seq, end));
    }

    /// Stores what happened to a job that no other table tells.
    pub fn note(&mut self, job: JobSeq, kind: JobEventKind, detail: &Value) {
        let seq = next(&mut self.counters.job_event);
        self.changes.job_events.push(NewJobEvent { seq, job, kind, detail: detail.to_string() });
    }

    /// Removes rows that are in an archive. One archiving fits into a batch: answers whether it does.
    pub fn archive(&mut self, removal: Removal) -> bool {
        let fits = self.changes.archiving.is_none();
        self.changes.archiving.get_or_insert(removal);
        fits
    }

    /// Writes a comparison with OES down.
    pub fn note_run(&mut self, run: FinishedRun) {
        self.changes.runs.push(run);
    }

    /// Writes down what has become of alerts and of the notices about them.
    pub fn note_alerts(&mut self, update: AlertUpdate) {
        self.changes.alerts.push(update);
    }
}
