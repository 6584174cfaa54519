//! Where the exchange's feed stands.

use std::fmt;

use serde::Serialize;

use super::{READING, count};
use crate::{
    domain::{
        feed::{Gap, TotalDiffers},
        ids::ConnectionId,
        time::TimestampMs,
    },
    store::{
        Readers, StoreError,
        error::{While as _, unreadable},
        rows::parse,
    },
};

/// How many connections' feeds need a look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FeedsAtWork {
    /// Those with missing numbers.
    pub with_gaps: u64,
    /// Those whose last snapshot differs from the book.
    pub differing: u64,
    /// Those that are not decided about since a restore.
    pub unproven: u64,
}

/// The feed of one connection.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FeedLine {
    /// The connection.
    pub connection_id: ConnectionId,
    /// The highest number that came.
    pub last_sequence: Option<i64>,
    /// Numbers below it that did not come: first and last of each gap.
    #[schema(value_type = Vec<Vec<u64>>)]
    pub missing: Vec<Gap>,
    /// In what the last snapshot differed.
    #[schema(value_type = Vec<Object>)]
    pub differs: Vec<TotalDiffers>,
    /// Whether the book was restored, and nothing has shown since that it is right about the connection.
    pub is_unproven: bool,
}

/// Names of unproven connections that are said; `settled book feed --wrong` has them all.
const UNPROVEN_NAMED: i64 = 3;

/// The connections about which nothing is decided since the book was restored; there is at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnprovenConnections {
    /// How many.
    pub count: u64,
    /// The first few of them.
    pub first: Vec<ConnectionId>,
}

impl fmt::Display for UnprovenConnections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let connections = if self.count == 1 { "connection" } else { "connections" };
        let named: Vec<String> = self.first.iter().map(ToString::to_string).collect();
        let more = if self.count > count_of(&named) { ", …" } else { "" };
        write!(
            f,
            "since the restore nothing is decided about {} {connections} ({}{more}): have the exchange feed \
             again what it sent since the backup, with the same ids, and then a balance.snapshot of each. One \
             that agrees lets its jobs go on. `settled book feed --wrong` lists them; where no snapshot can \
             come, compare by hand, then `settled book accept-snapshot CONNECTION --reason \"…\"`",
            self.count,
            named.join(", "),
        )
    }
}

fn count_of(names: &[String]) -> u64 {
    u64::try_from(names.len()).unwrap_or(u64::MAX)
}

/// Something that was wrong with a feed.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FeedFinding {
    /// `gap` or `difference`.
    pub kind: String,
    /// The connection.
    pub connection_id: ConnectionId,
    /// The exchange's id of the event that showed it.
    pub event_id: String,
    /// Which numbers, or which totals.
    pub detail: serde_json::Value,
    /// When it was found.
    pub found_at_ms: TimestampMs,
}

impl Readers {
    /// How many connections' feeds need a look.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn feeds_at_work(&self) -> Result<FeedsAtWork, StoreError> {
        let row = sqlx::query!(
            r#"SELECT
                (SELECT count(*) FROM connection_feeds WHERE missing <> '[]') AS "gaps!: i64",
                (SELECT count(*) FROM connection_feeds WHERE differs <> '[]') AS "differing!: i64",
                (SELECT count(*) FROM connection_feeds WHERE is_unproven = 1) AS "unproven!: i64""#
        )
        .fetch_one(&self.pool)
        .await
        .while_doing(READING)?;
        Ok(FeedsAtWork {
            with_gaps: count(row.gaps),
            differing: count(row.differing),
            unproven: count(row.unproven),
        })
    }

    /// The connections about which nothing is decided since a restore, if there are any.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn unproven(&self) -> Result<Option<UnprovenConnections>, StoreError> {
        let unproven = self.feeds_at_work().await?.unproven;
        if unproven == 0 {
            return Ok(None);
        }
        let rows = sqlx::query!(
            "SELECT connection_id FROM connection_feeds WHERE is_unproven = 1
             ORDER BY connection_id LIMIT ?1",
            UNPROVEN_NAMED
        )
        .fetch_all(&self.pool)
        .await
        .while_doing(READING)?;
        let ids = rows.into_iter().map(|row| parse("connection_feeds", &row.connection_id));
        Ok(Some(UnprovenConnections { count: unproven, first: ids.collect::<Result<_, _>>()? }))
    }

    /// Whether nothing is decided about a connection since a restore.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn is_unproven(&self, connection: ConnectionId) -> Result<bool, StoreError> {
        let connection = connection.to_string();
        let row = sqlx::query!(
            "SELECT connection_id FROM connection_feeds WHERE connection_id = ?1 AND is_unproven = 1",
            connection
        )
        .fetch_optional(&self.pool)
        .await
        .while_doing(READING)?;
        Ok(row.is_some())
    }

    /// The feeds of connections, or only those that need a look.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn feeds(&self, only_wrong: bool, limit: u32) -> Result<Vec<FeedLine>, StoreError> {
        let rows = sqlx::query!(
            r#"SELECT connection_id, last_sequence, missing, differs, is_unproven AS "is_unproven: bool"
               FROM connection_feeds
               WHERE NOT ?1 OR missing <> '[]' OR differs <> '[]' OR is_unproven = 1
               ORDER BY connection_id LIMIT ?2"#,
            only_wrong,
            limit
        )
        .fetch_all(&self.pool)
        .await
        .while_doing(READING)?;
        let bad = unreadable("connection_feeds");
        rows.into_iter()
            .map(|row| {
                Ok(FeedLine {
                    connection_id: parse("connection_feeds", &row.connection_id)?,
                    last_sequence: row.last_sequence,
                    missing: serde_json::from_str(&row.missing).map_err(|error| bad(&error))?,
                    differs: serde_json::from_str(&row.differs).map_err(|error| bad(&error))?,
                    is_unproven: row.is_unproven,
                })
            })
            .collect()
    }

    /// What was wrong with feeds, the latest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn feed_findings(&self, limit: u32) -> Result<Vec<FeedFinding>, StoreError> {
        let rows = sqlx::query!(
            "SELECT feed_findings.kind, connection_id, event_id, detail, found_at_ms
             FROM feed_findings JOIN book_events USING (event_seq)
             ORDER BY finding_seq DESC LIMIT ?1",
            limit
        )
        .fetch_all(&self.pool)
        .await
        .while_doing(READING)?;
        let bad = unreadable("feed_findings");
        rows.into_iter()
            .map(|row| {
                Ok(FeedFinding {
                    kind: row.kind,
                    connection_id: parse("feed_findings", &row.connection_id)?,
                    event_id: row.event_id,
                    detail: serde_json::from_str(&row.detail).map_err(|error| bad(&error))?,
                    found_at_ms: TimestampMs::from_millis(row.found_at_ms),
                })
            })
            .collect()
    }
}
