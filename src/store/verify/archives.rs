//! The archives that are read with a book: whether they are its own, and tied to its chain.
//!
//! What their rows say is checked with the book's, by the seals, balances and signatures.

use serde::Serialize;
use sqlx::{AssertSqlSafe, SqliteConnection};

use super::FAULTS_LISTED_MAX;
use crate::store::{Readers, StoreError, error::While as _};

const CHECKING: &str = "checking the archives";

/// What a check of the archives found.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ArchivesCheck {
    /// Archives that were read with the book.
    pub archives: u64,
    /// Jobs whose rows are in them.
    pub jobs: u64,
    /// How many faults there are.
    pub faults_count: u64,
    /// The first of them, for a reader.
    pub faults: Vec<String>,
}

impl ArchivesCheck {
    fn fault(&mut self, text: String) {
        self.faults_count = self.faults_count.saturating_add(1);
        if self.faults.len() < FAULTS_LISTED_MAX {
            self.faults.push(text);
        }
    }
}

/// What must be zero, and what it means if it is not. `N` stands for the archive's number.
const CHECKS: [(&str, &str); 7] = [
    (
        "SELECT count(*) = 0 FROM archiveN.archive AS its JOIN main.archives AS known
             USING (archive_uuid, archive_seq, begun_at_ms) JOIN main.ledger USING (ledger_uuid)
         WHERE known.archive_seq = N AND its.one = 1",
        "what it says of itself is not what the book says of it",
    ),
    (
        "SELECT count(*) FROM (SELECT * FROM archiveN.journal EXCEPT SELECT * FROM main.journal)",
        "seals in it are not in the book's journal",
    ),
    (
        "SELECT count(*) FROM archiveN.anchors AS anchor
         WHERE EXISTS (SELECT 1 FROM main.archived_jobs
                       WHERE job_seq = first_job_seq AND archive_seq = N)
           AND NOT EXISTS (SELECT 1 FROM main.journal
                           WHERE journal.commit_seq = anchor.commit_seq
                             AND journal.chain = anchor.chain)",
        "anchors in it are not in the book's journal",
    ),
    (
        "SELECT (SELECT count(*) FROM main.archived_jobs WHERE archive_seq = N)
              - (SELECT coalesce(sum(jobs), 0) FROM archiveN.anchors
                 WHERE EXISTS (SELECT 1 FROM main.archived_jobs
                               WHERE job_seq = first_job_seq AND archive_seq = N))",
        "its anchors are not for as many jobs as the book says are in it",
    ),
    (
        "SELECT count(*) FROM main.archived_jobs WHERE archive_seq = N
           AND NOT EXISTS (SELECT 1 FROM archiveN.messages
                           WHERE messages.job_seq = archived_jobs.job_seq)",
        "messages of jobs that the book says are in it are missing",
    ),
    (
        "SELECT count(*) FROM main.archived_jobs JOIN main.messages USING (job_seq)
         WHERE archive_seq = N",
        "messages of jobs that the book says are in it are also in the book",
    ),
    (
        "SELECT count(*) <> 1 FROM main.archives WHERE archive_seq = N
         AND attempt_seq = (SELECT coalesce(max(attempt_seq), 0) FROM archiveN.attempts
                            WHERE job_seq IN (SELECT job_seq FROM main.archived_jobs WHERE archive_seq = N))
         AND transfer_seq = (SELECT coalesce(max(transfer_seq), 0) FROM archiveN.transfers
                            WHERE job_seq IN (SELECT job_seq FROM main.archived_jobs WHERE archive_seq = N))
         AND job_event_seq = (SELECT coalesce(max(event_seq), 0) FROM archiveN.job_events
                            WHERE job_seq IN (SELECT job_seq FROM main.archived_jobs WHERE archive_seq = N))
         AND outbox_seq = (SELECT coalesce(max(outbox_seq), 0) FROM archiveN.outbox
                            WHERE job_seq IN (SELECT job_seq FROM main.archived_jobs WHERE archive_seq = N))",
        "the book does not say which row numbers went there last",
    ),
];

impl Readers {
    /// Checks the archives that are read with the book.
    ///
    /// # Errors
    /// [`StoreError`] when one cannot be read or is missing; faults are in the answer.
    pub async fn check_archives(&self) -> Result<ArchivesCheck, StoreError> {
        self.has_all_archives()?;
        let mut found = ArchivesCheck::default();
        // One transaction, so that the parts belong together while the writer goes on.
        let mut transaction = self.pool.begin().await.while_doing(CHECKING)?;
        let counted = sqlx::query!(r#"SELECT count(*) AS "jobs!: i64" FROM archived_jobs"#)
            .fetch_one(&mut *transaction)
            .await
            .while_doing(CHECKING)?;
        found.jobs = u64::try_from(counted.jobs).unwrap_or(0);
        let known = sqlx::query!("SELECT archive_seq FROM archives")
            .fetch_all(&mut *transaction)
            .await
            .while_doing(CHECKING)?;
        for archive in known {
            found.archives = found.archives.saturating_add(1);
            check(&mut transaction, archive.archive_seq, &mut found).await?;
        }
        Ok(found)
    }
}

async fn check(
    connection: &mut SqliteConnection,
    archive: i64,
    found: &mut ArchivesCheck,
) -> Result<(), StoreError> {
    for (sql, fault) in CHECKS {
        let name = format!("archive{archive}");
        let sql = sql.replace("archiveN", &name).replace("= N", &format!("= {archive}"));
        let answer: i64 = sqlx::query_scalar(AssertSqlSafe(sql))
            .fetch_one(&mut *connection)
            .await
            .while_doing(CHECKING)?;
        if answer != 0 {
            found.fault(format!("archive {archive}: {fault}"));
        }
    }
    Ok(())
}
