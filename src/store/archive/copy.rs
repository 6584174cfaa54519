//! Copying the rows of jobs that are over, and comparing what arrived.

use sqlx::{AssertSqlSafe, Connection as _, SqliteConnection};

use super::{ArchiveError, ArchiveFile, Identity, TABLES, Table};
use crate::{crash, domain::ids::JobSeq};

/// The times of a job's rows, which are those of the seals that seal them.
const TIMES: &str = "
    SELECT received_at_ms FROM book.jobs WHERE job_seq IN (SELECT value FROM json_each(?1))
    UNION SELECT state_since_ms FROM book.jobs WHERE job_seq IN (SELECT value FROM json_each(?1))
    UNION SELECT decided_at_ms FROM book.decisions WHERE job_seq IN (SELECT value FROM json_each(?1))
    UNION SELECT prepared_at_ms FROM book.attempts WHERE job_seq IN (SELECT value FROM json_each(?1))
    UNION SELECT finished_at_ms FROM book.attempts WHERE job_seq IN (SELECT value FROM json_each(?1))
    UNION SELECT booked_at_ms FROM book.transfers WHERE job_seq IN (SELECT value FROM json_each(?1))
          AND phase = 'pending'
    UNION SELECT booked_at_ms FROM book.transfers WHERE job_seq IN (SELECT value FROM json_each(?1))
          AND phase IN ('posted', 'voided', 'overruled')
    UNION SELECT at_ms FROM book.job_events WHERE job_seq IN (SELECT value FROM json_each(?1))
    UNION SELECT created_at_ms FROM book.outbox WHERE job_seq IN (SELECT value FROM json_each(?1))";

/// Rows that are in an archive, committed and compared, and may be removed from the book.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removal {
    pub(in crate::store) archive: Identity,
    pub(in crate::store) jobs: Vec<i64>,
    pub(in crate::store) attempts: Vec<i64>,
    pub(in crate::store) transfers: Vec<i64>,
    pub(in crate::store) job_events: Vec<i64>,
    pub(in crate::store) outbox: Vec<i64>,
}

impl ArchiveFile {
    /// Copies everything about `jobs`, which are over, and commits it. What a copying before has left is
    /// used.
    ///
    /// # Errors
    /// [`ArchiveError`]; the book is as it was.
    pub async fn copy(&mut self, jobs: &[JobSeq]) -> Result<Removal, ArchiveError> {
        let path = self.path.clone();
        let failed = |doing| {
            let path = path.clone();
            move |source| ArchiveError::File { path, doing, source }
        };
        let jobs: Vec<i64> = jobs.iter().map(|job| job.get()).collect();
        let list = json(&jobs);
        // One read of the book from here to the commit.
        let mut transaction = self
            .connection
            .begin_with("BEGIN IMMEDIATE")
            .await
            .map_err(failed("beginning to copy"))?;
        let mut numbers = Vec::with_capacity(TABLES.len());
        for table in &TABLES {
            let rows = copy_table(&mut transaction, table, &list).await;
            numbers.push(rows.map_err(failed("copying rows"))?);
        }
        copy_seals(&mut transaction, &list).await.map_err(failed("copying seals"))?;
        anchor(&mut transaction, self.identity.seq, &jobs)
            .await
            .map_err(failed("writing the anchor"))?;
        crash::point("archive_copied");
        transaction.commit().await.map_err(failed("committing"))?;
        crash::point("archive_committed");
        for (table, rows) in TABLES.iter().zip(&numbers) {
            let same = is_same(&mut self.connection, table, rows).await;
            if !same.map_err(failed("comparing rows"))? {
                return Err(ArchiveError::Differs { path, table: table.name });
            }
        }
        let mut numbers = numbers.into_iter();
        let mut next = || numbers.next().unwrap_or_default();
        let _messages = next();
        let (attempts, transfers, job_events, outbox) = (next(), next(), next(), next());
        let archive = self.identity.clone();
        Ok(Removal { archive, jobs, attempts, transfers, job_events, outbox })
    }
}

fn json(numbers: &[i64]) -> String {
    let numbers: Vec<String> = numbers.iter().map(i64::to_string).collect();
    format!("[{}]", numbers.join(","))
}

async fn columns(connection: &mut SqliteConnection, table: &str) -> Result<String, sqlx::Error> {
    let names: Vec<(String,)> = sqlx::query_as("SELECT name FROM pragma_table_info(?1, 'book')")
        .bind(table)
        .fetch_all(connection)
        .await?;
    Ok(names.into_iter().map(|(name,)| name).collect::<Vec<_>>().join(", "))
}

async fn copy_table(
    connection: &mut SqliteConnection,
    table: &Table,
    jobs: &str,
) -> Result<Vec<i64>, sqlx::Error> {
    let Table { name, number, of_jobs } = table;
    let mut found: Vec<i64> = Vec::new();
    for condition in *of_jobs {
        let sql = format!("SELECT {number} FROM book.{name} WHERE {condition}");
        let rows: Vec<i64> =
            sqlx::query_scalar(AssertSqlSafe(sql)).bind(jobs).fetch_all(&mut *connection).await?;
        found.extend(rows);
    }
    found.sort_unstable();
    let columns = columns(connection, name).await?;
    // What is ignored because its number is there already is compared like the rest.
    let sql = format!(
        "INSERT OR IGNORE INTO main.{name} ({columns}) SELECT {columns} FROM book.{name}
         WHERE {number} IN (SELECT value FROM json_each(?1))"
    );
    sqlx::query(AssertSqlSafe(sql)).bind(json(&found)).execute(connection).await?;
    Ok(found)
}

async fn copy_seals(connection: &mut SqliteConnection, jobs: &str) -> Result<(), sqlx::Error> {
    let sql = format!(
        "INSERT OR IGNORE INTO main.journal SELECT * FROM book.journal WHERE sealed_at_ms IN ({TIMES})
         ORDER BY commit_seq"
    );
    sqlx::query(AssertSqlSafe(sql)).bind(jobs).execute(connection).await?;
    Ok(())
}

/// Ties the jobs to the chain. Anchors of jobs that were never removed go: their rows do not count.
async fn anchor(
    connection: &mut SqliteConnection,
    archive: i64,
    jobs: &[i64],
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "DELETE FROM main.anchors WHERE first_job_seq NOT IN
             (SELECT job_seq FROM book.archived_jobs WHERE archive_seq = ?1)",
    )
    .bind(archive)
    .execute(&mut *connection)
    .await?;
    sqlx::query(
        "INSERT INTO main.anchors (first_job_seq, jobs, commit_seq, chain)
         SELECT ?1, ?2, commit_seq, chain FROM book.journal ORDER BY commit_seq DESC LIMIT 1",
    )
    .bind(jobs.first().copied().unwrap_or_default())
    .bind(i64::try_from(jobs.len()).unwrap_or(i64::MAX))
    .execute(connection)
    .await?;
    Ok(())
}

/// Whether book and archive have the same rows under these numbers.
async fn is_same(
    connection: &mut SqliteConnection,
    table: &Table,
    rows: &[i64],
) -> Result<bool, sqlx::Error> {
    let Table { name, number, .. } = table;
    let columns = columns(connection, name).await?;
    let of = |schema: &str| {
        format!(
            "SELECT {columns} FROM {schema}.{name}
             WHERE {number} IN (SELECT value FROM json_each(?1))"
        )
    };
    let (book, archive) = (of("book"), of("main"));
    let sql = format!(
        "SELECT (SELECT count(*) FROM ({archive})),
            (SELECT count(*) FROM ({book} EXCEPT {archive})),
            (SELECT count(*) FROM ({archive} EXCEPT {book}))"
    );
    let counted: (i64, i64, i64) =
        sqlx::query_as(AssertSqlSafe(sql)).bind(json(rows)).fetch_one(connection).await?;
    Ok(counted == (i64::try_from(rows.len()).unwrap_or(-1), 0, 0))
}
