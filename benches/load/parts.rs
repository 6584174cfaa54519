//! What each part can do alone, on the same machine in the same run.

pub(crate) mod paced;

use std::{
    fs::File,
    io::Write as _,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use settled::{
    clock::SystemClock,
    config::OesConfig,
    domain::{
        decision::Decision,
        job::JobType,
        message::parse_job,
        payload::{NONCE_RANDOM_BYTES, Nonce, Update},
        time::TimestampMs,
    },
    oes::OesClient,
};
use tokio::task::JoinSet;

use crate::{
    bench::Bench,
    book::{self, Book},
    scenario::Percentiles,
    server::Server,
    subject::{IN_FLIGHT, Subject},
    workload::{ENTERPRISE, Workload},
};

const FOR: Duration = Duration::from_secs(3);
/// Commands that the daemon's writer takes into a batch at most.
const BATCH: usize = 256;
const SYNCS: usize = 500;
const PAGE_BYTES: usize = 4_096;

/// The limits of the parts.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Parts {
    /// A page written at a file's end and synced.
    pub(crate) sync_ms: Percentiles,
    pub(crate) consume_per_second: f64,
    pub(crate) sign_per_second: f64,
    pub(crate) put_per_second: f64,
    /// Jobs through the writer with all their rows, two commits each, in full batches; with signatures.
    pub(crate) commit_per_second: f64,
}

pub(crate) async fn parts(bench: &Bench, jobs: u64) -> anyhow::Result<Parts> {
    let consumed = bench.measure(Subject::ConsumeOnly, Subject::ConsumeOnly.share_of(jobs)).await?;
    Ok(Parts {
        sync_ms: sync_times(&bench.folder)?,
        consume_per_second: consumed.per_second,
        sign_per_second: sign()?,
        put_per_second: put(bench, jobs).await?,
        commit_per_second: commit(bench).await?,
    })
}

/// How long the disk takes to sync a page at the end of a file that grows.
pub(crate) fn sync_times(folder: &Path) -> anyhow::Result<Percentiles> {
    let path = folder.join("syncs");
    let mut file = File::create(&path)?;
    let mut times = Vec::new();
    for _ in 0..SYNCS {
        file.write_all(&[1; PAGE_BYTES])?;
        let begun = Instant::now();
        file.sync_data()?;
        times.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    std::fs::remove_file(path)?;
    Ok(Percentiles::of(times))
}

fn sign() -> anyhow::Result<f64> {
    let key = book::key()?;
    let terms = parse_job(&book::message())?;
    let nonce = Nonce::new(TimestampMs::from_millis(7), [7; NONCE_RANDOM_BYTES]);
    let update = Update::new(&terms, &Decision::Cleared, &nonce)?;
    let (begun, mut count) = (Instant::now(), 0);
    while begun.elapsed() < FOR {
        anyhow::ensure!(key.sign(update.payload().as_bytes()).is_some(), "a bad signature");
        count += 1;
    }
    Ok(f64::from(count) / begun.elapsed().as_secs_f64())
}

/// The daemon's own client, as many requests under way as it has.
async fn put(bench: &Bench, jobs: u64) -> anyhow::Result<f64> {
    let folder = bench.new_folder("put");
    std::fs::create_dir_all(&folder)?;
    let place = bench.new_place("put")?;
    let server = Server::start()?;
    let workload = Workload { seed: 3 };
    server.expect(workload, jobs, None).await?;
    let client = Arc::new(client_of(&server, &place.folder)?);
    let begun = Instant::now();
    let mut workers = JoinSet::new();
    let each = jobs.div_euclid(IN_FLIGHT as u64);
    for worker in 0..IN_FLIGHT as u64 {
        let client = Arc::clone(&client);
        workers.spawn(async move {
            for number in worker * each..(worker + 1) * each {
                let body = update_body(workload, number)?;
                let answer = client.put_update(JobType::Allocation, body).await?;
                anyhow::ensure!(answer.status == 200, "status {}", answer.status);
            }
            anyhow::Ok(())
        });
    }
    while let Some(ended) = workers.join_next().await {
        ended??;
    }
    Ok((each * IN_FLIGHT as u64) as f64 / begun.elapsed().as_secs_f64())
}

/// The daemon's own client of OES.
fn client_of(server: &Server, folder: &Path) -> anyhow::Result<OesClient> {
    let config = OesConfig {
        base_url: Some(server.url.clone()),
        enterprise_id: Some(ENTERPRISE.to_owned()),
        access_token_file: Some(folder.join("token")),
        ..OesConfig::default()
    };
    Ok(OesClient::new(&config, Arc::new(SystemClock))?)
}

fn update_body(workload: Workload, number: u64) -> anyhow::Result<String> {
    let message = workload.message(number);
    let terms = parse_job(&message)?;
    let nonce = Nonce::new(TimestampMs::from_millis(7), [7; NONCE_RANDOM_BYTES]);
    let update = Update::new(&terms, &Decision::Cleared, &nonce)?;
    let signature = settled::domain::payload::Signature::from_bytes([7; 65]);
    Ok(update.into_body(&signature)?)
}

async fn commit(bench: &Bench) -> anyhow::Result<f64> {
    let folder = bench.new_folder("commit");
    std::fs::create_dir_all(&folder)?;
    let mut book = Book::new(&folder).await?;
    let (begun, mut count) = (Instant::now(), 0);
    while begun.elapsed() < FOR {
        let intakes = (0..BATCH).map(|_| book::intake()).collect::<Result<Vec<_>, _>>()?;
        let prepared = book.record(intakes).await?;
        book.finish(prepared.into_iter().map(book::accepted).collect()).await?;
        count += BATCH;
    }
    Ok(count as f64 / begun.elapsed().as_secs_f64())
}
