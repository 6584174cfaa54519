//! History goes into an archive: the book forgets nothing that it must know, what went there is read and
//! proved with the book, and a crash at any moment loses nothing.

mod measured;

use std::{
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::Stdio,
};

use serde_json::Value;
use settled::{
    crash::ARCHIVE_POINTS,
    domain::job::JobType,
    operator::audit::{Audit, audit},
    sandbox::{Effect, Fault, On, Record, When},
    store::archive::open_history,
};
use sqlx::{AssertSqlSafe, Connection as _, SqliteConnection};

use crate::support::{
    daemon::binary,
    eventually,
    tamper::{another_value, columns, open_without_rules},
    world::{World, copy_book},
};

/// Signal number of an abort.
const SIGABRT: i32 = 6;

/// A world whose jobs are old enough at once.
async fn world() -> World {
    let mut world = World::new().await;
    let archive = world.path("archive.db").to_str().unwrap().to_owned();
    world.set("archive.path", &archive);
    world.set("archive.after_days", "0");
    world
}

/// Jobs with everything that moves: holds, closings, a repeated attempt, a note, announcements.
async fn settle_some(world: &World) -> Vec<Record> {
    let cleared = world.reserve(JobType::Deallocation, "7");
    let released = world.reserve(JobType::Deallocation, "9000000");
    let again = world.reserve(JobType::Allocation, "5");
    let error = Effect::Answer { when: When::Before, status: 500 };
    world.inject(Fault::new(On::Update, error).of_record(again.id));
    let records = vec![cleared, released, again];
    world.publish(records.iter().map(|record| world.job(record))).await;
    for record in &records {
        world.wait_for_state(record, "confirmed").await;
    }
    all_announced(world).await;
    records
}

async fn all_announced(world: &World) {
    let readers = world.readers().await;
    eventually("everything to be announced", || async {
        (readers.unpublished_count().await.unwrap() == 0).then_some(())
    })
    .await;
    readers.close().await;
}

/// Settles without archiving: the daemon is told nothing of an archive.
async fn settled_world() -> (World, Vec<Record>) {
    let world = world().await;
    let mut config = world.config();
    config.archive.path = None;
    config.http.listen.set_port(0);
    let daemon = crate::support::daemon::Daemon::start(config).await;
    daemon.wait_until_ready().await;
    let records = settle_some(&world).await;
    daemon.stop().await;
    (world, records)
}

async fn audited(book: &Path) -> Result<Audit, String> {
    let readers = open_history(book).await.map_err(|error| error.to_string())?;
    let audit = audit(&readers, None).await.map_err(|error| error.to_string());
    readers.close().await;
    audit
}

async fn sql(path: &Path, sql: &str) -> i64 {
    let url = format!("sqlite:{}", path.display());
    let mut connection = SqliteConnection::connect(&url).await.unwrap();
    let found =
        sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_one(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    found
}

async fn shown(world: &World, record: &Record) -> Value {
    let text = world.must_run(&["jobs", "show", &record.id.to_string(), "--json"]).await;
    serde_json::from_str(&text).unwrap()
}

#[tokio::test]
async fn what_went_into_the_archive_is_shown_proved_and_known_as_before() {
    let (world, records) = settled_world().await;
    let mut before = Vec::new();
    for record in &records {
        before.push(shown(&world, record).await);
    }
    let listed = world.must_run(&["jobs", "list", "--json"]).await;
    let told = world.must_run(&["archive"]).await;
    assert!(told.contains("the history of 3 jobs went into"), "{told}");
    let book = world.path("book.db");
    for table in ["messages", "attempts", "job_events", "outbox"] {
        assert_eq!(sql(&book, &format!("SELECT count(*) FROM {table}")).await, 0, "{table}");
    }
    let moved = "SELECT count(*) FROM transfers WHERE job_seq IS NOT NULL";
    assert_eq!(sql(&book, moved).await, 0);
    assert_eq!(sql(&book, "SELECT count(*) FROM transfers").await, 1, "a fed fact stays");
    for table in ["jobs", "decisions", "archived_jobs"] {
        assert_eq!(sql(&book, &format!("SELECT count(*) FROM {table}")).await, 3, "{table}");
    }
    let told = world.must_run(&["archive"]).await;
    assert!(told.contains("the history of 0 jobs"), "{told}");

    for (record, before) in records.iter().zip(&before) {
        assert_eq!(shown(&world, record).await, *before);
        world.must_run(&["jobs", "explain", &record.id.to_string()]).await;
        let file = world.path(&format!("{}.json", record.id));
        let file = file.to_str().unwrap();
        world.must_run(&["jobs", "evidence", &record.id.to_string(), "--out", file]).await;
        world.must_run(&["verify", "--evidence", file]).await;
    }
    assert_eq!(world.must_run(&["jobs", "list", "--json"]).await, listed);
    world.must_run(&["book", "verify"]).await;
    let told = world.must_run(&["verify"]).await;
    assert!(told.contains("1 files with the rows of 3 jobs"), "{told}");

    // A message that comes again is known; one that says something else is refused.
    let puts = world.oes().counts().puts;
    let mut other: Value = serde_json::from_slice(&world.job(&records[0])).unwrap();
    other["amount"]["quantity"] = "8".into();
    let daemon = world.daemon().await;
    world.publish([world.job(&records[0]), other.to_string().into_bytes()]).await;
    let readers = world.readers().await;
    eventually("the other message is in quarantine", || async {
        (readers.quarantined_count().await.unwrap() == 1).then_some(())
    })
    .await;
    readers.close().await;
    eventually("the messages are acknowledged", || async {
        (daemon.count("settled_messages_total{result=\"repeated\"}").await == 1).then_some(())
    })
    .await;
    assert_eq!(world.oes().counts().puts, puts, "nothing is said again");

    // The numbers of what went away are never given again.
    let next = world.submit(JobType::Allocation, "3").await;
    world.wait_for_state(&next, "confirmed").await;
    all_announced(&world).await;
    daemon.stop().await;
    world.must_run(&["archive"]).await;
    assert!(audited(&book).await.unwrap().holds());
    assert_eq!(sql(&book, "SELECT count(*) FROM archived_jobs").await, 4);
}

#[tokio::test]
async fn a_daemon_archives_by_itself_and_when_it_is_asked() {
    let world = world().await;
    let daemon = world.daemon().await;
    let records = settle_some(&world).await;
    let told = world.must_run(&["archive"]).await;
    assert!(told.contains("settled run") && told.contains("archives now"), "{told}");
    eventually("three jobs to be archived", || async {
        (daemon.count("settled_archived_jobs_total").await == 3).then_some(())
    })
    .await;
    // The message that is shown comes from the archive, while the daemon runs.
    assert_eq!(shown(&world, &records[0]).await["state"], "confirmed");
    world.must_run(&["verify"]).await;
    let later = world.submit(JobType::Allocation, "3").await;
    world.wait_for_state(&later, "confirmed").await;
    assert_eq!(shown(&world, &later).await["state"], "confirmed");
    daemon.stop().await;
    world.must_run(&["verify"]).await;
}

#[tokio::test]
async fn only_what_is_final_announced_and_old_goes() {
    let (mut world, _records) = settled_world().await;
    world.set("archive.after_days", "1");
    let told = world.must_run(&["archive"]).await;
    assert!(told.contains("the history of 0 jobs"), "{told}");
    assert!(!world.path("archive.db").exists(), "no file is made before it is needed");
    world.set("archive.after_days", "0");
    // An outcome that nobody has taken yet stays, and so does a job that is open.
    let book = world.path("book.db");
    let mut connection =
        SqliteConnection::connect(&format!("sqlite:{}", book.display())).await.unwrap();
    sqlx::raw_sql(
        "DROP TRIGGER outbox_published_once; DROP TRIGGER outbox_unchanged;
         UPDATE outbox SET published_at_ms = NULL WHERE job_seq = 2",
    )
    .execute(&mut connection)
    .await
    .unwrap();
    connection.close().await.unwrap();
    let open = world.reserve(JobType::Allocation, "4");
    world.publish([world.job(&open)]).await;
    let told = world.must_run(&["archive"]).await;
    assert!(told.contains("the history of 2 jobs"), "{told}");
    let kept = "SELECT group_concat(job_seq) = '2' FROM messages";
    assert_eq!(sql(&book, kept).await, 1);
}

#[tokio::test]
async fn a_crash_at_any_moment_of_archiving_loses_nothing_and_keeps_nothing_twice() {
    for place in ARCHIVE_POINTS {
        let (world, records) = settled_world().await;
        let before = shown(&world, &records[2]).await;
        let mut command = binary(&world.config_file());
        command.arg("archive").env("SETTLED_CRASH_AT", place);
        let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status().await.unwrap();
        assert_eq!(status.signal(), Some(SIGABRT), "{place}: {status}");

        let archived = sql(&world.path("book.db"), "SELECT count(*) FROM archived_jobs").await;
        assert_eq!(archived, if place == "after_commit_of_archive" { 3 } else { 0 }, "{place}");
        assert_eq!(shown(&world, &records[2]).await, before, "{place}");
        world.must_run(&["verify"]).await;
        let told = world.must_run(&["archive"]).await;
        let left = 3 - archived;
        assert!(told.contains(&format!("the history of {left} jobs")), "{place}: {told}");
        assert_eq!(shown(&world, &records[2]).await, before, "{place}");
        world.must_run(&["verify"]).await;
        let rows = sql(&world.path("archive.db"), "SELECT count(*) FROM messages").await;
        assert_eq!(rows, 3, "{place}");
    }
}

#[tokio::test]
async fn a_missing_archive_is_named_and_its_return_makes_the_book_whole() {
    let (world, records) = settled_world().await;
    world.must_run(&["archive"]).await;
    let (file, away) = (world.path("archive.db"), world.path("away.db"));
    std::fs::rename(&file, &away).unwrap();
    let listed = world.must_run(&["jobs", "list"]).await;
    assert_eq!(listed.lines().count(), 4, "headings and three jobs: {listed}");
    let id = records[0].id.to_string();
    for arguments in [
        &["jobs", "show", &id][..],
        &["jobs", "explain", &id],
        &["jobs", "evidence", &id],
        &["book", "verify"],
        &["verify"],
        &["archive"],
    ] {
        // With nothing to archive nothing is looked for.
        if arguments == ["archive"] {
            let daemon = world.daemon().await;
            let more = world.submit(JobType::Allocation, "3").await;
            world.wait_for_state(&more, "confirmed").await;
            all_announced(&world).await;
            daemon.stop().await;
        }
        let (success, _, error) = world.run(arguments).await;
        assert!(!success, "{arguments:?}");
        let bring = error.to_lowercase().contains("bring") && error.contains("archive.db");
        assert!(bring, "{arguments:?}: {error}");
    }
    assert!(!file.exists(), "none was begun in its place");
    std::fs::rename(&away, &file).unwrap();
    world.must_run(&["archive"]).await;
    world.must_run(&["verify"]).await;

    // Another machine: book and archive stand beside each other, elsewhere.
    let folder = tempfile::tempdir().unwrap();
    let elsewhere = folder.path().join("copy.db");
    copy_book(&world.path("book.db"), &elsewhere);
    copy_book(&file, &folder.path().join("archive.db"));
    std::fs::rename(&file, &away).unwrap();
    world.must_run(&["verify", "--book", elsewhere.to_str().unwrap()]).await;
}

#[tokio::test]
async fn another_path_begins_another_archive_and_both_are_read() {
    let (mut world, records) = settled_world().await;
    world.must_run(&["archive"]).await;
    let second = world.path("second.db").to_str().unwrap().to_owned();
    world.set("archive.path", &second);
    let daemon = world.daemon().await;
    let more = settle_some(&world).await;
    daemon.stop().await;
    world.must_run(&["archive"]).await;
    let book = world.path("book.db");
    assert_eq!(sql(&book, "SELECT count(*) FROM archives").await, 2);
    for record in records.iter().chain(&more) {
        assert_eq!(shown(&world, record).await["state"], "confirmed");
    }
    let told = world.must_run(&["verify"]).await;
    assert!(told.contains("2 files with the rows of 6 jobs"), "{told}");
    // What is there already and is no archive is left alone.
    let other = world.path("other.db");
    let mut connection =
        SqliteConnection::connect(&format!("sqlite:{}?mode=rwc", other.display())).await.unwrap();
    sqlx::raw_sql("CREATE TABLE t (x)").execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    world.set("archive.path", other.to_str().unwrap());
    let daemon = world.daemon().await;
    let last = world.submit(JobType::Allocation, "3").await;
    world.wait_for_state(&last, "confirmed").await;
    all_announced(&world).await;
    eventually("the daemon to say that it cannot archive", || async {
        world.must_run(&["archive"]).await;
        (daemon.count("settled_archive_failures_total").await > 0).then_some(())
    })
    .await;
    daemon.stop().await;
    let (success, _, error) = world.run(&["archive"]).await;
    assert!(!success && error.contains("is no archive of settled"), "{error}");
    assert_eq!(shown(&world, &last).await["state"], "confirmed");
}

#[tokio::test]
async fn an_archive_from_a_later_time_than_the_book_is_not_mixed_with_it() {
    let (world, _records) = settled_world().await;
    let (book, early) = (world.path("book.db"), world.path("early.db"));
    copy_book(&book, &early);
    let daemon = world.daemon().await;
    settle_some(&world).await;
    daemon.stop().await;
    world.must_run(&["archive"]).await;
    copy_book(&early, &book);
    // Other jobs get the numbers of those that the book has forgotten.
    let mut config = world.config();
    config.archive.path = None;
    config.http.listen.set_port(0);
    let daemon = crate::support::daemon::Daemon::start(config).await;
    let other = world.submit(JobType::Allocation, "77").await;
    world.wait_for_state(&other, "confirmed").await;
    all_announced(&world).await;
    daemon.stop().await;
    let (success, _, error) = world.run(&["archive"]).await;
    assert!(!success && error.contains("restored from a backup"), "{error}");
    assert_eq!(shown(&world, &other).await["state"], "confirmed");
    world.must_run(&["verify"]).await;
}

/// Tables of an archive, and columns of it that change or that nobody can know.
const CHANGING: [(&str, &str); 1] = [("outbox", "published_at_ms")];

struct Tamperer {
    folder: PathBuf,
    book: PathBuf,
    archive: PathBuf,
}

impl Tamperer {
    /// Changes a copy of the book or of the archive. Answers whether any row was changed.
    async fn tamper(&self, in_archive: bool, sql: &str) -> bool {
        let (book, archive) = (self.folder.join("book.db"), self.folder.join("archive.db"));
        copy_book(&self.book, &book);
        copy_book(&self.archive, &archive);
        let mut connection = open_without_rules(if in_archive { &archive } else { &book }).await;
        let done = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut connection).await;
        connection.close().await.unwrap();
        let changed = done.is_ok_and(|done| done.rows_affected() > 0);
        if changed {
            let found = audited(&book).await;
            assert!(!found.is_ok_and(|audit| audit.holds()), "not found: {sql}");
        }
        changed
    }
}

#[tokio::test]
async fn every_column_of_an_archive_is_proof_against_a_change() {
    let (world, _records) = settled_world().await;
    world.must_run(&["archive"]).await;
    let folder = world.path("tampered");
    std::fs::create_dir(&folder).unwrap();
    let (book, archive) = (world.path("b.db"), world.path("a.db"));
    copy_book(&world.path("book.db"), &book);
    // Beside the book, where it is looked for when it is not where it was.
    std::fs::rename(world.path("archive.db"), &archive).unwrap();
    let tamperer = Tamperer { folder: folder.clone(), book, archive };
    copy_book(&tamperer.book, &folder.join("book.db"));
    copy_book(&tamperer.archive, &folder.join("archive.db"));
    assert!(audited(&folder.join("book.db")).await.unwrap().holds());

    let in_archive = [
        "messages",
        "attempts",
        "transfers",
        "job_events",
        "outbox",
        "archive",
        "journal",
        "anchors",
    ];
    let tables = in_archive.map(|table| (true, table)).into_iter();
    let mut edited = 0;
    for (is_archive, table) in tables.chain([(false, "archives"), (false, "archived_jobs")]) {
        let file = if is_archive { &tamperer.archive } else { &tamperer.book };
        let last = format!("rowid = (SELECT max(rowid) FROM {table})");
        if table != "journal" {
            // A copy of a seal that is gone is no loss: the book has it.
            let delete = format!("DELETE FROM {table} WHERE {last}");
            assert!(tamperer.tamper(is_archive, &delete).await, "{table}");
        }
        let mut connection = open_without_rules(file).await;
        let columns = columns(&mut connection, table).await;
        connection.close().await.unwrap();
        for (column, kind) in columns {
            if CHANGING.contains(&(table, column.as_str())) {
                continue;
            }
            let other = another_value(&column, &kind);
            let update = format!("UPDATE {table} SET {column} = {other} WHERE {last}");
            assert!(tamperer.tamper(is_archive, &update).await, "{table}.{column}");
            edited += 1;
        }
    }
    assert!(edited > 50, "{edited}");
    for sql in [
        // A second message for a job that is not archived there is nothing; for one that is, it is.
        "INSERT INTO job_events SELECT 1000, 1, 1, 'parked', '{}'",
        "DELETE FROM attempts",
        "UPDATE attempts SET body = replace(body, 'cleared', 'CLEARED')",
    ] {
        assert!(tamperer.tamper(true, sql).await, "{sql}");
    }
}
