//! What is counted of the exchange's feed, and how far the book is.

use std::sync::atomic::AtomicU64;

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};

use super::{CauseLabels, Metrics, ResultLabels};
use crate::{
    domain::lag::{GateView, Shut},
    store::query::FeedsAtWork,
};

/// What can become of an event.
const RESULTS: [&str; 7] =
    ["applied", "repeated", "old", "differs", "contradicts", "unknown_connection", "refused"];

#[derive(Debug, Default)]
pub(super) struct FeedMetrics {
    events: Family<ResultLabels, Counter>,
    gaps: Counter,
    differences: Counter,
    shut: Family<CauseLabels, Gauge>,
    backlog: Gauge,
    heartbeat_age: Gauge<f64, AtomicU64>,
    gaps_open: Gauge,
    differing: Gauge,
    unproven: Gauge,
}

impl FeedMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        let help = "Events of the exchange's feed, by what became of them";
        registry.register("feed_events", help, self.events.clone());
        let help = "Times that numbers of a connection's feed were found missing";
        registry.register("feed_gaps_found", help, self.gaps.clone());
        let help = "Snapshots of the exchange that differed from the book";
        registry.register("snapshot_differences_found", help, self.differences.clone());
        let help = "Whether nothing is decided because the book is not far enough, by cause";
        registry.register("book_gate_shut", help, self.shut.clone());
        let help = "Events that were in the feed's queue at the time of connecting and are not applied yet";
        registry.register("feed_backlog_events", help, self.backlog.clone());
        let help = "Age of the exchange's last heartbeat; 0 where none has come";
        let metric = self.heartbeat_age.clone();
        registry.register_with_unit("feed_heartbeat_age", help, Unit::Seconds, metric);
        let help = "Connections whose feed has missing numbers";
        registry.register("feed_gap_connections", help, self.gaps_open.clone());
        let help = "Connections whose last snapshot differs from the book";
        registry.register("snapshot_difference_connections", help, self.differing.clone());
        let help = "Connections that are not decided about since a restore";
        registry.register("unproven_connections", help, self.unproven.clone());
        for result in RESULTS {
            drop(self.events.get_or_create(&ResultLabels { result }));
        }
        for cause in Shut::CAUSES {
            drop(self.shut.get_or_create(&CauseLabels { cause }));
        }
    }

    /// Takes over what was read.
    pub(super) fn show(&self, gate: &GateView, feeds: &FeedsAtWork) {
        let gauge = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        for cause in Shut::CAUSES {
            let is_so = gate.shut.is_some_and(|shut| shut.as_str() == cause);
            self.shut.get_or_create(&CauseLabels { cause }).set(i64::from(is_so));
        }
        let left = if let Some(Shut::Backlog(left)) = gate.shut { left } else { 0 };
        self.backlog.set(gauge(left));
        self.heartbeat_age.set(gate.heartbeat_age.unwrap_or_default().as_secs_f64());
        self.gaps_open.set(gauge(feeds.with_gaps));
        self.differing.set(gauge(feeds.differing));
        self.unproven.set(gauge(feeds.unproven));
    }
}

impl Metrics {
    /// An event of the feed, by what became of it.
    pub fn fed(&self, result: &'static str) {
        self.feed.events.get_or_create(&ResultLabels { result }).inc();
    }

    /// Numbers of a feed that are missing.
    pub fn feed_gap(&self) {
        self.feed.gaps.inc();
    }

    /// A snapshot that differs.
    pub fn snapshot_difference(&self) {
        self.feed.differences.inc();
    }
}
