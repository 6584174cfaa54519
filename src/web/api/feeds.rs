//! The exchange's feed: how far it has come, and what an operator accepts.

use axum::{Json, extract::State, http::StatusCode};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    Api, SnapshotOrder,
    bodies::{Asked, Told},
};
use crate::{
    pipeline::accept::{ACCEPTED_MAX, SnapshotAcceptance},
    store::query::{FeedLine, PAGE_MAX},
    web::{
        auth::{Acting, Principal},
        problem::Problem,
    },
};

/// Which feeds.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct FeedQuery {
    /// Only those with missing events, with a snapshot that differs, or unproven after a restore.
    wrong: bool,
    /// Most feeds, 1 to 1,000.
    limit: Option<u32>,
}

/// How far the feed of each connection has come, and what is wrong with it.
#[utoipa::path(get, path = "/v1/book/feeds", tag = "book", params(FeedQuery),
    responses((status = 200, body = Vec<FeedLine>), (status = "4XX", body = Problem)))]
pub(super) async fn list(
    State(api): State<Api>,
    _: Principal,
    Asked(query): Asked<FeedQuery>,
) -> Result<Json<Vec<FeedLine>>, Problem> {
    let limit = query.limit.unwrap_or(50).clamp(1, PAGE_MAX);
    Ok(Json(api.checks.readers.feeds(query.wrong, limit).await?))
}

/// Accepts connections as the exchange states them: what the last snapshot of each differed in is booked.
#[utoipa::path(post, path = "/v1/book/accept-snapshot", tag = "book", request_body = SnapshotOrder,
    responses((status = 200, body = Vec<SnapshotAcceptance>), (status = "4XX", body = Problem)))]
pub(super) async fn accept(
    State(api): State<Api>,
    acting: Acting,
    Told(order): Told<SnapshotOrder>,
) -> Result<Json<Vec<SnapshotAcceptance>>, Problem> {
    let by = acting.because(&order.reason)?;
    if order.connections.len() > ACCEPTED_MAX {
        let detail =
            format!("{} connections; at most {ACCEPTED_MAX} go together", order.connections.len());
        return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail));
    }
    match api.operations.writer.accept_snapshots(order.connections, by).await? {
        Ok(accepted) => Ok(Json(accepted)),
        Err(reason) => Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, reason)),
    }
}
