//! Decide: the policy over the book as it is now, and the hold that goes with it.

use std::{fmt, sync::Arc, time::Duration};

use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{
    about,
    wake::{Rested, Wake, rest},
};
use crate::{
    clock::Clock,
    crash,
    domain::{
        action::Switch,
        decision::{DecidedBy, Decision},
        feed::BookSequence,
        ids::{ConnectionId, JobSeq},
        job::Job,
        lag::Shut,
        ledger::{self, AccountKind},
        news::News,
        policy::{BookView, OperatorWord, Ruling, rule},
        state::{Event, ParkReason, State},
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
    /// It waits: for its connection, for the read of its record, or for the book.
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
    /// How long a job waits for the event of its connection's feed that it names.
    pub sequence_wait_max: Duration,
}

impl Conditions {
    /// Whether a job for an unknown connection has waited long enough. Where there is a feed, only time
    /// for which the book was far enough counts.
    #[must_use]
    pub fn is_grace_over(&self, job: &Job, work: &Work) -> bool {
        work.has_waited(job) >= self.grace
    }
}

/// Decides one received job.
///
/// # Errors
/// [`WorkError`] when the decision cannot be represented.
pub fn decide(work: &mut Work, seq: JobSeq, conditions: &Conditions) -> Result<Decided, WorkError> {
    let _span = tracing::debug_span!("decide", record = about(work, seq)).entered();
    let view = match look(work, seq, conditions, None)? {
        Looked::View(view) => view,
        Looked::Not(decided) => return Ok(decided),
    };
    let ruling = rule(&work.job(seq)?.terms, &view);
    if ruling == Ruling::WaitForConnection {
        let left = conditions.grace.saturating_sub(work.has_waited(work.job(seq)?));
        let next = work.now().after(left);
        work.job_mut(seq)?.next_step_at = Some(next);
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
    if let Some(decided) = wait_for_book(work, seq, conditions)? {
        return Ok(Looked::Not(decided));
    }
    let job = work.job(seq)?;
    let grace_over = conditions.is_grace_over(job, work);
    Ok(Looked::View(Box::new(view_of(work, job, grace_over, operator)?)))
}

/// Jobs must not overtake the book. Answers what becomes of a job that would.
fn wait_for_book(
    work: &mut Work,
    seq: JobSeq,
    conditions: &Conditions,
) -> Result<Option<Decided>, WorkError> {
    let gate = work.gate();
    let job = work.job(seq)?;
    if gate.is_fed && job.waits_since.is_none() {
        // It came before there was a feed.
        work.job_mut(seq)?.waits_since = Some(gate.open_time);
    }
    let job = work.job(seq)?;
    let (now, left) = (work.now(), sequence_wait_left(work, job, conditions));
    let is_undecided = job.state == State::Received;
    match behind(work, job) {
        None => Ok(None),
        // When the gate opens, every job is looked at.
        Some(Behind::Gate(_)) => Ok(Some(Decided::Waits)),
        Some(Behind::Sequence(_)) if is_undecided && left.is_zero() => {
            park_behind(work, seq)?;
            Ok(Some(Decided::Parked(ParkReason::BookBehind)))
        }
        Some(behind @ (Behind::Unproven | Behind::Sequence(_))) => {
            let job = work.job_mut(seq)?;
            if is_undecided {
                job.waits_for_book = true;
                job.next_step_at = (behind != Behind::Unproven).then(|| now.after(left));
            }
            Ok(Some(Decided::Waits))
        }
    }
}

/// How long a job may still wait for the event that it names, since it came or was sent on.
fn sequence_wait_left(work: &Work, job: &Job, conditions: &Conditions) -> Duration {
    let waited = work.has_waited(job).min(work.now().since(job.state_since));
    conditions.sequence_wait_max.saturating_sub(waited)
}

/// Whether the book must come further before it can follow what OES has ended already. An event that a
/// job names is not waited for longer than the job may.
#[must_use]
pub fn must_wait_for_book(work: &Work, job: &Job, conditions: &Conditions) -> bool {
    match behind(work, job) {
        None => false,
        Some(Behind::Gate(_) | Behind::Unproven) => true,
        Some(Behind::Sequence(_)) => !sequence_wait_left(work, job, conditions).is_zero(),
    }
}

/// In what the book is not far enough for a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behind {
    /// For any.
    Gate(Shut),
    /// The book was restored, and nothing has shown since that it is right about the job's connection.
    Unproven,
    /// The feed of the job's connection has not come as far as the job asks for.
    Sequence(BookSequence),
}

impl fmt::Display for Behind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gate(shut) => shut.fmt(f),
            Self::Unproven => f.write_str(
                "the book was restored, and nothing has shown since that it is right about this connection: \
                 a snapshot that agrees does, or `settled book accept-snapshot`",
            ),
            Self::Sequence(sequence) => {
                write!(f, "the feed of its connection has not come to number {sequence}")
            }
        }
    }
}

/// Whether the book is far enough to decide a job, and if not, in what.
#[must_use]
pub fn behind(work: &Work, job: &Job) -> Option<Behind> {
    if let Some(shut) = work.gate().shut {
        return Some(Behind::Gate(shut));
    }
    let feed = work.feed(job.terms.connection_id);
    if feed.is_unproven {
        return Some(Behind::Unproven);
    }
    let sequence = job.book_sequence.filter(|sequence| !feed.order.has_reached(*sequence));
    sequence.map(Behind::Sequence)
}

fn park_behind(work: &mut Work, seq: JobSeq) -> Result<(), WorkError> {
    let reason = ParkReason::BookBehind;
    work.advance(seq, Event::Park(reason), None)?;
    let job = work.job_mut(seq)?;
    (job.waits_for_book, job.waits_since) = (false, None);
    let (record, asked) = (job.terms.record_id, job.book_sequence);
    let feed = work.feed(job_connection(work, seq)?);
    work.note(
        seq,
        JobEventKind::Parked,
        &json!({
            "reason": reason.as_str(), "bookSequence": asked, "feedHas": feed.order.last,
            "missing": feed.order.missing,
        }),
    );
    work.tell(News::Parked { record, reason, why: None });
    Ok(())
}

fn job_connection(work: &Work, seq: JobSeq) -> Result<ConnectionId, WorkError> {
    Ok(work.job(seq)?.terms.connection_id)
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

/// Decides the jobs that had to wait, when their connection becomes known, their grace ends, or the book
/// is far enough.
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
        if !switches.is_on(Switch::Signing) || writer.gate().look(clock.now()).shut.is_some() {
            // The bell rings when it is on again, and when the gate opens.
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

#[cfg(test)]
mod tests;
