//! Decide: the policy over the book as it is now, and the hold that goes with it.

use std::{sync::Arc, time::Duration};

use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::wake::{Rested, Wake, rest};
use crate::{
    clock::Clock,
    crash,
    domain::{
        action::Switch,
        decision::{DecidedBy, Decision},
        ids::JobSeq,
        job::Job,
        ledger::{self, AccountKind},
        news::News,
        policy::{BookView, OperatorWord, Ruling, rule},
        state::{Event, ParkReason, State},
        time::TimestampMs,
        verification::Verification,
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

/// When a job may be decided.
#[derive(Clone, Copy, Debug)]
pub struct Conditions {
    /// How long a job for an unknown connection waits.
    pub grace: Duration,
    /// Whether its record is read before.
    pub verification: Verification,
    /// Pace of reading the record of a job that waits for an operator.
    pub slow_read_every: Duration,
}

impl Conditions {
    /// Whether a job for an unknown connection has waited long enough.
    #[must_use]
    pub fn is_grace_over(&self, job: &Job, now: TimestampMs) -> bool {
        now >= job.received_at.after(self.grace)
    }
}

/// Decides one received job.
///
/// # Errors
/// [`WorkError`] when the decision cannot be represented.
pub fn decide(work: &mut Work, seq: JobSeq, conditions: &Conditions) -> Result<Decided, WorkError> {
    let view = match look(work, seq, conditions, None)? {
        Looked::View(view) => view,
        Looked::Not(decided) => return Ok(decided),
    };
    let ruling = rule(&work.job(seq)?.terms, &view);
    if ruling == Ruling::WaitForConnection {
        let job = work.job_mut(seq)?;
        job.next_step_at = Some(job.received_at.after(conditions.grace));
    }
    carry_out(work, seq, ruling, &view, DecidedBy::Policy, conditions)
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
    conditions: &Conditions,
) -> Result<Decided, WorkError> {
    // Its connection was known, and what is known stays known: there is no grace to wait for.
    let conditions = Conditions { grace: Duration::ZERO, ..*conditions };
    let view = match look(work, seq, &conditions, Some(said))? {
        Looked::View(view) => view,
        Looked::Not(decided) => return Ok(decided),
    };
    let ruling = rule(&work.job(seq)?.terms, &view);
    carry_out(work, seq, ruling, &view, by, &conditions)
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
    conditions: &Conditions,
    operator: Option<OperatorWord>,
) -> Result<Looked, WorkError> {
    let job = work.job(seq)?;
    if conditions.verification.is_needed(work.restored_at()) && job.verified_at.is_none() {
        return wait_for_verification(work, seq).map(Looked::Not);
    }
    let grace_over = conditions.is_grace_over(job, work.now());
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
        ended: None,
    })
}

fn carry_out(
    work: &mut Work,
    seq: JobSeq,
    ruling: Ruling,
    view: &BookView,
    by: DecidedBy,
    conditions: &Conditions,
) -> Result<Decided, WorkError> {
    match ruling {
        Ruling::WaitForConnection => Ok(Decided::Waits),
        Ruling::Park(reason) => {
            park_undecided(work, seq, reason, view, conditions)?;
            Ok(Decided::Parked(reason))
        }
        Ruling::Decide(decision) => {
            hold(work, seq, &decision)?;
            work.decide(seq, decision, serde_json::to_string(&view.seen())?, by)?;
            Ok(Decided::Decided)
        }
    }
}

/// A job is decided only once its record was read (`verify`). After a restore, what was decided before it
/// may be lost: a job that was here before then is never decided.
fn wait_for_verification(work: &mut Work, seq: JobSeq) -> Result<Decided, WorkError> {
    let received_at = work.job(seq)?.received_at;
    if work.restored_at().is_none_or(|restored_at| received_at >= restored_at) {
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
///
/// # Errors
/// [`WorkError`] when it cannot be represented.
pub fn hold(work: &mut Work, seq: JobSeq, decision: &Decision) -> Result<(), WorkError> {
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
    conditions: &Conditions,
) -> Result<(), WorkError> {
    // Its record may end while it waits for a word.
    let is_read = reason == ParkReason::NeedsApproval && conditions.verification.is_required;
    let next = is_read.then(|| work.now().after(conditions.slow_read_every));
    work.advance(seq, Event::Park(reason), next)?;
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
    verifies: bool,
    wake: Wake,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
) -> Result<(), StoreError> {
    let switches = writer.switches();
    loop {
        if !switches.is_on(Switch::Signing) {
            // The bell rings when it is on again.
            if rest(&wake.decide, None, clock.as_ref(), &stop).await == Rested::Stop {
                return Ok(());
            }
            continue;
        }
        wake.decide.pulse.beat();
        crash::stall("decider").await;
        let now = clock.now();
        let due = readers.next_decision_due(now, verifies).await?;
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
