//! Comparisons of the book with OES: writing one down, and looking at the last.

use std::collections::BTreeMap;

use serde_json::json;
use sqlx::SqliteConnection;

use super::{
    Readers, StoreError,
    error::{While as _, unreadable},
    flush::{array, expect},
    work::Work,
};
use crate::domain::{
    difference::{Finding, FindingKind},
    time::TimestampMs,
};

/// Most findings of a run that are kept; all are counted.
pub const FINDINGS_KEPT_MAX: usize = 1_000;

const READING: &str = "reading the comparisons";

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RunResult {
    /// Nothing differs.
    Clean,
    /// Something differs.
    Differences,
    /// It could not be done.
    Failed,
}

impl RunResult {
    /// All results, for metrics.
    pub const ALL: [Self; 3] = [Self::Clean, Self::Differences, Self::Failed];

    /// The word that rows and metrics use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::Differences => "differences",
            Self::Failed => "failed",
        }
    }
}

/// A comparison that has ended.
#[derive(Clone, Debug)]
pub struct FinishedRun {
    /// When it began.
    pub started_at: TimestampMs,
    /// When it ended.
    pub finished_at: TimestampMs,
    /// Jobs that were taken in from then on.
    pub since: TimestampMs,
    /// To then.
    pub until: TimestampMs,
    /// Who asked.
    pub source: String,
    /// Jobs that were compared.
    pub jobs: usize,
    /// Balances that were compared.
    pub balances: usize,
    /// What was found, or why it could not be done.
    pub findings: Result<Vec<Finding>, String>,
}

impl FinishedRun {
    /// How it ended.
    #[must_use]
    pub fn result(&self) -> RunResult {
        match &self.findings {
            Err(_) => RunResult::Failed,
            Ok(_) if self.differences() > 0 => RunResult::Differences,
            Ok(_) => RunResult::Clean,
        }
    }

    fn differences(&self) -> usize {
        let findings = self.findings.as_deref().unwrap_or_default();
        findings.iter().filter(|finding| finding.kind.is_difference()).count()
    }
}

/// What is shown of past comparisons.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PastRuns {
    /// When the last one began, whatever became of it.
    pub last_started_at: Option<TimestampMs>,
    /// When the last one that could be done ended.
    pub compared_at: Option<TimestampMs>,
    /// What that one found, by kind.
    pub counts: BTreeMap<String, u64>,
}

impl PastRuns {
    /// How many differences the last comparison had.
    #[must_use]
    pub fn differences(&self) -> u64 {
        let kinds = FindingKind::ALL.into_iter().filter(|kind| kind.is_difference());
        kinds.map(|kind| self.count_of(kind)).fold(0, u64::saturating_add)
    }

    /// How many findings of a kind the last comparison had.
    #[must_use]
    pub fn count_of(&self, kind: FindingKind) -> u64 {
        self.counts.get(kind.as_str()).copied().unwrap_or(0)
    }
}

pub(super) async fn flush(
    connection: &mut SqliteConnection,
    work: &Work,
) -> Result<(), StoreError> {
    for run in &work.changes.runs {
        let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
        let findings = run.findings.as_deref().unwrap_or_default();
        for finding in findings {
            let count = counts.entry(finding.kind.as_str()).or_default();
            *count = count.saturating_add(1);
        }
        let counts = json!(counts).to_string();
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let (jobs, balances) = (number(run.jobs), number(run.balances));
        let (differences, result) = (number(run.differences()), run.result().as_str());
        let (started, finished) = (run.started_at.as_millis(), run.finished_at.as_millis());
        let (since, until) = (run.since.as_millis(), run.until.as_millis());
        let error = run.findings.as_ref().err();
        let inserted = sqlx::query!(
            "INSERT INTO reconcile_runs (run_seq, started_at_ms, finished_at_ms, since_ms, until_ms,
                 source, result, jobs, balances, differences, counts, error)
             SELECT coalesce(max(run_seq), 0) + 1, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11
             FROM reconcile_runs",
            started,
            finished,
            since,
            until,
            run.source,
            result,
            jobs,
            balances,
            differences,
            counts,
            error
        )
        .execute(&mut *connection)
        .await;
        expect(inserted, "a comparison", 1)?;
        let rows = findings.iter().take(FINDINGS_KEPT_MAX).map(|finding| json!(finding));
        let (expected, rows) = array(rows)?;
        let inserted = sqlx::query!(
            "INSERT INTO reconcile_findings (run_seq, finding_no, kind, record_id, connection_id,
                 currency, here, oes, note)
             SELECT (SELECT max(run_seq) FROM reconcile_runs), key + 1, value ->> 'kind',
                    value ->> 'recordId', value ->> 'connectionId', value ->> 'currency',
                    value ->> 'here', value ->> 'oes', value ->> 'note'
             FROM json_each(?1)",
            rows
        )
        .execute(&mut *connection)
        .await;
        expect(inserted, "what a comparison found", expected)?;
    }
    Ok(())
}

impl Readers {
    /// The last comparison, and what the last one that could be done has found.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn past_runs(&self) -> Result<PastRuns, StoreError> {
        let last = sqlx::query_scalar!(
            "SELECT started_at_ms FROM reconcile_runs ORDER BY run_seq DESC LIMIT 1"
        )
        .fetch_optional(&self.pool)
        .await
        .while_doing(READING)?;
        let compared = sqlx::query!(
            "SELECT finished_at_ms, counts FROM reconcile_runs WHERE result <> 'failed'
             ORDER BY run_seq DESC LIMIT 1"
        )
        .fetch_optional(&self.pool)
        .await
        .while_doing(READING)?;
        let last_started_at = last.map(TimestampMs::from_millis);
        let Some(row) = compared else {
            return Ok(PastRuns { last_started_at, ..PastRuns::default() });
        };
        let bad = unreadable("reconcile_runs");
        Ok(PastRuns {
            last_started_at,
            compared_at: Some(TimestampMs::from_millis(row.finished_at_ms)),
            counts: serde_json::from_str(&row.counts).map_err(|error| bad(&error))?,
        })
    }
}
