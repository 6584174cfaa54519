//! Many jobs at once: first shown, then done to those that were shown.

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    Api, BulkRequest,
    bodies::{BulkAction, Told},
    jobs::{JobQuery, is_known},
};
use crate::{
    domain::{decision::Outcome, ids::RecordId, policy::OperatorWord},
    operator::bulk::{Preview, preview as look},
    web::{
        auth::{Acting, Principal},
        problem::Problem,
    },
    writer::{Acted, JobAction},
};

/// Most jobs in one request, so that each is answered soon.
pub const RECORDS_MAX: usize = 500;

/// What would be done, and to which jobs.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct PreviewRequest {
    /// What would be done.
    action: BulkAction,
    /// Which jobs; without states, those that the action is for.
    filter: JobQuery,
}

/// What became of one of the jobs.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ActedLine {
    /// Its record.
    pub record_id: RecordId,
    /// What became of it.
    pub became: Acted,
}

fn action(action: BulkAction, outcome: Option<Outcome>) -> Result<JobAction, Problem> {
    match (action, outcome) {
        (BulkAction::Retry, None) => Ok(JobAction::Retry),
        (BulkAction::Approve, None) => Ok(JobAction::Say(OperatorWord::Approved)),
        (BulkAction::Refuse, None) => Ok(JobAction::Say(OperatorWord::Refused)),
        (BulkAction::Resolve, Some(outcome)) => Ok(JobAction::Close(outcome)),
        (BulkAction::Resolve, None) => Err(Problem::bad("resolve needs an outcome")),
        (BulkAction::Retry | BulkAction::Approve | BulkAction::Refuse, Some(_)) => {
            Err(Problem::bad("an outcome is for resolve only"))
        }
    }
}

/// What an action on all jobs that match would be about: how many, how much, and which. Changes nothing.
#[utoipa::path(post, path = "/v1/bulk/preview", tag = "jobs", request_body = PreviewRequest,
    responses((status = 200, body = Preview), (status = "4XX", body = Problem)))]
pub(super) async fn preview(
    State(api): State<Api>,
    _: Principal,
    Told(request): Told<PreviewRequest>,
) -> Result<Json<Preview>, Problem> {
    // How OES ended them makes no difference to which jobs it is about.
    let outcome = (request.action == BulkAction::Resolve).then_some(Outcome::Cleared);
    let action = action(request.action, outcome)?;
    Ok(Json(look(&api.checks.readers, action, &request.filter.filter(api.clock.now())?).await?))
}

/// Carries an action out on jobs, a few in a transaction. A job that it is not for any more is left alone.
#[utoipa::path(post, path = "/v1/bulk", tag = "jobs", request_body = BulkRequest,
    responses((status = 200, body = Vec<ActedLine>), (status = "4XX", body = Problem)))]
pub(super) async fn act(
    State(api): State<Api>,
    acting: Acting,
    Told(request): Told<BulkRequest>,
) -> Result<Json<Vec<ActedLine>>, Problem> {
    if request.records.len() > RECORDS_MAX {
        let records = request.records.len();
        return Err(Problem::bad(format!("{records} jobs; at most {RECORDS_MAX} go together")));
    }
    let action = action(request.action, request.outcome)?;
    if matches!(action, JobAction::Close(_)) {
        is_known(&api, &acting)?;
    }
    let mut by = acting.because(&request.reason)?;
    by.bulk_id = request.bulk_id;
    let acted = Box::pin(api.operations.act(action, &request.records, &by)).await?;
    let lines = acted.into_iter().map(|(record_id, became)| ActedLine { record_id, became });
    Ok(Json(lines.collect()))
}
