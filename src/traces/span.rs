//! A step as a span in OTLP's own form.

use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span::SpanKind, status::StatusCode},
};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::{Happened, Step};
use crate::{
    clock::Clock,
    domain::{ids::RecordId, reply::Verdict, time::TimestampMs},
};

/// The bytes of a span's id.
const SPAN_ID_BYTES: usize = 8;

/// How far the wall clock may be from where it is counted to before it is looked at anew.
const CLOCK_SLACK: Duration = Duration::from_millis(20);

/// What is derived from a record's id: the same in every process, so that a job's spans find each other.
struct Derived {
    root_span: [u8; SPAN_ID_BYTES],
    /// Where the record stands among all, from 0 to 1.
    place: f64,
}

fn derive(record: RecordId) -> Derived {
    let digest: [u8; 32] = Sha256::new()
        .chain_update("settled trace ")
        .chain_update(record.as_uuid())
        .finalize()
        .into();
    let (first, others) = digest.split_first_chunk().unwrap_or((&[0; SPAN_ID_BYTES], &[]));
    let second = others.first_chunk().copied().unwrap_or_default();
    let mut root_span = *first;
    // All zeroes would be no id.
    root_span[0] |= 1;
    let place = f64::from(u32::from_be_bytes(second)) / f64::from(u32::MAX);
    Derived { root_span, place }
}

/// Whether a job's trace is exported: all of it or nothing, in every process alike. Asked of a hash, because
/// the bits of a record's id that samplers usually look at are not random: they hold its version, a time, or
/// a number that somebody counts.
pub(super) fn is_sampled(record: RecordId, ratio: f64) -> bool {
    ratio >= 1.0 || (ratio > 0.0 && derive(record).place < ratio)
}

/// Turns the monotonic time of steps into the wall's. Within a process, the order of times is kept.
#[derive(Debug)]
pub(super) struct WallClock {
    at: Instant,
    shown: TimestampMs,
}

impl WallClock {
    pub(super) fn new(clock: &dyn Clock) -> Self {
        Self { at: Instant::now(), shown: clock.now() }
    }

    /// Follows a clock that was set.
    pub(super) fn follow(&mut self, clock: &dyn Clock) {
        let now = Self::new(clock);
        let counted = self.shown.after(now.at.saturating_duration_since(self.at));
        if counted.since(now.shown).max(now.shown.since(counted)) > CLOCK_SLACK {
            *self = now;
        }
    }

    fn unix_nanos(&self, instant: Instant) -> u64 {
        let shown = Duration::from_millis(u64::try_from(self.shown.as_millis()).unwrap_or(0));
        let since_epoch = match instant.checked_duration_since(self.at) {
            Some(later) => shown.saturating_add(later),
            None => shown.saturating_sub(self.at.saturating_duration_since(instant)),
        };
        u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX)
    }
}

fn text(key: &str, value: impl Into<String>) -> KeyValue {
    attribute(key, Value::StringValue(value.into()))
}

fn number(key: &str, value: impl Into<i64>) -> KeyValue {
    attribute(key, Value::IntValue(value.into()))
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

/// How a step shows: its name, its kind, its attributes, and what is wrong, if anything is.
struct Face {
    name: &'static str,
    kind: SpanKind,
    attributes: Vec<KeyValue>,
    wrong: Option<String>,
}

fn face(step: &Step) -> Face {
    let plain = |name, attributes| Face { name, kind: SpanKind::Internal, attributes, wrong: None };
    match step {
        Step::Received { result } => Face {
            kind: SpanKind::Consumer,
            ..plain("received", vec![text("settled.result", *result)])
        },
        Step::Verified { found } => Face {
            kind: SpanKind::Client,
            ..plain("verified", vec![text("settled.found", *found)])
        },
        Step::Decided { job_type, outcome, reject_code } => {
            let mut attributes = vec![
                text("settled.type", job_type.as_str()),
                text("settled.outcome", outcome.as_str()),
            ];
            attributes.extend(reject_code.as_deref().map(|code| text("settled.reject_code", code)));
            plain("decided", attributes)
        }
        Step::Signed { attempt } => plain("signed", vec![number("settled.attempt", *attempt)]),
        Step::Sent { attempt, status, verdict } => {
            let word = verdict.as_str();
            let mut attributes = vec![
                number("settled.attempt", *attempt),
                text("settled.result", word),
                text("http.request.method", "PUT"),
            ];
            attributes.extend(status.map(|status| number("http.response.status_code", status)));
            let fine = matches!(verdict, Verdict::Accepted | Verdict::ApprovalPending);
            let wrong = (!fine).then(|| word.to_owned());
            Face { kind: SpanKind::Client, wrong, ..plain("sent", attributes) }
        }
        Step::ReadBack { found } => Face {
            kind: SpanKind::Client,
            ..plain("read_back", vec![text("settled.found", *found)])
        },
        Step::Confirmed { outcome, overruled, .. } => {
            let attributes = vec![
                text("settled.outcome", outcome.as_str()),
                attribute("settled.overruled", Value::BoolValue(*overruled)),
            ];
            plain("confirmed", attributes)
        }
        Step::Announced => Face { kind: SpanKind::Producer, ..plain("announced", Vec::new()) },
        Step::Parked { reason } => {
            let wrong = Some(format!("parked: {reason}"));
            Face { wrong, ..plain("parked", vec![text("settled.reason", *reason)]) }
        }
        Step::Frozen { kind } => {
            let wrong = Some(format!("in conflict: {kind}"));
            Face { wrong, ..plain("frozen", vec![text("settled.reason", *kind)]) }
        }
        Step::Refused => {
            let wrong = Some("OES's record is not what the message says".to_owned());
            Face { wrong, ..plain("refused", Vec::new()) }
        }
    }
}

/// The spans of a step: one, and with the end of a job also the one that all of its others are in.
pub(super) fn spans_of(happened: &Happened, wall: &WallClock) -> Vec<Span> {
    let Happened { record, step, begun, ended } = happened;
    let root = derive(*record).root_span.to_vec();
    let Face { name, kind, mut attributes, wrong } = face(step);
    attributes.push(text("settled.record_id", record.to_string()));
    let status = |wrong: Option<String>| {
        wrong.map(|message| Status { message, code: StatusCode::Error.into() })
    };
    let (start, end) = (wall.unix_nanos(*begun), wall.unix_nanos(*ended));
    let span = Span {
        trace_id: record.as_uuid().as_bytes().to_vec(),
        span_id: rand::random::<u64>().max(1).to_be_bytes().to_vec(),
        parent_span_id: root.clone(),
        name: name.to_owned(),
        kind: kind.into(),
        start_time_unix_nano: start,
        end_time_unix_nano: end.max(start),
        attributes,
        status: status(wrong),
        ..Span::default()
    };
    let Step::Confirmed { job_type, outcome, overruled, took } = step else { return vec![span] };
    let took_nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
    let job = Span {
        trace_id: span.trace_id.clone(),
        span_id: root,
        name: job_type.as_str().to_owned(),
        kind: SpanKind::Internal.into(),
        start_time_unix_nano: end.saturating_sub(took_nanos),
        end_time_unix_nano: end,
        attributes: vec![
            text("settled.record_id", record.to_string()),
            text("settled.type", job_type.as_str()),
            text("settled.outcome", outcome.as_str()),
        ],
        status: status(overruled.then(|| "OES ended it otherwise than decided".to_owned())),
        ..Span::default()
    };
    vec![span, job]
}

/// Who speaks: the program, and the book that the jobs are in.
pub(super) fn resource(service_name: &str, ledger: Uuid) -> Resource {
    Resource {
        attributes: vec![
            text("service.name", service_name),
            text("service.version", env!("CARGO_PKG_VERSION")),
            text("service.instance.id", ledger.to_string()),
        ],
        ..Resource::default()
    }
}

/// Spans as one request.
pub(super) fn request(resource: &Resource, spans: Vec<Span>) -> ExportTraceServiceRequest {
    let scope = InstrumentationScope {
        name: env!("CARGO_PKG_NAME").to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    };
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(resource.clone()),
            scope_spans: vec![ScopeSpans { scope: Some(scope), spans, ..ScopeSpans::default() }],
            ..ResourceSpans::default()
        }],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::SystemClock,
        domain::{decision::Outcome, job::JobType},
    };

    fn confirmed(record: RecordId) -> Happened {
        let step = Step::Confirmed {
            job_type: JobType::Allocation,
            outcome: Outcome::Cleared,
            overruled: false,
            took: Duration::from_secs(5),
        };
        Happened { record, step, begun: Instant::now(), ended: Instant::now() }
    }

    #[test]
    fn a_job_s_trace_is_its_record_s_id_and_its_steps_are_in_one_span() {
        let record = RecordId::from(Uuid::new_v4());
        let wall = WallClock::new(&SystemClock);
        let [step, job] = spans_of(&confirmed(record), &wall).try_into().unwrap();
        assert_eq!(step.trace_id, record.as_uuid().as_bytes());
        assert_eq!((&step.parent_span_id, &step.trace_id), (&job.span_id, &job.trace_id));
        assert!(job.parent_span_id.is_empty() && step.span_id != job.span_id);
        let took = job.end_time_unix_nano - job.start_time_unix_nano;
        assert_eq!(took, 5_000_000_000);
        // Another process, after a restart, says the same of it.
        let [_, again] = spans_of(&confirmed(record), &wall).try_into().unwrap();
        assert_eq!(again.span_id, job.span_id);
    }

    #[test]
    fn a_share_of_traces_is_a_share_whatever_the_ids_are_made_of() {
        let counted = (0..4_000).map(|n| Uuid::from_u128(0x0e5a_0000_0000_4000_8000 << 64 | n));
        let random = std::iter::repeat_with(Uuid::new_v4).take(4_000);
        let timed = std::iter::repeat_with(Uuid::now_v7).take(4_000);
        let kinds: [Box<dyn Iterator<Item = Uuid>>; 3] =
            [Box::new(counted), Box::new(random), Box::new(timed)];
        for ids in kinds {
            let sampled = ids.filter(|id| is_sampled(RecordId::from(*id), 0.25)).count();
            assert!((850..1_150).contains(&sampled), "{sampled} of 4000");
        }
        let any = RecordId::from(Uuid::new_v4());
        assert!(is_sampled(any, 1.0) && !is_sampled(any, 0.0));
    }

    #[test]
    fn times_keep_their_order_and_follow_a_clock_that_is_set() {
        let mut wall = WallClock::new(&SystemClock);
        let (first, then) = (Instant::now(), Instant::now());
        assert!(wall.unix_nanos(first) <= wall.unix_nanos(then));
        let (at, shown) = (wall.at, wall.shown);
        wall.follow(&SystemClock);
        assert_eq!((wall.at, wall.shown), (at, shown), "nothing has been set");
        wall.shown = shown.after(Duration::from_secs(3_600));
        wall.follow(&SystemClock);
        let now_ms = u64::try_from(SystemClock.now().as_millis()).unwrap();
        assert!(wall.unix_nanos(Instant::now()).abs_diff(now_ms * 1_000_000) < 1_000_000_000);
    }
}
