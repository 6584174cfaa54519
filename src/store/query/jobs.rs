//! Listing jobs: which ones, in what order, from where on.
//!
//! A list is read along an index (`path`) from where the last page ended, and never looks at more than so
//! many rows for one page: a page that comes short says where to go on. So the time that a page takes does
//! not grow with the history, whatever is asked for.

mod filter;
mod path;

use serde::Serialize;
use sqlx::{QueryBuilder, Row as _, Sqlite, sqlite::SqliteRow};

pub use filter::{Cursor, CursorError, JobFilter, Sort};
use path::Path;

use super::{READING, optional_outcome};
use crate::{
    domain::{
        amount::Amount,
        decision::Outcome,
        ids::{ClientId, ConnectionId, JobSeq, PartnersRecordId, RecordId},
        job::JobType,
        time::TimestampMs,
    },
    store::{
        Readers, StoreError,
        error::{While as _, unreadable},
        rows::parse,
    },
};

/// Most jobs on one page.
pub const PAGE_MAX: u32 = 1_000;

/// Most jobs whose ids begin with what is looked for. A longer beginning finds fewer.
const BEGINNINGS_MAX: i64 = 1_000;

/// One line of a list of jobs.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct JobLine {
    /// Its number.
    pub seq: JobSeq,
    /// The record at OES.
    pub record_id: RecordId,
    /// Allocation or deallocation.
    #[serde(rename = "type")]
    pub job_type: JobType,
    /// How much of what.
    pub amount: Amount,
    /// The client.
    pub client_id: ClientId,
    /// The connection.
    pub connection_id: ConnectionId,
    /// The record on the exchange.
    pub partners_record_id: PartnersRecordId,
    /// How far it has come.
    pub state: String,
    /// Why, where the state has a reason.
    pub state_reason: Option<String>,
    /// What was decided.
    pub outcome: Option<Outcome>,
    /// Why it was released, if it was: the policy's word for it.
    pub reject_code: Option<String>,
    /// How OES ended it.
    pub final_outcome: Option<Outcome>,
    /// Attempts so far.
    pub attempts: i64,
    /// When it was taken in.
    pub received_at_ms: TimestampMs,
    /// When it came to its state.
    pub state_since_ms: TimestampMs,
    /// When its next step is due.
    pub next_step_at_ms: Option<TimestampMs>,
}

/// One page of a list of jobs.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct JobPage {
    /// The jobs, in the order that was asked for.
    pub jobs: Vec<JobLine>,
    /// Where the next page begins; nothing if this is the last. A page may come short and still have a
    /// next one, because each looks at so many rows only.
    pub next: Option<Cursor>,
}

/// What a line is read from.
const COLUMNS: &str = "SELECT jobs.job_seq, record_id, type, currency, quantity, client_id, connection_id, \
     partners_record_id, state, state_reason, jobs.outcome, decisions.reject_code, final_outcome, \
     attempts_made, received_at_ms, state_since_ms, next_step_at_ms FROM ";

fn line(row: &SqliteRow) -> Result<JobLine, StoreError> {
    let bad = unreadable("jobs");
    let text = |name: &str| row.try_get::<String, _>(name).while_doing(READING);
    let word = |name: &str| row.try_get::<Option<String>, _>(name).while_doing(READING);
    let number = |name: &str| row.try_get::<i64, _>(name).while_doing(READING);
    let at = |name: &str| row.try_get::<Option<i64>, _>(name).while_doing(READING);
    let amount =
        Amount::positive(parse("jobs", &text("currency")?)?, parse("jobs", &text("quantity")?)?);
    Ok(JobLine {
        seq: JobSeq::from(number("job_seq")?),
        record_id: parse("jobs", &text("record_id")?)?,
        job_type: parse("jobs", &text("type")?)?,
        amount: amount.map_err(|error| bad(&error))?,
        client_id: parse("jobs", &text("client_id")?)?,
        connection_id: parse("jobs", &text("connection_id")?)?,
        partners_record_id: parse("jobs", &text("partners_record_id")?)?,
        state: text("state")?,
        state_reason: word("state_reason")?,
        outcome: optional_outcome(word("outcome")?.as_deref())?,
        reject_code: word("reject_code")?,
        final_outcome: optional_outcome(word("final_outcome")?.as_deref())?,
        attempts: number("attempts_made")?,
        received_at_ms: TimestampMs::from_millis(number("received_at_ms")?),
        state_since_ms: TimestampMs::from_millis(number("state_since_ms")?),
        next_step_at_ms: at("next_step_at_ms")?.map(TimestampMs::from_millis),
    })
}

/// Adds what the filter asks of each row, whatever path leads to it.
fn push_conditions(sql: &mut QueryBuilder<Sqlite>, filter: &JobFilter) {
    if !filter.states.is_empty() {
        sql.push(" AND state IN (");
        let mut list = sql.separated(", ");
        for state in &filter.states {
            list.push_bind(state.clone());
        }
        sql.push(")");
    }
    let mut equal = |column: &str, value: Option<String>| {
        if let Some(value) = value {
            sql.push(" AND ").push(column).push(" = ").push_bind(value);
        }
    };
    equal("type", filter.job_type.map(|word| word.as_str().to_owned()));
    equal("connection_id", filter.connection_id.map(|id| id.to_string()));
    equal("client_id", filter.client_id.map(|id| id.to_string()));
    equal("currency", filter.currency.as_ref().map(ToString::to_string));
    equal("jobs.outcome", filter.outcome.map(|word| word.as_str().to_owned()));
    if let Some(reason) = &filter.reason {
        sql.push(" AND (state_reason = ").push_bind(reason.clone());
        sql.push(" OR decisions.reject_code = ").push_bind(reason.clone()).push(")");
    }
    if let Some(since) = filter.received_since {
        sql.push(" AND received_at_ms >= ").push_bind(since.as_millis());
    }
    if let Some(until) = filter.received_until {
        sql.push(" AND received_at_ms <= ").push_bind(until.as_millis());
    }
}

impl Readers {
    /// One page of jobs.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list_jobs(
        &self,
        filter: &JobFilter,
        sort: Sort,
        after: Option<Cursor>,
        limit: u32,
    ) -> Result<JobPage, StoreError> {
        let limit = limit.clamp(1, PAGE_MAX);
        let mut page = JobPage { jobs: Vec::new(), next: None };
        for path in self.paths(filter, sort).await? {
            let found = self.along(&path, filter, sort, after, limit).await?;
            page = merged(page, found, sort, limit);
        }
        Ok(page)
    }

    async fn along(
        &self,
        path: &Path,
        filter: &JobFilter,
        sort: Sort,
        after: Option<Cursor>,
        limit: u32,
    ) -> Result<JobPage, StoreError> {
        let Some(stretch) = self.stretch(path, filter, sort, after).await? else {
            return Ok(JobPage { jobs: Vec::new(), next: None });
        };
        let mut sql = QueryBuilder::new(COLUMNS);
        path.push_from(&mut sql);
        stretch.push_where(&mut sql, path, sort);
        push_conditions(&mut sql, filter);
        if let (Path::OpenByTime, Some(text)) = (path, &filter.text) {
            path::push_text(&mut sql, text);
        }
        sql.push(path.order(sort)).push(" LIMIT ").push_bind(i64::from(limit));
        let rows = sql.build().fetch_all(&self.pool).await.while_doing(READING)?;
        let jobs = rows.iter().map(line).collect::<Result<Vec<_>, _>>()?;
        let is_full = u32::try_from(jobs.len()) == Ok(limit);
        let next = match jobs.last() {
            Some(last) if is_full => Some(Cursor::at(last, sort)),
            _ => stretch.goes_on_at(),
        };
        Ok(JobPage { jobs, next })
    }
}

/// Two pages of one list as one: nothing is on it that comes after where either of them ends.
fn merged(one: JobPage, other: JobPage, sort: Sort, limit: u32) -> JobPage {
    let end = match (one.next, other.next) {
        (Some(one), Some(other)) => Some(if sort.is_before(one, other) { one } else { other }),
        (one, other) => one.or(other),
    };
    let mut jobs: Vec<JobLine> = one.jobs.into_iter().chain(other.jobs).collect();
    jobs.sort_by(|one, other| sort.compare(Cursor::at(one, sort), Cursor::at(other, sort)));
    jobs.dedup_by_key(|job| job.seq);
    jobs.retain(|job| end.is_none_or(|end| !sort.is_before(end, Cursor::at(job, sort))));
    let most = usize::try_from(limit).unwrap_or(usize::MAX);
    let next = if jobs.len() > most {
        jobs.truncate(most);
        jobs.last().map(|last| Cursor::at(last, sort))
    } else {
        end
    };
    JobPage { jobs, next }
}
