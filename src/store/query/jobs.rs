//! Listing jobs.

use serde::Serialize;

use super::{READING, optional_outcome};
use crate::{
    domain::{
        amount::Amount,
        decision::Outcome,
        ids::{ConnectionId, JobSeq, RecordId},
        job::JobType,
        time::TimestampMs,
    },
    store::{
        Readers, StoreError,
        error::{While as _, unreadable},
        rows::parse,
    },
};

/// Which jobs to list, newest first.
#[derive(Clone, Debug)]
pub struct JobFilter {
    /// Only jobs in this state, by name.
    pub state: Option<String>,
    /// Only allocations or only deallocations.
    pub job_type: Option<JobType>,
    /// Only jobs that were taken in at this time or before.
    pub received_until: Option<TimestampMs>,
    /// At most this many.
    pub limit: u32,
}

/// One line of a list of jobs.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct JobLine {
    /// Its number.
    pub seq: JobSeq,
    /// The record at OES.
    pub record_id: RecordId,
    /// Allocation or deallocation.
    #[serde(rename = "type")]
    pub job_type: JobType,
    /// How much of what.
    pub amount: Amount,
    /// The connection.
    pub connection_id: ConnectionId,
    /// How far it has come.
    pub state: String,
    /// Why, where the state has a reason.
    pub state_reason: Option<String>,
    /// What was decided.
    pub outcome: Option<Outcome>,
    /// Why it was released, if it was: the policy's word for it.
    pub reject_code: Option<String>,
    /// How OES ended it.
    pub final_outcome: Option<Outcome>,
    /// Attempts so far.
    pub attempts: i64,
    /// When it was taken in.
    pub received_at_ms: TimestampMs,
    /// When it came to its state.
    pub state_since_ms: TimestampMs,
    /// When its next step is due.
    pub next_step_at_ms: Option<TimestampMs>,
}

impl Readers {
    /// Jobs, newest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list_jobs(&self, filter: &JobFilter) -> Result<Vec<JobLine>, StoreError> {
        let state = filter.state.as_deref();
        let job_type = filter.job_type.map(JobType::as_str);
        let until = filter.received_until.map(TimestampMs::as_millis);
        let limit = i64::from(filter.limit);
        let rows = sqlx::query!(
            r#"SELECT job_seq AS "job_seq!", record_id, type AS job_type, currency, quantity,
                connection_id, state, state_reason, jobs.outcome AS outcome,
                decisions.reject_code AS "reject_code?", final_outcome, attempts_made,
                received_at_ms, state_since_ms, next_step_at_ms
               FROM jobs LEFT JOIN decisions USING (job_seq)
               WHERE (?1 IS NULL OR state = ?1) AND (?2 IS NULL OR type = ?2)
                 AND (?3 IS NULL OR received_at_ms <= ?3)
               ORDER BY job_seq DESC LIMIT ?4"#,
            state,
            job_type,
            until,
            limit
        )
        .fetch_all(&self.pool)
        .await
        .while_doing(READING)?;
        rows.into_iter()
            .map(|row| {
                Ok(JobLine {
                    seq: JobSeq::from(row.job_seq),
                    record_id: parse("jobs", &row.record_id)?,
                    job_type: parse("jobs", &row.job_type)?,
                    amount: Amount::positive(
                        parse("jobs", &row.currency)?,
                        parse("jobs", &row.quantity)?,
                    )
                    .map_err(|error| unreadable("jobs")(&error))?,
                    connection_id: parse("jobs", &row.connection_id)?,
                    state: row.state,
                    state_reason: row.state_reason,
                    outcome: optional_outcome(row.outcome.as_deref())?,
                    reject_code: row.reject_code,
                    final_outcome: optional_outcome(row.final_outcome.as_deref())?,
                    attempts: row.attempts_made,
                    received_at_ms: TimestampMs::from_millis(row.received_at_ms),
                    state_since_ms: TimestampMs::from_millis(row.state_since_ms),
                    next_step_at_ms: row.next_step_at_ms.map(TimestampMs::from_millis),
                })
            })
            .collect()
    }
}
