//! The decision: cleared if the book allows it, else released with a reason a client may read.
//!
//! Pure: the same terms over the same view give the same ruling, so a decision can be explained
//! later, and made again, from what it saw.

use serde::{Deserialize, Serialize};

use super::{
    amount::Balance,
    book::{Connection, Currency},
    decision::{Decision, Outcome, RejectCode},
    job::{JobTerms, JobType},
    limits::ConnectionCaps,
    state::ParkReason,
    time::Day,
    verification::Ended,
};

/// Version of these rules; stored with each decision.
pub const POLICY_VERSION: u32 = 2;

/// What an operator has said about a job that needs approval.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperatorWord {
    /// It may be cleared, although it is above the threshold.
    Approved,
    /// It is released, whatever else the rules would say.
    Refused,
}

/// What the book knows about a job at the moment of its decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BookView {
    /// The job's connection, if the book has it.
    pub connection: Option<Connection>,
    /// The job's currency, if the book has it.
    pub currency: Option<Currency>,
    /// The connection's own caps in the currency; where they are silent, the currency's hold.
    pub connection_caps: ConnectionCaps,
    /// What the connection has available in the currency.
    pub available: Balance,
    /// What the connection is exposed to in the currency.
    pub exposure: Balance,
    /// What all connections together are exposed to in the currency.
    pub exposure_total: Balance,
    /// The day of the decision.
    pub day: Day,
    /// What was cleared for the connection on that day, in the currency and of the job's type.
    pub cleared_that_day: Balance,
    /// Whether a job for an unknown connection has waited long enough.
    pub connection_grace_over: bool,
    /// What an operator has said, where one was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operator: Option<OperatorWord>,
    /// How OES has ended the record, where it had before the decision.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended: Option<Ended>,
}

/// What a decision saw, as stored beside it. [`BookView`] reads it back.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Seen<'a> {
    policy_version: u32,
    #[serde(flatten)]
    view: &'a BookView,
}

impl BookView {
    /// The record of this view that is kept with the decision.
    #[must_use]
    pub fn seen(&self) -> Seen<'_> {
        Seen { policy_version: POLICY_VERSION, view: self }
    }
}

/// What follows from a view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ruling {
    /// Decided.
    Decide(Decision),
    /// The connection is unknown, and the feed may lag: not yet.
    WaitForConnection,
    /// An operator must look; nothing is decided.
    Park(ParkReason),
}

/// Rules on one job.
#[must_use]
pub fn rule(terms: &JobTerms, view: &BookView) -> Ruling {
    let Some(connection) = &view.connection else {
        return if !view.connection_grace_over {
            Ruling::WaitForConnection
        } else if view.ended.is_some() {
            // Whose it is, nothing but the message says.
            Ruling::Park(ParkReason::EndedAtOes)
        } else {
            released(RejectCode::ConnectionUnknown)
        };
    };
    if !identities_agree(terms, connection) {
        return Ruling::Park(ParkReason::IdentityMismatch);
    }
    if let Some(ended) = &view.ended {
        return follow(terms, view, ended);
    }
    if view.operator == Some(OperatorWord::Refused) {
        return released(RejectCode::OperatorRefused);
    }
    if !connection.active {
        return released(RejectCode::ConnectionInactive);
    }
    let Some(currency) = view.currency.as_ref().filter(|currency| currency.enabled) else {
        return released(RejectCode::CurrencyNotEnabled);
    };
    let caps = view.connection_caps.or(currency.caps);
    if let Some(code) = excess(terms, currency, caps, view) {
        return released(code);
    }
    let needs_approval = caps.approval_above.is_some_and(|most| terms.amount.quantity() > most);
    // Last, so that nobody is asked about what would be released anyway.
    if needs_approval && view.operator != Some(OperatorWord::Approved) {
        return Ruling::Park(ParkReason::NeedsApproval);
    }
    Ruling::Decide(Decision::Cleared)
}

/// What OES has ended is followed, whatever the limits say; but the book gives nothing that is not there.
fn follow(terms: &JobTerms, view: &BookView, ended: &Ended) -> Ruling {
    let takes_away = terms.job_type == JobType::Deallocation && ended.outcome == Outcome::Cleared;
    if takes_away && !view.available.covers(terms.amount.quantity()) {
        Ruling::Park(ParkReason::EndedAtOes)
    } else {
        Ruling::Decide(Decision::of_oes(ended))
    }
}

/// The first limit that a record would go beyond.
fn excess(
    terms: &JobTerms,
    currency: &Currency,
    caps: ConnectionCaps,
    view: &BookView,
) -> Option<RejectCode> {
    let quantity = terms.amount.quantity();
    if quantity < currency.quantity_min {
        return Some(RejectCode::QuantityTooSmall);
    }
    if quantity > currency.quantity_max {
        return Some(RejectCode::QuantityTooLarge);
    }
    let has_room = |balance: Balance, most| {
        Option::is_none_or(most, |most| balance.has_room_for(quantity, most))
    };
    if terms.job_type == JobType::Allocation {
        if !has_room(view.exposure, caps.exposure_max_per_connection) {
            return Some(RejectCode::ExposureOfConnection);
        }
        if !has_room(view.exposure_total, currency.exposure_max_total) {
            return Some(RejectCode::ExposureTotal);
        }
    }
    if !has_room(view.cleared_that_day, caps.daily_max(terms.job_type)) {
        return Some(RejectCode::DailyLimit);
    }
    let is_covered = match terms.job_type {
        JobType::Allocation => true,
        JobType::Deallocation => view.available.covers(quantity),
    };
    (!is_covered).then_some(RejectCode::InsufficientAvailable)
}

/// A release signed with identifiers that OES does not have for this connection would be refused
/// for ever, so a disagreement is for an operator.
fn identities_agree(terms: &JobTerms, connection: &Connection) -> bool {
    terms.client_id == connection.client_id
        && terms.partners_client_id == connection.partners_client_id
        && terms.partners_connection_id == connection.partners_connection_id
}

fn released(code: RejectCode) -> Ruling {
    Ruling::Decide(Decision::released(code))
}

#[cfg(test)]
mod tests;
