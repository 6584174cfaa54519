use serde_json::{Value, json};

use super::*;
use crate::domain::amount::{Amount, Quantity};

fn terms(job_type: JobType) -> JobTerms {
    JobTerms {
        job_type,
        record_id: "0b4a3f3e-7d0a-4b5e-9a0e-3d1c5f2b7a10".parse().unwrap(),
        amount: Amount::positive("BTC".parse().unwrap(), Quantity::from(10_000_000)).unwrap(),
        client_id: "5d1f0e3a-2b6c-4f0d-8a37-1f0a3c9b2d11".parse().unwrap(),
        connection_id: "9e8d7c6b-5a49-4838-a716-0f1e2d3c4b5a".parse().unwrap(),
        partners_client_id: "client-001".parse().unwrap(),
        partners_connection_id: "conn-001".parse().unwrap(),
        partners_record_id: "r-001".parse().unwrap(),
    }
}

fn echo(job_type: JobType) -> Value {
    let terms = terms(job_type);
    let (id, partners_id) = match job_type {
        JobType::Allocation => ("allocationId", "partnersAllocationId"),
        JobType::Deallocation => ("deallocationId", "partnersDeallocationId"),
    };
    json!({
        id: terms.record_id,
        "amount": terms.amount,
        "clientId": terms.client_id,
        "connectionId": terms.connection_id,
        "partnersClientId": terms.partners_client_id,
        "partnersConnectionId": terms.partners_connection_id,
        partners_id: terms.partners_record_id,
    })
}

fn verdict(body: &Value) -> Verdict {
    classify(&terms(JobType::Allocation), 200, Some(body.to_string().as_bytes()))
}

#[test]
fn our_own_values_are_an_acceptance_for_either_type() {
    for job_type in JobType::ALL {
        let body = echo(job_type).to_string();
        let verdict = classify(&terms(job_type), 200, Some(body.as_bytes()));
        assert_eq!(verdict, Verdict::Accepted);
        let other = if job_type == JobType::Allocation {
            JobType::Deallocation
        } else {
            JobType::Allocation
        };
        let verdict = classify(&terms(other), 200, Some(body.as_bytes()));
        assert_eq!(verdict, Verdict::Doubtful(Doubt::OddAnswer));
    }
}

#[test]
fn further_fields_and_upper_case_uuids_are_still_our_values() {
    let mut body = echo(JobType::Allocation);
    body["evaluationId"] = json!("e-1");
    body["clientId"] = json!("5D1F0E3A-2B6C-4F0D-8A37-1F0A3C9B2D11");
    assert_eq!(verdict(&body), Verdict::Accepted);
}

#[test]
fn a_pending_approval_is_accepted_but_not_final() {
    let mut body = echo(JobType::Allocation);
    body["pendingApprovalId"] = json!("p-1");
    assert_eq!(verdict(&body), Verdict::ApprovalPending);
    body["policyResult"] = json!("approved");
    assert_eq!(verdict(&body), Verdict::Accepted);
    body["policyResult"] = json!("rejected");
    assert_eq!(verdict(&body), Verdict::Doubtful(Doubt::PolicyRejected));
    body["policyResult"] = json!("something new");
    assert_eq!(verdict(&body), Verdict::Doubtful(Doubt::OddAnswer));
}

#[test]
fn any_other_value_is_a_wrong_echo() {
    for (path, value) in [
        ("/allocationId", json!("0b4a3f3e-7d0a-4b5e-9a0e-3d1c5f2b7a11")),
        ("/amount/currency", json!("ETH")),
        ("/amount/quantity", json!("10000001")),
        ("/clientId", json!("5d1f0e3a-2b6c-4f0d-8a37-1f0a3c9b2d12")),
        ("/connectionId", json!("not a uuid")),
        ("/partnersClientId", json!("client-002")),
        ("/partnersConnectionId", json!("conn-002")),
        ("/partnersAllocationId", json!("r-002")),
    ] {
        let mut body = echo(JobType::Allocation);
        *body.pointer_mut(path).unwrap() = value;
        assert_eq!(verdict(&body), Verdict::Doubtful(Doubt::WrongEcho), "{path}");
    }
}

#[test]
fn an_unreadable_200_tells_nothing() {
    let whole = echo(JobType::Allocation).to_string();
    let cut = &whole.as_bytes()[..whole.len() / 2];
    for body in [None, Some(&b""[..]), Some(&b"<html>"[..]), Some(&b"null"[..]), Some(cut)] {
        let verdict = classify(&terms(JobType::Allocation), 200, body);
        assert_eq!(verdict, Verdict::Doubtful(Doubt::OddAnswer));
    }
    for field in ["allocationId", "amount", "clientId", "partnersAllocationId"] {
        let mut body = echo(JobType::Allocation);
        body.as_object_mut().unwrap().remove(field);
        assert_eq!(verdict(&body), Verdict::Doubtful(Doubt::OddAnswer), "{field}");
    }
}

#[test]
fn only_200_settles_and_only_429_is_certain_to_have_done_nothing() {
    for status in 100..=599 {
        let body = echo(JobType::Allocation).to_string();
        match classify(&terms(JobType::Allocation), status, Some(body.as_bytes())) {
            Verdict::Accepted => assert_eq!(status, 200),
            Verdict::ApprovalPending => panic!("no approval in this body"),
            Verdict::TurnedAway => assert_eq!(status, 429),
            Verdict::Doubtful(doubt) => {
                let expected = match status {
                    400 | 422 => Doubt::RefusedAnswer,
                    401 => Doubt::Unauthorized,
                    403 => Doubt::Forbidden,
                    404 => Doubt::NotFound,
                    409 => Doubt::ConflictAnswer,
                    500.. => Doubt::ServerError,
                    _ => Doubt::OddAnswer,
                };
                assert_eq!(doubt, expected, "{status}");
            }
        }
    }
}
