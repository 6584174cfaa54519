//! What every scenario works with, and one measured run.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use serde::{Deserialize, Serialize};
use settled::signer::SigningKey;

use crate::{
    broker::{Node, Queues},
    clock::{monotonic_ns, seconds},
    process::{Process, Usage, tail, wait_for_text},
    scrape::Scrape,
    server::Server,
    subject::{Place, Subject, start_peer},
    workload::{KEY_HEX, Workload},
};

/// Longest that a run may take.
const RUN_LIMIT: Duration = Duration::from_secs(900);
const MIB: f64 = 1_048_576.0;

/// The parts that all scenarios share.
pub(crate) struct Bench {
    pub(crate) root: PathBuf,
    pub(crate) folder: PathBuf,
    pub(crate) binary: PathBuf,
    pub(crate) node: Node,
    pub(crate) public_key: String,
    keep: bool,
    runs: AtomicU64,
}

/// One measured run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) subject: Subject,
    pub(crate) jobs: u64,
    pub(crate) seconds: f64,
    pub(crate) per_second: f64,
    /// Processor time of the measured process, of the broker and of the server, per 1,000 jobs.
    pub(crate) cpu_s_per_1000: f64,
    pub(crate) broker_cpu_s_per_1000: f64,
    pub(crate) server_cpu_s_per_1000: f64,
    pub(crate) rss_peak_mib: f64,
    pub(crate) written_kib_per_job: f64,
    /// The daemon's commits, as it counts them itself.
    pub(crate) commits: Option<Commits>,
}

/// The daemon's commits in a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Commits {
    pub(crate) per_job: f64,
    pub(crate) commands_mean: f64,
    /// How many commits had at most so many commands; the last bound is infinite.
    pub(crate) commands_up_to: Vec<(String, u64)>,
    pub(crate) duration_mean_ms: f64,
}

/// What a run needs besides whom it measures.
pub(crate) struct Stage {
    pub(crate) queues: Queues,
    pub(crate) server: Server,
    pub(crate) workload: Workload,
}

impl Bench {
    pub(crate) fn new(root: &Path, binary: &Path, keep: bool) -> anyhow::Result<Self> {
        let folder = root.join("target/bench/run");
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir_all(&folder)?;
        let node = Node::start(root, &folder.join("node"))?;
        let key = SigningKey::from_text(KEY_HEX)?;
        Ok(Self {
            root: root.to_owned(),
            folder,
            binary: binary.to_owned(),
            node,
            public_key: key.public_key(),
            keep,
            runs: AtomicU64::new(1),
        })
    }

    fn next_run(&self) -> u64 {
        self.runs.fetch_add(1, Ordering::Relaxed)
    }

    /// A folder that nobody has used.
    pub(crate) fn new_folder(&self, what: &str) -> PathBuf {
        self.folder.join(format!("{:03}-{what}", self.next_run()))
    }

    /// A place for a daemon, with a fresh book.
    pub(crate) fn new_place(&self, what: &str) -> anyhow::Result<Place> {
        Place::new(&self.binary, &self.new_folder(what))
    }

    /// Queues of their own, a server that expects the records, and the first `preloaded` messages.
    pub(crate) async fn stage(
        &self,
        records: u64,
        preloaded: u64,
        signed: bool,
    ) -> anyhow::Result<Stage> {
        let run = self.next_run();
        let workload = Workload { seed: run };
        let queues = Queues::declare(&self.node.url, &format!("bench{run}")).await?;
        let server = Server::start()?;
        server.expect(workload, records, signed.then_some(self.public_key.as_str())).await?;
        queues.preload(workload, 0..preloaded).await?;
        // What the preloading has left in the page cache is nobody's to write during the run.
        rustix::fs::sync();
        Ok(Stage { queues, server, workload })
    }

    /// Throws a run's files away, unless they are to be kept.
    pub(crate) fn discard(&self, folder: &Path) -> anyhow::Result<()> {
        if !self.keep {
            fs::remove_dir_all(folder)?;
        }
        Ok(())
    }

    /// From the start of consumption to the last job: one run of anyone.
    pub(crate) async fn measure(&self, subject: Subject, jobs: u64) -> anyhow::Result<Run> {
        if subject.is_daemon() {
            let mut place = self.new_place("daemon")?;
            place.verify_with_oes(subject == Subject::DaemonVerifying);
            let run = self.measure_daemon(&mut place, subject, jobs).await?;
            self.discard(&place.folder)?;
            return Ok(run);
        }
        let stage = self.stage(jobs, jobs, subject.signs()).await?;
        let folder = self.new_folder("peer");
        let mut process =
            start_peer(subject, &self.root, &folder, (&stage.queues, &stage.server), jobs)?;
        let meter = Meter::begin(self, &stage, &process)?;
        let output = folder.join("output.log");
        let done =
            tokio::task::block_in_place(|| wait_for_text(&mut process, &output, "done", RUN_LIMIT));
        done.with_context(|| subject.name())?;
        let run = meter.end(subject, jobs, &process, None)?;
        if subject != Subject::ConsumeOnly {
            stage.server.taken().await?.must_be_honest(jobs)?;
        }
        drop(process);
        stage.queues.remove().await?;
        self.discard(&folder)?;
        Ok(run)
    }

    /// One run of the daemon on a book that may have a history.
    pub(crate) async fn measure_daemon(
        &self,
        place: &mut Place,
        subject: Subject,
        jobs: u64,
    ) -> anyhow::Result<Run> {
        let stage = self.stage(jobs, jobs, true).await?;
        place.aim(&stage.queues, &stage.server);
        let process = place.run()?;
        let meter = Meter::begin(self, &stage, &process)?;
        let scrape = wait_until_done(&stage, place, (jobs, jobs), |_| {}).await?;
        let run = meter.end(subject, jobs, &process, Some(&scrape))?;
        finish(stage, place, process, jobs).await?;
        Ok(run)
    }
}

/// Waits until every job is final, and the process has announced so many outcomes. `look` sees how many have come so far.
pub(crate) async fn wait_until_done(
    stage: &Stage,
    place: &Place,
    (jobs, outcomes): (u64, u64),
    mut look: impl FnMut(u64),
) -> anyhow::Result<Scrape> {
    let begun = std::time::Instant::now();
    let mut taken = 0;
    // The server is asked first, because a scrape costs the daemon something.
    while taken < jobs {
        tokio::time::sleep(Duration::from_millis(20)).await;
        taken = stage.server.taken().await?.settled;
        look(taken);
        if begun.elapsed() > RUN_LIMIT {
            bail!("{taken} of {jobs} after {RUN_LIMIT:?}:\n{}", tail(&place.log()));
        }
    }
    loop {
        let scrape = Scrape::of(place.http_port).await?;
        if scrape.value(r#"settled_published_total{kind="outcome"}"#) as u64 >= outcomes {
            return Ok(scrape);
        }
        if begun.elapsed() > RUN_LIMIT {
            bail!("not all was announced after {RUN_LIMIT:?}:\n{}", tail(&place.log()));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Ends the daemon and checks what it has done: every outcome once, nothing contradicted, and the book,
/// its movements and its journal verified.
pub(crate) async fn finish(
    stage: Stage,
    place: &Place,
    process: Process,
    jobs: u64,
) -> anyhow::Result<()> {
    let taken = stage.server.taken().await?;
    taken.must_be_honest(jobs)?;
    ensure!(taken.repeated == 0, "updates were sent again although each was answered: {taken:?}");
    process.end().with_context(|| tail(&place.log()))?;
    stage.queues.must_have(&stage.queues.outcomes, jobs).await?;
    stage.queues.must_have(&stage.queues.config.jobs_queue, 0).await?;
    stage.queues.remove().await
}

/// What was used when a run began.
pub(crate) struct Meter {
    begun_ns: u64,
    process: Usage,
    broker: (u32, Usage),
    server: (u32, Usage),
}

impl Meter {
    pub(crate) fn begin(bench: &Bench, stage: &Stage, process: &Process) -> anyhow::Result<Self> {
        let begun_ns = monotonic_ns();
        let pid = stage.server.pid();
        Ok(Self {
            begun_ns,
            process: process.usage()?,
            broker: (bench.node.pid, Usage::of(bench.node.pid)?),
            server: (pid, Usage::of(pid)?),
        })
    }

    pub(crate) fn end(
        self,
        subject: Subject,
        jobs: u64,
        process: &Process,
        scrape: Option<&Scrape>,
    ) -> anyhow::Result<Run> {
        let took = seconds(self.begun_ns, monotonic_ns());
        let (used, count) = (process.usage()?, jobs as f64);
        let per_1000 = |before: Usage, after: Usage| (after.cpu_s - before.cpu_s) / count * 1_000.0;
        Ok(Run {
            subject,
            jobs,
            seconds: took,
            per_second: count / took,
            cpu_s_per_1000: per_1000(self.process, used),
            broker_cpu_s_per_1000: per_1000(self.broker.1, Usage::of(self.broker.0)?),
            server_cpu_s_per_1000: per_1000(self.server.1, Usage::of(self.server.0)?),
            rss_peak_mib: used.rss_peak_bytes as f64 / MIB,
            written_kib_per_job: (used.written_bytes - self.process.written_bytes) as f64
                / count
                / 1_024.0,
            commits: scrape.map(|scrape| scrape.commits(jobs)),
        })
    }
}
