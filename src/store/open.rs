//! Opening the book: settings that durability depends on, and the checks that they hold.

use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use sqlx::{
    ConnectOptions, Connection as _, Row as _, SqliteConnection, SqlitePool,
    migrate::{MigrateError, Migrator},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use uuid::Uuid;

use super::{
    archive::MissingArchive,
    error::{StoreError, While as _, classify},
    journal::{self, seal},
    kept::Kept,
    log::LogWatch,
    work::Counters,
};
use crate::domain::{journal::Kind, time::TimestampMs};

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

/// Oldest SQLite that is used: older ones can corrupt a WAL that several connections reset.
const SQLITE_VERSION_MIN: (u32, u32, u32) = (3, 51, 3);

/// How long a statement waits for a lock that somebody else holds.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Read connections; reads are short. Each costs its pages and what it keeps of statements, most of a mebibyte.
pub(super) const READERS_MAX: u32 = 3;

/// Longest wait for a free read connection.
pub(super) const READER_WAIT_MAX: Duration = Duration::from_secs(10);

/// Size to which a reset WAL file is cut, in bytes.
const WAL_BYTES_KEPT: u32 = 64 * 1_024 * 1_024;

/// Bytes of the log that are written again at a time.
const LOG_PIECE_BYTES: usize = 1_024 * 1_024;

/// The one connection that changes the book. It lives in the writer.
#[derive(Debug)]
pub struct WriteConnection {
    pub(super) connection: SqliteConnection,
    pub(super) log: LogWatch,
    pub(super) kept: Kept,
    /// Size of a page of the database, in bytes.
    pub(super) page_bytes: u64,
}

/// Connections that only read.
#[derive(Clone, Debug)]
pub struct Readers {
    pub(super) pool: SqlitePool,
    /// The archives that are read with the book; see `archive::open_history`.
    pub(super) archives: Arc<[(i64, PathBuf)]>,
    pub(super) missing: Arc<[MissingArchive]>,
}

impl Readers {
    /// Closes the connections; reads that are under way end first.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

/// A book that is open for changes.
#[derive(Debug)]
pub struct OpenedBook {
    /// The connection that changes it.
    pub writer: WriteConnection,
    /// The next row numbers.
    pub counters: Counters,
    /// The book's own identity.
    pub ledger_uuid: Uuid,
}

/// The pages that the writing connection keeps. SQLite's own 2 MiB are less than one batch changes.
const WRITER_CACHE_KIB: u32 = 3 * 1_024;

/// The pages that each reading connection keeps: a read looks at few, and what the system has in memory is
/// near. SQLite's own 2 MiB for each of them would be an eighth of all that the daemon uses.
const READER_CACHE_KIB: u32 = 512;

pub(super) fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .busy_timeout(BUSY_TIMEOUT)
        .foreign_keys(true)
        .pragma("recursive_triggers", "ON")
        .pragma("trusted_schema", "OFF")
        // Statements are logged by nobody: they may hold identifiers, and failures are reported.
        .disable_statement_logging()
}

/// Opens the book at `path` for changes, makes it if there is none, and brings it up to date. The
/// caller holds the [`super::lock::BookLock`].
///
/// # Errors
/// [`StoreError`] when the file cannot be used or the settings do not hold.
pub async fn open_writer(path: &Path, now: TimestampMs) -> Result<OpenedBook, StoreError> {
    let doing = "opening the book";
    write_log_again(path)
        .map_err(sqlx::Error::Io)
        .while_doing("securing the log of the last run")?;
    let mut connection = options(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        // SQLite's own copying after a commit hides its errors; see `keep_log_short`.
        .pragma("wal_autocheckpoint", "0")
        .pragma("cache_size", format!("-{WRITER_CACHE_KIB}"))
        // A batch is bounded, and a page that is spilled is written again with every change after that.
        .pragma("cache_spill", "OFF")
        // A statement that fails half-way is undone from the pages that it kept: in memory, or each of them
        // would be written to a file.
        .pragma("temp_store", "MEMORY")
        .pragma("journal_size_limit", WAL_BYTES_KEPT.to_string())
        .connect()
        .await
        .while_doing(doing)?;
    check_version(&mut connection).await?;
    check_setting(&mut connection, "PRAGMA journal_mode", "wal").await?;
    check_setting(&mut connection, "PRAGMA synchronous", "2").await?;
    check_setting(&mut connection, "PRAGMA foreign_keys", "1").await?;
    check_setting(&mut connection, "PRAGMA recursive_triggers", "1").await?;
    MIGRATIONS.run(&mut connection).await.map_err(|error| not_migrated(error, path))?;
    let ledger_uuid = ledger_identity(&mut connection, now).await?;
    let counters = Counters::load(&mut connection).await?;
    let page_bytes: i64 = sqlx::query_scalar("PRAGMA page_size")
        .fetch_one(&mut connection)
        .await
        .while_doing(doing)?;
    let writer = WriteConnection {
        connection,
        log: LogWatch::default(),
        kept: Kept::default(),
        page_bytes: u64::try_from(page_bytes).unwrap_or(0),
    };
    Ok(OpenedBook { writer, counters, ledger_uuid })
}

/// Why the book could not be brought up to date. The disk may fail here too.
fn not_migrated(error: MigrateError, path: &Path) -> StoreError {
    if let MigrateError::Execute(source) | MigrateError::ExecuteMigration(source, _) = error {
        return classify(source, "bringing the book up to date");
    }
    StoreError::Unusable(format!(
        "{} cannot be brought up to date: {error}. It may belong to a newer version of settled",
        path.display()
    ))
}

/// Opens read-only connections to the book at `path`.
///
/// # Errors
/// [`StoreError`] when there is no book, or it is of another version.
pub async fn open_readers(path: &Path) -> Result<Readers, StoreError> {
    if !path.exists() {
        return Err(StoreError::Unusable(format!(
            "there is no book at {}: `settled run` or `settled book import` makes one",
            path.display()
        )));
    }
    let pool = SqlitePoolOptions::new()
        .max_connections(READERS_MAX)
        .acquire_timeout(READER_WAIT_MAX)
        .connect_with(
            options(path).read_only(true).pragma("cache_size", format!("-{READER_CACHE_KIB}")),
        )
        .await
        .while_doing("opening the book for reading")?;
    let mut connection = pool.acquire().await.while_doing("opening the book for reading")?;
    check_version(&mut connection).await?;
    check_migrated(&mut connection, path).await?;
    drop(connection);
    Ok(Readers { pool, archives: [].into(), missing: [].into() })
}

/// Writes what is in the write-ahead log to it once more, and syncs it.
///
/// SQLite takes everything in the log that it can read for committed and durable, and writes behind it.
/// But if the last run ended because a sync failed, the end of the log may be in the page cache only, and
/// no later sync brings it to the disk, because the cache holds it for written. A loss of power would then
/// take it, with everything behind it that was acknowledged. What has been written again is on the disk
/// after the sync, or the sync fails. After an end in good order there is no log.
fn write_log_again(database: &Path) -> io::Result<()> {
    // SQLite follows links before it adds to the name.
    let mut log = match fs::canonicalize(database) {
        Ok(real) => real.into_os_string(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    log.push("-wal");
    let log = match OpenOptions::new().read(true).write(true).open(log) {
        Ok(log) => log,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let (mut piece, mut at) = (vec![0; LOG_PIECE_BYTES], 0_u64);
    loop {
        let length = log.read_at(&mut piece, at)?;
        let Some(bytes) = piece.get(..length).filter(|bytes| !bytes.is_empty()) else {
            return log.sync_all();
        };
        log.write_all_at(bytes, at)?;
        at = at.saturating_add(u64::try_from(length).unwrap_or(u64::MAX));
    }
}

async fn check_version(connection: &mut SqliteConnection) -> Result<(), StoreError> {
    let text: String = sqlx::query_scalar("SELECT sqlite_version()")
        .fetch_one(connection)
        .await
        .while_doing("asking for the SQLite version")?;
    let mut numbers = text.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let mut next = || numbers.next().unwrap_or(0);
    let version = (next(), next(), next());
    if version < SQLITE_VERSION_MIN {
        let (major, minor, patch) = SQLITE_VERSION_MIN;
        return Err(StoreError::Unusable(format!(
            "SQLite {text} is linked, and at least {major}.{minor}.{patch} is needed: older ones \
             can corrupt a write-ahead log that several connections use"
        )));
    }
    Ok(())
}

async fn check_setting(
    connection: &mut SqliteConnection,
    pragma: &'static str,
    expected: &str,
) -> Result<(), StoreError> {
    let row = sqlx::query(pragma)
        .fetch_one(connection)
        .await
        .while_doing("checking the database settings")?;
    // A pragma answers with text or with a number, as it likes.
    let value = row
        .try_get::<String, _>(0)
        .or_else(|_| row.try_get::<i64, _>(0).map(|number| number.to_string()))
        .while_doing("checking the database settings")?;
    if value.eq_ignore_ascii_case(expected) {
        Ok(())
    } else {
        Err(StoreError::Unusable(format!("{pragma} is {value}, and {expected} is needed")))
    }
}

async fn check_migrated(connection: &mut SqliteConnection, path: &Path) -> Result<(), StoreError> {
    let newest = MIGRATIONS.iter().map(|migration| migration.version).max();
    let applied: Option<i64> =
        sqlx::query_scalar("SELECT max(version) FROM _sqlx_migrations WHERE success")
            .fetch_one(connection)
            .await
            .map_err(|error| {
                StoreError::Unusable(format!(
                    "{} is not a book of settled: {error}",
                    path.display()
                ))
            })?;
    if applied == newest {
        Ok(())
    } else {
        Err(StoreError::Unusable(format!(
            "{} is at schema {applied:?}, and this version of settled reads {newest:?}: run the \
             same version as the daemon",
            path.display()
        )))
    }
}

async fn ledger_identity(
    connection: &mut SqliteConnection,
    now: TimestampMs,
) -> Result<Uuid, StoreError> {
    let doing = "reading the identity of the book";
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.while_doing(doing)?;
    let (fresh, now_ms) = (Uuid::new_v4().to_string(), now.as_millis());
    let made = sqlx::query!(
        "INSERT INTO ledger (one, ledger_uuid, created_at_ms) VALUES (1, ?1, ?2)
         ON CONFLICT DO NOTHING",
        fresh,
        now_ms
    )
    .execute(&mut *transaction)
    .await
    .while_doing(doing)?;
    let row = sqlx::query!("SELECT ledger_uuid FROM ledger")
        .fetch_one(&mut *transaction)
        .await
        .while_doing(doing)?;
    if made.rows_affected() > 0 {
        seal(&mut transaction, now, journal::rows(Kind::Ledger, [1])).await?;
    }
    transaction.commit().await.while_doing(doing)?;
    row.ledger_uuid.parse().map_err(|error: uuid::Error| StoreError::Unreadable {
        table: "ledger",
        reason: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn sqlite_is_built_as_cargo_s_configuration_says() {
        let mut connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        let built: Vec<String> =
            sqlx::query_scalar("PRAGMA compile_options").fetch_all(&mut connection).await.unwrap();
        let has = |option: &str| built.iter().any(|one| one.starts_with(option));
        assert!(has("DEFAULT_MEMSTATUS=0"), "{built:?}");
        for without in ["ENABLE_MEMORY_MANAGEMENT", "ENABLE_FTS", "ENABLE_RTREE"] {
            assert!(!has(without), "{without} in {built:?}");
        }
    }
}
