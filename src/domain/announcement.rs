//! The event that tells the exchange how a record ended.

use serde::{Deserialize, Serialize};
use uuid::{Uuid, uuid};

use super::{decision::Outcome, ids::RecordId, job::JobTerms, job::JobType, time::TimestampMs};

/// Namespace of event ids. Changing it would make old events look like new ones.
const EVENT_NAMESPACE: Uuid = uuid!("7b1f3c52-6f0e-5d6a-9a5c-0d7e4f2c8b19");

/// The id of the event that `record_id` ended with `outcome`: the same whenever and wherever it is
/// computed, so that a consumer can drop a repetition, also after a restore.
#[must_use]
pub fn event_id(record_id: RecordId, outcome: Outcome) -> Uuid {
    Uuid::new_v5(&EVENT_NAMESPACE, format!("{record_id}:{outcome}").as_bytes())
}

/// The key that the exchange's queues bind to, e.g. `allocation.cleared`.
#[must_use]
pub fn routing_key(job_type: JobType, outcome: Outcome) -> String {
    format!("{job_type}.{outcome}")
}

/// How OES's side of the outcome is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum KnownBy {
    /// The answer to the update.
    Reply,
    /// The record, read back.
    ReadBack,
    /// Two operators, where OES contradicted what was decided.
    Operators,
}

/// The body of the event.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Announcement<'a> {
    event_id: Uuid,
    outcome: Outcome,
    #[serde(flatten)]
    terms: &'a JobTerms,
    #[serde(skip_serializing_if = "Option::is_none")]
    reject_reason: Option<&'a str>,
    /// What was decided here, where OES ended the record otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    overruled_decision: Option<Outcome>,
    known_by: KnownBy,
    confirmed_at: String,
}

impl<'a> Announcement<'a> {
    /// The event about a record that ended with `outcome`.
    #[must_use]
    pub fn new(
        terms: &'a JobTerms,
        decided: Outcome,
        reject_reason: Option<&'a str>,
        outcome: Outcome,
        known_by: KnownBy,
        confirmed_at: TimestampMs,
    ) -> Self {
        let overruled = decided != outcome;
        Self {
            event_id: event_id(terms.record_id, outcome),
            outcome,
            terms,
            reject_reason: reject_reason.filter(|_| !overruled),
            overruled_decision: overruled.then_some(decided),
            known_by,
            confirmed_at: confirmed_at.to_string(),
        }
    }
}

/// Which record the body of an event is about.
#[must_use]
pub fn record_of(body: &str) -> Option<RecordId> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct About {
        record_id: RecordId,
    }
    serde_json::from_str::<About>(body).ok().map(|about| about.record_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_id_depends_on_the_record_and_its_outcome_only() {
        let record: RecordId = "0b4a3f3e-7d0a-4b5e-9a0e-3d1c5f2b7a10".parse().unwrap();
        assert_eq!(
            event_id(record, Outcome::Cleared).to_string(),
            "9791ca10-159f-5e75-bf84-8e04cf58acc0"
        );
        assert_ne!(event_id(record, Outcome::Cleared), event_id(record, Outcome::Released));
    }
}
