//! What is counted while it happens, and what a scrape shows beside it.

mod alerts;
mod compare;
mod feed;
mod process;
mod shown;
mod traces;
mod verify;

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use prometheus_client::{
    encoding::{
        EncodeLabelSet,
        text::{encode_eof, encode_registry},
    },
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
        info::Info,
    },
    registry::{Registry, Unit},
};

use crate::{
    domain::{
        action::ActionKind, decision::Outcome, job::JobType, message::RefusalCode, reply::Verdict,
        state::Doubt, time::TimestampMs,
    },
    health::BrokerSide,
    oes::Operation,
};
use alerts::AlertMetrics;
use compare::Comparisons;
use feed::FeedMetrics;
use process::ProcessCollector;
use shown::Shown;
use traces::TraceMetrics;
use verify::Verifications;

pub use shown::{CURRENCIES_SHOWN_MAX, Snapshot};
pub use traces::SpanFate;

/// Prefix of every metric but those of the process, which have names of their own everywhere.
const PREFIX: &str = "settled";

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CodeLabels {
    code: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DecisionLabels {
    r#type: &'static str,
    outcome: &'static str,
    reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CauseLabels {
    cause: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CurrencyLabels {
    currency: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    operation: &'static str,
    status: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OperationLabels {
    operation: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct JobLabels {
    r#type: &'static str,
    outcome: &'static str,
}

type OfOperation = Family<OperationLabels, Histogram, fn() -> Histogram>;
type OfJob = Family<JobLabels, Histogram, fn() -> Histogram>;

/// All metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Mutex<Registry>,
    process: Mutex<Registry>,
    usage: ProcessCollector,
    shown: Shown,
    comparisons: Comparisons,
    alerts: AlertMetrics,
    feed: FeedMetrics,
    traces: TraceMetrics,
    messages: Family<ResultLabels, Counter>,
    refused: Family<CodeLabels, Counter>,
    decisions: Family<DecisionLabels, Counter>,
    job_duration: OfJob,
    attempts: Family<ResultLabels, Counter>,
    requests: Family<RequestLabels, Counter>,
    request_duration: OfOperation,
    rate_limit_wait: OfOperation,
    published: Family<KindLabels, Counter>,
    publish_refused: Counter,
    sessions_lost: Family<KindLabels, Counter>,
    batch_commands: Histogram,
    commit_duration: Histogram,
    overdrawn: Counter,
    actions: Family<KindLabels, Counter>,
    verifications: Verifications,
    shortfalls: Counter,
    last_shortfall: Mutex<Option<Instant>>,
    log_bytes: Gauge,
    archived_jobs: Counter,
    archive_failures: Counter,
    archive_failures_in_a_row: AtomicU32,
    archived_at: Gauge<f64, AtomicU64>,
}

fn seconds() -> Histogram {
    // 0.25 ms to 32 s.
    Histogram::new(exponential_buckets(0.000_25, 2.0, 18))
}

/// From the arrival of a job to its end: half a second is good, and a day is possible.
fn life() -> Histogram {
    // 2 ms to 9 hours.
    Histogram::new(exponential_buckets(0.002, 4.0, 13))
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Metrics that have counted nothing yet. Every label that is known is there from the start, so
    /// that a rate over it works from the first event on.
    #[must_use]
    pub fn new() -> Self {
        let metrics = Self {
            registry: Mutex::new(Registry::with_prefix(PREFIX)),
            process: Mutex::default(),
            usage: ProcessCollector::default(),
            shown: Shown::default(),
            comparisons: Comparisons::default(),
            alerts: AlertMetrics::default(),
            feed: FeedMetrics::default(),
            traces: TraceMetrics::default(),
            messages: Family::default(),
            refused: Family::default(),
            decisions: Family::default(),
            job_duration: Family::new_with_constructor(life),
            attempts: Family::default(),
            requests: Family::default(),
            request_duration: Family::new_with_constructor(seconds),
            rate_limit_wait: Family::new_with_constructor(seconds),
            published: Family::default(),
            publish_refused: Counter::default(),
            sessions_lost: Family::default(),
            batch_commands: Histogram::new(exponential_buckets(1.0, 2.0, 11)),
            commit_duration: seconds(),
            overdrawn: Counter::default(),
            actions: Family::default(),
            verifications: Verifications::default(),
            shortfalls: Counter::default(),
            last_shortfall: Mutex::default(),
            log_bytes: Gauge::default(),
            archived_jobs: Counter::default(),
            archive_failures: Counter::default(),
            archive_failures_in_a_row: AtomicU32::new(0),
            archived_at: Gauge::default(),
        };
        metrics.register();
        metrics.touch_known_labels();
        metrics
    }

    fn register(&self) {
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        self.register_jobs(&mut registry);
        self.register_ways_out(&mut registry);
        self.register_store(&mut registry);
        self.shown.register(&mut registry);
        self.comparisons.register(&mut registry);
        self.alerts.register(&mut registry);
        self.feed.register(&mut registry);
        self.traces.register(&mut registry);
        self.verifications.register(&mut registry);
        let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        process.register_collector(Box::new(self.usage.clone()));
    }

    fn register_jobs(&self, registry: &mut Registry) {
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The program that runs", version);
        let help = "Deliveries from the jobs queue, by what became of them";
        registry.register("messages", help, self.messages.clone());
        let help = "Deliveries that were quarantined, by kind of fault";
        registry.register("messages_refused", help, self.refused.clone());
        let help = "Decisions, by type, outcome and reason";
        registry.register("decisions", help, self.decisions.clone());
        let help = "From the arrival of a job to its end at OES, by type and outcome";
        let metric = self.job_duration.clone();
        registry.register_with_unit("job_duration", help, Unit::Seconds, metric);
        let help = "Times that a fed fact took an available balance below zero";
        registry.register("balances_overdrawn", help, self.overdrawn.clone());
        let help = "Deallocations that OES cleared although they were released here, and that the \
                    book could not cover";
        registry.register("shortfalls", help, self.shortfalls.clone());
    }

    /// What goes to OES and to the broker.
    fn register_ways_out(&self, registry: &mut Registry) {
        let help = "Updates sent to OES, by what the answer meant";
        registry.register("attempts", help, self.attempts.clone());
        let help =
            "Requests to OES, by operation and class of the answer's status; none: no answer";
        registry.register("oes_requests", help, self.requests.clone());
        let help = "From sending a request to OES to the end of its answer, by operation";
        let metric = self.request_duration.clone();
        registry.register_with_unit("oes_request_duration", help, Unit::Seconds, metric);
        let help = "How long a request waited for its place under OES's rate limit, by operation; \
                    those that had not to wait are not counted";
        let metric = self.rate_limit_wait.clone();
        registry.register_with_unit("rate_limit_wait", help, Unit::Seconds, metric);
        let help = "Messages that the broker confirmed, by kind";
        registry.register("published", help, self.published.clone());
        let help = "Messages that the broker did not take; they are tried again";
        registry.register("publish_refused", help, self.publish_refused.clone());
        let help = "Sessions with the broker that ended unasked or could not be opened, by use";
        registry.register("broker_sessions_lost", help, self.sessions_lost.clone());
        let help = "Operators' actions that changed something, by kind";
        registry.register("operator_actions", help, self.actions.clone());
    }

    fn register_store(&self, registry: &mut Registry) {
        let help = "Length of the write-ahead log beside the database, as last looked at";
        registry.register_with_unit("store_log", help, Unit::Bytes, self.log_bytes.clone());
        let help = "Commands that shared a commit";
        registry.register("writer_batch_commands", help, self.batch_commands.clone());
        let help = "From the first row of a batch to its commit";
        let metric = self.commit_duration.clone();
        registry.register_with_unit("writer_commit_duration", help, Unit::Seconds, metric);
        let help = "Jobs whose history went into the archive";
        registry.register("archived_jobs", help, self.archived_jobs.clone());
        let help = "Times that history could not go into the archive; the book keeps it";
        registry.register("archive_failures", help, self.archive_failures.clone());
        let help = "When everything that is old enough had last gone into the archive";
        let metric = self.archived_at.clone();
        registry.register_with_unit("archive_last_run_timestamp", help, Unit::Seconds, metric);
    }

    fn touch_known_labels(&self) {
        for result in ["new", "repeated", "contradicts", "refused"] {
            drop(self.messages.get_or_create(&ResultLabels { result }));
        }
        for code in RefusalCode::ALL {
            drop(self.refused.get_or_create(&CodeLabels { code: code.as_str() }));
        }
        let verdicts = [Verdict::Accepted, Verdict::ApprovalPending, Verdict::TurnedAway]
            .into_iter()
            .chain(Doubt::ALL.into_iter().map(Verdict::Doubtful));
        for verdict in verdicts {
            drop(self.attempts.get_or_create(&ResultLabels { result: verdict.as_str() }));
        }
        for kind in ActionKind::ALL {
            drop(self.actions.get_or_create(&KindLabels { kind: kind.as_str() }));
        }
        for kind in ["outcome", "dead_letter"] {
            drop(self.published.get_or_create(&KindLabels { kind }));
        }
        for side in BrokerSide::ALL {
            drop(self.sessions_lost.get_or_create(&KindLabels { kind: side.as_str() }));
        }
        for operation in Operation::ALL {
            let operation = operation.as_str();
            drop(self.request_duration.get_or_create(&OperationLabels { operation }));
        }
        for operation in [Operation::Update, Operation::Read].map(Operation::as_str) {
            drop(self.rate_limit_wait.get_or_create(&OperationLabels { operation }));
        }
        for r#type in JobType::ALL.map(JobType::as_str) {
            for outcome in [Outcome::Cleared, Outcome::Released].map(Outcome::as_str) {
                drop(self.job_duration.get_or_create(&JobLabels { r#type, outcome }));
            }
        }
        self.shown.touch_known_labels();
    }

    /// A delivery, by what became of it.
    pub fn message(&self, result: &'static str) {
        self.messages.get_or_create(&ResultLabels { result }).inc();
    }

    /// A delivery that was quarantined.
    pub fn refused(&self, code: RefusalCode) {
        self.refused.get_or_create(&CodeLabels { code: code.as_str() }).inc();
    }

    /// A decision.
    pub fn decision(&self, job_type: JobType, outcome: Outcome, reason: Option<&str>) {
        self.decisions
            .get_or_create(&DecisionLabels {
                r#type: job_type.as_str(),
                outcome: outcome.as_str(),
                reason: reason.unwrap_or("none").to_owned(),
            })
            .inc();
    }

    /// A record that has ended.
    pub fn job_ended(&self, job_type: JobType, outcome: Outcome, took: Duration) {
        let labels = JobLabels { r#type: job_type.as_str(), outcome: outcome.as_str() };
        self.job_duration.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// An update that was sent.
    pub fn attempt(&self, verdict: Verdict) {
        self.attempts.get_or_create(&ResultLabels { result: verdict.as_str() }).inc();
    }

    /// A request to OES that was answered with a status, or with nothing.
    pub fn oes_request(&self, operation: Operation, status: Option<u16>, took: Duration) {
        let status = match status {
            None => "none",
            Some(429) => "429",
            Some(100..=199) => "1xx",
            Some(200..=299) => "2xx",
            Some(300..=399) => "3xx",
            Some(400..=499) => "4xx",
            Some(_) => "5xx",
        };
        let operation = operation.as_str();
        self.requests.get_or_create(&RequestLabels { operation, status }).inc();
        let labels = OperationLabels { operation };
        self.request_duration.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// A request that waited for its place under the rate limit.
    pub fn rate_limit_waited(&self, operation: Operation, waited: Duration) {
        let labels = OperationLabels { operation: operation.as_str() };
        self.rate_limit_wait.get_or_create(&labels).observe(waited.as_secs_f64());
    }

    /// A session with the broker that is over, or could not be opened.
    pub fn session_lost(&self, side: BrokerSide) {
        self.sessions_lost.get_or_create(&KindLabels { kind: side.as_str() }).inc();
    }

    /// A message that the broker confirmed.
    pub fn published(&self, kind: &'static str) {
        self.published.get_or_create(&KindLabels { kind }).inc();
    }

    /// A message that the broker did not take.
    pub fn publish_refused(&self) {
        self.publish_refused.inc();
    }

    /// A balance that went below zero.
    pub fn overdrawn(&self) {
        self.overdrawn.inc();
    }

    /// An operator's action that changed something.
    pub fn operator_acted(&self, kind: ActionKind) {
        self.actions.get_or_create(&KindLabels { kind: kind.as_str() }).inc();
    }

    /// A deallocation that OES cleared and the book cannot cover.
    pub fn shortfall(&self) {
        self.shortfalls.inc();
        let mut last = self.last_shortfall.lock().unwrap_or_else(PoisonError::into_inner);
        *last = Some(Instant::now());
    }

    /// How long ago that last happened, in this process's life.
    #[must_use]
    pub fn shortfall_ago(&self) -> Option<Duration> {
        let last = self.last_shortfall.lock().unwrap_or_else(PoisonError::into_inner);
        last.map(|at| at.elapsed())
    }

    /// How long the log beside the database is.
    pub fn log_is(&self, bytes: u64) {
        self.log_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// Jobs whose history went into the archive.
    pub fn archived(&self, jobs: usize) {
        self.archived_jobs.inc_by(u64::try_from(jobs).unwrap_or(u64::MAX));
    }

    /// Everything that is old enough is in the archive.
    pub fn archived_all(&self, now: TimestampMs) {
        let since_epoch = now.since(TimestampMs::from_millis(0));
        self.archived_at.set(since_epoch.as_secs_f64());
        self.archive_failures_in_a_row.store(0, Ordering::Relaxed);
    }

    /// History could not go into the archive.
    pub fn archive_failed(&self) {
        self.archive_failures.inc();
        self.archive_failures_in_a_row.fetch_add(1, Ordering::Relaxed);
    }

    /// How often history could not go into the archive, one time after another.
    #[must_use]
    pub fn archiving_failing(&self) -> u32 {
        self.archive_failures_in_a_row.load(Ordering::Relaxed)
    }

    /// How long the log beside the database was when it was last looked at, in bytes.
    #[must_use]
    pub fn log_bytes(&self) -> u64 {
        u64::try_from(self.log_bytes.get()).unwrap_or(0)
    }

    /// A batch that was committed.
    pub fn committed(&self, commands: usize, took: Duration) {
        self.batch_commands.observe(f64::from(u32::try_from(commands).unwrap_or(u32::MAX)));
        self.commit_duration.observe(took.as_secs_f64());
    }

    /// All metrics in the Prometheus text format, with the gauges as `snapshot` has them.
    ///
    /// # Errors
    /// Never for a string; the encoder's signature has an error.
    pub fn encode(&self, snapshot: &Snapshot, now: TimestampMs) -> Result<String, std::fmt::Error> {
        self.usage.set_now(now);
        self.shown.show(snapshot, now);
        self.comparisons.show(&snapshot.comparisons);
        self.feed.show(&snapshot.gate, &snapshot.feeds);
        self.verifications.show(snapshot.verification_waiting);
        let mut text = String::new();
        for registry in [&self.registry, &self.process] {
            let registry = registry.lock().unwrap_or_else(PoisonError::into_inner);
            encode_registry(&mut text, &registry)?;
        }
        encode_eof(&mut text)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests;
