//! One archive file, open for adding rows, with the book beside it for reading.

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use sqlx::{
    AssertSqlSafe, ConnectOptions as _, Connection as _, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};
use uuid::Uuid;

use super::{ARCHIVE_WAIT, ARCHIVES_MAX, ArchiveError, Identity, TABLES, quoted, uri};
use crate::domain::time::TimestampMs;

/// What an archive has besides the book's tables.
const OWN_TABLES: &str = "
-- Whose archive this is.
CREATE TABLE archive (
    one          INTEGER NOT NULL PRIMARY KEY CHECK (one = 1), -- there is one archive in a file
    archive_uuid TEXT    NOT NULL CHECK (length(archive_uuid) = 36), -- this file's own identity
    ledger_uuid  TEXT    NOT NULL CHECK (length(ledger_uuid) = 36),  -- the book that its rows are from
    archive_seq  INTEGER NOT NULL, -- its number in that book
    begun_at_ms  INTEGER NOT NULL  -- when the file was made
) STRICT;
-- Where the book's journal was when jobs were copied: what ties their rows to the chain.
CREATE TABLE anchors (
    first_job_seq INTEGER NOT NULL PRIMARY KEY, -- the first of the jobs that went together
    jobs          INTEGER NOT NULL CHECK (jobs >= 1), -- how many they were
    commit_seq    INTEGER NOT NULL, -- the journal's last seal by then
    chain         BLOB    NOT NULL CHECK (length(chain) = 32) -- that seal's link
) STRICT;
";

/// An archive that rows can be added to.
#[derive(Debug)]
pub struct ArchiveFile {
    pub(super) connection: SqliteConnection,
    pub(super) path: PathBuf,
    pub(super) identity: Identity,
}

type BookArchive = (i64, String, i64, String);

impl ArchiveFile {
    /// Opens the archive of the book at `book`, and makes the file if there is none.
    ///
    /// # Errors
    /// [`ArchiveError`], above all when the file is another book's.
    pub async fn open(path: &Path, book: &Path, now: TimestampMs) -> Result<Self, ArchiveError> {
        let path = std::path::absolute(path)
            .map_err(|error| ArchiveError::unfit(path, error.to_string()))?;
        let failed = |doing| {
            let path = path.clone();
            move |source| ArchiveError::File { path, doing, source }
        };
        let existed = path.exists();
        let mut connection = SqliteConnectOptions::new()
            .filename(&path)
            .create_if_missing(true)
            .busy_timeout(ARCHIVE_WAIT)
            // One file, without a log beside it, so that it can be copied and read anywhere. The sync
            // after a commit must include the folder (EXTRA): else a loss of power could bring the
            // journal back, and with it take rows away that the book has removed.
            .journal_mode(SqliteJournalMode::Delete)
            .synchronous(SqliteSynchronous::Extra)
            // What the rows refer to is in the book.
            .foreign_keys(false)
            .pragma("trusted_schema", "OFF")
            .disable_statement_logging()
            .connect()
            .await
            .map_err(failed("opening it"))?;
        sqlx::query("ATTACH ?1 AS book")
            .bind(uri(book))
            .execute(&mut connection)
            .await
            .map_err(failed("opening the book beside it"))?;
        let (ledger,): (String,) = sqlx::query_as("SELECT ledger_uuid FROM book.ledger")
            .fetch_one(&mut connection)
            .await
            .map_err(failed("reading the book's identity"))?;
        let known: Vec<BookArchive> = sqlx::query_as(
            "SELECT archive_seq, archive_uuid, begun_at_ms, path FROM book.archives
             ORDER BY archive_seq",
        )
        .fetch_all(&mut connection)
        .await
        .map_err(failed("reading the book's archives"))?;
        let names: Vec<(String,)> = sqlx::query_as("SELECT name FROM main.sqlite_schema")
            .fetch_all(&mut connection)
            .await
            .map_err(failed("reading its tables"))?;
        if names.is_empty() {
            if let Some((seq, ..)) = known.iter().find(|(.., at)| Path::new(at) == path) {
                let reason = format!(
                    "archive {seq} of this book was there, and is {} now. Bring it back; or set \
                     archive.path to another file, which begins a new archive, and keep looking: \
                     history is missing without it",
                    if existed { "empty" } else { "gone" }
                );
                remove_if_new(&path, existed);
                return Err(ArchiveError::unfit(&path, reason));
            }
            let next = known.last().map_or(1, |(seq, ..)| seq.saturating_add(1));
            if next > ARCHIVES_MAX {
                remove_if_new(&path, existed);
                let reason =
                    format!("a book has at most {ARCHIVES_MAX} archives: go on with one of them");
                return Err(ArchiveError::unfit(&path, reason));
            }
            make(&mut connection, &ledger, next, now).await.map_err(failed("making it"))?;
            sync_folder(&path)
                .map_err(|error| failed("syncing its folder")(sqlx::Error::Io(error)))?;
        }
        let identity = identify(&mut connection, &path, &ledger, &known).await?;
        Ok(Self { connection, path, identity })
    }

    /// The archive as the book has it.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// From the first removal on, the book knows it.
    pub fn is_known(&mut self) {
        self.identity.is_new = false;
    }

    /// Closes the file.
    ///
    /// # Errors
    /// [`ArchiveError::File`].
    pub async fn close(self) -> Result<(), ArchiveError> {
        let path = self.path;
        self.connection.close().await.map_err(|source| ArchiveError::File {
            path,
            doing: "closing it",
            source,
        })
    }
}

/// SQLite makes the file as soon as it is opened.
fn remove_if_new(path: &Path, existed: bool) {
    if !existed {
        // An empty file that stays is told of the next time in the same words.
        let _stays = std::fs::remove_file(path);
    }
}

fn sync_folder(path: &Path) -> std::io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

/// Makes the tables as the book has them, with their comments, checks and indexes.
async fn make(
    connection: &mut SqliteConnection,
    ledger: &str,
    seq: i64,
    now: TimestampMs,
) -> Result<(), sqlx::Error> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    let names: Vec<String> = TABLES.iter().map(|table| quoted(table.name)).collect();
    let sql = format!(
        "SELECT sql FROM book.sqlite_schema
         WHERE type IN ('table', 'index') AND tbl_name IN ({}, 'journal') AND sql IS NOT NULL
         ORDER BY type DESC",
        names.join(", ")
    );
    let texts: Vec<(String,)> =
        sqlx::query_as(AssertSqlSafe(sql)).fetch_all(&mut *transaction).await?;
    for (text,) in texts {
        sqlx::raw_sql(AssertSqlSafe(text)).execute(&mut *transaction).await?;
    }
    sqlx::raw_sql(OWN_TABLES).execute(&mut *transaction).await?;
    let kept = TABLES.iter().map(|table| table.name).chain(["journal", "archive"]);
    for name in kept {
        for (change, what) in [("DELETE", "removed"), ("UPDATE", "changed")] {
            let sql = format!(
                "CREATE TRIGGER {name}_not_{what} BEFORE {change} ON {name}
                 BEGIN SELECT RAISE(ABORT, 'what is archived is never {what}'); END"
            );
            sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *transaction).await?;
        }
    }
    sqlx::query("INSERT INTO archive VALUES (1, ?1, ?2, ?3, ?4)")
        .bind(Uuid::new_v4().to_string())
        .bind(ledger)
        .bind(seq)
        .bind(now.as_millis())
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await
}

/// Whether the file belongs to this book, and as which archive.
async fn identify(
    connection: &mut SqliteConnection,
    path: &Path,
    ledger: &str,
    known: &[BookArchive],
) -> Result<Identity, ArchiveError> {
    let row: Result<(String, String, i64, i64), _> = sqlx::query_as(
        "SELECT archive_uuid, ledger_uuid, archive_seq, begun_at_ms FROM main.archive",
    )
    .fetch_one(&mut *connection)
    .await;
    let (uuid, its_ledger, seq, begun_at) = row.map_err(|error| {
        ArchiveError::unfit(
            path,
            format!("it is no archive of settled ({error}): name another file"),
        )
    })?;
    if its_ledger != ledger {
        let reason = format!("it is an archive of another book ({its_ledger}): name another file");
        return Err(ArchiveError::unfit(path, reason));
    }
    let in_book = known.iter().find(|(_, known, ..)| *known == uuid);
    let next = known.last().map_or(1, |(last, ..)| last.saturating_add(1));
    match in_book {
        Some((known, ..)) if *known == seq => {}
        None if seq == next => {}
        Some(_) | None => {
            let reason = "the book does not know it as it is: it is from another time of the book, \
                          which was restored from a backup. Name a new file, and keep this one";
            return Err(ArchiveError::unfit(path, reason));
        }
    }
    if !is_made_as_now(connection)
        .await
        .map_err(|error| ArchiveError::unfit(path, error.to_string()))?
    {
        let reason = "it was made by another version of settled, which kept other columns. Name a new \
                      file, and keep this one where it is: it is read as before";
        return Err(ArchiveError::unfit(path, reason));
    }
    let bad = |error: String| ArchiveError::unfit(path, format!("it is damaged: {error}"));
    Ok(Identity {
        seq,
        uuid: uuid.parse().map_err(|error: uuid::Error| bad(error.to_string()))?,
        begun_at: TimestampMs::from_millis(begun_at),
        path: path.to_str().ok_or_else(|| bad("its name is no UTF-8".to_owned()))?.to_owned(),
        is_new: in_book.is_none(),
    })
}

/// Whether the tables are as the book's are now.
async fn is_made_as_now(connection: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    let names: Vec<String> = TABLES.iter().map(|table| quoted(table.name)).collect();
    let sql = format!(
        "SELECT count(*) FROM (
             SELECT name, sql FROM book.sqlite_schema WHERE type = 'table' AND name IN ({0}, 'journal')
             EXCEPT SELECT name, sql FROM main.sqlite_schema)",
        names.join(", ")
    );
    let other: i64 = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(connection).await?;
    Ok(other == 0)
}
