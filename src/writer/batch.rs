//! Carrying out commands: together, or one by one when one of them fails.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Feeding, Recording, Signing, Writer,
    act::Act,
    command::{Command, Done, Drafted},
    news,
    steps::Stages,
};
use crate::{
    crash,
    domain::{action::Switch, ids::JobSeq, reply::Verdict, time::TimestampMs},
    pipeline::{
        record::Recorded,
        sign::{Draft, PreparedAttempt},
    },
    store::{
        StoreError,
        batch::NotCommitted,
        mark::Marked,
        work::{Counters, Needs, NewAttempt, WorkError},
    },
};

/// How long the writer waits before it asks again for a lock that another process holds.
const BUSY_WAIT: Duration = Duration::from_millis(500);

/// Why the writer cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum WriterError {
    /// The database.
    #[error(transparent)]
    Store(StoreError),
    /// A command that must be carried out could not be, not even alone.
    #[error("the book cannot be carried on: {doing} failed: {reason}")]
    Stuck {
        /// The command.
        doing: &'static str,
        /// Why.
        reason: String,
    },
}

/// Why a batch was rolled back.
enum Failure {
    /// The whole writer must stop.
    Fatal(StoreError),
    /// The machine cannot be trusted.
    Stuck { reason: String },
    /// Another process holds the lock; the same batch may be tried again.
    Busy(StoreError),
    /// A command is at fault; with the first job that was due, in case it was about due jobs.
    Culprit { reason: String, due: Option<JobSeq> },
}

/// What a batch came to.
pub(super) struct Carried {
    /// What became of each command, in their order.
    pub(super) done: Vec<Done>,
    /// The signed attempts, in the places that the commands know; taken as they are sent.
    pub(super) attempts: Vec<Option<PreparedAttempt>>,
}

impl Failure {
    fn of_store(error: StoreError, due: Option<JobSeq>) -> Self {
        if error.is_busy() {
            Self::Busy(error)
        } else if error.is_refusal() {
            Self::Culprit { reason: error.to_string(), due }
        } else {
            Self::Fatal(error)
        }
    }

    fn of_work(error: &WorkError, due: Option<JobSeq>) -> Self {
        let reason = error.to_string();
        if error.is_fatal() { Self::Stuck { reason } } else { Self::Culprit { reason, due } }
    }

    fn of_commit(error: NotCommitted, due: Option<JobSeq>) -> Self {
        match error {
            NotCommitted::Store(error) => Self::of_store(error, due),
            NotCommitted::Unsigned(error) => Self::of_work(&error, due),
        }
    }
}

/// Signs what was drafted, on a thread of its own, so that the book is written meanwhile. Answers the rows,
/// and what is sent once they are committed, both in the order of the drafts.
async fn sign_all(
    signing: Option<&Signing>,
    drafts: Vec<Draft>,
) -> Result<(Vec<NewAttempt>, Vec<PreparedAttempt>), WorkError> {
    // Without a key nothing was drafted.
    let (Some(signing), Some(first)) = (signing, drafts.first()) else {
        return Ok((Vec::new(), Vec::new()));
    };
    let (key, first) = (Arc::clone(&signing.key), first.job());
    let signed = tokio::task::spawn_blocking(move || {
        let payloads: Vec<&[u8]> = drafts.iter().map(Draft::payload).collect();
        let signatures = key.sign_all(&payloads);
        drafts.into_iter().zip(signatures).map(|(draft, signature)| draft.sign(signature)).collect()
    });
    // A panic while signing leaves nothing that could be sent.
    signed.await.unwrap_or(Err(WorkError::BadSignature(first)))
}

impl Writer {
    /// Carries out commands in one transaction; if that fails, one by one.
    pub(super) async fn execute(&mut self, mut batch: Vec<Command>) -> Result<(), WriterError> {
        match self.attempt(&mut batch).await? {
            Ok(Carried { done, mut attempts }) => {
                for (command, done) in batch.into_iter().zip(done) {
                    self.tell(command, done, &mut attempts);
                }
                Ok(())
            }
            Err((reason, due)) if batch.len() == 1 => match batch.pop() {
                Some(command) => self.refuse(command, reason, due).await,
                None => Ok(()),
            },
            Err((reason, _)) => {
                tracing::warn!(
                    commands = batch.len(),
                    reason,
                    "a batch failed: its commands are carried out one by one"
                );
                for command in batch {
                    Box::pin(self.execute(vec![command])).await?;
                }
                Ok(())
            }
        }
    }

    /// Adds the permits that are free by now: whoever asked for them came away with those that were free then,
    /// and while the command waited, answers have come, and jobs that wait too.
    fn add_permits(&self, command: &mut Command) {
        let Command::Prepare { permits, due: Some(due), .. } = command else { return };
        let switches = self.switches.now();
        let may_send = switches.is_on(Switch::Signing) && switches.is_on(Switch::Sending);
        let Some(signing) = self.signing.as_ref().filter(|_| may_send) else { return };
        let free = std::iter::from_fn(|| signing.budget.try_send_permit());
        let most = due.saturating_add(self.deferred_since).min(self.batch_max);
        permits.extend(free.take(most.saturating_sub(permits.len())));
    }

    /// One transaction for all commands. Waits for as long as another process holds the lock.
    async fn attempt(
        &mut self,
        batch: &mut [Command],
    ) -> Result<Result<Carried, (String, Option<JobSeq>)>, WriterError> {
        let health = Arc::clone(&self.health);
        let _at_work = health.batch_begins();
        for command in batch.iter_mut() {
            self.add_permits(command);
        }
        loop {
            match self.transact(batch).await {
                Ok(carried) => return Ok(Ok(carried)),
                Err(Failure::Culprit { reason, due }) => return Ok(Err((reason, due))),
                Err(Failure::Fatal(error)) => return Err(WriterError::Store(error)),
                Err(Failure::Stuck { reason }) => {
                    let doing = batch.first().map_or("nothing", Command::name);
                    return Err(WriterError::Stuck { doing, reason });
                }
                Err(Failure::Busy(error)) => {
                    tracing::warn!(%error, "the writer waits");
                    tokio::time::sleep(BUSY_WAIT).await;
                }
            }
        }
    }

    async fn transact(&mut self, batch: &mut [Command]) -> Result<Carried, Failure> {
        let (now, begun) = (self.clock.now(), Instant::now());
        let verifies = self.conditions.verification.is_required;
        let mut needs = Needs { verifies, ..Needs::default() };
        for command in batch.iter() {
            command.add_needs(&mut needs);
        }
        let mut open = self
            .book
            .begin(now, self.counters, &needs)
            .await
            .map_err(|error| Failure::of_store(error, None))?;
        open.work.set_gate(self.gate.look(now));
        let due = open.work.due_attempts().first().or(open.work.due_decisions().first()).copied();
        let mut act = Act {
            work: &mut open.work,
            signing: self.signing.as_ref(),
            budget: self.budget.as_deref(),
            limits: &self.limits,
            conditions: &self.conditions,
            decides_without_key: self.decides_without_key,
            switches: self.switches.now(),
            close_within: self.close_within,
            first_attempts_wait: self.first_attempts_wait,
            due_taken: 0,
            deferred: Vec::new(),
            drafts: Vec::new(),
        };
        let acted: Result<Vec<Done>, WorkError> =
            batch.iter_mut().map(|command| act.carry_out(command)).collect();
        let stages = Stages { begun, to_sign: Instant::now() };
        let (first_attempts_wait, switches) = (act.first_attempts_wait, act.switches);
        let deferred = act.deferred.len();
        let drafts = act.drafts;
        match acted {
            Ok(done) => {
                let news = open.work.take_news();
                crash::point("before_commit");
                let mut attempts = Vec::new();
                let signing = async {
                    let (rows, prepared) = sign_all(self.signing.as_ref(), drafts).await?;
                    attempts = prepared.into_iter().map(Some).collect();
                    Ok(rows)
                };
                let counters = open
                    .commit(self.key_id, signing)
                    .await
                    .map_err(|error| Failure::of_commit(error, due))?;
                let carried = Carried { done, attempts };
                for command in batch.iter() {
                    crash::point(command.crash_point());
                }
                self.take_over(counters, now).await.map_err(Failure::Fatal)?;
                self.first_attempts_wait = first_attempts_wait;
                self.deferred_since = self.deferred_since.saturating_add(deferred);
                self.switches.set(switches);
                self.metrics.committed(batch.len(), begun.elapsed());
                self.metrics.log_is(self.book.log_bytes());
                for item in &news {
                    news::tell(item, &self.metrics);
                }
                self.trace(batch, &carried, &news, stages);
                Ok(carried)
            }
            Err(error) => {
                open.roll_back().await.map_err(|error| Failure::of_store(error, due))?;
                Err(Failure::of_work(&error, due))
            }
        }
    }

    /// Goes on from where a commit has left off.
    async fn take_over(&mut self, counters: Counters, now: TimestampMs) -> Result<(), StoreError> {
        self.mark(counters).await?;
        self.counters = counters;
        if let Some(sent_at) = counters.heartbeat() {
            self.gate.with(|gate| gate.heartbeat(now, sent_at));
        }
        Ok(())
    }

    /// Notes the attempts of a commit outside the database, before any of them is sent.
    async fn mark(&mut self, counters: Counters) -> Result<(), StoreError> {
        let Some(mut mark) = self.mark.take() else { return Ok(()) };
        let marked = Marked { ledger: self.ledger, attempt: counters.last_attempt() };
        // It never goes back, and most commits hold no attempt.
        if mark.marked().is_some_and(|known| known.attempt >= marked.attempt) {
            self.mark = Some(mark);
            return Ok(());
        }
        // The disk may take its time, and others have work to do on this thread.
        crash::point("before_mark");
        crash::stall("mark").await;
        let written = tokio::task::spawn_blocking(move || mark.write(marked).map(|()| mark)).await;
        crash::point("after_mark");
        match written {
            Ok(Ok(mark)) => {
                self.mark = Some(mark);
                Ok(())
            }
            Ok(Err(error)) => Err(error.into()),
            Err(panic) => Err(StoreError::Unusable(format!("the mark was not written: {panic}"))),
        }
    }

    /// Tells what is committed to whoever waits for it. Someone who has stopped waiting is no fault.
    fn tell(&mut self, command: Command, done: Done, attempts: &mut [Option<PreparedAttempt>]) {
        match (command, done) {
            (Command::Record { answer, .. }, Done::Recorded { recorded, send }) => {
                self.wake_after_recording(recorded, send.is_some());
                self.send(send, attempts);
                let _waiting = answer.send(Recording::Recorded(recorded));
            }
            (Command::Prepare { permits, answer, .. }, Done::Prepared { drafts, more }) => {
                self.send(drafts.into_iter().zip(permits).chain(more), attempts);
                // Whoever asks next sees what is committed.
                self.deferred_since = 0;
                let _waiting = answer.send(());
            }
            (Command::ApplyBook { answer, .. }, Done::Book(outcomes)) => {
                self.wake.decide.notify_one();
                let _waiting = answer.send(Ok(outcomes));
            }
            (Command::Feed { answer, .. }, Done::Fed(outcome)) => {
                self.wake.announce.notify_one();
                self.wake.decide.notify_one();
                let _waiting = answer.send(Feeding::Taken(outcome));
            }
            (Command::Finish { reply, answer }, _) => {
                self.wake_after_answer(reply.verdict);
                let _waiting = answer.send(());
            }
            (
                Command::DecideDue { answer, .. } | Command::SettleFirstReads { answer, .. },
                Done::Sends(sends),
            ) => {
                self.send(sends, attempts);
                self.wake.all();
                let _waiting = answer.send(());
            }
            (Command::SettleReads { answer, .. }, _) => {
                self.wake.announce.notify_one();
                self.wake.send.notify_one();
                let _waiting = answer.send(());
            }
            (Command::Quarantine { answer, .. }, _) => {
                self.wake.announce.notify_one();
                let _waiting = answer.send(());
            }
            (Command::Archive { answer, .. }, Done::Archived(told)) => {
                let _waiting = answer.send(told);
            }
            (Command::NoteRun { answer, .. } | Command::NoteAlerts { answer, .. }, _) => {
                let _waiting = answer.send(Ok(()));
            }
            (Command::StopPreparing { answer }, _) => {
                // With the sender's channel gone, the sender comes to its end.
                self.signing = None;
                let _waiting = answer.send(());
            }
            (command, done) => self.tell_operator(command, done, attempts),
        }
    }

    /// Tells an operator what is committed.
    fn tell_operator(
        &self,
        command: Command,
        done: Done,
        attempts: &mut [Option<PreparedAttempt>],
    ) {
        match (command, done) {
            (Command::Act { answer, .. }, Done::Acted(acted)) => {
                // Sent on, decided, or ended: whichever it was, somebody has work.
                self.wake.all();
                let _waiting = answer.send(acted);
            }
            (Command::Requeue { answer, .. }, Done::Recorded { recorded, send }) => {
                self.wake_after_recording(recorded, send.is_some());
                self.send(send, attempts);
                let _waiting = answer.send(Ok(recorded));
            }
            (Command::AcceptSnapshots { answer, .. }, Done::Accepted(accepted)) => {
                self.wake.decide.notify_one();
                let _waiting = answer.send(Ok(accepted));
            }
            (Command::SetSwitch { answer, .. }, Done::Switched(changed)) => {
                self.wake.decide.notify_one();
                self.wake.send.notify_one();
                let _waiting = answer.send(Ok(changed));
            }
            // Nobody waits for these, or what was done is of another kind.
            (
                Command::Record { .. }
                | Command::Quarantine { .. }
                | Command::Prepare { .. }
                | Command::DecideDue { .. }
                | Command::Finish { .. }
                | Command::SettleReads { .. }
                | Command::ApplyBook { .. }
                | Command::Feed { .. }
                | Command::AcceptSnapshots { .. }
                | Command::Act { .. }
                | Command::Requeue { .. }
                | Command::SetSwitch { .. }
                | Command::SettleFirstReads { .. }
                | Command::Archive { .. }
                | Command::NoteRun { .. }
                | Command::NoteAlerts { .. }
                | Command::StopPreparing { .. }
                | Command::Published { .. }
                | Command::Park { .. },
                _,
            ) => {}
        }
    }

    fn wake_after_answer(&self, verdict: Verdict) {
        match verdict {
            Verdict::Accepted => self.wake.announce.notify_one(),
            Verdict::ApprovalPending | Verdict::Doubtful(_) => self.wake.resolve.notify_one(),
            Verdict::TurnedAway => self.wake.send.notify_one(),
        }
    }

    fn wake_after_recording(&self, recorded: Recorded, sent_at_once: bool) {
        match recorded {
            Recorded::New(_) if sent_at_once => {}
            Recorded::New(_) if self.conditions.verification.is_required => {
                self.wake.verify.notify_one();
            }
            Recorded::New(_) => {
                self.wake.send.notify_one();
                self.wake.decide.notify_one();
                self.wake.verify.notify_one();
            }
            Recorded::Contradicts(_) | Recorded::RefusedBefore => self.wake.announce.notify_one(),
            Recorded::Repeated(_) => {}
        }
    }

    fn send(
        &self,
        drafted: impl IntoIterator<Item = Drafted>,
        attempts: &mut [Option<PreparedAttempt>],
    ) {
        let Some(signing) = &self.signing else { return };
        for (place, permit) in drafted {
            if let Some(attempt) = attempts.get_mut(place).and_then(Option::take) {
                // A sender that has ended leaves the attempt open; it is read back at the next start.
                let _sent = signing.sends.send((attempt, permit));
            }
        }
    }
}
