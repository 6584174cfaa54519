//! The main job, end to end: a reserved record, its job, the decision, the update, the outcome.

use serde_json::{Value, json};
use settled::domain::{announcement::event_id, decision::Outcome, job::JobType};
use uuid::Uuid;

use crate::support::world::{AVAILABLE, World};

#[tokio::test]
async fn an_allocation_is_cleared_confirmed_and_announced() {
    let world = World::new().await;
    let daemon = world.daemon().await;
    let record = world.submit(JobType::Allocation, "2500").await;

    let history = world.wait_for_state(&record, "confirmed").await;
    assert!(world.is_final(&record, Outcome::Cleared));
    assert_eq!(history.attempts.len(), 1);
    assert_eq!(history.attempts[0].result.as_deref(), Some("accepted"));
    assert_eq!(world.balances().await, [(AVAILABLE + 2_500).to_string(), "0".into(), "0".into()]);

    let [heard] = world.hear_outcomes(1).await.try_into().unwrap();
    assert_eq!(heard.routing_key, "allocation.cleared");
    assert!(heard.persistent);
    assert_eq!(heard.message_id, event_id(record.id, Outcome::Cleared).to_string());
    let body = heard.json();
    for (field, value) in [
        ("eventId", json!(heard.message_id)),
        ("recordId", json!(record.id)),
        ("type", json!("allocation")),
        ("outcome", json!("cleared")),
        ("amount", json!({"currency": "BTC", "quantity": "2500"})),
        ("connectionId", json!(world.connection_id)),
        ("clientId", json!(world.client_id)),
        ("partnersRecordId", json!(record.partners_record_id)),
        ("knownBy", json!("reply")),
    ] {
        assert_eq!(body[field], value, "{field}");
    }
    assert!(body.get("rejectReason").is_none());
    world.assert_promises().await;
    daemon.stop().await;
}

#[tokio::test]
async fn a_deallocation_above_what_is_available_is_released_with_a_reason_for_the_client() {
    let world = World::new().await;
    let daemon = world.daemon().await;
    let record = world.submit(JobType::Deallocation, &(AVAILABLE + 1).to_string()).await;

    world.wait_for_state(&record, "confirmed").await;
    assert!(world.is_final(&record, Outcome::Released));
    let reason = "The available balance does not cover the quantity.";
    assert_eq!(world.oes().record(record.id).unwrap().reason.as_deref(), Some(reason));
    assert_eq!(world.balances().await, [AVAILABLE.to_string(), "0".into(), "0".into()]);

    let [heard] = world.hear_outcomes(1).await.try_into().unwrap();
    assert_eq!(heard.routing_key, "deallocation.released");
    assert_eq!(heard.json()["rejectReason"], reason);
    world.assert_promises().await;
    daemon.stop().await;
}

#[tokio::test]
async fn the_policy_s_reasons_each_release() {
    let world = World::new().await;
    let other: settled::domain::ids::ConnectionId = Uuid::new_v4().into();
    for currency in ["ETH", "OFF"] {
        world.add_currency(currency);
        world.add_connection(world.connection_id, currency);
    }
    world.add_connection(other, "BTC");
    world
        .import(&[
            json!({"eventId": "k-2", "type": "currency.configured", "currency": "BTC",
                   "enabled": true, "quantityMin": "10", "quantityMax": "1000"}),
            json!({"eventId": "k-3", "type": "currency.configured", "currency": "OFF",
                   "enabled": false, "quantityMin": "1", "quantityMax": "1000"}),
            world.connection_event("c-2", other, false),
        ])
        .await;
    let daemon = world.daemon().await;
    let mut expected = Vec::new();
    for (currency, quantity, code) in [
        ("BTC", "9", "quantity_too_small"),
        ("BTC", "1001", "quantity_too_large"),
        ("ETH", "10", "currency_not_enabled"),
        ("OFF", "10", "currency_not_enabled"),
    ] {
        expected.push((world.reserve_in(JobType::Allocation, currency, quantity), code));
    }
    let inactive = world
        .oes()
        .reserve(settled::sandbox::Reservation {
            record_type: JobType::Allocation,
            connection_id: other,
            currency: "BTC".parse().unwrap(),
            quantity: "10".parse().unwrap(),
            partners_record_id: None,
        })
        .unwrap();
    expected.push((inactive, "connection_inactive"));
    world.publish(expected.iter().map(|(record, _)| world.job(record))).await;

    for (record, code) in &expected {
        let history = world.wait_for_state(record, "confirmed").await;
        assert!(world.is_final(record, Outcome::Released), "{code}");
        let decision = history.decision.unwrap();
        assert_eq!(decision.reject_code.as_deref(), Some(*code));
        let seen: Value = serde_json::from_str(decision.seen.get()).unwrap();
        assert_eq!(seen["policyVersion"], 2);
    }
    world.assert_promises().await;
    daemon.stop().await;
}

#[tokio::test]
async fn amounts_beyond_64_and_128_bits_and_any_text_go_through_unchanged() {
    let world = World::new().await;
    let daemon = world.daemon().await;
    let quantities = ["18446744073709551616", "340282366920938463463374607431768211457"];
    let mut records = Vec::new();
    for quantity in quantities {
        records.push(world.submit(JobType::Allocation, quantity).await);
    }
    // The currency's largest quantity is 10^77; a 256-bit number can be a little larger.
    let over = world.submit(JobType::Allocation, &format!("11{}", "0".repeat(76))).await;
    let odd = world
        .oes()
        .reserve(settled::sandbox::Reservation {
            record_type: JobType::Allocation,
            connection_id: world.connection_id,
            currency: "BTC".parse().unwrap(),
            quantity: "7".parse().unwrap(),
            partners_record_id: Some("取引 \"7\" \\ \u{2028}\u{1f511}\t é/".to_owned()),
        })
        .unwrap();
    world.publish([world.job(&odd)]).await;

    for record in records.iter().chain([&odd]) {
        world.wait_for_state(record, "confirmed").await;
        assert!(world.is_final(record, Outcome::Cleared));
    }
    world.wait_for_state(&over, "confirmed").await;
    assert!(world.is_final(&over, Outcome::Released));
    let heard = world.hear_outcomes(4).await;
    let odd_one = heard.iter().find(|heard| heard.json()["recordId"] == json!(odd.id)).unwrap();
    assert_eq!(odd_one.json()["partnersRecordId"], odd.partners_record_id);
    // 1,000,000 + 2^64 + (2^128 + 1) + 7, computed elsewhere.
    assert_eq!(world.balances().await[0], "340282366920938463481821351505478763080");
    world.assert_promises().await;
    daemon.stop().await;
}

#[tokio::test]
async fn many_jobs_share_commits_and_all_become_final() {
    let world = World::new().await;
    let daemon = world.daemon().await;
    let records: Vec<_> =
        (1..=300).map(|number| world.reserve(JobType::Allocation, &number.to_string())).collect();
    world.publish(records.iter().map(|record| world.job(record))).await;
    world.wait_for_final(300).await;
    let sum: u64 = (1..=300).sum();
    assert_eq!(world.balances().await[0], (AVAILABLE + sum).to_string());
    let heard = world.hear_outcomes(300).await;
    let ids: std::collections::BTreeSet<_> =
        heard.into_iter().map(|heard| heard.message_id).collect();
    assert_eq!(ids.len(), 300);
    let commands = daemon.number("settled_writer_batch_commands_sum").await;
    let commits = daemon.number("settled_writer_batch_commands_count").await;
    assert!(commands / commits > 2.0, "{commands} commands in {commits} commits");
    world.assert_promises().await;
    daemon.stop().await;
}

#[tokio::test]
async fn holds_of_one_batch_are_seen_by_the_next_job_of_it() {
    let world = World::new().await;
    // Three deallocations of two fifths each, published before the daemon starts: two fit.
    let share = (AVAILABLE / 5 * 2).to_string();
    let records: Vec<_> = (0..3).map(|_| world.reserve(JobType::Deallocation, &share)).collect();
    world.publish(records.iter().map(|record| world.job(record))).await;
    let daemon = world.daemon().await;
    world.wait_for_final(3).await;
    let outcomes: Vec<_> =
        records.iter().map(|record| world.is_final(record, Outcome::Cleared)).collect();
    assert_eq!(outcomes, [true, true, false]);
    assert_eq!(world.balances().await, [(AVAILABLE / 5).to_string(), "0".into(), "0".into()]);
    world.assert_promises().await;
    daemon.stop().await;
}
