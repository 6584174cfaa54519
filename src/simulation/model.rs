//! The reference model: what must be true, worked out from what happened and not from the steps.
//!
//! It knows the messages that were committed, the facts that were fed, what OES was sent and what it
//! holds. From these it says which decision each record must get, what each account must hold, when an
//! attempt may follow another, and why a job may be parked. It shares types with the worker, and no
//! rule.

mod first_read;
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
    pipeline::verify::FirstRead,
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
    FirstRead(FirstRead),
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

/// Who decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Policy,
    Operator(OperatorWord),
    /// OES, which has ended the record so.
    Oes(Outcome),
}

impl By {
    fn word(self) -> Option<OperatorWord> {
        match self {
            Self::Operator(word) => Some(word),
            Self::Policy | Self::Oes(_) => None,
        }
    }
}

/// A job.
struct Known {
    terms: Rc<JobTerms>,
    state: State,
    received_at: TimestampMs,
    decided: Option<Outcome>,
    decided_on: Option<Day>,
    /// OES had ended the record before, and nothing is to be sent.
    is_adopted: bool,
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
    /// Whether a job is decided only after its record was read.
    verifies: bool,
    jobs: BTreeMap<JobSeq, Known>,
    /// The one job of each record that was not refused.
    live: BTreeMap<RecordId, JobSeq>,
    /// What was refused, because the record is not what it says.
    refused: Vec<Rc<JobTerms>>,
    /// What came while something else had the record's id, in the order in which it came.
    put_away: Vec<Rc<JobTerms>>,
    money: Money,
    attempts_seen: Option<AttemptSeq>,
    nonces: BTreeSet<String>,
    sent: BTreeSet<AttemptSeq>,
    acked: Vec<Message>,
    /// Jobs that the last transaction ended: how, whether otherwise than decided, and what was short.
    untold: BTreeMap<RecordId, (Outcome, bool, i64)>,
    leave: Leave,
}

impl Model {
    pub(super) fn new(verifies: bool) -> Self {
        Self { verifies, ..Self::default() }
    }

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
                Touched::Job(seq) => self.look_at(&book.jobs[seq], By::Policy, oes, now)?,
                Touched::FirstRead(read) => self.first_read(read, book, oes, now)?,
                Touched::Word(seq, word) => {
                    self.look_at(&book.jobs[seq], By::Operator(*word), oes, now)?;
                }
                Touched::SentOn(seq) => {
                    let job = &book.jobs[seq];
                    if let Some(known) = self.jobs.get_mut(seq) {
                        known.evidence.begin_anew(job.state != known.state, known.decided);
                    }
                    self.look_at(job, By::Policy, oes, now)?;
                }
                Touched::Fact(event) => self.money.apply(event),
            }
        }
        self.follow_attempts(book, oes, now)?;
        self.money.check(book)
    }

    /// The slower checks, for the end of a run.
    pub(super) fn check_movements(book: &MemoryBook) -> Result<(), Violation> {
        Money::check_movements(book)
    }

    /// A message was committed: the first one about a record holds, unless it is refused.
    fn recorded(
        &mut self,
        terms: &Rc<JobTerms>,
        book: &MemoryBook,
        oes: &Oes,
        now: TimestampMs,
    ) -> Result<(), Violation> {
        let record = terms.record_id;
        match self.live.get(&record) {
            None if self.refused.contains(terms) => {
                // Another message of the batch may have the id by now.
                let is_again = book.find(record).is_some_and(|job| job.terms == **terms);
                return holds("what was refused is no job again", !is_again, || {
                    format!("{terms:?}")
                });
            }
            None => return self.take_in(terms, book, oes, now),
            Some(seq) if self.jobs[seq].terms == *terms || self.put_away.contains(terms) => {}
            Some(_) => self.put_away.push(Rc::clone(terms)),
        }
        let Some(job) = book.find(record) else {
            return Err(Violation::new("a committed message has its job", format!("{terms:?}")));
        };
        self.look_at(job, By::Policy, oes, now)
    }

    /// A message becomes a job.
    fn take_in(
        &mut self,
        terms: &Rc<JobTerms>,
        book: &MemoryBook,
        oes: &Oes,
        now: TimestampMs,
    ) -> Result<(), Violation> {
        let Some(job) = book.find(terms.record_id) else {
            return Err(Violation::new("a committed message has its job", format!("{terms:?}")));
        };
        let known = Known {
            terms: Rc::clone(terms),
            state: State::Received,
            received_at: now,
            decided: None,
            decided_on: None,
            is_adopted: false,
            reject_reason: None,
            ended: None,
            last_attempt: None,
            event_id: None,
            evidence: Evidence::default(),
        };
        let is_new = self.jobs.insert(job.seq, known).is_none();
        holds("a refused job stays refused", is_new, || format!("{job:?}"))?;
        self.live.insert(terms.record_id, job.seq);
        self.look_at(job, By::Policy, oes, now)
    }

    /// The job of a record that was not refused.
    fn of_record(&mut self, record: RecordId) -> Option<&mut Known> {
        self.jobs.get_mut(self.live.get(&record)?)
    }

    /// Follows one job from what it was to what it is, after whoever decides if it is decided.
    fn look_at(&mut self, job: &Job, by: By, oes: &Oes, now: TimestampMs) -> Result<(), Violation> {
        let record = job.terms.record_id;
        let known = self.jobs.get_mut(&job.seq).ok_or_else(|| {
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
            needs_word || by.word().is_none() || before == after,
            || format!("{record}: {before} → {after}, {by:?}"),
        )?;
        let decided = job.decision.as_ref().map(Decision::outcome);
        if known.decided.is_none()
            && let Some(decision) = &job.decision
        {
            let outcome = decision.outcome();
            known.decided = Some(outcome);
            known.decided_on = Some(now.day());
            known.is_adopted = matches!(by, By::Oes(_));
            known.reject_reason = decision.reject_reason().map(str::to_owned);
            is_decided_well(known, by, self.verifies, &self.money, now)?;
            let is_cleared = outcome == Outcome::Cleared;
            self.money.decided(&known.terms, now.day(), is_cleared);
            let keeps =
                !is_cleared || known.is_adopted || self.money.keeps_caps(&known.terms, now.day());
            holds("no cap is exceeded by what is cleared and pending", keeps, || {
                record.to_string()
            })?;
        }
        if known.ended.is_none()
            && let (Some(decided), Some(actual)) = (decided, job.final_outcome)
        {
            known.ended = Some(actual);
            let short = self.money.ended(&known.terms, known.decided_on, decided, actual);
            self.untold.insert(record, (actual, actual != decided, short));
        }
        if before != after {
            let entry = oes.records.get(&record);
            reasons::check(known, after, entry, now, &self.money)?;
        }
        known.state = after;
        Ok(())
    }

    /// New attempts: each carries the decision, with a nonce of its own, when one may follow.
    fn follow_attempts(
        &mut self,
        book: &MemoryBook,
        oes: &Oes,
        now: TimestampMs,
    ) -> Result<(), Violation> {
        let first = self.attempts_seen.map_or(i64::MIN, |seen| seen.get().saturating_add(1));
        for (seq, row) in book.attempts.range(AttemptSeq::from(first)..) {
            self.attempts_seen = Some(*seq);
            let record = book.jobs[&row.attempt.job].terms.record_id;
            let Some(known) = self.jobs.get_mut(&row.attempt.job) else {
                return Err(Violation::new("an attempt has its record", record.to_string()));
            };
            promises::carries_decision(known, &row.attempt.body)?;
            let is_genuine = oes.records[&record].is_about(&known.terms);
            holds(
                "a message that is not OES's record leads to no update",
                is_genuine || !self.verifies,
                || format!("{record}: {:?}, and OES has {:?}", known.terms, oes.records[&record]),
            )?;
            holds("what OES had ended is not sent", !known.is_adopted, || {
                format!("{record}: attempt {seq}")
            })?;
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
        let known = &self.jobs[&row.unwrap().attempt.job];
        let record = known.terms.record_id;
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
        if let Some(known) = self.of_record(record) {
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
            ReadFate::Works | ReadFate::ShowsNothing | ReadFate::Garbled => {
                self.leave.token_refused = false;
            }
            ReadFate::Unauthorized => self.leave.token_refused = true,
            ReadFate::RateLimited { .. } => {
                self.leave.paused_until = self.leave.paused_until.max(retry_at);
            }
            ReadFate::Fails => {}
        }
    }

    /// OES showed a record.
    pub(super) fn was_read(&mut self, book: &MemoryBook, record: RecordId, reading: &Reading) {
        let Some(known) = self.of_record(record) else { return };
        let Reading::Found(found) = reading else { return self.was_not_shown(record) };
        if let Some(last) = known.last_attempt.as_mut() {
            let is_over = book.attempts.get(&last.seq).is_some_and(|row| row.result.is_some());
            last.seen_reserved = is_over && found.status == RecordStatus::Reserved;
        }
    }

    /// OES did not show a record.
    pub(super) fn was_not_shown(&mut self, record: RecordId) {
        if let Some(known) = self.of_record(record) {
            known.evidence.absent = true;
        }
    }

    /// The process has ended, and with it what it knew of OES's answers.
    pub(super) fn restarted(&mut self) {
        self.leave = Leave::default();
        for known in self.jobs.values_mut() {
            known.evidence.restarted();
        }
    }
}

/// A job was decided: when it could be, by whoever may, and as the book or OES says.
fn is_decided_well(
    known: &Known,
    by: By,
    verifies: bool,
    money: &Money,
    now: TimestampMs,
) -> Result<(), Violation> {
    let (record, decided) = (known.terms.record_id, known.decided);
    let expected = match by {
        By::Oes(outcome) => Due::Outcome(outcome),
        By::Policy | By::Operator(_) => {
            let needs_word = known.state == State::Parked(ParkReason::NeedsApproval);
            holds(
                "what needs approval is decided by a word",
                needs_word == by.word().is_some(),
                || format!("{record}: {} with {by:?}", known.state),
            )?;
            let was_read = known.evidence.has_agreed || !verifies;
            holds("nothing is decided before its record agrees", was_read, || {
                format!("{record}: {:?}", known.evidence)
            })?;
            money.ruling(&known.terms, known.received_at, now, by.word())
        }
    };
    holds("a decision follows the book", expected == Due::of(decided), || {
        format!("{record}: decided {decided:?}, and the model says {expected:?}")
    })
}

/// The steps that one transaction may take, by name: the schema says the same, and so does the picture
/// in ARCHITECTURE.md; this is a third hand's copy.
fn may_follow(before: State, after: State) -> bool {
    let may: &[&str] = match before.name() {
        "received" => &["decided", "sending", "parked", "confirmed", "refused"],
        "decided" => &["sending"],
        "sending" => &["decided", "unknown", "awaiting_approval", "confirmed"],
        "unknown" => {
            &["decided", "awaiting_approval", "parked", "conflict", "confirmed", "overruled"]
        }
        "awaiting_approval" => &["parked", "conflict", "confirmed", "overruled"],
        "parked" if before == State::Parked(ParkReason::NeedsApproval) => {
            &["decided", "parked", "confirmed", "refused"]
        }
        "parked" if is_waiting_for_oes(before) => &["received", "parked", "confirmed", "refused"],
        "parked" => &["received", "unknown", "conflict", "confirmed", "overruled"],
        "conflict" => &["confirmed", "overruled"],
        _ => &[],
    };
    before == after || may.contains(&after.name())
}

/// Whether an undecided job goes on once its record can be read.
fn is_waiting_for_oes(state: State) -> bool {
    let reasons = [ParkReason::NotShown, ParkReason::Unreadable, ParkReason::EndedAtOes];
    reasons.into_iter().any(|reason| state == State::Parked(reason))
}
