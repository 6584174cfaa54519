//! A record's life: reserved, perhaps waiting for an approval, then final for ever.

use serde::{Deserialize, Serialize};

use super::units::Units;
use crate::domain::{
    decision::Outcome,
    ids::{ClientId, ConnectionId, CurrencyCode, RecordId},
    job::JobType,
    time::TimestampMs,
};

/// What a policy said about an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PolicyResult {
    /// It may happen.
    Approved,
    /// It may not.
    Rejected,
}

/// What an update that waits for an approval asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Asked {
    /// The outcome.
    pub outcome: Outcome,
    /// The reason, if it is a release.
    pub reject_reason: Option<String>,
    /// The record's id in the partner's system.
    pub partners_record_id: String,
}

/// How far a record has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Standing {
    /// The partner has not decided.
    Reserved,
    /// The partner has decided, and an approval is pending. Shown as reserved.
    AwaitingApproval(Asked),
    /// It has ended.
    Final(Outcome),
}

impl Standing {
    /// The status as OES shows it.
    #[must_use]
    pub const fn status(&self) -> &'static str {
        match self {
            Self::Reserved | Self::AwaitingApproval(_) => "reserved",
            Self::Final(outcome) => outcome.as_str(),
        }
    }

    /// How it ended, if it has.
    #[must_use]
    pub const fn outcome(&self) -> Option<Outcome> {
        match self {
            Self::Reserved | Self::AwaitingApproval(_) => None,
            Self::Final(outcome) => Some(*outcome),
        }
    }
}

/// An allocation or a deallocation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Its id.
    pub id: RecordId,
    /// Which of the two.
    #[serde(rename = "type")]
    pub record_type: JobType,
    /// Its connection.
    pub connection_id: ConnectionId,
    /// Its client.
    pub client_id: ClientId,
    /// The currency as the client names it.
    pub currency: CurrencyCode,
    /// The currency as the partner names it.
    pub partner_currency: CurrencyCode,
    /// How much.
    pub quantity: Units,
    /// The client's id of it.
    pub client_external_id: String,
    /// The client's notes.
    pub notes: Option<String>,
    /// Who asked for it.
    pub initiated_by: String,
    /// The partner's id of it as the partner's edge answered and the job message says. An update
    /// must name it.
    pub partners_record_id: String,
    /// The same once an update was applied: what reads show.
    pub partner_external_id: Option<String>,
    /// How far it has come.
    pub standing: Standing,
    /// Why it is not cleared; nothing once it is.
    pub reason: Option<String>,
    /// The approval that an update waits or waited for.
    pub pending_approval_id: Option<String>,
    /// What the policy said.
    pub policy_result: Option<PolicyResult>,
    /// When it was made.
    pub created_at: TimestampMs,
    /// When it last changed.
    pub updated_at: TimestampMs,
}

/// The other outcome.
pub(super) const fn other(outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Cleared => Outcome::Released,
        Outcome::Released => Outcome::Cleared,
    }
}
