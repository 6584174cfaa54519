//! What is counted while it happens. Gauges that can be read from the book are read at each scrape
//! (`web`), so that they are never out of step with it.

mod compare;
mod verify;

use std::{
    sync::{Mutex, PoisonError, atomic::AtomicI64},
    time::Duration,
};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
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
        decision::Outcome,
        job::JobType,
        message::RefusalCode,
        reply::Verdict,
        state::{Doubt, State},
        time::TimestampMs,
    },
    store::runs::PastRuns,
};
use compare::Comparisons;
use verify::Verifications;

/// Prefix of every metric.
const PREFIX: &str = "settled";

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    state: String,
    r#type: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateOnly {
    state: String,
}

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

/// What a scrape reads from the book and from the sender.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Jobs by state and type.
    pub jobs: Vec<(String, JobType, u64)>,
    /// The oldest open job of each state that has one.
    pub oldest: Vec<(String, TimestampMs)>,
    /// Released records that OES has not confirmed, and the oldest of them.
    pub released_unconfirmed: (u64, Option<TimestampMs>),
    /// Jobs that wait for an operator's approval, and since when the oldest does.
    pub approvals_waiting: (u64, Option<TimestampMs>),
    /// Messages that wait to be published.
    pub outbox_waiting: u64,
    /// Messages in quarantine.
    pub quarantined: u64,
    /// Why the sender is stopped, if it is.
    pub sender_stopped: Option<&'static str>,
    /// Whether jobs can be taken from the broker.
    pub consumer_connected: bool,
    /// Whether outcomes can be published to the broker.
    pub publisher_connected: bool,
    /// Whether the broker takes no messages at present.
    pub publisher_blocked: bool,
    /// How long the writer has been at its batch.
    pub batch_age: Duration,
    /// What the last comparison with OES has found.
    pub comparisons: PastRuns,
    /// How far the daemon's time is ahead of the machine's clock.
    pub clock_ahead: Duration,
    /// Jobs that wait for the read before their decision.
    pub verification_waiting: u64,
}

/// All metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Mutex<Registry>,
    messages: Family<ResultLabels, Counter>,
    refused: Family<CodeLabels, Counter>,
    decisions: Family<DecisionLabels, Counter>,
    attempts: Family<ResultLabels, Counter>,
    update_duration: Histogram,
    published: Family<KindLabels, Counter>,
    publish_refused: Counter,
    batch_commands: Histogram,
    commit_duration: Histogram,
    broker_connected: Family<KindLabels, Gauge>,
    publisher_blocked: Gauge,
    jobs: Family<StateLabels, Gauge>,
    oldest_age: Family<StateOnly, Gauge<f64, std::sync::atomic::AtomicU64>>,
    released_unconfirmed: Gauge,
    released_unconfirmed_age: Gauge<f64, std::sync::atomic::AtomicU64>,
    approvals_waiting: Gauge,
    approvals_waiting_age: Gauge<f64, std::sync::atomic::AtomicU64>,
    outbox_waiting: Gauge,
    quarantined: Gauge,
    sender_stopped: Family<CauseLabels, Gauge<i64, AtomicI64>>,
    batch_age: Gauge<f64, std::sync::atomic::AtomicU64>,
    clock_ahead: Gauge<f64, std::sync::atomic::AtomicU64>,
    overdrawn: Counter,
    comparisons: Comparisons,
    verifications: Verifications,
    log_bytes: Gauge,
    archived_jobs: Counter,
    archive_failures: Counter,
    archived_at: Gauge<f64, std::sync::atomic::AtomicU64>,
}

/// Reasons for which the sender can be stopped, for the gauge that has a line for each.
const STOP_CAUSES: [&str; 4] = ["signer", "token_refused", "updates_forbidden", "rate_limited"];

fn seconds() -> Histogram {
    // 0.25 ms to 32 s.
    Histogram::new(exponential_buckets(0.000_25, 2.0, 18))
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
            messages: Family::default(),
            refused: Family::default(),
            decisions: Family::default(),
            attempts: Family::default(),
            update_duration: seconds(),
            published: Family::default(),
            publish_refused: Counter::default(),
            batch_commands: Histogram::new(exponential_buckets(1.0, 2.0, 11)),
            commit_duration: seconds(),
            broker_connected: Family::default(),
            publisher_blocked: Gauge::default(),
            jobs: Family::default(),
            oldest_age: Family::default(),
            released_unconfirmed: Gauge::default(),
            released_unconfirmed_age: Gauge::default(),
            approvals_waiting: Gauge::default(),
            approvals_waiting_age: Gauge::default(),
            outbox_waiting: Gauge::default(),
            quarantined: Gauge::default(),
            sender_stopped: Family::default(),
            batch_age: Gauge::default(),
            clock_ahead: Gauge::default(),
            overdrawn: Counter::default(),
            comparisons: Comparisons::default(),
            verifications: Verifications::default(),
            log_bytes: Gauge::default(),
            archived_jobs: Counter::default(),
            archive_failures: Counter::default(),
            archived_at: Gauge::default(),
        };
        metrics.register();
        metrics.touch_known_labels();
        metrics
    }

    fn register(&self) {
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        self.register_counts(&mut registry);
        self.register_gauges(&mut registry);
        self.comparisons.register(&mut registry);
        self.verifications.register(&mut registry);
    }

    fn register_counts(&self, registry: &mut Registry) {
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The program that runs", version);
        let help = "Deliveries from the jobs queue, by what became of them";
        registry.register("messages", help, self.messages.clone());
        let help = "Deliveries that were quarantined, by kind of fault";
        registry.register("messages_refused", help, self.refused.clone());
        let help = "Decisions, by type, outcome and reason";
        registry.register("decisions", help, self.decisions.clone());
        let help = "Updates sent to OES, by what the answer meant";
        registry.register("attempts", help, self.attempts.clone());
        let help = "From sending an update to its answer";
        let metric = self.update_duration.clone();
        registry.register_with_unit("oes_update_duration", help, Unit::Seconds, metric);
        let help = "Messages that the broker confirmed, by kind";
        registry.register("published", help, self.published.clone());
        let help = "Messages that the broker did not take; they are tried again";
        registry.register("publish_refused", help, self.publish_refused.clone());
        let help = "Times that a fed fact took an available balance below zero";
        registry.register("balances_overdrawn", help, self.overdrawn.clone());
        let help = "Length of the write-ahead log beside the database, as last looked at";
        registry.register_with_unit("store_log", help, Unit::Bytes, self.log_bytes.clone());
        let help = "Jobs whose history went into the archive";
        registry.register("archived_jobs", help, self.archived_jobs.clone());
        let help = "Times that history could not go into the archive; the book keeps it";
        registry.register("archive_failures", help, self.archive_failures.clone());
        let help = "When everything that is old enough had last gone into the archive";
        let metric = self.archived_at.clone();
        registry.register_with_unit("archive_last_run_timestamp", help, Unit::Seconds, metric);
        let help = "Commands that shared a commit";
        registry.register("writer_batch_commands", help, self.batch_commands.clone());
        let help = "From the first row of a batch to its commit";
        let metric = self.commit_duration.clone();
        registry.register_with_unit("writer_commit_duration", help, Unit::Seconds, metric);
    }

    fn register_gauges(&self, registry: &mut Registry) {
        let help = "Whether the connection to the broker is up, by its use";
        registry.register("broker_connected", help, self.broker_connected.clone());
        let help = "Whether the broker takes no messages: it is short of memory or disk";
        registry.register("publisher_blocked", help, self.publisher_blocked.clone());
        registry.register("jobs", "Jobs, by state and type", self.jobs.clone());
        let help = "Age of the oldest open job, by state";
        registry.register_with_unit("oldest_job_age", help, Unit::Seconds, self.oldest_age.clone());
        let help = "Released records that OES has not confirmed: their clients' funds are stuck";
        registry.register("released_unconfirmed_jobs", help, self.released_unconfirmed.clone());
        registry.register_with_unit(
            "released_unconfirmed_oldest_age",
            "Age of the oldest of them",
            Unit::Seconds,
            self.released_unconfirmed_age.clone(),
        );
        let help = "Jobs that wait for an operator's approval; they are parked";
        registry.register("approvals_waiting_jobs", help, self.approvals_waiting.clone());
        let help = "How long the oldest of them has waited";
        let metric = self.approvals_waiting_age.clone();
        registry.register_with_unit("approvals_waiting_oldest_age", help, Unit::Seconds, metric);
        let help = "Messages that wait to be published";
        registry.register("outbox_waiting", help, self.outbox_waiting.clone());
        let help = "Different bad messages in quarantine";
        registry.register("quarantined_messages", help, self.quarantined.clone());
        let help = "Whether nothing is sent to OES, by cause";
        registry.register("sender_stopped", help, self.sender_stopped.clone());
        let help =
            "How long the writer has been at its batch: the disk or another program holds it up";
        let metric = self.batch_age.clone();
        registry.register_with_unit("writer_batch_age", help, Unit::Seconds, metric);
        let help = "How far the daemon's time is ahead of the machine's clock, which was set back";
        registry.register_with_unit("clock_ahead", help, Unit::Seconds, self.clock_ahead.clone());
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
        for kind in ["outcome", "dead_letter"] {
            drop(self.published.get_or_create(&KindLabels { kind }));
        }
        for state in State::NAMES {
            for job_type in JobType::ALL {
                drop(self.jobs.get_or_create(&StateLabels {
                    state: state.to_owned(),
                    r#type: job_type.as_str(),
                }));
            }
        }
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

    /// An update that was sent.
    pub fn attempt(&self, verdict: Verdict, took: Duration) {
        self.attempts.get_or_create(&ResultLabels { result: verdict.as_str() }).inc();
        self.update_duration.observe(took.as_secs_f64());
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
    }

    /// History could not go into the archive.
    pub fn archive_failed(&self) {
        self.archive_failures.inc();
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
        let gauge = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        for (state, job_type, jobs) in &snapshot.jobs {
            let labels = StateLabels { state: state.clone(), r#type: job_type.as_str() };
            self.jobs.get_or_create(&labels).set(gauge(*jobs));
        }
        for state in State::NAMES {
            let oldest = snapshot.oldest.iter().find(|(name, _)| name == state);
            let age = oldest.map_or(Duration::ZERO, |(_, since)| now.since(*since));
            let labels = StateOnly { state: state.to_owned() };
            self.oldest_age.get_or_create(&labels).set(age.as_secs_f64());
        }
        let (jobs, oldest) = snapshot.released_unconfirmed;
        self.released_unconfirmed.set(gauge(jobs));
        let age = oldest.map_or(Duration::ZERO, |since| now.since(since));
        self.released_unconfirmed_age.set(age.as_secs_f64());
        let (jobs, oldest) = snapshot.approvals_waiting;
        self.approvals_waiting.set(gauge(jobs));
        let age = oldest.map_or(Duration::ZERO, |since| now.since(since));
        self.approvals_waiting_age.set(age.as_secs_f64());
        self.outbox_waiting.set(gauge(snapshot.outbox_waiting));
        self.quarantined.set(gauge(snapshot.quarantined));
        for (kind, connected) in
            [("consumer", snapshot.consumer_connected), ("publisher", snapshot.publisher_connected)]
        {
            self.broker_connected.get_or_create(&KindLabels { kind }).set(i64::from(connected));
        }
        self.publisher_blocked.set(i64::from(snapshot.publisher_blocked));
        self.batch_age.set(snapshot.batch_age.as_secs_f64());
        self.comparisons.show(&snapshot.comparisons);
        self.verifications.show(snapshot.verification_waiting);
        self.clock_ahead.set(snapshot.clock_ahead.as_secs_f64());
        for cause in STOP_CAUSES {
            let stopped = snapshot.sender_stopped == Some(cause);
            self.sender_stopped.get_or_create(&CauseLabels { cause }).set(i64::from(stopped));
        }
        let mut text = String::new();
        encode(&mut text, &self.registry.lock().unwrap_or_else(PoisonError::into_inner))?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_conventions_and_known_labels_are_there_from_the_start() {
        let metrics = Metrics::new();
        metrics.attempt(Verdict::Accepted, Duration::from_millis(3));
        let snapshot = Snapshot {
            released_unconfirmed: (2, Some(TimestampMs::from_millis(1_000))),
            approvals_waiting: (3, Some(TimestampMs::from_millis(31_000))),
            verification_waiting: 4,
            ..Snapshot::default()
        };
        let text = metrics.encode(&snapshot, TimestampMs::from_millis(61_000)).unwrap();
        for line in [
            "settled_attempts_total{result=\"accepted\"} 1",
            "settled_attempts_total{result=\"no_reply\"} 0",
            "settled_jobs{state=\"parked\",type=\"allocation\"} 0",
            "settled_released_unconfirmed_jobs 2",
            "settled_released_unconfirmed_oldest_age_seconds 60.0",
            "settled_approvals_waiting_jobs 3",
            "settled_approvals_waiting_oldest_age_seconds 30.0",
            "settled_oes_update_duration_seconds_count 1",
            "settled_sender_stopped{cause=\"token_refused\"} 0",
            "settled_oes_reads_total{purpose=\"verify\"} 0",
            "settled_jobs_refused_total 0",
            "settled_verification_waiting_jobs 4",
            "settled_messages_refused_total{code=\"not_as_at_oes\"} 0",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
    }
}
