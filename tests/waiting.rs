//! Jobs that the book cannot decide yet, or must not.

use std::time::Duration;

use serde_json::{Value, json};
use settled::domain::{decision::Outcome, ids::ConnectionId, job::JobType};
use settled::sandbox::{Record, Reservation};
use uuid::Uuid;

use crate::support::world::{PARTNERS_CLIENT, World};

/// A record of a connection that OES has and the book has not.
fn unknown_connection(world: &World) -> (ConnectionId, Record) {
    let connection: ConnectionId = Uuid::new_v4().into();
    world.add_connection(connection, "BTC");
    let record = world
        .oes()
        .reserve(Reservation {
            record_type: JobType::Allocation,
            connection_id: connection,
            currency: "BTC".parse().unwrap(),
            quantity: "5".parse().unwrap(),
            partners_record_id: None,
        })
        .unwrap();
    (connection, record)
}

#[tokio::test]
async fn a_job_for_an_unknown_connection_is_decided_when_the_book_hears_of_it() {
    let world = World::new().await;
    let daemon = world.daemon().await;
    let (connection, record) = unknown_connection(&world);
    world.publish([world.job(&record)]).await;
    world.wait_for_state(&record, "received").await;
    assert_eq!(world.puts_of(&record), []);
    // Through the daemon that holds the book.
    let output = world.import(&[world.connection_event("c-2", connection, true)]).await;
    assert!(output.contains("into the daemon's book"), "{output}");
    world.wait_for_state(&record, "confirmed").await;
    assert!(world.is_final(&record, Outcome::Cleared));
    world.assert_promises().await;
    daemon.stop().await;
}

#[tokio::test]
async fn a_job_for_an_unknown_connection_is_released_after_its_grace_and_not_before() {
    let world = World::with(&[("decide.unknown_connection_grace_s", "2")]).await;
    let daemon = world.daemon().await;
    let (_, record) = unknown_connection(&world);
    world.publish([world.job(&record)]).await;
    let history = world.wait_for_state(&record, "confirmed").await;
    assert!(world.is_final(&record, Outcome::Released));
    let decision = history.decision.unwrap();
    assert_eq!(decision.reject_code.as_deref(), Some("connection_unknown"));
    let waited = decision.decided_at_ms.since(history.job.received_at);
    assert!(waited >= Duration::from_secs(2), "{waited:?}");
    world.assert_promises().await;
    daemon.stop().await;
}

#[tokio::test]
async fn the_grace_survives_a_restart() {
    let world = World::with(&[("decide.unknown_connection_grace_s", "3")]).await;
    let daemon = world.daemon().await;
    let (_, record) = unknown_connection(&world);
    world.publish([world.job(&record)]).await;
    world.wait_for_state(&record, "received").await;
    daemon.stop().await;
    let daemon = world.daemon().await;
    let history = world.wait_for_state(&record, "confirmed").await;
    let waited = history.decision.unwrap().decided_at_ms.since(history.job.received_at);
    assert!(waited >= Duration::from_secs(3) && waited < Duration::from_secs(20), "{waited:?}");
    daemon.stop().await;
}

#[tokio::test]
async fn a_job_that_disagrees_with_its_connection_is_parked_undecided_and_never_signed() {
    let world = World::new().await;
    let daemon = world.daemon().await;
    let mut parked = Vec::new();
    for (field, value) in [
        ("clientId", json!(Uuid::new_v4())),
        ("partnersClientId", json!("somebody-else")),
        ("partnersConnectionId", json!("another-connection")),
    ] {
        let record = world.reserve(JobType::Allocation, "5");
        let mut message: Value = serde_json::from_slice(&world.job(&record)).unwrap();
        message[field] = value;
        world.publish([message.to_string().into_bytes()]).await;
        parked.push(record);
    }
    for record in &parked {
        let history = world.wait_for_state(record, "parked(identity_mismatch)").await;
        assert!(history.decision.is_none() && history.attempts.is_empty());
        assert!(history.transfers.is_empty());
        let saw: Value = serde_json::from_str(history.notes[0].detail.get()).unwrap();
        assert_eq!(saw["saw"]["connection"]["partnersClientId"], PARTNERS_CLIENT);
    }
    assert_eq!(world.oes().counts().puts, 0);
    world.assert_promises().await;
    daemon.stop().await;
}

#[tokio::test]
async fn with_a_wrong_key_jobs_are_taken_in_and_nothing_is_decided_until_the_key_is_right() {
    let mut world = World::new().await;
    let right = "0258e846f8cd4346fb075f83af347d06b7d16a56cc6a6a538d87e8a9e3c5118616";
    world.set("signer.expected_public_key", &right.replace("0258", "0358"));
    let mut config = world.config();
    config.http.listen.set_port(0);
    let daemon = crate::support::daemon::Daemon::start(config).await;
    let record = world.submit(JobType::Allocation, "5").await;
    world.wait_for_state(&record, "received").await;
    let (status, body) = daemon.get("/readyz").await;
    assert!(status == 503 && body.contains("signer.expected_public_key"), "{body}");
    assert_eq!(daemon.get("/healthz").await.0, 200);
    assert_eq!(daemon.count("settled_sender_stopped{cause=\"signer\"}").await, 1);
    daemon.stop().await;
    assert_eq!(world.oes().counts().puts, 0);

    world.set("signer.expected_public_key", right);
    let daemon = world.daemon().await;
    world.wait_for_state(&record, "confirmed").await;
    world.assert_promises().await;
    daemon.stop().await;
}
