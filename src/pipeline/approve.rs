//! Approve: an operator says whether a job above the threshold may be cleared. Decided once, like any job.
//!
//! An approval waives the threshold and nothing else: the policy looks at the book as it is now, and
//! may release the record all the same. A refusal releases it.

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::decide::{self, Conditions, Decided};
use crate::{
    domain::{
        action::{ActionKind, Operator},
        decision::{DecidedBy, Outcome},
        ids::RecordId,
        job::Job,
        policy::OperatorWord,
        state::{ParkReason, State},
    },
    store::work::{JobEventKind, NewAction, Subject, Work, WorkError},
};

/// What was decided about a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DecidedAs {
    /// Cleared or released.
    pub outcome: Outcome,
    /// The rule that released it.
    pub reject_code: Option<String>,
}

/// What became of an operator's word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Approval {
    /// The job is decided now.
    Decided(DecidedAs),
    /// It cannot be decided and is parked for another reason; this is its state now.
    Parked(String),
    /// It did not wait for approval, so nothing was changed.
    NotWaiting {
        /// Its state.
        state: String,
        /// What was decided about it before.
        decided: Option<DecidedAs>,
    },
    /// It waits for something else first; nothing was changed.
    Waits,
    /// The book is not far enough for a decision, so nothing was changed; this is why.
    BookIsBehind(String),
    /// Nothing is decided at present, so nothing was changed.
    DecisionsAreOff,
    /// There is no job about this record.
    Unknown,
}

fn decided_as(job: &Job) -> Option<DecidedAs> {
    job.decision.as_ref().map(|decision| DecidedAs {
        outcome: decision.outcome(),
        reject_code: decision.reject_code().map(str::to_owned),
    })
}

/// Carries out an operator's word about the job of a record, if the job waits for one.
///
/// # Errors
/// [`WorkError`] when that cannot be represented.
pub fn approve(
    work: &mut Work,
    record: RecordId,
    said: OperatorWord,
    by: &Operator,
    conditions: &Conditions,
) -> Result<Approval, WorkError> {
    let Some(job) = work.find(record) else { return Ok(Approval::Unknown) };
    let (seq, before) = (job.seq, job.state);
    if before != State::Parked(ParkReason::NeedsApproval) {
        let (state, decided) = (before.to_string(), decided_as(job));
        return Ok(Approval::NotWaiting { state, decided });
    }
    if let Some(behind) = decide::behind(work, job) {
        return Ok(Approval::BookIsBehind(behind.to_string()));
    }
    let decided_by = DecidedBy::Operator { who: by.who.clone(), reason: by.reason.clone() };
    let decided = decide::decide_with_word(work, seq, said, decided_by, conditions)?;
    if decided == Decided::Waits {
        // It was parked when records were not read: now it is, and then the word can be said again.
        let now = work.now();
        work.job_mut(seq)?.next_step_at = Some(now);
        return Ok(Approval::Waits);
    }
    let job = work.job(seq)?;
    let (after, decided) = (job.state.to_string(), decided_as(job));
    let (kind, action) = match said {
        OperatorWord::Approved => (JobEventKind::Approved, ActionKind::Approve),
        OperatorWord::Refused => (JobEventKind::Refused, ActionKind::Refuse),
    };
    let detail = json!({"who": by.who, "why": by.reason, "from": before.to_string(), "to": after});
    work.note(seq, kind, &detail);
    let detail = json!({"from": before.to_string(), "to": after, "decided": decided});
    work.act(NewAction { kind: action, by: by.clone(), subject: Subject::Job(seq), detail });
    Ok(decided.map_or(Approval::Parked(after), Approval::Decided))
}
