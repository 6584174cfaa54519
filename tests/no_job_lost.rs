//! No job is lost: a message is acknowledged only after its row is committed, and what was open when
//! the daemon ended is found by the next one.

use std::{collections::BTreeSet, time::Duration};

use settled::{
    domain::job::JobType,
    sandbox::{Effect, Fault, On, Times, When},
};
use sqlx::{Connection as _, Executor as _, SqliteConnection};

use crate::support::{eventually, world::World};

/// Another process that holds the write lock of the database.
pub(crate) async fn lock(world: &World) -> SqliteConnection {
    let url = format!("sqlite:{}", world.path("book.db").display());
    let mut other = SqliteConnection::connect(&url).await.unwrap();
    other.execute("BEGIN IMMEDIATE").await.unwrap();
    other
}

pub(crate) async fn unlock(mut other: SqliteConnection) {
    other.execute("ROLLBACK").await.unwrap();
    other.close().await.unwrap();
}

#[tokio::test]
async fn nothing_is_acknowledged_while_nothing_can_be_committed() {
    // At first one message may be unacknowledged, after a commit many.
    for has_committed in [false, true] {
        let world = World::new().await;
        let process = world.process().await;
        if has_committed {
            let first = world.submit(JobType::Allocation, "5").await;
            world.wait_for_state(&first, "confirmed").await;
        }
        let other = lock(&world).await;
        let record = world.submit(JobType::Allocation, "5").await;
        world.exchange.wait_until_taken(&world.jobs_queue).await;
        // Delivered, and not acknowledged: when the daemon is cut off now, the message comes back.
        process.kill().await;
        eventually("the message to be back in the queue", || async {
            (world.exchange.ready(&world.jobs_queue).await == 1).then_some(())
        })
        .await;
        assert!(world.history(record.id).await.is_none());
        unlock(other).await;

        let daemon = world.daemon().await;
        world.wait_for_state(&record, "confirmed").await;
        world.assert_promises().await;
        daemon.stop().await;
    }
}

#[tokio::test]
async fn a_lock_that_is_given_back_is_waited_for_and_seen_meanwhile() {
    let world = World::new().await;
    let daemon = world.daemon().await;
    let other = lock(&world).await;
    let record = world.submit(JobType::Allocation, "5").await;
    world.exchange.wait_until_taken(&world.jobs_queue).await;
    eventually("the daemon to say that its writer is stuck", || async {
        let (status, body) = daemon.get("/readyz").await;
        (status == 503 && body.contains("does another program hold the database")).then_some(())
    })
    .await;
    assert!(daemon.number("settled_writer_batch_age_seconds").await > 10.0);
    unlock(other).await;
    world.wait_for_state(&record, "confirmed").await;
    daemon.wait_until_ready().await;
    daemon.stop().await;
}

#[tokio::test]
async fn killed_again_and_again_under_load_it_still_ends_every_job_once() {
    const JOBS: usize = 400;
    let world = World::new().await;
    // Everything that OES can do to an answer happens now and then.
    for effect in [
        Effect::Reset { when: When::Before },
        Effect::Reset { when: When::After },
        Effect::Answer { when: When::Before, status: 500 },
        Effect::Answer { when: When::After, status: 503 },
        Effect::Delay { when: When::After, delay_ms: 30 },
    ] {
        world.inject(Fault::new(On::Update, effect).times(Times::PerMille(60)));
    }
    let records: Vec<_> = (0..JOBS)
        .map(|number| {
            let job_type =
                if number % 3 == 0 { JobType::Deallocation } else { JobType::Allocation };
            world.reserve(job_type, &(1 + number % 7).to_string())
        })
        .collect();
    let mut published = 0;
    for round in 0..6 {
        let process = world.process().await;
        let share = &records[JOBS * round / 6..JOBS * (round + 1) / 6];
        world.publish(share.iter().map(|record| world.job(record))).await;
        published += share.len();
        // Killed at a moment that depends on how far it has come.
        let readers = world.readers().await;
        eventually("some progress", || async {
            let counts = readers.job_counts().await.unwrap();
            let taken: u64 = counts.iter().map(|line| line.jobs).sum();
            (taken as usize >= published - share.len() / 2).then_some(())
        })
        .await;
        readers.close().await;
        process.kill().await;
    }
    let process = world.process().await;
    world.wait_for_final(JOBS as u64).await;
    let heard = {
        let readers = world.readers().await;
        eventually("the outbox to be empty", || async {
            (readers.unpublished_count().await.unwrap() == 0).then_some(())
        })
        .await;
        readers.close().await;
        let waiting = world.exchange.ready(&world.outcomes).await as usize;
        assert!(waiting >= JOBS);
        world.hear_outcomes(waiting).await
    };
    let announced: BTreeSet<String> =
        heard.iter().map(|heard| heard.json()["recordId"].as_str().unwrap().to_owned()).collect();
    let expected: BTreeSet<String> = records.iter().map(|record| record.id.to_string()).collect();
    assert_eq!(announced, expected);
    let ids: BTreeSet<_> = heard.iter().map(|heard| &heard.message_id).collect();
    assert_eq!(ids.len(), JOBS, "one event id for each record");
    world.assert_promises().await;
    assert_eq!(world.exchange.ready(&world.jobs_queue).await, 0);
    process.signal(rustix::process::Signal::TERM);
    let mut process = process;
    let status = tokio::time::timeout(Duration::from_secs(20), process.child.wait()).await;
    assert!(status.unwrap().unwrap().success());
}
