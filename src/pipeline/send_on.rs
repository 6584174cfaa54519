//! Send on: an operator has looked at a parked job, and lets it go on.
//!
//! Nothing is decided or signed here. A job that was parked undecided is decided by the policy, as if
//! it had just arrived; one that was decided keeps its decision, and its record is read back before
//! anything is sent.

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    domain::{
        action::{ActionKind, Operator},
        ids::RecordId,
        state::{Event, ParkReason, State},
    },
    store::work::{JobEventKind, NewAction, Subject, Work, WorkError},
};

/// What became of the request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SentOn {
    /// The job goes on; this is its state now.
    GoesOn(String),
    /// It is not parked, so nothing was changed; this is its state.
    NotParked(String),
    /// It waits for an operator's approval or refusal, which this is not; nothing was changed.
    NeedsApproval,
    /// There is no job about this record.
    Unknown,
}

/// Sends the job about a record on, if it is parked.
///
/// # Errors
/// [`WorkError`] when that cannot be represented.
pub fn send_on(work: &mut Work, record: RecordId, by: &Operator) -> Result<SentOn, WorkError> {
    let now = work.now();
    let Some(job) = work.find(record) else { return Ok(SentOn::Unknown) };
    let (seq, before) = (job.seq, job.state);
    match before {
        State::Parked(ParkReason::NeedsApproval) => return Ok(SentOn::NeedsApproval),
        State::Parked(_) => {}
        State::Received
        | State::Decided
        | State::Sending
        | State::Unknown(_)
        | State::AwaitingApproval
        | State::Conflict(_)
        | State::Confirmed
        | State::Overruled
        | State::Refused => return Ok(SentOn::NotParked(before.to_string())),
    }
    work.advance(seq, Event::Retry, Some(now))?;
    let job = work.job_mut(seq)?;
    // The bounds that parked it begin anew, or it would be parked again at once.
    (job.attempts_counted, job.reads_made, job.absences) = (0, 0, 0);
    job.tried_since = job.tried_since.map(|_| now);
    // So does the time that it may wait for the book.
    (job.waits_since, job.waits_for_book) = (None, false);
    if job.decision.is_none() {
        // Whatever was seen of its record may be long ago.
        job.verified_at = None;
    }
    let after = job.state.to_string();
    let detail = json!({"who": by.who, "why": by.reason, "from": before.to_string(), "to": after});
    work.note(seq, JobEventKind::SentOn, &detail);
    let (subject, detail) = (Subject::Job(seq), json!({"from": before.to_string(), "to": after}));
    work.act(NewAction { kind: ActionKind::Retry, by: by.clone(), subject, detail });
    Ok(SentOn::GoesOn(after))
}
