//! Traces: what happened to each job, as spans for an OpenTelemetry collector. Off unless
//! `traces.endpoint` is set.
//!
//! The id of a job's trace is the id of its record, so that everything about one job, over days and
//! restarts, is one trace, and whoever knows the record finds it. Spans are made of what has happened, by
//! those who know when it began and ended: what the writer did is told after its commit, what was sent
//! once the answer is there. Nothing is taken from logs, and only what [`Step`] names can leave.
//!
//! What must never happen here: anybody who waits. A step is told into a queue of bounded length; what does
//! not fit is dropped and counted. And no secret, amount, client or text of others in a span.

mod collector;
mod export;
mod span;

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::mpsc::{self, error::TrySendError};
use uuid::Uuid;

use crate::{
    clock::Clock,
    config::TracesConfig,
    domain::{decision::Outcome, ids::RecordId, job::JobType, reply::Verdict},
    metrics::{Metrics, SpanFate},
};

pub use collector::{Collector, CollectorError, Undelivered};
pub use export::Exporter;

/// What happened to a job, as far as a collector may know it: words and small numbers of our own.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// A message about it came; what became of that.
    Received {
        /// One word.
        result: &'static str,
    },
    /// Its record was read before its decision.
    Verified {
        /// What was found, one word.
        found: &'static str,
    },
    /// It was decided.
    Decided {
        /// Of which type it is.
        job_type: JobType,
        /// How.
        outcome: Outcome,
        /// The rule that released it.
        reject_code: Option<String>,
    },
    /// An attempt was signed.
    Signed {
        /// Which, counted for the job.
        attempt: u32,
    },
    /// An attempt was sent.
    Sent {
        /// Which, counted for the job.
        attempt: u32,
        /// The answer's status, if there was an answer.
        status: Option<u16>,
        /// What the answer meant.
        verdict: Verdict,
    },
    /// Its record was read because its outcome was not certain.
    ReadBack {
        /// What was found, one word.
        found: &'static str,
    },
    /// OES and the book have ended it.
    Confirmed {
        /// Of which type it is.
        job_type: JobType,
        /// How.
        outcome: Outcome,
        /// Whether that is not what was decided here.
        overruled: bool,
        /// From its arrival to here.
        took: Duration,
    },
    /// The broker has its outcome.
    Announced,
    /// It waits for a person.
    Parked {
        /// Why, one word.
        reason: &'static str,
    },
    /// OES contradicts what was decided.
    Frozen {
        /// In which way, one word.
        kind: &'static str,
    },
    /// OES's record was something else than its message said.
    Refused,
}

impl Step {
    /// How many spans it makes: the end of a job is also the end of the span that all others are in.
    const fn spans_count(&self) -> u64 {
        match self {
            Self::Confirmed { .. } => 2,
            Self::Received { .. }
            | Self::Verified { .. }
            | Self::Decided { .. }
            | Self::Signed { .. }
            | Self::Sent { .. }
            | Self::ReadBack { .. }
            | Self::Announced
            | Self::Parked { .. }
            | Self::Frozen { .. }
            | Self::Refused => 1,
        }
    }
}

/// A step with its job and its time.
#[derive(Debug)]
struct Happened {
    record: RecordId,
    step: Step,
    begun: Instant,
    ended: Instant,
}

/// Where steps are told. Cheap to clone; without an endpoint it takes nothing.
#[derive(Clone, Default)]
pub struct Traces(Option<Arc<Tap>>);

struct Tap {
    queue: mpsc::Sender<Happened>,
    sample_ratio: f64,
    metrics: Arc<Metrics>,
}

impl fmt::Debug for Traces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Traces").field(&self.is_on()).finish()
    }
}

impl Traces {
    /// Traces as configured, and what exports them if anything is to be. `ledger` is the identity of the
    /// book.
    ///
    /// # Errors
    /// [`CollectorError`], which names the key.
    pub fn new(
        config: &TracesConfig,
        ledger: Uuid,
        metrics: &Arc<Metrics>,
        clock: &Arc<dyn Clock>,
    ) -> Result<(Self, Option<Exporter>), CollectorError> {
        let Some(collector) = Collector::new(config)? else {
            return Ok((Self::default(), None));
        };
        let (queue, told) = mpsc::channel(config.queue_len_max);
        let tap = Tap { queue, sample_ratio: config.sample_ratio, metrics: Arc::clone(metrics) };
        let (metrics, clock) = (Arc::clone(metrics), Arc::clone(clock));
        let exporter = Exporter::new(config, collector, told, ledger, metrics, clock);
        Ok((Self(Some(Arc::new(tap))), Some(exporter)))
    }

    /// Whether anything is exported: what costs something to tell need not be made otherwise.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Tells what happened to a job from `begun` until now. Never waits.
    pub fn tell(&self, record: RecordId, step: Step, begun: Instant) {
        if self.is_on() {
            self.tell_past(record, step, (begun, Instant::now()));
        }
    }

    /// The same about what was over before now.
    pub fn tell_past(&self, record: RecordId, step: Step, (begun, ended): (Instant, Instant)) {
        let Some(tap) = &self.0 else { return };
        if !span::is_sampled(record, tap.sample_ratio) {
            return;
        }
        let (fate, dropped) = match tap.queue.try_send(Happened { record, step, begun, ended }) {
            Ok(()) => return,
            Err(TrySendError::Full(dropped)) => (SpanFate::QueueFull, dropped),
            Err(TrySendError::Closed(dropped)) => (SpanFate::AtEnd, dropped),
        };
        tap.metrics.trace_spans(fate, dropped.step.spans_count());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_dropped_and_counted_and_nobody_waits() {
        let metrics = Arc::new(Metrics::new());
        let (queue, mut told) = mpsc::channel(2);
        let tap = Tap { queue, sample_ratio: 1.0, metrics: Arc::clone(&metrics) };
        let traces = Traces(Some(Arc::new(tap)));
        let record = RecordId::from(Uuid::new_v4());
        for _ in 0..5 {
            traces.tell(record, Step::Announced, Instant::now());
        }
        assert_eq!(metrics.trace_spans_so_far(SpanFate::QueueFull), 3);
        told.close();
        traces.tell(record, Step::Announced, Instant::now());
        assert_eq!(metrics.trace_spans_so_far(SpanFate::AtEnd), 1);
        assert!(told.try_recv().is_ok() && told.try_recv().is_ok() && told.try_recv().is_err());
    }
}
