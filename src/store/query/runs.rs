//! Past comparisons with OES.

use serde::Serialize;
use serde_json::value::RawValue;

use super::READING;
use crate::{
    domain::time::TimestampMs,
    store::{
        Readers, StoreError,
        error::{While as _, unreadable},
    },
};

/// A comparison that has ended.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunLine {
    /// Its number.
    pub seq: i64,
    /// When it began.
    pub started_at_ms: TimestampMs,
    /// When it ended.
    pub finished_at_ms: TimestampMs,
    /// Jobs that were taken in from then on were compared.
    pub since_ms: TimestampMs,
    /// To then.
    pub until_ms: TimestampMs,
    /// Who asked for it.
    pub source: String,
    /// How it ended: `clean`, `differences` or `failed`.
    pub result: String,
    /// Jobs that were compared.
    pub jobs: u64,
    /// Balances that were compared.
    pub balances: u64,
    /// Findings that are differences.
    pub differences: u64,
    /// All findings by kind.
    #[schema(value_type = Object)]
    pub counts: Box<RawValue>,
    /// Why it could not be done.
    pub error: Option<String>,
}

/// Something that a comparison found.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FindingLine {
    /// What it is about.
    pub kind: String,
    /// The record, where it is about one.
    pub record_id: Option<String>,
    /// The connection, where it is known.
    pub connection_id: Option<String>,
    /// The currency, where it is known.
    pub currency: Option<String>,
    /// What the book said.
    pub here: String,
    /// What OES said.
    pub oes: String,
    /// More of it.
    pub note: String,
}

impl Readers {
    /// Past comparisons before one, the latest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn runs(&self, before: Option<i64>, limit: u32) -> Result<Vec<RunLine>, StoreError> {
        let (before, limit) = (before.unwrap_or(i64::MAX), i64::from(limit));
        let rows = sqlx::query!(
            r#"SELECT run_seq AS "run_seq!", started_at_ms, finished_at_ms, since_ms, until_ms, source,
                result, jobs, balances, differences, counts, error
               FROM reconcile_runs WHERE run_seq < ?1 ORDER BY run_seq DESC LIMIT ?2"#,
            before,
            limit
        )
        .fetch_all(&self.pool)
        .await
        .while_doing(READING)?;
        rows.into_iter()
            .map(|row| {
                Ok(RunLine {
                    seq: row.run_seq,
                    started_at_ms: TimestampMs::from_millis(row.started_at_ms),
                    finished_at_ms: TimestampMs::from_millis(row.finished_at_ms),
                    since_ms: TimestampMs::from_millis(row.since_ms),
                    until_ms: TimestampMs::from_millis(row.until_ms),
                    source: row.source,
                    result: row.result,
                    jobs: super::count(row.jobs),
                    balances: super::count(row.balances),
                    differences: super::count(row.differences),
                    counts: RawValue::from_string(row.counts)
                        .map_err(|error| unreadable("reconcile_runs")(&error))?,
                    error: row.error,
                })
            })
            .collect()
    }

    /// What a comparison found, as far as it is kept.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn findings(&self, run: i64) -> Result<Vec<FindingLine>, StoreError> {
        sqlx::query_as!(
            FindingLine,
            "SELECT kind, record_id, connection_id, currency, here, oes, note
             FROM reconcile_findings WHERE run_seq = ?1 ORDER BY finding_no",
            run
        )
        .fetch_all(&self.pool)
        .await
        .while_doing(READING)
    }
}
