//! What a long history costs, with an archive and without. Nothing is asserted here: it prints figures.

use std::path::Path;

use serde_json::json;
use settled::{domain::job::JobType, sandbox::Record};
use sqlx::{AssertSqlSafe, Connection as _, SqliteConnection};
use uuid::Uuid;

use super::{all_announced, settled_world, sql};
use crate::support::{daemon::Daemon, world::World};

/// Connections, each with a balance, of the book that is measured.
const CONNECTIONS_MEASURED: usize = 10_000;

/// How long `jobs show` takes, and a commit of the daemon, with so many jobs in the history.
///
/// `SETTLED_MEASURE_JOBS=100000 cargo test --test integration -- --ignored --nocapture measured`
#[tokio::test]
#[ignore = "it measures, and is slow"]
async fn what_a_long_history_costs_is_measured() {
    let jobs: i64 = std::env::var("SETTLED_MEASURE_JOBS").map_or(10_000, |n| n.parse().unwrap());
    let (mut world, records) = settled_world().await;
    let book = world.path("book.db");
    measure(&world, &records[1], &book, "3 jobs, 1 connection").await;
    let facts = (0..CONNECTIONS_MEASURED).flat_map(|number| {
        let id = Uuid::new_v4();
        let mut funded = world.adjustment(&format!("funded-{number}"), "5");
        funded["connectionId"] = json!(id);
        [world.connection_event(&format!("connected-{number}"), id.into(), true), funded]
    });
    world.import(&facts.collect::<Vec<_>>()).await;
    lengthen(&book, jobs).await;
    measure(&world, &records[1], &book, &format!("{jobs} jobs, not archived")).await;
    let begun = std::time::Instant::now();
    let told = world.must_run(&["archive"]).await;
    println!("{} in {:?}", told.trim(), begun.elapsed());
    measure(&world, &records[1], &book, &format!("{jobs} jobs, archived")).await;
    world.set("archive.after_days", "90");
}

/// Fills the book with copies of its second job, as many as there are to be.
async fn lengthen(book: &Path, jobs: i64) {
    let url = format!("sqlite:{}", book.display());
    let mut connection = SqliteConnection::connect(&url).await.unwrap();
    for (table, columns, changed) in [
        (
            "jobs",
            "job_seq, record_id, type, currency, quantity, client_id, connection_id,
             partners_client_id, partners_connection_id, partners_record_id, content_sha256,
             received_at_ms, state, state_reason, state_since_ms, outcome, final_outcome,
             next_step_at_ms, attempts_made, attempts_counted, reads_made, absences, tried_since_ms,
             verified_at_ms",
            vec![
                ("job_seq", "n + 1000"),
                ("record_id", "printf('00000000-0000-4000-8000-%012x', n)"),
            ],
        ),
        ("messages", "job_seq, raw", vec![("job_seq", "n + 1000")]),
        (
            "decisions",
            "job_seq, outcome, reject_code, reject_reason, source, seen, decided_at_ms",
            vec![("job_seq", "n + 1000")],
        ),
        (
            "attempts",
            "attempt_seq, job_seq, attempt_no, outcome, nonce, body, signature, key_id,
             prepared_at_ms, result, http_status, request_id, response, detail, finished_at_ms",
            vec![
                ("attempt_seq", "n + 1000"),
                ("job_seq", "n + 1000"),
                ("nonce", "hex(randomblob(16))"),
            ],
        ),
        (
            "outbox",
            "outbox_seq, kind, job_seq, quarantine_seq, event_id, routing_key, body, created_at_ms,
             published_at_ms",
            vec![("outbox_seq", "n + 1000"), ("job_seq", "n + 1000")],
        ),
    ] {
        let values = columns.split(',').map(|column| {
            let column = column.trim();
            let new = changed.iter().find(|(name, _)| *name == column);
            new.map_or_else(|| format!("model.{column}"), |(_, value)| (*value).to_owned())
        });
        let values: Vec<String> = values.collect();
        let sql = format!(
            "WITH RECURSIVE counter (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counter WHERE n < {jobs})
             INSERT INTO {table} ({columns}) SELECT {} FROM counter, {table} AS model
             WHERE model.job_seq = 2",
            values.join(", ")
        );
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
    }
    connection.close().await.unwrap();
}

async fn measure(world: &World, record: &Record, book: &Path, what: &str) {
    const TIMES: u32 = 30;
    let id = record.id.to_string();
    let begun = std::time::Instant::now();
    for _ in 0..TIMES {
        world.must_run(&["jobs", "show", &id]).await;
    }
    let show = begun.elapsed() / TIMES;
    let mut config = world.config();
    config.archive.path = None;
    config.http.listen.set_port(0);
    let daemon = Daemon::start(config).await;
    daemon.wait_until_ready().await;
    for _ in 0..TIMES {
        let record = world.submit(JobType::Allocation, "5").await;
        world.wait_for_state(&record, "confirmed").await;
    }
    all_announced(world).await;
    let sum = daemon.number("settled_writer_commit_duration_seconds_sum").await;
    let count = daemon.number("settled_writer_commit_duration_seconds_count").await;
    daemon.stop().await;
    let bytes = std::fs::metadata(book).unwrap().len();
    let free = sql(book, "PRAGMA freelist_count").await;
    println!(
        "{what}: jobs show {show:?}, a commit {:.2} ms ({count} commits), book {} MiB, free pages {free}",
        sum / count * 1_000.0,
        bytes / 1_048_576,
    );
}
