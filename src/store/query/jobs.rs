//! Listing jobs: which ones, in what order, from where on.
//!
//! A list is read along an index (`path`) from where the last page ended, and never looks at more than so
//! many rows for one page: a page that comes short says where to go on. So the time that a page takes does
//! not grow with the history, whatever is asked for.

mod count;
mod filter;
mod order;
mod path;
#[cfg(test)]
mod tests;
mod way;

use std::collections::HashSet;

use serde::Serialize;
use sqlx::{QueryBuilder, Row as _, Sqlite, SqliteConnection, sqlite::SqliteRow};

pub use count::{COUNTED_MAX, JobCount};
pub use filter::JobFilter;
pub use order::{Cursor, CursorError, PageWanted, Sort};
use order::{From, Order, Place};
use path::{Path, Stretch};

use super::{READING, optional_outcome};
use crate::{
    domain::{
        amount::Amount,
        decision::Outcome,
        ids::{
            ClientId, ConnectionId, JobSeq, PartnersClientId, PartnersConnectionId,
            PartnersRecordId, RecordId,
        },
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
    /// The client on the exchange.
    pub partners_client_id: PartnersClientId,
    /// The connection on the exchange.
    pub partners_connection_id: PartnersConnectionId,
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
    /// Where the next page begins (`after`); nothing if this is the last. A page may come short and still
    /// have a next one, because each looks at so many jobs only.
    pub next: Option<Cursor>,
    /// Where the page before ends (`before`); nothing if this is the first.
    pub previous: Option<Cursor>,
    /// How many jobs were looked at, at most, if the page ends there before it is full.
    pub looked_at: Option<u64>,
    /// Whether more ids begin with the text than are looked for: a longer beginning finds the others.
    pub is_cut: bool,
}

/// What a line is read from.
const COLUMNS: &str = "SELECT jobs.job_seq, record_id, type, currency, quantity, client_id, connection_id, \
     partners_client_id, partners_connection_id, partners_record_id, state, state_reason, jobs.outcome, decisions.reject_code, final_outcome, \
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
        partners_client_id: parse("jobs", &text("partners_client_id")?)?,
        partners_connection_id: parse("jobs", &text("partners_connection_id")?)?,
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

/// Adds what the filter asks of each row, whatever path leads to it. The signs keep these conditions from
/// being taken for another path.
fn push_conditions(sql: &mut QueryBuilder<Sqlite>, filter: &JobFilter) {
    if !filter.states.is_empty() {
        sql.push(" AND +jobs.state IN (");
        let mut list = sql.separated(", ");
        for state in &filter.states {
            list.push_bind(state.clone());
        }
        sql.push(")");
    }
    let mut equal = |column: &str, value: Option<String>| {
        if let Some(value) = value {
            sql.push(" AND +jobs.").push(column).push(" = ").push_bind(value);
        }
    };
    equal("type", filter.job_type.map(|word| word.as_str().to_owned()));
    equal("connection_id", filter.connection_id.map(|id| id.to_string()));
    equal("client_id", filter.client_id.map(|id| id.to_string()));
    equal("currency", filter.currency.as_ref().map(ToString::to_string));
    equal("outcome", filter.outcome.map(|word| word.as_str().to_owned()));
    if let Some(reason) = &filter.reason {
        sql.push(" AND (+state_reason = ").push_bind(reason.clone());
        sql.push(" OR +decisions.reject_code = ").push_bind(reason.clone()).push(")");
    }
    if let Some(since) = filter.received_since {
        sql.push(" AND +received_at_ms >= ").push_bind(since.as_millis());
    }
    if let Some(until) = filter.received_until {
        sql.push(" AND +received_at_ms <= ").push_bind(until.as_millis());
    }
    if let Some(text) = &filter.text {
        push_text(sql, text);
    }
}

/// Adds that an id begins with a text.
fn push_text(sql: &mut QueryBuilder<Sqlite>, text: &str) {
    let (low, end) = (text.to_lowercase(), path::BEHIND_ALL);
    let columns = [
        ("record_id", &low),
        ("client_id", &low),
        ("connection_id", &low),
        ("partners_record_id", &text.to_owned()),
        ("partners_client_id", &text.to_owned()),
        ("partners_connection_id", &text.to_owned()),
    ];
    sql.push(" AND (false");
    for (column, text) in columns {
        sql.push(" OR (+jobs.").push(column).push(" >= ").push_bind(text.clone());
        sql.push(" AND +jobs.").push(column).push(" < ").push_bind(format!("{text}{end}"));
        sql.push(")");
    }
    sql.push(")");
}

/// What of a list was found along one path, or several.
#[derive(Debug, Default)]
struct Found {
    jobs: Vec<JobLine>,
    /// The last place that was looked at, if there may be more behind it.
    end: Option<Place>,
    looked_at: i64,
}

impl Readers {
    /// One page of jobs, as they are at one moment.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list_jobs(
        &self,
        filter: &JobFilter,
        wanted: &PageWanted,
    ) -> Result<JobPage, StoreError> {
        let mut snapshot = self.pool.begin().await.while_doing(READING)?;
        let natural = wanted.sort.order();
        let (order, after) = match wanted.from {
            From::Start => (natural, None),
            From::After(place) => (natural, Some(place)),
            From::Before(place) => (natural.reversed(), Some(place)),
        };
        let ways = way::ways(&mut snapshot, filter, natural.by).await?;
        let arrived = way::arrived(&mut snapshot, filter).await?;
        let mut found = Found::default();
        for path in &ways.paths {
            let most = path.looked_at_max(ways.paths.len());
            let stretch = Stretch { order, after, up_to: None, arrived };
            let part = along(&mut snapshot, path, stretch, filter, (most, wanted.limit)).await?;
            found = found.merged(part, order, wanted.limit);
        }
        snapshot.rollback().await.while_doing(READING)?;
        Ok(found.into_page(wanted, ways.is_cut))
    }
}

/// What of a page lies on one path: at most so many entries are looked at, at most so many jobs wanted.
async fn along(
    snapshot: &mut SqliteConnection,
    path: &Path,
    stretch: Stretch,
    filter: &JobFilter,
    (most, limit): (i64, u32),
) -> Result<Found, StoreError> {
    let Some(stretch) = bounded(snapshot, path, stretch, most).await? else {
        return Ok(Found::default());
    };
    let mut sql = page_sql(path, &stretch, filter, limit);
    let rows = sql.build().fetch_all(snapshot).await.while_doing(READING)?;
    let jobs = rows.iter().map(line).collect::<Result<Vec<_>, _>>()?;
    let is_full = u32::try_from(jobs.len()) == Ok(limit);
    let end = match jobs.last() {
        Some(last) if is_full => Some(stretch.order.place_of(last)),
        _ => stretch.up_to,
    };
    Ok(Found { jobs, end, looked_at: most })
}

fn page_sql(
    path: &Path,
    stretch: &Stretch,
    filter: &JobFilter,
    limit: u32,
) -> QueryBuilder<Sqlite> {
    let mut sql = QueryBuilder::new(COLUMNS);
    path.push_from(&mut sql);
    stretch.push_where(&mut sql, path);
    push_conditions(&mut sql, filter);
    path.push_order_and_limit(&mut sql, stretch.order, i64::from(limit));
    sql
}

/// The stretch with the place where it ends for having looked at enough; nothing if no job can be there.
async fn bounded(
    snapshot: &mut SqliteConnection,
    path: &Path,
    stretch: Stretch,
    most: i64,
) -> Result<Option<Stretch>, StoreError> {
    if stretch.arrived.0 > stretch.arrived.1 {
        return Ok(None);
    }
    let up_to = match path {
        Path::Jobs(jobs) if jobs.is_empty() => return Ok(None),
        Path::Jobs(_) => None,
        Path::All => stretch.end_of_rows(most),
        Path::OpenByState(_)
        | Path::OpenByTime
        | Path::OpenByNextStep(_)
        | Path::EndedByTime
        | Path::RefusedByTime
        | Path::Overruled
        | Path::Connection(_)
        | Path::Client(_)
        | Path::Rejected(_) => {
            let mut sql = path.end_sql(&stretch, most);
            let end: Option<(i64, i64)> =
                sql.build_query_as().fetch_optional(snapshot).await.while_doing(READING)?;
            end.map(|(at_ms, seq)| Place { at_ms, seq })
        }
    };
    Ok(Some(Stretch { up_to, ..stretch }))
}

impl Found {
    /// Two parts of one page as one: nothing is on it that comes after where either of them ends.
    fn merged(self, other: Self, order: Order, limit: u32) -> Self {
        let end = match (self.end, other.end) {
            (Some(one), Some(other)) => Some(if order.is_before(one, other) { one } else { other }),
            (one, other) => one.or(other),
        };
        let mut jobs: Vec<JobLine> = self.jobs.into_iter().chain(other.jobs).collect();
        let mut seen = HashSet::new();
        jobs.retain(|job| {
            end.is_none_or(|end| !order.is_before(end, order.place_of(job))) && seen.insert(job.seq)
        });
        jobs.sort_by(|one, other| order.compare(order.place_of(one), order.place_of(other)));
        let most = usize::try_from(limit).unwrap_or(usize::MAX);
        let end = if jobs.len() > most {
            jobs.truncate(most);
            jobs.last().map(|last| order.place_of(last))
        } else {
            end
        };
        Self { jobs, end, looked_at: self.looked_at.saturating_add(other.looked_at) }
    }

    fn into_page(mut self, wanted: &PageWanted, is_cut: bool) -> JobPage {
        let (sort, order) = (wanted.sort, wanted.sort.order());
        let is_full = u32::try_from(self.jobs.len()) == Ok(wanted.limit);
        let looked_at = self.end.filter(|_| !is_full).and(u64::try_from(self.looked_at).ok());
        let (previous, next) = match wanted.from {
            From::Start => (None, self.end),
            From::After(after) => {
                let first = self.jobs.first().map(|job| order.place_of(job));
                (Some(first.unwrap_or_else(|| order.behind(after))), self.end)
            }
            From::Before(before) => {
                self.jobs.reverse();
                let last = self.jobs.last().map(|job| order.place_of(job));
                (self.end, Some(last.unwrap_or_else(|| order.reversed().behind(before))))
            }
        };
        let cursor = |place| Cursor { sort, place };
        JobPage {
            jobs: self.jobs,
            next: next.map(cursor),
            previous: previous.map(cursor),
            looked_at,
            is_cut,
        }
    }
}
