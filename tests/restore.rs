//! A database that was restored from a backup is recognised by its mark, decides nothing until it is
//! accepted, and never decides again about what OES has had since before that.

use std::{process::Stdio, time::Duration};

use serde_json::Value;
use settled::{domain::job::JobType, sandbox::Record, store::Mark};

use crate::support::{
    daemon::{Daemon, Process, binary},
    eventually,
    world::{World, copy_book},
};

/// More than OES's clock and ours may be apart.
pub(crate) const LATER: Duration = Duration::from_secs(120);

async fn marked_world() -> World {
    let mut world = World::new().await;
    let mark = world.path("mark").to_str().unwrap().to_owned();
    world.set("store.mark_path", &mark);
    world
}

/// A daemon that is not ready, and says why.
pub(crate) async fn read_only(world: &World, why: &str) -> Daemon {
    let mut config = world.config();
    config.http.listen.set_port(0);
    let daemon = Daemon::start(config).await;
    let (status, body) = daemon.get("/readyz").await;
    assert!(status == 503 && body.contains(why), "{body}");
    let (success, said, _) = world.run(&["doctor"]).await;
    assert!(!success && said.contains(why) && said.contains("accept-restore"), "{said}");
    daemon
}

pub(crate) async fn accept(world: &World) -> String {
    world.must_run(&["book", "accept-restore", "--reason", "balances were compared"]).await
}

async fn confirmed(world: &World, job_type: JobType) -> Record {
    let record = world.submit(job_type, "5").await;
    world.wait_for_state(&record, "confirmed").await;
    record
}

#[tokio::test]
async fn a_restored_book_never_decides_again_what_it_has_forgotten() {
    let world = marked_world().await;
    let daemon = world.daemon().await;
    confirmed(&world, JobType::Allocation).await;
    daemon.stop().await;
    copy_book(&world.path("book.db"), &world.path("backup.db"));
    let daemon = world.daemon().await;
    let forgotten = confirmed(&world, JobType::Deallocation).await;
    let forgotten_too = confirmed(&world, JobType::Deallocation).await;
    daemon.stop().await;
    let puts = world.oes().counts().puts;

    // By now the policy would release them.
    copy_book(&world.path("backup.db"), &world.path("book.db"));
    world.import(&[world.adjustment("gone", "-1000005")]).await;
    let daemon = read_only(&world, "restored from a backup").await;
    world.publish([world.job(&forgotten)]).await;
    world.wait_for_state(&forgotten, "received").await;
    daemon.stop().await;

    let said = accept(&world).await;
    assert!(said.contains("1 undecided jobs are parked"), "{said}");
    world.wait_for_state(&forgotten, "parked(predates_restore)").await;
    let daemon = world.daemon().await;
    world.publish([world.job(&forgotten), world.job(&forgotten_too)]).await;
    world.wait_for_state(&forgotten_too, "parked(predates_restore)").await;
    let retried = forgotten_too.id.to_string();
    world.must_run(&["jobs", "retry", &retried, "--reason", "let us see"]).await;
    world.wait_for_state(&forgotten_too, "parked(predates_restore)").await;
    assert_eq!(world.oes().counts().puts, puts, "nothing was signed about them again");

    // What OES has only had since then is decided as ever.
    world.oes_clock.go_on(LATER);
    let young = world.reserve(JobType::Allocation, "7");
    world.publish([world.job(&young)]).await;
    let history = world.wait_for_state(&young, "confirmed").await;
    assert_eq!(history.attempts.len(), 1);
    world.assert_promises().await;
    daemon.stop().await;
    // Accepted once, it fits its mark, and goes on to.
    let daemon = world.daemon().await;
    confirmed(&world, JobType::Allocation).await;
    daemon.stop().await;
    let (success, _, error) = world.run(&["book", "accept-restore", "--reason", "once more"]).await;
    assert!(!success && error.contains("there is nothing to accept"), "{error}");
}

#[tokio::test]
async fn a_new_book_where_a_mark_exists_decides_nothing_until_it_is_accepted() {
    let world = marked_world().await;
    let daemon = world.daemon().await;
    confirmed(&world, JobType::Allocation).await;
    daemon.stop().await;
    for suffix in ["", "-wal", "-shm"] {
        let _gone = std::fs::remove_file(world.path(&format!("book.db{suffix}")));
    }
    world.import(&world.book_lines()).await;
    let daemon = read_only(&world, "the mark belongs to another book").await;
    let (success, _, error) = world.run(&["book", "accept-restore", "--reason", "now"]).await;
    assert!(!success && error.contains("the daemon must be stopped"), "{error}");
    daemon.stop().await;
    accept(&world).await;
    let daemon = world.daemon().await;
    world.oes_clock.go_on(LATER);
    let record = confirmed(&world, JobType::Allocation).await;
    let history = world.history(record.id).await.unwrap();
    assert!(history.attempts.len() == 1 && history.job.verified_at.is_some());
    let shown = world.must_run(&["jobs", "show", &record.id.to_string(), "--json"]).await;
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["state"], "confirmed");
    world.assert_promises().await;
    daemon.stop().await;
}

#[tokio::test]
async fn every_attempt_is_marked() {
    let world = marked_world().await;
    let daemon = world.daemon().await;
    for expected in 1..=3 {
        confirmed(&world, JobType::Allocation).await;
        let mark = Mark::open(&world.path("mark")).unwrap();
        assert_eq!(mark.marked().unwrap().attempt, expected);
    }
    daemon.stop().await;
}

#[tokio::test]
async fn nothing_is_sent_while_its_mark_is_not_on_the_disk() {
    let world = marked_world().await;
    // A mark that there is not yet is written with the first commit, whatever that holds.
    let daemon = world.daemon().await;
    confirmed(&world, JobType::Allocation).await;
    daemon.stop().await;
    let mut command = binary(&world.config_file());
    command.arg("run").stdout(Stdio::null()).stderr(Stdio::null()).env("SETTLED_STALL_AT", "mark");
    let process = Process::start_command(command, world.setting("http.listen")).await;
    let record = world.submit(JobType::Allocation, "5").await;
    // The attempt is committed, and for as long as it takes to notice it waits for its mark.
    world.wait_for_state(&record, "sending").await;
    eventually("the writer to be told of as stuck", || async {
        process.readiness().await.to_string().contains("at one batch for").then_some(())
    })
    .await;
    assert!(world.puts_of(&record).is_empty(), "it was sent without its mark");
    process.kill().await;

    let daemon = world.daemon().await;
    world.wait_for_state(&record, "confirmed").await;
    daemon.stop().await;
    world.assert_promises().await;
}
