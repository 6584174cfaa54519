//! How far the feed has come, and what was found to be wrong with it.

use serde_json::json;
use sqlx::SqliteConnection;

use super::{array, expect};
use crate::store::{
    StoreError,
    error::While as _,
    work::{NewFinding, Work},
};

pub(super) async fn connection_feeds(
    connection: &mut SqliteConnection,
    work: &Work,
) -> Result<(), StoreError> {
    let changed = work.feeds.iter().filter(|(_, tracked)| tracked.changed);
    let row = |(id, tracked): (&_, &crate::store::work::TrackedFeed)| {
        let feed = &tracked.feed;
        json!({
            "connection_id": id, "last": feed.order.last, "stated": feed.order.stated,
            "limited": feed.order.limited, "compared": feed.compared_at, "missing": json!(feed.order.missing).to_string(),
            "differs": json!(feed.differs).to_string(), "unproven": i32::from(feed.is_unproven),
        })
    };
    let (expected, rows) = array(changed.map(row))?;
    if expected == 0 {
        return Ok(());
    }
    let result = sqlx::query!(
        "INSERT INTO connection_feeds (connection_id, last_sequence, stated_sequence, limited_sequence,
             compared_sequence, missing, differs, is_unproven)
         SELECT value ->> 'connection_id', value ->> 'last', value ->> 'stated', value ->> 'limited',
                value ->> 'compared', value ->> 'missing', value ->> 'differs', value ->> 'unproven'
         FROM json_each(?1) WHERE true
         ON CONFLICT (connection_id) DO UPDATE SET last_sequence = excluded.last_sequence,
             stated_sequence = excluded.stated_sequence, limited_sequence = excluded.limited_sequence,
             compared_sequence = excluded.compared_sequence, missing = excluded.missing, differs = excluded.differs,
             is_unproven = excluded.is_unproven",
        rows
    )
    .execute(connection)
    .await;
    expect(result, "what is known of connections' feeds", expected)
}

pub(super) async fn findings(
    connection: &mut SqliteConnection,
    work: &Work,
) -> Result<(), StoreError> {
    if work.changes.feed_findings.is_empty() {
        return Ok(());
    }
    let row = |new: &NewFinding| {
        json!({
            "seq": new.seq, "kind": new.kind, "connection_id": new.connection,
            "event_seq": new.event, "detail": new.detail.to_string(),
        })
    };
    let (expected, rows) = array(work.changes.feed_findings.iter().map(row))?;
    let now_ms = work.now.as_millis();
    let result = sqlx::query!(
        "INSERT INTO feed_findings (finding_seq, kind, connection_id, event_seq, detail, found_at_ms)
         SELECT value ->> 'seq', value ->> 'kind', value ->> 'connection_id', value ->> 'event_seq',
                value ->> 'detail', ?2
         FROM json_each(?1)",
        rows,
        now_ms
    )
    .execute(connection)
    .await;
    expect(result, "what is wrong with the feed", expected)
}

/// For how long the gate was open, and the last heartbeat.
pub(super) async fn state(
    connection: &mut SqliteConnection,
    work: &Work,
) -> Result<(), StoreError> {
    if !work.gate.is_fed && !work.changes.heartbeat {
        return Ok(());
    }
    let open_ms = work.counters.gate_open_ms;
    let heartbeat_ms = work.counters.heartbeat.map(crate::domain::time::TimestampMs::as_millis);
    let result = sqlx::query!(
        "UPDATE feed_state SET gate_open_ms = ?1, heartbeat_sent_at_ms = ?2",
        open_ms,
        heartbeat_ms
    )
    .execute(connection)
    .await;
    expect(result, "the state of the feed", 1)
}

/// Jobs that wait for a feed which has moved are due.
pub(super) async fn wake_jobs(
    connection: &mut SqliteConnection,
    work: &Work,
) -> Result<(), StoreError> {
    let moved = work.feeds.iter().filter(|(_, tracked)| tracked.changed);
    let (count, ids) = array(moved.map(|(id, _)| json!(id)))?;
    if count == 0 {
        return Ok(());
    }
    let now_ms = work.now.as_millis();
    sqlx::query!(
        "UPDATE jobs SET waits_for_book = 0, next_step_at_ms = ?2
         WHERE state = 'received' AND waits_for_book = 1
           AND connection_id IN (SELECT value FROM json_each(?1))",
        ids,
        now_ms
    )
    .execute(connection)
    .await
    .while_doing("waking the jobs that wait for the book")?;
    Ok(())
}
