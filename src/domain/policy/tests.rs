use proptest::prelude::*;

use super::*;
use crate::domain::amount::{Amount, Quantity, Total};

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
            decimals: None,
            exposure_max_total: None,
            caps: ConnectionCaps::default(),
        }),
        connection_caps: ConnectionCaps::default(),
        available: Balance::of(credits, Total::ZERO),
        exposure: Balance::ZERO,
        exposure_total: Balance::ZERO,
        day: "2026-11-22".parse().unwrap(),
        cleared_that_day: Balance::ZERO,
        connection_grace_over: false,
        operator: None,
        ended: None,
    }
}

fn units(units: i64) -> Balance {
    units.to_string().parse().unwrap()
}

#[expect(clippy::unnecessary_wraps, reason = "limits are optional")]
fn cap(units: u64) -> Option<Quantity> {
    Some(Quantity::from(units))
}

fn limited(change: impl FnOnce(&mut BookView, &mut Currency)) -> BookView {
    let mut view = view(1_000);
    let mut currency = view.currency.take().unwrap();
    change(&mut view, &mut currency);
    view.currency = Some(currency);
    view
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
fn exposure_may_reach_its_cap_and_bounds_allocations_only() {
    for (exposure, of_connection, of_all) in [
        (50, Ruling::Decide(Decision::Cleared), Ruling::Decide(Decision::Cleared)),
        (51, released(RejectCode::ExposureOfConnection), released(RejectCode::ExposureTotal)),
        (-1, Ruling::Decide(Decision::Cleared), Ruling::Decide(Decision::Cleared)),
    ] {
        let one = limited(|view, currency| {
            view.exposure = units(exposure);
            currency.caps.exposure_max_per_connection = cap(100);
        });
        let all = limited(|view, currency| {
            view.exposure_total = units(exposure);
            currency.exposure_max_total = cap(100);
        });
        for (view, ruling) in [(one, of_connection), (all, of_all)] {
            assert_eq!(rule(&terms(JobType::Allocation, 50), &view), ruling, "{exposure}");
            let back = rule(&terms(JobType::Deallocation, 50), &view);
            assert_eq!(back, Ruling::Decide(Decision::Cleared));
        }
    }
}

#[test]
fn each_type_has_its_own_day() {
    let day = |cleared| {
        limited(|view, currency| {
            view.cleared_that_day = units(cleared);
            currency.caps.daily_allocation_max_per_connection = cap(100);
            currency.caps.daily_deallocation_max_per_connection = cap(90);
        })
    };
    let (allocation, deallocation) =
        (terms(JobType::Allocation, 50), terms(JobType::Deallocation, 50));
    for (job, cleared, ruling) in [
        (&allocation, 50, Ruling::Decide(Decision::Cleared)),
        (&allocation, 51, released(RejectCode::DailyLimit)),
        (&deallocation, 40, Ruling::Decide(Decision::Cleared)),
        (&deallocation, 41, released(RejectCode::DailyLimit)),
    ] {
        assert_eq!(rule(job, &day(cleared)), ruling, "{} {cleared}", job.job_type);
    }
}

#[test]
fn a_person_is_asked_above_the_threshold_and_about_nothing_that_would_be_released() {
    let asked = |change: fn(&mut BookView, &mut Currency)| {
        limited(|view, currency| {
            currency.caps.approval_above = cap(49);
            change(view, currency);
        })
    };
    let needs = Ruling::Park(ParkReason::NeedsApproval);
    for job_type in JobType::ALL {
        assert_eq!(rule(&terms(job_type, 50), &asked(|_, _| {})), needs);
        let below = rule(&terms(job_type, 49), &asked(|_, _| {}));
        assert_eq!(below, Ruling::Decide(Decision::Cleared));
    }
    let job = terms(JobType::Deallocation, 50);
    let uncovered = asked(|view, _| view.available = units(49));
    assert_eq!(rule(&job, &uncovered), released(RejectCode::InsufficientAvailable));
    let own = asked(|view, _| view.connection_caps.approval_above = cap(50));
    assert_eq!(rule(&job, &own), Ruling::Decide(Decision::Cleared), "its own goes before");
    // Approved, everything else is looked at again; refused, nothing is.
    for (word, covered, ruling) in [
        (OperatorWord::Approved, true, Ruling::Decide(Decision::Cleared)),
        (OperatorWord::Approved, false, released(RejectCode::InsufficientAvailable)),
        (OperatorWord::Refused, true, released(RejectCode::OperatorRefused)),
        (OperatorWord::Refused, false, released(RejectCode::OperatorRefused)),
    ] {
        let mut view = asked(|_, _| {});
        view.operator = Some(word);
        if !covered {
            view.available = Balance::ZERO;
        }
        assert_eq!(rule(&job, &view), ruling, "{word:?}");
        let mut other = job.clone();
        other.partners_client_id = "client-002".parse().unwrap();
        assert_eq!(rule(&other, &view), Ruling::Park(ParkReason::IdentityMismatch));
    }
}

#[test]
fn what_oes_has_ended_is_followed_where_the_book_covers_it() {
    let ended =
        |outcome, reason: Option<&str>| Some(Ended { outcome, reason: reason.map(str::to_owned) });
    for job_type in JobType::ALL {
        // Beyond its limits, inactive, above the threshold: OES has ended it all the same.
        let job = terms(job_type, 500);
        let mut view = limited(|view, currency| {
            currency.caps.approval_above = cap(1);
            view.connection.as_mut().unwrap().active = false;
        });
        view.ended = ended(Outcome::Cleared, None);
        assert_eq!(rule(&job, &view), Ruling::Decide(Decision::Cleared), "{job_type}");
        view.ended = ended(Outcome::Released, Some("expired"));
        let Ruling::Decide(decision) = rule(&job, &view) else { panic!("not decided") };
        assert_eq!(decision.outcome(), Outcome::Released);
        assert_eq!(decision.reject_reason(), Some("expired"));
        assert_eq!(decision.reject_code(), Some("released_at_oes"));
        let mut other = job.clone();
        other.partners_client_id = "client-002".parse().unwrap();
        assert_eq!(rule(&other, &view), Ruling::Park(ParkReason::IdentityMismatch));
        view.connection = None;
        assert_eq!(rule(&job, &view), Ruling::WaitForConnection);
        view.connection_grace_over = true;
        assert_eq!(rule(&job, &view), Ruling::Park(ParkReason::EndedAtOes));
    }
    let mut short = view(499);
    short.ended = ended(Outcome::Cleared, None);
    let park = Ruling::Park(ParkReason::EndedAtOes);
    assert_eq!(rule(&terms(JobType::Deallocation, 500), &short), park);
    let goes_on = rule(&terms(JobType::Allocation, 500), &short);
    assert_eq!(goes_on, Ruling::Decide(Decision::Cleared));
    short.ended = ended(Outcome::Released, None);
    let released = rule(&terms(JobType::Deallocation, 500), &short);
    assert!(matches!(released, Ruling::Decide(Decision::Released { .. })));
}

proptest! {
    /// What is cleared is within every limit, and what is within every limit is cleared.
    #[test]
    fn the_ruling_is_cleared_exactly_within_all_limits(
        deallocation: bool,
        quantity in 1_u64..120,
        available in -50_i64..150,
        exposure in -50_i64..150,
        exposure_total in -50_i64..300,
        cleared in 0_i64..150,
        caps in prop::array::uniform5(prop::option::of(0_u64..200)),
        own in prop::array::uniform4(prop::option::of(0_u64..200)),
        word in prop::option::of(prop::bool::ANY),
    ) {
        let job_type =
            if deallocation { JobType::Deallocation } else { JobType::Allocation };
        let caps_of = |caps: [Option<u64>; 4]| {
            let [exposure, allocated, deallocated, approval] =
                caps.map(|cap| cap.map(Quantity::from));
            ConnectionCaps {
                exposure_max_per_connection: exposure,
                daily_allocation_max_per_connection: allocated,
                daily_deallocation_max_per_connection: deallocated,
                approval_above: approval,
            }
        };
        let [total, of_each @ ..] = caps;
        let view = limited(|view, currency| {
            view.available = units(available);
            view.exposure = units(exposure);
            view.exposure_total = units(exposure_total);
            view.cleared_that_day = units(cleared);
            view.connection_caps = caps_of(own);
            view.operator = word.map(|approved| {
                if approved { OperatorWord::Approved } else { OperatorWord::Refused }
            });
            currency.exposure_max_total = total.map(Quantity::from);
            currency.caps = caps_of(of_each);
        });
        let ruling = rule(&terms(job_type, quantity), &view);

        let moved = i64::try_from(quantity).unwrap();
        let holds = |cap: Option<u64>, sum: i64| {
            cap.is_none_or(|cap| sum <= i64::try_from(cap).unwrap())
        };
        let effective = |which: usize| own[which].or(of_each[which]);
        let is_within = (10..=100).contains(&quantity)
            && holds(effective(if deallocation { 2 } else { 1 }), cleared + moved)
            && if deallocation {
                moved <= available
            } else {
                holds(effective(0), exposure + moved) && holds(total, exposure_total + moved)
            };
        let needs_approval = !holds(effective(3), moved);
        let expected = match word {
            Some(false) => "refused",
            _ if !is_within => "released",
            None if needs_approval => "asked",
            _ => "cleared",
        };
        let said = match &ruling {
            Ruling::Decide(Decision::Cleared) => "cleared",
            Ruling::Decide(decision)
                if decision.reject_code() == Some("operator_refused") => "refused",
            Ruling::Decide(_) => "released",
            Ruling::Park(ParkReason::NeedsApproval) => "asked",
            other => return Err(TestCaseError::fail(format!("{other:?}"))),
        };
        prop_assert_eq!(said, expected);

        // What is stored explains the decision: the same terms over it give the same ruling.
        let stored = serde_json::to_string(&view.seen()).unwrap();
        let read: BookView = serde_json::from_str(&stored).unwrap();
        prop_assert_eq!(rule(&terms(job_type, quantity), &read), ruling);
        prop_assert_eq!(read, view);
    }
}

#[test]
fn a_view_without_connection_and_currency_reads_back_too() {
    let mut view = view(0);
    (view.connection, view.currency) = (None, None);
    let stored = serde_json::to_string(&view.seen()).unwrap();
    assert!(stored.starts_with(r#"{"policyVersion":2,"#), "{stored}");
    assert_eq!(serde_json::from_str::<BookView>(&stored).unwrap(), view);
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
