//! Everything at a glance.

use axum::{Json, extract::State};

use super::Api;
use crate::{
    operator::status::{self as look, Status},
    telemetry,
    web::{auth::Principal, problem::Problem},
};

/// The parts of the daemon, jobs by state, what is at risk and stuck, and the last problems.
#[utoipa::path(get, path = "/v1/status", tag = "status", responses((status = 200, body = Status)))]
pub(super) async fn status(
    State(api): State<Api>,
    principal: Principal,
) -> Result<Json<Status>, Problem> {
    let readiness = api.checks.readiness().await;
    let daemon = serde_json::json!({
        "version": env!("CARGO_PKG_VERSION"),
        "you": {"name": principal.name, "role": principal.role},
        "ready": readiness.ready, "parts": readiness.parts,
        "problems": telemetry::recent_problems(),
    });
    let now = api.clock.now();
    Ok(Json(look::status(&api.checks.readers, Some(daemon), now).await?))
}
