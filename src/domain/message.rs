//! Reading a job message, strictly: it becomes a job or it is refused with a reason.
//!
//! A refused message is quarantined, so the reason is written for the person who will look at it.

use std::fmt;

use serde::Deserialize;

use super::{
    amount::{Amount, Quantity},
    feed::BookSequence,
    ids::{
        ClientId, ConnectionId, CurrencyCode, PartnersClientId, PartnersConnectionId,
        PartnersRecordId, RecordId,
    },
    job::{JobTerms, JobType},
    object::{self, Object, ObjectError},
};

/// Largest job message, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1_024;

/// Longest explanation kept with a refused message, in bytes.
pub const REFUSAL_BYTES_MAX: usize = 512;

/// The kind of fault in a refused message; one word for metrics, headers and rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RefusalCode {
    /// More bytes than [`MESSAGE_BYTES_MAX`].
    TooLarge,
    /// Not UTF-8.
    NotUtf8,
    /// Not one JSON text.
    NotJson,
    /// A named field is missing, repeated, of the wrong type or out of its range.
    BadField,
    /// The record is known with other content; the first message keeps the id.
    ContentDiffers,
    /// OES's record is not what the message says.
    NotAsAtOes,
    /// An event of the feed is about a connection that the book does not have.
    UnknownConnection,
    /// The database refused to hold it.
    NotStorable,
}

impl RefusalCode {
    /// All codes, for metrics and tests.
    pub const ALL: [Self; 8] = [
        Self::TooLarge,
        Self::NotUtf8,
        Self::NotJson,
        Self::BadField,
        Self::ContentDiffers,
        Self::NotAsAtOes,
        Self::UnknownConnection,
        Self::NotStorable,
    ];

    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::NotUtf8 => "not_utf8",
            Self::NotJson => "not_json",
            Self::BadField => "bad_field",
            Self::ContentDiffers => "content_differs",
            Self::NotAsAtOes => "not_as_at_oes",
            Self::UnknownConnection => "unknown_connection",
            Self::NotStorable => "not_storable",
        }
    }
}

impl fmt::Display for RefusalCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a message was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {detail}")]
pub struct Refusal {
    /// The kind of fault.
    pub code: RefusalCode,
    /// What exactly is wrong, for a reader.
    pub detail: String,
}

impl Refusal {
    /// A refusal; the detail is cut to [`REFUSAL_BYTES_MAX`].
    #[must_use]
    pub fn new(code: RefusalCode, detail: impl Into<String>) -> Self {
        let mut detail = detail.into();
        detail.truncate(detail.floor_char_boundary(REFUSAL_BYTES_MAX));
        Self { code, detail }
    }
}

/// The fields of a message as they stand in the JSON. Fields that are not named here are allowed
/// and ignored; they stay in the raw bytes.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawJob {
    #[serde(rename = "type")]
    job_type: JobType,
    amount: Object<RawAmount>,
    client_id: ClientId,
    connection_id: ConnectionId,
    partners_client_id: PartnersClientId,
    partners_connection_id: PartnersConnectionId,
    allocation_id: Option<RecordId>,
    partners_allocation_id: Option<PartnersRecordId>,
    deallocation_id: Option<RecordId>,
    partners_deallocation_id: Option<PartnersRecordId>,
    book_sequence: Option<BookSequence>,
}

/// A job as a message asks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobMessage {
    /// What it is about.
    pub terms: JobTerms,
    /// How far its connection's feed must have come before it is decided. Not part of what makes two
    /// messages the same job: the first one holds.
    pub book_sequence: Option<BookSequence>,
}

#[derive(Deserialize)]
struct RawAmount {
    currency: CurrencyCode,
    quantity: Quantity,
}

/// Reads what one job message is about.
///
/// # Errors
/// A [`Refusal`] that says what is wrong with it.
pub fn parse_job(bytes: &[u8]) -> Result<JobTerms, Refusal> {
    parse_message(bytes).map(|message| message.terms)
}

/// Reads one job message.
///
/// # Errors
/// A [`Refusal`] that says what is wrong with it.
pub fn parse_message(bytes: &[u8]) -> Result<JobMessage, Refusal> {
    if bytes.len() > MESSAGE_BYTES_MAX {
        return Err(Refusal::new(
            RefusalCode::TooLarge,
            format!("{} bytes; at most {MESSAGE_BYTES_MAX} are accepted", bytes.len()),
        ));
    }
    // serde_json does not check strings that it skips, so the whole message is checked first.
    let text = std::str::from_utf8(bytes)
        .map_err(|error| Refusal::new(RefusalCode::NotUtf8, error.to_string()))?;
    let raw: RawJob = object::parse(text).map_err(|error| match error {
        ObjectError::NotJson(detail) => Refusal::new(RefusalCode::NotJson, detail),
        ObjectError::BadField(detail) => Refusal::new(RefusalCode::BadField, detail),
    })?;
    let book_sequence = raw.book_sequence;
    Ok(JobMessage { terms: terms(raw)?, book_sequence })
}

/// Picks the identifiers that belong to the type; the other type's must be absent, or the message
/// would name two records.
fn terms(raw: RawJob) -> Result<JobTerms, Refusal> {
    let bad = |detail: &str| Refusal::new(RefusalCode::BadField, detail);
    let (record_id, partners_record_id, foreign) = match raw.job_type {
        JobType::Allocation => (
            raw.allocation_id.ok_or_else(|| bad("allocationId: missing"))?,
            raw.partners_allocation_id.ok_or_else(|| bad("partnersAllocationId: missing"))?,
            raw.deallocation_id.is_some() || raw.partners_deallocation_id.is_some(),
        ),
        JobType::Deallocation => (
            raw.deallocation_id.ok_or_else(|| bad("deallocationId: missing"))?,
            raw.partners_deallocation_id.ok_or_else(|| bad("partnersDeallocationId: missing"))?,
            raw.allocation_id.is_some() || raw.partners_allocation_id.is_some(),
        ),
    };
    if foreign {
        return Err(bad("names an allocation and a deallocation; a job is about one record"));
    }
    let Object(raw_amount) = raw.amount;
    let amount = Amount::positive(raw_amount.currency, raw_amount.quantity)
        .map_err(|error| bad(&format!("amount.quantity: {error}")))?;
    Ok(JobTerms {
        job_type: raw.job_type,
        record_id,
        amount,
        client_id: raw.client_id,
        connection_id: raw.connection_id,
        partners_client_id: raw.partners_client_id,
        partners_connection_id: raw.partners_connection_id,
        partners_record_id,
    })
}

#[cfg(test)]
mod tests;
