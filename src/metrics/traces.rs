//! What is counted of spans for a collector.

use prometheus_client::{
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

use super::{Metrics, ResultLabels};

/// What became of a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanFate {
    /// The collector has it.
    Exported,
    /// It did not fit into the queue.
    QueueFull,
    /// The collector refused it.
    Refused,
    /// The daemon ended before.
    AtEnd,
}

impl SpanFate {
    const ALL: [Self; 4] = [Self::Exported, Self::QueueFull, Self::Refused, Self::AtEnd];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Exported => "exported",
            Self::QueueFull => "dropped_queue_full",
            Self::Refused => "dropped_refused",
            Self::AtEnd => "dropped_at_end",
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct TraceMetrics {
    spans: Family<ResultLabels, Counter>,
}

impl TraceMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        let help = "Spans for the OpenTelemetry collector, by what became of them";
        registry.register("trace_spans", help, self.spans.clone());
        for fate in SpanFate::ALL {
            drop(self.spans.get_or_create(&ResultLabels { result: fate.as_str() }));
        }
    }
}

impl Metrics {
    /// Spans that a collector has, or that are dropped.
    pub fn trace_spans(&self, fate: SpanFate, spans: u64) {
        self.traces.spans.get_or_create(&ResultLabels { result: fate.as_str() }).inc_by(spans);
    }

    /// How many spans have ended so.
    #[must_use]
    pub fn trace_spans_so_far(&self, fate: SpanFate) -> u64 {
        self.traces.spans.get_or_create(&ResultLabels { result: fate.as_str() }).get()
    }

    /// How many spans were dropped for any reason.
    #[must_use]
    pub fn trace_spans_dropped(&self) -> u64 {
        [SpanFate::QueueFull, SpanFate::Refused, SpanFate::AtEnd]
            .into_iter()
            .fold(0, |sum, fate| sum.saturating_add(self.trace_spans_so_far(fate)))
    }
}
