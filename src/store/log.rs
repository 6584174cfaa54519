//! The write-ahead log: copied into the database before it is long, and seen to be gone at the end.
//!
//! SQLite would copy it by itself after a commit, but it tells nobody when the disk fails then: the log
//! would grow until the disk is full, and the daemon would go on after a failed sync.

use std::time::Duration;

use sqlx::Connection as _;

use super::{
    error::{StoreError, While as _},
    open::{BUSY_TIMEOUT, WriteConnection},
};

/// Pages of the log that are not in the database, after which they are copied there: 32 MiB. A page that
/// many batches change is copied once, so the longer the log, the less is copied.
const LOG_PAGES_MAX: i64 = 8 * 1_024;

/// Pages of the log after which readers are waited for, so that it can begin anew: 64 MiB.
const LOG_PAGES_LONG: i64 = 16 * 1_024;

/// How long all readers together are waited for. Our own reads are shorter; another program's may not be,
/// and then the log grows for as long as that read lasts.
const READERS_WAIT: Duration = Duration::from_millis(200);

/// Batches after which the log's length is looked at: looking costs a little, and a batch is not long.
const BATCHES_BETWEEN_LOOKS: u32 = 8;

/// Looks between two times that readers are waited for.
const LOOKS_BETWEEN_WAITS: u32 = 32;

/// What is known of the log's length.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LogWatch {
    batches: u32,
    looks_until_wait: u32,
    pages: i64,
}

/// What a copying of the log came to.
struct Copying {
    /// Whether a reader or another writer stood in the way.
    hindered: bool,
    /// Pages in the log.
    pages: i64,
    /// Those of them that are in the database.
    copied: i64,
}

impl WriteConnection {
    /// Copies the log into the database once it is long. Between two batches.
    pub(super) async fn keep_log_short(&mut self) -> Result<(), StoreError> {
        self.log.batches = self.log.batches.wrapping_add(1);
        if !self.log.batches.is_multiple_of(BATCHES_BETWEEN_LOOKS) {
            return Ok(());
        }
        let mut found = self.copy_log("PRAGMA wal_checkpoint(NOOP)").await?;
        if found.pages.saturating_sub(found.copied) >= LOG_PAGES_MAX {
            // What a reader still needs is left to the next time; nobody waits for anybody.
            found = self.copy_log("PRAGMA wal_checkpoint(PASSIVE)").await?;
        }
        self.log.looks_until_wait = self.log.looks_until_wait.saturating_sub(1);
        if found.pages >= LOG_PAGES_LONG && self.log.looks_until_wait == 0 {
            // Short reads that overlap for ever would keep the log from ever beginning anew.
            self.log.looks_until_wait = LOOKS_BETWEEN_WAITS;
            found = self.copy_log_waiting("PRAGMA wal_checkpoint(RESTART)").await?;
            if found.hindered {
                tracing::warn!(
                    log_pages = found.pages,
                    "a read of the book lasts long: the log beside the database grows until it ends"
                );
            } else {
                found.pages = 0;
            }
        }
        self.log.pages = found.pages;
        Ok(())
    }

    /// How long the log is, in bytes, as last looked at.
    #[must_use]
    pub fn log_bytes(&self) -> u64 {
        u64::try_from(self.log.pages).unwrap_or(0).saturating_mul(self.page_bytes)
    }

    /// Closes the connection after the last commit. The log is copied into the database first: SQLite
    /// does it when the last connection closes, which ours need not be, and would not say that it failed.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn close(mut self) -> Result<(), StoreError> {
        let last = self.copy_log("PRAGMA wal_checkpoint(TRUNCATE)").await?;
        if last.hindered {
            tracing::warn!(
                log_pages = last.pages,
                "somebody reads the book: its log is left beside the database for the next start"
            );
        }
        self.connection.close().await.while_doing("closing the book")
    }

    async fn copy_log_waiting(&mut self, pragma: &'static str) -> Result<Copying, StoreError> {
        self.wait_for_locks(READERS_WAIT).await?;
        let found = self.copy_log(pragma).await;
        self.wait_for_locks(BUSY_TIMEOUT).await?;
        found
    }

    async fn wait_for_locks(&mut self, limit: Duration) -> Result<(), StoreError> {
        let pragma = format!("PRAGMA busy_timeout = {}", limit.as_millis());
        sqlx::query(sqlx::AssertSqlSafe(pragma))
            .execute(&mut self.connection)
            .await
            .while_doing("setting how long locks are waited for")?;
        Ok(())
    }

    async fn copy_log(&mut self, pragma: &'static str) -> Result<Copying, StoreError> {
        let (hindered, pages, copied): (i64, i64, i64) = sqlx::query_as(pragma)
            .fetch_one(&mut self.connection)
            .await
            .while_doing("copying the log into the database")?;
        Ok(Copying { hindered: hindered != 0, pages, copied })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tokio::sync::watch;
    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::{
        domain::time::TimestampMs,
        store::{Readers, open_readers, open_writer},
    };

    /// What one batch of the test writes, in pages.
    const PAGES_WRITTEN: i64 = 64;

    async fn write(writer: &mut WriteConnection, number: i64) {
        writer.keep_log_short().await.unwrap();
        sqlx::query(
            "INSERT INTO quarantine (quarantine_seq, queue, sha256, bytes, code, detail, times_seen,
                 first_seen_ms, last_seen_ms)
             VALUES (?1, 'q', randomblob(32), zeroblob(?2), 'c', 'd', 1, 0, 0)",
        )
        .bind(number)
        .bind(PAGES_WRITTEN * 4_096)
        .execute(&mut writer.connection)
        .await
        .unwrap();
    }

    fn log_pages(book: &Path) -> i64 {
        let log = book.with_extension("db-wal");
        std::fs::metadata(log).map_or(0, |log| i64::try_from(log.len()).unwrap() / 4_096)
    }

    /// Reads that begin before the last one has ended, for ever.
    async fn overlapping_reads(readers: Readers, mut stop: watch::Receiver<bool>) {
        let mut last = None;
        while !*stop.borrow_and_update() {
            let mut read = readers.pool.begin().await.unwrap();
            sqlx::query("SELECT count(*) FROM jobs").execute(&mut *read).await.unwrap();
            last = Some(read);
            let _told = tokio::time::timeout(Duration::from_millis(20), stop.changed()).await;
        }
        drop(last);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn reads_that_overlap_for_ever_do_not_keep_the_log_from_beginning_anew() {
        let folder = tempfile::tempdir().unwrap();
        let book = folder.path().join("book.db");
        let mut writer = open_writer(&book, TimestampMs::from_millis(0)).await.unwrap().writer;
        let (stop, stopped) = watch::channel(false);
        let tasks = TaskTracker::new();
        tasks.spawn(overlapping_reads(open_readers(&book).await.unwrap(), stopped));
        tasks.close();
        for number in 1..=(4 * LOG_PAGES_LONG / PAGES_WRITTEN) {
            write(&mut writer, number).await;
        }
        let written_between_waits =
            i64::from(BATCHES_BETWEEN_LOOKS * LOOKS_BETWEEN_WAITS) * (PAGES_WRITTEN + 8);
        let most = LOG_PAGES_LONG + written_between_waits;
        assert!(log_pages(&book) < most, "{} pages, at most {most}", log_pages(&book));
        stop.send_replace(true);
        tasks.wait().await;
    }

    #[tokio::test]
    async fn a_read_that_lasts_hinders_no_batch_and_the_log_begins_anew_after_it() {
        let folder = tempfile::tempdir().unwrap();
        let book = folder.path().join("book.db");
        let mut writer = open_writer(&book, TimestampMs::from_millis(0)).await.unwrap().writer;
        let readers = open_readers(&book).await.unwrap();
        let mut read = readers.pool.begin().await.unwrap();
        sqlx::query("SELECT count(*) FROM jobs").execute(&mut *read).await.unwrap();
        let enough = LOG_PAGES_LONG / PAGES_WRITTEN + i64::from(BATCHES_BETWEEN_LOOKS);
        for number in 1..=enough {
            write(&mut writer, number).await;
        }
        let grown = writer.log_bytes();
        assert!(grown >= 64 * 1_024 * 1_024, "{grown}");
        drop(read);
        let looks = i64::from(BATCHES_BETWEEN_LOOKS * (LOOKS_BETWEEN_WAITS + 1));
        for number in enough + 1..=enough + looks {
            write(&mut writer, number).await;
        }
        assert!(writer.log_bytes() < grown, "{} after {grown}", writer.log_bytes());
        readers.close().await;
        writer.close().await.unwrap();
        assert_eq!(log_pages(&book), 0);
    }
}
