//! Decide: the policy over the book as it is now, and the hold that goes with it.

use std::{sync::Arc, time::Duration};

use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::wake::{Rested, Wake, rest};
use crate::{
    clock::Clock,
    domain::{
        decision::{DecidedBy, Decision},
        ids::JobSeq,
        job::Job,
        ledger::{self, AccountKind},
        news::News,
        policy::{BookView, OperatorWord, Ruling, rule},
        state::{Event, ParkReason, State},
        time::TimestampMs,
    },
    store::{
        Readers, StoreError,
        work::{JobEventKind, Owner, Work, WorkError},
    },
    writer::{WriterGone, WriterHandle},
};

/// Most jobs that one batch decides for the loop.
const DECISIONS_MAX: usize = 256;

/// What became of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decided {
    /// It is decided, and may be signed.
    Decided,
    /// It waits for its connection.
    Waits,
    /// An operator must look.
    Parked(ParkReason),
}

/// Decides one received job.
///
/// # Errors
/// [`WorkError`] when the decision cannot be represented.
pub fn decide(work: &mut Work, seq: JobSeq, grace: Duration) -> Result<Decided, WorkError> {
    let view = match look(work, seq, grace, None)? {
        Looked::View(view) => view,
        Looked::Not(decided) => return Ok(decided),
    };
    let ruling = rule(&work.job(seq)?.terms, &view);
    if ruling == Ruling::WaitForConnection {
        let job = work.job_mut(seq)?;
        job.next_step_at = Some(job.received_at.after(grace));
    }
    carry_out(work, seq, ruling, &view, DecidedBy::Policy)
}

/// Decides one job that is parked because it needs approval, with an operator's word.
///
/// # Errors
/// [`WorkError`] when the decision cannot be represented.
pub fn decide_with_word(
    work: &mut Work,
    seq: JobSeq,
    said: OperatorWord,
    by: DecidedBy,
) -> Result<Decided, WorkError> {
    // Its connection was known, and what is known stays known: there is no grace to wait for.
    let view = match look(work, seq, Duration::ZERO, Some(said))? {
        Looked::View(view) => view,
        Looked::Not(decided) => return Ok(decided),
    };
    let ruling = rule(&work.job(seq)?.terms, &view);
    carry_out(work, seq, ruling, &view, by)
}

enum Looked {
    /// This is what the policy sees.
    View(Box<BookView>),
    /// The policy is not asked.
    Not(Decided),
}

/// The book as it is now for one job, if the job may be decided at all.
fn look(
    work: &mut Work,
    seq: JobSeq,
    grace: Duration,
    operator: Option<OperatorWord>,
) -> Result<Looked, WorkError> {
    if let Some(restored_at) = work.restored_at()
        && work.job(seq)?.verified_at.is_none()
    {
        return wait_for_verification(work, seq, restored_at).map(Looked::Not);
    }
    let job = work.job(seq)?;
    let grace_over = work.now() >= job.received_at.after(grace);
    Ok(Looked::View(Box::new(view_of(work, job, grace_over, operator)?)))
}

/// The book as it is now for one job.
///
/// # Errors
/// [`WorkError`] when the job is not in the book.
pub fn view_of(
    work: &Work,
    job: &Job,
    connection_grace_over: bool,
    operator: Option<OperatorWord>,
) -> Result<BookView, WorkError> {
    let (id, currency) = (job.terms.connection_id, job.terms.amount.currency());
    Ok(BookView {
        connection: work.connection(id).cloned(),
        currency: work.currency(currency).cloned(),
        connection_caps: work.connection_caps(id, currency),
        available: work.balance(id, currency, AccountKind::Available),
        exposure: work.exposure(id, currency),
        exposure_total: work.exposure_total(currency),
        day: work.now().day(),
        cleared_that_day: work.cleared_that_day(job.seq)?,
        connection_grace_over,
        operator,
    })
}

fn carry_out(
    work: &mut Work,
    seq: JobSeq,
    ruling: Ruling,
    view: &BookView,
    by: DecidedBy,
) -> Result<Decided, WorkError> {
    match ruling {
        Ruling::WaitForConnection => Ok(Decided::Waits),
        Ruling::Park(reason) => {
            park_undecided(work, seq, reason, view)?;
            Ok(Decided::Parked(reason))
        }
        Ruling::Decide(decision) => {
            hold(work, seq, &decision)?;
            work.decide(seq, decision, serde_json::to_string(&view.seen())?, by)?;
            Ok(Decided::Decided)
        }
    }
}

/// After a restore, what was decided before it may be lost. A job is then decided only once OES's record
/// was seen to be younger (`resolve`), and never if it was here before.
fn wait_for_verification(
    work: &mut Work,
    seq: JobSeq,
    restored_at: TimestampMs,
) -> Result<Decided, WorkError> {
    if work.job(seq)?.received_at >= restored_at {
        return Ok(Decided::Waits);
    }
    let reason = ParkReason::PredatesRestore;
    work.advance(seq, Event::Park(reason), None)?;
    work.note(seq, JobEventKind::Parked, &json!({"reason": reason.as_str()}));
    let record = work.job(seq)?.terms.record_id;
    work.tell(News::Parked { record, reason, why: None });
    Ok(Decided::Parked(reason))
}

/// Places the hold that a decision needs.
fn hold(work: &mut Work, seq: JobSeq, decision: &Decision) -> Result<(), WorkError> {
    let terms = work.job(seq)?.terms.clone();
    let (currency, quantity) = (terms.amount.currency(), terms.amount.quantity());
    match ledger::hold(terms.job_type, decision.outcome(), quantity) {
        Some(movement) => work.book(Owner::Job(seq), terms.connection_id, currency, movement),
        None => Ok(()),
    }
}

fn park_undecided(
    work: &mut Work,
    seq: JobSeq,
    reason: ParkReason,
    view: &BookView,
) -> Result<(), WorkError> {
    work.advance(seq, Event::Park(reason), None)?;
    work.note(seq, JobEventKind::Parked, &json!({"reason": reason.as_str(), "saw": view.seen()}));
    let record = work.job(seq)?.terms.record_id;
    work.tell(News::Parked { record, reason, why: None });
    Ok(())
}

/// Whether a job still waits for its decision; another command of the batch may have come first.
///
/// # Errors
/// [`WorkError::UnknownJob`].
pub fn is_undecided(work: &Work, seq: JobSeq) -> Result<bool, WorkError> {
    Ok(work.job(seq)?.state == State::Received)
}

/// Decides the jobs that had to wait, when their connection becomes known or their grace ends.
///
/// # Errors
/// [`StoreError`] when the book cannot be read.
pub async fn run(
    readers: Readers,
    writer: WriterHandle,
    wake: Wake,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
) -> Result<(), StoreError> {
    loop {
        wake.decide.pulse.beat();
        let now = clock.now();
        let due = readers.next_decision_due(now).await?;
        if due.is_some_and(|due| due <= now) {
            match writer.decide_due(DECISIONS_MAX).await {
                Ok(()) => continue,
                Err(WriterGone) => return Ok(()),
            }
        }
        if rest(&wake.decide, due, clock.as_ref(), &stop).await == Rested::Stop {
            return Ok(());
        }
    }
}
