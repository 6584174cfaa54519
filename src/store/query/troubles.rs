//! What went wrong last, for a first look.

use serde::Serialize;

use super::READING;
use crate::{
    domain::{ids::RecordId, time::TimestampMs},
    store::{Readers, StoreError, error::While as _, rows::parse},
};

/// How many attempts are looked at, the latest ones.
const ATTEMPTS_LOOKED_AT_MAX: i64 = 1_000;

/// An attempt that OES did not accept.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TroubleLine {
    /// When its answer, or the lack of one, was noted.
    pub at_ms: TimestampMs,
    /// The record that it was about.
    pub record_id: RecordId,
    /// Its number for that job.
    pub attempt: i64,
    /// What the answer meant.
    pub result: String,
    /// The answer's status, if there was an answer.
    pub http_status: Option<i64>,
    /// What happened, or the start of the answer.
    pub detail: Option<String>,
}

impl Readers {
    /// The latest attempts that were not accepted, among the last thousand.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn last_troubles(&self, limit: u32) -> Result<Vec<TroubleLine>, StoreError> {
        let rows = sqlx::query!(
            r#"SELECT record_id AS "record_id!", attempt_no AS "attempt_no!", result AS "result!",
                http_status, coalesce(detail, response) AS "detail: String",
                finished_at_ms AS "finished_at_ms!"
               FROM (SELECT * FROM attempts ORDER BY attempt_seq DESC LIMIT ?1) AS latest
               CROSS JOIN jobs ON jobs.job_seq = latest.job_seq
               WHERE result NOT IN ('accepted', 'approval_pending')
               ORDER BY attempt_seq DESC LIMIT ?2"#,
            ATTEMPTS_LOOKED_AT_MAX,
            limit
        )
        .fetch_all(&self.pool)
        .await
        .while_doing(READING)?;
        rows.into_iter()
            .map(|row| {
                Ok(TroubleLine {
                    at_ms: TimestampMs::from_millis(row.finished_at_ms),
                    record_id: parse("jobs", &row.record_id)?,
                    attempt: row.attempt_no,
                    result: row.result,
                    http_status: row.http_status,
                    detail: row.detail,
                })
            })
            .collect()
    }
}
