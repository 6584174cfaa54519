//! What is counted of comparisons with OES.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError, atomic::AtomicU64},
};

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};

use super::{CurrencyLabels, KindLabels, Metrics, ResultLabels};
use crate::{
    domain::{difference::FindingKind, sync::SyncKind, time::TimestampMs},
    store::runs::{PastRuns, RunResult},
};

/// What can fail on a schedule.
const COMPARISONS: [&str; 3] = ["sync", "sweep", "reconcile"];

#[derive(Debug)]
pub(super) struct Comparisons {
    sync_differences: Family<KindLabels, Gauge>,
    synced_at: Gauge<f64, AtomicU64>,
    without_job: Gauge,
    swept_at: Gauge<f64, AtomicU64>,
    at_risk: Family<CurrencyLabels, Gauge<f64, AtomicU64>>,
    adopted: Counter,
    runs: Family<ResultLabels, Counter>,
    failed: Family<KindLabels, Counter>,
    differences: Family<KindLabels, Gauge>,
    compared_at: Gauge<f64, AtomicU64>,
    in_a_row: Mutex<BTreeMap<&'static str, u32>>,
}

impl Default for Comparisons {
    fn default() -> Self {
        let new = Self {
            sync_differences: Family::default(),
            synced_at: Gauge::default(),
            without_job: Gauge::default(),
            swept_at: Gauge::default(),
            at_risk: Family::default(),
            adopted: Counter::default(),
            runs: Family::default(),
            failed: Family::default(),
            differences: Family::default(),
            compared_at: Gauge::default(),
            in_a_row: Mutex::default(),
        };
        for kind in SyncKind::ALL {
            drop(new.sync_differences.get_or_create(&KindLabels { kind: kind.as_str() }));
        }
        for kind in FindingKind::ALL {
            drop(new.differences.get_or_create(&KindLabels { kind: kind.as_str() }));
        }
        for result in RunResult::ALL {
            drop(new.runs.get_or_create(&ResultLabels { result: result.as_str() }));
        }
        for kind in COMPARISONS {
            drop(new.failed.get_or_create(&KindLabels { kind }));
        }
        new
    }
}

/// Seconds since the epoch, as Prometheus has times; nothing has happened at 0.
fn seconds(at: Option<TimestampMs>) -> f64 {
    let since_epoch = at.unwrap_or_default().since(TimestampMs::from_millis(0));
    since_epoch.as_secs_f64()
}

impl Comparisons {
    pub(super) fn register(&self, registry: &mut Registry) {
        let help = "What differed between the book's connections and currencies and OES's when they \
                    were last compared, and is left, by kind";
        registry.register("sync_differences", help, self.sync_differences.clone());
        let help = "When connections and currencies were last compared by this process";
        let metric = self.synced_at.clone();
        registry.register_with_unit("sync_last_timestamp", help, Unit::Seconds, metric);
        let help = "Records that OES held as reserved at the last look and that have no job here";
        registry.register("records_without_job", help, self.without_job.clone());
        let help = "When OES was last asked for reserved records by this process";
        let metric = self.swept_at.clone();
        registry.register_with_unit("sweep_last_timestamp", help, Unit::Seconds, metric);
        let help = "How much those records move, base units, by currency";
        registry.register("records_without_job_quantity", help, self.at_risk.clone());
        let help = "Records without a job that were taken in";
        registry.register("records_adopted", help, self.adopted.clone());
        let help = "Comparisons of jobs and balances with OES, by how they ended";
        registry.register("reconcile_runs", help, self.runs.clone());
        let help = "Comparisons on the schedule that could not be done, by kind";
        registry.register("comparisons_failed", help, self.failed.clone());
        let help = "What the last comparison of jobs and balances with OES has found, by kind";
        registry.register("reconcile_findings", help, self.differences.clone());
        let help = "When jobs and balances were last compared with OES";
        let metric = self.compared_at.clone();
        registry.register_with_unit("reconcile_last_timestamp", help, Unit::Seconds, metric);
    }

    /// Shows what the book has written down of comparisons.
    pub(super) fn show(&self, past: &PastRuns) {
        for kind in FindingKind::ALL {
            let count = i64::try_from(past.count_of(kind)).unwrap_or(i64::MAX);
            self.differences.get_or_create(&KindLabels { kind: kind.as_str() }).set(count);
        }
        self.compared_at.set(seconds(past.compared_at));
    }
}

impl Metrics {
    /// Connections and currencies were compared; these differences are left.
    pub fn synced(&self, at: TimestampMs, left: impl IntoIterator<Item = SyncKind>) {
        let mut counts: BTreeMap<SyncKind, i64> = BTreeMap::new();
        for kind in left {
            let count = counts.entry(kind).or_default();
            *count = count.saturating_add(1);
        }
        let differences = &self.comparisons.sync_differences;
        for kind in SyncKind::ALL {
            let count = counts.get(&kind).copied().unwrap_or(0);
            differences.get_or_create(&KindLabels { kind: kind.as_str() }).set(count);
        }
        self.comparisons.synced_at.set(seconds(Some(at)));
    }

    /// OES was asked for records without a job; this many are left, and move this much.
    pub fn swept(&self, at: TimestampMs, without_job: usize, at_risk: &BTreeMap<String, String>) {
        self.comparisons.swept_at.set(seconds(Some(at)));
        self.comparisons.without_job.set(i64::try_from(without_job).unwrap_or(i64::MAX));
        self.comparisons.at_risk.clear();
        for (currency, quantity) in at_risk {
            let labels = CurrencyLabels { currency: currency.clone() };
            // A metric is a float; what is exact is in the findings.
            self.comparisons.at_risk.get_or_create(&labels).set(quantity.parse().unwrap_or(0.0));
        }
    }

    /// A record without a job was taken in.
    pub fn adopted(&self) {
        self.comparisons.adopted.inc();
    }

    /// A comparison of jobs and balances has ended.
    pub fn reconciled(&self, result: RunResult) {
        self.comparisons.runs.get_or_create(&ResultLabels { result: result.as_str() }).inc();
    }

    /// A comparison on the schedule could not be done.
    pub fn comparison_failed(&self, kind: &'static str) {
        self.comparisons.failed.get_or_create(&KindLabels { kind }).inc();
        let mut in_a_row = self.failures_in_a_row();
        let failures = in_a_row.entry(kind).or_default();
        *failures = failures.saturating_add(1);
    }

    /// A comparison on the schedule was done.
    pub fn comparison_done(&self, kind: &'static str) {
        self.failures_in_a_row().remove(kind);
    }

    fn failures_in_a_row(&self) -> MutexGuard<'_, BTreeMap<&'static str, u32>> {
        self.comparisons.in_a_row.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How often comparisons on the schedule have failed one after another, by kind.
    #[must_use]
    pub fn comparisons_failing(&self) -> Vec<(&'static str, u32)> {
        self.failures_in_a_row().iter().map(|(kind, failures)| (*kind, *failures)).collect()
    }

    /// Records without a job at the last look; nothing before this process has looked.
    #[must_use]
    pub fn records_without_job(&self) -> Option<u64> {
        let has_looked = self.comparisons.swept_at.get() > 0.0;
        has_looked.then(|| u64::try_from(self.comparisons.without_job.get()).unwrap_or(0))
    }

    /// Differences of connections and currencies that somebody should know of, at the last look; nothing
    /// before this process has looked.
    #[must_use]
    pub fn sync_differences(&self) -> Option<u64> {
        let has_looked = self.comparisons.synced_at.get() > 0.0;
        has_looked.then(|| {
            let kinds = SyncKind::ALL.into_iter().filter(|kind| kind.needs_attention());
            let count = |kind: SyncKind| {
                let labels = KindLabels { kind: kind.as_str() };
                self.comparisons.sync_differences.get_or_create(&labels).get()
            };
            kinds.map(|kind| u64::try_from(count(kind)).unwrap_or(0)).sum()
        })
    }
}
