//! Confirm: what an answer or a read means for the job, the money and the announcement, together.

use serde_json::json;

use super::about;
use crate::{
    domain::{
        announcement::{Announcement, KnownBy, event_id, routing_key},
        decision::Outcome,
        ids::{AttemptSeq, JobSeq},
        ledger::{self, AccountKind},
        news::News,
        reply::{Verdict, counts_as_attempt},
        schedule::RetryLimits,
        state::{Event, State},
    },
    store::work::{AttemptEnd, JobEventKind, OutcomeMessage, Owner, Work, WorkError},
};

/// An answer to an attempt, or the lack of one, with what it means.
#[derive(Clone, Debug)]
pub struct Reply {
    /// For which job.
    pub job: JobSeq,
    /// To which attempt.
    pub attempt: AttemptSeq,
    /// What it means.
    pub verdict: Verdict,
    /// What is kept of it.
    pub end: AttemptEnd,
}

/// Stores an answer, and carries out what it means.
///
/// # Errors
/// [`WorkError`] when that is not possible from the job's state.
pub fn settle(work: &mut Work, reply: &Reply, limits: &RetryLimits) -> Result<(), WorkError> {
    let seq = reply.job;
    let _span = tracing::debug_span!("confirm", record = about(work, seq)).entered();
    work.finish_attempt(reply.attempt, reply.end.clone());
    let job = work.job_mut(seq)?;
    if counts_as_attempt(reply.verdict) {
        job.attempts_counted = job.attempts_counted.saturating_add(1);
    }
    let tries = job.attempts_counted;
    let now = work.now();
    match reply.verdict {
        Verdict::Accepted => {
            let decided = decided_outcome(work, seq)?;
            end(work, seq, Event::Confirm, decided, KnownBy::Reply)
        }
        Verdict::ApprovalPending => {
            let next = now.after(limits.next_read(State::AwaitingApproval, 0));
            work.advance(seq, Event::AwaitApproval, Some(next))
        }
        // The gate holds everything back until OES takes requests again.
        Verdict::TurnedAway => work.advance(seq, Event::TurnedAway, Some(now)),
        Verdict::Doubtful(doubt) => {
            let next = now.after(limits.schedule.delay(tries));
            work.advance(seq, Event::Doubt(doubt), Some(next))
        }
    }
}

fn decided_outcome(work: &Work, seq: JobSeq) -> Result<Outcome, WorkError> {
    let decision = work.job(seq)?.decision.as_ref().ok_or(WorkError::Undecided(seq))?;
    Ok(decision.outcome())
}

/// Ends a job as OES has ended the record: state, money and announcement in one transaction.
///
/// # Errors
/// [`WorkError`] when that is not possible from the job's state.
pub fn end(
    work: &mut Work,
    seq: JobSeq,
    event: Event,
    actual: Outcome,
    known_by: KnownBy,
) -> Result<(), WorkError> {
    work.advance(seq, event, None)?;
    work.job_mut(seq)?.final_outcome = Some(actual);
    work.end_day(seq, actual)?;
    let job = work.job(seq)?;
    let (terms, received_at) = (job.terms.clone(), job.received_at);
    let decision = job.decision.clone().ok_or(WorkError::Undecided(seq))?;
    let (currency, quantity) = (terms.amount.currency(), terms.amount.quantity());
    let available = work.balance(terms.connection_id, currency, AccountKind::Available);
    let closing = ledger::close(terms.job_type, decision.outcome(), actual, quantity, available);
    if let Some(movement) = closing.movement {
        work.book(Owner::Job(seq), terms.connection_id, currency, movement)?;
    }
    if !closing.shortfall.is_zero() {
        let (record, shortfall) = (terms.record_id, closing.shortfall);
        work.note(seq, JobEventKind::ReadBack, &json!({"shortfall": shortfall}));
        work.tell(News::Shortfall { record, shortfall });
    }
    let body = serde_json::to_string(&Announcement::new(
        &terms,
        decision.outcome(),
        decision.reject_reason(),
        actual,
        known_by,
        work.now(),
    ))?;
    work.announce(OutcomeMessage {
        job: seq,
        event_id: event_id(terms.record_id, actual),
        routing_key: routing_key(terms.job_type, actual),
        body,
    });
    work.tell(News::Final {
        record: terms.record_id,
        job_type: terms.job_type,
        outcome: actual,
        overruled: actual != decision.outcome(),
        took: work.now().since(received_at),
    });
    Ok(())
}
