//! A backup is made while the daemon works, is whole when it has its name, and can be gone on from.

use std::process::Stdio;

use settled::domain::job::JobType;

use crate::support::{
    daemon::{binary, text},
    eventually,
    world::{World, copy_book},
};

#[tokio::test]
async fn a_backup_that_is_made_under_load_is_whole_and_can_be_gone_on_from() {
    let mut world = World::new().await;
    let mark = world.path("mark").to_str().unwrap().to_owned();
    world.set("store.mark_path", &mark);
    let archive = world.path("archive.db").to_str().unwrap().to_owned();
    world.set("archive.path", &archive);
    world.set("archive.after_days", "0");
    let daemon = world.daemon().await;
    let early = world.submit(JobType::Allocation, "5").await;
    world.wait_for_state(&early, "confirmed").await;
    let readers = world.readers().await;
    eventually("the first outcome to be announced", || async {
        (readers.unpublished_count().await.unwrap() == 0).then_some(())
    })
    .await;
    readers.close().await;
    world.must_run(&["archive"]).await;
    eventually("the first job to be archived", || async {
        (daemon.count("settled_archived_jobs_total").await == 1).then_some(())
    })
    .await;

    let records: Vec<_> = (0..200).map(|_| world.reserve(JobType::Allocation, "5")).collect();
    let backup = world.path("backup.db");
    let name = backup.to_str().unwrap();
    let load = world.publish(records.iter().map(|record| world.job(record)));
    let arguments = ["backup", name];
    let ((), told) = tokio::join!(load, world.must_run(&arguments));
    assert!(told.contains("has the book as of seal") && told.contains("verified"), "{told}");
    assert!(!world.path("backup.db.partial").exists());
    world.must_run(&["verify", "--book", name]).await;
    // With its archives, in a folder of its own, it is whole without what is here.
    let folder = world.path("elsewhere");
    std::fs::create_dir(&folder).unwrap();
    let elsewhere = folder.join("copy.db");
    let told = world.must_run(&["backup", "--archives", elsewhere.to_str().unwrap()]).await;
    assert!(told.contains("1 archives stand beside it"), "{told}");
    let (archive, away) = (world.path("archive.db"), world.path("away.db"));
    std::fs::rename(&archive, &away).unwrap();
    world.must_run(&["verify", "--book", elsewhere.to_str().unwrap()]).await;
    let partial = world.path("none.db");
    let (success, _, error) = world.run(&["backup", partial.to_str().unwrap()]).await;
    assert!(!success && error.contains("archive.db") && error.contains("bring"), "{error}");
    assert!(!partial.exists() && !world.path("none.db.partial").exists());
    std::fs::rename(&away, &archive).unwrap();
    let (again, _, error) = world.run(&["backup", name]).await;
    assert!(!again && error.contains("nothing is replaced"), "{error}");
    let quick = world.path("quick.db");
    let told = world.must_run(&["backup", "--quick", quick.to_str().unwrap()]).await;
    assert!(told.contains("checked in part"), "{told}");

    world.wait_for_final(201).await;
    // Something is signed after the backup for sure.
    let late = world.submit(JobType::Allocation, "5").await;
    world.wait_for_state(&late, "confirmed").await;
    daemon.stop().await;

    // Restored as README.md says: the file in place, nothing of the old one beside it.
    copy_book(&backup, &world.path("book.db"));
    let mut config = world.config();
    config.http.listen.set_port(0);
    let daemon = crate::support::daemon::Daemon::start(config).await;
    let (status, body) = daemon.get("/readyz").await;
    assert!(status == 503 && body.contains("restored from a backup"), "{body}");
    let (success, _, error) = world.run(&["archive"]).await;
    assert!(!success && error.contains("archives nothing"), "{error}");
    daemon.stop().await;
    let (success, _, error) = world.run(&["archive"]).await;
    assert!(!success && error.contains("nothing is archived"), "{error}");
    world.must_run(&["book", "accept-restore", "--reason", "compared"]).await;
    world.must_run(&["verify"]).await;
    let daemon = world.daemon().await;
    let shown = world.must_run(&["jobs", "show", &early.id.to_string()]).await;
    assert!(shown.contains("confirmed"), "{shown}");
    daemon.stop().await;
    world.must_run(&["verify"]).await;
}

#[tokio::test]
async fn a_backup_that_cannot_be_written_leaves_nothing_that_looks_like_one() {
    let world = World::new().await;
    let daemon = world.daemon().await;
    let record = world.submit(JobType::Allocation, "5").await;
    world.wait_for_state(&record, "confirmed").await;
    let backup = world.path("backup.db");
    // No file may be longer than so many blocks: the disk is full for the backup.
    let settled = binary(&world.config_file());
    let settled = settled.as_std();
    let mut command = tokio::process::Command::new("bash");
    command
        .args(["-c", "trap '' XFSZ; ulimit -f 16; exec \"$@\"", "bash"])
        .arg(settled.get_program())
        .args(settled.get_args())
        .arg("backup")
        .arg(&backup)
        .stdin(Stdio::null());
    let output = command.output().await.unwrap();
    let error = text(&output.stderr);
    assert!(!output.status.success() && error.contains("no backup was made"), "{error}");
    assert!(!backup.exists() && !world.path("backup.db.partial").exists(), "{error}");
    assert!(!world.path("backup.db.partial-journal").exists(), "{error}");

    // A folder that is not there, and a partial that somebody left.
    let nowhere = world.path("nowhere/backup.db");
    let (success, _, error) = world.run(&["backup", nowhere.to_str().unwrap()]).await;
    assert!(!success && error.contains("no backup was made"), "{error}");
    std::fs::write(world.path("backup.db.partial"), "half").unwrap();
    let (success, _, error) = world.run(&["backup", backup.to_str().unwrap()]).await;
    assert!(!success && error.contains("backup.db.partial is there already"), "{error}");
    assert!(!backup.exists());
    std::fs::remove_file(world.path("backup.db.partial")).unwrap();
    world.must_run(&["backup", backup.to_str().unwrap()]).await;
    daemon.stop().await;
    world.must_run(&["verify", "--book", backup.to_str().unwrap()]).await;
}
