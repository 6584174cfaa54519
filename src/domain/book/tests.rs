//! What reads as a fact, and what does not.

use super::*;

const CONNECTION: &str = r#"{"eventId":"c-1","type":"connection.upserted",
    "connectionId":"9e8d7c6b-5a49-4838-a716-0f1e2d3c4b5a",
    "clientId":"5d1f0e3a-2b6c-4f0d-8a37-1f0a3c9b2d11",
    "partnersClientId":"client-001","partnersConnectionId":"conn-001","active":true}"#;

#[test]
fn reads_each_kind_of_event() {
    let event = BookEvent::parse(CONNECTION).unwrap();
    assert_eq!(event.id().as_str(), "c-1");
    assert_eq!(event.fact().kind(), "connection.upserted");
    let connection = "9e8d7c6b-5a49-4838-a716-0f1e2d3c4b5a".parse().unwrap();
    assert_eq!(event.fact().connection_id(), Some(connection));
    let currency = r#"{"type":"currency.configured","eventId":"x","currency":"BTC",
        "enabled":true,"quantityMin":"1","quantityMax":"5"}"#;
    let configured = BookEvent::parse(currency).unwrap();
    assert_eq!(configured.fact().kind(), "currency.configured");
    assert_eq!(configured.fact().connection_id(), None);
    let adjusted = r#"{"type":"balance.adjusted","eventId":"y","currency":"BTC","delta":"-5",
        "connectionId":"9e8d7c6b-5a49-4838-a716-0f1e2d3c4b5a"}"#;
    assert_eq!(
        BookEvent::parse(adjusted).unwrap().canonical_body().unwrap(),
        r#"{"type":"balance.adjusted","connectionId":"9e8d7c6b-5a49-4838-a716-0f1e2d3c4b5a","currency":"BTC","delta":"-5"}"#
    );
}

#[test]
fn refuses_unknown_missing_and_repeated_fields() {
    for broken in [
        CONNECTION.replace("\"active\":true", "\"activ\":true"),
        CONNECTION.replace(",\"active\":true", ""),
        CONNECTION.replace("\"active\":true", "\"active\":true,\"active\":false"),
        CONNECTION.replace("\"active\":true", "\"active\":\"true\""),
        CONNECTION.replace("connection.upserted", "connection.deleted"),
        CONNECTION.replace("\"c-1\"", "\"\""),
        CONNECTION.replace("9e8d", "9E8D"),
        format!("[{CONNECTION}]"),
        format!("{CONNECTION} {CONNECTION}"),
    ] {
        assert!(BookEvent::parse(&broken).is_err(), "{broken}");
    }
}

#[test]
fn refuses_limits_that_cross_and_movements_of_nothing() {
    let crossed = r#"{"type":"currency.configured","eventId":"x","currency":"BTC",
        "enabled":true,"quantityMin":"6","quantityMax":"5"}"#;
    assert!(matches!(BookEvent::parse(crossed), Err(BookEventError::LimitsCross(_))));
    let nothing = r#"{"type":"balance.adjusted","eventId":"y","currency":"BTC","delta":"0",
        "connectionId":"9e8d7c6b-5a49-4838-a716-0f1e2d3c4b5a"}"#;
    assert!(BookEvent::parse(nothing).is_err());
}

#[test]
fn limits_are_optional_and_what_is_absent_stays_out_of_the_fact() {
    let plain = r#"{"type":"currency.configured","currency":"BTC","enabled":true,"quantityMin":"1","quantityMax":"5"}"#;
    let with_id = |fact: &str| fact.replace(r#"{"type""#, r#"{"eventId":"x","type""#);
    let event = BookEvent::parse(&with_id(plain)).unwrap();
    assert_eq!(event.canonical_body().unwrap(), plain);
    let all = r#"{"type":"currency.configured","currency":"BTC","enabled":true,"quantityMin":"1","quantityMax":"5","decimals":8,"exposureMaxTotal":"90","exposureMaxPerConnection":"50","dailyAllocationMaxPerConnection":"9","dailyDeallocationMaxPerConnection":"8","approvalAbove":"4"}"#;
    let event = BookEvent::parse(&with_id(all)).unwrap();
    assert_eq!(event.canonical_body().unwrap(), all);
    let crossed = with_id(all).replace("\"90\"", "\"49\"");
    assert!(matches!(BookEvent::parse(&crossed), Err(BookEventError::LimitsCross(_))));
    let of_one = r#"{"type":"connection.limited","connectionId":"9e8d7c6b-5a49-4838-a716-0f1e2d3c4b5a","currency":"BTC","approvalAbove":"4"}"#;
    let event = BookEvent::parse(&with_id(of_one)).unwrap();
    assert_eq!(event.canonical_body().unwrap(), of_one);
    for misspelt in [
        with_id(all).replace("exposureMaxTotal", "exposureMax"),
        with_id(all).replace("\"decimals\":8", "\"decimals\":78"),
        with_id(all).replace("\"decimals\":8", "\"decimals\":\"8\""),
        with_id(all).replace("\"decimals\":8", "\"decimals\":-1"),
        with_id(of_one).replace("approvalAbove", "approval_above"),
        with_id(of_one).replace("approvalAbove", "exposureMaxTotal"),
        with_id(of_one).replace("\"4\"", "4"),
        with_id(of_one).replace("\"4\"", "\"-4\""),
    ] {
        assert!(BookEvent::parse(&misspelt).is_err(), "{misspelt}");
    }
}

#[test]
fn one_fact_has_one_hash_whatever_its_order() {
    let reordered = r#"{"partnersConnectionId":"conn-001","active":true,
        "clientId":"5d1f0e3a-2b6c-4f0d-8a37-1f0a3c9b2d11","eventId":"other",
        "connectionId":"9e8d7c6b-5a49-4838-a716-0f1e2d3c4b5a",
        "partnersClientId":"client-001","type":"connection.upserted"}"#;
    let first = BookEvent::parse(CONNECTION).unwrap().canonical_body().unwrap();
    let second = BookEvent::parse(reordered).unwrap().canonical_body().unwrap();
    assert_eq!(body_hash(&first), body_hash(&second));
}
