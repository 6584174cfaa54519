//! Resolve: read a record back whenever its outcome is not certain. The only way out of a doubt.

use std::sync::Arc;

use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{
    about, confirm,
    read::{Purpose, READS_MAX, ReadResult, RecordReader},
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
        record::{ApprovalBefore, Finding, Inquiry, Reading, judge},
        schedule::RetryLimits,
        state::{Event, State},
    },
    store::{
        Readers, StoreError,
        work::{JobEventKind, Work, WorkError},
    },
    writer::{WriterGone, WriterHandle},
};

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
    let _span = tracing::debug_span!("resolve", record = about(work, seq)).entered();
    let now = work.now();
    let job = work.job(seq)?;
    // The job may have moved while the read was under way.
    let is_read = match job.state {
        State::Unknown(_) | State::AwaitingApproval | State::Conflict(_) => true,
        State::Parked(reason) => !reason.is_undecided(),
        State::Received
        | State::Decided
        | State::Sending
        | State::Confirmed
        | State::Overruled
        | State::Refused => false,
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
                approval_before: ApprovalBefore::of(job),
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
        Finding::StillPending(delay) => {
            let job = work.job_mut(seq)?;
            (job.reads_made, job.absences) = (0, 0);
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
        Event::AwaitApproval => {
            let job = work.job_mut(seq)?;
            (job.reads_made, job.absences) = (0, 0);
            now.after(limits.approval_read_every)
        }
        Event::Decide
        | Event::Prepare
        | Event::Confirm
        | Event::TurnedAway
        | Event::Doubt(_)
        | Event::Overrule
        | Event::Appear
        | Event::Adopt
        | Event::Refuse
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
    /// Who asks OES.
    pub reader: RecordReader,
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
            self.wake.resolve.pulse.beat();
            crash::stall("resolver").await;
            let targets = self.readers.due_reads(self.clock.now(), READS_MAX).await?;
            if targets.is_empty() {
                let mut due = self.readers.next_read_due().await?;
                if let Permission::Stopped(StopCause::TokenRefused, trial_at) =
                    self.reader.budget.permission()
                {
                    if trial_at <= self.clock.now() {
                        tokio::select! {
                            () = stop.cancelled() => return Ok(()),
                            () = self.reader.try_token() => continue,
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
            let ids: Vec<RecordId> = targets.iter().map(|target| target.record_id).collect();
            let results = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                results = self.reader.read(Purpose::ReadBack, &ids, |_| true) => results,
            };
            let results = targets.iter().map(|target| target.job).zip(results).collect();
            if self.writer.settle_reads(results).await == Err(WriterGone) {
                return Ok(());
            }
        }
    }
}
