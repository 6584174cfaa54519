//! `make bench`: the daemon on real parts, beside what the same work costs others, in one run.
//!
//! A private RabbitMQ node, the daemon's release binary, and a lean server for its updates, each in its
//! own process. `docs/PERFORMANCE.md` says what is measured and what the programs do that it is compared
//! with, and holds the results.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::indexing_slicing,
    reason = "a bench counts what it made itself, and may abort"
)]

mod bench;
#[path = "../shared/book.rs"]
mod book;
mod broker;
mod ceiling;
mod clock;
mod parts;
mod process;
mod profile;
mod report;
mod scenario;
mod scrape;
mod server;
mod sink;
mod subject;
mod workload;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use bench::Bench;
use report::Report;
use subject::Subject;

#[derive(Debug, Parser)]
#[command(about = "Measures settled on real parts")]
struct Cli {
    #[command(subcommand)]
    role: Option<Role>,
    #[command(flatten)]
    measure: Measure,
    /// What `cargo bench` passes on to every bench.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// One of the processes of a run; started by the bench itself.
    #[command(hide = true)]
    Role {
        /// Which.
        name: RoleName,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum RoleName {
    Sink,
    Ceiling,
    ConsumeOnly,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Scenario {
    /// Jobs a second, of everyone.
    Throughput,
    /// How long a job takes at a low load.
    Latency,
    /// Syncs a job.
    Syncs,
    /// The limits of the parts.
    Parts,
    /// Memory and start with very many jobs that wait.
    Backlog,
    /// A start after a crash.
    Recovery,
    /// Throughput on a book with a long history.
    History,
    /// Where the daemon's processor time goes; needs perf.
    Profile,
}

#[derive(Debug, Args)]
struct Measure {
    /// What is measured; everything, if nothing is named.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Scenario>,
    /// Whom throughput is measured of; everyone, if nobody is named.
    #[arg(long, value_delimiter = ',')]
    subjects: Vec<Subject>,
    /// Jobs of a throughput run of the daemon; others get more or fewer, as they are faster or slower.
    #[arg(long, default_value_t = 60_000)]
    jobs: u64,
    /// Repetitions, interleaved.
    #[arg(long, default_value_t = 5)]
    repetitions: u32,
    /// Jobs of the low load, at 20 a second.
    #[arg(long, default_value_t = 600)]
    latency_jobs: u64,
    /// Jobs that wait, and jobs of the history.
    #[arg(long, default_value_t = 1_000_000)]
    many: u64,
    /// Open jobs of the recovery.
    #[arg(long, default_value_t = 100_000)]
    open: u64,
    /// The daemon's binary.
    #[arg(long, env = "CARGO_BIN_EXE_settled", default_value = env!("CARGO_BIN_EXE_settled"))]
    binary: PathBuf,
    /// Write docs/performance and the tables in docs/PERFORMANCE.md.
    #[arg(long)]
    write_docs: bool,
    /// Keep books and logs.
    #[arg(long)]
    keep: bool,
}

const PER_SECOND: u32 = 20;
/// Runs on a history and without.
const HISTORY_REPETITIONS: u32 = 3;
/// Jobs of the run whose syncs are counted.
const SYNC_JOBS: u64 = 20_000;

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let Some(Role::Role { name }) = cli.role else {
        return tokio::runtime::Runtime::new()?.block_on(measure(&cli.measure));
    };
    match name {
        RoleName::Sink => tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?
            .block_on(sink::serve()),
        RoleName::Ceiling => tokio::runtime::Runtime::new()?.block_on(ceiling::run()),
        RoleName::ConsumeOnly => tokio::runtime::Runtime::new()?.block_on(ceiling::consume_only()),
    }
}

async fn measure(options: &Measure) -> anyhow::Result<()> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let bench = Bench::new(&root, &options.binary, options.keep)?;
    let mut report = Report::new(&bench)?;
    let measured = measure_into(&mut report, &bench, options).await;
    // What was measured before something failed is not thrown away.
    report.write(&root, options.write_docs && measured.is_ok())?;
    measured
}

async fn measure_into(report: &mut Report, bench: &Bench, options: &Measure) -> anyhow::Result<()> {
    let wanted = |scenario| options.only.is_empty() || options.only.contains(&scenario);
    let subjects =
        if options.subjects.is_empty() { &Subject::COMPARED[..] } else { &options.subjects };
    if wanted(Scenario::Parts) {
        report.parts = Some(parts::parts(bench, options.jobs).await?);
    }
    if wanted(Scenario::Throughput) {
        report.throughput =
            scenario::throughput(bench, subjects, options.jobs, options.repetitions).await?;
    }
    if wanted(Scenario::Latency) {
        report.paced = Some(parts::paced::paced(bench, options.latency_jobs, PER_SECOND).await?);
        for &subject in subjects {
            let jobs = options.latency_jobs;
            let latency = match subject {
                Subject::Daemon | Subject::DaemonVerifying => {
                    scenario::latency(bench, subject, jobs, PER_SECOND).await?
                }
                Subject::Ceiling | Subject::NodeBest => {
                    scenario::latency_of_peer(bench, subject, jobs, PER_SECOND).await?
                }
                Subject::NodePlain | Subject::Python | Subject::ConsumeOnly => continue,
            };
            report.latency.push(latency);
        }
    }
    if wanted(Scenario::Syncs) {
        report.syncs = scenario::syncs(bench, SYNC_JOBS.min(options.jobs)).await?;
    }
    if wanted(Scenario::Recovery) {
        report.recovery = Some(scenario::recovery(bench, options.open).await?);
    }
    if wanted(Scenario::Backlog) {
        report.backlog = Some(scenario::backlog(bench, options.many).await?);
    }
    if wanted(Scenario::History) {
        let history = scenario::history(bench, options.many, options.jobs, HISTORY_REPETITIONS);
        report.history = Some(history.await?);
    }
    if wanted(Scenario::Profile) {
        report.profile = profile::profile(bench, options.jobs).await?;
    }
    Ok(())
}
