//! What is counted of reads, and of jobs whose message OES's record does not bear out.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use super::Metrics;
use crate::pipeline::read::Purpose;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PurposeLabels {
    purpose: &'static str,
}

/// Reads at OES, and what they find before a decision.
#[derive(Debug, Default)]
pub(super) struct Verifications {
    reads: Family<PurposeLabels, Counter>,
    jobs_refused: Counter,
    waiting: Gauge,
}

impl Verifications {
    pub(super) fn register(&self, registry: &mut Registry) {
        for purpose in Purpose::ALL {
            drop(self.reads.get_or_create(&PurposeLabels { purpose: purpose.as_str() }));
        }
        let help = "Reads sent to OES, by what they are for; each takes a piece of the rate limit";
        registry.register("oes_reads", help, self.reads.clone());
        let help = "Jobs that were refused because OES's record is not what their message says";
        registry.register("jobs_refused", help, self.jobs_refused.clone());
        let help = "Jobs that wait for the read of their record before they are decided";
        registry.register("verification_waiting_jobs", help, self.waiting.clone());
    }

    pub(super) fn show(&self, waiting: u64) {
        self.waiting.set(i64::try_from(waiting).unwrap_or(i64::MAX));
    }
}

impl Metrics {
    /// A read that is sent to OES.
    pub fn read(&self, purpose: Purpose) {
        let labels = PurposeLabels { purpose: purpose.as_str() };
        self.verifications.reads.get_or_create(&labels).inc();
    }

    /// A job that was refused.
    pub fn job_refused(&self) {
        self.verifications.jobs_refused.inc();
    }

    /// How many reads were sent for a purpose.
    #[must_use]
    pub fn reads(&self, purpose: Purpose) -> u64 {
        let labels = PurposeLabels { purpose: purpose.as_str() };
        self.verifications.reads.get_or_create(&labels).get()
    }
}
