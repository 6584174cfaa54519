//! What the two PUT routes accept and refuse.

use super::*;

/// Members with values that no update may have.
const BAD_VALUES: [(&str, &str); 16] = [
    ("partnersClientId", "1"),
    ("partnersClientId", r#""""#),
    ("nonce", "null"),
    ("clientId", r#""x""#),
    ("connectionId", r#""0E5A0000-0000-4000-8000-000000000011""#),
    ("status", r#""reserved""#),
    // A release without a reason.
    ("status", r#""released""#),
    ("amount", r#"{"currency":"BTC","quantity":150000}"#),
    ("amount", r#"{"currency":"BTC","quantity":"0150000"}"#),
    ("amount", r#"{"currency":"BTC","quantity":"150000.0"}"#),
    ("amount", r#"{"currency":"BTC","quantity":"0"}"#),
    ("amount", r#"{"currency":"BTC","quantity":"-1"}"#),
    ("amount", r#"{"currency":"","quantity":"1"}"#),
    ("amount", r#"{"currency":"BTC","quantity":"1","x":1}"#),
    ("amount", r#"["BTC","150000"]"#),
    ("amount", "null"),
];

/// Members that no update has.
const BAD_MEMBERS: [(&str, &str); 5] = [
    ("evaluationId", r#""e""#),
    ("pendingApprovalId", r#""p""#),
    ("policyResult", r#""approved""#),
    ("somethingElse", "1"),
    // A reason for a clearance.
    ("rejectReason", r#""r""#),
];

/// Values that are another record's.
const OTHER_TERMS: [(&str, &str); 7] = [
    ("amount", r#"{"currency":"BTC","quantity":"150001"}"#),
    ("amount", r#"{"currency":"btc","quantity":"150000"}"#),
    ("clientId", OTHER_ID),
    ("connectionId", OTHER_ID),
    ("partnersClientId", r#""c""#),
    ("partnersConnectionId", r#""c""#),
    ("partnersAllocationId", r#""a""#),
];

const OTHER_ID: &str = "\"11111111-1111-4111-8111-111111111111\"";

#[tokio::test]
async fn an_update_in_order_ends_the_record_and_is_echoed() {
    let rig = Rig::new().await;
    for (record_type, outcome) in [
        (JobType::Allocation, Outcome::Cleared),
        (JobType::Allocation, Outcome::Released),
        (JobType::Deallocation, Outcome::Cleared),
        (JobType::Deallocation, Outcome::Released),
    ] {
        let record = rig.reserve(record_type, "eth", "18446744073709551616");
        let told = rig.settle(&record, outcome).await;
        assert_eq!(told.status, 200, "{told:?}");
        assert_eq!(told.body["amount"]["quantity"], "18446744073709551616");
        assert_eq!(told.body["amount"]["currency"], "ETH");
        assert!(told.body.get("status").is_none());
        assert!(told.header("request-id").is_some());
        let after = rig.record(record.id);
        assert_eq!(after.standing, Standing::Final(outcome));
        assert_eq!(after.partner_external_id.as_deref(), Some(record.partners_record_id.as_str()));
        let reason = (outcome == Outcome::Released).then_some("No, \"thanks\".");
        assert_eq!(after.reason.as_deref(), reason);
    }
    assert_eq!(rig.state.counts().applied, 4);
    assert_eq!(rig.state.counts().bad_signatures, 0);
}

#[tokio::test]
async fn every_fault_of_an_update_has_its_own_refusal_and_changes_nothing() {
    let rig = Rig::new().await;
    let record = rig.allocation();
    let good = || rig.draft(&record, Outcome::Cleared);
    let mut cases = vec![
        (good().without("clientId"), 400, "InvalidRequest"),
        (good().with("allocationId", OTHER_ID), 404, "RecordNotFound"),
    ];
    for (name, value) in BAD_VALUES {
        cases.push((good().with(name, value), 400, "InvalidRequest"));
    }
    for (name, value) in BAD_MEMBERS {
        cases.push((good().and(name, value), 400, "InvalidRequest"));
    }
    for (name, value) in OTHER_TERMS {
        cases.push((good().with(name, value), 422, "TermsDiffer"));
    }
    for (draft, status, name) in cases {
        let told = rig.put(JobType::Allocation, draft.body(&rig.partner)).await;
        let json = draft.json();
        assert_eq!((told.status, told.name()), (status, name), "{json} {told:?}");
        assert_eq!(told.body["requestId"], told.header("request-id").unwrap());
        assert_eq!(rig.record(record.id), record, "{json}");
    }
    assert_eq!(rig.settle(&record, Outcome::Cleared).await.status, 200);
}

#[tokio::test]
async fn a_body_that_is_no_object_is_refused() {
    let rig = Rig::new().await;
    for body in
        ["", "[]", "null", "{\"status\":", "{\"status\":\"cleared\",\"status\":\"cleared\"}"]
    {
        let told = rig.put(JobType::Allocation, body.to_owned()).await;
        assert_eq!((told.status, told.name()), (400, "InvalidRequest"), "{body}");
    }
    let plain = rig
        .http
        .put(rig.put_url(JobType::Allocation))
        .bearer_auth(PARTNER_TOKEN)
        .header("content-type", "text/plain")
        .body("{}")
        .send()
        .await
        .unwrap();
    assert_eq!(plain.status(), 400);
    let large = rig.put(JobType::Allocation, "x".repeat(BODY_BYTES_MAX + 1)).await;
    assert_eq!((large.status, large.name()), (413, "BodyTooLarge"));
}

#[tokio::test]
async fn a_payload_must_say_exactly_what_the_body_says() {
    let rig = Rig::new().await;
    let record = rig.allocation();
    let draft = rig.draft(&record, Outcome::Cleared);
    let right = draft.json();
    let nonce = draft.members.iter().find(|(name, _)| name == "nonce").unwrap();
    let nonce_first = {
        let rest = draft.clone().without("nonce").json();
        format!("{{\"nonce\":{},{}", nonce.1, &rest[1..])
    };
    for (what, payload) in [
        ("white space", right.replace("\":\"", "\": \"")),
        ("white space at the end", format!("{right} ")),
        ("no object", "[]".to_owned()),
        ("no JSON", "cleared".to_owned()),
        ("another quantity", right.replace("150000", "150001")),
        ("a key less", draft.clone().without("nonce").json()),
        ("a key more", draft.clone().and("evaluationId", "\"e\"").json()),
        ("a key twice", draft.clone().and("nonce", &nonce.1).json()),
        ("another order", nonce_first),
        (
            "another order in the amount",
            draft.clone().with("amount", r#"{"quantity":"150000","currency":"BTC"}"#).json(),
        ),
    ] {
        let body = draft.body_with_payload(&payload, &rig.partner);
        let told = rig.put(JobType::Allocation, body).await;
        assert_eq!((told.status, told.name()), (400, "InvalidPayload"), "{what}");
    }
    assert_eq!(rig.record(record.id), record);
}

#[tokio::test]
async fn the_order_of_keys_matters_only_if_the_rule_says_so() {
    let rig = Rig::with(|config| config.rules.key_order = KeyOrder::Any).await;
    let record = rig.allocation();
    let mut draft = rig.draft(&record, Outcome::Released);
    draft.members.reverse();
    let told = rig.put(JobType::Allocation, draft.body(&rig.partner)).await;
    assert_eq!(told.status, 200, "{told:?}");
}

#[tokio::test]
async fn escapes_that_say_the_same_are_the_same() {
    let rig = Rig::new().await;
    let record = rig.allocation();
    let draft = rig.draft(&record, Outcome::Cleared);
    let payload = draft.json().replace("conn-001", "\\u0063onn-001");
    let body = draft.body_with_payload(&payload, &rig.partner);
    assert_eq!(rig.put(JobType::Allocation, body).await.status, 200);
}

#[tokio::test]
async fn only_a_registered_key_s_signature_over_these_bytes_is_accepted() {
    let rig = Rig::new().await;
    let record = rig.allocation();
    let draft = rig.draft(&record, Outcome::Cleared);
    let payload = draft.json();
    let right = rig.partner.sign(payload.as_bytes()).unwrap();
    let right = right.as_str();
    let over_other = rig.partner.sign(b"other").unwrap();
    for (what, signature) in [
        ("empty signature", String::new()),
        ("upper case", right.to_uppercase()),
        ("too short", right[..128].to_owned()),
        ("too long", format!("{right}00")),
        ("no hexadecimal", format!("zz{}", &right[2..])),
        ("another header", format!("1b{}", &right[2..])),
        ("over other bytes", over_other.as_str().to_owned()),
        ("by another key", rig.client_key.sign(payload.as_bytes()).unwrap().to_string()),
    ] {
        let body = draft.body_with_proof(&payload, &signature);
        let told = rig.put(JobType::Allocation, body).await;
        let name = if signature.is_empty() { "InvalidRequest" } else { "InvalidSignature" };
        assert_eq!((told.status, told.name()), (400, name), "{what}");
    }
    assert_eq!(rig.record(record.id), record);
    assert_eq!(rig.state.bad_signatures().len(), 8);
    // None of them has used the nonce up.
    let told = rig.put(JobType::Allocation, draft.body(&rig.partner)).await;
    assert_eq!(told.status, 200, "{told:?}");
    let second = key('3');
    rig.state.register_partner_key(&second.public_key()).unwrap();
    let record = rig.allocation();
    let body = rig.draft(&record, Outcome::Cleared).body(&second);
    assert_eq!(rig.put(JobType::Allocation, body).await.status, 200);
}

#[tokio::test]
async fn signatures_are_not_looked_at_where_that_is_asked_for_and_all_else_is() {
    let rig = Rig::with(|config| config.rules.signatures = Signatures::Unchecked).await;
    let record = rig.allocation();
    let draft = rig.draft(&record, Outcome::Cleared);
    let told = rig.put(JobType::Allocation, draft.body_with_proof("{}", "nobody's")).await;
    assert_eq!((told.status, told.name()), (400, "InvalidPayload"));
    let body = draft.body_with_proof(&draft.json(), "nobody's");
    assert_eq!(rig.put(JobType::Allocation, body.clone()).await.status, 200);
    let told = rig.put(JobType::Allocation, body).await;
    assert_eq!((told.status, told.name()), (409, "NonceUsed"));
}

#[tokio::test]
async fn an_update_on_the_other_type_s_route_is_refused() {
    let rig = Rig::new().await;
    let record = rig.allocation();
    let mut draft = rig.draft(&record, Outcome::Cleared);
    for (name, _) in &mut draft.members {
        *name = match name.as_str() {
            "allocationId" => "deallocationId".to_owned(),
            "partnersAllocationId" => "partnersDeallocationId".to_owned(),
            other => other.to_owned(),
        };
    }
    let told = rig.put(JobType::Deallocation, draft.body(&rig.partner)).await;
    assert_eq!((told.status, told.name()), (422, "WrongType"));
    let told = rig
        .put(JobType::Deallocation, rig.draft(&record, Outcome::Cleared).body(&rig.partner))
        .await;
    assert_eq!((told.status, told.name()), (400, "InvalidRequest"));
}

#[tokio::test]
async fn who_may_not_write_is_told_so_before_anything_else() {
    let rig = Rig::new().await;
    let record = rig.allocation();
    let url = rig.put_url(JobType::Allocation);
    for (token, status) in [("nobody", 401), (READER_TOKEN, 403), (CLIENT_TOKEN, 403)] {
        let body = Some("no JSON".to_owned());
        let told = rig.ask(Method::PUT, url.clone(), token, body).await;
        assert_eq!(told.status, status, "{token}");
    }
    let elsewhere = url.replace(PARTNER_ENTERPRISE, "elsewhere");
    let body = rig.draft(&record, Outcome::Cleared).body(&rig.partner);
    let told = rig.ask(Method::PUT, elsewhere, PARTNER_TOKEN, Some(body)).await;
    assert_eq!((told.status, told.name()), (404, "EnterpriseNotFound"));
    assert_eq!(rig.record(record.id), record);
    assert_eq!(rig.state.counts().unauthorized, 3);
}

#[tokio::test]
async fn the_rate_limit_turns_updates_away_unread() {
    for (retry_after, is_told) in [(RetryAfter::Absent, false), (RetryAfter::Seconds, true)] {
        let rig = Rig::with(|config| {
            config.rules.rate_limit = Some(RateLimit { requests: 2, window_ms: 3_600_000 });
            config.rules.retry_after = retry_after;
        })
        .await;
        let record = rig.allocation();
        assert_eq!(rig.get("/partners/allocations").await.status, 200);
        assert_eq!(rig.get("/partners/allocations").await.status, 200);
        let told = rig.settle(&record, Outcome::Cleared).await;
        assert_eq!(told.status, 429);
        assert_eq!(told.header("retry-after").is_some(), is_told);
        assert_eq!(rig.record(record.id), record);
        assert_eq!(rig.state.counts().rate_limited, 1);
        // Each token has its own limit.
        assert!(rig.client.balances().await.is_ok());
    }
}
