//! Jobs: listed, shown, explained, acted on.

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
        action::Operator,
        decision::Outcome,
        evidence::Evidence,
        ids::RecordId,
        job::JobType,
        policy::OperatorWord,
        time::{TimestampMs, parse_age},
    },
    operator::{
        self, JobView,
        explain::{Against, ExplainError, Explanation, explain},
    },
    store::query::{JobCount, JobFilter, JobPage, PageWanted},
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
pub(in crate::web) struct JobQuery {
    /// States by name, separated by commas; `open` stands for all that are not final.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::web) state: Option<String>,
    /// The reason of the state, or of the release.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::web) reason: Option<String>,
    /// `allocation` or `deallocation`.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub(in crate::web) job_type: Option<String>,
    /// A connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::web) connection: Option<String>,
    /// A client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::web) client: Option<String>,
    /// A currency.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::web) currency: Option<String>,
    /// Taken in at this time or later; milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::web) received_since: Option<i64>,
    /// Taken in at this time or before; milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::web) received_until: Option<i64>,
    /// Taken in at least this long ago, e.g. `90s`, `15m`, `2h`, `3d`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::web) older_than: Option<String>,
    /// Taken in at most this long ago, likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::web) younger_than: Option<String>,
    /// What was decided: `cleared` or `released`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::web) outcome: Option<String>,
    /// The beginning of an id: the record's, the client's or the connection's, the exchange's for the
    /// record, or its name for a client or connection of the book.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::web) text: Option<String>,
    /// `newest`, `oldest`, `updated` last, `longest` in their state (open jobs only), or by their `next` step
    /// (open jobs that have one only).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::web) sort: Option<String>,
    /// Where to go on: `next` of the page before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::web) after: Option<String>,
    /// Where to end: `previous` of the page behind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::web) before: Option<String>,
    /// Most jobs on the page, 1 to 1,000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::web) limit: Option<u32>,
    /// Whether to count all that match, as far as that is quickly done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::web) count: Option<bool>,
}

/// One page of jobs, and how many there are of them.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct JobList {
    #[serde(flatten)]
    page: JobPage,
    /// How many jobs match, if that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<JobCount>,
}

fn read<T: std::str::FromStr>(name: &str, text: Option<&str>) -> Result<Option<T>, Problem>
where
    T::Err: std::fmt::Display,
{
    let text = text.map(str::trim).filter(|text| !text.is_empty());
    text.map(|text| text.parse().map_err(|error| Problem::bad(format!("{name}: {error}"))))
        .transpose()
}

impl JobQuery {
    pub(in crate::web) fn filter(&self, now: TimestampMs) -> Result<JobFilter, Problem> {
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
        let states = JobFilter::parse_states(self.state.as_deref().unwrap_or_default());
        let reason = self.reason.as_deref().map(str::trim).filter(|word| !word.is_empty());
        let reason = reason.map(JobFilter::parse_reason).transpose();
        let ago = |name: &str, age: Option<&str>| {
            let age = age.map(str::trim).filter(|age| !age.is_empty()).map(parse_age).transpose();
            age.map(|age| age.map(|age| now.before(age)))
                .map_err(|error| Problem::bad(format!("{name}: {error}")))
        };
        let (older, younger) = (
            ago("olderThan", self.older_than.as_deref())?,
            ago("youngerThan", self.younger_than.as_deref())?,
        );
        let until = self.received_until.map(TimestampMs::from_millis);
        let since = self.received_since.map(TimestampMs::from_millis);
        Ok(JobFilter {
            states: states.map_err(|error| Problem::bad(format!("state: {error}")))?,
            reason: reason.map_err(|error| Problem::bad(format!("reason: {error}")))?,
            job_type: read::<JobType>("type", self.job_type.as_deref())?,
            connection_id: read("connection", self.connection.as_deref())?,
            client_id: read("client", self.client.as_deref())?,
            currency: read("currency", self.currency.as_deref())?,
            received_since: since.into_iter().chain(younger).max(),
            received_until: until.into_iter().chain(older).min(),
            outcome,
            text: text.map(str::to_owned),
        })
    }

    /// Which part of the list, with so many jobs on a page unless asked otherwise.
    pub(in crate::web) fn wanted(&self, limit: u32) -> Result<PageWanted, Problem> {
        let wanted = PageWanted::new(
            read("sort", self.sort.as_deref())?,
            read("after", self.after.as_deref())?,
            read("before", self.before.as_deref())?,
            self.limit.unwrap_or(limit),
        );
        wanted.map_err(|error| Problem::bad(error.to_string()))
    }
}

/// Jobs, page by page. Between two pages a job that changes may move within a list that is sorted by time;
/// one that is sorted by arrival has each job once.
#[utoipa::path(get, path = "/v1/jobs", tag = "jobs", params(JobQuery),
    responses((status = 200, body = JobList), (status = "4XX", body = Problem)))]
pub(super) async fn list(
    State(api): State<Api>,
    _: Principal,
    Asked(query): Asked<JobQuery>,
) -> Result<Json<JobList>, Problem> {
    let filter = query.filter(api.clock.now())?;
    let wanted = query.wanted(PAGE_DEFAULT)?;
    let readers = &api.checks.readers;
    let count = match query.count {
        Some(true) => Some(readers.count_jobs(&filter).await?),
        Some(false) | None => None,
    };
    Ok(Json(JobList { page: readers.list_jobs(&filter, &wanted).await?, count }))
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
