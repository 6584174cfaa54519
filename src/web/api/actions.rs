//! What operators did, and what they have switched off.

use axum::{
    Json,
    extract::{Path, State},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    Api, SwitchSetting,
    bodies::{Asked, Told},
    jobs::record,
};
use crate::{
    domain::action::{ActionKind, Switch},
    store::query::{ActionFilter, ActionLine, PAGE_MAX, SwitchLine},
    web::{
        auth::{Acting, Principal},
        problem::Problem,
    },
};

/// Which actions.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ActionQuery {
    /// `retry`, `approve`, `refuse`, `propose_end`, `confirm_end`, `requeue`, `switch` or
    /// `accept_snapshot`.
    kind: Option<String>,
    /// A record.
    record: Option<String>,
    /// Whose, as the journal has the name.
    who: Option<String>,
    /// Only those before this number.
    before: Option<i64>,
    /// Most actions on the page, 1 to 1,000.
    limit: Option<u32>,
}

/// What operators did, the latest first.
#[utoipa::path(get, path = "/v1/actions", tag = "actions", params(ActionQuery),
    responses((status = 200, body = Vec<ActionLine>), (status = "4XX", body = Problem)))]
pub(super) async fn list(
    State(api): State<Api>,
    _: Principal,
    Asked(query): Asked<ActionQuery>,
) -> Result<Json<Vec<ActionLine>>, Problem> {
    let kind = match query.kind.as_deref().filter(|word| !word.is_empty()) {
        None => None,
        Some(word) => {
            let known = ActionKind::ALL.into_iter().find(|kind| kind.as_str() == word);
            Some(known.ok_or_else(|| {
                let known = ActionKind::ALL.map(ActionKind::as_str).join(", ");
                Problem::bad(format!("kind: {word:?} is none of {known}"))
            })?)
        }
    };
    let about = query.record.as_deref().filter(|text| !text.is_empty());
    let filter = ActionFilter {
        kind,
        record_id: about.map(record).transpose()?,
        who: query.who.filter(|who| !who.is_empty()),
        before: query.before,
        limit: query.limit.unwrap_or(50).clamp(1, PAGE_MAX),
    };
    Ok(Json(api.checks.readers.actions(&filter).await?))
}

/// The switches, and who set them and why.
#[utoipa::path(get, path = "/v1/switches", tag = "actions",
    responses((status = 200, body = Vec<SwitchLine>)))]
pub(super) async fn switches(
    State(api): State<Api>,
    _: Principal,
) -> Result<Json<Vec<SwitchLine>>, Problem> {
    Ok(Json(api.checks.readers.switches().await?))
}

/// What became of a setting.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SwitchSet {
    /// Which switch.
    pub switch: Switch,
    /// Whether it is on now.
    pub on: bool,
    /// Whether it was otherwise before.
    pub changed: bool,
}

/// Sets a switch. It stays so until somebody sets it again, also over a restart.
#[utoipa::path(put, path = "/v1/switches/{switch}", tag = "actions",
    params(("switch" = Switch, Path)), request_body = SwitchSetting,
    responses((status = 200, body = SwitchSet), (status = "4XX", body = Problem)))]
pub(super) async fn set_switch(
    State(api): State<Api>,
    acting: Acting,
    Path(switch): Path<String>,
    Told(setting): Told<SwitchSetting>,
) -> Result<Json<SwitchSet>, Problem> {
    let switch: Switch =
        switch.parse().map_err(|error| Problem::not_found(format!("{switch:?}: {error}")))?;
    let by = acting.because(&setting.reason)?;
    let changed = api.operations.set_switch(switch, setting.on, &by).await?;
    Ok(Json(SwitchSet { switch, on: setting.on, changed }))
}
