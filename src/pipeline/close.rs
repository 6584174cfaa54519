//! Close: two operators say how OES ended a record that contradicts what was decided.
//!
//! Nothing is signed, and the decision stays as it is. The book follows OES, as after an outcome that was
//! read back: the hold is posted or voided, what was not held is moved as far as it is covered, and the
//! actual outcome is announced.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::confirm;
use crate::{
    domain::{
        action::{ActionKind, Operator, Word},
        announcement::KnownBy,
        decision::Outcome,
        ids::{JobSeq, RecordId},
        news::News,
        state::{ConflictKind, Event, State},
        time::TimestampMs,
    },
    store::work::{JobEventKind, NewAction, Subject, Work, WorkError},
};

/// What became of an operator's word about the end of a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Closing {
    /// It is the first; another operator must say the same until then.
    Proposed(TimestampMs),
    /// It is the second, and the job is closed; this is its state now.
    Closed(String),
    /// The same operator has said so already; another one must, until then.
    SamePerson(TimestampMs),
    /// OES was read with the other outcome, so that is what can be said.
    NotTheOutcome(Outcome),
    /// The job is not in conflict, so nothing was changed; this is its state.
    NotInConflict(String),
    /// There is no job about this record.
    Unknown,
}

/// Takes an operator's word that OES ended the record as `outcome`. A first word can be confirmed for as
/// long as `within`.
///
/// # Errors
/// [`WorkError`] when what follows cannot be represented.
pub fn close(
    work: &mut Work,
    record: RecordId,
    outcome: Outcome,
    by: &Operator,
    within: Duration,
) -> Result<Closing, WorkError> {
    let now = work.now();
    let Some(job) = work.find(record) else { return Ok(Closing::Unknown) };
    let (seq, state) = (job.seq, job.state);
    let State::Conflict(kind) = state else {
        return Ok(Closing::NotInConflict(state.to_string()));
    };
    let decided = job.decision.as_ref().ok_or(WorkError::Undecided(seq))?.outcome();
    if kind == ConflictKind::OtherOutcome && outcome == decided {
        return Ok(Closing::NotTheOutcome(other(decided)));
    }
    let said =
        work.proposal(seq).map_or(Word::Proposes, |last| last.answered(&by.who, outcome, now));
    match said {
        Word::Repeats => {
            let until = work.proposal(seq).map_or(now, |last| last.expires_at);
            Ok(Closing::SamePerson(until))
        }
        Word::Proposes => {
            propose(work, seq, outcome, by, now.after(within));
            Ok(Closing::Proposed(now.after(within)))
        }
        Word::Confirms => {
            let event = if outcome == decided { Event::Confirm } else { Event::Overrule };
            confirm_end(work, seq, outcome, event, by)?;
            Ok(Closing::Closed(work.job(seq)?.state.to_string()))
        }
    }
}

const fn other(outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Cleared => Outcome::Released,
        Outcome::Released => Outcome::Cleared,
    }
}

fn propose(work: &mut Work, job: JobSeq, outcome: Outcome, by: &Operator, expires_at: TimestampMs) {
    let detail = json!({
        "who": by.who, "why": by.reason, "outcome": outcome, "expiresAt": expires_at.to_string(),
    });
    work.note(job, JobEventKind::EndProposed, &detail);
    let subject = Subject::End(job, outcome, Some(expires_at));
    let detail = json!({});
    work.act(NewAction { kind: ActionKind::ProposeEnd, by: by.clone(), subject, detail });
}

fn confirm_end(
    work: &mut Work,
    seq: JobSeq,
    outcome: Outcome,
    event: Event,
    by: &Operator,
) -> Result<(), WorkError> {
    let before = work.job(seq)?.state;
    let after = before.apply(event)?;
    let proposed_by = work.proposal(seq).map(|last| last.who.clone()).unwrap_or_default();
    let detail = json!({
        "who": by.who, "why": by.reason, "outcome": outcome, "proposedBy": proposed_by,
        "from": before.to_string(), "to": after.to_string(),
    });
    work.note(seq, JobEventKind::EndConfirmed, &detail);
    let detail = json!({
        "proposedBy": proposed_by, "from": before.to_string(), "to": after.to_string(),
    });
    let subject = Subject::End(seq, outcome, None);
    work.act(NewAction { kind: ActionKind::ConfirmEnd, by: by.clone(), subject, detail });
    let record = work.job(seq)?.terms.record_id;
    work.tell(News::ClosedByOperators {
        record,
        outcome,
        proposed_by,
        confirmed_by: by.who.clone(),
    });
    confirm::end(work, seq, event, outcome, KnownBy::Operators)
}
