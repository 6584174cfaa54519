//! What is known of connections' feeds, and everything that a connection has.

use std::collections::BTreeSet;

use sqlx::SqliteConnection;

use super::{AccountRow, LOADING, add_account, keys};
use crate::{
    domain::{
        feed::{BookSequence, ConnectionFeed, FeedOrder},
        ids::ConnectionId,
    },
    store::{
        error::{StoreError, While as _, unreadable},
        rows::parse,
        work::{Needs, TrackedFeed, Work},
    },
};

pub(super) async fn load_feeds(
    connection: &mut SqliteConnection,
    work: &mut Work,
    ids: &BTreeSet<ConnectionId>,
) -> Result<(), StoreError> {
    if ids.is_empty() {
        return Ok(());
    }
    let wanted = keys(ids)?;
    let rows = sqlx::query!(
        r#"SELECT connection_id, last_sequence, stated_sequence, limited_sequence, compared_sequence,
            missing, differs, is_unproven AS "is_unproven: bool"
           FROM connection_feeds WHERE connection_id IN (SELECT value FROM json_each(?1))"#,
        wanted
    )
    .fetch_all(connection)
    .await
    .while_doing(LOADING)?;
    let bad = unreadable("connection_feeds");
    for row in rows {
        let number = |number: Option<i64>| {
            number.map(BookSequence::try_from).transpose().map_err(|error| bad(&error))
        };
        let feed = ConnectionFeed {
            order: FeedOrder {
                last: number(row.last_sequence)?,
                stated: number(row.stated_sequence)?,
                limited: number(row.limited_sequence)?,
                missing: serde_json::from_str(&row.missing).map_err(|error| bad(&error))?,
            },
            differs: serde_json::from_str(&row.differs).map_err(|error| bad(&error))?,
            compared_at: number(row.compared_sequence)?,
            is_unproven: row.is_unproven,
        };
        let id = parse("connection_feeds", &row.connection_id)?;
        work.feeds.insert(id, TrackedFeed { feed, changed: false });
    }
    Ok(())
}

/// Every account of the connections that are looked at as a whole.
pub(super) async fn load_whole_connections(
    connection: &mut SqliteConnection,
    work: &mut Work,
    needs: &Needs,
) -> Result<(), StoreError> {
    if needs.whole_connections.is_empty() {
        return Ok(());
    }
    let wanted = keys(&needs.whole_connections)?;
    let rows = sqlx::query_as!(
        AccountRow,
        r#"SELECT account_seq AS "account_seq!", connection_id, currency, kind, debits, credits
           FROM accounts WHERE connection_id IN (SELECT value FROM json_each(?1))"#,
        wanted
    )
    .fetch_all(connection)
    .await
    .while_doing(LOADING)?;
    rows.iter().try_for_each(|row| add_account(work, row))
}
