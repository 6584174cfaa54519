//! One batch: load what it needs, let the steps act, write what changed, commit once.

use sqlx::{Connection as _, SqliteConnection};

use super::{
    error::{StoreError, While as _},
    flush::flush,
    load::load,
    open::WriteConnection,
    work::{Counters, Needs, Work},
};
use crate::domain::time::TimestampMs;

/// Pages of the log that are not in the database, after which they are copied there.
const LOG_PAGES_MAX: i64 = 1_000;

/// Batches after which the log's length is looked at: looking costs a little, and a batch is not long.
const BATCHES_BETWEEN_LOOKS: u32 = 8;

/// A batch whose transaction is open.
pub struct Batch<'c> {
    transaction: sqlx::Transaction<'c, sqlx::Sqlite>,
    /// The rows, for the steps to act on.
    pub work: Work,
}

impl WriteConnection {
    /// Opens a transaction and reads what `needs` names.
    ///
    /// # Errors
    /// [`StoreError`]; nothing is changed.
    pub async fn begin(
        &mut self,
        now: TimestampMs,
        counters: Counters,
        needs: &Needs,
    ) -> Result<Batch<'_>, StoreError> {
        self.batches = self.batches.wrapping_add(1);
        if self.batches.is_multiple_of(BATCHES_BETWEEN_LOOKS) {
            self.keep_log_short().await?;
        }
        let mut transaction =
            self.connection.begin_with("BEGIN IMMEDIATE").await.while_doing("beginning a batch")?;
        let work = load(&mut transaction, now, counters, needs).await?;
        Ok(Batch { transaction, work })
    }

    /// Copies the write-ahead log into the database once it is long.
    ///
    /// SQLite would do that by itself after a commit, but it tells nobody when the disk fails then: the
    /// log would grow until the disk is full, and the daemon would go on after a failed sync.
    async fn keep_log_short(&mut self) -> Result<(), StoreError> {
        let (in_log, copied) = self.checkpoint("PRAGMA wal_checkpoint(NOOP)").await?;
        if in_log.saturating_sub(copied) >= LOG_PAGES_MAX {
            // What a reader still needs is left to the next time; nobody waits for anybody.
            self.checkpoint("PRAGMA wal_checkpoint(PASSIVE)").await?;
        }
        Ok(())
    }

    /// Pages in the log, and those of them that are in the database.
    async fn checkpoint(&mut self, pragma: &'static str) -> Result<(i64, i64), StoreError> {
        let (_others_busy, in_log, copied): (i64, i64, i64) = sqlx::query_as(pragma)
            .fetch_one(&mut self.connection)
            .await
            .while_doing("copying the log into the database")?;
        Ok((in_log, copied))
    }

    /// The number of a public key, which is noted if it is new.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn signing_key(
        &mut self,
        public_key: &str,
        now: TimestampMs,
    ) -> Result<i64, StoreError> {
        let doing = "noting the signing key";
        let mut transaction =
            self.connection.begin_with("BEGIN IMMEDIATE").await.while_doing(doing)?;
        let now_ms = now.as_millis();
        sqlx::query!(
            "INSERT INTO signing_keys (key_id, public_key, first_used_ms)
             SELECT coalesce(max(key_id), 0) + 1, ?1, ?2 FROM signing_keys WHERE true
             ON CONFLICT (public_key) DO NOTHING",
            public_key,
            now_ms
        )
        .execute(&mut *transaction)
        .await
        .while_doing(doing)?;
        let row = sqlx::query!("SELECT key_id FROM signing_keys WHERE public_key = ?1", public_key)
            .fetch_one(&mut *transaction)
            .await
            .while_doing(doing)?;
        transaction.commit().await.while_doing(doing)?;
        Ok(row.key_id)
    }

    /// Marks every attempt that was under way when the daemon last ended: it may have left, so its
    /// record is to be read back. Answers how many there were.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn doubt_open_attempts(&mut self, now: TimestampMs) -> Result<u64, StoreError> {
        let doing = "marking the attempts that were under way";
        let mut transaction =
            self.connection.begin_with("BEGIN IMMEDIATE").await.while_doing(doing)?;
        let doubted = doubt_open_attempts(&mut transaction, now).await?;
        transaction.commit().await.while_doing(doing)?;
        Ok(doubted)
    }

    /// Whether any decided job waits for its first attempt.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn has_first_attempts_waiting(&mut self) -> Result<bool, StoreError> {
        let row = sqlx::query!(
            r#"SELECT EXISTS (SELECT 1 FROM jobs WHERE state = 'decided' AND attempts_made = 0)
               AS "waiting!: bool""#
        )
        .fetch_one(&mut self.connection)
        .await
        .while_doing("looking for decided jobs")?;
        Ok(row.waiting)
    }

    /// Closes the connection after the last commit. The log is copied into the database first, which
    /// the last connection to close would do by itself, but ours need not be the last.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn close(mut self) -> Result<(), StoreError> {
        // SQLite copies the log when the last connection closes, which ours need not be, and would not
        // say that it failed.
        self.checkpoint("PRAGMA wal_checkpoint(TRUNCATE)").await?;
        self.connection.close().await.while_doing("closing the book")
    }
}

async fn doubt_open_attempts(
    connection: &mut SqliteConnection,
    now: TimestampMs,
) -> Result<u64, StoreError> {
    let doing = "marking the attempts that were under way";
    let now_ms = now.as_millis();
    sqlx::query!(
        "UPDATE attempts SET result = 'restarted', finished_at_ms = ?1,
             detail = 'the daemon ended before it recorded an answer'
         WHERE result IS NULL",
        now_ms
    )
    .execute(&mut *connection)
    .await
    .while_doing(doing)?;
    sqlx::query!(
        "UPDATE job_counts SET jobs = job_counts.jobs + sending.jobs
         FROM (SELECT type, jobs FROM job_counts WHERE state = 'sending') AS sending
         WHERE job_counts.state = 'unknown' AND job_counts.type = sending.type"
    )
    .execute(&mut *connection)
    .await
    .while_doing(doing)?;
    sqlx::query!("UPDATE job_counts SET jobs = 0 WHERE state = 'sending'")
        .execute(&mut *connection)
        .await
        .while_doing(doing)?;
    let doubted = sqlx::query!(
        "UPDATE jobs SET state = 'unknown', state_reason = 'restarted', state_since_ms = ?1,
             next_step_at_ms = ?1, attempts_counted = attempts_counted + 1
         WHERE state = 'sending' AND final_outcome IS NULL",
        now_ms
    )
    .execute(connection)
    .await
    .while_doing(doing)?;
    Ok(doubted.rows_affected())
}

impl Batch<'_> {
    /// Writes what the steps changed and commits. Answers the next row numbers.
    ///
    /// The caller awaits this to its end: a commit that is dropped half-way may still happen.
    ///
    /// # Errors
    /// [`StoreError`]; nothing is changed.
    pub async fn commit(mut self, key_id: i64) -> Result<Counters, StoreError> {
        flush(&mut self.transaction, &self.work, key_id).await?;
        self.transaction.commit().await.while_doing("committing a batch")?;
        Ok(self.work.counters)
    }

    /// Gives the batch up.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn roll_back(self) -> Result<(), StoreError> {
        self.transaction.rollback().await.while_doing("rolling a batch back")
    }
}
