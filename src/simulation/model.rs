//! The reference model: what must be true, worked out from what happened and not from the steps.
//!
//! It knows the messages that were committed, the facts that were fed, what OES was sent and what it
//! holds. From these it says which decision each record must get, what each account must hold, when an
//! attempt may follow another, and why a job may be parked. It shares types with the worker, and no
//! rule.

mod money;
mod promises;
mod reasons;

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use uuid::Uuid;

use self::{
    money::{Due, Money},
    reasons::Evidence,
};
use super::{
    edge::Message,
    oes::Oes,
    operation::{PutFate, ReadFate},
};
use crate::{
    domain::{
        book::BookEvent,
        decision::{Decision, Outcome},
        ids::{AttemptSeq, JobSeq, RecordId},
        job::{Job, JobTerms},
        policy::OperatorWord,
        record::{Reading, RecordStatus},
        state::{ParkReason, State},
        time::{Day, TimestampMs},
    },
    store::memory::MemoryBook,
};

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Violation {
    /// Which one.
    pub(super) promise: &'static str,
    /// How.
    pub(super) detail: String,
}

impl Violation {
    pub(super) fn new(promise: &'static str, detail: impl Into<String>) -> Self {
        Self { promise, detail: detail.into() }
    }
}

/// Insists on a promise.
fn holds(
    promise: &'static str,
    is_kept: bool,
    detail: impl FnOnce() -> String,
) -> Result<(), Violation> {
    if is_kept { Ok(()) } else { Err(Violation::new(promise, detail())) }
}

/// What a transaction was about, in the order in which it acted.
pub(super) enum Touched {
    Message(Message),
    Job(JobSeq),
    SentOn(JobSeq),
    Word(JobSeq, OperatorWord),
    Fact(Box<BookEvent>),
}

/// The last attempt of a record.
struct Attempt {
    seq: AttemptSeq,
    /// OES said that it did not look at it, and that was heard.
    turned_away: bool,
    /// The record was seen reserved after the attempt was over.
    seen_reserved: bool,
}

/// A record.
struct Known {
    terms: Rc<JobTerms>,
    state: State,
    received_at: TimestampMs,
    decided: Option<Outcome>,
    decided_on: Option<Day>,
    reject_reason: Option<String>,
    ended: Option<Outcome>,
    last_attempt: Option<Attempt>,
    event_id: Option<Uuid>,
    evidence: Evidence,
}

/// What the answers of OES allow; forgotten when the process ends.
#[derive(Default)]
struct Leave {
    paused_until: Option<TimestampMs>,
    token_refused: bool,
}

#[derive(Default)]
pub(super) struct Model {
    records: BTreeMap<RecordId, Known>,
    money: Money,
    attempts_seen: Option<AttemptSeq>,
    nonces: BTreeSet<String>,
    sent: BTreeSet<AttemptSeq>,
    acked: Vec<Message>,
    leave: Leave,
}

impl Model {
    /// Follows a transaction that is committed, or a restart.
    pub(super) fn observe(
        &mut self,
        book: &MemoryBook,
        oes: &Oes,
        touched: &[Touched],
        now: TimestampMs,
    ) -> Result<(), Violation> {
        for what in touched {
            match what {
                Touched::Message(Message { terms: None, .. }) => {}
                Touched::Message(Message { terms: Some(terms), .. }) => {
                    self.recorded(terms, book, oes, now)?;
                }
                Touched::Job(seq) => self.look_at(&book.jobs[seq], None, oes, now)?,
                Touched::Word(seq, word) => {
                    self.look_at(&book.jobs[seq], Some(*word), oes, now)?;
                }
                Touched::SentOn(seq) => {
                    let job = &book.jobs[seq];
                    if let Some(known) = self.records.get_mut(&job.terms.record_id) {
                        known.evidence.begin_anew(job.state != known.state);
                    }
                    self.look_at(job, None, oes, now)?;
                }
                Touched::Fact(event) => self.money.apply(event),
            }
        }
        self.follow_attempts(book, now)?;
        self.money.check(book)
    }

    /// The slower checks, for the end of a run.
    pub(super) fn check_movements(book: &MemoryBook) -> Result<(), Violation> {
        Money::check_movements(book)
    }

    /// A message was committed: the first one about a record holds.
    fn recorded(
        &mut self,
        terms: &Rc<JobTerms>,
        book: &MemoryBook,
        oes: &Oes,
        now: TimestampMs,
    ) -> Result<(), Violation> {
        let Some(job) = book.find(terms.record_id) else {
            return Err(Violation::new("a committed message has its job", format!("{terms:?}")));
        };
        self.records.entry(terms.record_id).or_insert_with(|| Known {
            terms: Rc::clone(terms),
            state: State::Received,
            received_at: now,
            decided: None,
            decided_on: None,
            reject_reason: None,
            ended: None,
            last_attempt: None,
            event_id: None,
            evidence: Evidence::default(),
        });
        self.look_at(job, None, oes, now)
    }

    /// Follows one job from what it was to what it is, after an operator's word if there was one.
    fn look_at(
        &mut self,
        job: &Job,
        word: Option<OperatorWord>,
        oes: &Oes,
        now: TimestampMs,
    ) -> Result<(), Violation> {
        let record = job.terms.record_id;
        let known = self.records.get_mut(&record).ok_or_else(|| {
            Violation::new("a job comes from a message", format!("{record} does not"))
        })?;
        holds("the first message holds", job.terms == *known.terms, || {
            format!("{:?} became {:?}", known.terms, job.terms)
        })?;
        let (before, after) = (known.state, job.state);
        holds("a job takes legal steps only", may_follow(before, after), || {
            format!("{record}: {before} → {after}")
        })?;
        let needs_word = before == State::Parked(ParkReason::NeedsApproval);
        holds(
            "a word moves only what waits for one",
            needs_word || word.is_none() || before == after,
            || format!("{record}: {before} → {after} with {word:?}"),
        )?;
        let decided = job.decision.as_ref().map(Decision::outcome);
        if known.decided.is_none() && decided.is_some() {
            holds(
                "what needs approval is decided by a word",
                needs_word == word.is_some(),
                || format!("{record}: {before} → {after} with {word:?}"),
            )?;
            let expected = self.money.ruling(&known.terms, known.received_at, now, word);
            holds("a decision follows the book", expected == Due::of(decided), || {
                format!("{record}: decided {decided:?}, and the model says {expected:?}")
            })?;
            known.decided = decided;
            known.decided_on = Some(now.day());
            known.reject_reason =
                job.decision.as_ref().and_then(Decision::reject_reason).map(str::to_owned);
            let is_cleared = decided == Some(Outcome::Cleared);
            self.money.decided(&known.terms, now.day(), is_cleared);
            let keeps = !is_cleared || self.money.keeps_caps(&known.terms, now.day());
            holds("no cap is exceeded by what is cleared and pending", keeps, || {
                record.to_string()
            })?;
        }
        if known.ended.is_none()
            && let (Some(decided), Some(actual)) = (known.decided, job.final_outcome)
        {
            known.ended = Some(actual);
            self.money.ended(&known.terms, known.decided_on, decided, actual);
        }
        if before != after {
            let entry = oes.records.get(&record);
            reasons::check(known, after, entry, now, &self.money)?;
        }
        known.state = after;
        Ok(())
    }

    /// New attempts: each carries the decision, with a nonce of its own, when one may follow.
    fn follow_attempts(&mut self, book: &MemoryBook, now: TimestampMs) -> Result<(), Violation> {
        let first = self.attempts_seen.map_or(i64::MIN, |seen| seen.get().saturating_add(1));
        for (seq, row) in book.attempts.range(AttemptSeq::from(first)..) {
            self.attempts_seen = Some(*seq);
            let record = book.jobs[&row.attempt.job].terms.record_id;
            let Some(known) = self.records.get_mut(&record) else {
                return Err(Violation::new("an attempt has its record", record.to_string()));
            };
            promises::carries_decision(known, &row.attempt.body)?;
            holds(
                "a nonce belongs to one attempt",
                self.nonces.insert(row.attempt.nonce.as_str().to_owned()),
                || format!("{record}: attempt {seq} has the nonce of another"),
            )?;
            let may = (known.last_attempt.as_ref())
                .is_none_or(|last| last.turned_away || last.seen_reserved);
            holds("nothing is sent again without a read", may, || {
                format!("{record}: attempt {seq} follows a doubt")
            })?;
            holds(
                "a pause that OES asked for is kept",
                self.leave.paused_until.is_none_or(|until| now >= until),
                || format!("{record}: attempt {seq} at {now}"),
            )?;
            holds("a refused token is not used for updates", !self.leave.token_refused, || {
                format!("{record}: attempt {seq}")
            })?;
            known.evidence.attempted(now);
            known.last_attempt =
                Some(Attempt { seq: *seq, turned_away: false, seen_reserved: false });
        }
        Ok(())
    }

    /// An update leaves.
    pub(super) fn sent(
        &mut self,
        book: &MemoryBook,
        seq: AttemptSeq,
        body: &str,
    ) -> Result<(), Violation> {
        let row = book.attempts.get(&seq);
        holds(
            "what leaves is committed before",
            row.is_some_and(|row| row.attempt.body == body && row.result.is_none()),
            || format!("attempt {seq}: {row:?}"),
        )?;
        holds("an attempt is sent once", self.sent.insert(seq), || format!("attempt {seq}"))?;
        // These are the bytes that were looked at when they were committed.
        let record = book.jobs[&row.unwrap().attempt.job].terms.record_id;
        let known = &self.records[&record];
        let is_last = known.last_attempt.as_ref().is_some_and(|last| last.seq == seq);
        holds("only the last attempt is sent", is_last, || format!("{record}: attempt {seq}"))
    }

    /// OES answered an update, or did not.
    pub(super) fn answered(
        &mut self,
        record: RecordId,
        fate: PutFate,
        status: Option<u16>,
        retry_at: Option<TimestampMs>,
    ) {
        if let Some(known) = self.records.get_mut(&record) {
            known.evidence.answered(fate, status);
            if let Some(last) = known.last_attempt.as_mut() {
                last.turned_away = status == Some(429);
            }
        }
        match status {
            Some(429) => self.leave.paused_until = self.leave.paused_until.max(retry_at),
            Some(401) => self.leave.token_refused = true,
            None | Some(403 | 500..=599) => {}
            Some(_) => self.leave.token_refused = false,
        }
    }

    /// OES answered a read, or did not.
    pub(super) fn read_answered(&mut self, fate: ReadFate, retry_at: Option<TimestampMs>) {
        match fate {
            ReadFate::Works | ReadFate::ShowsNothing => self.leave.token_refused = false,
            ReadFate::Unauthorized => self.leave.token_refused = true,
            ReadFate::RateLimited { .. } => {
                self.leave.paused_until = self.leave.paused_until.max(retry_at);
            }
            ReadFate::Fails => {}
        }
    }

    /// OES showed a record.
    pub(super) fn was_read(&mut self, book: &MemoryBook, record: RecordId, reading: &Reading) {
        let Some(known) = self.records.get_mut(&record) else { return };
        let Reading::Found(found) = reading else { return self.was_not_shown(record) };
        if let Some(last) = known.last_attempt.as_mut() {
            let is_over = book.attempts.get(&last.seq).is_some_and(|row| row.result.is_some());
            last.seen_reserved = is_over && found.status == RecordStatus::Reserved;
        }
    }

    /// OES did not show a record.
    pub(super) fn was_not_shown(&mut self, record: RecordId) {
        if let Some(known) = self.records.get_mut(&record) {
            known.evidence.absent = true;
        }
    }

    /// The process has ended, and with it what it knew of OES's answers.
    pub(super) fn restarted(&mut self) {
        self.leave = Leave::default();
        for known in self.records.values_mut() {
            known.evidence.restarted();
        }
    }
}

/// The steps that one transaction may take, by name: the schema says the same, and so does the picture
/// in ARCHITECTURE.md; this is a third hand's copy.
fn may_follow(before: State, after: State) -> bool {
    let may: &[&str] = match before.name() {
        "received" => &["decided", "sending", "parked"],
        "decided" => &["sending"],
        "sending" => &["decided", "unknown", "awaiting_approval", "confirmed"],
        "unknown" => {
            &["decided", "awaiting_approval", "parked", "conflict", "confirmed", "overruled"]
        }
        "awaiting_approval" => &["parked", "conflict", "confirmed", "overruled"],
        "parked" if before == State::Parked(ParkReason::NeedsApproval) => &["decided", "parked"],
        "parked" => &["received", "unknown", "conflict", "confirmed", "overruled"],
        "conflict" => &["confirmed", "overruled"],
        _ => &[],
    };
    before == after || may.contains(&after.name())
}
