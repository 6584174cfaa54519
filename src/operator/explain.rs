//! Why a job was decided as it was: what the decision saw, and the policy over it once more. Nothing is
//! changed by asking.

use serde::Serialize;
use serde_json::Value;

use crate::{
    domain::{
        decision::Outcome,
        ids::RecordId,
        job::JobTerms,
        policy::{BookView, POLICY_VERSION, Ruling, rule},
        time::TimestampMs,
    },
    pipeline::decide,
    store::{Readers, StoreError, query::JobHistory},
};

/// Which book the policy is asked over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Against {
    /// As the decision saw it.
    Then,
    /// As it is now. What the job itself has moved is in it.
    Now,
}

/// What was decided, and what the policy says.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// The record.
    pub record_id: RecordId,
    /// What was decided; `None` while nothing is.
    pub decided: Option<DecidedThen>,
    /// Over which book the policy was asked here.
    pub against: Against,
    /// What the policy was shown.
    pub saw: BookView,
    /// What it says.
    pub says: String,
    /// Whether that is what was decided; `None` if nothing is, or if the rules were others then.
    pub agrees: Option<bool>,
}

/// A decision as it was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DecidedThen {
    /// In the same words as what the policy says.
    #[serde(rename = "as")]
    pub as_: String,
    /// Who decided.
    pub source: String,
    /// When.
    pub at_ms: TimestampMs,
    /// By which version of the rules.
    pub policy_version: Option<u64>,
}

/// Why there is nothing to explain.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// There is no such job.
    #[error("there is no job about record {0}")]
    Unknown(RecordId),
    /// Nothing is decided, so that nothing was seen.
    #[error("record {0} is not decided yet; `--against now` shows what it would be")]
    Undecided(RecordId),
    /// Nobody asked the policy.
    #[error(
        "record {record} was not decided by the rules but taken over ({by}); `--against now` shows \
         what they would say"
    )]
    NoView {
        /// The record.
        record: RecordId,
        /// Who decided.
        by: String,
    },
    /// The book cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Explains the decision about one record.
///
/// # Errors
/// [`ExplainError`].
pub async fn explain(
    readers: &Readers,
    record_id: RecordId,
    against: Against,
    now: TimestampMs,
) -> Result<Explanation, ExplainError> {
    let history = readers.job_history(record_id).await?.ok_or(ExplainError::Unknown(record_id))?;
    let decided = decided(&history);
    let saw = match against {
        Against::Then => seen(&history, record_id)?,
        Against::Now => now_seen(readers, record_id, now).await?,
    };
    let says = in_words(&rule(&history.job.terms, &saw));
    let same_rules =
        decided.as_ref().is_some_and(|then| then.policy_version == Some(POLICY_VERSION.into()));
    let agrees = decided
        .as_ref()
        .filter(|_| same_rules || against == Against::Now)
        .map(|then| then.as_ == says);
    Ok(Explanation { record_id, decided, against, saw, says, agrees })
}

fn decided(history: &JobHistory) -> Option<DecidedThen> {
    let decision = history.decision.as_ref()?;
    let seen: Value = serde_json::from_str(decision.seen.get()).unwrap_or_default();
    let as_ = match &decision.reject_code {
        Some(code) => released(code),
        None => decision.outcome.clone(),
    };
    Some(DecidedThen {
        as_,
        source: decision.source.clone(),
        at_ms: decision.decided_at_ms,
        policy_version: seen.get("policyVersion").and_then(Value::as_u64),
    })
}

fn seen(history: &JobHistory, record: RecordId) -> Result<BookView, ExplainError> {
    let decision = history.decision.as_ref().ok_or(ExplainError::Undecided(record))?;
    serde_json::from_str(decision.seen.get())
        .map_err(|_| ExplainError::NoView { record, by: decision.source.clone() })
}

/// The book as the policy would see it now, with the word that an operator gave then.
async fn now_seen(
    readers: &Readers,
    record: RecordId,
    now: TimestampMs,
) -> Result<BookView, ExplainError> {
    let work = readers.work_on(record, now).await?;
    let job = work.find(record).ok_or(ExplainError::Unknown(record))?;
    decide::view_of(&work, job, true, None)
        .map_err(|error| StoreError::Unusable(error.to_string()).into())
}

fn in_words(ruling: &Ruling) -> String {
    match ruling {
        Ruling::Decide(decision) => match decision.reject_code() {
            Some(code) => released(code),
            None => decision.outcome().to_string(),
        },
        Ruling::WaitForConnection => "waits for its connection".to_owned(),
        Ruling::Park(reason) => format!("parked ({})", reason.as_str()),
    }
}

fn released(code: &str) -> String {
    format!("{} ({code})", Outcome::Released)
}

impl Explanation {
    /// What the policy was shown, a line for each thing, for a reader.
    #[must_use]
    pub fn facts(&self, terms: &JobTerms) -> Vec<(String, String)> {
        let BookView { connection, currency, available, exposure, exposure_total, .. } = &self.saw;
        let yes_no = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
        let limit = |limit: Option<_>| limit.map_or("none".to_owned(), |most| format!("{most}"));
        let caps = currency
            .as_ref()
            .map_or(self.saw.connection_caps, |known| self.saw.connection_caps.or(known.caps));
        let mut facts = vec![
            ("type".to_owned(), terms.job_type.to_string()),
            ("quantity".to_owned(), terms.amount.to_string()),
            ("connection known".to_owned(), yes_no(connection.is_some())),
        ];
        if let Some(connection) = connection {
            facts.push(("connection active".to_owned(), yes_no(connection.active)));
        }
        facts.push((
            "currency enabled".to_owned(),
            yes_no(currency.as_ref().is_some_and(|currency| currency.enabled)),
        ));
        if let Some(currency) = currency {
            let range = format!("{} to {}", currency.quantity_min, currency.quantity_max);
            facts.push(("quantities cleared".to_owned(), range));
        }
        facts.extend([
            ("available".to_owned(), available.to_string()),
            ("exposure of the connection".to_owned(), exposure.to_string()),
            ("at most".to_owned(), limit(caps.exposure_max_per_connection)),
            ("exposure of all".to_owned(), exposure_total.to_string()),
            (
                "at most".to_owned(),
                limit(currency.as_ref().and_then(|currency| currency.exposure_max_total)),
            ),
            (format!("cleared on {}", self.saw.day), self.saw.cleared_that_day.to_string()),
            ("at most".to_owned(), limit(caps.daily_max(terms.job_type))),
            ("approval needed above".to_owned(), limit(caps.approval_above)),
        ]);
        facts
    }
}
