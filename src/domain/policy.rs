//! The decision: cleared if the book allows it, else released with a reason a client may read.
//!
//! Pure: the same terms over the same view give the same ruling, so a decision can be explained
//! later from what it saw.

use serde::Serialize;

use super::{
    amount::Balance,
    book::{Connection, Currency},
    decision::{Decision, RejectCode},
    job::{JobTerms, JobType},
    state::ParkReason,
};

/// Version of these rules; stored with each decision.
pub const POLICY_VERSION: u32 = 1;

/// What the book knows about a job at the moment of its decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BookView {
    /// The job's connection, if the book has it.
    pub connection: Option<Connection>,
    /// The job's currency, if the book has it.
    pub currency: Option<Currency>,
    /// What the connection has available in the currency.
    pub available: Balance,
    /// Whether a job for an unknown connection has waited long enough.
    pub connection_grace_over: bool,
}

/// What a decision saw, as stored beside it.
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
        return if view.connection_grace_over {
            released(RejectCode::ConnectionUnknown)
        } else {
            Ruling::WaitForConnection
        };
    };
    if !identities_agree(terms, connection) {
        return Ruling::Park(ParkReason::IdentityMismatch);
    }
    if !connection.active {
        return released(RejectCode::ConnectionInactive);
    }
    let Some(currency) = view.currency.as_ref().filter(|currency| currency.enabled) else {
        return released(RejectCode::CurrencyNotEnabled);
    };
    let quantity = terms.amount.quantity();
    if quantity < currency.quantity_min {
        return released(RejectCode::QuantityTooSmall);
    }
    if quantity > currency.quantity_max {
        return released(RejectCode::QuantityTooLarge);
    }
    match terms.job_type {
        JobType::Deallocation if !view.available.covers(quantity) => {
            released(RejectCode::InsufficientAvailable)
        }
        JobType::Allocation | JobType::Deallocation => Ruling::Decide(Decision::Cleared),
    }
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
mod tests {
    use super::*;
    use crate::domain::{
        amount::{Amount, Quantity, Total},
        decision::Outcome,
    };

    fn terms(job_type: JobType, quantity: u64) -> JobTerms {
        JobTerms {
            job_type,
            record_id: "0b4a3f3e-7d0a-4b5e-9a0e-3d1c5f2b7a10".parse().unwrap(),
            amount: Amount::positive("BTC".parse().unwrap(), Quantity::from(quantity)).unwrap(),
            client_id: "5d1f0e3a-2b6c-4f0d-8a37-1f0a3c9b2d11".parse().unwrap(),
            connection_id: "9e8d7c6b-5a49-4838-a716-0f1e2d3c4b5a".parse().unwrap(),
            partners_client_id: "client-001".parse().unwrap(),
            partners_connection_id: "conn-001".parse().unwrap(),
            partners_record_id: "a-1".parse().unwrap(),
        }
    }

    fn view(available: u64) -> BookView {
        let terms = terms(JobType::Allocation, 1);
        let credits = Total::ZERO.plus(Quantity::from(available)).unwrap();
        BookView {
            connection: Some(Connection {
                connection_id: terms.connection_id,
                client_id: terms.client_id,
                partners_client_id: terms.partners_client_id,
                partners_connection_id: terms.partners_connection_id,
                active: true,
            }),
            currency: Some(Currency {
                currency: "BTC".parse().unwrap(),
                enabled: true,
                quantity_min: Quantity::from(10),
                quantity_max: Quantity::from(100),
            }),
            available: Balance::of(credits, Total::ZERO),
            connection_grace_over: false,
        }
    }

    #[test]
    fn an_allocation_needs_no_balance_and_a_deallocation_is_covered_exactly() {
        let cleared = Ruling::Decide(Decision::Cleared);
        assert_eq!(rule(&terms(JobType::Allocation, 50), &view(0)), cleared);
        assert_eq!(rule(&terms(JobType::Deallocation, 50), &view(50)), cleared);
        assert_eq!(
            rule(&terms(JobType::Deallocation, 50), &view(49)),
            released(RejectCode::InsufficientAvailable)
        );
    }

    #[test]
    fn limits_are_inclusive() {
        for (quantity, ruling) in [
            (9, released(RejectCode::QuantityTooSmall)),
            (10, Ruling::Decide(Decision::Cleared)),
            (100, Ruling::Decide(Decision::Cleared)),
            (101, released(RejectCode::QuantityTooLarge)),
        ] {
            assert_eq!(rule(&terms(JobType::Allocation, quantity), &view(0)), ruling, "{quantity}");
        }
    }

    #[test]
    fn an_unknown_connection_waits_for_its_grace_and_is_then_released() {
        let mut unknown = view(0);
        unknown.connection = None;
        let job = terms(JobType::Allocation, 50);
        assert_eq!(rule(&job, &unknown), Ruling::WaitForConnection);
        unknown.connection_grace_over = true;
        assert_eq!(rule(&job, &unknown), released(RejectCode::ConnectionUnknown));
    }

    #[test]
    fn a_job_that_disagrees_with_its_connection_is_never_decided() {
        let wrong: [fn(&mut JobTerms); 3] = [
            |terms| terms.client_id = "5d1f0e3a-2b6c-4f0d-8a37-1f0a3c9b2d12".parse().unwrap(),
            |terms| terms.partners_client_id = "client-002".parse().unwrap(),
            |terms| terms.partners_connection_id = "conn-002".parse().unwrap(),
        ];
        for spoil in wrong {
            let mut job = terms(JobType::Allocation, 1_000_000);
            spoil(&mut job);
            let mut inactive = view(0);
            inactive.connection.as_mut().unwrap().active = false;
            for view in [view(0), inactive] {
                assert_eq!(rule(&job, &view), Ruling::Park(ParkReason::IdentityMismatch));
            }
        }
    }

    #[test]
    fn what_is_switched_off_is_released() {
        let job = terms(JobType::Allocation, 50);
        let mut inactive = view(0);
        inactive.connection.as_mut().unwrap().active = false;
        assert_eq!(rule(&job, &inactive), released(RejectCode::ConnectionInactive));
        let mut disabled = view(0);
        disabled.currency.as_mut().unwrap().enabled = false;
        assert_eq!(rule(&job, &disabled), released(RejectCode::CurrencyNotEnabled));
        disabled.currency = None;
        assert_eq!(rule(&job, &disabled), released(RejectCode::CurrencyNotEnabled));
    }

    #[test]
    fn a_reason_for_the_client_holds_no_number_and_nothing_of_the_inside() {
        for code in RejectCode::ALL {
            let Ruling::Decide(decision) = released(code) else { unreachable!() };
            assert_eq!(decision.outcome(), Outcome::Released);
            let reason = decision.reject_reason().unwrap();
            assert!(!reason.is_empty() && !reason.chars().any(|c| c.is_ascii_digit()), "{reason}");
        }
    }
}
