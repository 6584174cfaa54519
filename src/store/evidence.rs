//! The sealed rows that concern one record.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::SqliteConnection;
use uuid::Uuid;

use super::{
    Readers, StoreError,
    error::{While as _, unreadable},
    journal::{columns, lines},
};
use crate::domain::{
    evidence::SealEvidence,
    ids::{JobSeq, RecordId},
    journal::{Hash32, Kind, Leaves, SealedRows},
    time::TimestampMs,
};

const READING: &str = "collecting the evidence";

/// What the book holds about one record, sealed.
#[derive(Debug)]
pub struct SealedRecord {
    /// The book.
    pub ledger: Uuid,
    /// What the members of a row are, by kind.
    pub columns: BTreeMap<Kind, Vec<String>>,
    /// The accounts that its movements name.
    pub accounts: BTreeMap<i64, String>,
    /// The seals, in their order.
    pub seals: Vec<SealEvidence>,
}

struct SealRow {
    commit_seq: i64,
    sealed_at_ms: i64,
    form: i64,
    sealed_rows: String,
    digest: Vec<u8>,
    chain: Vec<u8>,
    previous: Option<Vec<u8>>,
}

impl Readers {
    /// The sealed rows that concern a record, with their seals; `None` if there is no such job.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn sealed_record(&self, id: RecordId) -> Result<Option<SealedRecord>, StoreError> {
        // One transaction, so that the parts belong together while the writer goes on.
        let mut transaction = self.pool.begin().await.while_doing(READING)?;
        let record = id.to_string();
        let row = sqlx::query!(
            r#"SELECT job_seq AS "job_seq!", ledger_uuid FROM ledger, jobs
               WHERE job_seq IN (SELECT job_seq FROM jobs WHERE record_id = ?1 AND state <> 'refused'
                                 UNION ALL
                                 SELECT job_seq FROM jobs WHERE record_id = ?1 AND state = 'refused')
               ORDER BY state = 'refused', job_seq DESC LIMIT 1"#,
            record
        )
        .fetch_optional(&mut *transaction)
        .await
        .while_doing(READING)?;
        let Some(row) = row else { return Ok(None) };
        self.is_whole(JobSeq::from(row.job_seq)).await?;
        let (mine, times) = rows_of(&mut transaction, JobSeq::from(row.job_seq)).await?;
        let times: Vec<i64> = times.into_iter().collect();
        let mut seals = Vec::new();
        for seal in seals_at(&mut transaction, &times).await? {
            seals.extend(evidence(&mut transaction, &seal, &mine).await?);
        }
        Ok(Some(SealedRecord {
            ledger: row.ledger_uuid.parse().map_err(|error| unreadable("ledger")(&error))?,
            columns: mine.kinds().map(|kind| (kind, columns(kind))).collect(),
            accounts: accounts(&mut transaction, row.job_seq).await?,
            seals,
        }))
    }
}

/// The rows that concern a job, and the times at which they were committed.
async fn rows_of(
    connection: &mut SqliteConnection,
    job: JobSeq,
) -> Result<(SealedRows, BTreeSet<i64>), StoreError> {
    let job = job.get();
    let found = sqlx::query!(
        r#"SELECT 'ledger' AS "kind!: String", 1 AS "number!: i64", created_at_ms AS "at!: i64" FROM ledger
           UNION ALL SELECT 'jobs', job_seq, received_at_ms FROM jobs WHERE job_seq = ?1
           UNION ALL SELECT 'endings', job_seq, state_since_ms FROM jobs
                     WHERE job_seq = ?1 AND (final_outcome IS NOT NULL OR state = 'refused')
           UNION ALL SELECT 'decisions', job_seq, decided_at_ms FROM decisions WHERE job_seq = ?1
           UNION ALL SELECT 'attempts', attempt_seq, prepared_at_ms FROM attempts WHERE job_seq = ?1
           UNION ALL SELECT 'attempt_ends', attempt_seq, finished_at_ms FROM attempts
                     WHERE job_seq = ?1 AND result IS NOT NULL
           UNION ALL SELECT 'signing_keys', key_id, first_used_ms FROM signing_keys
                     WHERE key_id IN (SELECT key_id FROM attempts WHERE job_seq = ?1)
           UNION ALL SELECT 'transfers', transfer_seq, booked_at_ms FROM transfers
                     WHERE job_seq = ?1 AND phase = 'pending'
           UNION ALL SELECT 'transfers', transfer_seq, booked_at_ms FROM transfers
                     WHERE job_seq = ?1 AND phase IN ('posted', 'voided', 'overruled')
           UNION ALL SELECT 'job_events', event_seq, at_ms FROM job_events WHERE job_seq = ?1
           UNION ALL SELECT 'outbox', outbox_seq, created_at_ms FROM outbox WHERE job_seq = ?1"#,
        job
    )
    .fetch_all(connection)
    .await
    .while_doing(READING)?;
    let (mut rows, mut times) = (BTreeMap::<Kind, Vec<i64>>::new(), BTreeSet::new());
    for row in found {
        let kind = Kind::ALL.into_iter().find(|kind| kind.as_str() == row.kind);
        let kind = kind.ok_or_else(|| unreadable("journal")(&row.kind))?;
        rows.entry(kind).or_default().push(row.number);
        times.insert(row.at);
    }
    let mut mine = SealedRows::default();
    for (kind, numbers) in rows {
        mine.add(kind, numbers);
    }
    Ok((mine, times))
}

async fn seals_at(
    connection: &mut SqliteConnection,
    times: &[i64],
) -> Result<Vec<SealRow>, StoreError> {
    let times = serde_json::to_string(times).map_err(|error| unreadable("journal")(&error))?;
    sqlx::query_as!(
        SealRow,
        "SELECT commit_seq, sealed_at_ms, form, sealed_rows, digest, chain,
            (SELECT before.chain FROM journal AS before
             WHERE before.commit_seq = journal.commit_seq - 1) AS previous
         FROM journal WHERE sealed_at_ms IN (SELECT value FROM json_each(?1))
         ORDER BY commit_seq",
        times
    )
    .fetch_all(connection)
    .await
    .while_doing(READING)
}

/// What a seal proves about the rows that concern the job, if it seals any of them.
async fn evidence(
    connection: &mut SqliteConnection,
    seal: &SealRow,
    mine: &SealedRows,
) -> Result<Option<SealEvidence>, StoreError> {
    let bad = unreadable("journal");
    let sealed: SealedRows =
        serde_json::from_str(&seal.sealed_rows).map_err(|error| bad(&error))?;
    if !sealed.kinds().any(|kind| sealed.numbers(kind).any(|number| mine.contains(kind, number))) {
        return Ok(None);
    }
    let (mut leaves, mut rows) =
        (Leaves::default(), BTreeMap::<Kind, BTreeMap<usize, String>>::new());
    for (kind, lines) in lines(connection, &sealed).await? {
        for (place, (line, number)) in lines.into_iter().zip(sealed.numbers(kind)).enumerate() {
            leaves.add(kind, &line);
            if mine.contains(kind, number) {
                rows.entry(kind).or_default().insert(place, line);
            }
        }
    }
    let hash = |bytes: &[u8]| Hash32::try_from(bytes).map_err(|error| bad(&error));
    Ok(Some(SealEvidence {
        commit: seal.commit_seq,
        sealed_at_ms: TimestampMs::from_millis(seal.sealed_at_ms),
        form: u32::try_from(seal.form).map_err(|error| bad(&error))?,
        sealed_rows: seal.sealed_rows.clone(),
        previous: seal.previous.as_deref().map_or(Ok(Hash32::ZERO), hash)?,
        digest: hash(&seal.digest)?,
        chain: hash(&seal.chain)?,
        leaves,
        rows,
    }))
}

async fn accounts(
    connection: &mut SqliteConnection,
    job: i64,
) -> Result<BTreeMap<i64, String>, StoreError> {
    let rows = sqlx::query!(
        r#"WITH moved AS (
               SELECT debit_account, credit_account FROM transfers
               WHERE job_seq = ?1 AND phase = 'pending'
               UNION ALL
               SELECT debit_account, credit_account FROM transfers
               WHERE job_seq = ?1 AND phase IN ('posted', 'voided', 'overruled'))
           SELECT account_seq AS "account_seq!", kind, currency FROM accounts
           WHERE account_seq IN (SELECT debit_account FROM moved UNION SELECT credit_account FROM moved)"#,
        job
    )
    .fetch_all(connection)
    .await
    .while_doing(READING)?;
    Ok(rows
        .into_iter()
        .map(|row| (row.account_seq, format!("{} {}", row.kind, row.currency)))
        .collect())
}
