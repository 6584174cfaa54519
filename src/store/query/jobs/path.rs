//! Along which index a list is read, and how far for one page.
//!
//! Each path's index has the rows in the order of their numbers (or, for [`Path::OpenByTime`], of the time
//! in their state). Before a page is read, the index is followed for as many entries as may be looked at;
//! that says where the page must end at the latest. The rows themselves are read only up to there.

use std::collections::BTreeSet;

use sqlx::{QueryBuilder, Sqlite};

use super::{BEGINNINGS_MAX, Cursor, JobFilter, Sort};
use crate::{
    domain::{
        decision::{Outcome, RejectCode},
        state::State,
        time::TimestampMs,
    },
    store::{Readers, StoreError, error::While as _, query::READING},
};

/// Most rows in the order of their numbers that are looked at for one page.
const ROWS_LOOKED_AT_MAX: i64 = 20_000;
/// Most entries of an index, each with a row somewhere else.
const ENTRIES_LOOKED_AT_MAX: i64 = 4_000;
/// Most keys of an index that a list is read along together.
const KEYS_MAX: usize = 32;

/// The last character that there is: behind every text that begins with another one.
const BEHIND_ALL: char = char::MAX;

/// The way to the rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Path {
    /// Every job.
    All,
    /// Open jobs in these states.
    OpenByState(Vec<String>),
    /// Open jobs by the time in their state.
    OpenByTime,
    /// Jobs that OES ended otherwise than decided.
    Overruled,
    /// Jobs of these connections.
    Connections(Vec<String>),
    /// Jobs that were released for these reasons.
    Rejected(Vec<String>),
    /// These jobs.
    Jobs(Vec<i64>),
}

impl Path {
    /// The column that holds the number of a job.
    const fn seq(&self) -> &'static str {
        match self {
            Self::Rejected(_) => "decisions.job_seq",
            Self::All
            | Self::OpenByState(_)
            | Self::OpenByTime
            | Self::Overruled
            | Self::Connections(_)
            | Self::Jobs(_) => "jobs.job_seq",
        }
    }

    const fn table(&self) -> &'static str {
        match self {
            Self::All | Self::Jobs(_) => "jobs",
            Self::OpenByState(_) => "jobs INDEXED BY jobs_open_by_state",
            Self::OpenByTime => "jobs INDEXED BY jobs_open_by_time",
            Self::Overruled => "jobs INDEXED BY jobs_overruled",
            Self::Connections(_) => "jobs INDEXED BY jobs_of_connection",
            Self::Rejected(_) => "decisions INDEXED BY decisions_rejected",
        }
    }

    /// What makes a row one of the path's.
    const fn condition(&self) -> &'static str {
        match self {
            Self::All | Self::Jobs(_) | Self::Connections(_) | Self::Rejected(_) => "true",
            Self::OpenByState(_) => "final_outcome IS NULL",
            Self::OpenByTime => "final_outcome IS NULL AND state <> 'refused'",
            Self::Overruled => "state = 'overruled'",
        }
    }

    /// The column that leads the index, with the values that are wanted.
    fn keys(&self) -> Option<(&'static str, &[String])> {
        match self {
            Self::OpenByState(states) => Some(("jobs.state", states)),
            Self::Connections(ids) => Some(("jobs.connection_id", ids)),
            Self::Rejected(codes) => Some(("decisions.reject_code", codes)),
            Self::All | Self::OpenByTime | Self::Overruled | Self::Jobs(_) => None,
        }
    }

    pub(super) fn push_from(&self, sql: &mut QueryBuilder<Sqlite>) {
        sql.push(self.table());
        sql.push(match self {
            Self::Rejected(_) => " CROSS JOIN jobs ON jobs.job_seq = decisions.job_seq",
            Self::All
            | Self::OpenByState(_)
            | Self::OpenByTime
            | Self::Overruled
            | Self::Connections(_)
            | Self::Jobs(_) => " LEFT JOIN decisions ON decisions.job_seq = jobs.job_seq",
        });
    }

    pub(super) fn order(&self, sort: Sort) -> String {
        match sort {
            Sort::Newest => format!(" ORDER BY {} DESC", self.seq()),
            Sort::Oldest => format!(" ORDER BY {}", self.seq()),
            Sort::Longest => " ORDER BY state_since_ms, jobs.job_seq".to_owned(),
        }
    }
}

/// The part of a path that one page is read from.
#[derive(Clone, Debug)]
pub(super) struct Stretch {
    after: Option<Cursor>,
    /// The last entry that may be looked at; nothing if the path ends before that.
    up_to: Option<Cursor>,
    /// Numbers between which the jobs are, because of when they were taken in.
    arrived: (i64, i64),
}

impl Stretch {
    pub(super) fn goes_on_at(&self) -> Option<Cursor> {
        self.up_to
    }

    pub(super) fn push_where(&self, sql: &mut QueryBuilder<Sqlite>, path: &Path, sort: Sort) {
        sql.push(" WHERE ").push(path.condition());
        if let Some((column, keys)) = path.keys() {
            sql.push(" AND ").push(column).push(" IN (");
            let mut list = sql.separated(", ");
            for key in keys {
                list.push_bind(key.clone());
            }
            sql.push(")");
        }
        if let Path::Jobs(jobs) = path {
            sql.push(" AND jobs.job_seq IN (SELECT value FROM json_each(");
            sql.push_bind(serde_json::json!(jobs).to_string()).push("))");
        }
        push_bounds(sql, path, sort, self.arrived, self.after, self.up_to);
    }
}

/// Adds that an id begins with a text, for a path that does not lead to such rows only.
pub(super) fn push_text(sql: &mut QueryBuilder<Sqlite>, text: &str) {
    let (low, end) = (text.to_lowercase(), format!("{text}{BEHIND_ALL}"));
    sql.push(" AND ((record_id >= ").push_bind(low.clone()).push(" AND record_id < ");
    sql.push_bind(format!("{low}{BEHIND_ALL}")).push(")");
    for column in ["partners_record_id", "partners_client_id", "partners_connection_id"] {
        sql.push(" OR (").push(column).push(" >= ").push_bind(text.to_owned());
        sql.push(" AND ").push(column).push(" < ").push_bind(end.clone()).push(")");
    }
    sql.push(")");
}

fn push_bounds(
    sql: &mut QueryBuilder<Sqlite>,
    path: &Path,
    sort: Sort,
    arrived: (i64, i64),
    after: Option<Cursor>,
    up_to: Option<Cursor>,
) {
    if sort == Sort::Longest {
        for (cursor, comparison) in [(after, ">"), (up_to, "<=")] {
            if let Some(Cursor { since_ms, seq }) = cursor {
                sql.push(" AND (state_since_ms, jobs.job_seq) ").push(comparison).push(" (");
                sql.push_bind(since_ms).push(", ").push_bind(seq).push(")");
            }
        }
        return;
    }
    let (mut first, mut last) = arrived;
    let (after, up_to) = (after.map(|at| at.seq), up_to.map(|at| at.seq));
    if sort == Sort::Newest {
        last = after.map_or(last, |after| last.min(after.saturating_sub(1)));
        first = up_to.map_or(first, |up_to| first.max(up_to));
    } else {
        first = after.map_or(first, |after| first.max(after.saturating_add(1)));
        last = up_to.map_or(last, |up_to| last.min(up_to));
    }
    sql.push(" AND ").push(path.seq()).push(" BETWEEN ").push_bind(first);
    sql.push(" AND ").push_bind(last);
}

impl Readers {
    /// The paths that together lead to every job that the filter means, each to few others.
    pub(super) async fn paths(
        &self,
        filter: &JobFilter,
        sort: Sort,
    ) -> Result<Vec<Path>, StoreError> {
        if sort == Sort::Longest {
            return Ok(vec![Path::OpenByTime]);
        }
        if let Some(text) = &filter.text {
            return self.paths_of_text(text).await;
        }
        if filter.states.iter().any(|state| state == State::Overruled.name())
            && filter.states.len() == 1
        {
            return Ok(vec![Path::Overruled]);
        }
        let codes = RejectCode::ALL.map(RejectCode::as_str);
        let rejected = filter.reason.as_deref().filter(|reason| codes.contains(reason));
        if let Some(code) = rejected {
            return Ok(vec![Path::Rejected(vec![code.to_owned()])]);
        }
        if let Some(connection) = filter.connection_id {
            return Ok(vec![Path::Connections(vec![connection.to_string()])]);
        }
        let mut open = filter.states.clone();
        if filter.reason.is_some() && open.is_empty() {
            // Only open states have reasons, but for those of a release.
            open.extend(["unknown", "parked", "conflict"].map(str::to_owned));
        }
        if !open.is_empty() && open.iter().all(|state| has_no_end(state)) {
            return Ok(vec![Path::OpenByState(open.into_iter().collect())]);
        }
        if let Some(client) = filter.client_id {
            let connections = self.connections_of_client(&client.to_string()).await?;
            if (1..=KEYS_MAX).contains(&connections.len()) {
                // A job may name a client whose connection the book does not have; while somebody must
                // look at it, it is open.
                let open = State::NAMES.iter().filter(|state| has_no_end(state));
                let open = Path::OpenByState(open.map(|state| (*state).to_owned()).collect());
                return Ok(vec![Path::Connections(connections), open]);
            }
        }
        if filter.outcome == Some(Outcome::Released) {
            return Ok(vec![Path::Rejected(self.reject_codes().await?)]);
        }
        Ok(vec![Path::All])
    }

    /// Jobs of which an id begins with a text.
    async fn paths_of_text(&self, text: &str) -> Result<Vec<Path>, StoreError> {
        let end = format!("{text}{BEHIND_ALL}");
        let (low, low_end) = (text.to_lowercase(), end.to_lowercase());
        let mut jobs: BTreeSet<i64> = BTreeSet::new();
        let found = sqlx::query_scalar!(
            r#"SELECT job_seq AS "job_seq!" FROM jobs
               WHERE state <> 'refused' AND record_id >= ?1 AND record_id < ?2
               UNION ALL
               SELECT job_seq FROM jobs WHERE state = 'refused' AND final_outcome IS NULL
                 AND record_id >= ?1 AND record_id < ?2 LIMIT ?3"#,
            low,
            low_end,
            BEGINNINGS_MAX
        )
        .fetch_all(&self.pool)
        .await
        .while_doing(READING)?;
        jobs.extend(found);
        let found = sqlx::query_scalar!(
            r#"SELECT job_seq AS "job_seq!" FROM jobs INDEXED BY jobs_of_partners_record
               WHERE partners_record_id >= ?1 AND partners_record_id < ?2 LIMIT ?3"#,
            text,
            end,
            BEGINNINGS_MAX
        )
        .fetch_all(&self.pool)
        .await
        .while_doing(READING)?;
        jobs.extend(found);
        let most = i64::try_from(KEYS_MAX).unwrap_or(i64::MAX);
        let connections = sqlx::query_scalar!(
            "SELECT connection_id FROM connections
             WHERE (partners_client_id >= ?1 AND partners_client_id < ?2)
                OR (partners_connection_id >= ?1 AND partners_connection_id < ?2) LIMIT ?3",
            text,
            end,
            most
        )
        .fetch_all(&self.pool)
        .await
        .while_doing(READING)?;
        let mut paths = vec![Path::Jobs(jobs.into_iter().collect())];
        if !connections.is_empty() {
            paths.push(Path::Connections(connections));
        }
        Ok(paths)
    }

    async fn connections_of_client(&self, client: &str) -> Result<Vec<String>, StoreError> {
        let most = i64::try_from(KEYS_MAX.saturating_add(1)).unwrap_or(i64::MAX);
        sqlx::query_scalar!(
            "SELECT connection_id FROM connections WHERE client_id = ?1 LIMIT ?2",
            client,
            most
        )
        .fetch_all(&self.pool)
        .await
        .while_doing(READING)
    }

    /// The reasons for which anything was ever released: each is found by going on behind the one before.
    async fn reject_codes(&self) -> Result<Vec<String>, StoreError> {
        sqlx::query_scalar!(
            r#"WITH RECURSIVE code (reject_code) AS (
                 SELECT min(reject_code) FROM decisions WHERE reject_code IS NOT NULL
                 UNION ALL
                 SELECT (SELECT min(decisions.reject_code) FROM decisions
                         WHERE decisions.reject_code > code.reject_code)
                 FROM code WHERE code.reject_code IS NOT NULL)
               SELECT reject_code AS "reject_code!: String" FROM code WHERE reject_code IS NOT NULL"#
        )
        .fetch_all(&self.pool)
        .await
        .while_doing(READING)
    }

    /// How far a page may go from where it begins; nothing if no job can be there.
    pub(super) async fn stretch(
        &self,
        path: &Path,
        filter: &JobFilter,
        sort: Sort,
        after: Option<Cursor>,
    ) -> Result<Option<Stretch>, StoreError> {
        let arrived = self.arrived(filter).await?;
        if arrived.0 > arrived.1 || path.keys().is_some_and(|(_, keys)| keys.is_empty()) {
            return Ok(None);
        }
        let up_to = match (path, path.keys()) {
            (Path::Jobs(_), _) => None,
            (Path::All, _) => end_of_rows(arrived, sort, after),
            (_, None) => self.end_of_entries(path, None, sort, arrived, after).await?,
            (_, Some((column, keys))) => {
                let mut ends: Option<Cursor> = None;
                for key in keys {
                    let key = Some((column, key.as_str(), keys.len()));
                    let end = self.end_of_entries(path, key, sort, arrived, after).await?;
                    ends = match (ends, end) {
                        (Some(one), Some(other)) if sort.is_before(other, one) => Some(other),
                        (Some(one), _) => Some(one),
                        (None, end) => end,
                    };
                }
                ends
            }
        };
        Ok(Some(Stretch { after, up_to, arrived }))
    }

    /// The last entry of an index that may be looked at.
    async fn end_of_entries(
        &self,
        path: &Path,
        key: Option<(&'static str, &str, usize)>,
        sort: Sort,
        arrived: (i64, i64),
        after: Option<Cursor>,
    ) -> Result<Option<Cursor>, StoreError> {
        let mut sql = QueryBuilder::new("SELECT ");
        sql.push(if sort == Sort::Longest { "state_since_ms, " } else { "0, " }).push(path.seq());
        sql.push(" FROM ").push(path.table()).push(" WHERE ").push(path.condition());
        let mut share = ENTRIES_LOOKED_AT_MAX;
        if let Some((column, key, keys)) = key {
            let keys = i64::try_from(keys).unwrap_or(i64::MAX).max(1);
            share = share.div_euclid(keys).max(1);
            sql.push(" AND ").push(column).push(" = ").push_bind(key.to_owned());
        }
        push_bounds(&mut sql, path, sort, arrived, after, None);
        sql.push(path.order(sort)).push(" LIMIT 1 OFFSET ").push_bind(share.saturating_sub(1));
        let end: Option<(i64, i64)> =
            sql.build_query_as().fetch_optional(&self.pool).await.while_doing(READING)?;
        Ok(end.map(|(since_ms, seq)| Cursor { since_ms, seq }))
    }

    /// The numbers between which the jobs are that were taken in between two times. Numbers are given as
    /// jobs arrive, by a clock that does not go back while a daemon runs, so they are found by halving.
    async fn arrived(&self, filter: &JobFilter) -> Result<(i64, i64), StoreError> {
        let last =
            sqlx::query_scalar!(r#"SELECT coalesce(max(job_seq), 0) AS "last!: i64" FROM jobs"#)
                .fetch_one(&self.pool)
                .await
                .while_doing(READING)?;
        let first = match filter.received_since {
            None => 1,
            Some(since) => self.first_after(last, |at| at >= since).await?,
        };
        let last = match filter.received_until {
            None => last,
            Some(until) => self.first_after(last, |at| at > until).await?.saturating_sub(1),
        };
        Ok((first, last))
    }

    /// The first number from which on jobs were taken in late enough.
    async fn first_after(
        &self,
        last: i64,
        is_late: impl Fn(TimestampMs) -> bool,
    ) -> Result<i64, StoreError> {
        let (mut early, mut late) = (0_i64, last.saturating_add(1));
        while late.saturating_sub(early) > 1 {
            let middle = early.midpoint(late);
            let at = sqlx::query_scalar!(
                "SELECT received_at_ms FROM jobs WHERE job_seq >= ?1 ORDER BY job_seq LIMIT 1",
                middle
            )
            .fetch_optional(&self.pool)
            .await
            .while_doing(READING)?;
            if at.map(TimestampMs::from_millis).is_none_or(&is_late) {
                late = middle;
            } else {
                early = middle;
            }
        }
        Ok(late)
    }
}

/// Whether OES has ended no job in this state: the index of open jobs has those that were refused, too.
fn has_no_end(state: &str) -> bool {
    ![State::Confirmed, State::Overruled].iter().any(|ended| ended.name() == state)
}

/// The last row that may be looked at where rows stand in the order of their numbers, without gaps.
fn end_of_rows((first, last): (i64, i64), sort: Sort, after: Option<Cursor>) -> Option<Cursor> {
    let after = after.map(|at| at.seq);
    let (end, goes_on) = if sort == Sort::Newest {
        let begin = after.map_or(last, |after| after.saturating_sub(1).min(last));
        let end = begin.saturating_sub(ROWS_LOOKED_AT_MAX).saturating_add(1);
        (end, end > first)
    } else {
        let begin = after.map_or(first, |after| after.saturating_add(1).max(first));
        let end = begin.saturating_add(ROWS_LOOKED_AT_MAX).saturating_sub(1);
        (end, end < last)
    };
    goes_on.then_some(Cursor { since_ms: 0, seq: end })
}
