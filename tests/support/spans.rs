//! What a collector sees: OTLP, decoded.

use std::collections::HashMap;

use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{KeyValue, any_value::Value},
};
use prost::Message as _;
use settled::domain::ids::RecordId;
use uuid::Uuid;

use super::{eventually, receiver::Receiver};

/// A span as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) trace: RecordId,
    pub(crate) id: Vec<u8>,
    pub(crate) parent: Vec<u8>,
    pub(crate) name: String,
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) attributes: HashMap<String, String>,
    pub(crate) is_wrong: bool,
}

impl Seen {
    /// An attribute, in words.
    pub(crate) fn word(&self, key: &str) -> &str {
        self.attributes.get(key).map_or("", String::as_str)
    }

    /// The span that all others of the job are in.
    pub(crate) fn is_root(&self) -> bool {
        self.parent.is_empty()
    }
}

fn words(attributes: Vec<KeyValue>) -> HashMap<String, String> {
    let word = |value| match value {
        Value::StringValue(text) => text,
        Value::IntValue(number) => number.to_string(),
        Value::BoolValue(is) => is.to_string(),
        other => panic!("no attribute is {other:?}"),
    };
    attributes
        .into_iter()
        .map(|KeyValue { key, value, .. }| (key, word(value.unwrap().value.unwrap())))
        .collect()
}

/// The requests that were answered well.
pub(crate) fn requests(receiver: &Receiver) -> Vec<ExportTraceServiceRequest> {
    receiver
        .arrived()
        .into_iter()
        .filter(|request| request.was_answered)
        .map(|request| {
            assert_eq!(request.headers["content-type"], "application/x-protobuf");
            ExportTraceServiceRequest::decode(request.bytes.as_slice()).unwrap()
        })
        .collect()
}

/// Every span that the collector has taken, in the order of their beginnings.
pub(crate) fn spans(receiver: &Receiver) -> Vec<Seen> {
    let mut spans: Vec<Seen> = requests(receiver)
        .into_iter()
        .flat_map(|request| request.resource_spans)
        .flat_map(|resource| resource.scope_spans)
        .flat_map(|scope| scope.spans)
        .map(|span| Seen {
            trace: RecordId::from(Uuid::from_slice(&span.trace_id).unwrap()),
            id: span.span_id,
            parent: span.parent_span_id,
            name: span.name,
            start: span.start_time_unix_nano,
            end: span.end_time_unix_nano,
            attributes: words(span.attributes),
            is_wrong: span.status.is_some_and(|status| status.code == 2),
        })
        .collect();
    spans.sort_by_key(|span| span.start);
    spans
}

/// The steps of one job, and the span that they are in once the job has ended.
pub(crate) fn trace_of(receiver: &Receiver, record: RecordId) -> (Vec<Seen>, Option<Seen>) {
    let spans = spans(receiver).into_iter().filter(|span| span.trace == record);
    let (mut roots, steps): (Vec<_>, Vec<_>) = spans.partition(Seen::is_root);
    assert!(roots.len() < 2, "{roots:?}");
    (steps, roots.pop())
}

/// Waits until the collector has a step of a job.
pub(crate) async fn wait_for_step(receiver: &Receiver, record: RecordId, name: &str) {
    eventually(&format!("{name} of {record}"), || async {
        trace_of(receiver, record).0.iter().any(|step| step.name == name).then_some(())
    })
    .await;
}
