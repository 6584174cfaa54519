//! Worker, OES, broker and clock together: one operation at a time, and the promises after each.
//!
//! The worker's steps are the real ones. What is written here again is what stands round them in the
//! loops and in the writer: who is asked next, what a transaction needs to see, what is lost when the
//! process ends.

use std::{collections::VecDeque, rc::Rc, time::Duration};

use super::{
    edge::{self, Message},
    model::{Model, Touched, Violation},
    oes::Oes,
    operation::{Operation, Script},
};
use crate::{
    domain::{
        decimals::AmountForm,
        gate::Gate,
        ids::JobSeq,
        job::JobTerms,
        schedule::{RetryLimits, Schedule},
        time::TimestampMs,
        verification::Verification,
    },
    pipeline::{
        confirm::Reply, decide::Conditions, read::ReadResult, sign::PreparedAttempt,
        verify::FirstRead,
    },
    signer::SigningKey,
    store::memory::MemoryBook,
};

/// When a run begins: shortly before midnight in UTC, so that runs go from one day into the next.
const START: TimestampMs = TimestampMs::from_millis(1_795_391_850_250);

pub(super) const GRACE: Duration = Duration::from_secs(60);

const fn conditions(verifies: bool) -> Conditions {
    Conditions {
        grace: GRACE,
        verification: Verification { is_required: verifies, amounts: AmountForm::BaseUnits },
        slow_read_every: LIMITS.slow_read_every,
        sequence_wait_max: Duration::from_secs(300),
    }
}

pub(super) const LIMITS: RetryLimits = RetryLimits {
    schedule: Schedule::steady(Duration::from_secs(1), Duration::from_secs(30)),
    attempts_max: 4,
    age_max: Duration::from_secs(600),
    not_found_attempts_max: 2,
    absent_reads_max: 3,
    approval_read_every: Duration::from_secs(30),
    slow_read_every: Duration::from_secs(300),
};

/// Delays of a stopped sender's trials.
const TRIALS: Schedule = Schedule::steady(Duration::from_secs(5), Duration::from_secs(60));

/// What is gone when the process ends.
pub(super) struct Process {
    pub(super) gate: Gate,
    /// Attempts that are committed and not sent.
    pub(super) prepared: Vec<PreparedAttempt>,
    /// Answers that are not in the book.
    pub(super) replies: Vec<Reply>,
    /// What the reads under way brought.
    pub(super) reads: Vec<(JobSeq, ReadResult)>,
    /// What the reads before decisions brought.
    pub(super) first_reads: Vec<FirstRead>,
}

impl Process {
    fn start() -> Self {
        Self {
            gate: Gate::new(TRIALS),
            prepared: Vec::new(),
            replies: Vec::new(),
            reads: Vec::new(),
            first_reads: Vec::new(),
        }
    }
}

pub(super) struct World {
    pub(super) now: TimestampMs,
    pub(super) conditions: Conditions,
    /// The latest time that the clock ever showed.
    latest: TimestampMs,
    pub(super) book: MemoryBook,
    pub(super) process: Process,
    pub(super) oes: Oes,
    pub(super) queue: VecDeque<Message>,
    pub(super) model: Model,
    /// What the first message about each record says.
    pub(super) records: Vec<Rc<JobTerms>>,
    /// What each message that was ever published says.
    pub(super) published: Vec<Rc<JobTerms>>,
    /// Every fact that was ever fed.
    pub(super) fed: Vec<String>,
    /// A real key signs some runs; in the others the bytes of a signature stand for one.
    pub(super) key: Option<SigningKey>,
}

impl World {
    pub(super) fn new(script: &Script, key: Option<SigningKey>) -> Result<Self, Violation> {
        let mut world = Self {
            now: START,
            conditions: conditions(script.verifies),
            latest: START,
            book: MemoryBook::new(),
            process: Process::start(),
            oes: Oes::new(script.stance),
            queue: VecDeque::new(),
            model: Model::new(script.verifies),
            records: Vec::new(),
            published: Vec::new(),
            fed: Vec::new(),
            key,
        };
        for fact in edge::opening() {
            world.feed(fact, super::operation::Fate::Commits)?;
        }
        Ok(world)
    }

    /// Lets one thing happen, and checks every promise.
    pub(super) fn step(&mut self, operation: Operation) -> Result<(), Violation> {
        self.happen(operation)?;
        self.model.check(&self.book, &self.oes)
    }

    fn happen(&mut self, operation: Operation) -> Result<(), Violation> {
        match operation {
            Operation::NewRecord { .. }
            | Operation::PublishAgain { .. }
            | Operation::PublishOtherContent { .. }
            | Operation::PublishForged { .. }
            | Operation::PublishGenuine { .. }
            | Operation::PublishGarbage { .. } => self.publish(operation),
            Operation::Deliver { count, fate, acked } => self.deliver(count, fate, acked)?,
            Operation::Decide { fate } => self.decide(fate)?,
            Operation::Prepare { count, fate } => self.prepare(count, fate)?,
            Operation::Put { which, fate } => self.put(which, fate)?,
            Operation::Arrive { which } => self.oes.arrive(usize::from(which)),
            Operation::Finish { which, fate } => self.finish(which, fate)?,
            Operation::Read { fate } => self.read(fate),
            Operation::SettleReads { fate } => self.settle_reads(fate)?,
            Operation::Verify { fate } => self.verify(fate),
            Operation::SettleVerified { fate } => self.settle_verified(fate)?,
            Operation::Announce { confirmed, fate } => self.announce(confirmed, fate)?,
            Operation::Feed { fact, fate } => self.feed(fact, fate)?,
            Operation::FeedAgain { which, fate } => {
                let text = self.fed[usize::from(which) % self.fed.len()].clone();
                self.feed_text(&text, fate)?;
            }
            Operation::SendOn { record, fate } => self.send_on(record, fate)?,
            Operation::SayWord { record, word, fate } => self.say_word(record, word, fate)?,
            Operation::OesEnds { .. }
            | Operation::OesAsksApproval { .. }
            | Operation::ApprovalEnds { .. }
            | Operation::OesShows { .. } => self.oes_acts(operation),
            Operation::Wait { seconds } => self.wait(Duration::from_secs(seconds.into())),
            Operation::JumpForward { hours } => {
                self.wait(Duration::from_secs(u64::from(hours) * 3_600));
            }
            Operation::JumpBack { seconds } => {
                let millis = self.now.as_millis() - i64::from(seconds) * 1_000;
                self.now = TimestampMs::from_millis(millis);
            }
            Operation::Crash => self.crash()?,
        }
        Ok(())
    }

    pub(super) fn wait(&mut self, time: Duration) {
        self.now = self.now.after(time);
        self.latest = self.latest.max(self.now);
    }

    /// The clock is put right.
    pub(super) fn put_clock_right(&mut self) {
        self.now = self.latest;
    }

    /// The process ends, and starts again.
    pub(super) fn crash(&mut self) -> Result<(), Violation> {
        self.process = Process::start();
        self.book.doubt_open_attempts(self.now);
        let jobs = self.book.jobs.keys().map(|seq| Touched::Job(*seq)).collect::<Vec<_>>();
        self.model.restarted();
        self.model.observe(&self.book, &self.oes, &jobs, self.now)
    }

    pub(super) fn record(&self, which: u8) -> Option<Rc<JobTerms>> {
        let index = usize::from(which).checked_rem(self.records.len())?;
        self.records.get(index).cloned()
    }

    /// A record as the client asked for it.
    fn at_oes(&self, which: u8) -> Option<Rc<JobTerms>> {
        let record = self.record(which)?.record_id;
        self.oes.records.get(&record).map(|entry| Rc::clone(&entry.terms))
    }

    fn publish(&mut self, operation: Operation) {
        let message = match operation {
            Operation::NewRecord {
                job_type,
                connection,
                currency,
                quantity,
                at_oes,
                wrong_identity,
            } => {
                let number = self.records.len();
                let what = (connection, currency, quantity);
                let terms = Rc::new(edge::terms(number, job_type, what, wrong_identity));
                self.oes.reserve(&terms, at_oes);
                self.records.push(Rc::clone(&terms));
                Message::job(terms)
            }
            Operation::PublishAgain { record } => {
                let Some(terms) = self.record(record) else { return };
                Message::job(terms)
            }
            Operation::PublishOtherContent { record } => {
                let Some(terms) = self.record(record) else { return };
                let mut other = JobTerms::clone(&terms);
                other.partners_record_id = "another".parse().unwrap();
                Message::job(Rc::new(other))
            }
            Operation::PublishForged { record, difference } => {
                let Some(terms) = self.at_oes(record) else { return };
                Message::job(Rc::new(edge::altered(&terms, difference)))
            }
            Operation::PublishGenuine { record } => {
                let Some(terms) = self.at_oes(record) else { return };
                Message::job(terms)
            }
            Operation::PublishGarbage { which } => Message::garbage(which),
            _ => return,
        };
        self.published.extend(message.terms.clone());
        self.queue.push_back(message);
    }

    fn oes_acts(&mut self, operation: Operation) {
        let record = |which| self.record(which).map(|terms| terms.record_id);
        match operation {
            Operation::OesEnds { record: which, outcome, rejected } => {
                if let Some(record) = record(which) {
                    self.oes.end_by_itself(record, outcome, rejected);
                }
            }
            Operation::OesAsksApproval { record: which } => {
                if let Some(record) = record(which) {
                    self.oes.ask_approval_unasked(record);
                }
            }
            Operation::ApprovalEnds { record: which, approved, ends } => {
                if let Some(record) = record(which) {
                    self.oes.end_approval(record, approved, ends);
                }
            }
            Operation::OesShows { record: which } => {
                if let Some(record) = record(which) {
                    self.oes.show(record);
                }
            }
            _ => {}
        }
    }
}
