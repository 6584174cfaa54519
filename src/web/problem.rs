//! What is answered when something is not: RFC 9457, the same for every route.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{compare::CompareError, operator::operations::OperationError, store::StoreError};

/// The content type of a problem.
const PROBLEM_TYPE: HeaderValue = HeaderValue::from_static("application/problem+json");

/// Why a request was not carried out.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// Always `about:blank`: the status says what kind of problem it is.
    #[serde(rename = "type")]
    kind: String,
    /// The status in words.
    title: String,
    /// The status.
    status: u16,
    /// What is wrong, and what to do.
    detail: String,
}

impl Problem {
    /// A problem.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            kind: "about:blank".to_owned(),
            title: status.canonical_reason().unwrap_or("unknown").to_owned(),
            status: status.as_u16(),
            detail: detail.into(),
        }
    }

    /// The status.
    pub(super) fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// What is wrong, and what to do.
    #[must_use]
    pub fn detail(&self) -> &str {
        &self.detail
    }

    pub(super) fn bad(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    pub(super) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        (self.status(), [(header::CONTENT_TYPE, PROBLEM_TYPE)], Json(self)).into_response()
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
    }
}

impl From<crate::writer::WriterGone> for Problem {
    fn from(error: crate::writer::WriterGone) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
    }
}

impl From<OperationError> for Problem {
    fn from(error: OperationError) -> Self {
        let status = match &error {
            OperationError::Store(_) => StatusCode::INTERNAL_SERVER_ERROR,
            OperationError::Gone(_) => StatusCode::SERVICE_UNAVAILABLE,
            OperationError::Refused(_) => StatusCode::UNPROCESSABLE_ENTITY,
            OperationError::TooMany(_) => StatusCode::BAD_REQUEST,
            OperationError::UnknownMessage(_) => StatusCode::NOT_FOUND,
            OperationError::OesSaysOtherwise { .. } => StatusCode::CONFLICT,
        };
        Self::new(status, error.to_string())
    }
}

impl From<CompareError> for Problem {
    fn from(error: CompareError) -> Self {
        Self::new(StatusCode::BAD_GATEWAY, error.to_string())
    }
}
