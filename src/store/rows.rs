//! Between rows and the domain's types: reading what was written, and refusing what was not.

use std::{fmt::Display, str::FromStr, time::Duration};

use super::error::{StoreError, unreadable};
use crate::domain::{
    amount::Amount,
    book::Currency,
    decimals::Decimals,
    decision::{Decision, Outcome},
    feed::BookSequence,
    ids::JobSeq,
    job::{ContentHash, Job, JobTerms},
    limits::ConnectionCaps,
    state::State,
    time::TimestampMs,
};

/// A row of `jobs` with its decision.
pub(super) struct JobRow {
    pub(super) job_seq: i64,
    pub(super) record_id: String,
    pub(super) job_type: String,
    pub(super) currency: String,
    pub(super) quantity: String,
    pub(super) client_id: String,
    pub(super) connection_id: String,
    pub(super) partners_client_id: String,
    pub(super) partners_connection_id: String,
    pub(super) partners_record_id: String,
    pub(super) content_sha256: Vec<u8>,
    pub(super) received_at_ms: i64,
    pub(super) state: String,
    pub(super) state_reason: Option<String>,
    pub(super) state_since_ms: i64,
    pub(super) outcome: Option<String>,
    pub(super) final_outcome: Option<String>,
    pub(super) next_step_at_ms: Option<i64>,
    pub(super) attempts_made: i64,
    pub(super) attempts_counted: i64,
    pub(super) reads_made: i64,
    pub(super) absences: i64,
    pub(super) tried_since_ms: Option<i64>,
    pub(super) verified_at_ms: Option<i64>,
    pub(super) approval_before: Option<String>,
    pub(super) book_sequence: Option<i64>,
    pub(super) gate_ms: Option<i64>,
    pub(super) waits_for_book: bool,
    pub(super) decided_at_ms: Option<i64>,
    pub(super) reject_code: Option<String>,
    pub(super) reject_reason: Option<String>,
}

impl JobRow {
    pub(super) fn into_job(self) -> Result<Job, StoreError> {
        let bad = unreadable("jobs");
        let count = |number: i64| u32::try_from(number).map_err(|error| bad(&error));
        let terms = JobTerms {
            job_type: parse("jobs", &self.job_type)?,
            record_id: parse("jobs", &self.record_id)?,
            amount: Amount::positive(
                parse("jobs", &self.currency)?,
                parse("jobs", &self.quantity)?,
            )
            .map_err(|error| bad(&error))?,
            client_id: parse("jobs", &self.client_id)?,
            connection_id: parse("jobs", &self.connection_id)?,
            partners_client_id: parse("jobs", &self.partners_client_id)?,
            partners_connection_id: parse("jobs", &self.partners_connection_id)?,
            partners_record_id: parse("jobs", &self.partners_record_id)?,
        };
        let outcome = self.outcome.as_deref().map(outcome_of).transpose()?;
        Ok(Job {
            seq: JobSeq::from(self.job_seq),
            terms,
            content_hash: hash_of("jobs", &self.content_sha256)?,
            received_at: TimestampMs::from_millis(self.received_at_ms),
            state: State::from_row(&self.state, self.state_reason.as_deref())
                .map_err(|error| bad(&error))?,
            state_since: TimestampMs::from_millis(self.state_since_ms),
            decision: outcome
                .map(|outcome| decision_of(outcome, self.reject_code, self.reject_reason))
                .transpose()?,
            decided_at: self.decided_at_ms.map(TimestampMs::from_millis),
            final_outcome: self.final_outcome.as_deref().map(outcome_of).transpose()?,
            next_step_at: self.next_step_at_ms.map(TimestampMs::from_millis),
            attempts_made: count(self.attempts_made)?,
            attempts_counted: count(self.attempts_counted)?,
            reads_made: count(self.reads_made)?,
            absences: count(self.absences)?,
            tried_since: self.tried_since_ms.map(TimestampMs::from_millis),
            verified_at: self.verified_at_ms.map(TimestampMs::from_millis),
            approval_before: self.approval_before,
            book_sequence: self
                .book_sequence
                .map(BookSequence::try_from)
                .transpose()
                .map_err(|error| bad(&error))?,
            waits_since: self
                .gate_ms
                .map(|open| Duration::from_millis(u64::try_from(open).unwrap_or(0))),
            waits_for_book: self.waits_for_book,
        })
    }
}

/// A row of `currencies`.
pub(super) struct CurrencyRow {
    pub(super) currency: String,
    pub(super) enabled: bool,
    pub(super) quantity_min: String,
    pub(super) quantity_max: String,
    pub(super) decimals: Option<i64>,
    pub(super) exposure_max_total: Option<String>,
    pub(super) exposure_max_per_connection: Option<String>,
    pub(super) daily_allocation_max_per_connection: Option<String>,
    pub(super) daily_deallocation_max_per_connection: Option<String>,
    pub(super) approval_above: Option<String>,
}

impl CurrencyRow {
    pub(super) fn into_currency(self) -> Result<Currency, StoreError> {
        let optional = |text: Option<String>| parse_optional("currencies", text.as_deref());
        Ok(Currency {
            currency: parse("currencies", &self.currency)?,
            enabled: self.enabled,
            quantity_min: parse("currencies", &self.quantity_min)?,
            quantity_max: parse("currencies", &self.quantity_max)?,
            decimals: self.decimals.map(decimals_of).transpose()?,
            exposure_max_total: optional(self.exposure_max_total)?,
            caps: ConnectionCaps {
                exposure_max_per_connection: optional(self.exposure_max_per_connection)?,
                daily_allocation_max_per_connection: optional(
                    self.daily_allocation_max_per_connection,
                )?,
                daily_deallocation_max_per_connection: optional(
                    self.daily_deallocation_max_per_connection,
                )?,
                approval_above: optional(self.approval_above)?,
            },
        })
    }
}

/// Reads a number of decimals.
pub(super) fn decimals_of(number: i64) -> Result<Decimals, StoreError> {
    let bad = unreadable("currencies");
    let number = u8::try_from(number).map_err(|error| bad(&error))?;
    Decimals::try_from(number).map_err(|error| bad(&error))
}

/// Reads a text column as a domain type.
pub(super) fn parse<T>(table: &'static str, text: &str) -> Result<T, StoreError>
where
    T: FromStr,
    T::Err: Display,
{
    text.parse().map_err(|error: T::Err| unreadable(table)(&format_args!("{text:?}: {error}")))
}

pub(super) fn outcome_of(word: &str) -> Result<Outcome, StoreError> {
    Outcome::ALL
        .into_iter()
        .find(|outcome| outcome.as_str() == word)
        .ok_or_else(|| unreadable("jobs")(&format_args!("{word:?} is no outcome")))
}

pub(super) fn hash_of(table: &'static str, bytes: &[u8]) -> Result<ContentHash, StoreError> {
    <[u8; 32]>::try_from(bytes)
        .map(ContentHash::from)
        .map_err(|_| unreadable(table)(&"a hash that is not 32 bytes long"))
}

/// Reads a text column that may be empty.
pub(super) fn parse_optional<T>(
    table: &'static str,
    text: Option<&str>,
) -> Result<Option<T>, StoreError>
where
    T: FromStr,
    T::Err: Display,
{
    text.map(|text| parse(table, text)).transpose()
}

fn decision_of(
    outcome: Outcome,
    code: Option<String>,
    reject_reason: Option<String>,
) -> Result<Decision, StoreError> {
    match (outcome, code, reject_reason) {
        (Outcome::Cleared, None, None) => Ok(Decision::Cleared),
        (Outcome::Released, Some(code), Some(reject_reason)) => {
            Ok(Decision::Released { code, reject_reason })
        }
        (Outcome::Cleared | Outcome::Released, _, _) => {
            Err(unreadable("decisions")(&"an outcome without its reason, or the other way round"))
        }
    }
}
