//! Along which index a list is read, and how far for one page.
//!
//! Each path's index has the rows in the order of the list: of their numbers, or of a time and their
//! numbers. Before a page is read, the index is followed for as many entries as may be looked at; that says
//! where the page must end at the latest. The rows themselves are read only up to there. Nothing is ever
//! sorted: a list that has several paths is put together from a page of each.

use sqlx::{QueryBuilder, Sqlite};

use super::order::{By, Order, Place};

/// Most rows in the order of their numbers that are looked at for one page.
pub(super) const ROWS_LOOKED_AT_MAX: i64 = 20_000;
/// Most entries of an index, each with a row somewhere else.
pub(super) const ENTRIES_LOOKED_AT_MAX: i64 = 4_000;

/// The last character that there is: behind every text that begins with another one.
pub(super) const BEHIND_ALL: char = char::MAX;

/// The way to the rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Path {
    /// Every job.
    All,
    /// Open jobs in this state.
    OpenByState(String),
    /// Open jobs by the time in their state.
    OpenByTime,
    /// Open jobs in this state by when their next step is due.
    OpenByNextStep(String),
    /// Jobs that OES ended, by when.
    EndedByTime,
    /// Jobs that were refused, by when.
    RefusedByTime,
    /// Jobs that OES ended otherwise than decided.
    Overruled,
    /// Jobs of this connection.
    Connection(String),
    /// Jobs of this client.
    Client(String),
    /// Jobs that were released for this reason.
    Rejected(String),
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
            | Self::OpenByNextStep(_)
            | Self::EndedByTime
            | Self::RefusedByTime
            | Self::Overruled
            | Self::Connection(_)
            | Self::Client(_)
            | Self::Jobs(_) => "jobs.job_seq",
        }
    }

    const fn table(&self) -> &'static str {
        match self {
            Self::All | Self::Jobs(_) => "jobs NOT INDEXED",
            Self::OpenByState(_) => "jobs INDEXED BY jobs_open_by_state",
            Self::OpenByTime => "jobs INDEXED BY jobs_open_by_time",
            Self::OpenByNextStep(_) => "jobs INDEXED BY jobs_open",
            Self::EndedByTime => "jobs INDEXED BY jobs_ended_by_time",
            Self::RefusedByTime => "jobs INDEXED BY jobs_refused_by_time",
            Self::Overruled => "jobs INDEXED BY jobs_overruled",
            Self::Connection(_) => "jobs INDEXED BY jobs_of_connection",
            Self::Client(_) => "jobs INDEXED BY jobs_of_client",
            Self::Rejected(_) => "decisions INDEXED BY decisions_rejected",
        }
    }

    /// What makes a row one of the path's.
    const fn condition(&self) -> &'static str {
        match self {
            Self::All
            | Self::Jobs(_)
            | Self::Connection(_)
            | Self::Client(_)
            | Self::Rejected(_) => "true",
            Self::OpenByState(_) => "final_outcome IS NULL",
            Self::OpenByTime => "final_outcome IS NULL AND state <> 'refused'",
            Self::OpenByNextStep(_) => "final_outcome IS NULL AND next_step_at_ms IS NOT NULL",
            Self::EndedByTime => "final_outcome IS NOT NULL",
            Self::RefusedByTime => "state = 'refused'",
            Self::Overruled => "state = 'overruled'",
        }
    }

    /// The column that leads the index, with the value that is wanted.
    const fn key(&self) -> Option<(&'static str, &String)> {
        match self {
            Self::OpenByState(state) | Self::OpenByNextStep(state) => Some(("jobs.state", state)),
            Self::Connection(id) => Some(("jobs.connection_id", id)),
            Self::Client(id) => Some(("jobs.client_id", id)),
            Self::Rejected(code) => Some(("decisions.reject_code", code)),
            Self::All
            | Self::OpenByTime
            | Self::EndedByTime
            | Self::RefusedByTime
            | Self::Overruled
            | Self::Jobs(_) => None,
        }
    }

    /// How many entries of it may be looked at for one page, where a list has so many paths.
    pub(super) fn looked_at_max(&self, paths: usize) -> i64 {
        let paths = i64::try_from(paths).unwrap_or(i64::MAX).max(1);
        let most = if *self == Self::All { ROWS_LOOKED_AT_MAX } else { ENTRIES_LOOKED_AT_MAX };
        most.div_euclid(paths).max(1)
    }

    /// The tables that a line is read from, the path's index first.
    pub(super) fn push_from(&self, sql: &mut QueryBuilder<Sqlite>) {
        sql.push(self.table());
        sql.push(match self {
            Self::Rejected(_) => " CROSS JOIN jobs ON jobs.job_seq = decisions.job_seq",
            Self::All
            | Self::OpenByState(_)
            | Self::OpenByTime
            | Self::OpenByNextStep(_)
            | Self::EndedByTime
            | Self::RefusedByTime
            | Self::Overruled
            | Self::Connection(_)
            | Self::Client(_)
            | Self::Jobs(_) => " LEFT JOIN decisions ON decisions.job_seq = jobs.job_seq",
        });
    }

    fn order(&self, order: Order) -> String {
        let (seq, way) = (self.seq(), if order.is_descending { " DESC" } else { "" });
        match order.by.time() {
            None => format!(" ORDER BY {seq}{way}"),
            Some(at) => format!(" ORDER BY {at}{way}, {seq}{way}"),
        }
    }

    /// Asks for the `entry`th entry of the index from where the page begins: as far as it may go.
    pub(super) fn end_sql(&self, stretch: &Stretch, entry: i64) -> QueryBuilder<Sqlite> {
        let mut sql = QueryBuilder::new("SELECT ");
        sql.push(stretch.order.by.time().unwrap_or("0")).push(", ").push(self.seq());
        sql.push(" FROM ").push(self.table());
        stretch.push_where(&mut sql, self);
        self.push_order_and_limit(&mut sql, stretch.order, 1);
        sql.push(" OFFSET ").push_bind(entry.saturating_sub(1));
        sql
    }

    pub(super) fn push_order_and_limit(
        &self,
        sql: &mut QueryBuilder<Sqlite>,
        order: Order,
        limit: i64,
    ) {
        sql.push(self.order(order)).push(" LIMIT ").push_bind(limit);
    }
}

/// The part of a path that one page is read from.
#[derive(Clone, Debug)]
pub(super) struct Stretch {
    pub(super) order: Order,
    pub(super) after: Option<Place>,
    /// The last entry that may be looked at; nothing if the path ends before that.
    pub(super) up_to: Option<Place>,
    /// Numbers between which the jobs are, because of when they were taken in.
    pub(super) arrived: (i64, i64),
}

impl Stretch {
    pub(super) fn push_where(&self, sql: &mut QueryBuilder<Sqlite>, path: &Path) {
        sql.push(" WHERE ").push(path.condition());
        if let Some((column, key)) = path.key() {
            sql.push(" AND ").push(column).push(" = ").push_bind(key.clone());
        }
        if let Path::Jobs(jobs) = path {
            sql.push(" AND jobs.job_seq IN (SELECT value FROM json_each(");
            sql.push_bind(serde_json::json!(jobs).to_string()).push("))");
        }
        match self.order.by {
            By::Number => self.push_numbers(sql, path),
            By::Change | By::OpenSince | By::NextStep => self.push_times(sql, path),
        }
    }

    fn push_times(&self, sql: &mut QueryBuilder<Sqlite>, path: &Path) {
        let (later, not_later) = if self.order.is_descending { ("<", ">=") } else { (">", "<=") };
        for (place, comparison) in [(self.after, later), (self.up_to, not_later)] {
            if let (Some(Place { at_ms, seq }), Some(column)) = (place, self.order.by.time()) {
                sql.push(" AND (").push(column).push(", ").push(path.seq()).push(") ");
                sql.push(comparison).push(" (").push_bind(at_ms);
                sql.push(", ").push_bind(seq).push(")");
            }
        }
    }

    fn push_numbers(&self, sql: &mut QueryBuilder<Sqlite>, path: &Path) {
        let (mut first, mut last) = self.arrived;
        let (after, up_to) = (self.after.map(|at| at.seq), self.up_to.map(|at| at.seq));
        if self.order.is_descending {
            last = after.map_or(last, |after| last.min(after.saturating_sub(1)));
            first = up_to.map_or(first, |up_to| first.max(up_to));
        } else {
            first = after.map_or(first, |after| first.max(after.saturating_add(1)));
            last = up_to.map_or(last, |up_to| last.min(up_to));
        }
        sql.push(" AND ").push(path.seq()).push(" BETWEEN ").push_bind(first);
        sql.push(" AND ").push_bind(last);
    }

    /// The last row that may be looked at where rows stand in the order of their numbers, without gaps.
    pub(super) fn end_of_rows(&self, most: i64) -> Option<Place> {
        let (first, last) = self.arrived;
        let after = self.after.map(|at| at.seq);
        let (end, goes_on) = if self.order.is_descending {
            let begin = after.map_or(last, |after| after.saturating_sub(1).min(last));
            let end = begin.saturating_sub(most).saturating_add(1);
            (end, end > first)
        } else {
            let begin = after.map_or(first, |after| after.saturating_add(1).max(first));
            let end = begin.saturating_add(most).saturating_sub(1);
            (end, end < last)
        };
        goes_on.then_some(Place { at_ms: 0, seq: end })
    }
}
