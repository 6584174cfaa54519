//! Messages that never acted.

use axum::{
    Json,
    extract::{Path, State},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    Api, Because,
    bodies::{Asked, Told},
};
use crate::{
    domain::ids::QuarantineSeq,
    operator::operations::Requeueing,
    store::query::{PAGE_MAX, QuarantineFilter, QuarantineLine},
    web::{
        auth::{Acting, Principal},
        problem::Problem,
    },
};

/// Which messages.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct QuarantineQuery {
    /// The kind of fault.
    code: Option<String>,
    /// Only those that nobody has put back in since they last came.
    waiting: bool,
    /// Only those before this number.
    before: Option<i64>,
    /// Most messages on the page, 1 to 1,000.
    limit: Option<u32>,
}

/// A message with its text.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct QuarantinedMessage {
    /// What is known of it.
    #[serde(flatten)]
    line: QuarantineLine,
    /// The message as text; what is not UTF-8 is shown as a replacement character.
    text: String,
    /// The message as it came, hexadecimal.
    hex: String,
}

/// Messages that could not act, the latest first.
#[utoipa::path(get, path = "/v1/quarantine", tag = "quarantine", params(QuarantineQuery),
    responses((status = 200, body = Vec<QuarantineLine>), (status = "4XX", body = Problem)))]
pub(super) async fn list(
    State(api): State<Api>,
    _: Principal,
    Asked(query): Asked<QuarantineQuery>,
) -> Result<Json<Vec<QuarantineLine>>, Problem> {
    let filter = QuarantineFilter {
        code: query.code.filter(|code| !code.is_empty()),
        waiting: query.waiting,
        before: query.before,
        limit: query.limit.unwrap_or(50).clamp(1, PAGE_MAX),
    };
    Ok(Json(api.checks.readers.quarantine(&filter).await?))
}

/// One of them with its bytes.
#[utoipa::path(get, path = "/v1/quarantine/{seq}", tag = "quarantine",
    params(("seq" = i64, Path)),
    responses((status = 200, body = QuarantinedMessage), (status = "4XX", body = Problem)))]
pub(super) async fn show(
    State(api): State<Api>,
    _: Principal,
    Path(seq): Path<String>,
) -> Result<Json<QuarantinedMessage>, Problem> {
    let seq = number(&seq)?;
    let found = api.checks.readers.quarantined(seq).await?;
    let found = found
        .ok_or_else(|| Problem::not_found(format!("there is no message {seq} in quarantine")))?;
    Ok(Json(QuarantinedMessage {
        line: found.line,
        text: String::from_utf8_lossy(&found.bytes).into_owned(),
        hex: hex::encode(&found.bytes),
    }))
}

fn number(text: &str) -> Result<QuarantineSeq, Problem> {
    let number: i64 = text.parse().map_err(|_| Problem::bad(format!("{text:?} is no number")))?;
    Ok(QuarantineSeq::from(number))
}

/// Puts one of them back in: it is read as strictly as when it came. Its row stays, marked.
#[utoipa::path(post, path = "/v1/quarantine/{seq}/requeue", tag = "quarantine",
    params(("seq" = i64, Path)), request_body = Because,
    responses((status = 200, body = Requeueing), (status = "4XX", body = Problem)))]
pub(super) async fn requeue(
    State(api): State<Api>,
    acting: Acting,
    Path(seq): Path<String>,
    Told(why): Told<Because>,
) -> Result<Json<Requeueing>, Problem> {
    let by = acting.because(&why.reason)?;
    Ok(Json(api.operations.requeue(number(&seq)?, &by).await?))
}
