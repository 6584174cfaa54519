//! Resolve: read a record back whenever its outcome is not certain. The only way out of a doubt.

use std::{collections::HashMap, sync::Arc};

use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{
    budget::Budget,
    confirm,
    wake::{Rested, Wake, rest},
};
use crate::{
    clock::Clock,
    crash,
    domain::{
        announcement::KnownBy,
        gate::{Permission, StopCause, Suspicion},
        ids::{JobSeq, RecordId},
        news::News,
        record::{Finding, Inquiry, OesRecord, Reading, is_younger_than, judge},
        schedule::RetryLimits,
        state::{Event, ParkReason, State},
    },
    oes::{OesClient, ReadError},
    store::{
        Readers, StoreError,
        query::ReadTarget,
        work::{JobEventKind, Work, WorkError},
    },
    writer::{WriterGone, WriterHandle},
};

/// Most records that one list request asks for: their ids make 3.7 KB of a URL.
const READS_MAX: usize = 100;

/// Reads by name that fail in a row, after which the others wait for another time.
const READ_FAILURES_MAX: usize = 3;

/// What a read of one job's record brought.
#[derive(Clone, Debug)]
pub enum ReadResult {
    /// OES answered.
    Answered(Reading),
    /// The answer tells nothing; it is asked again later.
    Failed,
}

/// Carries out what a read means for a job.
///
/// # Errors
/// [`WorkError`] when that is not possible from the job's state.
pub fn settle(
    work: &mut Work,
    seq: JobSeq,
    result: &ReadResult,
    limits: &RetryLimits,
    suspicion: Suspicion,
) -> Result<(), WorkError> {
    let now = work.now();
    let job = work.job(seq)?;
    if job.state == State::Received {
        return verify(work, seq, result, limits);
    }
    // The job may have moved while the read was under way.
    let is_read = match job.state {
        State::Unknown(_) | State::AwaitingApproval | State::Conflict(_) => true,
        State::Parked(reason) => !reason.is_undecided(),
        State::Received | State::Decided | State::Sending | State::Confirmed | State::Overruled => {
            false
        }
    };
    if !is_read {
        return Ok(());
    }
    let decided = job.decision.as_ref().ok_or(WorkError::Undecided(seq))?.outcome();
    let finding = match result {
        ReadResult::Answered(reading) => {
            let inquiry = Inquiry {
                terms: &job.terms,
                state: job.state,
                decided,
                tries: job.tries(now),
                token_suspected: suspicion.covers(job.state_since),
            };
            judge(&inquiry, reading, limits)
        }
        ReadResult::Failed => Finding::ReadAgain(limits.next_read(job.state, job.reads_made)),
    };
    match finding {
        Finding::ReadAgain(delay) => {
            let job = work.job_mut(seq)?;
            job.reads_made = job.reads_made.saturating_add(1);
            if matches!(result, ReadResult::Answered(Reading::Absent)) {
                job.absences = job.absences.saturating_add(1);
            }
            job.next_step_at = Some(now.after(delay));
            Ok(())
        }
        Finding::Moves(event) => {
            note(work, seq, result, event)?;
            move_on(work, seq, event, limits)
        }
        Finding::Ends(event, actual) => {
            note(work, seq, result, event)?;
            confirm::end(work, seq, event, actual, KnownBy::ReadBack)
        }
    }
}

/// An undecided job after a restore: it is decided only if OES's record is younger than that.
fn verify(
    work: &mut Work,
    seq: JobSeq,
    result: &ReadResult,
    limits: &RetryLimits,
) -> Result<(), WorkError> {
    let now = work.now();
    let Some(restored_at) = work.restored_at() else { return Ok(()) };
    let job = work.job_mut(seq)?;
    match result {
        ReadResult::Answered(Reading::Found(record)) if is_younger_than(record, restored_at) => {
            (job.verified_at, job.next_step_at) = (Some(now), Some(now));
            (job.reads_made, job.absences) = (0, 0);
            Ok(())
        }
        ReadResult::Answered(Reading::Found(_)) => {
            let event = Event::Park(ParkReason::PredatesRestore);
            note(work, seq, result, event)?;
            move_on(work, seq, event, limits)?;
            // Nothing was decided, so nothing is read for it.
            work.job_mut(seq)?.next_step_at = None;
            Ok(())
        }
        ReadResult::Answered(Reading::Absent) | ReadResult::Failed => {
            job.reads_made = job.reads_made.saturating_add(1);
            job.next_step_at = Some(now.after(limits.schedule.delay(job.reads_made)));
            Ok(())
        }
    }
}

fn note(work: &mut Work, seq: JobSeq, result: &ReadResult, event: Event) -> Result<(), WorkError> {
    let found = match result {
        ReadResult::Answered(reading) => reading.word(),
        ReadResult::Failed => "nothing",
    };
    let before = work.job(seq)?.state;
    let after = before.apply(event)?;
    let detail = json!({"found": found, "from": before.to_string(), "to": after.to_string()});
    work.note(seq, JobEventKind::ReadBack, &detail);
    Ok(())
}

fn move_on(
    work: &mut Work,
    seq: JobSeq,
    event: Event,
    limits: &RetryLimits,
) -> Result<(), WorkError> {
    let now = work.now();
    let job = work.job(seq)?;
    let (record, attempts) = (job.terms.record_id, job.attempts_counted);
    let next = match event {
        Event::FoundReserved => now.after(limits.schedule.delay(attempts)),
        Event::Park(reason) => {
            work.tell(News::Parked { record, reason, why: None });
            now.after(limits.slow_read_every)
        }
        Event::Freeze(kind) => {
            work.tell(News::Frozen { record, kind });
            now.after(limits.slow_read_every)
        }
        Event::AwaitApproval => now.after(limits.approval_read_every),
        Event::Decide
        | Event::Prepare
        | Event::Confirm
        | Event::TurnedAway
        | Event::Doubt(_)
        | Event::Overrule
        | Event::Retry => now,
    };
    work.advance(seq, event, Some(next))
}

/// Reads what is due, many records with one request.
pub struct Resolver {
    /// The book.
    pub readers: Readers,
    /// Where results go.
    pub writer: WriterHandle,
    /// OES.
    pub oes: Arc<OesClient>,
    /// What may be asked of it.
    pub budget: Arc<Budget>,
    /// The bells.
    pub wake: Wake,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

impl Resolver {
    /// Reads until the daemon ends.
    ///
    /// # Errors
    /// [`StoreError`] when the book cannot be read.
    pub async fn run(self, stop: CancellationToken) -> Result<(), StoreError> {
        loop {
            let targets = self.readers.due_reads(self.clock.now(), READS_MAX).await?;
            if targets.is_empty() {
                let mut due = self.readers.next_read_due().await?;
                if let Permission::Stopped(StopCause::TokenRefused, trial_at) =
                    self.budget.permission()
                {
                    if trial_at <= self.clock.now() {
                        tokio::select! {
                            () = stop.cancelled() => return Ok(()),
                            () = self.try_token() => continue,
                        }
                    }
                    due = due.map_or(Some(trial_at), |due| Some(due.min(trial_at)));
                }
                let rested = rest(&self.wake.resolve, due, self.clock.as_ref(), &stop).await;
                if rested == Rested::Stop {
                    return Ok(());
                }
                continue;
            }
            let results = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                results = self.read(&targets) => results,
            };
            if self.writer.settle_reads(results).await == Err(WriterGone) {
                return Ok(());
            }
        }
    }

    /// Reads the records of `targets`; what could not be read is asked again later.
    async fn read(&self, targets: &[ReadTarget]) -> Vec<(JobSeq, ReadResult)> {
        let ids: Vec<RecordId> = targets.iter().map(|target| target.record_id).collect();
        let (mut found, list_failed) = match self.read_many(&ids).await {
            Ok(found) => (found, false),
            Err(error) => {
                tracing::warn!(
                    records = ids.len(),
                    first_record = %ids.first().map_or_else(String::new, RecordId::to_string),
                    %error,
                    "a list of records could not be read back"
                );
                if !matches!(error, ReadError::Failed(_)) {
                    return targets.iter().map(|target| (target.job, ReadResult::Failed)).collect();
                }
                (HashMap::new(), true)
            }
        };
        let mut results = Vec::with_capacity(targets.len());
        // When OES is down, a hundred reads that time out would hold everything up for an hour.
        let failures_max = if list_failed { 1 } else { READ_FAILURES_MAX };
        let mut failures = 0;
        for target in targets {
            let result = match found.remove(&target.record_id) {
                Some(record) => ReadResult::Answered(Reading::Found(record)),
                None if failures >= failures_max => ReadResult::Failed,
                // A list may leave out what exists, so an absence is asked for by name. So is
                // everything when the list route itself does not work: no record waits for that.
                None => self.read_one(target.record_id).await,
            };
            match result {
                ReadResult::Failed => failures = failures.saturating_add(1),
                ReadResult::Answered(_) if failures < failures_max => failures = 0,
                ReadResult::Answered(_) => {}
            }
            results.push((target.job, result));
        }
        results
    }

    /// Whether OES takes the token again, when nothing else is due that would show it.
    async fn try_token(&self) {
        self.wait_for_leave().await;
        let outcome = self.oes.probe().await;
        self.tell_budget(outcome.as_ref().err());
    }

    /// Waits until a read may be sent. A token that was refused may have been replaced meanwhile.
    async fn wait_for_leave(&self) {
        // It may take as long as OES likes; after it, one request is one thing.
        let resting = self.wake.resolve.pulse.rest();
        self.budget.wait_for_read().await;
        drop(resting);
        if !matches!(self.budget.permission(), Permission::Stopped(StopCause::TokenRefused, _)) {
            return;
        }
        match self.oes.reread_token() {
            Ok(true) => {
                tracing::info!("oes.access_token_file has another token: it is used from now on");
            }
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(%error, "the token cannot be read again; the old one is tried");
            }
        }
    }

    async fn read_many(&self, ids: &[RecordId]) -> Result<HashMap<RecordId, OesRecord>, ReadError> {
        self.wait_for_leave().await;
        crash::point("before_read");
        let outcome = self.oes.read_records(ids).await;
        self.tell_budget(outcome.as_ref().err());
        outcome
    }

    async fn read_one(&self, id: RecordId) -> ReadResult {
        self.wait_for_leave().await;
        let outcome = self.oes.read_record(id).await;
        self.tell_budget(outcome.as_ref().err());
        match outcome {
            Ok(reading) => ReadResult::Answered(reading),
            Err(error) => {
                tracing::warn!(record = %id, %error, "record could not be read back; it is read again later");
                ReadResult::Failed
            }
        }
    }

    fn tell_budget(&self, error: Option<&ReadError>) {
        match error {
            None => self.budget.read_answered(),
            Some(ReadError::TokenRefused(_)) => self.budget.token_refused(),
            Some(ReadError::RateLimited { retry_at }) => self.budget.rate_limited(*retry_at),
            Some(ReadError::Failed(_)) => {}
        }
    }
}
