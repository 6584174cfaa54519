//! A bad message never acts and never disappears; the good ones beside it go on.

use lapin::{
    BasicProperties,
    options::BasicPublishOptions,
    types::{AMQPValue, FieldTable},
};
use serde_json::{Value, json};
use settled::domain::{job::JobType, message::MESSAGE_BYTES_MAX};

use crate::support::{eventually, world::World};

/// A header that fits into the largest frame of RabbitMQ's default, 128 KiB, and not into half of it.
const HEADER_BYTES: usize = 120 * 1_024;

/// Thirty ways to be wrong, each with the kind of fault that it is.
fn bad_messages(good: &Value) -> Vec<(Vec<u8>, &'static str)> {
    let text = good.to_string();
    let without = |field: &str| {
        let mut message = good.clone();
        message.as_object_mut().unwrap().remove(field);
        message.to_string().into_bytes()
    };
    let with = |pointer: &str, value: Value| {
        let mut message = good.clone();
        *message.pointer_mut(pointer).unwrap() = value;
        message.to_string().into_bytes()
    };
    let id = good["allocationId"].as_str().unwrap();
    vec![
        (Vec::new(), "not_json"),
        (b"hello".to_vec(), "not_json"),
        (b"{".to_vec(), "not_json"),
        (text.as_bytes()[..text.len() - 2].to_vec(), "not_json"),
        (format!("{text}{text}").into_bytes(), "not_json"),
        (format!("\u{feff}{text}").into_bytes(), "not_json"),
        (text.replace('"', "'").into_bytes(), "not_json"),
        (b"\x1f\x8b\x08\x00\x00".to_vec(), "not_utf8"),
        (text.replacen("client-001", "\u{0}", 1).into_bytes(), "not_json"),
        (text.replacen("client-001", "\\ud800", 1).into_bytes(), "not_json"),
        (vec![b' '; MESSAGE_BYTES_MAX + 1], "too_large"),
        (
            text.replacen('{', &format!("{{\"pad\":\"{}\",", "x".repeat(70_000)), 1).into_bytes(),
            "too_large",
        ),
        (b"null".to_vec(), "bad_field"),
        (b"[]".to_vec(), "bad_field"),
        (format!("[{text}]").into_bytes(), "bad_field"),
        (without("type"), "bad_field"),
        (without("allocationId"), "bad_field"),
        (without("amount"), "bad_field"),
        (without("clientId"), "bad_field"),
        (without("partnersConnectionId"), "bad_field"),
        (with("/type", json!("withdrawal")), "bad_field"),
        (with("/type", json!("deallocation")), "bad_field"),
        (with("/allocationId", json!(id.to_uppercase())), "bad_field"),
        (with("/allocationId", json!(format!("{{{id}}}"))), "bad_field"),
        (with("/allocationId", json!(null)), "bad_field"),
        (with("/clientId", json!("")), "bad_field"),
        (with("/partnersClientId", json!("")), "bad_field"),
        (with("/partnersClientId", json!(7)), "bad_field"),
        (with("/amount", json!(["BTC", "5"])), "bad_field"),
        (with("/amount/quantity", json!(5)), "bad_field"),
        (with("/amount/quantity", json!("0")), "bad_field"),
        (with("/amount/quantity", json!("-5")), "bad_field"),
        (with("/amount/quantity", json!("05")), "bad_field"),
        (with("/amount/quantity", json!("5.0")), "bad_field"),
        (with("/amount/quantity", json!("1e18")), "bad_field"),
        (with("/amount/quantity", json!("9".repeat(90))), "bad_field"),
        (with("/amount/currency", json!("")), "bad_field"),
        (text.replacen('{', "{\"type\":\"allocation\",", 1).into_bytes(), "bad_field"),
    ]
}

#[tokio::test]
async fn every_kind_of_bad_message_is_kept_with_its_reason_and_none_leads_to_an_update() {
    let world = World::new().await;
    let daemon = world.daemon().await;
    let never = world.reserve(JobType::Allocation, "5");
    let good: Value = serde_json::from_slice(&world.job(&never)).unwrap();
    let bad = bad_messages(&good);
    assert!(bad.len() >= 30);
    let (first, last) =
        (world.reserve(JobType::Allocation, "1"), world.reserve(JobType::Allocation, "2"));
    world.publish([world.job(&first)]).await;
    world.publish(bad.iter().map(|(bytes, _)| bytes.clone())).await;
    world.publish([world.job(&last)]).await;

    world.wait_for_state(&first, "confirmed").await;
    world.wait_for_state(&last, "confirmed").await;
    let dead = world.exchange.hear(&format!("{}.dead", world.jobs_queue), bad.len()).await;
    for (bytes, code) in &bad {
        let found = dead.iter().find(|heard| heard.body == *bytes);
        let heard = found.unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(bytes)));
        assert_eq!(heard.headers["x-settled-reason"], *code, "{}", String::from_utf8_lossy(bytes));
        assert_eq!(heard.headers["x-settled-queue"], world.jobs_queue);
        assert!(!heard.headers["x-settled-detail"].is_empty() && heard.persistent);
    }
    assert_eq!(world.puts_of(&never), []);
    assert!(world.history(never.id).await.is_none());
    assert_eq!(daemon.count("settled_messages_total{result=\"refused\"}").await, bad.len() as u64);
    world.assert_promises().await;
    daemon.stop().await;
    assert_eq!(world.exchange.ready(&world.jobs_queue).await, 0);
}

#[tokio::test]
async fn the_same_bad_bytes_again_are_counted_and_not_published_again() {
    let world = World::new().await;
    let daemon = world.daemon().await;
    world.publish(std::iter::repeat_n(b"hello".to_vec(), 7)).await;
    eventually("all of them to be refused", || async {
        let refused = daemon.count("settled_messages_refused_total{code=\"not_json\"}").await;
        (refused == 7).then_some(())
    })
    .await;
    assert_eq!(daemon.count("settled_quarantined_messages").await, 1);
    let dead_queue = format!("{}.dead", world.jobs_queue);
    let [heard] = world.exchange.hear(&dead_queue, 1).await.try_into().unwrap();
    assert_eq!(heard.body, b"hello");
    daemon.stop().await;
    assert_eq!(world.exchange.ready(&dead_queue).await, 0);
}

#[tokio::test]
async fn a_bad_message_survives_a_broker_that_cannot_take_its_dead_letter() {
    let world = World::new().await;
    let dead_queue = format!("{}.dead", world.jobs_queue);
    let daemon = world.daemon().await;
    let channel = world.exchange.channel().await;
    let options = lapin::options::QueueDeleteOptions::default();
    channel.queue_delete(dead_queue.as_str().into(), options).await.unwrap();
    world.publish([b"hello".to_vec()]).await;
    eventually("the broker to send it back", || async {
        (daemon.count("settled_publish_refused_total").await >= 1).then_some(())
    })
    .await;
    daemon.stop().await;
    // The next start declares the queue again and publishes what waits.
    let daemon = world.daemon().await;
    assert_eq!(world.exchange.hear(&dead_queue, 1).await[0].body, b"hello");
    daemon.stop().await;
}

#[tokio::test]
async fn headers_as_large_as_the_broker_takes_them_stop_nothing() {
    let world = World::new().await;
    let daemon = world.daemon().await;
    let (odd, next) =
        (world.reserve(JobType::Allocation, "5"), world.reserve(JobType::Allocation, "1"));
    // They come in one frame, which must not be larger than what the consumer has agreed to.
    let mut headers = FieldTable::default();
    headers.insert("x-trace".into(), AMQPValue::LongString("x".repeat(HEADER_BYTES).into()));
    let properties = BasicProperties::default().with_delivery_mode(2).with_headers(headers);
    let options = BasicPublishOptions::default();
    let queue = world.jobs_queue.as_str();
    let channel = world.exchange.channel().await;
    channel
        .basic_publish("".into(), queue.into(), options, &world.job(&odd), properties)
        .await
        .unwrap();
    world.wait_for_state(&odd, "confirmed").await;
    world.publish([world.job(&next)]).await;
    world.wait_for_state(&next, "confirmed").await;
    daemon.stop().await;
}
