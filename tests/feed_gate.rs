//! Jobs do not overtake the book: nothing is decided until the feed is far enough.

use std::time::Duration;

use lapin::{options::BasicConsumeOptions, types::FieldTable};
use serde_json::{Value, json};
use settled::domain::job::JobType;

use crate::support::{
    daemon::Daemon,
    eventually,
    feed::{fed_world, heartbeat},
    world::{AVAILABLE, World},
};

/// A daemon that may not be ready.
async fn start(world: &World) -> Daemon {
    let mut config = world.config();
    config.http.listen.set_port(0);
    Daemon::start(config).await
}

async fn part(daemon: &Daemon, name: &str) -> (bool, String) {
    let readiness: Value = serde_json::from_str(&daemon.get("/readyz").await.1).unwrap();
    let parts = readiness["parts"].as_array().unwrap();
    let part = parts.iter().find(|part| part["name"] == name).unwrap();
    (part["ready"].as_bool().unwrap(), part["detail"].as_str().unwrap().to_owned())
}

/// A message with the number that it waits for.
fn with_sequence(message: &[u8], sequence: u64) -> Vec<u8> {
    let mut message: Value = serde_json::from_slice(message).unwrap();
    message["bookSequence"] = json!(sequence);
    message.to_string().into_bytes()
}

#[tokio::test]
async fn the_backlog_at_connect_is_applied_before_anything_is_decided() {
    let world = fed_world(&[]).await;
    // Everything is taken away in the backlog's last event, so a job that overtakes it would be cleared.
    let mut events: Vec<Value> = (1..=400).map(|number| world.numbered(number, "1")).collect();
    events.push(world.adjustment("gone", &format!("-{}", AVAILABLE + 400)));
    world.feed(&events).await;
    let records: Vec<_> = (0..20).map(|_| world.reserve(JobType::Deallocation, "5")).collect();
    world.publish(records.iter().map(|record| world.job(record))).await;
    let daemon = world.daemon().await;
    world.wait_for_final(20).await;
    for record in &records {
        let decision = world.history(record.id).await.unwrap().decision.unwrap();
        assert_eq!(decision.reject_code.as_deref(), Some("insufficient_available"));
    }
    world.assert_promises().await;
    daemon.stop().await;
}

#[tokio::test]
async fn with_a_bound_nothing_is_decided_without_a_young_heartbeat() {
    let world = fed_world(&[("book.lag_max_s", "2")]).await;
    let daemon = start(&world).await;
    let record = world.submit(JobType::Allocation, "5").await;
    world.wait_for_state(&record, "received").await;
    eventually("the feed to be connected", || async {
        part(&daemon, "feed").await.0.then_some(())
    })
    .await;
    let (ready, why) = part(&daemon, "decisions").await;
    assert!(!ready && why.contains("no book.heartbeat has come"), "{why}");
    let (_, said, _) = world.run(&["status"]).await;
    assert!(said.contains("nothing is decided"), "{said}");
    assert_eq!(daemon.count("settled_book_gate_shut{cause=\"no_heartbeat\"}").await, 1);
    // One that is old, because it waited in the queue, does not do.
    world.feed(&[heartbeat("h-1", 60)]).await;
    eventually("the heartbeat to be old", || async {
        part(&daemon, "decisions").await.1.contains("more than book.lag_max_s").then_some(())
    })
    .await;
    assert!(world.history(record.id).await.unwrap().decision.is_none());
    world.feed(&[heartbeat("h-2", 0)]).await;
    world.wait_for_state(&record, "confirmed").await;
    // It grows old by itself, and is remembered.
    eventually("the gate to shut", || async {
        (daemon.count("settled_book_gate_shut{cause=\"heartbeat_old\"}").await == 1).then_some(())
    })
    .await;
    let late = world.submit(JobType::Allocation, "7").await;
    world.wait_for_state(&late, "received").await;
    world.feed(&[heartbeat("h-3", 0)]).await;
    world.wait_for_state(&late, "confirmed").await;
    world.assert_promises().await;
    daemon.stop().await;
}

#[tokio::test]
async fn a_job_waits_for_the_event_that_it_names() {
    let world = fed_world(&[]).await;
    let daemon = world.daemon().await;
    world.feed(&[world.numbered(1, "1")]).await;
    let record = world.reserve(JobType::Deallocation, "1000500");
    world.publish([with_sequence(&world.job(&record), 3)]).await;
    let at_once = world.reserve(JobType::Deallocation, "1");
    world.publish([with_sequence(&world.job(&at_once), 1)]).await;
    world.wait_for_state(&at_once, "confirmed").await;
    assert_eq!(world.history(record.id).await.unwrap().job.state.to_string(), "received");
    // Number 2 is missing, so the book is not there yet with number 3.
    world.feed(&[world.numbered(3, "300")]).await;
    world.wait_for_available(AVAILABLE + 300).await;
    assert_eq!(world.history(record.id).await.unwrap().job.state.to_string(), "received");
    world.feed(&[world.numbered(2, "200")]).await;
    let history = world.wait_for_state(&record, "confirmed").await;
    assert_eq!(history.decision.unwrap().reject_code, None, "what came by then was counted");
    world.assert_promises().await;
    daemon.stop().await;
}

#[tokio::test]
async fn a_job_that_waits_for_too_long_is_parked_and_goes_on_by_an_operators_word() {
    let world = fed_world(&[("book.sequence_wait_max_s", "1")]).await;
    let daemon = world.daemon().await;
    world.feed(&[world.numbered(1, "1")]).await;
    let record = world.reserve(JobType::Allocation, "5");
    world.publish([with_sequence(&world.job(&record), 2)]).await;
    world.wait_for_state(&record, "parked(book_behind)").await;
    let shown = world.must_run(&["jobs", "show", &record.id.to_string()]).await;
    assert!(shown.contains("book_behind"), "{shown}");
    world.feed(&[world.numbered(2, "1")]).await;
    world.wait_for_available(AVAILABLE + 2).await;
    let id = record.id.to_string();
    world.must_run(&["jobs", "retry", &id, "--reason", "it has come"]).await;
    world.wait_for_state(&record, "confirmed").await;
    world.assert_promises().await;
    daemon.stop().await;
}

#[tokio::test]
async fn the_grace_of_an_unknown_connection_counts_only_time_with_the_gate_open() {
    let settings = [("book.lag_max_s", "3600"), ("decide.unknown_connection_grace_s", "2")];
    let world = fed_world(&settings).await;
    let unknown = uuid::Uuid::new_v4().into();
    world.add_connection(unknown, "BTC");
    let record = world.oes().reserve(settled::sandbox::Reservation {
        record_type: JobType::Allocation,
        connection_id: unknown,
        currency: "BTC".parse().unwrap(),
        quantity: "5".parse().unwrap(),
        partners_record_id: None,
    });
    let record = record.unwrap();
    let daemon = start(&world).await;
    world.publish([world.job(&record)]).await;
    world.wait_for_state(&record, "received").await;
    // Longer than the grace, with the gate shut; and a restart in between.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    daemon.stop().await;
    let daemon = start(&world).await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let history = world.history(record.id).await.unwrap();
    assert!(history.decision.is_none(), "{history:?}");
    let begun = std::time::Instant::now();
    world.feed(&[heartbeat("h-1", 0)]).await;
    let history = world.wait_for_state(&record, "confirmed").await;
    assert!(begun.elapsed() >= Duration::from_millis(1_900));
    assert_eq!(history.decision.unwrap().reject_code.as_deref(), Some("connection_unknown"));
    world.assert_promises().await;
    daemon.stop().await;
}

#[tokio::test]
async fn an_operators_word_waits_for_the_book_too() {
    let world = fed_world(&[("book.lag_max_s", "2")]).await;
    let limits = json!({
        "eventId": "limits", "type": "currency.configured", "currency": "BTC", "enabled": true,
        "quantityMin": "1", "quantityMax": "1000000000", "approvalAbove": "100",
    });
    world.import(&[limits]).await;
    let daemon = start(&world).await;
    world.feed(&[heartbeat("h-1", 0)]).await;
    let record = world.submit(JobType::Allocation, "101").await;
    world.wait_for_state(&record, "parked(needs_approval)").await;
    eventually("the gate to shut", || async {
        (!part(&daemon, "decisions").await.0).then_some(())
    })
    .await;
    let id = record.id.to_string();
    let approve = ["jobs", "approve", id.as_str(), "--reason", "it is fine"];
    let (success, said, _) = world.run(&approve).await;
    assert!(!success && said.contains("more than book.lag_max_s"), "{said}");
    world.wait_for_state(&record, "parked(needs_approval)").await;
    daemon.stop().await;
    // Without a daemon nobody knows how far the book is.
    let (success, said, _) = world.run(&approve).await;
    assert!(!success && said.contains("the feed is not consumed"), "{said}");
    let daemon = start(&world).await;
    world.feed(&[heartbeat("h-2", 0)]).await;
    eventually("the gate to open", || async { part(&daemon, "decisions").await.0.then_some(()) })
        .await;
    world.must_run(&approve).await;
    world.wait_for_state(&record, "confirmed").await;
    world.assert_promises().await;
    daemon.stop().await;
}

#[tokio::test]
async fn the_feed_is_consumed_alone() {
    let world = fed_world(&[]).await;
    let channel = world.exchange.channel().await;
    let queue = world.setting("broker.book_queue");
    let another = channel
        .basic_consume(
            queue.into(),
            "another".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        )
        .await
        .unwrap();
    let daemon = start(&world).await;
    let record = world.submit(JobType::Allocation, "5").await;
    world.wait_for_state(&record, "received").await;
    eventually("the session to be refused", || async {
        (daemon.count("settled_broker_sessions_lost_total{kind=\"feed\"}").await > 0).then_some(())
    })
    .await;
    assert!(part(&daemon, "decisions").await.1.contains("the feed is not consumed"));
    drop(another);
    channel.close(200, "OK".into()).await.unwrap();
    world.wait_for_state(&record, "confirmed").await;
    daemon.stop().await;
}
