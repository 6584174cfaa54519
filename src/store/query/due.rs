//! What the loops look for: when something is due, and what.

use super::READING;
use crate::{
    domain::{
        ids::{JobSeq, RecordId},
        time::TimestampMs,
    },
    store::{Readers, StoreError, error::While as _, rows::parse},
};

/// A record that is to be read back.
#[derive(Clone, Copy, Debug)]
pub struct ReadTarget {
    /// The job.
    pub job: JobSeq,
    /// Its record.
    pub record_id: RecordId,
}

impl Readers {
    /// When the next attempt of a decided job is due.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn next_attempt_due(&self) -> Result<Option<TimestampMs>, StoreError> {
        let row = sqlx::query!(
            r#"SELECT min(next_step_at_ms) AS "due: i64" FROM jobs
               WHERE state = 'decided' AND final_outcome IS NULL"#
        )
        .fetch_one(&self.pool)
        .await
        .while_doing(READING)?;
        Ok(row.due.map(TimestampMs::from_millis))
    }

    /// How many attempts are due, counted up to `most`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn due_attempts_count(
        &self,
        now: TimestampMs,
        most: usize,
    ) -> Result<usize, StoreError> {
        let (now_ms, limit) = (now.as_millis(), i64::try_from(most).unwrap_or(i64::MAX));
        let due = sqlx::query_scalar!(
            r#"SELECT count(*) AS "due!: i64" FROM (
                SELECT 1 FROM jobs WHERE state = 'decided' AND final_outcome IS NULL
                  AND next_step_at_ms <= ?1 LIMIT ?2)"#,
            now_ms,
            limit
        )
        .fetch_one(&self.pool)
        .await
        .while_doing(READING)?;
        Ok(usize::try_from(due).unwrap_or(most))
    }

    /// When the next job can be decided; now, if a job's connection has become known.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn next_decision_due(
        &self,
        now: TimestampMs,
    ) -> Result<Option<TimestampMs>, StoreError> {
        let row = sqlx::query!(
            r#"SELECT
                (SELECT min(next_step_at_ms) FROM jobs
                 WHERE state = 'received' AND final_outcome IS NULL
                   AND (verified_at_ms IS NOT NULL OR NOT EXISTS (SELECT 1 FROM restores)))
                    AS "due: i64",
                EXISTS (SELECT 1 FROM jobs JOIN connections USING (connection_id)
                        WHERE state = 'received' AND final_outcome IS NULL
                          AND (verified_at_ms IS NOT NULL OR NOT EXISTS (SELECT 1 FROM restores)))
                    AS "known!: bool""#
        )
        .fetch_one(&self.pool)
        .await
        .while_doing(READING)?;
        Ok(if row.known { Some(now) } else { row.due.map(TimestampMs::from_millis) })
    }

    /// When the next record is due to be read back.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn next_read_due(&self) -> Result<Option<TimestampMs>, StoreError> {
        let row = sqlx::query!(
            r#"SELECT min(next_step_at_ms) AS "due: i64" FROM jobs
               WHERE final_outcome IS NULL AND next_step_at_ms IS NOT NULL
                 AND (state IN ('unknown', 'awaiting_approval', 'parked', 'conflict')
                   OR (state = 'received' AND verified_at_ms IS NULL
                       AND EXISTS (SELECT 1 FROM restores)))"#
        )
        .fetch_one(&self.pool)
        .await
        .while_doing(READING)?;
        Ok(row.due.map(TimestampMs::from_millis))
    }

    /// Records whose read is due; those whose outcome is unknown come first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn due_reads(
        &self,
        now: TimestampMs,
        limit: usize,
    ) -> Result<Vec<ReadTarget>, StoreError> {
        let (now_ms, limit) = (now.as_millis(), i64::try_from(limit).unwrap_or(i64::MAX));
        let rows = sqlx::query!(
            r#"SELECT job_seq AS "job_seq!", record_id FROM jobs
               WHERE final_outcome IS NULL AND next_step_at_ms <= ?1
                 AND (state IN ('unknown', 'awaiting_approval', 'parked', 'conflict')
                   OR (state = 'received' AND verified_at_ms IS NULL
                       AND EXISTS (SELECT 1 FROM restores)))
               ORDER BY state <> 'unknown', next_step_at_ms, job_seq LIMIT ?2"#,
            now_ms,
            limit
        )
        .fetch_all(&self.pool)
        .await
        .while_doing(READING)?;
        rows.into_iter()
            .map(|row| {
                Ok(ReadTarget {
                    job: JobSeq::from(row.job_seq),
                    record_id: parse("jobs", &row.record_id)?,
                })
            })
            .collect()
    }
}
