//! Edges of the rules that no other test of this room stands on: each of these was written because the
//! code could be changed there without a test failing.

use std::{collections::BTreeSet, time::Duration};

use super::{
    amount::{Amount, Balance, Delta, Quantity, Total},
    announcement::routing_key,
    book::{BookEvent, BookEventError, EVENT_BYTES_MAX},
    decision::{Decision, Outcome, RejectCode},
    ids::JobSeq,
    job::{Job, JobTerms, JobType},
    message::{MESSAGE_BYTES_MAX, RefusalCode, parse_job},
    record::{OesRecord, is_younger_than},
    reply::{Verdict, classify, counts_as_attempt},
    state::{Doubt, Event, ParkReason, State},
    time::TimestampMs,
};

fn terms() -> JobTerms {
    JobTerms {
        job_type: JobType::Allocation,
        record_id: "0b4a3f3e-7d0a-4b5e-9a0e-3d1c5f2b7a10".parse().unwrap(),
        amount: Amount::positive("BTC".parse().unwrap(), Quantity::from(5)).unwrap(),
        client_id: "5d1f0e3a-2b6c-4f0d-8a37-1f0a3c9b2d11".parse().unwrap(),
        connection_id: "9e8d7c6b-5a49-4838-a716-0f1e2d3c4b5a".parse().unwrap(),
        partners_client_id: "client-001".parse().unwrap(),
        partners_connection_id: "conn-001".parse().unwrap(),
        partners_record_id: "r-001".parse().unwrap(),
    }
}

/// `text` with spaces behind it, `length` bytes together.
fn padded(text: &str, length: usize) -> String {
    format!("{text}{}", " ".repeat(length - text.len()))
}

#[test]
fn the_sign_of_a_number_is_told() {
    let ten = Total::ZERO.plus(Quantity::from(10)).unwrap();
    assert!(Balance::of(Total::ZERO, ten).is_negative());
    assert!(!Balance::of(ten, Total::ZERO).is_negative());
    assert!(!Balance::ZERO.is_negative());
    assert!("-1".parse::<Delta>().unwrap().is_negative());
    assert!(!"1".parse::<Delta>().unwrap().is_negative());
    assert_eq!(ten.to_string(), "10");
    assert_eq!(ten.and(ten).unwrap().to_string(), "20");
}

#[test]
fn a_message_or_an_event_may_have_exactly_as_many_bytes_as_are_allowed() {
    let event = r#"{"type":"currency.configured","eventId":"x","currency":"BTC","enabled":true,
        "quantityMin":"1","quantityMax":"1"}"#;
    assert!(
        BookEvent::parse(&padded(event, EVENT_BYTES_MAX)).is_ok(),
        "one quantity is a range too"
    );
    let bytes = EVENT_BYTES_MAX + 1;
    let refused = BookEvent::parse(&padded(event, bytes));
    assert_eq!(refused, Err(BookEventError::TooLarge { bytes }));
    assert_eq!(EVENT_BYTES_MAX, 16_384);

    let job = serde_json::json!({
        "type": "allocation", "allocationId": terms().record_id, "amount": terms().amount,
        "clientId": terms().client_id, "connectionId": terms().connection_id,
        "partnersClientId": "client-001", "partnersConnectionId": "conn-001",
        "partnersAllocationId": "r-001",
    })
    .to_string();
    assert_eq!(parse_job(padded(&job, MESSAGE_BYTES_MAX).as_bytes()), Ok(terms()));
    let refused = parse_job(padded(&job, MESSAGE_BYTES_MAX + 1).as_bytes()).unwrap_err();
    assert_eq!(refused.code, RefusalCode::TooLarge);
    // One identifier of the other type is one too many, whichever it is.
    for (name, value) in [
        ("deallocationId", "0b4a3f3e-7d0a-4b5e-9a0e-3d1c5f2b7a11"),
        ("partnersDeallocationId", "r-002"),
    ] {
        let both = job.replacen('{', &format!("{{\"{name}\":\"{value}\","), 1);
        assert_eq!(parse_job(both.as_bytes()).unwrap_err().code, RefusalCode::BadField, "{name}");
    }
}

#[test]
fn an_outcome_is_announced_under_its_type_and_outcome() {
    let keys: BTreeSet<String> = [JobType::Allocation, JobType::Deallocation]
        .into_iter()
        .flat_map(|kind| [Outcome::Cleared, Outcome::Released].map(|end| routing_key(kind, end)))
        .collect();
    let expected = [
        "allocation.cleared",
        "allocation.released",
        "deallocation.cleared",
        "deallocation.released",
    ];
    assert_eq!(keys, expected.map(str::to_owned).into());
}

#[test]
fn a_release_carries_the_word_of_its_rule() {
    for code in RejectCode::ALL {
        assert_eq!(Decision::released(code).reject_code(), Some(code.as_str()));
    }
    assert_eq!(Decision::Cleared.reject_code(), None);
    let words: BTreeSet<&str> = RejectCode::ALL.iter().map(|code| code.as_str()).collect();
    assert_eq!(words.len(), RejectCode::ALL.len(), "each rule has its own word");
}

#[test]
fn what_was_tried_is_counted_from_the_first_attempt() {
    let received_at = TimestampMs::from_millis(1_000);
    let mut job = Job::received(JobSeq::from(1), terms(), received_at);
    assert_eq!(job.tries(TimestampMs::from_millis(9_000)).age, Duration::ZERO);
    job.tried_since = Some(TimestampMs::from_millis(5_000));
    (job.attempts_counted, job.reads_made, job.absences) = (3, 2, 1);
    let tries = job.tries(TimestampMs::from_millis(9_000));
    assert_eq!((tries.attempts, tries.reads, tries.absences), (3, 2, 1));
    assert_eq!(tries.age, Duration::from_secs(4));
}

#[test]
fn a_record_is_younger_than_a_restore_if_no_skew_of_clocks_explains_its_date() {
    let restored_at = TimestampMs::from_millis(1_000_000);
    let record = |created_at: Option<i64>| -> OesRecord {
        let created_at = created_at.map(|after_ms| restored_at.as_millis() + after_ms);
        serde_json::from_value(serde_json::json!({
            "id": terms().record_id, "type": "allocation", "status": "reserved",
            "connectionId": terms().connection_id, "amount": {"currency": "BTC", "quantity": "5"},
            "createdAt": created_at.map(|ms| TimestampMs::from_millis(ms).to_string()),
        }))
        .unwrap()
    };
    let created = |after_ms| record(Some(after_ms));
    assert!(is_younger_than(&created(60_001), restored_at));
    assert!(!is_younger_than(&created(60_000), restored_at), "it may be as old as the restore");
    assert!(!is_younger_than(&created(-1), restored_at));
    assert!(!is_younger_than(&record(None), restored_at), "a record without a date may be old");
}

#[test]
fn being_turned_away_costs_no_attempt() {
    assert_eq!(classify(&terms(), 429, None), Verdict::TurnedAway);
    assert!(!counts_as_attempt(Verdict::TurnedAway));
    assert!(!counts_as_attempt(Verdict::Doubtful(Doubt::Unauthorized)));
    assert!(!counts_as_attempt(Verdict::Doubtful(Doubt::Forbidden)));
    for doubt in [Doubt::NoReply, Doubt::ServerError, Doubt::ConflictAnswer, Doubt::RefusedAnswer] {
        assert!(counts_as_attempt(Verdict::Doubtful(doubt)), "{doubt:?}");
    }
}

#[test]
fn a_job_is_parked_undecided_only_before_its_decision_and_decided_only_after_it() {
    for reason in ParkReason::ALL {
        let park = Event::Park(reason);
        assert_eq!(State::Received.apply(park).is_ok(), reason.is_undecided(), "{reason:?}");
        assert_eq!(State::Decided.apply(park).is_ok(), !reason.is_undecided(), "{reason:?}");
        let sent_on = State::Parked(reason).apply(Event::Retry).ok();
        let expected = match reason {
            // An operator's word decides it, and nothing else moves it.
            ParkReason::NeedsApproval => None,
            _ if reason.is_undecided() => Some(State::Received),
            _ => Some(State::Unknown(Doubt::SentOn)),
        };
        assert_eq!(sent_on, expected, "{reason:?}");
    }
    for reason in
        [ParkReason::IdentityMismatch, ParkReason::DecideFailed, ParkReason::PredatesRestore]
    {
        assert!(reason.is_undecided(), "{reason:?}");
    }
    for reason in [ParkReason::RefusedByOes, ParkReason::AttemptsExhausted, ParkReason::StepFailed]
    {
        assert!(!reason.is_undecided(), "{reason:?}");
    }
}

#[test]
fn every_state_is_listed_once_and_named() {
    let states: Vec<State> = State::all().collect();
    let distinct: BTreeSet<State> = states.iter().copied().collect();
    assert_eq!(states.len(), distinct.len());
    assert!(states.len() > Doubt::ALL.len() + ParkReason::ALL.len());
    for state in states {
        assert!(state.to_string().starts_with(state.name()), "{state:?}");
    }
}
