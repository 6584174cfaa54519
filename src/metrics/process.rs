//! What the process itself uses, under the names that every Prometheus client has for it.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use procfs::{
    ProcResult, WithCurrentSystemInfo as _,
    process::{LimitValue, Process},
};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
};
use rustix::time::{ClockId, clock_gettime};

use crate::domain::time::TimestampMs;

/// Read from the process's own part of `/proc` at each scrape: a hardened service sees no other.
#[derive(Clone, Debug, Default)]
pub(super) struct ProcessCollector {
    now_ms: Arc<AtomicI64>,
}

impl ProcessCollector {
    /// What time it is at the scrape that comes next.
    pub(super) fn set_now(&self, now: TimestampMs) {
        self.now_ms.store(now.as_millis(), Ordering::Relaxed);
    }
}

/// What is read. All of it, or nothing: half a picture would look like a change.
struct Usage {
    cpu_s: f64,
    resident_bytes: u64,
    virtual_bytes: u64,
    threads: i64,
    open_files: u64,
    open_files_max: Option<u64>,
    age_s: f64,
}

/// A count that a float holds exactly for any machine that there is.
pub(super) fn float(count: u64) -> f64 {
    let (high, low) = (count >> 32, count & u64::from(u32::MAX));
    let half = |part: u64| f64::from(u32::try_from(part).unwrap_or(u32::MAX));
    half(high).mul_add(4_294_967_296.0, half(low))
}

impl Usage {
    fn read() -> ProcResult<Self> {
        let process = Process::myself()?;
        let stat = process.stat()?;
        let ticks_per_s = float(procfs::ticks_per_second().max(1));
        let since_boot = clock_gettime(ClockId::Boottime);
        let since_boot_s = float(u64::try_from(since_boot.tv_sec).unwrap_or(0));
        Ok(Self {
            cpu_s: float(stat.utime.saturating_add(stat.stime)) / ticks_per_s,
            resident_bytes: stat.rss_bytes().get(),
            virtual_bytes: stat.vsize,
            threads: stat.num_threads,
            open_files: u64::try_from(process.fd_count()?).unwrap_or(u64::MAX),
            open_files_max: match process.limits()?.max_open_files.soft_limit {
                LimitValue::Value(most) => Some(most),
                LimitValue::Unlimited => None,
            },
            age_s: (since_boot_s - float(stat.starttime) / ticks_per_s).max(0.0),
        })
    }
}

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        // Without a readable /proc there is nothing to show, and everything else still counts.
        let Ok(usage) = Usage::read() else { return Ok(()) };
        let counter = ConstCounter::new(usage.cpu_s);
        let help = "Time that the process has used, in user and kernel mode";
        // The unit is in the name, because these names are older than units are.
        let metric = encoder.encode_descriptor(
            "process_cpu_seconds",
            help,
            None,
            prometheus_client::metrics::MetricType::Counter,
        )?;
        counter.encode(metric)?;
        let mut gauge = |name: &str, help: &str, value: f64| {
            let kind = prometheus_client::metrics::MetricType::Gauge;
            let metric = encoder.encode_descriptor(name, help, None, kind)?;
            ConstGauge::new(value).encode(metric)
        };
        let resident = float(usage.resident_bytes);
        gauge("process_resident_memory_bytes", "Memory that is in RAM", resident)?;
        let reserved = float(usage.virtual_bytes);
        gauge("process_virtual_memory_bytes", "Memory that is reserved", reserved)?;
        let threads = float(u64::try_from(usage.threads).unwrap_or(0));
        gauge("process_threads", "Threads", threads)?;
        gauge("process_open_fds", "Open file descriptors", float(usage.open_files))?;
        if let Some(most) = usage.open_files_max {
            gauge("process_max_fds", "Most file descriptors that may be open", float(most))?;
        }
        let help = "When the process was started, seconds since the epoch";
        let now_ms = u64::try_from(self.now_ms.load(Ordering::Relaxed)).unwrap_or(0);
        let started_at_s = (float(now_ms) / 1_000.0 - usage.age_s).max(0.0);
        gauge("process_start_time_seconds", help, started_at_s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_process_uses_is_plausible() {
        let usage = Usage::read().unwrap();
        assert!(usage.resident_bytes > 100_000 && usage.virtual_bytes >= usage.resident_bytes);
        assert!(usage.threads >= 1 && usage.open_files >= 3);
        assert!(usage.cpu_s >= 0.0 && usage.age_s < 86_400.0);
        assert!((float(u64::MAX) - 1.8e19).abs() < 1e18);
        assert!((float(4_294_967_297) - 4_294_967_297.0).abs() < f64::EPSILON);
    }
}
