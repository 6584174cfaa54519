//! What a comparison with OES looks at.

use std::collections::BTreeMap;

use super::READING;
use crate::{
    domain::{
        amount::Amount,
        book::Connection,
        difference::ComparedJob,
        ids::RecordId,
        job::JobType,
        state::State,
        sync::{BookConnection, SYNC_SOURCE},
        time::TimestampMs,
    },
    store::{
        Readers, StoreError,
        error::{While as _, unreadable},
        query::optional_outcome,
        rows::parse,
    },
};

/// Jobs that are read at a time, so that no read is long.
const JOBS_READ_MAX: i64 = 1_000;

/// Messages in quarantine, the latest ones, that are looked through for a record's id. They are few
/// unless something is very wrong, and each may be large.
const QUARANTINE_SEARCHED_MAX: i64 = 1_000;

/// A message in quarantine that names a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuarantinedMessage {
    /// Its number.
    pub seq: i64,
    /// The kind of fault.
    pub code: String,
}

struct ComparedRow {
    job_seq: i64,
    record_id: String,
    job_type: String,
    currency: String,
    quantity: String,
    connection_id: String,
    state: String,
    state_reason: Option<String>,
    outcome: Option<String>,
    final_outcome: Option<String>,
}

impl ComparedRow {
    fn read(self) -> Result<ComparedJob, StoreError> {
        let bad = unreadable("jobs");
        let job_type: JobType = parse("jobs", &self.job_type)?;
        Ok(ComparedJob {
            record_id: parse("jobs", &self.record_id)?,
            job_type,
            amount: Amount::positive(
                parse("jobs", &self.currency)?,
                parse("jobs", &self.quantity)?,
            )
            .map_err(|error| bad(&error))?,
            connection_id: parse("jobs", &self.connection_id)?,
            state: State::from_row(&self.state, self.state_reason.as_deref())
                .map_err(|error| bad(&error))?,
            outcome: optional_outcome(self.outcome.as_deref())?,
            final_outcome: optional_outcome(self.final_outcome.as_deref())?,
        })
    }
}

fn names(records: &[RecordId]) -> String {
    serde_json::json!(records).to_string()
}

impl Readers {
    /// The jobs that were taken in between two times, and every open job, each once; nothing if there
    /// are more than `most`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn jobs_to_compare(
        &self,
        (since, until): (TimestampMs, TimestampMs),
        most: usize,
    ) -> Result<Option<Vec<ComparedJob>>, StoreError> {
        let (since_ms, until_ms) = (since.as_millis(), until.as_millis());
        let limit = i64::try_from(most).unwrap_or(i64::MAX).saturating_add(1);
        // The index has the open jobs only, and they are few.
        let open = sqlx::query_as!(
            ComparedRow,
            r#"SELECT job_seq AS "job_seq!", record_id, type AS job_type, currency, quantity,
                connection_id, state, state_reason, outcome, final_outcome
               FROM jobs INDEXED BY jobs_open
               WHERE final_outcome IS NULL AND state <> 'refused'
                 AND NOT (received_at_ms BETWEEN ?1 AND ?2) LIMIT ?3"#,
            since_ms,
            until_ms,
            limit
        )
        .fetch_all(&self.pool)
        .await
        .while_doing(READING)?;
        let mut jobs = open.into_iter().map(ComparedRow::read).collect::<Result<Vec<_>, _>>()?;
        // Newest first: a range mostly ends now.
        let mut before = i64::MAX;
        while jobs.len() <= most {
            let rows = sqlx::query_as!(
                ComparedRow,
                r#"SELECT job_seq AS "job_seq!", record_id, type AS job_type, currency, quantity,
                    connection_id, state, state_reason, outcome, final_outcome
                   FROM jobs WHERE job_seq < ?1 AND received_at_ms BETWEEN ?2 AND ?3
                     AND state <> 'refused'
                   ORDER BY job_seq DESC LIMIT ?4"#,
                before,
                since_ms,
                until_ms,
                JOBS_READ_MAX
            )
            .fetch_all(&self.pool)
            .await
            .while_doing(READING)?;
            let Some(last) = rows.last() else { return Ok(Some(jobs)) };
            before = last.job_seq;
            for row in rows {
                jobs.push(row.read()?);
            }
        }
        Ok(None)
    }

    /// The jobs about these records, those that there are.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn jobs_about(
        &self,
        records: &[RecordId],
    ) -> Result<BTreeMap<RecordId, ComparedJob>, StoreError> {
        let names = names(records);
        let rows = sqlx::query_as!(
            ComparedRow,
            r#"WITH wanted AS (SELECT CAST(value AS TEXT) AS id FROM json_each(?1))
               SELECT job_seq AS "job_seq!", record_id, type AS job_type, currency, quantity,
                connection_id, state, state_reason, outcome, final_outcome
               FROM jobs WHERE state <> 'refused' AND record_id IN (SELECT id FROM wanted)"#,
            names
        )
        .fetch_all(&self.pool)
        .await
        .while_doing(READING)?;
        rows.into_iter().map(|row| row.read().map(|job| (job.record_id, job))).collect()
    }

    /// Messages in quarantine that name one of these records; the latest, if several do.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn quarantined_about(
        &self,
        records: &[RecordId],
    ) -> Result<BTreeMap<RecordId, QuarantinedMessage>, StoreError> {
        let names = names(records);
        // A message that does not read as a job has no record's id in its row, so its text is looked at.
        let rows = sqlx::query!(
            r#"WITH wanted AS (SELECT CAST(value AS TEXT) AS id FROM json_each(?1)),
                latest AS (SELECT quarantine_seq, code, lower(CAST(bytes AS TEXT)) AS text
                    FROM quarantine ORDER BY quarantine_seq DESC LIMIT ?2)
               SELECT wanted.id AS "id!: String", quarantine_seq AS "seq!: i64", code AS "code!"
               FROM wanted JOIN latest ON instr(latest.text, wanted.id) > 0
               ORDER BY quarantine_seq"#,
            names,
            QUARANTINE_SEARCHED_MAX
        )
        .fetch_all(&self.pool)
        .await
        .while_doing(READING)?;
        rows.into_iter()
            .map(|row| {
                let message = QuarantinedMessage { seq: row.seq, code: row.code };
                Ok((parse("quarantine", &row.id)?, message))
            })
            .collect()
    }

    /// Every connection, with the exchange's last word about it: facts that a sync made are OES's.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn connections_to_compare(&self) -> Result<Vec<BookConnection>, StoreError> {
        let rows = sqlx::query!(
            r#"SELECT connection_id, client_id, partners_client_id, partners_connection_id,
                active AS "active: bool",
                (SELECT coalesce(body ->> 'active', 0)
                 FROM book_events INDEXED BY book_events_of_connection
                 WHERE kind IN ('connection.upserted', 'connection.suspended') AND body ->> 'connectionId' = connection_id
                   AND source <> ?1
                 ORDER BY event_seq DESC LIMIT 1) AS "word: bool"
               FROM connections ORDER BY connection_id"#,
            SYNC_SOURCE
        )
        .fetch_all(&self.pool)
        .await
        .while_doing(READING)?;
        rows.into_iter()
            .map(|row| {
                Ok(BookConnection {
                    connection: Connection {
                        connection_id: parse("connections", &row.connection_id)?,
                        client_id: parse("connections", &row.client_id)?,
                        partners_client_id: parse("connections", &row.partners_client_id)?,
                        partners_connection_id: parse("connections", &row.partners_connection_id)?,
                        active: row.active,
                    },
                    exchange_word: row.word,
                })
            })
            .collect()
    }
}
