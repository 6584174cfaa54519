//! One batch: load what it needs, let the steps act, write what changed, commit once.

use sqlx::{Connection as _, SqliteConnection};

use super::{
    error::{StoreError, While as _},
    flush::{flush, flush_attempts},
    journal::{self, seal},
    kept::{Kept, Wanted},
    load::load,
    open::WriteConnection,
    work::{Counters, Needs, NewAttempt, Work, WorkError},
};
use crate::domain::{journal::Kind, time::TimestampMs};

/// Why a batch is not committed. Nothing is changed.
#[derive(Debug, thiserror::Error)]
pub enum NotCommitted {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Its attempts could not be signed.
    #[error(transparent)]
    Unsigned(WorkError),
}

/// A batch whose transaction is open.
pub struct Batch<'c> {
    pub(super) transaction: sqlx::Transaction<'c, sqlx::Sqlite>,
    kept: &'c mut Kept,
    wanted: Wanted,
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
        self.keep_log_short().await?;
        let mut transaction =
            self.connection.begin_with("BEGIN IMMEDIATE").await.while_doing("beginning a batch")?;
        let kept = &mut self.kept;
        let (work, wanted) = load(&mut transaction, kept, now, counters, needs).await?;
        Ok(Batch { transaction, kept, wanted, work })
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
        let noted = sqlx::query!(
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
        if noted.rows_affected() > 0 {
            seal(&mut transaction, now, journal::rows(Kind::SigningKeys, [row.key_id])).await?;
        }
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
        self.kept.forget();
        let mut transaction =
            self.connection.begin_with("BEGIN IMMEDIATE").await.while_doing(doing)?;
        let doubted = doubt_open_attempts(&mut transaction, now).await?;
        transaction.commit().await.while_doing(doing)?;
        Ok(doubted)
    }

    /// Brings steps forward that are due later than any delay explains: the machine's clock was ahead
    /// when they were scheduled. Answers how many there were.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn bring_forward(&mut self, latest: TimestampMs) -> Result<u64, StoreError> {
        self.kept.forget();
        let latest_ms = latest.as_millis();
        let brought = sqlx::query!(
            "UPDATE jobs SET next_step_at_ms = ?1
             WHERE final_outcome IS NULL AND next_step_at_ms > ?1",
            latest_ms
        )
        .execute(&mut self.connection)
        .await
        .while_doing("bringing forward what is due too late")?;
        Ok(brought.rows_affected())
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
}

async fn doubt_open_attempts(
    connection: &mut SqliteConnection,
    now: TimestampMs,
) -> Result<u64, StoreError> {
    let doing = "marking the attempts that were under way";
    let now_ms = now.as_millis();
    let open = sqlx::query!(
        r#"UPDATE attempts SET result = 'restarted', finished_at_ms = ?1,
             detail = 'the daemon ended before it recorded an answer'
         WHERE result IS NULL RETURNING attempt_seq AS "attempt_seq!""#,
        now_ms
    )
    .fetch_all(&mut *connection)
    .await
    .while_doing(doing)?;
    let ended = open.iter().map(|attempt| attempt.attempt_seq);
    seal(connection, now, journal::rows(Kind::AttemptEnds, ended)).await?;
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
    /// Writes what the steps changed and commits. Answers the next row numbers. `signed` are the attempts that
    /// were begun; they are awaited while the rest is written.
    ///
    /// The caller awaits this to its end: a commit that is dropped half-way may still happen.
    ///
    /// # Errors
    /// [`NotCommitted`]; nothing is changed.
    pub async fn commit(
        mut self,
        key_id: i64,
        signed: impl Future<Output = Result<Vec<NewAttempt>, WorkError>>,
    ) -> Result<Counters, NotCommitted> {
        let (written, signed) = tokio::join!(flush(&mut self.transaction, &self.work), signed);
        written?;
        match signed {
            Ok(attempts) => self.work.add_attempts(attempts),
            Err(error) => {
                self.roll_back().await?;
                return Err(NotCommitted::Unsigned(error));
            }
        }
        flush_attempts(&mut self.transaction, &self.work, key_id).await?;
        seal(&mut self.transaction, self.work.now, journal::rows_of(&self.work)).await?;
        let counters = self.work.counters;
        // Whoever does not hear of the commit does not know what the book has.
        let mut kept = std::mem::take(self.kept);
        let (work, wanted) = (self.work, self.wanted);
        let keeping = async { kept.keep(work, &wanted).is_ok() };
        let (committed, is_kept) = tokio::join!(self.transaction.commit(), keeping);
        committed.while_doing("committing a batch")?;
        if is_kept {
            *self.kept = kept;
        }
        Ok(counters)
    }

    /// Gives the batch up.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn roll_back(self) -> Result<(), StoreError> {
        self.transaction.rollback().await.while_doing("rolling a batch back")
    }
}
