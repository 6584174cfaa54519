//! What parts take alone at a low load: the machine is at rest between two jobs, and wakes up slowly.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use settled::domain::job::JobType;
use sqlx::{
    Connection as _, Executor as _, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};

use super::{client_of, update_body};
use crate::{
    bench::Bench,
    book::{self, Book},
    scenario::Percentiles,
    server::Server,
    workload::Workload,
};

/// About as much as the bench's database writes for a job.
const ROW_BYTES: i64 = 1_024;

/// The parts of one job's way, each alone, in milliseconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Paced {
    /// A row in SQLite, committed and synced.
    pub(crate) row: Percentiles,
    /// A job through the writer to its signed attempt on disk: one commit.
    pub(crate) commit: Percentiles,
    /// An update and its answer.
    pub(crate) round_trip: Percentiles,
}

pub(crate) async fn paced(bench: &Bench, jobs: u64, per_second: u32) -> anyhow::Result<Paced> {
    let folder = bench.new_folder("paced");
    std::fs::create_dir_all(&folder)?;
    let every = Duration::from_secs(1) / per_second;
    let paced = Paced {
        row: rows(&folder, jobs, every).await?,
        commit: commits(&folder, jobs, every).await?,
        round_trip: round_trips(bench, jobs, every).await?,
    };
    bench.discard(&folder)?;
    Ok(paced)
}

fn ms_since(begun: Instant) -> f64 {
    begun.elapsed().as_secs_f64() * 1e3
}

/// One row a commit, with the settings of the book.
async fn rows(folder: &Path, jobs: u64, every: Duration) -> anyhow::Result<Percentiles> {
    let options = SqliteConnectOptions::new()
        .filename(folder.join("rows.db"))
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full);
    let mut connection = SqliteConnection::connect_with(&options).await?;
    connection.execute("CREATE TABLE rows (number INTEGER PRIMARY KEY, bytes BLOB)").await?;
    let (mut times, mut tick) = (Vec::new(), tokio::time::interval(every));
    for _ in 0..jobs {
        tick.tick().await;
        let begun = Instant::now();
        sqlx::query("INSERT INTO rows (bytes) VALUES (randomblob(?1))")
            .bind(ROW_BYTES)
            .execute(&mut connection)
            .await?;
        times.push(ms_since(begun));
    }
    connection.close().await?;
    Ok(Percentiles::of(times))
}

async fn commits(folder: &Path, jobs: u64, every: Duration) -> anyhow::Result<Percentiles> {
    let mut book = Book::new(folder).await?;
    let (mut times, mut tick) = (Vec::new(), tokio::time::interval(every));
    for _ in 0..jobs {
        tick.tick().await;
        let intake = book::intake()?;
        let begun = Instant::now();
        let prepared = book.record(vec![intake]).await?;
        times.push(ms_since(begun));
        book.finish(prepared.into_iter().map(book::accepted).collect()).await?;
    }
    Ok(Percentiles::of(times))
}

async fn round_trips(bench: &Bench, jobs: u64, every: Duration) -> anyhow::Result<Percentiles> {
    let place = bench.new_place("round-trip")?;
    let server = Server::start()?;
    let workload = Workload { seed: 5 };
    server.expect(workload, jobs, None).await?;
    let client = client_of(&server, &place.folder)?;
    let (mut times, mut tick) = (Vec::new(), tokio::time::interval(every));
    for number in 0..jobs {
        tick.tick().await;
        let body = update_body(workload, number)?;
        let begun = Instant::now();
        let answer = client.put_update(JobType::Allocation, body).await?;
        times.push(ms_since(begun));
        anyhow::ensure!(answer.status == 200, "status {}", answer.status);
    }
    Ok(Percentiles::of(times))
}
