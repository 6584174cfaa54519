use super::*;
use crate::domain::{
    amount::{Amount, Quantity},
    schedule::Schedule,
};

const LIMITS: RetryLimits = RetryLimits {
    schedule: Schedule::new(Duration::from_secs(1), Duration::from_secs(60)),
    attempts_max: 5,
    age_max: Duration::from_secs(1_000),
    not_found_attempts_max: 2,
    absent_reads_max: 3,
    approval_read_every: Duration::from_secs(30),
    slow_read_every: Duration::from_secs(900),
};

fn terms() -> JobTerms {
    JobTerms {
        job_type: JobType::Allocation,
        record_id: "0b4a3f3e-7d0a-4b5e-9a0e-3d1c5f2b7a10".parse().unwrap(),
        amount: Amount::positive("BTC".parse().unwrap(), Quantity::from(1)).unwrap(),
        client_id: "5d1f0e3a-2b6c-4f0d-8a37-1f0a3c9b2d11".parse().unwrap(),
        connection_id: "9e8d7c6b-5a49-4838-a716-0f1e2d3c4b5a".parse().unwrap(),
        partners_client_id: "client-001".parse().unwrap(),
        partners_connection_id: "conn-001".parse().unwrap(),
        partners_record_id: "a-1".parse().unwrap(),
    }
}

fn record(status: RecordStatus) -> OesRecord {
    let terms = terms();
    OesRecord {
        id: terms.record_id,
        job_type: terms.job_type,
        status,
        connection_id: terms.connection_id,
        amount: None,
        reason: None,
        created_at: None,
        pending_approval_id: None,
        policy_result: None,
    }
}

fn judged(state: State, decided: Outcome, tries: Tries, record: OesRecord) -> Finding {
    judged_after(ApprovalBefore::NotRead, state, decided, tries, record)
}

/// The same, where the record was read before the decision.
fn judged_after(
    approval_before: ApprovalBefore<'_>,
    state: State,
    decided: Outcome,
    tries: Tries,
    record: OesRecord,
) -> Finding {
    let inquiry =
        Inquiry { terms: &terms(), state, decided, tries, approval_before, token_suspected: false };
    judge(&inquiry, &Reading::Found(record), &LIMITS)
}

/// The states in which a decided record is read back.
fn read_states() -> impl Iterator<Item = State> {
    State::all().filter(|state| match state {
        State::Unknown(_) | State::AwaitingApproval | State::Conflict(_) => true,
        State::Parked(reason) => !reason.is_undecided(),
        State::Received
        | State::Decided
        | State::Sending
        | State::Confirmed
        | State::Overruled
        | State::Refused => false,
    })
}

#[test]
fn our_outcome_confirms_from_every_state_that_is_read() {
    for state in read_states() {
        for (status, decided) in
            [(RecordStatus::Cleared, Outcome::Cleared), (RecordStatus::Released, Outcome::Released)]
        {
            let finding = judged(state, decided, Tries::default(), record(status));
            assert_eq!(finding, Finding::Ends(Event::Confirm, decided), "{state}");
        }
    }
}

#[test]
fn the_other_outcome_freezes_and_is_never_sent_again() {
    for state in read_states() {
        let finding =
            judged(state, Outcome::Cleared, Tries::default(), record(RecordStatus::Released));
        match state {
            State::Conflict(_) => {
                assert_eq!(finding, Finding::ReadAgain(LIMITS.slow_read_every));
            }
            _ => assert_eq!(
                finding,
                Finding::Moves(Event::Freeze(ConflictKind::OtherOutcome)),
                "{state}"
            ),
        }
    }
}

#[test]
fn the_other_outcome_by_policy_overrules() {
    for state in read_states() {
        let mut overruled = record(RecordStatus::Released);
        overruled.policy_result = Some(PolicyResult::Rejected);
        let finding = judged(state, Outcome::Cleared, Tries::default(), overruled);
        assert_eq!(finding, Finding::Ends(Event::Overrule, Outcome::Released), "{state}");
    }
}

#[test]
fn a_record_with_other_terms_freezes() {
    let other_type = OesRecord { job_type: JobType::Deallocation, ..record(RecordStatus::Cleared) };
    let other_connection = OesRecord {
        connection_id: "00000000-0000-4000-8000-000000000000".parse().unwrap(),
        ..record(RecordStatus::Cleared)
    };
    for record in [other_type, other_connection] {
        let finding =
            judged(State::Unknown(Doubt::NoReply), Outcome::Cleared, Tries::default(), record);
        assert_eq!(finding, Finding::Moves(Event::Freeze(ConflictKind::OtherTerms)));
    }
}

#[test]
fn still_reserved_follows_the_answer_that_caused_the_doubt() {
    for doubt in Doubt::ALL {
        let expected = match doubt {
            Doubt::RefusedAnswer => Event::Park(ParkReason::RefusedByOes),
            Doubt::PolicyRejected => Event::Park(ParkReason::PolicyRejected),
            Doubt::Forbidden => Event::Park(ParkReason::Forbidden),
            Doubt::WrongEcho => Event::Freeze(ConflictKind::WrongEcho),
            Doubt::NoReply
            | Doubt::ServerError
            | Doubt::OddAnswer
            | Doubt::ConflictAnswer
            | Doubt::NotFound
            | Doubt::Unauthorized
            | Doubt::Restarted
            | Doubt::SentOn => Event::FoundReserved,
        };
        let state = State::Unknown(doubt);
        let tries = Tries { attempts: 1, ..Tries::default() };
        let finding = judged(state, Outcome::Cleared, tries, record(RecordStatus::Reserved));
        assert_eq!(finding, Finding::Moves(expected), "{doubt:?}");
        assert!(state.apply(expected).is_ok());
    }
}

#[test]
fn a_forbidden_update_is_tried_again_when_the_token_is_to_blame() {
    let inquiry = Inquiry {
        terms: &terms(),
        state: State::Unknown(Doubt::Forbidden),
        decided: Outcome::Cleared,
        tries: Tries::default(),
        approval_before: ApprovalBefore::NotRead,
        token_suspected: true,
    };
    let reading = Reading::Found(record(RecordStatus::Reserved));
    assert_eq!(judge(&inquiry, &reading, &LIMITS), Finding::Moves(Event::FoundReserved));
}

#[test]
fn retries_end_at_their_bounds() {
    let state = State::Unknown(Doubt::NoReply);
    let reserved = || record(RecordStatus::Reserved);
    let attempts = Tries { attempts: LIMITS.attempts_max, ..Tries::default() };
    assert_eq!(
        judged(state, Outcome::Cleared, attempts, reserved()),
        Finding::Moves(Event::Park(ParkReason::AttemptsExhausted))
    );
    let old = Tries { age: LIMITS.age_max, ..Tries::default() };
    assert_eq!(
        judged(state, Outcome::Cleared, old, reserved()),
        Finding::Moves(Event::Park(ParkReason::TooOld))
    );
    let missed = Tries { attempts: LIMITS.not_found_attempts_max, ..Tries::default() };
    assert_eq!(
        judged(State::Unknown(Doubt::NotFound), Outcome::Cleared, missed, reserved()),
        Finding::Moves(Event::Park(ParkReason::NotFoundAtOes))
    );
}

#[test]
fn an_absent_record_is_read_again_a_few_times_and_then_parked() {
    let absent = |reads| {
        let inquiry = Inquiry {
            terms: &terms(),
            state: State::Unknown(Doubt::NoReply),
            decided: Outcome::Cleared,
            tries: Tries { reads, absences: reads, ..Tries::default() },
            approval_before: ApprovalBefore::NotRead,
            token_suspected: false,
        };
        judge(&inquiry, &Reading::Absent, &LIMITS)
    };
    assert!(matches!(absent(0), Finding::ReadAgain(_)));
    assert!(matches!(absent(LIMITS.absent_reads_max - 1), Finding::ReadAgain(_)));
    assert_eq!(
        absent(LIMITS.absent_reads_max),
        Finding::Moves(Event::Park(ParkReason::NotFoundAtOes))
    );
}

#[test]
fn a_pending_approval_is_waited_for_if_we_know_of_it_and_parked_if_not() {
    let mut pending = record(RecordStatus::Reserved);
    pending.pending_approval_id = Some("p-1".to_owned());
    assert_eq!(
        judged(State::AwaitingApproval, Outcome::Cleared, Tries::default(), pending.clone()),
        Finding::StillPending(LIMITS.approval_read_every)
    );
    assert_eq!(
        judged(State::Unknown(Doubt::NoReply), Outcome::Cleared, Tries::default(), pending.clone()),
        Finding::Moves(Event::Park(ParkReason::ApprovalUnclear))
    );
    pending.policy_result = Some(PolicyResult::Rejected);
    assert_eq!(
        judged(State::AwaitingApproval, Outcome::Cleared, Tries::default(), pending),
        Finding::Moves(Event::Park(ParkReason::PolicyRejected))
    );
}

#[test]
fn an_approval_that_was_not_pending_before_our_first_send_is_ours() {
    let mut pending = record(RecordStatus::Reserved);
    pending.pending_approval_id = Some("p-2".to_owned());
    let unclear = Finding::Moves(Event::Park(ParkReason::ApprovalUnclear));
    let ours = Finding::Moves(Event::AwaitApproval);
    for doubt in Doubt::ALL {
        for (before, expected) in [
            (ApprovalBefore::NotRead, unclear),
            (ApprovalBefore::None, ours),
            (ApprovalBefore::Pending("p-1"), ours),
            // Somebody else's, whatever became of our update.
            (ApprovalBefore::Pending("p-2"), unclear),
        ] {
            let state = State::Unknown(doubt);
            let tries = Tries::default();
            let found = judged_after(before, state, Outcome::Cleared, tries, pending.clone());
            assert_eq!(found, expected, "{doubt:?} {before:?}");
        }
    }
}

#[test]
fn an_approval_that_was_given_and_ends_nothing_is_for_an_operator_in_the_end() {
    for (id, result) in [(Some("p-1"), Some(PolicyResult::Approved)), (None, None)] {
        let mut given = record(RecordStatus::Reserved);
        given.pending_approval_id = id.map(str::to_owned);
        given.policy_result = result;
        let after = |reads| {
            let tries = Tries { reads, ..Tries::default() };
            judged(State::AwaitingApproval, Outcome::Cleared, tries, given.clone())
        };
        let again = Finding::ReadAgain(LIMITS.approval_read_every);
        assert_eq!(after(LIMITS.absent_reads_max - 1), again);
        let parked = Finding::Moves(Event::Park(ParkReason::ApprovalUnclear));
        assert_eq!(after(LIMITS.absent_reads_max), parked);
    }
}

#[test]
fn every_finding_is_a_legal_transition() {
    let approvals = [None, Some("p-1".to_owned())];
    let results = [None, Some(PolicyResult::Approved), Some(PolicyResult::Rejected)];
    for state in read_states() {
        for status in [RecordStatus::Reserved, RecordStatus::Cleared, RecordStatus::Released] {
            for pending_approval_id in &approvals {
                for policy_result in results {
                    for decided in Outcome::ALL {
                        let record = OesRecord {
                            pending_approval_id: pending_approval_id.clone(),
                            policy_result,
                            ..record(status)
                        };
                        match judged(state, decided, Tries::default(), record) {
                            Finding::Moves(event) | Finding::Ends(event, _) => {
                                assert!(state.apply(event).is_ok(), "{state} {event:?}");
                            }
                            Finding::ReadAgain(_) | Finding::StillPending(_) => {}
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn reads_the_documented_record_and_ignores_the_rest() {
    let text = r#"{"id":"0b4a3f3e-7d0a-4b5e-9a0e-3d1c5f2b7a10","type":"allocation",
        "status":"released","connectionId":"9e8d7c6b-5a49-4838-a716-0f1e2d3c4b5a",
        "amount":{"currency":"BTC","quantity":"0.00000001"},"reason":null,"retriable":false,
        "policyResult":"rejected","clientExternalId":"x","createdAt":"2026-11-22T00:00:00Z"}"#;
    let parsed: OesRecord = serde_json::from_str(text).unwrap();
    assert_eq!(parsed.status, RecordStatus::Released);
    assert_eq!(parsed.policy_result, Some(PolicyResult::Rejected));
}

#[test]
fn a_word_that_the_reference_does_not_have_never_hides_the_status() {
    let text = format!(
        r#"{{"id":"{}","type":"allocation","status":"cleared","connectionId":"{}",
            "policyResult":"pending","amount":{{"currency":"x","quantity":1.5}},"reason":null}}"#,
        terms().record_id,
        terms().connection_id
    );
    let record: OesRecord = serde_json::from_str(&text).unwrap();
    assert_eq!((record.status, record.policy_result), (RecordStatus::Cleared, None));
}
