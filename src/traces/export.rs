//! The loop that takes steps from the queue and sends them, many with one request.
//!
//! A collector that is away is tried again with growing delays, and what is in the queue waits for it;
//! what it will never take is dropped. Either is logged once, until spans arrive again.

use std::{sync::Arc, time::Duration};

use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest, resource::v1::Resource,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    Happened,
    collector::{Collector, Undelivered},
    span::{self, WallClock},
};
use crate::{
    clock::Clock,
    config::TracesConfig,
    domain::schedule::Schedule,
    metrics::{Metrics, SpanFate},
};

/// Delays before the same spans are sent again: random, doubling from the first to the longest.
const AGAIN: Schedule = Schedule::new(Duration::from_secs(1), Duration::from_secs(30));

/// Longest time that what is left is sent for at the end.
const FLUSH_TIME_MAX: Duration = Duration::from_secs(2);

/// Takes steps from the queue, and sends them as spans.
pub struct Exporter {
    told: mpsc::Receiver<Happened>,
    /// Taken from the queue, and not made into a request yet.
    gathered: Vec<Happened>,
    /// Spans of the request that is under way.
    under_way: u64,
    collector: Collector,
    resource: Resource,
    every: Duration,
    batch_len_max: usize,
    wall: WallClock,
    trouble: Trouble,
    metrics: Arc<Metrics>,
    clock: Arc<dyn Clock>,
}

/// The daemon ends, and the collector does not take spans.
struct GivenUp;

impl Exporter {
    pub(super) fn new(
        config: &TracesConfig,
        collector: Collector,
        told: mpsc::Receiver<Happened>,
        ledger: Uuid,
        metrics: Arc<Metrics>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            told,
            gathered: Vec::new(),
            under_way: 0,
            collector,
            resource: span::resource(&config.service_name, ledger),
            every: Duration::from_millis(config.every_ms),
            batch_len_max: config.batch_len_max,
            wall: WallClock::new(clock.as_ref()),
            trouble: Trouble::default(),
            metrics,
            clock,
        }
    }

    /// Exports until the daemon ends, and then what is left, for a short time.
    pub async fn run(mut self, stop: CancellationToken) {
        tracing::info!(collector = %self.collector, "traces are exported");
        let flushed = async {
            stop.cancelled().await;
            tokio::time::sleep(FLUSH_TIME_MAX).await;
        };
        tokio::select! {
            () = self.export(&stop) => {}
            () = flushed => {}
        }
        self.told.close();
        let mut left = self.under_way;
        while let Ok(happened) = self.told.try_recv() {
            self.gathered.push(happened);
        }
        left = self
            .gathered
            .iter()
            .fold(left, |left, happened| left.saturating_add(happened.step.spans_count()));
        if left > 0 {
            self.metrics.trace_spans(SpanFate::AtEnd, left);
            tracing::warn!(spans = left, "spans that were not exported before the end are dropped");
        }
    }

    async fn export(&mut self, stop: &CancellationToken) {
        loop {
            self.gather(stop).await;
            if self.gathered.is_empty() {
                return;
            }
            let request = self.request();
            if let Err(GivenUp) = self.deliver(&request, stop).await {
                return;
            }
            self.trouble.look_at_drops(&self.metrics);
        }
    }

    /// Takes the next steps, once there are enough of them or the first has waited long enough; when the
    /// daemon ends, those that are there.
    async fn gather(&mut self, stop: &CancellationToken) {
        tokio::select! {
            biased;
            // It answers nothing only when nobody can tell anything any more.
            _ = self.told.recv_many(&mut self.gathered, self.batch_len_max) => {}
            () = stop.cancelled() => return,
        }
        let over = tokio::time::sleep(self.every);
        tokio::pin!(over);
        while self.gathered.len() < self.batch_len_max {
            let room = self.batch_len_max.saturating_sub(self.gathered.len());
            let came = tokio::select! {
                biased;
                came = self.told.recv_many(&mut self.gathered, room) => came,
                () = &mut over => 0,
                () = stop.cancelled() => 0,
            };
            if came == 0 {
                return;
            }
        }
    }

    fn request(&mut self) -> ExportTraceServiceRequest {
        self.wall.follow(self.clock.as_ref());
        let steps = std::mem::take(&mut self.gathered);
        let spans: Vec<_> =
            steps.iter().flat_map(|happened| span::spans_of(happened, &self.wall)).collect();
        self.under_way = u64::try_from(spans.len()).unwrap_or(u64::MAX);
        span::request(&self.resource, spans)
    }

    /// Sends spans until they are taken, or will never be.
    async fn deliver(
        &mut self,
        request: &ExportTraceServiceRequest,
        stop: &CancellationToken,
    ) -> Result<(), GivenUp> {
        loop {
            let sent = tokio::select! {
                biased;
                sent = self.collector.send(request) => sent,
                // It has not answered before, so it is not waited for.
                () = stop.cancelled(), if self.trouble.failures > 0 => return Err(GivenUp),
            };
            match sent {
                Ok(refused) => {
                    let refused = refused.min(self.under_way);
                    let taken = self.under_way.saturating_sub(refused);
                    self.trouble.over(refused, &self.metrics);
                    self.end_request(SpanFate::Exported, taken);
                    self.end_request(SpanFate::Refused, refused);
                    return Ok(());
                }
                Err(error @ Undelivered::Never(_)) => {
                    self.trouble.failed(&error, &self.metrics);
                    self.end_request(SpanFate::Refused, self.under_way);
                    return Ok(());
                }
                Err(error @ Undelivered::Later(_)) => {
                    self.trouble.failed(&error, &self.metrics);
                    tokio::select! {
                        () = stop.cancelled() => return Err(GivenUp),
                        () = tokio::time::sleep(AGAIN.delay(self.trouble.failures)) => {}
                    }
                }
            }
        }
    }

    fn end_request(&mut self, fate: SpanFate, spans: u64) {
        self.metrics.trace_spans(fate, spans);
        self.under_way = self.under_way.saturating_sub(spans);
    }
}

/// What has been said of a collector that does not take spans, or not all: each is said once, until it is
/// over.
#[derive(Debug, Default)]
struct Trouble {
    /// Requests that failed since one was taken.
    failures: u32,
    /// Spans that had been dropped when that began.
    dropped_before: u64,
    /// Whether the last request was taken in part.
    refuses_some: bool,
    /// Spans that did not fit into the queue, as last looked at.
    overflown: u64,
    /// Whether more did since the look before that.
    overflows: bool,
}

impl Trouble {
    fn failed(&mut self, error: &Undelivered, metrics: &Metrics) {
        if self.failures == 0 {
            self.dropped_before = metrics.trace_spans_dropped();
            tracing::warn!(
                %error,
                "the collector does not take spans: jobs go on, and what does not fit into the queue \
                 meanwhile is dropped"
            );
        } else {
            tracing::debug!(%error, "the collector still does not take spans");
        }
        self.failures = self.failures.saturating_add(1);
    }

    /// A request was taken, but for so many of its spans.
    fn over(&mut self, refused: u64, metrics: &Metrics) {
        if self.failures > 0 {
            let dropped = metrics.trace_spans_dropped().saturating_sub(self.dropped_before);
            tracing::info!(dropped, "the collector takes spans again");
            self.failures = 0;
        }
        if refused > 0 && !self.refuses_some {
            tracing::warn!(refused, "the collector refuses some of the spans that it is sent");
        }
        self.refuses_some = refused > 0;
    }

    /// Says so when the collector takes spans, but not fast enough.
    fn look_at_drops(&mut self, metrics: &Metrics) {
        let so_far = metrics.trace_spans_so_far(SpanFate::QueueFull);
        let overflows = so_far > self.overflown;
        if overflows && !self.overflows && self.failures == 0 {
            tracing::warn!(
                "spans are dropped, because more come than the collector takes: \
                 settled_trace_spans_total counts them"
            );
        }
        (self.overflown, self.overflows) = (so_far, overflows);
    }
}
