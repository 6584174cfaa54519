//! How far the feeds of connections have come, compared with the events that were taken in: the rows that show it
//! are not sealed, because they follow from events that are.

use std::collections::BTreeMap;

use futures_util::TryStreamExt as _;

use super::{VERIFYING, Verification};
use crate::{
    domain::{
        book::Adjustment,
        feed::{BookSequence, ConnectionFeed, Gap, TotalDiffers},
    },
    store::{
        StoreError,
        error::{While as _, unreadable},
        rows::parse,
    },
};

/// What the events of a connection say about its feed.
#[derive(Default)]
struct Came {
    /// Numbers without a gap, first and last: a feed of millions has few gaps.
    numbers: BTreeMap<i64, i64>,
    stated: Option<i64>,
    limited: Option<i64>,
    compared: Option<i64>,
}

impl Came {
    fn last(&self) -> Option<i64> {
        self.numbers.last_key_value().map(|(_, last)| *last)
    }

    fn add(&mut self, number: i64) {
        let (mut first, mut last) = (number, number);
        if let Some((&begin, &end)) = self.numbers.range(..=number).next_back() {
            if end >= number {
                return;
            }
            if end.saturating_add(1) == number {
                first = begin;
            }
        }
        if let Some(end) = self.numbers.remove(&number.saturating_add(1)) {
            last = end;
        }
        self.numbers.insert(first, last);
    }

    fn take(&mut self, kind: &str, number: Option<i64>) {
        if let Some(number) = number {
            self.add(number);
        }
        match kind {
            "connection.upserted" | "connection.suspended" => self.stated = self.stated.max(number),
            "connection.limited" => self.limited = self.limited.max(number),
            "balance.snapshot" => self.compared = self.last(),
            _ => {}
        }
    }

    /// Whether all these numbers lie below the highest that came, and none of them came.
    fn lacks(&self, gap: &Gap) -> bool {
        let ends = (i64::try_from(gap.0.get()), i64::try_from(gap.1.get()));
        let (Ok(first), Ok(last)) = ends else { return false };
        let is_below = self.last().is_some_and(|highest| last < highest);
        let before = self.numbers.range(..=last).next_back();
        first <= last && is_below && before.is_none_or(|(_, end)| *end < first)
    }
}

/// Compares what is shown of each feed with the events. Numbers that came too late to be taken in stand nowhere, and
/// an operator may have accepted a gap: so what is shown as missing must be so, and what is missing may be gone.
pub(super) async fn verify_feeds(
    connection: &mut sqlx::SqliteConnection,
    found: &mut Verification,
) -> Result<(), StoreError> {
    let mut came = events(connection).await?;
    let rows = sqlx::query!(
        "SELECT connection_id, last_sequence, stated_sequence, limited_sequence, compared_sequence, missing
         FROM connection_feeds"
    )
    .fetch_all(&mut *connection)
    .await
    .while_doing(VERIFYING)?;
    for row in rows {
        let id = row.connection_id;
        let came = came.remove(&id).unwrap_or_default();
        let shown =
            (row.last_sequence, row.stated_sequence, row.limited_sequence, row.compared_sequence);
        if shown != (came.last(), came.stated, came.limited, came.compared) {
            found.fault(format!(
                "feed of connection {id}: the book does not show how far its events have come"
            ));
        }
        let missing: Vec<Gap> = serde_json::from_str(&row.missing)
            .map_err(|error| unreadable("connection_feeds")(&error))?;
        for gap in missing.iter().filter(|gap| !came.lacks(gap)) {
            found.fault(format!("feed of connection {id}: events {gap} are not missing"));
        }
    }
    for (id, _) in came.into_iter().filter(|(_, came)| came.last().is_some()) {
        found.fault(format!("feed of connection {id}: the book does not show it"));
    }
    verify_differences(connection, found).await
}

/// What is shown as a difference must be what was found last, less what has come late since: an operator who accepts
/// it books it. It may be gone altogether, because a snapshot has agreed or an operator accepted it.
async fn verify_differences(
    connection: &mut sqlx::SqliteConnection,
    found: &mut Verification,
) -> Result<(), StoreError> {
    let rows = sqlx::query!(
        r#"SELECT feeds.connection_id, compared_sequence, differs, event_seq AS "event_seq?",
            detail AS "detail?"
           FROM connection_feeds AS feeds
           LEFT JOIN feed_findings ON finding_seq = (
            SELECT max(finding_seq) FROM feed_findings AS last
            WHERE last.connection_id = feeds.connection_id AND last.kind = 'difference')
           WHERE differs <> '[]'"#
    )
    .fetch_all(&mut *connection)
    .await
    .while_doing(VERIFYING)?;
    for row in rows {
        let read = |text: &str| -> Result<Vec<TotalDiffers>, StoreError> {
            serde_json::from_str(text).map_err(|error| unreadable("feed_findings")(&error))
        };
        let mut feed = ConnectionFeed {
            differs: read(row.detail.as_deref().unwrap_or("[]"))?,
            compared_at: row.compared_sequence.map(number).transpose()?,
            ..ConnectionFeed::default()
        };
        let since = row.event_seq.unwrap_or(i64::MAX);
        for (sequence, adjustment) in changes_since(connection, &row.connection_id, since).await? {
            feed.take_late(sequence, &adjustment)
                .map_err(|error| unreadable("connection_feeds")(&error))?;
        }
        if read(&row.differs)? != feed.differs {
            found.fault(format!(
                "feed of connection {}: no snapshot has differed as is shown",
                row.connection_id
            ));
        }
    }
    Ok(())
}

/// The numbered changes of a connection's balances that were taken in after an event.
async fn changes_since(
    connection: &mut sqlx::SqliteConnection,
    id: &str,
    event_seq: i64,
) -> Result<Vec<(BookSequence, Adjustment)>, StoreError> {
    let rows = sqlx::query!(
        r#"SELECT body ->> 'sequence' AS "number!: i64", body ->> 'currency' AS "currency!: String",
            body ->> 'delta' AS "delta!: String"
           FROM book_events
           WHERE event_seq > ?1 AND kind = 'balance.adjusted' AND body ->> 'connectionId' = ?2
             AND body ->> 'sequence' IS NOT NULL
           ORDER BY event_seq"#,
        event_seq,
        id
    )
    .fetch_all(connection)
    .await
    .while_doing(VERIFYING)?;
    rows.into_iter()
        .map(|row| {
            let adjustment = Adjustment {
                connection_id: parse("connection_feeds", id)?,
                currency: parse("book_events", &row.currency)?,
                delta: parse("book_events", &row.delta)?,
            };
            Ok((number(row.number)?, adjustment))
        })
        .collect()
}

fn number(number: i64) -> Result<BookSequence, StoreError> {
    BookSequence::try_from(number).map_err(|error| unreadable("connection_feeds")(&error))
}

/// What came, in the order in which it was taken in.
async fn events(
    connection: &mut sqlx::SqliteConnection,
) -> Result<BTreeMap<String, Came>, StoreError> {
    let mut came: BTreeMap<String, Came> = BTreeMap::new();
    let mut rows = sqlx::query!(
        r#"SELECT kind, body ->> 'connectionId' AS "connection_id!: String",
            body ->> 'sequence' AS "number: i64"
           FROM book_events
           WHERE body ->> 'connectionId' IS NOT NULL
             AND (body ->> 'sequence' IS NOT NULL OR kind = 'balance.snapshot')
           ORDER BY event_seq"#
    )
    .fetch(connection);
    while let Some(row) = rows.try_next().await.while_doing(VERIFYING)? {
        came.entry(row.connection_id).or_default().take(&row.kind, row.number);
    }
    Ok(came)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_that_came_in_any_order_are_those_that_are_not_lacking(
            numbers in proptest::collection::btree_set(1_i64..40, 1..30).prop_map(Vec::from_iter).prop_shuffle()
        ) {
            let mut came = Came::default();
            for number in numbers.iter().chain(&numbers) {
                came.take("balance.adjusted", Some(*number));
            }
            prop_assert_eq!(came.last(), numbers.iter().max().copied());
            for first in 1_i64..42 {
                for last in first..42 {
                    let text = format!("[{first},{last}]");
                    let gap: Gap = serde_json::from_str(&text).unwrap();
                    let lacks = Some(last) < came.last()
                        && !numbers.iter().any(|number| (first..=last).contains(number));
                    prop_assert_eq!(came.lacks(&gap), lacks, "{}", text);
                }
            }
        }
    }
}
