//! Writing what a batch changed, a statement per kind of row.
//!
//! Each statement takes its rows as one JSON array and must change exactly as many rows as the array
//! has; updates are guarded by what was read. Anything else rolls the whole batch back.

#![allow(
    non_camel_case_types,
    reason = "each column of a `row!` is of its own type, which has its name"
)]

mod actions;
mod archive;
mod book;
mod feeds;
mod jobs;
mod messages;
mod sums;
#[cfg(test)]
mod tests;

use serde::Serialize;
use sqlx::{SqliteConnection, sqlite::SqliteQueryResult};

use super::{
    error::{StoreError, While as _},
    work::Work,
};

/// Writes all changes of `work` but its attempts.
pub(super) async fn flush(
    connection: &mut SqliteConnection,
    work: &Work,
) -> Result<(), StoreError> {
    // The order is that of the references between the tables. What is refused gives its record's id up
    // before a new job takes it. Attempts end here, before new ones begin in `flush_attempts`,
    // because a job has at most one that is open.
    book::book_events(connection, work).await?;
    book::connections(connection, work).await?;
    book::currencies(connection, work).await?;
    feeds::connection_feeds(connection, work).await?;
    feeds::findings(connection, work).await?;
    sums::connection_limits(connection, work).await?;
    book::new_accounts(connection, work).await?;
    jobs::refused_jobs(connection, work).await?;
    jobs::new_jobs(connection, work).await?;
    jobs::decisions(connection, work).await?;
    jobs::changed_jobs(connection, work).await?;
    jobs::attempt_ends(connection, work).await?;
    book::transfers(connection, work).await?;
    book::changed_accounts(connection, work).await?;
    sums::currency_totals(connection, work).await?;
    sums::daily_cleared(connection, work).await?;
    jobs::job_events(connection, work).await?;
    messages::quarantine(connection, work).await?;
    messages::outbox(connection, work).await?;
    actions::actions(connection, work).await?;
    actions::switches(connection, work).await?;
    messages::published(connection, work).await?;
    super::runs::flush(connection, work).await?;
    super::alerts::flush(connection, work).await?;
    jobs::job_counts(connection, work).await?;
    feeds::state(connection, work).await?;
    feeds::wake_jobs(connection, work).await?;
    archive::remove(connection, work).await
}

/// Writes the attempts of `work`; `key_id` is the number of the key that signed them. They stand last, so that
/// they can be signed while everything else is written.
pub(super) async fn flush_attempts(
    connection: &mut SqliteConnection,
    work: &Work,
    key_id: i64,
) -> Result<(), StoreError> {
    let (expected, signed) = (work.changes.attempts_begun, work.changes.attempts.len());
    if signed != expected {
        let changed = u64::try_from(signed).unwrap_or(u64::MAX);
        return Err(StoreError::Moved { doing: "the new attempts", expected, changed });
    }
    jobs::new_attempts(connection, work, key_id).await
}

/// A row that is written as a JSON object: what `json!` makes, without a tree of values to make it from.
macro_rules! row {
    ($($column:ident: $value:expr),+ $(,)?) => {{
        #[derive(serde::Serialize)]
        struct Row<$($column),+> {
            $($column: $column),+
        }
        Row { $($column: $value),+ }
    }};
}
pub(super) use row;

/// A row that is written as a JSON array, its columns at their places in this list: a column of an object costs
/// `SQLite` the comparison with all names before it. For what is written most.
macro_rules! list {
    ($($column:ident: $value:expr),+ $(,)?) => {{
        struct List<$($column),+> {
            $($column: $column),+
        }
        impl<$($column: serde::Serialize),+> serde::Serialize for List<$($column),+> {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                use serde::ser::SerializeSeq as _;
                let mut list = serializer.serialize_seq(None)?;
                $(list.serialize_element(&self.$column)?;)+
                list.end()
            }
        }
        List { $($column: $value),+ }
    }};
}
pub(super) use list;

/// Rows as one JSON array, and how many they are.
pub(super) fn array<R: Serialize>(
    rows: impl IntoIterator<Item = R>,
) -> Result<(usize, String), StoreError> {
    let rows: Vec<R> = rows.into_iter().collect();
    let text = serde_json::to_string(&rows).map_err(|error| StoreError::Refused {
        doing: "writing rows as JSON",
        reason: error.to_string(),
    })?;
    Ok((rows.len(), text))
}

/// Insists on the number of rows that a statement changed.
pub(super) fn expect(
    result: Result<SqliteQueryResult, sqlx::Error>,
    doing: &'static str,
    expected: usize,
) -> Result<(), StoreError> {
    let changed = result.while_doing(doing)?.rows_affected();
    if u64::try_from(expected) == Ok(changed) {
        Ok(())
    } else {
        Err(StoreError::Moved { doing, expected, changed })
    }
}
