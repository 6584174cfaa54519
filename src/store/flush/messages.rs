//! Bad messages, and what waits to be published.

use serde::Serialize;
use sqlx::SqliteConnection;
use uuid::Uuid;

use super::{array, expect, row};
use crate::{
    domain::ids::{JobSeq, OutboxSeq, QuarantineSeq},
    store::{
        StoreError,
        work::{BadMessage, Work},
    },
};

pub(super) async fn quarantine(
    connection: &mut SqliteConnection,
    work: &Work,
) -> Result<(), StoreError> {
    let now_ms = work.now.as_millis();
    // Bad messages are rare and may be any bytes, so they are bound one by one.
    for (seq, message) in &work.changes.quarantined {
        let BadMessage { queue, sha256, bytes, refusal, record_id } = message;
        let (seq, sha256) = (seq.get(), sha256.as_slice());
        let (code, detail) = (refusal.code.as_str(), refusal.detail.as_str());
        let record_id = record_id.map(|id| id.to_string());
        let result = sqlx::query!(
            "INSERT INTO quarantine (quarantine_seq, queue, sha256, bytes, code, detail, record_id,
                 times_seen, first_seen_ms, last_seen_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 1, ?8, ?8)",
            seq,
            queue,
            sha256,
            bytes,
            code,
            detail,
            record_id,
            now_ms
        )
        .execute(&mut *connection)
        .await;
        expect(result, "a quarantined message", 1)?;
    }
    if work.changes.seen_again.is_empty() {
        return Ok(());
    }
    let (expected, rows) = array(
        work.changes.seen_again.iter().map(|(seq, times)| row! { seq: *seq, times: *times }),
    )?;
    let result = sqlx::query!(
        "UPDATE quarantine SET times_seen = times_seen + (again.value ->> 'times'), last_seen_ms = ?2
         FROM jsonb_each(?1) AS again WHERE quarantine_seq = again.value ->> 'seq'",
        rows,
        now_ms
    )
    .execute(connection)
    .await;
    expect(result, "the counts of quarantined messages", expected)
}

/// A row of `outbox`.
#[derive(Serialize)]
struct Announced<'a> {
    outbox_seq: OutboxSeq,
    kind: &'static str,
    job_seq: Option<JobSeq>,
    quarantine_seq: Option<QuarantineSeq>,
    event_id: Uuid,
    routing_key: &'a str,
    body: Option<&'a str>,
}

pub(super) async fn outbox(
    connection: &mut SqliteConnection,
    work: &Work,
) -> Result<(), StoreError> {
    let outcomes = work.changes.outcomes.iter().map(|(seq, message)| Announced {
        outbox_seq: *seq,
        kind: "outcome",
        job_seq: Some(message.job),
        quarantine_seq: None,
        event_id: message.event_id,
        routing_key: &message.routing_key,
        body: Some(&message.body),
    });
    let dead_letters = work.changes.dead_letters.iter();
    let dead_letters = dead_letters.map(|(seq, quarantined, event_id, routing_key)| Announced {
        outbox_seq: *seq,
        kind: "dead_letter",
        job_seq: None,
        quarantine_seq: Some(*quarantined),
        event_id: *event_id,
        routing_key,
        body: None,
    });
    let (expected, rows) = array(outcomes.chain(dead_letters))?;
    if expected == 0 {
        return Ok(());
    }
    let now_ms = work.now.as_millis();
    let result = sqlx::query!(
        "INSERT INTO outbox (outbox_seq, kind, job_seq, quarantine_seq, event_id, routing_key, body,
             created_at_ms)
         SELECT value ->> 'outbox_seq', value ->> 'kind', value ->> 'job_seq',
                value ->> 'quarantine_seq', value ->> 'event_id', value ->> 'routing_key',
                value ->> 'body', ?2
         FROM jsonb_each(?1)",
        rows,
        now_ms
    )
    .execute(connection)
    .await;
    expect(result, "the new announcements", expected)
}

pub(super) async fn published(
    connection: &mut SqliteConnection,
    work: &Work,
) -> Result<(), StoreError> {
    if work.changes.published.is_empty() {
        return Ok(());
    }
    let (expected, rows) = array(&work.changes.published)?;
    let now_ms = work.now.as_millis();
    let result = sqlx::query!(
        "UPDATE outbox SET published_at_ms = ?2
         WHERE outbox_seq IN (SELECT value FROM jsonb_each(?1)) AND published_at_ms IS NULL",
        rows,
        now_ms
    )
    .execute(connection)
    .await;
    expect(result, "the published announcements", expected)
}
