//! Which jobs are over for so long that their rows can go into an archive.

use super::READING;
use crate::{
    domain::{
        ids::{JobSeq, RecordId},
        time::TimestampMs,
    },
    store::{Readers, StoreError, error::While as _},
};

/// Whether a job's rows can go into an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Archivable {
    /// They are there.
    Done,
    /// They can go.
    Yes,
    /// It is open, young, or not announced yet.
    NotYet,
    /// It was taken in too late, and so was every later one.
    TooYoung,
}

impl Readers {
    /// The next jobs after `after`, at most `limit`, and whether those that ended until `until` can go.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn archivable(
        &self,
        after: JobSeq,
        until: TimestampMs,
        limit: i64,
    ) -> Result<Vec<(JobSeq, Archivable)>, StoreError> {
        let (after, until_ms) = (after.get(), until.as_millis());
        let rows = sqlx::query!(
            r#"SELECT job_seq AS "job_seq!", received_at_ms > ?2 AS "is_young!: bool",
                EXISTS (SELECT 1 FROM archived_jobs WHERE archived_jobs.job_seq = jobs.job_seq)
                    AS "is_archived!: bool",
                (final_outcome IS NOT NULL AND state_since_ms <= ?2
                 AND EXISTS (SELECT 1 FROM outbox WHERE outbox.job_seq = jobs.job_seq
                             AND published_at_ms IS NOT NULL)
                 AND NOT EXISTS (SELECT 1 FROM attempts WHERE attempts.job_seq = jobs.job_seq
                                 AND result IS NULL)) AS "is_over!: bool"
               FROM jobs WHERE job_seq > ?1 ORDER BY job_seq LIMIT ?3"#,
            after,
            until_ms,
            limit
        )
        .fetch_all(&self.pool)
        .await
        .while_doing(READING)?;
        let judge = |young: bool, archived: bool, over: bool| match (young, archived, over) {
            (true, ..) => Archivable::TooYoung,
            (false, true, _) => Archivable::Done,
            (false, false, true) => Archivable::Yes,
            (false, false, false) => Archivable::NotYet,
        };
        Ok(rows
            .into_iter()
            .map(|row| {
                (JobSeq::from(row.job_seq), judge(row.is_young, row.is_archived, row.is_over))
            })
            .collect())
    }

    /// How many jobs' rows can go into an archive, of those that ended until `until`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn archivable_count(&self, until: TimestampMs) -> Result<u64, StoreError> {
        let count: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM jobs
             WHERE received_at_ms <= ?1 AND state_since_ms <= ?1 AND final_outcome IS NOT NULL
               AND NOT EXISTS (SELECT 1 FROM archived_jobs
                               WHERE archived_jobs.job_seq = jobs.job_seq)
               AND EXISTS (SELECT 1 FROM outbox WHERE outbox.job_seq = jobs.job_seq
                           AND published_at_ms IS NOT NULL)
               AND NOT EXISTS (SELECT 1 FROM attempts WHERE attempts.job_seq = jobs.job_seq
                               AND result IS NULL)",
        )
        .bind(until.as_millis())
        .fetch_one(&self.pool)
        .await
        .while_doing(READING)?;
        Ok(u64::try_from(count).unwrap_or(0))
    }

    /// Whether the rows of the job about a record are in an archive.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn is_archived(&self, record: RecordId) -> Result<bool, StoreError> {
        let record = record.to_string();
        let found = sqlx::query_scalar!(
            r#"SELECT EXISTS (SELECT 1 FROM jobs JOIN archived_jobs USING (job_seq)
                              WHERE record_id = ?1) AS "found!: bool""#,
            record
        )
        .fetch_one(&self.pool)
        .await
        .while_doing(READING)?;
        Ok(found)
    }

    /// In which archive the rows of a job are, if they are in one: its number, and where it was.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(in crate::store) async fn where_archived(
        &self,
        job: JobSeq,
    ) -> Result<Option<(i64, String)>, StoreError> {
        let job = job.get();
        let row = sqlx::query!(
            "SELECT archive_seq, path FROM archived_jobs JOIN archives USING (archive_seq)
             WHERE job_seq = ?1",
            job
        )
        .fetch_optional(&self.pool)
        .await
        .while_doing(READING)?;
        Ok(row.map(|row| (row.archive_seq, row.path)))
    }

    /// Refuses to read a job whose rows are in an archive that is not open.
    pub(in crate::store) async fn is_whole(&self, job: JobSeq) -> Result<(), StoreError> {
        let Some((seq, path)) = self.where_archived(job).await? else { return Ok(()) };
        if self.archives.iter().any(|(open, _)| *open == seq) {
            return Ok(());
        }
        let missing = self.missing.iter().find(|missing| missing.seq == seq);
        let why = missing.map_or_else(
            || {
                format!(
                    "the rows of job {job} are in archive {seq} at {path}, which is not open here"
                )
            },
            |missing| format!("the rows of job {job} are not in the book: {missing}"),
        );
        Err(StoreError::Unusable(why))
    }
}
