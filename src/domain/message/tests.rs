use serde_json::{Value, json};

use super::*;

fn allocation() -> Value {
    json!({
        "type": "allocation",
        "allocationId": "0b4a3f3e-7d0a-4b5e-9a0e-3d1c5f2b7a10",
        "amount": {"currency": "BTC", "quantity": "10000000"},
        "clientId": "5d1f0e3a-2b6c-4f0d-8a37-1f0a3c9b2d11",
        "connectionId": "9e8d7c6b-5a49-4838-a716-0f1e2d3c4b5a",
        "partnersClientId": "client-001",
        "partnersConnectionId": "conn-001",
        "partnersAllocationId": "alloc-001",
    })
}

fn with(path: &str, value: Value) -> Vec<u8> {
    let mut message = allocation();
    *message.pointer_mut(path).unwrap() = value;
    message.to_string().into_bytes()
}

fn without(field: &str) -> Vec<u8> {
    let mut message = allocation();
    message.as_object_mut().unwrap().remove(field);
    message.to_string().into_bytes()
}

fn refused(bytes: &[u8]) -> RefusalCode {
    match parse_job(bytes) {
        Err(refusal) => refusal.code,
        Ok(terms) => panic!("accepted {terms:?} from {}", String::from_utf8_lossy(bytes)),
    }
}

#[test]
fn reads_an_allocation_and_keeps_every_named_field() {
    let terms = parse_job(allocation().to_string().as_bytes()).unwrap();
    assert_eq!(terms.job_type, JobType::Allocation);
    assert_eq!(terms.record_id.to_string(), "0b4a3f3e-7d0a-4b5e-9a0e-3d1c5f2b7a10");
    assert_eq!(terms.amount.to_string(), "10000000 BTC");
    assert_eq!(terms.partners_record_id.as_str(), "alloc-001");
}

#[test]
fn reads_a_deallocation_with_further_fields_and_unicode() {
    let message = json!({
        "type": "deallocation",
        "deallocationId": "0b4a3f3e-7d0a-4b5e-9a0e-3d1c5f2b7a10",
        "amount": {"currency": "ETH", "quantity": "340282366920938463463374607431768211457", "x": 1},
        "clientId": "5d1f0e3a-2b6c-4f0d-8a37-1f0a3c9b2d11",
        "connectionId": "9e8d7c6b-5a49-4838-a716-0f1e2d3c4b5a",
        "partnersClientId": "客户-🔑",
        "partnersConnectionId": "conn \"quoted\" \\ \u{2028}",
        "partnersDeallocationId": "d-1",
        "submittedAt": "2026-11-22T00:00:00Z",
        "more": {"nested": [1, 2, {"deep": null}]},
    });
    let terms = parse_job(message.to_string().as_bytes()).unwrap();
    assert_eq!(terms.partners_client_id.as_str(), "客户-🔑");
    assert_eq!(terms.amount.quantity().to_string(), "340282366920938463463374607431768211457");
}

#[test]
fn depth_in_a_field_that_nobody_reads_is_harmless() {
    let deep = format!("{{\"x\":{}1{},", "[".repeat(20_000), "]".repeat(20_000));
    let message = allocation().to_string().replacen('{', &deep, 1);
    assert!(parse_job(message.as_bytes()).is_ok());
}

#[test]
fn the_hash_covers_the_named_fields_and_nothing_else() {
    let first = parse_job(allocation().to_string().as_bytes()).unwrap().content_hash();
    assert_eq!(hex::encode(first.as_bytes()), first.to_string());
    let mut spaced = serde_json::to_string_pretty(&allocation()).unwrap();
    spaced.push('\n');
    assert_eq!(parse_job(spaced.as_bytes()).unwrap().content_hash(), first);
    let mut extended = allocation();
    extended["retries"] = json!(3);
    assert_eq!(parse_job(extended.to_string().as_bytes()).unwrap().content_hash(), first);

    for (path, value) in [
        ("/allocationId", json!("0b4a3f3e-7d0a-4b5e-9a0e-3d1c5f2b7a11")),
        ("/amount/currency", json!("ETH")),
        ("/amount/quantity", json!("10000001")),
        ("/clientId", json!("5d1f0e3a-2b6c-4f0d-8a37-1f0a3c9b2d12")),
        ("/connectionId", json!("9e8d7c6b-5a49-4838-a716-0f1e2d3c4b5b")),
        ("/partnersClientId", json!("client-002")),
        ("/partnersConnectionId", json!("conn-002")),
        ("/partnersAllocationId", json!("alloc-002")),
    ] {
        assert_ne!(parse_job(&with(path, value)).unwrap().content_hash(), first, "{path}");
    }
}

#[test]
fn refuses_what_is_not_one_json_object_of_a_bounded_size() {
    let good = allocation().to_string();
    for (bytes, code) in [
        (b"".to_vec(), RefusalCode::NotJson),
        (b"   ".to_vec(), RefusalCode::NotJson),
        (b"null".to_vec(), RefusalCode::BadField),
        (b"[]".to_vec(), RefusalCode::BadField),
        (b"\"text\"".to_vec(), RefusalCode::BadField),
        (b"42".to_vec(), RefusalCode::BadField),
        (b"<html></html>".to_vec(), RefusalCode::NotJson),
        (good.as_bytes()[..good.len() - 1].to_vec(), RefusalCode::NotJson),
        (format!("{good}{good}").into_bytes(), RefusalCode::NotJson),
        (format!("{good} x").into_bytes(), RefusalCode::NotJson),
        (format!("\u{feff}{good}").into_bytes(), RefusalCode::NotJson),
        (good.replace(':', "=").into_bytes(), RefusalCode::NotJson),
        (good.replace('"', "'").into_bytes(), RefusalCode::NotJson),
        (b"\x1f\x8b\x08\x00".to_vec(), RefusalCode::NotUtf8),
        (good.replace("client-001", "\\ud800").into_bytes(), RefusalCode::NotJson),
        (good.replace("client-001", "a\nb").into_bytes(), RefusalCode::NotJson),
        (vec![b' '; MESSAGE_BYTES_MAX + 1], RefusalCode::TooLarge),
        (good.replacen('{', "{\"x\":\"\u{0}\",", 1).into_bytes(), RefusalCode::NotJson),
    ] {
        assert_eq!(refused(&bytes), code, "{}", String::from_utf8_lossy(&bytes));
    }
    // An invalid byte inside a field that nobody reads is still not UTF-8.
    let mut hidden = good.replacen('{', "{\"x\":\"?\",", 1).into_bytes();
    let position = hidden.iter().position(|byte| *byte == b'?').unwrap();
    hidden[position] = 0xff;
    assert_eq!(refused(&hidden), RefusalCode::NotUtf8);
}

#[test]
fn refuses_missing_null_repeated_and_mistyped_fields() {
    for field in [
        "type",
        "allocationId",
        "amount",
        "clientId",
        "connectionId",
        "partnersClientId",
        "partnersConnectionId",
        "partnersAllocationId",
    ] {
        assert_eq!(refused(&without(field)), RefusalCode::BadField, "{field} missing");
        for value in [json!(null), json!(1), json!(true), json!([]), json!("")] {
            let bytes = with(&format!("/{field}"), value.clone());
            assert_eq!(refused(&bytes), RefusalCode::BadField, "{field} = {value}");
        }
        let text = allocation().to_string();
        let repeated = text.replacen('{', &format!("{{\"{field}\":{},", allocation()[field]), 1);
        assert_eq!(refused(repeated.as_bytes()), RefusalCode::BadField, "{field} twice");
    }
}

#[test]
fn refuses_values_that_could_mean_two_things() {
    for (path, value) in [
        ("/type", json!("Allocation")),
        ("/type", json!("withdrawal")),
        ("/type", json!("deallocation")),
        ("/allocationId", json!("0B4A3F3E-7D0A-4B5E-9A0E-3D1C5F2B7A10")),
        ("/clientId", json!("5d1f0e3a2b6c4f0d8a371f0a3c9b2d11")),
        ("/connectionId", json!("{9e8d7c6b-5a49-4838-a716-0f1e2d3c4b5a}")),
        ("/amount/quantity", json!("0")),
        ("/amount/quantity", json!("007")),
        ("/amount/quantity", json!("-1")),
        ("/amount/quantity", json!("1.5")),
        ("/amount/quantity", json!("1e18")),
        ("/amount/quantity", json!(1)),
        ("/amount/quantity", json!("9".repeat(79))),
        ("/amount", json!(["BTC", "1"])),
        ("/amount/currency", json!("x".repeat(65))),
        ("/amount/currency", json!("B\u{0}C")),
        ("/partnersClientId", json!("x".repeat(1025))),
    ] {
        assert_eq!(refused(&with(path, value.clone())), RefusalCode::BadField, "{path} = {value}");
    }
    let mut both = allocation();
    both["deallocationId"] = json!("0b4a3f3e-7d0a-4b5e-9a0e-3d1c5f2b7a11");
    assert_eq!(refused(both.to_string().as_bytes()), RefusalCode::BadField);
}

#[test]
fn either_id_of_the_other_type_is_one_record_too_many() {
    let mut deallocation = allocation();
    deallocation["type"] = json!("deallocation");
    for (here, there) in
        [("allocationId", "deallocationId"), ("partnersAllocationId", "partnersDeallocationId")]
    {
        deallocation[there] = deallocation[here].take();
        deallocation.as_object_mut().unwrap().remove(here);
    }
    for (message, foreign) in [
        (allocation(), ["deallocationId", "partnersDeallocationId"]),
        (deallocation, ["allocationId", "partnersAllocationId"]),
    ] {
        assert!(parse_job(message.to_string().as_bytes()).is_ok(), "{message}");
        for field in foreign {
            let mut both = message.clone();
            both[field] = json!("0b4a3f3e-7d0a-4b5e-9a0e-3d1c5f2b7a11");
            assert_eq!(refused(both.to_string().as_bytes()), RefusalCode::BadField, "{field}");
        }
    }
}

#[test]
fn a_refusal_names_the_field() {
    let refusal = parse_job(&with("/amount/quantity", json!("01"))).unwrap_err();
    assert!(refusal.detail.starts_with("amount.quantity: not a canonical"), "{refusal}");
}

proptest::proptest! {
    #[test]
    fn never_panics_on_any_bytes(bytes: Vec<u8>) {
        let _outcome = parse_job(&bytes);
    }

    #[test]
    fn never_panics_on_a_damaged_message(position in 0_usize..400, byte: u8) {
        let mut bytes = allocation().to_string().into_bytes();
        let index = position % bytes.len();
        bytes[index] = byte;
        let _outcome = parse_job(&bytes);
    }
}
