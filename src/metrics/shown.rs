//! Gauges that are read from the book and from the daemon's parts at each scrape, so that they are never
//! out of step with them.

use std::{
    sync::atomic::{AtomicI64, AtomicU64},
    time::Duration,
};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};

use super::{CauseLabels, CurrencyLabels, KindLabels};
use crate::{
    domain::{
        action::{Switch, Switches},
        amount::Balance,
        ids::CurrencyCode,
        job::JobType,
        lag::GateView,
        state::State,
        time::TimestampMs,
    },
    store::{query::FeedsAtWork, runs::PastRuns},
};

/// Reasons for which the sender can be stopped, for the gauge that has a line for each.
const STOP_CAUSES: [&str; 4] = ["signer", "token_refused", "updates_forbidden", "rate_limited"];

/// Most currencies that get a line of their own. Messages name currencies, and whoever publishes wrong
/// ones must not fill Prometheus.
pub const CURRENCIES_SHOWN_MAX: usize = 200;

/// What all further currencies together are called.
const OTHER_CURRENCIES: &str = "other";

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SwitchLabels {
    switch: &'static str,
}

type FloatGauge = Gauge<f64, AtomicU64>;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    state: String,
    r#type: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateOnly {
    state: String,
}

/// What a scrape reads from the book and from the daemon's parts.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Jobs by state and type.
    pub jobs: Vec<(String, JobType, u64)>,
    /// The oldest open job of each state that has one.
    pub oldest: Vec<(String, TimestampMs)>,
    /// What open records move, base units, by currency.
    pub at_risk: Vec<(CurrencyCode, Balance)>,
    /// Released records that OES has not confirmed, and the oldest of them.
    pub released_unconfirmed: (u64, Option<TimestampMs>),
    /// Those of them that are parked or in conflict.
    pub released_stuck: u64,
    /// Jobs that wait for an operator's approval, and since when the oldest does.
    pub approvals_waiting: (u64, Option<TimestampMs>),
    /// Messages that wait to be published, and since when the first does.
    pub outbox_waiting: (u64, Option<TimestampMs>),
    /// Messages in quarantine.
    pub quarantined: u64,
    /// Balances that are below zero.
    pub overdrawn: u64,
    /// Why the sender is stopped, if it is.
    pub sender_stopped: Option<&'static str>,
    /// What operators have switched off.
    pub switches: Switches,
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
    /// Notices of alerts that wait to be delivered, and since when the first does.
    pub notices_waiting: (u64, Option<TimestampMs>),
    /// Messages of the jobs queue that the broker has given up by itself, where that is known.
    pub dropped: Option<u64>,
    /// How far the daemon's time is ahead of the machine's clock.
    pub clock_ahead: Duration,
    /// Jobs that wait for the read before their decision.
    pub verification_waiting: u64,
    /// Whether the exchange's feed is consumed, where one is configured.
    pub feed_connected: Option<bool>,
    /// Whether the book is far enough for decisions.
    pub gate: GateView,
    /// Connections whose feeds need a look.
    pub feeds: FeedsAtWork,
    /// Room that is left on volumes that the daemon writes to, by what is there.
    pub free_bytes: Vec<(&'static str, u64)>,
}

#[derive(Debug, Default)]
pub(super) struct Shown {
    jobs: Family<StateLabels, Gauge>,
    oldest_age: Family<StateOnly, FloatGauge>,
    at_risk: Family<CurrencyLabels, FloatGauge>,
    released_unconfirmed: Gauge,
    released_unconfirmed_age: FloatGauge,
    released_stuck: Gauge,
    approvals_waiting: Gauge,
    approvals_waiting_age: FloatGauge,
    outbox_waiting: Gauge,
    outbox_age: FloatGauge,
    quarantined: Gauge,
    overdrawn: Gauge,
    notices_waiting: Gauge,
    notices_age: FloatGauge,
    dropped: Gauge,
    sender_stopped: Family<CauseLabels, Gauge<i64, AtomicI64>>,
    switches: Family<SwitchLabels, Gauge>,
    broker_connected: Family<KindLabels, Gauge>,
    publisher_blocked: Gauge,
    batch_age: FloatGauge,
    clock_ahead: FloatGauge,
    free_bytes: Family<KindLabels, FloatGauge>,
}

impl Shown {
    pub(super) fn register(&self, registry: &mut Registry) {
        self.register_jobs(registry);
        let help = "Messages that wait to be published";
        registry.register("outbox_waiting", help, self.outbox_waiting.clone());
        let (help, metric) = ("How long the first of them has waited", self.outbox_age.clone());
        registry.register_with_unit("outbox_oldest_age", help, Unit::Seconds, metric);
        let help = "Different bad messages in quarantine";
        registry.register("quarantined_messages", help, self.quarantined.clone());
        let help = "Balances whose available quantity is below zero";
        registry.register("overdrawn_balances", help, self.overdrawn.clone());
        let help = "Notices of alerts that wait to be delivered";
        registry.register("alert_notices_waiting", help, self.notices_waiting.clone());
        let (help, metric) = ("How long the first of them has waited", self.notices_age.clone());
        registry.register_with_unit("alert_notices_oldest_age", help, Unit::Seconds, metric);
        let help = "Messages of the jobs queue that the broker has given up by itself, and that nobody \
                    has taken from where it has put them";
        registry.register("dropped_messages", help, self.dropped.clone());
        let help = "Whether nothing is sent to OES, by cause";
        registry.register("sender_stopped", help, self.sender_stopped.clone());
        let help = "Whether an operator lets intake, signing and sending go on";
        registry.register("switch_on", help, self.switches.clone());
        let help = "Whether the connection to the broker is up, by its use";
        registry.register("broker_connected", help, self.broker_connected.clone());
        let help = "Whether the broker takes no messages: it is short of memory or disk";
        registry.register("publisher_blocked", help, self.publisher_blocked.clone());
        let help =
            "How long the writer has been at its batch: the disk or another program holds it up";
        let metric = self.batch_age.clone();
        registry.register_with_unit("writer_batch_age", help, Unit::Seconds, metric);
        let help = "How far the daemon's time is ahead of the machine's clock, which was set back";
        registry.register_with_unit("clock_ahead", help, Unit::Seconds, self.clock_ahead.clone());
        let help =
            "Room that is left on the volume of the book, its mark and its archive, by which";
        registry.register_with_unit("volume_free", help, Unit::Bytes, self.free_bytes.clone());
    }

    fn register_jobs(&self, registry: &mut Registry) {
        registry.register("jobs", "Jobs, by state and type", self.jobs.clone());
        let help = "Age of the oldest open job, by state";
        registry.register_with_unit("oldest_job_age", help, Unit::Seconds, self.oldest_age.clone());
        let help = "What open records move, base units, by currency: the amount at risk. A float; the \
                    book has it exactly";
        registry.register("open_jobs_quantity", help, self.at_risk.clone());
        let help = "Released records that OES has not confirmed: their clients' funds are stuck";
        registry.register("released_unconfirmed_jobs", help, self.released_unconfirmed.clone());
        registry.register_with_unit(
            "released_unconfirmed_oldest_age",
            "Age of the oldest of them",
            Unit::Seconds,
            self.released_unconfirmed_age.clone(),
        );
        let help = "Those of them that are parked or in conflict, and wait for a person";
        registry.register("released_stuck_jobs", help, self.released_stuck.clone());
        let help = "Jobs that wait for an operator's approval; they are parked";
        registry.register("approvals_waiting_jobs", help, self.approvals_waiting.clone());
        let help = "How long the oldest of them has waited";
        let metric = self.approvals_waiting_age.clone();
        registry.register_with_unit("approvals_waiting_oldest_age", help, Unit::Seconds, metric);
    }

    pub(super) fn touch_known_labels(&self) {
        for state in State::NAMES {
            for job_type in JobType::ALL {
                drop(self.jobs.get_or_create(&StateLabels {
                    state: state.to_owned(),
                    r#type: job_type.as_str(),
                }));
            }
        }
    }

    /// Takes over what was read.
    pub(super) fn show(&self, snapshot: &Snapshot, now: TimestampMs) {
        let gauge = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let age = |since: Option<TimestampMs>| {
            since.map_or(Duration::ZERO, |since| now.since(since)).as_secs_f64()
        };
        for (state, job_type, jobs) in &snapshot.jobs {
            let labels = StateLabels { state: state.clone(), r#type: job_type.as_str() };
            self.jobs.get_or_create(&labels).set(gauge(*jobs));
        }
        let open = State::NAMES.iter().filter(|state| !State::FINAL_NAMES.contains(state));
        for state in open {
            let oldest = snapshot.oldest.iter().find(|(name, _)| name == state);
            let labels = StateOnly { state: (*state).to_owned() };
            self.oldest_age.get_or_create(&labels).set(age(oldest.map(|(_, since)| *since)));
        }
        self.show_at_risk(&snapshot.at_risk);
        let (jobs, oldest) = snapshot.released_unconfirmed;
        self.released_unconfirmed.set(gauge(jobs));
        self.released_unconfirmed_age.set(age(oldest));
        self.released_stuck.set(gauge(snapshot.released_stuck));
        let (jobs, oldest) = snapshot.approvals_waiting;
        self.approvals_waiting.set(gauge(jobs));
        self.approvals_waiting_age.set(age(oldest));
        let (messages, oldest) = snapshot.outbox_waiting;
        self.outbox_waiting.set(gauge(messages));
        self.outbox_age.set(age(oldest));
        self.quarantined.set(gauge(snapshot.quarantined));
        self.overdrawn.set(gauge(snapshot.overdrawn));
        let (notices, oldest) = snapshot.notices_waiting;
        self.notices_waiting.set(gauge(notices));
        self.notices_age.set(age(oldest));
        self.dropped.set(gauge(snapshot.dropped.unwrap_or(0)));
        let sides = [
            ("consumer", Some(snapshot.consumer_connected)),
            ("publisher", Some(snapshot.publisher_connected)),
            ("feed", snapshot.feed_connected),
        ];
        for (kind, connected) in sides {
            let Some(connected) = connected else { continue };
            self.broker_connected.get_or_create(&KindLabels { kind }).set(i64::from(connected));
        }
        self.publisher_blocked.set(i64::from(snapshot.publisher_blocked));
        self.batch_age.set(snapshot.batch_age.as_secs_f64());
        self.clock_ahead.set(snapshot.clock_ahead.as_secs_f64());
        for cause in STOP_CAUSES {
            let stopped = snapshot.sender_stopped == Some(cause);
            self.sender_stopped.get_or_create(&CauseLabels { cause }).set(i64::from(stopped));
        }
        for switch in Switch::ALL {
            let labels = SwitchLabels { switch: switch.as_str() };
            self.switches.get_or_create(&labels).set(i64::from(snapshot.switches.is_on(switch)));
        }
        for (kind, bytes) in &snapshot.free_bytes {
            let free = super::process::float(*bytes);
            self.free_bytes.get_or_create(&KindLabels { kind }).set(free);
        }
    }

    fn show_at_risk(&self, at_risk: &[(CurrencyCode, Balance)]) {
        let mut others = 0.0;
        for (index, (currency, quantity)) in at_risk.iter().enumerate() {
            // A metric is a float; what is exact is in the book.
            let quantity: f64 = quantity.to_string().parse().unwrap_or(0.0);
            if index < CURRENCIES_SHOWN_MAX {
                let labels = CurrencyLabels { currency: currency.to_string() };
                self.at_risk.get_or_create(&labels).set(quantity);
            } else {
                others += quantity;
            }
        }
        if at_risk.len() > CURRENCIES_SHOWN_MAX {
            let labels = CurrencyLabels { currency: OTHER_CURRENCIES.to_owned() };
            self.at_risk.get_or_create(&labels).set(others);
        }
    }
}
