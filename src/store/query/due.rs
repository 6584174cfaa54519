//! What the loops look for: when something is due, and what.

use super::{READING, count};
use crate::{
    domain::{
        ids::{JobSeq, RecordId},
        job::Job,
        time::TimestampMs,
    },
    store::{
        Readers, StoreError,
        error::While as _,
        rows::{JobRow, parse},
    },
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

    /// When the next job can be decided; now, if a job's connection has become known. `verifies` tells
    /// whether records are read before.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn next_decision_due(
        &self,
        now: TimestampMs,
        verifies: bool,
    ) -> Result<Option<TimestampMs>, StoreError> {
        let row = sqlx::query!(
            r#"WITH needed (is_read) AS (SELECT ?1 OR EXISTS (SELECT 1 FROM restores))
               SELECT
                (SELECT min(next_step_at_ms) FROM jobs, needed
                 WHERE state = 'received' AND final_outcome IS NULL
                   AND (verified_at_ms IS NOT NULL OR NOT is_read)) AS "due: i64",
                EXISTS (SELECT 1 FROM needed JOIN jobs JOIN connections USING (connection_id)
                        WHERE state = 'received' AND final_outcome IS NULL AND NOT waits_for_book
                          AND (verified_at_ms IS NOT NULL OR NOT is_read)) AS "known!: bool""#,
            verifies
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
               WHERE final_outcome IS NULL AND next_step_at_ms IS NOT NULL AND outcome IS NOT NULL
                 AND state IN ('unknown', 'awaiting_approval', 'parked', 'conflict')"#
        )
        .fetch_one(&self.pool)
        .await
        .while_doing(READING)?;
        Ok(row.due.map(TimestampMs::from_millis))
    }

    /// Decided records whose read is due; those whose outcome is unknown come first.
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
               WHERE final_outcome IS NULL AND next_step_at_ms <= ?1 AND outcome IS NOT NULL
                 AND state IN ('unknown', 'awaiting_approval', 'parked', 'conflict')
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

    /// When the next undecided job's record is due to be read.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn next_verification_due(
        &self,
        verifies: bool,
    ) -> Result<Option<TimestampMs>, StoreError> {
        let row = sqlx::query!(
            r#"WITH needed (is_read) AS (SELECT ?1 OR EXISTS (SELECT 1 FROM restores))
               SELECT min(at) AS "due: i64" FROM (
                SELECT min(next_step_at_ms) AS at FROM jobs, needed
                WHERE state = 'received' AND verified_at_ms IS NULL AND is_read
                UNION ALL
                SELECT min(next_step_at_ms) FROM jobs
                WHERE final_outcome IS NULL AND state = 'parked' AND outcome IS NULL)"#,
            verifies
        )
        .fetch_one(&self.pool)
        .await
        .while_doing(READING)?;
        Ok(row.due.map(TimestampMs::from_millis))
    }

    /// Undecided jobs whose record is due to be read: some that are parked, so that they have their turn
    /// under any load, and then those that wait for their decision, in the order in which they are due.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn due_verifications(
        &self,
        now: TimestampMs,
        verifies: bool,
        (parked_max, limit): (usize, usize),
    ) -> Result<Vec<Job>, StoreError> {
        let now_ms = now.as_millis();
        let parked_max = i64::try_from(parked_max).unwrap_or(i64::MAX);
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = sqlx::query_as!(
            JobRow,
            r#"WITH needed (is_read) AS (SELECT ?2 OR EXISTS (SELECT 1 FROM restores)),
                due (seq) AS (
                    SELECT * FROM (
                        SELECT job_seq FROM jobs
                        WHERE final_outcome IS NULL AND state = 'parked' AND outcome IS NULL
                          AND next_step_at_ms <= ?1
                        ORDER BY next_step_at_ms, job_seq LIMIT ?3)
                    UNION ALL
                    SELECT * FROM (
                        SELECT job_seq FROM jobs, needed
                        WHERE state = 'received' AND verified_at_ms IS NULL AND is_read
                          AND next_step_at_ms <= ?1
                        ORDER BY next_step_at_ms, job_seq LIMIT ?4)
                    LIMIT ?4)
               SELECT job_seq AS "job_seq!", record_id, type AS job_type, currency, quantity,
                client_id, connection_id, partners_client_id, partners_connection_id,
                partners_record_id, content_sha256, received_at_ms, state, state_reason,
                state_since_ms, outcome, final_outcome, next_step_at_ms, attempts_made,
                attempts_counted, reads_made, absences, tried_since_ms, verified_at_ms,
                approval_before, book_sequence, gate_ms, waits_for_book AS "waits_for_book: bool",
                NULL AS "decided_at_ms: i64", NULL AS "reject_code: String",
                NULL AS "reject_reason: String"
               FROM due JOIN jobs ON job_seq = seq"#,
            now_ms,
            verifies,
            parked_max,
            limit
        )
        .fetch_all(&self.pool)
        .await
        .while_doing(READING)?;
        rows.into_iter().map(JobRow::into_job).collect()
    }

    /// How many jobs wait for the read before their decision.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn unverified_count(&self) -> Result<u64, StoreError> {
        let row = sqlx::query!(
            r#"SELECT count(*) AS "jobs!: i64" FROM jobs
               WHERE state = 'received' AND verified_at_ms IS NULL"#
        )
        .fetch_one(&self.pool)
        .await
        .while_doing(READING)?;
        Ok(count(row.jobs))
    }
}
