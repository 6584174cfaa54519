//! Everything that the book knows about one job.

use serde::Serialize;
use serde_json::value::RawValue;

use super::READING;
use crate::{
    domain::{
        ids::{JobSeq, RecordId},
        job::Job,
        time::TimestampMs,
    },
    store::{
        Readers, StoreError,
        error::{While as _, unreadable},
        rows::JobRow,
    },
};

/// One job with all its rows.
#[derive(Debug)]
pub struct JobHistory {
    /// The job.
    pub job: Job,
    /// Its message as it came.
    pub raw_message: String,
    /// Its decision.
    pub decision: Option<DecisionLine>,
    /// Its attempts, in order.
    pub attempts: Vec<AttemptLine>,
    /// Its movements, in order.
    pub transfers: Vec<TransferLine>,
    /// What else happened, in order.
    pub notes: Vec<NoteLine>,
    /// Its announcement.
    pub announcement: Option<OutboxLine>,
}

/// A decision with what it saw.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DecisionLine {
    /// What was decided.
    pub outcome: String,
    /// The rule that released it.
    pub reject_code: Option<String>,
    /// The reason as signed.
    pub reject_reason: Option<String>,
    /// Who decided: the policy, or an operator.
    pub source: String,
    /// Which operator.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decided_by: Option<String>,
    /// What they said about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decided_because: Option<String>,
    /// What the decision saw of the book.
    pub seen: Box<RawValue>,
    /// When.
    pub decided_at_ms: TimestampMs,
}

/// An attempt and what is known of it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AttemptLine {
    /// Its number in the book.
    pub seq: i64,
    /// Its number for the job.
    pub number: i64,
    /// The exact request body.
    pub body: String,
    /// The signature in it.
    pub signature: String,
    /// The key that signed it.
    pub public_key: String,
    /// When it was committed, before it was sent.
    pub prepared_at_ms: TimestampMs,
    /// What the answer meant; `None` while nothing is known.
    pub result: Option<String>,
    /// The answer's status.
    pub http_status: Option<i64>,
    /// OES's own id of the request.
    pub request_id: Option<String>,
    /// The start of the answer's body.
    pub response: Option<String>,
    /// What happened, for a reader.
    pub detail: Option<String>,
    /// When the result was committed.
    pub finished_at_ms: Option<TimestampMs>,
}

/// A movement between two accounts.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TransferLine {
    /// Its number in the book.
    pub seq: i64,
    /// Its place in the life of the record.
    pub phase: String,
    /// Where the quantity left.
    pub debit: String,
    /// Where it arrived.
    pub credit: String,
    /// How much.
    pub quantity: String,
    /// When.
    pub booked_at_ms: TimestampMs,
}

/// Something else that happened to the job.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NoteLine {
    /// Its number in the book.
    pub seq: i64,
    /// What.
    pub kind: String,
    /// More of it.
    pub detail: Box<RawValue>,
    /// When.
    pub at_ms: TimestampMs,
}

/// The announcement of the outcome.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OutboxLine {
    /// The message id.
    pub event_id: String,
    /// Where to.
    pub routing_key: String,
    /// When it became true.
    pub created_at_ms: TimestampMs,
    /// When the broker confirmed it.
    pub published_at_ms: Option<TimestampMs>,
}

fn raw_json(table: &'static str, text: String) -> Result<Box<RawValue>, StoreError> {
    RawValue::from_string(text).map_err(|error| unreadable(table)(&error))
}

impl Readers {
    /// Everything about one job, if there is one about that record: the one that has its id, or else
    /// the last one that was refused.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn job_history(&self, record_id: RecordId) -> Result<Option<JobHistory>, StoreError> {
        Ok(self.job_histories(record_id, 1).await?.into_iter().next())
    }

    /// Everything about the jobs that named a record, at most `limit`: first the one that has its id,
    /// then those that were refused, the latest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn job_histories(
        &self,
        record_id: RecordId,
        limit: i64,
    ) -> Result<Vec<JobHistory>, StoreError> {
        // One transaction, so that the parts belong together while the writer goes on.
        let mut transaction = self.pool.begin().await.while_doing(READING)?;
        let record = record_id.to_string();
        let rows = sqlx::query_as!(
            JobRow,
            r#"SELECT job_seq AS "job_seq!", record_id, type AS job_type, currency, quantity,
                client_id, connection_id, partners_client_id, partners_connection_id,
                partners_record_id, content_sha256, received_at_ms, state, state_reason,
                state_since_ms, jobs.outcome, final_outcome, next_step_at_ms, attempts_made,
                attempts_counted, reads_made, absences, tried_since_ms, verified_at_ms, approval_before,
                book_sequence, gate_ms, waits_for_book AS "waits_for_book: bool", decided_at_ms AS "decided_at_ms?", reject_code, reject_reason
             FROM jobs LEFT JOIN decisions USING (job_seq)
             WHERE job_seq IN (SELECT job_seq FROM jobs WHERE record_id = ?1 AND state <> 'refused'
                               UNION ALL
                               SELECT job_seq FROM jobs WHERE record_id = ?1 AND state = 'refused')
             ORDER BY state = 'refused', job_seq DESC LIMIT ?2"#,
            record,
            limit
        )
        .fetch_all(&mut *transaction)
        .await
        .while_doing(READING)?;
        let mut histories = Vec::with_capacity(rows.len());
        for row in rows {
            let job = row.into_job()?;
            let seq = job.seq;
            self.is_whole(seq).await?;
            histories.push(JobHistory {
                job,
                raw_message: message(&mut transaction, seq).await?,
                decision: decision(&mut transaction, seq).await?,
                attempts: attempts(&mut transaction, seq).await?,
                transfers: transfers(&mut transaction, seq).await?,
                notes: notes(&mut transaction, seq).await?,
                announcement: announcement(&mut transaction, seq).await?,
            });
        }
        Ok(histories)
    }
}

async fn message(
    connection: &mut sqlx::SqliteConnection,
    job: JobSeq,
) -> Result<String, StoreError> {
    let job = job.get();
    let row = sqlx::query!("SELECT raw FROM messages WHERE job_seq = ?1", job)
        .fetch_one(connection)
        .await
        .while_doing(READING)?;
    Ok(row.raw)
}

async fn decision(
    connection: &mut sqlx::SqliteConnection,
    job: JobSeq,
) -> Result<Option<DecisionLine>, StoreError> {
    let job = job.get();
    let row = sqlx::query!(
        "SELECT outcome, reject_code, reject_reason, source, seen, decided_at_ms,
            decided_by, decided_because FROM decisions
         WHERE job_seq = ?1",
        job
    )
    .fetch_optional(connection)
    .await
    .while_doing(READING)?;
    row.map(|row| {
        Ok(DecisionLine {
            outcome: row.outcome,
            reject_code: row.reject_code,
            reject_reason: row.reject_reason,
            source: row.source,
            decided_by: row.decided_by,
            decided_because: row.decided_because,
            seen: raw_json("decisions", row.seen)?,
            decided_at_ms: TimestampMs::from_millis(row.decided_at_ms),
        })
    })
    .transpose()
}

async fn attempts(
    connection: &mut sqlx::SqliteConnection,
    job: JobSeq,
) -> Result<Vec<AttemptLine>, StoreError> {
    let job = job.get();
    let rows = sqlx::query!(
        r#"SELECT attempt_seq AS "attempt_seq!", attempt_no, body, signature, public_key,
            prepared_at_ms, result, http_status, request_id, response, detail, finished_at_ms
           FROM attempts JOIN signing_keys USING (key_id)
           WHERE job_seq = ?1 ORDER BY attempt_no"#,
        job
    )
    .fetch_all(connection)
    .await
    .while_doing(READING)?;
    Ok(rows
        .into_iter()
        .map(|row| AttemptLine {
            seq: row.attempt_seq,
            number: row.attempt_no,
            body: row.body,
            signature: row.signature,
            public_key: row.public_key,
            prepared_at_ms: TimestampMs::from_millis(row.prepared_at_ms),
            result: row.result,
            http_status: row.http_status,
            request_id: row.request_id,
            response: row.response,
            detail: row.detail,
            finished_at_ms: row.finished_at_ms.map(TimestampMs::from_millis),
        })
        .collect())
}

async fn transfers(
    connection: &mut sqlx::SqliteConnection,
    job: JobSeq,
) -> Result<Vec<TransferLine>, StoreError> {
    let job = job.get();
    let rows = sqlx::query!(
        r#"SELECT transfer_seq AS "transfer_seq!", phase, debit.kind AS debit,
            credit.kind AS credit, quantity, booked_at_ms
           FROM (SELECT * FROM transfers WHERE job_seq = ?1 AND phase = 'pending'
                 UNION ALL
                 SELECT * FROM transfers
                 WHERE job_seq = ?1 AND phase IN ('posted', 'voided', 'overruled'))
           JOIN accounts AS debit ON debit.account_seq = debit_account
           JOIN accounts AS credit ON credit.account_seq = credit_account
           ORDER BY transfer_seq"#,
        job
    )
    .fetch_all(connection)
    .await
    .while_doing(READING)?;
    Ok(rows
        .into_iter()
        .map(|row| TransferLine {
            seq: row.transfer_seq,
            phase: row.phase,
            debit: row.debit,
            credit: row.credit,
            quantity: row.quantity,
            booked_at_ms: TimestampMs::from_millis(row.booked_at_ms),
        })
        .collect())
}

async fn notes(
    connection: &mut sqlx::SqliteConnection,
    job: JobSeq,
) -> Result<Vec<NoteLine>, StoreError> {
    let job = job.get();
    let rows = sqlx::query!(
        r#"SELECT event_seq AS "event_seq!", kind, detail, at_ms FROM job_events
           WHERE job_seq = ?1 ORDER BY event_seq"#,
        job
    )
    .fetch_all(connection)
    .await
    .while_doing(READING)?;
    rows.into_iter()
        .map(|row| {
            Ok(NoteLine {
                seq: row.event_seq,
                kind: row.kind,
                detail: raw_json("job_events", row.detail)?,
                at_ms: TimestampMs::from_millis(row.at_ms),
            })
        })
        .collect()
}

async fn announcement(
    connection: &mut sqlx::SqliteConnection,
    job: JobSeq,
) -> Result<Option<OutboxLine>, StoreError> {
    let job = job.get();
    let row = sqlx::query!(
        "SELECT event_id, routing_key, created_at_ms, published_at_ms FROM outbox
         WHERE job_seq = ?1",
        job
    )
    .fetch_optional(connection)
    .await
    .while_doing(READING)?;
    Ok(row.map(|row| OutboxLine {
        event_id: row.event_id,
        routing_key: row.routing_key,
        created_at_ms: TimestampMs::from_millis(row.created_at_ms),
        published_at_ms: row.published_at_ms.map(TimestampMs::from_millis),
    }))
}
