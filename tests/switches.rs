//! What operators have switched off stands still, also over a restart, and everybody can see it.

use serde_json::{Value, json};
use settled::domain::{decision::Outcome, job::JobType};

use crate::support::{daemon::Daemon, eventually, world::World};

async fn set(world: &World, switch: &str, setting: &str) -> String {
    world.must_run(&["switch", switch, setting, "--reason", "a drill"]).await
}

async fn says_not_ready(daemon: &Daemon, what: &str) {
    let (status, text) = daemon.get("/readyz").await;
    assert_eq!(status, 503);
    assert!(text.contains(what), "{text}");
}

/// The batches of the writer so far: a loop that turns in vain would make more and more of them.
async fn batches(daemon: &Daemon) -> u64 {
    daemon.count("settled_writer_batch_commands_count").await
}

#[tokio::test]
async fn with_intake_off_jobs_stay_in_the_queue_and_come_when_it_is_on_again() {
    let world = World::new().await;
    let daemon = world.daemon().await;
    assert!(set(&world, "intake", "off").await.contains("no job is taken from the queue"));
    says_not_ready(&daemon, "no job is taken").await;
    assert_eq!(daemon.count("settled_switch_on{switch=\"intake\"}").await, 0);
    eventually("the consumer to be gone", || async {
        (daemon.count("settled_broker_connected{kind=\"consumer\"}").await == 0).then_some(())
    })
    .await;
    let records: Vec<_> = (0..20).map(|_| world.reserve(JobType::Allocation, "5")).collect();
    world.publish(records.iter().map(|record| world.job(record))).await;
    eventually("all messages to be in the queue", || async {
        (world.exchange.ready(&world.jobs_queue).await == 20).then_some(())
    })
    .await;
    assert!(set(&world, "intake", "off").await.contains("was off already"));
    assert!(set(&world, "intake", "on").await.contains("intake is on"));
    world.wait_for_final(20).await;
    daemon.wait_until_ready().await;
    world.assert_promises().await;
    daemon.stop().await;
}

#[tokio::test]
async fn with_signing_off_nothing_is_decided_and_a_restart_does_not_forget_it() {
    let world = World::new().await;
    let daemon = world.daemon().await;
    set(&world, "signing", "off").await;
    let record = world.submit(JobType::Allocation, "5").await;
    world.wait_for_state(&record, "received").await;
    daemon.stop().await;

    let config = {
        let mut config = world.config();
        config.http.listen.set_port(0);
        config
    };
    let daemon = Daemon::start(config).await;
    eventually("the daemon to consume", || async {
        (daemon.count("settled_broker_connected{kind=\"consumer\"}").await == 1).then_some(())
    })
    .await;
    says_not_ready(&daemon, "nothing is decided or signed").await;
    let later = world.submit(JobType::Allocation, "6").await;
    world.wait_for_state(&later, "received").await;
    let before = batches(&daemon).await;
    let (code, status, error) = world.run_code(&["status", "--json"]).await;
    assert_eq!(code, Some(1), "what is switched off needs attention: {error}");
    let status: Value = serde_json::from_str(&status).unwrap();
    let signing = &status["switches"][1];
    assert_eq!((&signing["switch"], &signing["on"]), (&json!("signing"), &json!(false)));
    assert_eq!(signing["reason"], "a drill");
    assert!(batches(&daemon).await < before + 5, "no loop turns in vain");
    assert!(world.oes().puts().is_empty());
    set(&world, "signing", "on").await;
    world.wait_for_final(2).await;
    let log = world.must_run(&["actions", "--kind", "switch"]).await;
    assert!(
        log.contains("switch off") && log.contains("switch on") && log.contains("uid "),
        "{log}"
    );
    world.assert_promises().await;
    daemon.stop().await;
}

#[tokio::test]
async fn with_sending_off_jobs_are_decided_and_held_but_nothing_leaves() {
    let world = World::new().await;
    // Without a daemon the switch is set in the book itself.
    set(&world, "sending", "off").await;
    let config = {
        let mut config = world.config();
        config.http.listen.set_port(0);
        config
    };
    let daemon = Daemon::start(config).await;
    let record = world.submit(JobType::Deallocation, "5").await;
    world.wait_for_state(&record, "decided").await;
    assert_eq!(world.balances().await, ["999995", "5", "0"].map(str::to_owned));
    says_not_ready(&daemon, "nothing is sent to OES").await;
    let before = batches(&daemon).await;
    let shown = world.must_run(&["switch"]).await;
    assert!(shown.contains("OFF") && shown.contains("a drill"), "{shown}");
    assert!(batches(&daemon).await < before + 5, "no loop turns in vain");
    assert!(world.oes().puts().is_empty(), "nothing was sent");
    set(&world, "sending", "on").await;
    world.wait_for_state(&record, "confirmed").await;
    assert!(world.is_final(&record, Outcome::Cleared));
    world.assert_promises().await;
    daemon.stop().await;
}
