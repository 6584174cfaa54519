//! What the exchange feeds is taken once, in its order, and never silently: gaps, contradictions and
//! differences are told.

use serde_json::{Value, json};
use settled::domain::job::JobType;

use crate::support::{
    daemon::Daemon,
    eventually,
    feed::{fed_world, heartbeat},
    world::{AVAILABLE, World},
};

async fn fed(daemon: &Daemon, result: &str) -> u64 {
    daemon.count(&format!("settled_feed_events_total{{result=\"{result}\"}}")).await
}

/// Waits until so many events have come to something.
async fn wait_for(daemon: &Daemon, result: &str, count: u64) {
    eventually(&format!("{count} events to be {result}"), || async {
        (fed(daemon, result).await == count).then_some(())
    })
    .await;
}

async fn quarantined(world: &World) -> Vec<(String, String)> {
    let listed = world.must_run(&["quarantine", "list", "--json"]).await;
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let lines = listed.as_array().unwrap().iter();
    lines
        .map(|line| {
            let text = |field: &str| line[field].as_str().unwrap().to_owned();
            (text("queue"), text("code"))
        })
        .collect()
}

#[tokio::test]
async fn every_kind_of_event_is_taken_from_the_queue() {
    let world = fed_world(&[]).await;
    let daemon = world.daemon().await;
    let suspended = json!({"eventId": "s-1", "type": "connection.suspended", "connectionId": world.connection_id});
    let limited = json!({
        "eventId": "l-1", "type": "connection.limited", "connectionId": world.connection_id,
        "currency": "BTC", "approvalAbove": "900",
    });
    let currency = json!({
        "eventId": "k-2", "type": "currency.configured", "currency": "BTC", "enabled": true,
        "quantityMin": "2", "quantityMax": "1000",
    });
    world
        .feed(&[suspended, limited, currency, world.adjustment("a-1", "-5"), heartbeat("h", 0)])
        .await;
    world.feed(&[world.snapshot("t-1", &(AVAILABLE - 5).to_string())]).await;
    wait_for(&daemon, "applied", 6).await;
    world.wait_for_available(AVAILABLE - 5).await;
    let shown: Value =
        serde_json::from_str(&world.must_run(&["book", "show", "--json"]).await).unwrap();
    assert_eq!(shown["connections"][0]["active"], false);
    assert_eq!(shown["currencies"][0]["quantityMax"], "1000");
    let history = world.must_run(&["book", "history"]).await;
    assert!(history.contains("active: true → false"), "{history}");
    // A suspension ends with the next statement.
    let record = world.submit(JobType::Allocation, "5").await;
    let seen = world.wait_for_state(&record, "confirmed").await;
    assert_eq!(seen.decision.unwrap().reject_code.as_deref(), Some("connection_inactive"));
    world.feed(&[world.connection_event("c-2", world.connection_id, true)]).await;
    wait_for(&daemon, "applied", 7).await;
    let record = world.submit(JobType::Allocation, "5").await;
    assert_eq!(
        world.wait_for_state(&record, "confirmed").await.decision.unwrap().reject_code,
        None
    );
    world.assert_promises().await;
    daemon.stop().await;
}

#[tokio::test]
async fn an_event_that_comes_again_is_taken_once() {
    let world = fed_world(&[]).await;
    let daemon = world.daemon().await;
    let event = world.adjustment("a-1", "7");
    world.feed(&[event.clone(), event.clone(), event.clone()]).await;
    wait_for(&daemon, "repeated", 2).await;
    // The same over the other ways in.
    assert!(world.import(std::slice::from_ref(&event)).await.contains("1 already in the book"));
    world.wait_for_available(AVAILABLE + 7).await;
    daemon.stop().await;
}

#[tokio::test]
async fn an_id_with_other_content_and_whatever_is_no_event_go_to_the_quarantine() {
    let world = fed_world(&[]).await;
    let daemon = world.daemon().await;
    let queue = world.setting("broker.book_queue");
    world.feed(&[world.adjustment("a-1", "7"), world.adjustment("a-1", "8")]).await;
    let mut misspelt = world.adjustment("a-2", "9");
    misspelt["dleta"] = json!("9");
    let mut stranger = world.adjustment("a-3", "9");
    stranger["connectionId"] = json!("00000000-0000-4000-8000-000000000009");
    world.feed(&[misspelt, world.adjustment("a-4", "01"), stranger]).await;
    world.exchange.publish(queue, [b"no event".to_vec(), vec![0xff, 0xfe]]).await;
    world.feed(&[world.adjustment("a-5", "1")]).await;
    world.wait_for_available(AVAILABLE + 8).await;
    wait_for(&daemon, "refused", 4).await;
    assert_eq!(
        (fed(&daemon, "contradicts").await, fed(&daemon, "unknown_connection").await),
        (1, 1)
    );
    let mut codes: Vec<String> = Vec::new();
    for (of, code) in quarantined(&world).await {
        assert_eq!(of, queue);
        codes.push(code);
    }
    codes.sort();
    let expected =
        ["bad_field", "bad_field", "content_differs", "not_json", "not_utf8", "unknown_connection"];
    assert_eq!(codes, expected);
    let letters = world.exchange.hear(&format!("{queue}.dead"), 6).await;
    assert!(letters.iter().all(|letter| letter.headers.contains_key("x-settled-reason")));
    world.exchange.wait_until_taken(queue).await;
    daemon.stop().await;
}

#[tokio::test]
async fn a_gap_is_told_until_what_was_missing_comes() {
    let world = fed_world(&[]).await;
    let daemon = world.daemon().await;
    world.feed(&[world.numbered(1, "10"), world.numbered(4, "40")]).await;
    world.wait_for_available(AVAILABLE + 50).await;
    assert_eq!(daemon.count("settled_feed_gap_connections").await, 1);
    assert_eq!(daemon.count("settled_feed_gaps_found_total").await, 1);
    let feed = world.known_feed().await.unwrap();
    assert_eq!((feed.last_sequence, feed.missing.len()), (Some(4), 1));
    let finding = world.feed_findings().await.remove(0);
    assert_eq!((finding.kind.as_str(), finding.event_id.as_str()), ("gap", "n-4"));
    assert_eq!(finding.detail, json!({"first": 2, "last": 3}));
    let shown = world.must_run(&["book", "feed"]).await;
    assert!(shown.contains("2 to 3"), "{shown}");
    // What comes late is taken, for changes commute; what was there is not.
    world.feed(&[world.numbered(3, "30"), world.numbered(2, "20")]).await;
    world.wait_for_available(AVAILABLE + 100).await;
    assert!(world.known_feed().await.unwrap().missing.is_empty());
    assert_eq!(daemon.count("settled_feed_gap_connections").await, 0);
    let mut old = world.numbered(2, "1000");
    old["eventId"] = json!("another id");
    world.feed(&[old, world.numbered(5, "1")]).await;
    world.wait_for_available(AVAILABLE + 101).await;
    assert_eq!(fed(&daemon, "old").await, 1);
    world.exchange.wait_until_taken(world.setting("broker.book_queue")).await;
    world.assert_promises().await;
    daemon.stop().await;
}

#[tokio::test]
async fn a_snapshot_that_differs_is_told_and_not_taken_over_until_an_operator_accepts_it() {
    let world = fed_world(&[]).await;
    let daemon = world.daemon().await;
    let agreed = AVAILABLE.to_string();
    world.feed(&[world.snapshot("t-1", &agreed), world.snapshot("t-2", "999990")]).await;
    wait_for(&daemon, "differs", 1).await;
    assert_eq!(world.balances().await[0], agreed);
    assert_eq!(daemon.count("settled_snapshot_difference_connections").await, 1);
    let finding = world.feed_findings().await.remove(0);
    let expected = json!([{"currency": "BTC", "expected": "999990", "found": "1000000"}]);
    assert_eq!((finding.kind.as_str(), &finding.detail), ("difference", &expected));
    // One that agrees ends it.
    world.feed(&[world.snapshot("t-3", &agreed)]).await;
    wait_for(&daemon, "applied", 2).await;
    assert_eq!(daemon.count("settled_snapshot_difference_connections").await, 0);
    // Accepted, the difference is booked, whatever has moved meanwhile.
    world.feed(&[world.snapshot("t-4", "999990"), world.adjustment("a-1", "3")]).await;
    world.wait_for_available(AVAILABLE + 3).await;
    let id = world.connection_id.to_string();
    let said = world
        .must_run(&["book", "accept-snapshot", &id, "--reason", "the exchange is right"])
        .await;
    assert!(said.contains("-10"), "{said}");
    assert_eq!(world.balances().await[0], (AVAILABLE - 7).to_string());
    let actions = world.must_run(&["actions", "--json"]).await;
    assert!(actions.contains("accept_snapshot") && actions.contains(&id), "{actions}");
    world.must_run(&["verify"]).await;
    world.assert_promises().await;
    daemon.stop().await;
}

#[tokio::test]
async fn what_comes_late_is_not_booked_again_with_the_difference_that_it_explains() {
    let world = fed_world(&[]).await;
    let daemon = world.daemon().await;
    let mut snapshot = world.snapshot("t", &(AVAILABLE + 106).to_string());
    snapshot["sequence"] = json!(3);
    world.feed(&[world.numbered(1, "1"), snapshot]).await;
    wait_for(&daemon, "differs", 1).await;
    world.feed(&[world.numbered(2, "100")]).await;
    world.wait_for_available(AVAILABLE + 101).await;
    let id = world.connection_id.to_string();
    let said = world.must_run(&["book", "accept-snapshot", &id, "--reason", "it is theirs"]).await;
    assert!(said.contains("accepted; 5 BTC is booked"), "{said}");
    assert_eq!(world.balances().await[0], (AVAILABLE + 106).to_string());
    daemon.stop().await;
}

#[tokio::test]
async fn the_same_events_come_from_a_file_from_standard_input_and_over_the_api() {
    let world = fed_world(&[]).await;
    let daemon = world.daemon().await;
    let said = world
        .import(&[
            world.numbered(1, "1"),
            world.numbered(3, "1"),
            world.snapshot("t", "5"),
            heartbeat("h", 0),
        ])
        .await;
    assert!(said.contains("3 applied") && said.contains("1 snapshots differ"), "{said}");
    let text = format!("{}\n{}\n", world.numbered(2, "1"), world.numbered(1, "1"));
    let said =
        crate::support::daemon::run_with_input(&world, &["book", "import", "-"], &text).await;
    assert!(said.contains("1 applied") && said.contains("1 already in the book"), "{said}");
    assert_eq!(world.balances().await[0], (AVAILABLE + 3).to_string());
    daemon.stop().await;
}

#[tokio::test]
async fn what_was_delivered_when_the_process_was_killed_comes_again_and_counts_once() {
    let world = fed_world(&[]).await;
    let process = world.process().await;
    let events: Vec<Value> = (1..=600).map(|number| world.numbered(number, "1")).collect();
    world.feed(&events[..300]).await;
    eventually("some to be taken", || async {
        (world.balances().await[0] != AVAILABLE.to_string()).then_some(())
    })
    .await;
    process.kill().await;
    world.feed(&events[300..]).await;
    let process = world.process().await;
    world.wait_for_available(AVAILABLE + 600).await;
    world.exchange.wait_until_taken(world.setting("broker.book_queue")).await;
    assert!(world.known_feed().await.unwrap().missing.is_empty());
    assert_eq!(world.balances().await[0], (AVAILABLE + 600).to_string());
    world.assert_promises().await;
    process.kill().await;
}
