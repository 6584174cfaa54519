//! What a client asks for, and what it can be told.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::domain::{
    ids::{ConnectionId, RecordId},
    job::JobType,
};

/// Why a client has no answer to give.
#[derive(Debug, thiserror::Error)]
pub enum SandboxClientError {
    /// Not an address that can be used.
    #[error("{url:?} cannot be used as a base URL: {reason}")]
    BadUrl {
        /// What was given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A token that no HTTP header can hold.
    #[error("the token has characters that no access token has")]
    BadToken,
    /// TLS or the client library.
    #[error("the HTTP client cannot be set up: {0}")]
    Client(#[source] reqwest::Error),
    /// A request that JSON cannot hold.
    #[error("the request cannot be written as JSON, and nothing was sent: {0}")]
    Unwritable(#[source] serde_json::Error),
    /// The signature does not verify.
    #[error("the signature does not verify: nothing was sent")]
    NotSigned,
    /// Nothing, or not all of it, arrived.
    #[error("{what} has no answer: {reason}. Whether it was done is not known")]
    NoAnswer {
        /// The request.
        what: String,
        /// What happened.
        reason: String,
    },
    /// An answer that is not as documented.
    #[error(
        "{what} was answered with status {status} and a body that is not as documented: {reason}"
    )]
    Unreadable {
        /// The request.
        what: String,
        /// The status.
        status: u16,
        /// What is wrong.
        reason: String,
    },
    /// The request was refused.
    #[error("{what} was refused with status {status}: {error}")]
    Refused {
        /// The request.
        what: String,
        /// The status.
        status: u16,
        /// What was said.
        error: String,
    },
    /// The record was not final in time.
    #[error("record {id} is still {status} after {limit:?}")]
    NotFinal {
        /// The record.
        id: RecordId,
        /// Its status.
        status: String,
        /// How long was waited.
        limit: Duration,
    },
}

impl SandboxClientError {
    /// Whether the same read may do better a little later.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::NoAnswer { .. } => true,
            Self::Refused { status, .. } => *status == 429,
            Self::BadUrl { .. }
            | Self::BadToken
            | Self::Client(_)
            | Self::Unwritable(_)
            | Self::NotSigned
            | Self::Unreadable { .. }
            | Self::NotFinal { .. } => false,
        }
    }
}

/// What a client wants to allocate or deallocate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientOrder {
    /// Which of the two.
    pub record_type: JobType,
    /// On which connection.
    pub connection_id: ConnectionId,
    /// The currency as clients name it.
    pub currency: String,
    /// How much, in base units. Text, so that what is wrong can be sent too.
    pub quantity: String,
    /// The client's id of it: the same again is the same order.
    pub client_external_id: String,
    /// Notes.
    pub notes: Option<String>,
}

/// So much of a currency.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientAmount {
    /// The currency as clients name it.
    pub currency: String,
    /// How much.
    pub quantity: String,
}

/// A record as a client sees it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientRecord {
    /// Its id.
    pub id: RecordId,
    /// `reserved`, `cleared` or `released`.
    pub status: String,
    /// Why it is not cleared.
    #[serde(default)]
    pub reason: Option<String>,
    /// How much of what.
    pub amount: ClientAmount,
    /// The client's id of it.
    pub client_external_id: String,
    /// The partner's id of it, once the partner has updated it.
    #[serde(default)]
    pub partner_external_id: Option<String>,
}

impl ClientRecord {
    /// Whether nothing can follow.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(self.status.as_str(), "cleared" | "released")
    }
}

/// An answer that tells a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientAnswer {
    /// The record.
    pub record: ClientRecord,
    /// The same with all its fields.
    pub raw: Value,
    /// What was said of a record that was released at once.
    pub error: Option<String>,
}

pub(super) fn refused(what: &str, status: u16, value: &Value) -> SandboxClientError {
    let error = value.get("error").and_then(Value::as_str);
    SandboxClientError::Refused {
        what: what.to_owned(),
        status,
        error: error.unwrap_or("without a reason").to_owned(),
    }
}

/// The record that an answer tells, if it tells one.
pub(super) fn read_record(
    what: &str,
    status: u16,
    value: &Value,
) -> Result<ClientAnswer, SandboxClientError> {
    let inner = JobType::ALL.into_iter().find_map(|record_type| value.get(record_type.as_str()));
    let Some(inner) = inner.filter(|_| matches!(status, 200 | 422 | 500)) else {
        return Err(refused(what, status, value));
    };
    let record = ClientRecord::deserialize(inner).map_err(|error| {
        SandboxClientError::Unreadable { what: what.to_owned(), status, reason: error.to_string() }
    })?;
    Ok(ClientAnswer {
        record,
        raw: inner.clone(),
        error: value.get("error").and_then(Value::as_str).map(str::to_owned),
    })
}
