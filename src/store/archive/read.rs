//! Reading the book together with its archives.
//!
//! Each read connection opens the archives beside the book, read-only, and gets views with the names of
//! the tables: what a query finds in them is what the book has and what it says is in an archive. SQLite
//! begins to read the book first, so that a job which is archived meanwhile is found in one of them.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::Serialize;
use sqlx::{
    AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _, SqliteConnection,
    sqlite::SqlitePoolOptions,
};

use super::{TABLES, quoted, uri};
use crate::store::{
    Readers, StoreError,
    error::While as _,
    open::{READER_WAIT_MAX, READERS_MAX, open_readers, options},
};

const OPENING: &str = "opening the archives of the book";

/// An archive that cannot be read.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MissingArchive {
    /// Its number in the book.
    pub seq: i64,
    /// Where it was.
    pub path: String,
    /// How many jobs have their rows in it.
    pub jobs: u64,
    /// What is wrong.
    pub reason: String,
}

impl std::fmt::Display for MissingArchive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { seq, path, jobs, reason } = self;
        write!(
            f,
            "archive {seq} with the history of {jobs} jobs cannot be read ({reason}): bring {path} back, \
             there or into the folder of the book"
        )
    }
}

struct Listed {
    archive_seq: i64,
    archive_uuid: String,
    path: String,
}

/// Opens the book at `path` for reading, together with its archives. One that cannot be read is noted
/// ([`Readers::missing_archives`]) and the rest is read.
///
/// # Errors
/// [`StoreError`] when there is no book.
pub async fn open_history(path: &Path) -> Result<Readers, StoreError> {
    let book = open_readers(path).await?;
    let listed = sqlx::query_as!(
        Listed,
        r#"SELECT archive_seq AS "archive_seq!", archive_uuid, path FROM archives
           ORDER BY archive_seq"#
    )
    .fetch_all(&book.pool)
    .await
    .while_doing(OPENING)?;
    if listed.is_empty() {
        return Ok(book);
    }
    book.close().await;
    let (mut setup, mut missing) = (String::new(), Vec::new());
    let mut trial = options(path).read_only(true).connect().await.while_doing(OPENING)?;
    let mut attached = Vec::new();
    for archive in &listed {
        match attach(&mut trial, archive, path).await {
            Ok((sql, file)) => {
                setup.push_str(&sql);
                attached.push((archive.archive_seq, file));
            }
            Err(reason) => missing.push(MissingArchive {
                seq: archive.archive_seq,
                path: archive.path.clone(),
                jobs: jobs_in(&mut trial, archive.archive_seq).await?,
                reason,
            }),
        }
    }
    for table in &TABLES {
        setup.push_str(&view(&mut trial, table.name, &attached).await.while_doing(OPENING)?);
    }
    trial.close().await.while_doing(OPENING)?;
    let setup: Arc<str> = setup.into();
    let pool = SqlitePoolOptions::new()
        .max_connections(READERS_MAX)
        .acquire_timeout(READER_WAIT_MAX)
        .after_connect(move |connection, _| {
            let setup = Arc::clone(&setup);
            Box::pin(async move {
                connection.execute(sqlx::raw_sql(AssertSqlSafe(setup.to_string()))).await?;
                Ok(())
            })
        })
        .connect_with(options(path).read_only(true))
        .await
        .while_doing(OPENING)?;
    Ok(Readers { pool, archives: attached.into(), missing: missing.into() })
}

/// Looks at every archived job, so it is asked only when there is something to tell.
async fn jobs_in(connection: &mut SqliteConnection, archive: i64) -> Result<u64, StoreError> {
    let row = sqlx::query!(
        r#"SELECT count(*) AS "jobs!: i64" FROM archived_jobs WHERE archive_seq = ?1"#,
        archive
    )
    .fetch_one(connection)
    .await
    .while_doing(OPENING)?;
    Ok(u64::try_from(row.jobs).unwrap_or(0))
}

/// Opens an archive beside the book, and checks that it is the one. Answers the statement that did it, and
/// where the file is.
async fn attach(
    connection: &mut SqliteConnection,
    archive: &Listed,
    book: &Path,
) -> Result<(String, PathBuf), String> {
    let noted = PathBuf::from(&archive.path);
    // A book that was brought to another machine has its archives beside it.
    let beside = noted.file_name().map(|name| book.with_file_name(name));
    let file = [Some(noted), beside].into_iter().flatten().find(|file| file.exists());
    let file = file.ok_or("it is not there")?;
    let name = format!("archive{}", archive.archive_seq);
    let sql = format!("ATTACH {} AS {name};\n", quoted(&uri(&file)));
    let failed = |error: sqlx::Error| format!("{}: {error}", file.display());
    sqlx::raw_sql(AssertSqlSafe(sql.clone())).execute(&mut *connection).await.map_err(failed)?;
    let asked = format!("SELECT archive_uuid FROM {name}.archive");
    let found: Result<String, _> =
        sqlx::query_scalar(AssertSqlSafe(asked)).fetch_one(&mut *connection).await;
    let reason = match found {
        Ok(uuid) if uuid == archive.archive_uuid => return Ok((sql, file)),
        Ok(uuid) => format!("{} is another archive, {uuid}", file.display()),
        // A copying that was cut off is undone by whoever may write to the file.
        Err(error) if is_unfinished(&error) => format!(
            "{}: a copying was cut off; start the daemon, or run `settled archive`, and it is put in \
             order",
            file.display()
        ),
        Err(error) => failed(error),
    };
    let detach = AssertSqlSafe(format!("DETACH {name}"));
    sqlx::raw_sql(detach).execute(connection).await.map_err(failed)?;
    Err(reason)
}

/// SQLite's `READONLY_ROLLBACK`: a journal is to be rolled back, and this connection may not.
fn is_unfinished(error: &sqlx::Error) -> bool {
    error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code)
        .is_some_and(|code| code == "776")
}

/// A view over a table's rows, wherever they are.
async fn view(
    connection: &mut SqliteConnection,
    table: &str,
    archives: &[(i64, PathBuf)],
) -> Result<String, sqlx::Error> {
    let wanted = columns(connection, table, "main").await?;
    let mut sql =
        format!("CREATE TEMP VIEW {table} AS SELECT {} FROM main.{table}", wanted.join(", "));
    for (seq, _) in archives {
        let there = columns(connection, table, &format!("archive{seq}")).await?;
        // A column that the book got later is not in an older archive.
        let columns: Vec<String> =
            wanted
                .iter()
                .map(|column| {
                    if there.contains(column) {
                        column.clone()
                    } else {
                        format!("NULL AS {column}")
                    }
                })
                .collect();
        let part = format!(
            " UNION ALL SELECT {} FROM archive{seq}.{table} AS there
              WHERE (SELECT archive_seq FROM main.archived_jobs AS gone
                     WHERE gone.job_seq = there.job_seq) = {seq}",
            columns.join(", ")
        );
        sql.push_str(&part);
    }
    sql.push_str(";\n");
    Ok(sql)
}

async fn columns(
    connection: &mut SqliteConnection,
    table: &str,
    schema: &str,
) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar("SELECT name FROM pragma_table_info(?1, ?2)")
        .bind(table)
        .bind(schema)
        .fetch_all(connection)
        .await
}

impl Readers {
    /// The files of the archives that are read with the book.
    pub fn archive_files(&self) -> impl Iterator<Item = &Path> {
        self.archives.iter().map(|(_, file)| file.as_path())
    }

    /// Archives of the book that could not be opened with it.
    #[must_use]
    pub fn missing_archives(&self) -> &[MissingArchive] {
        &self.missing
    }

    /// Whether every archive of the book could be opened with it.
    ///
    /// # Errors
    /// [`StoreError::Unusable`], which names the first that is missing.
    pub fn has_all_archives(&self) -> Result<(), StoreError> {
        let told: Vec<String> = self.missing.iter().map(ToString::to_string).collect();
        if told.is_empty() { Ok(()) } else { Err(StoreError::Unusable(told.join("; "))) }
    }
}
