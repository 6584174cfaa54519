//! Accepting a database that was restored from a backup.

use sqlx::{Connection as _, SqliteConnection};

use super::{
    error::{StoreError, While as _},
    journal::{self, seal},
    mark::Marked,
    open::OpenedBook,
};
use crate::domain::{journal::Kind, time::TimestampMs};

const ACCEPTING: &str = "accepting the restored book";

/// Who accepts a restored book, and against what.
#[derive(Clone, Debug)]
pub struct Acceptance<'a> {
    /// What the mark says.
    pub mark: Marked,
    /// When.
    pub at: TimestampMs,
    /// Who.
    pub who: &'a str,
    /// What they say about it.
    pub reason: &'a str,
    /// Whether a feed is configured: then nothing is decided about a connection until a snapshot shows that
    /// the book is right about it, or an operator accepts it.
    pub is_fed: bool,
}

impl OpenedBook {
    /// Notes that the book was restored and is up to date again. Jobs that are not decided are parked,
    /// those that wait for approval or for OES's record too: what was decided about them after the backup is lost. Answers
    /// how many.
    ///
    /// # Errors
    /// [`StoreError`]; nothing is changed.
    pub async fn accept_restore(&mut self, by: &Acceptance<'_>) -> Result<u64, StoreError> {
        let book_attempt = self.counters.last_attempt();
        let (at_ms, ledger) = (by.at.as_millis(), by.mark.ledger.to_string());
        let connection = &mut self.writer.connection;
        let mut transaction =
            connection.begin_with("BEGIN IMMEDIATE").await.while_doing(ACCEPTING)?;
        let restore = sqlx::query!(
            "INSERT INTO restores (restore_seq, accepted_at_ms, mark_ledger, mark_attempt,
                 book_attempt, who, reason)
             SELECT coalesce(max(restore_seq), 0) + 1, ?1, ?2, ?3, ?4, ?5, ?6 FROM restores
             RETURNING restore_seq",
            at_ms,
            ledger,
            by.mark.attempt,
            book_attempt,
            by.who,
            by.reason
        )
        .fetch_one(&mut *transaction)
        .await
        .while_doing(ACCEPTING)?;
        let notes = sqlx::query!(
            r#"INSERT INTO job_events (event_seq, job_seq, at_ms, kind, detail)
             SELECT max((SELECT coalesce(max(event_seq), 0) FROM job_events),
                        (SELECT coalesce(max(job_event_seq), 0) FROM archives))
                    + row_number() OVER (),
                    job_seq, ?1, 'parked', json_object('reason', 'predates_restore')
             FROM jobs WHERE final_outcome IS NULL AND (state = 'received' OR (state = 'parked'
                 AND state_reason IN ('needs_approval', 'not_shown', 'unreadable', 'ended_at_oes')))
             RETURNING event_seq AS "event_seq!""#,
            at_ms
        )
        .fetch_all(&mut *transaction)
        .await
        .while_doing(ACCEPTING)?;
        sqlx::query!(
            "UPDATE job_counts SET jobs = job_counts.jobs + received.jobs
             FROM (SELECT type, jobs FROM job_counts WHERE state = 'received') AS received
             WHERE job_counts.state = 'parked' AND job_counts.type = received.type"
        )
        .execute(&mut *transaction)
        .await
        .while_doing(ACCEPTING)?;
        sqlx::query!("UPDATE job_counts SET jobs = 0 WHERE state = 'received'")
            .execute(&mut *transaction)
            .await
            .while_doing(ACCEPTING)?;
        let parked = sqlx::query!(
            "UPDATE jobs SET state = 'parked', state_reason = 'predates_restore',
                 state_since_ms = ?1, next_step_at_ms = NULL
             WHERE final_outcome IS NULL AND (state = 'received' OR (state = 'parked'
                 AND state_reason IN ('needs_approval', 'not_shown', 'unreadable', 'ended_at_oes')))",
            at_ms
        )
        .execute(&mut *transaction)
        .await
        .while_doing(ACCEPTING)?;
        forget_what_was_read(&mut transaction).await?;
        if by.is_fed {
            doubt_connections(&mut transaction).await?;
        }
        let mut added = journal::rows(Kind::Restores, [restore.restore_seq]);
        added.add(Kind::JobEvents, notes.iter().map(|note| note.event_seq));
        seal(&mut transaction, by.at, added).await?;
        transaction.commit().await.while_doing(ACCEPTING)?;
        Ok(parked.rows_affected())
    }
}

/// What was read before this restore says nothing about what was decided and is lost with it.
async fn forget_what_was_read(connection: &mut SqliteConnection) -> Result<(), StoreError> {
    sqlx::query!(
        "UPDATE jobs SET verified_at_ms = NULL
         WHERE final_outcome IS NULL AND outcome IS NULL AND verified_at_ms IS NOT NULL"
    )
    .execute(connection)
    .await
    .while_doing(ACCEPTING)?;
    Ok(())
}

/// Nothing is decided about any connection until it is shown that the book is right about it.
async fn doubt_connections(connection: &mut SqliteConnection) -> Result<(), StoreError> {
    sqlx::query!(
        "INSERT INTO connection_feeds (connection_id, missing, differs, is_unproven)
         SELECT connection_id, '[]', '[]', 1 FROM connections WHERE true
         ON CONFLICT (connection_id) DO UPDATE SET is_unproven = 1"
    )
    .execute(connection)
    .await
    .while_doing(ACCEPTING)?;
    Ok(())
}
