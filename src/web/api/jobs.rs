//! Jobs: listed, shown, explained, acted on.

use std::collections::BTreeSet;

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    Api, Because, End,
    bodies::{Asked, Told},
};
use crate::{
    domain::{
        action::Operator, decision::Outcome, evidence::Evidence, ids::RecordId, job::JobType,
        policy::OperatorWord, state::State as JobState, time::TimestampMs,
    },
    operator::{
        self, JobView,
        explain::{Against, ExplainError, Explanation, explain},
    },
    store::query::{JobFilter, JobPage, Sort},
    web::{
        auth::{Acting, Principal},
        problem::Problem,
    },
    writer::{Acted, JobAction},
};

/// Jobs on a page, unless asked otherwise.
const PAGE_DEFAULT: u32 = 50;

/// Longest beginning of an id that is looked for, in bytes.
const TEXT_BYTES_MAX: usize = 256;

/// Which jobs, and in what order.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams, ToSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct JobQuery {
    /// States by name, separated by commas; `open` stands for all that are not final.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) state: Option<String>,
    /// The reason of the state, or of the release.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<String>,
    /// `allocation` or `deallocation`.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub(super) job_type: Option<String>,
    /// A connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) connection: Option<String>,
    /// A client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) client: Option<String>,
    /// A currency.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) currency: Option<String>,
    /// Taken in at this time or later; milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) received_since: Option<i64>,
    /// Taken in at this time or before; milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) received_until: Option<i64>,
    /// What was decided: `cleared` or `released`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) outcome: Option<String>,
    /// The beginning of an id: the record's, or one of the exchange's for record, client and connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) text: Option<String>,
    /// `newest`, `oldest`, or `longest` in their state, which shows open jobs only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) sort: Option<String>,
    /// Where to go on: `next` of the page before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) after: Option<String>,
    /// Most jobs on the page, 1 to 1,000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) limit: Option<u32>,
}

fn read<T: std::str::FromStr>(name: &str, text: Option<&str>) -> Result<Option<T>, Problem>
where
    T::Err: std::fmt::Display,
{
    let text = text.map(str::trim).filter(|text| !text.is_empty());
    text.map(|text| text.parse().map_err(|error| Problem::bad(format!("{name}: {error}"))))
        .transpose()
}

/// States by name, with `open` for all that are not final.
fn states(text: &str) -> Result<BTreeSet<String>, String> {
    let mut states = BTreeSet::new();
    for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
        if word == "open" {
            let open = JobState::all().filter(|state| !state.is_final());
            states.extend(open.map(|state| state.name().to_owned()));
        } else if JobState::NAMES.contains(&word) {
            states.insert(word.to_owned());
        } else {
            let known = JobState::NAMES.join(", ");
            return Err(format!("{word:?} is no state; there are open, {known}"));
        }
    }
    Ok(states)
}

impl JobQuery {
    pub(super) fn filter(&self) -> Result<JobFilter, Problem> {
        let outcome: Option<String> = read("outcome", self.outcome.as_deref())?;
        let known = |word: &String| Outcome::ALL.into_iter().find(|known| known.as_str() == word);
        let outcome = match &outcome {
            None => None,
            Some(word) => Some(known(word).ok_or_else(|| {
                Problem::bad(format!("outcome: {word:?} is neither cleared nor released"))
            })?),
        };
        let text = self.text.as_deref().map(str::trim).filter(|text| !text.is_empty());
        if text.is_some_and(|text| text.len() > TEXT_BYTES_MAX) {
            return Err(Problem::bad(format!("text has more than {TEXT_BYTES_MAX} bytes")));
        }
        let states = states(self.state.as_deref().unwrap_or_default());
        Ok(JobFilter {
            states: states.map_err(|error| Problem::bad(format!("state: {error}")))?,
            reason: read("reason", self.reason.as_deref())?,
            job_type: read::<JobType>("type", self.job_type.as_deref())?,
            connection_id: read("connection", self.connection.as_deref())?,
            client_id: read("client", self.client.as_deref())?,
            currency: read("currency", self.currency.as_deref())?,
            received_since: self.received_since.map(TimestampMs::from_millis),
            received_until: self.received_until.map(TimestampMs::from_millis),
            outcome,
            text: text.map(str::to_owned),
        })
    }
}

/// Jobs, page by page.
#[utoipa::path(get, path = "/v1/jobs", tag = "jobs", params(JobQuery),
    responses((status = 200, body = JobPage), (status = "4XX", body = Problem)))]
pub(super) async fn list(
    State(api): State<Api>,
    _: Principal,
    Asked(query): Asked<JobQuery>,
) -> Result<Json<JobPage>, Problem> {
    let (filter, sort) = (query.filter()?, read::<Sort>("sort", query.sort.as_deref())?);
    let after = read("after", query.after.as_deref())?;
    let limit = query.limit.unwrap_or(PAGE_DEFAULT);
    let page = api.checks.readers.list_jobs(&filter, sort.unwrap_or_default(), after, limit);
    Ok(Json(page.await?))
}

pub(super) fn record(text: &str) -> Result<RecordId, Problem> {
    text.parse().map_err(|error| Problem::bad(format!("{text:?} is {error}")))
}

fn unknown(id: RecordId) -> Problem {
    Problem::not_found(format!("there is no job about record {id}"))
}

/// Everything about one job, with the time between what happened.
#[utoipa::path(get, path = "/v1/jobs/{recordId}", tag = "jobs",
    params(("recordId" = RecordId, Path)),
    responses((status = 200, body = JobView), (status = "4XX", body = Problem)))]
pub(super) async fn show(
    State(api): State<Api>,
    _: Principal,
    Path(id): Path<String>,
) -> Result<Json<JobView>, Problem> {
    let id = record(&id)?;
    operator::job(&api.history_of(id).await?, id).await?.map(Json).ok_or_else(|| unknown(id))
}

/// Over which book the policy is asked.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ExplainQuery {
    /// `then`, as the decision saw the book, or `now`.
    #[serde(default)]
    against: Option<String>,
}

/// What the decision saw, and what the policy says over it.
#[utoipa::path(get, path = "/v1/jobs/{recordId}/explain", tag = "jobs",
    params(("recordId" = RecordId, Path), ExplainQuery),
    responses((status = 200, body = Object), (status = "4XX", body = Problem)))]
pub(super) async fn explained(
    State(api): State<Api>,
    _: Principal,
    Path(id): Path<String>,
    Asked(query): Asked<ExplainQuery>,
) -> Result<Json<Explanation>, Problem> {
    let against = match query.against.as_deref() {
        None | Some("then") => Against::Then,
        Some("now") => Against::Now,
        Some(other) => return Err(Problem::bad(format!("against: {other:?} is not then or now"))),
    };
    let id = record(&id)?;
    let explained = explain(&api.history_of(id).await?, id, against, api.clock.now()).await;
    explained.map(Json).map_err(|error| match error {
        ExplainError::Unknown(id) => unknown(id),
        ExplainError::Undecided(_) | ExplainError::NoView { .. } => {
            Problem::new(StatusCode::CONFLICT, error.to_string())
        }
        ExplainError::Store(error) => error.into(),
    })
}

/// What proves what was said about one record, as `settled verify --evidence` checks it.
#[utoipa::path(get, path = "/v1/jobs/{recordId}/evidence", tag = "jobs",
    params(("recordId" = RecordId, Path)),
    responses((status = 200, body = Object), (status = "4XX", body = Problem)))]
pub(super) async fn evidence(
    State(api): State<Api>,
    _: Principal,
    Path(id): Path<String>,
) -> Result<Json<Evidence>, Problem> {
    let id = record(&id)?;
    let history = api.history_of(id).await?;
    let evidence = operator::evidence::evidence(&history, id, api.clock.now()).await?;
    evidence.map(Json).ok_or_else(|| unknown(id))
}

async fn act_on(
    api: &Api,
    action: JobAction,
    id: &str,
    by: Operator,
) -> Result<Json<Acted>, Problem> {
    let id = record(id)?;
    let acted = Box::pin(api.operations.act(action, &[id], &by)).await?.pop();
    let (_, acted) = acted.ok_or_else(|| unknown(id))?;
    Ok(Json(acted))
}

/// Sends a parked job on, after its cause is gone. Changes no decision.
#[utoipa::path(post, path = "/v1/jobs/{recordId}/retry", tag = "jobs",
    params(("recordId" = RecordId, Path)), request_body = Because,
    responses((status = 200, body = Acted), (status = "4XX", body = Problem)))]
pub(super) async fn retry(
    State(api): State<Api>,
    acting: Acting,
    Path(id): Path<String>,
    Told(why): Told<Because>,
) -> Result<Json<Acted>, Problem> {
    act_on(&api, JobAction::Retry, &id, acting.because(&why.reason)?).await
}

/// Approves a job that waits for it: the policy looks again, with the threshold waived.
#[utoipa::path(post, path = "/v1/jobs/{recordId}/approve", tag = "jobs",
    params(("recordId" = RecordId, Path)), request_body = Because,
    responses((status = 200, body = Acted), (status = "4XX", body = Problem)))]
pub(super) async fn approve(
    State(api): State<Api>,
    acting: Acting,
    Path(id): Path<String>,
    Told(why): Told<Because>,
) -> Result<Json<Acted>, Problem> {
    let action = JobAction::Say(OperatorWord::Approved);
    act_on(&api, action, &id, acting.because(&why.reason)?).await
}

/// Refuses a job that waits for approval: its record is released.
#[utoipa::path(post, path = "/v1/jobs/{recordId}/refuse", tag = "jobs",
    params(("recordId" = RecordId, Path)), request_body = Because,
    responses((status = 200, body = Acted), (status = "4XX", body = Problem)))]
pub(super) async fn refuse(
    State(api): State<Api>,
    acting: Acting,
    Path(id): Path<String>,
    Told(why): Told<Because>,
) -> Result<Json<Acted>, Problem> {
    let action = JobAction::Say(OperatorWord::Refused);
    act_on(&api, action, &id, acting.because(&why.reason)?).await
}

/// Says how OES ended the record of a job that is in conflict. It takes two operators: the first proposes,
/// another one says the same. Signs nothing and keeps the decision; the book follows OES.
#[utoipa::path(post, path = "/v1/jobs/{recordId}/resolve", tag = "jobs",
    params(("recordId" = RecordId, Path)), request_body = End,
    responses((status = 200, body = Acted), (status = "4XX", body = Problem)))]
pub(super) async fn resolve(
    State(api): State<Api>,
    acting: Acting,
    Path(id): Path<String>,
    Told(end): Told<End>,
) -> Result<Json<Acted>, Problem> {
    is_known(&api, &acting)?;
    act_on(&api, JobAction::Close(end.outcome), &id, acting.because(&end.reason)?).await
}

/// Two operators are two only if names cannot be made up. Where there are tokens, they must be used.
pub(super) fn is_known(api: &Api, acting: &Acting) -> Result<(), Problem> {
    if acting.0.proved || api.trusts_names {
        return Ok(());
    }
    Err(Problem::new(
        StatusCode::FORBIDDEN,
        "this takes two operators, and http.tokens_file says who is one: bring your token \
         (settled --token-file FILE)",
    ))
}
