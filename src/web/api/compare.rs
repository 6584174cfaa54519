//! The book compared with OES, and history moved away.

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    Api, Because,
    bodies::{Asked, Told},
};
use crate::{
    compare::{
        CompareError,
        reconcile::{ReconcileReport, ReconcileRequest},
        sync::{SyncReport, SyncRequest},
    },
    domain::{ids::ConnectionId, time::TimestampMs},
    store::query::{FindingLine, PAGE_MAX, RunLine},
    tally::Tally,
    web::{
        auth::{Acting, Principal},
        problem::Problem,
    },
};

/// Which comparisons.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct RunQuery {
    /// Only those before this number.
    before: Option<i64>,
    /// Most comparisons on the page, 1 to 1,000.
    limit: Option<u32>,
}

/// Past comparisons of jobs and balances with OES, the latest first.
#[utoipa::path(get, path = "/v1/reconcile", tag = "reconcile", params(RunQuery),
    responses((status = 200, body = Vec<RunLine>), (status = "4XX", body = Problem)))]
pub(super) async fn runs(
    State(api): State<Api>,
    _: Principal,
    Asked(query): Asked<RunQuery>,
) -> Result<Json<Vec<RunLine>>, Problem> {
    let limit = query.limit.unwrap_or(20).clamp(1, PAGE_MAX);
    Ok(Json(api.checks.readers.runs(query.before, limit).await?))
}

/// A comparison with what it found.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct RunView {
    #[serde(flatten)]
    run: RunLine,
    /// The first 1,000 findings.
    findings: Vec<FindingLine>,
}

/// One of them with what it found.
#[utoipa::path(get, path = "/v1/reconcile/{seq}", tag = "reconcile", params(("seq" = i64, Path)),
    responses((status = 200, body = RunView), (status = "4XX", body = Problem)))]
pub(super) async fn run(
    State(api): State<Api>,
    _: Principal,
    Path(seq): Path<String>,
) -> Result<Json<RunView>, Problem> {
    let seq: i64 = seq.parse().map_err(|_| Problem::bad(format!("{seq:?} is no number")))?;
    let readers = &api.checks.readers;
    let found = readers.runs(Some(seq.saturating_add(1)), 1).await?.pop();
    let run = found.filter(|run| run.seq == seq);
    let run = run.ok_or_else(|| Problem::not_found(format!("there is no comparison {seq}")))?;
    Ok(Json(RunView { run, findings: readers.findings(seq).await? }))
}

/// How jobs and balances are compared.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReconcileOrder {
    /// Jobs that were taken in from then on.
    pub since_ms: TimestampMs,
    /// To then.
    pub until_ms: TimestampMs,
    /// Whether records without a job are taken in.
    pub adopt: bool,
    /// Why it is asked for.
    pub reason: String,
}

/// Compares jobs, balances and reserved records with OES. Takes as long as OES's rate limit makes it.
#[utoipa::path(post, path = "/v1/reconcile", tag = "reconcile", request_body = ReconcileOrder,
    responses((status = 200, body = Object), (status = "4XX", body = Problem)))]
pub(super) async fn reconcile(
    State(api): State<Api>,
    acting: Acting,
    Told(order): Told<ReconcileOrder>,
) -> Result<Json<ReconcileReport>, Problem> {
    let by = acting.because(&order.reason)?;
    let request = ReconcileRequest {
        since_ms: order.since_ms,
        until_ms: order.until_ms,
        adopt: order.adopt,
        source: format!("{}: {}", by.who, by.reason),
    };
    until_the_end(&api, Box::pin(api.desk.reconcile(&request, &Tally::default()))).await
}

/// How connections and currencies are compared.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SyncOrder {
    /// Whether the book is to be changed.
    pub apply: bool,
    /// Suspended connections that are given back.
    #[serde(default)]
    pub activate: Vec<ConnectionId>,
    /// Why it is asked for.
    pub reason: String,
}

/// Compares connections and currencies with OES, and brings the book in step if that is asked for.
#[utoipa::path(post, path = "/v1/book/sync", tag = "book", request_body = SyncOrder,
    responses((status = 200, body = Object), (status = "4XX", body = Problem)))]
pub(super) async fn sync(
    State(api): State<Api>,
    acting: Acting,
    Told(order): Told<SyncOrder>,
) -> Result<Json<SyncReport>, Problem> {
    let by = acting.because(&order.reason)?;
    let request = SyncRequest { apply: order.apply, activate: order.activate, who: by.who };
    until_the_end(&api, Box::pin(api.desk.sync(&request))).await
}

/// Compares, unless the daemon ends before that is done.
async fn until_the_end<T>(
    api: &Api,
    work: impl Future<Output = Result<T, CompareError>>,
) -> Result<Json<T>, Problem> {
    let done = tokio::select! {
        () = api.stop.cancelled() => Err(CompareError::Ending),
        done = work => done,
    };
    Ok(Json(done?))
}

/// The daemon has been told to archive.
#[derive(Serialize, Deserialize, ToSchema)]
pub(super) struct Rung {
    archiving: bool,
}

/// Moves the history of old jobs into the archive now; answers before that is done.
#[utoipa::path(post, path = "/v1/archive", tag = "book", request_body = Because,
    responses((status = 200, body = Rung), (status = "4XX", body = Problem)))]
pub(super) async fn archive(
    State(api): State<Api>,
    acting: Acting,
    Told(why): Told<Because>,
) -> Result<Json<Rung>, Problem> {
    let by = acting.because(&why.reason)?;
    let Some(bell) = &api.archive else {
        let detail =
            "it archives nothing: it was started without archive.path, or may sign nothing";
        return Err(Problem::new(StatusCode::CONFLICT, detail));
    };
    tracing::info!(who = by.who, reason = by.reason, "asked to archive now");
    bell.notify_one();
    Ok(Json(Rung { archiving: true }))
}
