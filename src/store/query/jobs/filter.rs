//! Which jobs are asked for, and where in their order.

use std::{cmp::Ordering, collections::BTreeSet, fmt, str::FromStr};

use serde::{Serialize, Serializer};

use super::JobLine;
use crate::domain::{
    decision::Outcome,
    ids::{ClientId, ConnectionId, CurrencyCode},
    job::JobType,
    time::TimestampMs,
};

/// Which jobs. What is not set is not asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobFilter {
    /// Only jobs in one of these states, by name; in any, if there is none.
    pub states: BTreeSet<String>,
    /// Only jobs whose state has this reason, or that were released for it.
    pub reason: Option<String>,
    /// Only allocations or only deallocations.
    pub job_type: Option<JobType>,
    /// Only jobs of this connection.
    pub connection_id: Option<ConnectionId>,
    /// Only jobs of this client.
    pub client_id: Option<ClientId>,
    /// Only jobs in this currency.
    pub currency: Option<CurrencyCode>,
    /// Only jobs that were taken in at this time or later.
    pub received_since: Option<TimestampMs>,
    /// Only jobs that were taken in at this time or before.
    pub received_until: Option<TimestampMs>,
    /// Only jobs that were decided so.
    pub outcome: Option<Outcome>,
    /// Only jobs of which an id begins with this: the record's, or one of the exchange's for record, client
    /// and connection.
    pub text: Option<String>,
}

/// In what order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sort {
    /// As they were taken in, the last one first.
    #[default]
    Newest,
    /// As they were taken in.
    Oldest,
    /// By how long they have been in their state, the longest first; open jobs only.
    Longest,
}

impl Sort {
    /// All orders, for commands.
    pub const ALL: [Self; 3] = [Self::Newest, Self::Oldest, Self::Longest];

    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Newest => "newest",
            Self::Oldest => "oldest",
            Self::Longest => "longest",
        }
    }

    /// How two places stand to each other in this order.
    pub(super) fn compare(self, one: Cursor, other: Cursor) -> Ordering {
        match self {
            Self::Newest => other.seq.cmp(&one.seq),
            Self::Oldest => one.seq.cmp(&other.seq),
            Self::Longest => (one.since_ms, one.seq).cmp(&(other.since_ms, other.seq)),
        }
    }

    pub(super) fn is_before(self, one: Cursor, other: Cursor) -> bool {
        self.compare(one, other) == Ordering::Less
    }
}

impl FromStr for Sort {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|sort| sort.as_str() == word);
        known.ok_or_else(|| "there are the orders newest, oldest and longest".to_owned())
    }
}

/// A place in an order: behind the job that was looked at last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    pub(super) since_ms: i64,
    pub(super) seq: i64,
}

impl Cursor {
    pub(super) fn at(line: &JobLine, sort: Sort) -> Self {
        let since_ms = match sort {
            Sort::Newest | Sort::Oldest => 0,
            Sort::Longest => line.state_since_ms.as_millis(),
        };
        Self { since_ms, seq: line.seq.get() }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.since_ms, self.seq)
    }
}

impl Serialize for Cursor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A text that no list has given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not where a list went on: it is what `next` said, as it said it")]
pub struct CursorError;

impl FromStr for Cursor {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        let (since, seq) = text.split_once('.').ok_or(CursorError)?;
        let number = |text: &str| text.parse().map_err(|_| CursorError);
        Ok(Self { since_ms: number(since)?, seq: number(seq)? })
    }
}
