//! Removing rows that are in an archive.

use serde_json::json;
use sqlx::SqliteConnection;

use super::expect;
use crate::store::{StoreError, archive::Removal, work::Work};

pub(super) async fn remove(
    connection: &mut SqliteConnection,
    work: &Work,
) -> Result<(), StoreError> {
    let Some(removal) = &work.changes.archiving else { return Ok(()) };
    note_archive(connection, removal).await?;
    let (jobs, archive) = (json!(removal.jobs).to_string(), removal.archive.seq);
    let now_ms = work.now.as_millis();
    let result = sqlx::query!(
        "INSERT INTO archived_jobs (job_seq, archive_seq, archived_at_ms)
         SELECT value, ?2, ?3 FROM jsonb_each(?1)",
        jobs,
        archive,
        now_ms
    )
    .execute(&mut *connection)
    .await;
    expect(result, "the archived jobs", removal.jobs.len())?;
    remove_rows(connection, removal, &jobs).await
}

/// The archive, and the highest row numbers that went there: they are never given again.
async fn note_archive(
    connection: &mut SqliteConnection,
    removal: &Removal,
) -> Result<(), StoreError> {
    let highest = |numbers: &[i64]| numbers.iter().copied().max().unwrap_or(0);
    let (attempt, transfer) = (highest(&removal.attempts), highest(&removal.transfers));
    let (job_event, outbox) = (highest(&removal.job_events), highest(&removal.outbox));
    let archive = &removal.archive;
    let (uuid, begun_ms) = (archive.uuid.to_string(), archive.begun_at.as_millis());
    if archive.is_new {
        let result = sqlx::query!(
            "INSERT INTO archives (archive_seq, archive_uuid, begun_at_ms, path, attempt_seq,
                 transfer_seq, job_event_seq, outbox_seq)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            archive.seq,
            uuid,
            begun_ms,
            archive.path,
            attempt,
            transfer,
            job_event,
            outbox
        )
        .execute(connection)
        .await;
        return expect(result, "the new archive", 1);
    }
    let result = sqlx::query!(
        "UPDATE archives SET path = ?3, attempt_seq = max(attempt_seq, ?4),
             transfer_seq = max(transfer_seq, ?5), job_event_seq = max(job_event_seq, ?6),
             outbox_seq = max(outbox_seq, ?7)
         WHERE archive_seq = ?1 AND archive_uuid = ?2",
        archive.seq,
        uuid,
        archive.path,
        attempt,
        transfer,
        job_event,
        outbox
    )
    .execute(connection)
    .await;
    expect(result, "the archive", 1)
}

async fn remove_rows(
    connection: &mut SqliteConnection,
    removal: &Removal,
    jobs: &str,
) -> Result<(), StoreError> {
    let result = sqlx::query!(
        "DELETE FROM messages WHERE job_seq IN (SELECT value FROM jsonb_each(?1))",
        jobs
    )
    .execute(&mut *connection)
    .await;
    expect(result, "the archived messages", removal.jobs.len())?;
    let rows = json!(removal.attempts).to_string();
    let result = sqlx::query!(
        "DELETE FROM attempts WHERE attempt_seq IN (SELECT value FROM jsonb_each(?1))",
        rows
    )
    .execute(&mut *connection)
    .await;
    expect(result, "the archived attempts", removal.attempts.len())?;
    let rows = json!(removal.transfers).to_string();
    let result = sqlx::query!(
        "DELETE FROM transfers WHERE transfer_seq IN (SELECT value FROM jsonb_each(?1))",
        rows
    )
    .execute(&mut *connection)
    .await;
    expect(result, "the archived movements", removal.transfers.len())?;
    let rows = json!(removal.job_events).to_string();
    let result = sqlx::query!(
        "DELETE FROM job_events WHERE event_seq IN (SELECT value FROM jsonb_each(?1))",
        rows
    )
    .execute(&mut *connection)
    .await;
    expect(result, "the archived job events", removal.job_events.len())?;
    let rows = json!(removal.outbox).to_string();
    let result = sqlx::query!(
        "DELETE FROM outbox WHERE outbox_seq IN (SELECT value FROM jsonb_each(?1))",
        rows
    )
    .execute(connection)
    .await;
    expect(result, "the archived announcements", removal.outbox.len())
}
