//! The control routes: `/_sandbox/…`. They have no token, so a sandbox listens on loopback; there is
//! nothing behind them but play money.

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Path, Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};

use super::{
    audit::Put,
    fault::{AfterRejection, Fault},
    record::Record,
    seed::Seed,
    state::{Reservation, SandboxState},
    world::WorldError,
};
use crate::domain::{decision::Outcome, ids::RecordId};

/// Largest request to a control route: a seed with many connections.
const CONTROL_BYTES_MAX: usize = 64 * 1_024 * 1_024;

/// Most updates in one answer.
const PUTS_IN_ANSWER_MAX: usize = 10_000;

/// Why a control request does nothing.
struct Refused(StatusCode, String);

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.0, Json(json!({ "error": self.1 }))).into_response()
    }
}

impl From<WorldError> for Refused {
    fn from(error: WorldError) -> Self {
        let status = match &error {
            WorldError::NoRecord(_) | WorldError::NoConnection(_) | WorldError::NoCurrency(_) => {
                StatusCode::NOT_FOUND
            }
            WorldError::Objection(_)
            | WorldError::Final(_)
            | WorldError::NotWaiting(_)
            | WorldError::ExternalIdTaken(_) => StatusCode::CONFLICT,
            WorldError::Full | WorldError::Books(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self(status, error.to_string())
    }
}

fn bad(error: impl std::fmt::Display) -> Refused {
    Refused(StatusCode::BAD_REQUEST, error.to_string())
}

fn parse<T: DeserializeOwned>(body: &str) -> Result<T, Refused> {
    serde_json::from_str(body).map_err(bad)
}

fn record_id(text: &str) -> Result<RecordId, Refused> {
    text.parse().map_err(|error| bad(format_args!("{text:?} is {error}")))
}

pub(super) fn router(state: SandboxState) -> Router {
    Router::new()
        .route("/state", get(overview))
        .route("/puts", get(puts))
        .route("/records", get(records).post(reserve))
        .route("/records/{id}", get(record))
        .route("/records/{id}/job", get(job))
        .route("/records/{id}/approve", post(approve))
        .route("/records/{id}/reject", post(reject))
        .route("/records/{id}/finish", post(finish))
        .route("/faults", get(faults).post(inject).delete(clear_faults))
        .route("/rules", get(rules).post(change_rules))
        .route("/seed", post(seed))
        .layer(DefaultBodyLimit::max(CONTROL_BYTES_MAX))
        .with_state(state)
}

async fn overview(State(state): State<SandboxState>) -> Response {
    Json(state.overview()).into_response()
}

/// From which number on updates are asked for.
#[derive(Deserialize)]
struct Begin {
    #[serde(default)]
    from: u64,
}

#[derive(Serialize)]
struct Puts {
    puts: Vec<Put>,
}

async fn puts(State(state): State<SandboxState>, Query(Begin { from }): Query<Begin>) -> Response {
    let mut puts = state.puts();
    puts.retain(|put| put.seq >= from);
    puts.truncate(PUTS_IN_ANSWER_MAX);
    Json(Puts { puts }).into_response()
}

#[derive(Serialize)]
struct Records {
    records: Vec<Record>,
}

async fn records(State(state): State<SandboxState>) -> Response {
    let records = state.records();
    Json(Records { records }).into_response()
}

async fn reserve(State(state): State<SandboxState>, body: String) -> Result<Json<Record>, Refused> {
    Ok(Json(state.reserve(parse::<Reservation>(&body)?)?))
}

async fn record(
    State(state): State<SandboxState>,
    Path(id): Path<String>,
) -> Result<Json<Record>, Refused> {
    shown(&state, record_id(&id)?)
}

fn shown(state: &SandboxState, id: RecordId) -> Result<Json<Record>, Refused> {
    Ok(Json(state.record(id).ok_or(WorldError::NoRecord(id))?))
}

async fn job(State(state): State<SandboxState>, Path(id): Path<String>) -> Result<String, Refused> {
    Ok(state.job_message(record_id(&id)?)?)
}

async fn approve(
    State(state): State<SandboxState>,
    Path(id): Path<String>,
) -> Result<Json<Record>, Refused> {
    let id = record_id(&id)?;
    state.approve(id)?;
    shown(&state, id)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rejection {
    then: AfterRejection,
}

async fn reject(
    State(state): State<SandboxState>,
    Path(id): Path<String>,
    body: String,
) -> Result<Json<Record>, Refused> {
    let id = record_id(&id)?;
    let Rejection { then } = parse(&body)?;
    state.reject(id, then)?;
    shown(&state, id)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Finish {
    outcome: Outcome,
}

async fn finish(
    State(state): State<SandboxState>,
    Path(id): Path<String>,
    body: String,
) -> Result<Json<Record>, Refused> {
    let id = record_id(&id)?;
    let Finish { outcome } = parse(&body)?;
    state.finish(id, outcome)?;
    shown(&state, id)
}

#[derive(Serialize)]
struct Waiting {
    faults: Vec<Fault>,
}

async fn faults(State(state): State<SandboxState>) -> Response {
    let faults = state.faults();
    Json(Waiting { faults }).into_response()
}

async fn inject(State(state): State<SandboxState>, body: String) -> Result<Json<Value>, Refused> {
    state.inject(parse(&body)?).map_err(bad)?;
    Ok(Json(json!({})))
}

async fn clear_faults(State(state): State<SandboxState>) -> Json<Value> {
    state.clear_faults();
    Json(json!({}))
}

async fn rules(State(state): State<SandboxState>) -> Response {
    Json(state.rules()).into_response()
}

async fn change_rules(
    State(state): State<SandboxState>,
    body: String,
) -> Result<Response, Refused> {
    let changes: Map<String, Value> = parse(&body)?;
    let rules = state.change_rules(changes).map_err(bad)?;
    Ok(Json(rules).into_response())
}

async fn seed(State(state): State<SandboxState>, body: String) -> Result<Json<Value>, Refused> {
    state.apply(&parse::<Seed>(&body)?).map_err(bad)?;
    Ok(Json(json!({})))
}
