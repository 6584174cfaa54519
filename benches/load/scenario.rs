//! What is measured, one function a scenario. Each returns plain numbers for the report.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use futures_util::StreamExt as _;
use lapin::{options::BasicConsumeOptions, types::FieldTable};
use serde::{Deserialize, Serialize};

use crate::{
    bench::{Bench, Meter, Run, Stage, finish, wait_until_done},
    clock::{monotonic_ns, seconds},
    process::wait_for_text,
    scrape::Scrape,
    subject::{Place, Subject, start_peer},
};

const MIB: f64 = 1_048_576.0;
/// Longest that anything may take here.
const LIMIT: Duration = Duration::from_secs(900);

/// Interleaved repetitions, so that what the machine does besides falls on all alike.
pub(crate) async fn throughput(
    bench: &Bench,
    subjects: &[Subject],
    jobs: u64,
    repetitions: u32,
) -> anyhow::Result<Vec<Run>> {
    let mut runs = Vec::new();
    for repetition in 0..repetitions {
        for subject in subjects {
            let run = bench.measure(*subject, subject.share_of(jobs)).await?;
            eprintln!(
                "bench: {repetition}: {:<36} {:>8.0}/s, {:.3} CPU s per 1,000, {:.0} MiB",
                subject.name(),
                run.per_second,
                run.cpu_s_per_1000,
                run.rss_peak_mib
            );
            runs.push(run);
        }
    }
    Ok(runs)
}

/// Some jobs a second, and how long each takes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Latency {
    pub(crate) subject: Subject,
    pub(crate) jobs: u64,
    pub(crate) per_second: u32,
    /// From publishing to the update's arrival, and to the announcement's, where there is one.
    pub(crate) to_update_ms: Percentiles,
    pub(crate) to_outcome_ms: Option<Percentiles>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Percentiles {
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
}

impl Percentiles {
    pub(crate) fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let last = values.len().saturating_sub(1);
            values.get((last as f64 * share).round() as usize).copied().unwrap_or_default()
        };
        Self { p50: at(0.5), p90: at(0.9), p99: at(0.99), max: at(1.0) }
    }
}

/// Latency at a low load.
pub(crate) async fn latency(
    bench: &Bench,
    subject: Subject,
    jobs: u64,
    per_second: u32,
) -> anyhow::Result<Latency> {
    // The first message of a session is taken with caution, and is not counted.
    let stage = bench.stage(jobs + 1, 1, true).await?;
    let mut place = bench.new_place("latency")?;
    place.verify_with_oes(subject == Subject::DaemonVerifying);
    place.aim(&stage.queues, &stage.server);
    let process = place.run()?;
    let heard = hear_outcomes(&stage, jobs + 1).await?;
    let published = publish_slowly(&stage, 1..jobs + 1, per_second).await?;
    let heard = tokio::time::timeout(LIMIT, heard).await.context("outcomes are missing")???;
    let arrived = stage.server.arrived_ns().await?;
    let ms = |from: u64, to: u64| seconds(from, to) * 1e3;
    let to_update = published.iter().map(|(number, at)| ms(*at, arrived[*number])).collect();
    let to_outcome = published.iter().map(|(number, at)| ms(*at, heard[*number])).collect();
    process.end()?;
    stage.server.taken().await?.must_be_honest(jobs + 1)?;
    stage.queues.remove().await?;
    bench.discard(&place.folder)?;
    Ok(Latency {
        subject,
        jobs,
        per_second,
        to_update_ms: Percentiles::of(to_update),
        to_outcome_ms: Some(Percentiles::of(to_outcome)),
    })
}

/// The same of a program that is no daemon and announces nothing.
pub(crate) async fn latency_of_peer(
    bench: &Bench,
    subject: Subject,
    jobs: u64,
    per_second: u32,
) -> anyhow::Result<Latency> {
    let stage = bench.stage(jobs + 1, 1, subject.signs()).await?;
    let folder = bench.new_folder("peer");
    let on = (&stage.queues, &stage.server);
    let mut process = start_peer(subject, &bench.root, &folder, on, jobs + 1)?;
    let published = publish_slowly(&stage, 1..jobs + 1, per_second).await?;
    let output = folder.join("output.log");
    tokio::task::block_in_place(|| wait_for_text(&mut process, &output, "done", LIMIT))?;
    let arrived = stage.server.arrived_ns().await?;
    let to_update =
        published.iter().map(|(number, at)| seconds(*at, arrived[*number]) * 1e3).collect();
    drop(process);
    stage.server.taken().await?.must_be_honest(jobs + 1)?;
    stage.queues.remove().await?;
    bench.discard(&folder)?;
    let to_update_ms = Percentiles::of(to_update);
    Ok(Latency { subject, jobs, per_second, to_update_ms, to_outcome_ms: None })
}

/// Publishes at a steady pace; answers the time of each.
async fn publish_slowly(
    stage: &Stage,
    numbers: std::ops::Range<u64>,
    per_second: u32,
) -> anyhow::Result<Vec<(usize, u64)>> {
    let mut published = Vec::new();
    let mut pace = tokio::time::interval(Duration::from_secs(1) / per_second);
    for number in numbers {
        pace.tick().await;
        let body = stage.workload.message(number);
        let at = monotonic_ns();
        let confirm = stage.queues.publish(&body).await?;
        published.push((usize::try_from(number)?, at));
        confirm.await?;
    }
    Ok(published)
}

type Heard = tokio::task::JoinHandle<anyhow::Result<Vec<u64>>>;

/// Listens for outcomes; answers when each record's came.
async fn hear_outcomes(stage: &Stage, jobs: u64) -> anyhow::Result<Heard> {
    let channel = stage.queues.channel().await?;
    let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
    let mut consumer = channel
        .basic_consume(
            stage.queues.outcomes.as_str().into(),
            "bench".into(),
            options,
            FieldTable::default(),
        )
        .await?;
    let numbers: std::collections::HashMap<String, usize> = (0..jobs)
        .map(|number| {
            (stage.workload.record(number).id.to_string(), usize::try_from(number).unwrap_or(0))
        })
        .collect();
    let tasks = tokio_util::task::TaskTracker::new();
    Ok(tasks.spawn(async move {
        // The channel lives as long as its consumer.
        let _channel = channel;
        let mut heard = vec![0; numbers.len()];
        for _ in 0..jobs {
            let delivery = consumer.next().await.context("the broker ended the consumer")??;
            let at = monotonic_ns();
            let event: serde_json::Value = serde_json::from_slice(&delivery.data)?;
            let number = event["recordId"].as_str().and_then(|id| numbers.get(id));
            heard[*number.context("an outcome of another run")?] = at;
        }
        Ok(heard)
    }))
}

/// How many syncs jobs take.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Syncs {
    pub(crate) what: String,
    pub(crate) jobs: u64,
    pub(crate) per_job: f64,
}

/// Syncs a job under load, and at a low load without and with the mark.
pub(crate) async fn syncs(bench: &Bench, jobs: u64) -> anyhow::Result<Vec<Syncs>> {
    let mut all = Vec::new();
    for (what, jobs, per_second, mark) in [
        ("under load", jobs, None, false),
        ("under load, with the mark", jobs, None, true),
        ("20 jobs a second", 100, Some(20), false),
        ("20 jobs a second, with the mark", 100, Some(20), true),
    ] {
        let mut place = bench.new_place("syncs")?;
        if mark {
            let path = serde_json::json!(place.folder.join("mark")).to_string();
            place.set("store", "mark_path", &path);
        }
        let first = if per_second.is_some() { 1 } else { jobs };
        let stage = bench.stage(jobs, first, true).await?;
        place.aim(&stage.queues, &stage.server);
        let file = place.folder.join("syncs");
        let lines = || fs::read_to_string(&file).map(|text| text.lines().count());
        let process = place.run_counting_syncs(&file)?;
        let (mut before, mut counted) = (lines()?, jobs);
        if let Some(per_second) = per_second {
            wait_until_done(&stage, &place, (1, 1), |_| {}).await?;
            // What waits for company has been committed by then.
            tokio::time::sleep(Duration::from_secs(1)).await;
            (before, counted) = (lines()?, jobs - 1);
            publish_slowly(&stage, 1..jobs, per_second).await?;
        }
        wait_until_done(&stage, &place, (jobs, jobs), |_| {}).await?;
        let per_job = (lines()? - before) as f64 / counted as f64;
        eprintln!("bench: {per_job:.3} syncs a job, {what}");
        all.push(Syncs { what: what.to_owned(), jobs: counted, per_job });
        finish(stage, &place, process, jobs).await?;
        bench.discard(&place.folder)?;
    }
    Ok(all)
}

/// Very many jobs that wait.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Backlog {
    pub(crate) jobs: u64,
    /// How fast they were taken in.
    pub(crate) per_second: f64,
    pub(crate) rss_peak_mib: f64,
    pub(crate) scrape_ms: f64,
    /// From the start of a process to consuming, with all of them open.
    pub(crate) start_s: f64,
    pub(crate) start_rss_peak_mib: f64,
}

/// A book that takes jobs in and may send next to nothing.
fn held_up(place: &mut Place) {
    place.set("oes", "rate_limit", "2");
    place.set("oes", "rate_burst", "1");
    place.set("oes", "rate_window_s", "86400");
}

fn let_go(place: &mut Place) {
    place.set("oes", "rate_limit", "2000000000");
    place.set("oes", "rate_burst", "1000000");
    place.set("oes", "rate_window_s", "1");
}

/// Takes in every job while next to none is sent, and waits until all are in the book.
async fn fill(
    stage: &Stage,
    place: &mut Place,
    jobs: u64,
) -> anyhow::Result<(crate::process::Process, f64, f64)> {
    held_up(place);
    place.aim(&stage.queues, &stage.server);
    let process = place.run()?;
    let begun = Instant::now();
    loop {
        tokio::time::sleep(Duration::from_millis(if jobs > 200_000 { 2_000 } else { 100 })).await;
        let asked = Instant::now();
        let scrape = Scrape::of(place.http_port).await?;
        let scrape_ms = asked.elapsed().as_secs_f64() * 1e3;
        if scrape.value(r#"settled_messages_total{result="new"}"#) as u64 >= jobs {
            return Ok((process, jobs as f64 / begun.elapsed().as_secs_f64(), scrape_ms));
        }
        anyhow::ensure!(begun.elapsed() < LIMIT, "the jobs were not taken in in time");
    }
}

/// A backlog of jobs in the book, and a start with it.
pub(crate) async fn backlog(bench: &Bench, jobs: u64) -> anyhow::Result<Backlog> {
    let stage = bench.stage(jobs, jobs, true).await?;
    let mut place = bench.new_place("backlog")?;
    let (process, per_second, scrape_ms) = fill(&stage, &mut place, jobs).await?;
    let used = process.usage()?;
    process.end()?;
    let begun = Instant::now();
    let process = place.run()?;
    let start_s = begun.elapsed().as_secs_f64();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let started = process.usage()?;
    process.end()?;
    stage.queues.remove().await?;
    bench.discard(&place.folder)?;
    Ok(Backlog {
        jobs,
        per_second,
        rss_peak_mib: used.rss_peak_bytes as f64 / MIB,
        scrape_ms,
        start_s,
        start_rss_peak_mib: started.rss_peak_bytes as f64 / MIB,
    })
}

/// A start after a crash with open jobs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Recovery {
    pub(crate) open_jobs: u64,
    /// From the start of the process to consuming, to its first update, and to the last job's end.
    pub(crate) start_s: f64,
    pub(crate) first_update_s: f64,
    pub(crate) all_settled_s: f64,
    pub(crate) per_second: f64,
}

pub(crate) async fn recovery(bench: &Bench, jobs: u64) -> anyhow::Result<Recovery> {
    let stage = bench.stage(jobs, jobs, true).await?;
    let mut place = bench.new_place("recovery")?;
    let (process, ..) = fill(&stage, &mut place, jobs).await?;
    let before = stage.server.taken().await?;
    process.kill()?;
    let_go(&mut place);
    let begun_ns = monotonic_ns();
    let process = place.run()?;
    let start_s = seconds(begun_ns, monotonic_ns());
    let mut first = None;
    let left = jobs - before.settled;
    wait_until_done(&stage, &place, (jobs, left), |taken| {
        if taken > before.settled {
            first.get_or_insert(monotonic_ns());
        }
    })
    .await?;
    let all_settled_s = seconds(begun_ns, monotonic_ns());
    let taken = stage.server.taken().await?;
    taken.must_be_honest(jobs)?;
    process.end()?;
    place.must_verify()?;
    stage.queues.remove().await?;
    bench.discard(&place.folder)?;
    Ok(Recovery {
        open_jobs: jobs,
        start_s,
        first_update_s: seconds(begun_ns, first.unwrap_or(begun_ns)),
        all_settled_s,
        per_second: left as f64 / all_settled_s,
    })
}

/// Throughput on a book with a history, beside that on an empty one.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct History {
    pub(crate) jobs_before: u64,
    /// Jobs that were settled, and the rate since the point before, while the history grew.
    pub(crate) growing: Vec<(u64, f64)>,
    pub(crate) with_it: Vec<Run>,
    pub(crate) without: Vec<Run>,
    pub(crate) start_s: f64,
    pub(crate) book_gib: f64,
    pub(crate) growing_rss_peak_mib: f64,
}

pub(crate) async fn history(
    bench: &Bench,
    history: u64,
    jobs: u64,
    repetitions: u32,
) -> anyhow::Result<History> {
    let mut place = bench.new_place("history")?;
    let stage = bench.stage(history, history, true).await?;
    place.aim(&stage.queues, &stage.server);
    let process = place.run()?;
    let meter = Meter::begin(bench, &stage, &process)?;
    let (mut growing, mut last) = (Vec::new(), (0, monotonic_ns()));
    let scrape = wait_until_done(&stage, &place, (history, history), |taken| {
        let now = monotonic_ns();
        if taken - last.0 >= (history / 50).max(1) {
            growing.push((taken, (taken - last.0) as f64 / seconds(last.1, now)));
            last = (taken, now);
        }
    })
    .await?;
    let grown = meter.end(Subject::Daemon, history, &process, Some(&scrape))?;
    eprintln!("bench: a history of {history} jobs made at {:.0}/s", grown.per_second);
    finish(stage, &place, process, history).await?;
    let (mut with_it, mut without) = (Vec::new(), Vec::new());
    for _ in 0..repetitions {
        without.push(bench.measure(Subject::Daemon, jobs).await?);
        with_it.push(bench.measure_daemon(&mut place, Subject::Daemon, jobs).await?);
    }
    let stage = bench.stage(1, 0, true).await?;
    place.aim(&stage.queues, &stage.server);
    let begun = Instant::now();
    let process = place.run()?;
    let start_s = begun.elapsed().as_secs_f64();
    process.end()?;
    stage.queues.remove().await?;
    let book = fs::metadata(place.folder.join("book.db"))?.len() as f64;
    bench.discard(&place.folder)?;
    Ok(History {
        jobs_before: history,
        growing,
        with_it,
        without,
        start_s,
        book_gib: book / MIB / 1_024.0,
        growing_rss_peak_mib: grown.rss_peak_mib,
    })
}
