//! The process may die anywhere: the real binary is aborted at each place in turn, started again, and
//! the world is looked at. Nothing is lost, nothing is decided or paid twice, no nonce goes out again.

use std::{collections::BTreeMap, os::unix::process::ExitStatusExt as _, process::Stdio};

use settled::{
    crash::{FEED_POINTS, POINTS},
    domain::{decision::Outcome, job::JobType},
    sandbox::{Effect, Fault, On, When},
};

use crate::support::{
    daemon::binary,
    eventually,
    feed::fed_world,
    world::{AVAILABLE, World},
};

/// Signal number of an abort.
const SIGABRT: i32 = 6;

/// Worlds that are played at a time.
const AT_A_TIME: usize = 4;

/// Three records and whatever else brings the process past every place: an answer that is lost after
/// the update was applied, one that is an error, a repetition, and a bad message.
async fn play(world: &World, crash_at: &str) {
    let plain = world.reserve(JobType::Allocation, "5");
    let lost = world.reserve(JobType::Deallocation, "7");
    let failed = world.reserve(JobType::Allocation, "11");
    let reset = Effect::Reset { when: When::After };
    world.inject(Fault::new(On::Update, reset).of_record(lost.id));
    let error = Effect::Answer { when: When::Before, status: 500 };
    world.inject(Fault::new(On::Update, error).of_record(failed.id));
    world
        .publish([
            world.job(&plain),
            b"no job".to_vec(),
            world.job(&lost),
            world.job(&plain),
            world.job(&failed),
        ])
        .await;

    let mut command = binary(&world.config_file());
    command.arg("run").env("SETTLED_CRASH_AT", crash_at);
    let mut crashed = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let ended = tokio::time::timeout(crate::support::PATIENCE, crashed.wait()).await;
    let status = ended.unwrap_or_else(|_| panic!("{crash_at} was never passed")).unwrap();
    assert_eq!(status.signal(), Some(SIGABRT), "{crash_at}: {status}");

    let process = world.process().await;
    world.wait_for_final(3).await;
    let readers = world.readers().await;
    eventually("everything to be announced", || async {
        (readers.unpublished_count().await.unwrap() == 0).then_some(())
    })
    .await;
    readers.close().await;
    // What was not acknowledged before the crash comes again, and is acknowledged before an end in good order.
    world.exchange.wait_until_taken(&world.jobs_queue).await;
    process.end().await;

    for record in [&plain, &lost, &failed] {
        assert!(world.is_final(record, Outcome::Cleared), "{crash_at}");
    }
    assert_eq!(world.exchange.ready(&world.jobs_queue).await, 0, "{crash_at}");
    assert_eq!(world.balances().await, ["1000009".to_owned(), "0".into(), "0".into()]);
    assert_heard(world, crash_at).await;
    world.assert_promises().await;
}

/// Each outcome and the dead letter came at least once, and always with one id.
async fn assert_heard(world: &World, crash_at: &str) {
    let mut ids: BTreeMap<String, String> = BTreeMap::new();
    let count = world.exchange.ready(&world.outcomes).await as usize;
    for heard in world.hear_outcomes(count).await {
        let record = heard.json()["recordId"].as_str().unwrap().to_owned();
        let known = ids.entry(record).or_insert_with(|| heard.message_id.clone());
        assert_eq!(*known, heard.message_id, "{crash_at}");
    }
    assert_eq!(ids.len(), 3, "{crash_at}");
    let dead = format!("{}.dead", world.jobs_queue);
    let count = world.exchange.ready(&dead).await as usize;
    let letters = world.exchange.hear(&dead, count).await;
    assert!(!letters.is_empty(), "{crash_at}: the bad message is lost");
    assert!(letters.iter().all(|letter| letter.message_id == letters[0].message_id));
}

#[tokio::test]
async fn the_process_may_die_at_every_place() {
    // Later times too, where a place is passed by every message.
    let again = ["before_commit:3", "before_ack:2", "before_send:2", "after_answer:3"];
    let places: Vec<&str> = POINTS.into_iter().chain(again).collect();
    for some in places.chunks(AT_A_TIME) {
        let played = some.iter().map(|place| async {
            let mut world = World::new().await;
            let mark = world.path("mark").to_str().unwrap().to_owned();
            world.set("store.mark_path", &mark);
            play(&world, place).await;
        });
        futures_util::future::join_all(played).await;
    }
}

/// Numbered events and a repetition, through a crash.
async fn play_feed(world: &World, crash_at: &str) {
    let events: Vec<_> = (1..=5).map(|number| world.numbered(number, "10")).collect();
    world.feed(&events).await;
    world.feed(&events[1..3]).await;
    let mut command = binary(&world.config_file());
    command.arg("run").env("SETTLED_CRASH_AT", crash_at);
    let mut crashed = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let ended = tokio::time::timeout(crate::support::PATIENCE, crashed.wait()).await;
    let status = ended.unwrap_or_else(|_| panic!("{crash_at} was never passed")).unwrap();
    assert_eq!(status.signal(), Some(SIGABRT), "{crash_at}: {status}");

    let process = world.process().await;
    world.wait_for_available(AVAILABLE + 50).await;
    world.exchange.wait_until_taken(world.setting("broker.book_queue")).await;
    process.kill().await;
    let feed = world.known_feed().await.unwrap();
    assert_eq!((feed.last_sequence, feed.missing.len()), (Some(5), 0), "{crash_at}");
    assert_eq!(world.balances().await[0], (AVAILABLE + 50).to_string(), "{crash_at}");
    world.assert_promises().await;
}

#[tokio::test]
async fn the_process_may_die_at_every_place_of_the_feed() {
    let again = ["before_commit:2", "after_commit_of_feed:2", "before_feed_ack:2"];
    let places: Vec<&str> = FEED_POINTS.into_iter().chain(again).collect();
    for some in places.chunks(AT_A_TIME) {
        let played = some.iter().map(|place| async {
            let world = fed_world(&[]).await;
            play_feed(&world, place).await;
        });
        futures_util::future::join_all(played).await;
    }
}
