//! How long operators wait for a page of jobs in a book with a long history.
//!
//! `cargo bench --bench lists -- [JOBS]` makes a book with so many jobs (a million, unless asked otherwise)
//! and reads pages of every kind of list. It fails if one takes longer than 50 ms in the middle of its runs.
#![allow(clippy::arithmetic_side_effects, reason = "a bench may abort")]

use std::time::{Duration, Instant};

use settled::{
    clock::{Clock as _, SystemClock},
    domain::{decision::Outcome, job::JobType},
    store::{
        Readers, open_readers, open_writer,
        query::{JobFilter, PageWanted, Sort},
    },
};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, SqliteConnection};

/// Jobs, unless asked otherwise.
const JOBS: i64 = 1_000_000;
/// Jobs that are open: a day's backlog.
const OPEN: i64 = 20_000;
const CLIENTS: i64 = 500;
const CONNECTIONS: i64 = 800;
const RUNS: usize = 15;
const LIMIT: u32 = 50;
const LONGEST: Duration = Duration::from_millis(50);

/// What each job is follows from its number. The last are open; every 500th of the others was overruled.
async fn fill(connection: &mut SqliteConnection, jobs: i64) -> Result<(), sqlx::Error> {
    let id = |prefix: &str, number: &str| {
        format!(
            "printf('{prefix}%06x-%04x-4000-8000-%012d', (({number}) * 7919) % 16777216, ({number}) % 65536, {number})"
        )
    };
    let is_open = format!("n > {}", jobs - OPEN);
    let sql = format!(
        "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {jobs})
         INSERT INTO jobs (job_seq, record_id, type, currency, quantity, client_id, connection_id,
           partners_client_id, partners_connection_id, partners_record_id, content_sha256, received_at_ms,
           state, state_reason, state_since_ms, outcome, final_outcome, next_step_at_ms, attempts_made,
           attempts_counted, reads_made, absences)
         SELECT n, {record}, iif(n % 3, 'allocation', 'deallocation'),
           CASE WHEN n % 1000 = 7 THEN 'XRP' WHEN n % 5 THEN 'BTC' ELSE 'ETH' END, '' || (n * 7),
           {client}, {link}, 'client-' || (n % {CLIENTS}), 'link-' || (n % {CONNECTIONS}), 'settle-' || n,
           zeroblob(32), n * 100,
           CASE WHEN {is_open} AND n % 10 = 0 THEN 'parked' WHEN {is_open} AND n % 10 < 6 THEN 'received'
             WHEN {is_open} THEN 'decided' WHEN n % 500 = 3 THEN 'overruled' ELSE 'confirmed' END,
           iif({is_open} AND n % 10 = 0, 'refused_by_oes', NULL), n * 100 + (n * 7919) % 5000,
           CASE WHEN {is_open} AND n % 10 BETWEEN 1 AND 5 THEN NULL WHEN n % 9 = 0 THEN 'released'
             ELSE 'cleared' END,
           CASE WHEN {is_open} THEN NULL WHEN (n % 9 = 0) = (n % 500 = 3) THEN 'cleared'
             ELSE 'released' END,
           iif({is_open}, n * 10, NULL), 0, 0, 0, 0 FROM n",
        record = id("ab", "n"),
        client = id("c0", &format!("n % {CLIENTS}")),
        link = id("d0", &format!("n % {CONNECTIONS}")),
    );
    connection.execute(AssertSqlSafe(sql)).await?;
    connection
        .execute(
            "INSERT INTO decisions (job_seq, outcome, reject_code, reject_reason, source, seen, decided_at_ms)
             SELECT job_seq, outcome, CASE WHEN outcome = 'released' THEN
                 iif(job_seq % 2, 'insufficient_available', 'daily_limit') END,
               iif(outcome = 'released', 'so', NULL), 'policy', '{}', received_at_ms
             FROM jobs WHERE outcome IS NOT NULL;
             UPDATE job_counts SET jobs = (SELECT count(*) FROM jobs
               WHERE jobs.state = job_counts.state AND jobs.type = job_counts.type)",
        )
        .await?;
    Ok(())
}

fn filters() -> anyhow::Result<Vec<(&'static str, JobFilter)>> {
    let any = JobFilter::default;
    let states = |text: &str| JobFilter::parse_states(text).map_err(anyhow::Error::msg);
    let text = |text: &str| JobFilter { text: Some(text.to_owned()), ..any() };
    let client = "c000001e-aab9-4000-8000-000000000001".parse().ok();
    let link = format!("d0{:06x}-{:04x}-4000-8000-{:012}", 7919 * 3, 3, 3).parse()?;
    Ok(vec![
        ("all", any()),
        ("open", JobFilter { states: states("open")?, ..any() }),
        ("parked", JobFilter { states: states("parked")?, ..any() }),
        ("confirmed", JobFilter { states: states("confirmed")?, ..any() }),
        ("overruled", JobFilter { states: states("overruled")?, ..any() }),
        ("deallocations", JobFilter { job_type: Some(JobType::Deallocation), ..any() }),
        ("one client", JobFilter { client_id: client, ..any() }),
        ("one connection", JobFilter { connection_id: Some(link), ..any() }),
        (
            "one connection, parked",
            JobFilter { connection_id: Some(link), states: states("parked")?, ..any() },
        ),
        ("a rare currency", JobFilter { currency: Some("XRP".parse()?), ..any() }),
        ("a currency nobody has", JobFilter { currency: Some("DOGE".parse()?), ..any() }),
        ("released", JobFilter { outcome: Some(Outcome::Released), ..any() }),
        ("a reason of parking", JobFilter { reason: Some("refused_by_oes".to_owned()), ..any() }),
        ("a reason of release", JobFilter { reason: Some("daily_limit".to_owned()), ..any() }),
        (
            "older than the last half",
            JobFilter {
                received_until: Some(settled::domain::time::TimestampMs::from_millis(50_000_000)),
                ..any()
            },
        ),
        ("text: a record", text("ab001eef-0001")),
        ("text: settle-99", text("settle-99")),
        ("text: ab", text("ab")),
        ("text: client-1", text("client-1")),
        ("text: nothing", text("zzz")),
    ])
}

/// The middle and the longest of some runs.
async fn measure<T>(run: impl AsyncFn() -> T) -> (Duration, Duration) {
    let mut took = Vec::with_capacity(RUNS);
    for _ in 0..RUNS {
        let begun = Instant::now();
        run().await;
        took.push(begun.elapsed());
    }
    took.sort();
    let middle = took.get(RUNS / 2).copied().unwrap_or_default();
    (middle, took.last().copied().unwrap_or_default())
}

async fn pages(readers: &Readers) -> anyhow::Result<usize> {
    println!("{:<26} {:<8} {:>10} {:>10} {:>8}", "list", "sort", "middle ms", "longest ms", "jobs");
    let ms = |took: Duration| took.as_secs_f64() * 1_000.0;
    let mut slow = 0_usize;
    for (name, filter) in filters()? {
        for sort in Sort::ALL {
            let first = PageWanted::first(sort, LIMIT);
            let page = readers.list_jobs(&filter, &first).await?;
            let next = page.next.map(|next| PageWanted::after(next, LIMIT));
            for (which, wanted) in [("", Some(first)), (" +", next)] {
                let Some(wanted) = wanted else { continue };
                let (middle, longest) =
                    measure(async || readers.list_jobs(&filter, &wanted).await).await;
                slow += usize::from(middle > LONGEST);
                println!(
                    "{:<26} {:<8} {:>10.2} {:>10.2} {:>8}",
                    format!("{name}{which}"),
                    sort.as_str(),
                    ms(middle),
                    ms(longest),
                    page.jobs.len()
                );
            }
        }
        let (middle, longest) = measure(async || readers.count_jobs(&filter).await).await;
        slow += usize::from(middle > LONGEST);
        let counted = readers.count_jobs(&filter).await?;
        println!(
            "{name:<26} {:<8} {:>10.2} {:>10.2} {:>8}",
            "count",
            ms(middle),
            ms(longest),
            counted.jobs
        );
    }
    Ok(slow)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let asked = std::env::args().skip(1).find_map(|word| word.parse().ok());
    let jobs: i64 = asked.unwrap_or(JOBS);
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let path = folder.path().join("book.db");
    open_writer(&path, SystemClock.now()).await?.writer.close().await?;
    let mut connection = SqliteConnection::connect(&format!("sqlite:{}", path.display())).await?;
    let begun = Instant::now();
    fill(&mut connection, jobs).await?;
    connection.close().await?;
    println!("{jobs} jobs, {OPEN} of them open, in {:.0} s\n", begun.elapsed().as_secs_f64());
    let readers = open_readers(&path).await?;
    let slow = pages(&readers).await?;
    readers.close().await;
    anyhow::ensure!(slow == 0, "{slow} lists take longer than {LONGEST:?}");
    Ok(())
}
