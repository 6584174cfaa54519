//! A record as OES shows it, and what reading it back means for a job.
//!
//! This is the only way out of a doubt. Source: OES reference, `GET …/partners/allocations/{id}`.

use std::time::Duration;

use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use uuid::Uuid;

use super::{
    decision::Outcome,
    ids::{ConnectionId, RecordId},
    job::{Job, JobTerms, JobType},
    schedule::{RetryLimits, Tries},
    shown::ShownAmount,
    state::{ConflictKind, Doubt, Event, ParkReason, State},
    time::TimestampMs,
};

/// The record's status at OES.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RecordStatus {
    /// Not final.
    Reserved,
    /// Final.
    Cleared,
    /// Final.
    Released,
}

impl RecordStatus {
    /// The outcome that a final status stands for.
    #[must_use]
    pub const fn outcome(self) -> Option<Outcome> {
        match self {
            Self::Reserved => None,
            Self::Cleared => Some(Outcome::Cleared),
            Self::Released => Some(Outcome::Released),
        }
    }

    /// The word that OES uses.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reserved => "reserved",
            Self::Cleared => "cleared",
            Self::Released => "released",
        }
    }
}

/// What OES's policy said about an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PolicyResult {
    /// It may happen.
    Approved,
    /// It may not.
    Rejected,
}

/// The fields of a record that matter here. Its amount is compared before the record is decided
/// ([`super::verification`]); after that its id names it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OesRecord {
    /// The record.
    #[serde(deserialize_with = "any_spelling")]
    pub id: RecordId,
    /// Allocation or deallocation.
    #[serde(rename = "type")]
    pub job_type: JobType,
    /// Reserved or final.
    pub status: RecordStatus,
    /// The connection it belongs to.
    #[serde(deserialize_with = "any_spelling")]
    pub connection_id: ConnectionId,
    /// How much of what, as far as that can be read.
    #[serde(default, deserialize_with = "readable")]
    pub amount: Option<ShownAmount>,
    /// Why it is not cleared, where OES says so.
    #[serde(default, deserialize_with = "readable")]
    pub reason: Option<String>,
    /// When OES made it, as far as that can be read.
    #[serde(default, deserialize_with = "readable_time")]
    pub created_at: Option<TimestampMs>,
    /// Set while (or after) a policy approval is asked for.
    #[serde(default)]
    pub pending_approval_id: Option<String>,
    /// The policy's answer, once there is one.
    #[serde(default, deserialize_with = "known_result")]
    pub policy_result: Option<PolicyResult>,
}

/// What cannot be read must not hide the record's status.
fn readable<'de, D: Deserializer<'de>, T: DeserializeOwned>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    let value = serde_json::Value::deserialize(deserializer)?;
    Ok(T::deserialize(value).ok())
}

/// A time that cannot be read must not hide the record's status.
fn readable_time<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<TimestampMs>, D::Error> {
    let value = serde_json::Value::deserialize(deserializer)?;
    Ok(value.as_str().and_then(|text| text.parse().ok()))
}

/// A word that the reference does not have must not hide the record's status.
fn known_result<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<PolicyResult>, D::Error> {
    let value = serde_json::Value::deserialize(deserializer)?;
    Ok(PolicyResult::deserialize(value).ok())
}

/// OES may spell its own ids as it likes; only messages must have the one spelling.
pub(super) fn any_spelling<'de, D: Deserializer<'de>, T: From<Uuid>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Uuid::deserialize(deserializer).map(T::from)
}

/// What a read of one record found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading {
    /// OES shows the record.
    Found(OesRecord),
    /// OES answered that it has no such record.
    Absent,
    /// OES shows something under this id that cannot be read; and why.
    Unreadable(String),
}

impl Reading {
    /// One word for histories: the status, or `absent`.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Found(record) => record.status.as_str(),
            Self::Absent => "absent",
            Self::Unreadable(_) => "unreadable",
        }
    }
}

/// How far OES's clock and ours may be apart.
const CLOCK_SKEW_MAX: Duration = Duration::from_secs(60);

/// Whether OES has had a record only since after a restore, so that nothing about it can be lost.
#[must_use]
pub fn is_younger_than(record: &OesRecord, restored_at: TimestampMs) -> bool {
    record.created_at.is_some_and(|created_at| created_at > restored_at.after(CLOCK_SKEW_MAX))
}

/// What follows from a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// The job moves on.
    Moves(Event),
    /// OES ended the record, and this is how.
    Ends(Event, Outcome),
    /// The job stays as it is and is read again after this long.
    ReadAgain(Duration),
    /// The approval is still pending: it is read again after this long, and this read does not count.
    StillPending(Duration),
}

/// Which approval was pending at OES before our first send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApprovalBefore<'a> {
    /// The record was not read then, so nothing can be said.
    NotRead,
    /// None.
    None,
    /// The one with this id.
    Pending(&'a str),
}

impl<'a> ApprovalBefore<'a> {
    /// What a job's row tells of it.
    #[must_use]
    pub fn of(job: &'a Job) -> Self {
        match (job.verified_at, job.approval_before.as_deref()) {
            (None, _) => Self::NotRead,
            (Some(_), None) => Self::None,
            (Some(_), Some(id)) => Self::Pending(id),
        }
    }
}

/// A job that is being read back.
#[derive(Clone, Copy, Debug)]
pub struct Inquiry<'a> {
    /// The record's terms here.
    pub terms: &'a JobTerms,
    /// The job's state.
    pub state: State,
    /// What was decided and signed.
    pub decided: Outcome,
    /// Attempts, reads and age so far.
    pub tries: Tries,
    /// What was pending when the record was read before the decision.
    pub approval_before: ApprovalBefore<'a>,
    /// Whether a 403 to this record's update is about the token and not about the record.
    pub token_suspected: bool,
}

/// Judges what a read means.
#[must_use]
pub fn judge(inquiry: &Inquiry<'_>, reading: &Reading, limits: &RetryLimits) -> Finding {
    match reading {
        Reading::Found(record) if !is_about(record, inquiry.terms) => {
            freeze(inquiry, ConflictKind::OtherTerms, limits)
        }
        Reading::Found(record) => match record.status.outcome() {
            Some(actual) => judge_final(inquiry, record, actual, limits),
            None => judge_reserved(inquiry, record, limits),
        },
        Reading::Absent => judge_absent(inquiry, limits),
        Reading::Unreadable(_) => stay(inquiry, limits),
    }
}

fn is_about(record: &OesRecord, terms: &JobTerms) -> bool {
    record.id == terms.record_id
        && record.job_type == terms.job_type
        && record.connection_id == terms.connection_id
}

fn judge_final(
    inquiry: &Inquiry<'_>,
    record: &OesRecord,
    actual: Outcome,
    limits: &RetryLimits,
) -> Finding {
    if actual == inquiry.decided {
        Finding::Ends(Event::Confirm, actual)
    } else if record.policy_result == Some(PolicyResult::Rejected) {
        Finding::Ends(Event::Overrule, actual)
    } else {
        freeze(inquiry, ConflictKind::OtherOutcome, limits)
    }
}

fn judge_reserved(inquiry: &Inquiry<'_>, record: &OesRecord, limits: &RetryLimits) -> Finding {
    let approval_pending = record.pending_approval_id.is_some() && record.policy_result.is_none();
    match inquiry.state {
        State::Unknown(_) | State::AwaitingApproval
            if record.policy_result == Some(PolicyResult::Rejected) =>
        {
            Finding::Moves(Event::Park(ParkReason::PolicyRejected))
        }
        // What was not asked for before our first send, our update has asked for.
        State::Unknown(_) if approval_pending && is_new(record, inquiry.approval_before) => {
            Finding::Moves(Event::AwaitApproval)
        }
        // Whether our update asked for this approval cannot be told, and sending again could answer
        // for an approver.
        State::Unknown(_) if approval_pending => {
            Finding::Moves(Event::Park(ParkReason::ApprovalUnclear))
        }
        State::Unknown(doubt) => judge_untouched(inquiry, doubt, limits),
        State::AwaitingApproval if approval_pending => {
            Finding::StillPending(limits.next_read(inquiry.state, inquiry.tries.reads))
        }
        // Whoever was asked has answered, and the record has not ended by it.
        State::AwaitingApproval if inquiry.tries.reads >= limits.absent_reads_max => {
            Finding::Moves(Event::Park(ParkReason::ApprovalUnclear))
        }
        State::AwaitingApproval
        | State::Parked(_)
        | State::Conflict(_)
        | State::Received
        | State::Decided
        | State::Sending
        | State::Confirmed
        | State::Overruled
        | State::Refused => stay(inquiry, limits),
    }
}

/// Whether the approval that is pending was not there when the record was read before the decision.
fn is_new(record: &OesRecord, before: ApprovalBefore<'_>) -> bool {
    let now = record.pending_approval_id.as_deref();
    match before {
        ApprovalBefore::NotRead => false,
        ApprovalBefore::None => now.is_some(),
        ApprovalBefore::Pending(id) => now.is_some_and(|now| now != id),
    }
}

/// The record is reserved as if nothing had been sent: what that means depends on the answer that
/// caused the doubt.
fn judge_untouched(inquiry: &Inquiry<'_>, doubt: Doubt, limits: &RetryLimits) -> Finding {
    let retry = match limits.exhausted(inquiry.tries) {
        Some(reason) => Event::Park(reason),
        None => Event::FoundReserved,
    };
    Finding::Moves(match doubt {
        Doubt::NoReply
        | Doubt::ServerError
        | Doubt::OddAnswer
        | Doubt::ConflictAnswer
        | Doubt::Unauthorized
        | Doubt::Restarted
        | Doubt::SentOn => retry,
        Doubt::NotFound => {
            if inquiry.tries.attempts >= limits.not_found_attempts_max {
                Event::Park(ParkReason::NotFoundAtOes)
            } else {
                retry
            }
        }
        Doubt::Forbidden => {
            if inquiry.token_suspected {
                retry
            } else {
                Event::Park(ParkReason::Forbidden)
            }
        }
        Doubt::RefusedAnswer => Event::Park(ParkReason::RefusedByOes),
        Doubt::PolicyRejected => Event::Park(ParkReason::PolicyRejected),
        Doubt::WrongEcho => Event::Freeze(ConflictKind::WrongEcho),
    })
}

fn judge_absent(inquiry: &Inquiry<'_>, limits: &RetryLimits) -> Finding {
    match inquiry.state {
        State::Unknown(_) if inquiry.tries.absences >= limits.absent_reads_max => {
            Finding::Moves(Event::Park(ParkReason::NotFoundAtOes))
        }
        State::Unknown(_)
        | State::AwaitingApproval
        | State::Parked(_)
        | State::Conflict(_)
        | State::Received
        | State::Decided
        | State::Sending
        | State::Confirmed
        | State::Overruled
        | State::Refused => stay(inquiry, limits),
    }
}

/// A contradiction freezes a job once; one that is frozen already goes on being read.
fn freeze(inquiry: &Inquiry<'_>, kind: ConflictKind, limits: &RetryLimits) -> Finding {
    match inquiry.state {
        State::Conflict(_) => stay(inquiry, limits),
        State::Received
        | State::Decided
        | State::Sending
        | State::Unknown(_)
        | State::AwaitingApproval
        | State::Parked(_)
        | State::Confirmed
        | State::Overruled
        | State::Refused => Finding::Moves(Event::Freeze(kind)),
    }
}

fn stay(inquiry: &Inquiry<'_>, limits: &RetryLimits) -> Finding {
    Finding::ReadAgain(limits.next_read(inquiry.state, inquiry.tries.reads))
}

#[cfg(test)]
mod tests;
