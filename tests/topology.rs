//! What the broker has is declared with full arguments, and never changed.

use lapin::{options::QueueDeclareOptions, types::FieldTable};
use settled::domain::job::JobType;

use crate::support::{eventually, node::private_node, world::World};

#[tokio::test]
async fn declaring_again_changes_nothing_and_says_what_there_is() {
    let world = World::new().await;
    let first = world.must_run(&["topology"]).await;
    let second = world.must_run(&["topology"]).await;
    assert_eq!(first, second);
    for part in [
        "x-queue-type=quorum",
        "x-dead-letter-strategy=at-least-once",
        "x-overflow=reject-publish",
        "x-delivery-limit=2147483647",
    ] {
        assert!(first.contains(part), "{part} is missing in\n{first}");
    }
}

/// A queue of another kind under our name.
async fn spoil(world: &World) {
    let channel = world.exchange.channel().await;
    let options = lapin::options::QueueDeleteOptions::default();
    channel.queue_delete(world.jobs_queue.as_str().into(), options).await.unwrap();
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    let name = world.jobs_queue.as_str().into();
    channel.queue_declare(name, durable, FieldTable::default()).await.unwrap();
}

#[tokio::test]
async fn a_queue_with_other_settings_stops_the_start_and_is_named_with_both_sides() {
    let world = World::new().await;
    spoil(&world).await;
    for command in [&["topology"][..], &["run"]] {
        let (success, _, error) = world.run(command).await;
        assert!(!success, "{command:?}");
        for part in [
            &format!("queue {}", world.jobs_queue),
            "settled declares: a durable queue with x-queue-type=quorum",
            "the broker says:",
            "inequivalent arg",
        ] {
            assert!(error.contains(part), "{part} is missing in\n{error}");
        }
    }
}

#[tokio::test]
async fn without_declare_the_daemon_consumes_once_the_queue_is_there() {
    let mut world = World::new().await;
    world.set("broker.declare", "false");
    let channel = world.exchange.channel().await;
    let options = lapin::options::QueueDeleteOptions::default();
    channel.queue_delete(world.jobs_queue.as_str().into(), options).await.unwrap();
    let mut config = world.config();
    config.http.listen.set_port(0);
    let daemon = crate::support::daemon::Daemon::start(config).await;
    eventually("the publisher to be connected", || async {
        (daemon.count("settled_broker_connected{kind=\"publisher\"}").await == 1).then_some(())
    })
    .await;
    assert_eq!(daemon.count("settled_broker_connected{kind=\"consumer\"}").await, 0);
    let (_, _, doctor) = world.run(&["doctor"]).await;
    assert!(doctor.contains("need attention"), "{doctor}");
    world.must_run(&["topology"]).await;
    daemon.wait_until_ready().await;
    let record = world.submit(JobType::Allocation, "5").await;
    world.wait_for_state(&record, "confirmed").await;
    daemon.stop().await;
}

#[tokio::test]
async fn a_message_that_comes_back_often_is_never_given_up() {
    let world = World::new().await;
    let record = world.submit(JobType::Allocation, "5").await;
    // More often than RabbitMQ 4 allows by default.
    for _ in 0..25 {
        let channel = world.exchange.channel().await;
        let options = lapin::options::BasicGetOptions::default();
        let got = eventually("the message to be back", || async {
            channel.basic_get(world.jobs_queue.as_str().into(), options).await.unwrap()
        })
        .await;
        let requeue = lapin::options::BasicNackOptions { requeue: true, ..Default::default() };
        got.nack(requeue).await.unwrap();
        channel.close(200, "OK".into()).await.unwrap();
    }
    let daemon = world.daemon().await;
    world.wait_for_state(&record, "confirmed").await;
    daemon.stop().await;
}

#[tokio::test]
async fn what_publishes_agrees_to_small_frames_and_what_consumes_leaves_them_to_the_broker() {
    let node = private_node().await;
    let world = World::on(&node.url, &[]).await;
    let daemon = world.daemon().await;
    let connections = async || {
        let columns = ["client_properties", "frame_max"];
        let list = ["-q", "--no-table-headers", "list_connections"];
        node.ctl(&[&list[..], &columns].concat()).await
    };
    for (purpose, frame_bytes_max) in [("publisher", "16384"), ("consumer", "131072")] {
        let name = format!("settled {purpose} (");
        eventually(&format!("{purpose} with {frame_bytes_max} bytes"), async || {
            let listed = connections().await;
            let ours = listed.lines().find(|line| line.contains(&name))?;
            ours.ends_with(&format!("\t{frame_bytes_max}")).then_some(())
        })
        .await;
    }
    daemon.stop().await;
}
