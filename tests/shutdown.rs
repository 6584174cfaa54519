//! An end in good order, an end at once, and a second daemon.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use settled::{
    domain::job::JobType,
    sandbox::{Effect, Fault, On, When},
};

use crate::support::{eventually, world::World};

#[tokio::test]
async fn a_signal_lets_what_is_in_flight_finish_and_exits_with_zero() {
    for signal in [Signal::TERM, Signal::INT] {
        let world = World::new().await;
        let mut process = world.process().await;
        let record = world.reserve(JobType::Allocation, "5");
        let slow = Effect::Delay { when: When::After, delay_ms: 1_500 };
        world.inject(Fault::new(On::Update, slow));
        world.publish([world.job(&record)]).await;
        eventually("the update to be under way", || async {
            (!world.puts_of(&record).is_empty()).then_some(())
        })
        .await;
        process.signal(signal);
        let status = process.child.wait().await.unwrap();
        assert!(status.success(), "{status}");
        // The answer was waited for, and what it means is committed and announced.
        let history = world.history(record.id).await.unwrap();
        assert_eq!(history.job.state.to_string(), "confirmed");
        assert!(history.announcement.is_some());
        world.assert_promises().await;
    }
}

#[tokio::test]
async fn what_does_not_finish_in_the_grace_is_left_to_the_next_start() {
    let world =
        World::with(&[("shutdown.grace_s", "2"), ("oes.request_timeout_ms", "60000")]).await;
    let mut process = world.process().await;
    let record = world.reserve(JobType::Allocation, "5");
    let slow = Effect::Delay { when: When::After, delay_ms: 30_000 };
    world.inject(Fault::new(On::Update, slow));
    world.publish([world.job(&record)]).await;
    eventually("the update to be under way", || async {
        (!world.puts_of(&record).is_empty()).then_some(())
    })
    .await;
    let begun = Instant::now();
    process.signal(Signal::TERM);
    let status = process.child.wait().await.unwrap();
    assert!(status.success(), "{status}");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());

    let process = world.process().await;
    let history = world.wait_for_state(&record, "confirmed").await;
    assert_eq!(history.attempts.len(), 1);
    assert_eq!(history.attempts[0].result.as_deref(), Some("restarted"));
    assert_eq!(world.puts_of(&record).len(), 1);
    world.assert_promises().await;
    process.kill().await;
}

#[tokio::test]
async fn a_second_signal_leaves_at_once() {
    let world = World::with(&[("oes.request_timeout_ms", "60000")]).await;
    let mut process = world.process().await;
    let record = world.reserve(JobType::Allocation, "5");
    let slow = Effect::Delay { when: When::After, delay_ms: 30_000 };
    world.inject(Fault::new(On::Update, slow));
    world.publish([world.job(&record)]).await;
    eventually("the update to be under way", || async {
        (!world.puts_of(&record).is_empty()).then_some(())
    })
    .await;
    process.signal(Signal::TERM);
    // The first one has been heard when intake has ended.
    eventually("intake to end", || async {
        let readiness = process.readiness().await;
        let consumer =
            readiness["parts"].as_array()?.iter().find(|part| part["name"] == "consumer")?;
        (consumer["ready"] == false).then_some(())
    })
    .await;
    let begun = Instant::now();
    process.signal(Signal::TERM);
    let status = process.child.wait().await.unwrap();
    assert!(!status.success());
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    let process = world.process().await;
    world.wait_for_state(&record, "confirmed").await;
    world.assert_promises().await;
    process.kill().await;
}

#[tokio::test]
async fn a_second_daemon_on_the_same_book_is_refused_and_told_who_has_it() {
    let world = World::new().await;
    let first = world.process().await;
    let (success, _, error) = world.run(&["run"]).await;
    assert!(!success);
    let id = first.child.id().unwrap();
    assert!(error.contains(&format!("settled run (process {id})")), "{error}");
    first.kill().await;
    // The lock went with the process, however it ended.
    let next = world.process().await;
    next.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_in_good_order_waits_for_the_writer_whichever_part_ends_first() {
    let world = World::new().await;
    // Which part notices first that it is asked to end is chance.
    for round in 1..=12 {
        let daemon = world.daemon().await;
        daemon.stop().await;
        assert!(!world.path("book.db-wal").exists(), "round {round}: the book was not closed");
    }
}
