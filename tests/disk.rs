//! The disk may fail, and the power may: the daemon stops rather than go on, nothing is half done, and
//! what was promised to the broker or to OES before a loss of power is on the disk after it.

use std::{
    process::ExitStatus,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use settled::{domain::job::JobType, sandbox::Record};

use crate::support::{
    daemon::Process,
    eventually,
    power::{Losses, lose},
    recording::{Failing, Recorder},
    wire::acknowledged,
    world::World,
};

/// Longest end of a daemon whose disk has failed.
const END_MAX: Duration = Duration::from_secs(15);

/// Losses of power at moments of chance, besides those at every promise.
const SAMPLES: usize = 80;

fn reserve(world: &World, count: usize) -> Vec<Record> {
    (0..count)
        .map(|number| {
            let job_type =
                if number % 3 == 2 { JobType::Deallocation } else { JobType::Allocation };
            world.reserve(job_type, &(1 + number % 7).to_string())
        })
        .collect()
}

async fn publish(world: &World, records: &[Record]) {
    world.publish(records.iter().map(|record| world.job(record))).await;
}

async fn ended(mut process: Process) -> ExitStatus {
    tokio::time::timeout(END_MAX, process.child.wait())
        .await
        .expect("the daemon ends in bounded time")
        .unwrap()
}

async fn losses(recorder: &Recorder<'_>, seed: u64) -> Losses {
    let (events, folder) = (recorder.events(), tempfile::tempdir().unwrap());
    let begun = Instant::now();
    let losses = lose(recorder.before.clone(), &events, folder.path(), SAMPLES, seed).await;
    let (images, took) = (losses.images, begun.elapsed());
    println!("{images} losses of power over {} events in {took:?}", events.len());
    losses
}

#[tokio::test]
async fn what_was_acknowledged_or_sent_survives_a_loss_of_power() {
    const JOBS: usize = 60;
    let world = World::new().await;
    let recorder = Recorder::new(&world);
    let records = reserve(&world, JOBS);
    // They are there before the daemon is, so that many share a commit.
    publish(&world, &records).await;
    let process = recorder.start(None).await;
    world.wait_for_final(JOBS as u64).await;
    process.signal(Signal::TERM);
    assert!(ended(process).await.success(), "{}", recorder.said());

    let losses = losses(&recorder, 1).await;
    losses.assert_none();
    assert_eq!((losses.acknowledged, losses.sent), (JOBS, JOBS));
    assert!(losses.acknowledgements < JOBS, "no commit was shared");
    assert!(losses.images > SAMPLES / 4, "{}", losses.images);
    world.assert_promises().await;
}

#[tokio::test]
async fn the_test_of_power_losses_finds_what_a_disk_that_does_not_sync_would_lose() {
    const JOBS: usize = 10;
    let world = World::new().await;
    let recorder = Recorder::new(&world);
    let records = reserve(&world, JOBS);
    let lies = Failing { fault: "sync-lies", file: "wal", skip: 0 };
    let process = recorder.start(Some(lies)).await;
    publish(&world, &records).await;
    world.wait_for_final(JOBS as u64).await;
    process.signal(Signal::TERM);
    assert!(ended(process).await.success(), "{}", recorder.said());

    let losses = losses(&recorder, 2).await;
    assert!(!losses.jobs_missing.is_empty(), "{losses:?}");
    assert!(!losses.attempts_missing.is_empty(), "{losses:?}");
}

/// A disk that fails under load, the end that it brings, and the next start on a disk that works again.
async fn fails_and_starts_again(failing: Failing, expected: &[&str]) {
    const JOBS: usize = 16;
    let world = World::new().await;
    let recorder = Recorder::new(&world);
    let mut records = reserve(&world, JOBS);
    let mut process = recorder.start(Some(failing)).await;
    publish(&world, &records).await;
    world.wait_for_final(records.len() as u64).await;
    recorder.pull_the_trigger();
    let failed = Instant::now();
    let status = loop {
        let more = reserve(&world, JOBS);
        publish(&world, &more).await;
        records.extend(more);
        // Some calls are made now and then only: jobs follow jobs until the daemon has met one.
        tokio::select! {
            biased;
            status = process.child.wait() => break status.unwrap(),
            () = settled_or_failed(&world, &recorder, records.len()) => {}
        }
        if recorder.has_failed() {
            break ended(process).await;
        }
    };
    println!("ended after {:?}", failed.elapsed());
    let said = recorder.said();
    assert!(!status.success(), "{status}: {said}");
    let last = said.lines().last().unwrap_or_default();
    for part in expected {
        assert!(last.contains(part), "{part:?} is not in {last:?}");
    }

    let process = recorder.start(None).await;
    world.wait_for_final(records.len() as u64).await;
    // Jobs may be final before their messages have come again.
    eventually("every message to be acknowledged", || async {
        (acknowledged(&recorder.events()).len() == records.len()).then_some(())
    })
    .await;
    process.signal(Signal::TERM);
    assert!(ended(process).await.success(), "{}", recorder.said());
    assert_sound(&world, &records).await;
    let losses = losses(&recorder, 3).await;
    losses.assert_none();
    assert!(losses.acknowledged >= records.len(), "{losses:?}");
}

/// Waits until so many jobs are final, or a call has failed and they will not be.
async fn settled_or_failed(world: &World, recorder: &Recorder<'_>, count: usize) {
    let readers = world.readers().await;
    eventually("the jobs to be final, or the disk to fail", || async {
        let counts = readers.job_counts().await.unwrap();
        let done: u64 =
            counts.iter().filter(|line| line.state == "confirmed").map(|line| line.jobs).sum();
        (done == count as u64 || recorder.has_failed()).then_some(())
    })
    .await;
    readers.close().await;
}

/// The book is whole, by SQLite's rules and by ours, and every record ended once.
async fn assert_sound(world: &World, records: &[Record]) {
    world.assert_promises().await;
    world.must_run(&["book", "verify"]).await;
    for record in records {
        let history = world.history(record.id).await.unwrap();
        assert_eq!(history.job.state.to_string(), "confirmed");
        let accepted = world.puts_of(record).iter().filter(|put| put.answered == Some(200)).count();
        assert_eq!(accepted, 1, "{record:?}");
    }
}

#[tokio::test]
async fn a_full_disk_ends_the_daemon_and_nothing_is_half_done() {
    let failing = Failing { fault: "write-enospc", file: "wal", skip: 0 };
    fails_and_starts_again(failing, &["the disk is full", "make room"]).await;
}

#[tokio::test]
async fn a_disk_that_fills_up_within_a_commit_ends_the_daemon_and_nothing_is_half_done() {
    let failing = Failing { fault: "write-short", file: "wal", skip: 5 };
    fails_and_starts_again(failing, &["the disk is full", "make room"]).await;
}

#[tokio::test]
async fn a_failed_write_ends_the_daemon_and_nothing_is_half_done() {
    let failing = Failing { fault: "write-eio", file: "wal", skip: 3 };
    fails_and_starts_again(failing, &["writing to the disk failed", "check the disk"]).await;
}

#[tokio::test]
async fn a_failed_sync_ends_the_daemon_and_what_it_lost_is_not_built_upon() {
    let failing = Failing { fault: "sync-eio", file: "wal", skip: 1 };
    fails_and_starts_again(failing, &["syncing to the disk failed", "check the disk"]).await;
}

#[tokio::test]
async fn a_sync_that_failed_is_not_tried_again_as_if_it_could_succeed() {
    let failing = Failing { fault: "sync-eio-once", file: "wal", skip: 1 };
    fails_and_starts_again(failing, &["syncing to the disk failed", "check the disk"]).await;
}

#[tokio::test]
async fn a_failed_sync_of_the_database_itself_ends_the_daemon_too() {
    let failing = Failing { fault: "sync-eio", file: "book", skip: 0 };
    fails_and_starts_again(failing, &["syncing to the disk failed", "check the disk"]).await;
}

#[tokio::test]
async fn a_disk_that_is_full_at_the_start_is_told_as_such() {
    let world = World::new().await;
    let recorder = Recorder::new(&world);
    let failing = Failing { fault: "write-enospc", file: "wal", skip: 0 };
    recorder.pull_the_trigger();
    let mut process = recorder.command(Some(failing)).spawn().unwrap();
    let status = tokio::time::timeout(END_MAX, process.wait()).await.unwrap().unwrap();
    let said = recorder.said();
    assert!(!status.success(), "{status}: {said}");
    let last = said.lines().last().unwrap_or_default();
    assert!(last.contains("the disk is full") && last.contains("make room"), "{last}");
}
