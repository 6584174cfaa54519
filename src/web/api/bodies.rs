//! What requests bring, read strictly: a field that is not known is a mistake.

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Query, Request},
    http::{StatusCode, header, request::Parts},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    domain::{
        action::Operator,
        decision::Outcome,
        ids::{ConnectionId, RecordId},
        policy::OperatorWord,
    },
    web::problem::Problem,
    writer::JobAction,
};

/// A query, with a problem as the answer to one that cannot be read.
pub(super) struct Asked<T>(pub(super) T);

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for Asked<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        match Query::try_from_uri(&parts.uri) {
            Ok(Query(asked)) => Ok(Self(asked)),
            Err(error) => Err(Problem::bad(error.to_string())),
        }
    }
}

/// A body of JSON, likewise. Anything that a browser can be made to send to another site is refused.
pub(super) struct Told<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Told<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let essence = kind.map(|kind| kind.split(';').next().unwrap_or_default().trim());
        if essence.is_none_or(|kind| !kind.eq_ignore_ascii_case("application/json")) {
            return Err(Problem::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "the body must be JSON: Content-Type: application/json",
            ));
        }
        let body = Bytes::from_request(request, state).await;
        let body = body.map_err(|error| Problem::bad(error.to_string()))?;
        let mut reader = serde_json::Deserializer::from_slice(&body);
        let told = serde_path_to_error::deserialize(&mut reader)
            .map_err(|error| Problem::bad(error.to_string()))?;
        reader.end().map_err(|error| Problem::bad(error.to_string()))?;
        Ok(Self(told))
    }
}

/// Why something is done.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Because {
    /// Why; kept in the journal.
    pub reason: String,
}

/// How OES ended a record.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct End {
    /// How it ended there.
    pub outcome: Outcome,
    /// How that is known; kept in the journal.
    pub reason: String,
}

/// Whether something goes on.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SwitchSetting {
    /// Whether what the switch stands for goes on.
    pub on: bool,
    /// Why; kept in the journal.
    pub reason: String,
}

/// What is done to many jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum BulkAction {
    /// They are sent on.
    Retry,
    /// They are approved.
    Approve,
    /// They are refused.
    Refuse,
    /// OES has ended them.
    Resolve,
}

/// An action on many jobs, which a preview has named.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BulkRequest {
    /// What is done.
    pub action: BulkAction,
    /// How OES ended them; for `resolve` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// The jobs, at most 500 in one request.
    pub records: Vec<RecordId>,
    /// Why; kept in the journal.
    pub reason: String,
    /// What several requests of one action have in common; made up if it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bulk_id: Option<Uuid>,
}

impl BulkRequest {
    /// An operator's action on jobs, as a request.
    #[must_use]
    pub fn new(action: JobAction, records: &[RecordId], by: &Operator) -> Self {
        let (action, outcome) = match action {
            JobAction::Retry => (BulkAction::Retry, None),
            JobAction::Say(OperatorWord::Approved) => (BulkAction::Approve, None),
            JobAction::Say(OperatorWord::Refused) => (BulkAction::Refuse, None),
            JobAction::Close(outcome) => (BulkAction::Resolve, Some(outcome)),
        };
        let (records, reason) = (records.to_vec(), by.reason.clone());
        Self { action, outcome, records, reason, bulk_id: by.bulk_id }
    }
}

/// Connections whose book is accepted as the exchange states it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SnapshotOrder {
    /// The connections, at most 500.
    pub connections: Vec<ConnectionId>,
    /// Why; kept in the journal.
    pub reason: String,
}

/// Facts for the book, taken together or not at all.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BookFacts {
    /// Where they come from; kept with each of them, together with the name of who brings them.
    pub source: String,
    /// The facts, at most 500, each as it would stand on a line of a file.
    #[schema(value_type = Vec<Object>)]
    pub events: Vec<Box<RawValue>>,
}
