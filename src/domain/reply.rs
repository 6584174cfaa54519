//! What OES's answer to an update means.
//!
//! Source: OES reference for the two PUT routes. Whatever it leaves open ends in a doubt, which is
//! settled by reading the record back; only a 200 with our own values settles it here.

use serde::Deserialize;

use super::{
    job::{JobTerms, JobType},
    record::PolicyResult,
    state::Doubt,
};

/// What an answer says about the attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// 200, our values, final.
    Accepted,
    /// 200, our values, and OES's policy approval is pending.
    ApprovalPending,
    /// 429: the attempt was not looked at.
    TurnedAway,
    /// The record must be read back.
    Doubtful(Doubt),
}

impl Verdict {
    /// One word for rows and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::ApprovalPending => "approval_pending",
            Self::TurnedAway => "turned_away",
            Self::Doubtful(doubt) => doubt.as_str(),
        }
    }
}

/// The body of a 200, as far as it is compared.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Echo {
    allocation_id: Option<String>,
    deallocation_id: Option<String>,
    amount: EchoAmount,
    client_id: String,
    connection_id: String,
    partners_client_id: String,
    partners_connection_id: String,
    partners_allocation_id: Option<String>,
    partners_deallocation_id: Option<String>,
    pending_approval_id: Option<String>,
    policy_result: Option<PolicyResult>,
}

#[derive(Deserialize)]
struct EchoAmount {
    currency: String,
    quantity: String,
}

/// Reads the answer to an update of `terms`. `body` is `None` when it was cut off or larger than
/// the limit.
#[must_use]
pub fn classify(terms: &JobTerms, status: u16, body: Option<&[u8]>) -> Verdict {
    let doubt = match status {
        200 => return classify_ok(terms, body),
        400 | 422 => Doubt::RefusedAnswer,
        401 => Doubt::Unauthorized,
        403 => Doubt::Forbidden,
        404 => Doubt::NotFound,
        409 => Doubt::ConflictAnswer,
        429 => return Verdict::TurnedAway,
        500..=599 => Doubt::ServerError,
        _ => Doubt::OddAnswer,
    };
    Verdict::Doubtful(doubt)
}

fn classify_ok(terms: &JobTerms, body: Option<&[u8]>) -> Verdict {
    let Some(echo) = body.and_then(|bytes| serde_json::from_slice::<Echo>(bytes).ok()) else {
        return Verdict::Doubtful(Doubt::OddAnswer);
    };
    match echoes(&echo, terms) {
        None => Verdict::Doubtful(Doubt::OddAnswer),
        Some(false) => Verdict::Doubtful(Doubt::WrongEcho),
        Some(true) => match (&echo.policy_result, &echo.pending_approval_id) {
            (Some(PolicyResult::Rejected), _) => Verdict::Doubtful(Doubt::PolicyRejected),
            (None, Some(_)) => Verdict::ApprovalPending,
            (Some(PolicyResult::Approved), _) | (None, None) => Verdict::Accepted,
        },
    }
}

/// Whether the echo has our values; `None` if the record's own id is missing.
fn echoes(echo: &Echo, terms: &JobTerms) -> Option<bool> {
    let (record_id, partners_record_id) = match terms.job_type {
        JobType::Allocation => (&echo.allocation_id, &echo.partners_allocation_id),
        JobType::Deallocation => (&echo.deallocation_id, &echo.partners_deallocation_id),
    };
    let same_uuid = |text: &str, ours: uuid::Uuid| uuid::Uuid::try_parse(text) == Ok(ours);
    Some(
        same_uuid(record_id.as_deref()?, terms.record_id.as_uuid())
            && partners_record_id.as_deref()? == terms.partners_record_id.as_str()
            && echo.amount.currency == terms.amount.currency().as_str()
            && echo.amount.quantity == terms.amount.quantity().to_string()
            && same_uuid(&echo.client_id, terms.client_id.as_uuid())
            && same_uuid(&echo.connection_id, terms.connection_id.as_uuid())
            && echo.partners_client_id == terms.partners_client_id.as_str()
            && echo.partners_connection_id == terms.partners_connection_id.as_str(),
    )
}

/// Whether an attempt with this verdict counts against the bound on attempts: one that was turned
/// away was never looked at, and one whose token was refused says nothing about its record.
#[must_use]
pub const fn counts_as_attempt(verdict: Verdict) -> bool {
    !matches!(
        verdict,
        Verdict::TurnedAway | Verdict::Doubtful(Doubt::Unauthorized | Doubt::Forbidden)
    )
}

#[cfg(test)]
mod tests;
