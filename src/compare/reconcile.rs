//! Comparing each job with OES's record and each balance with OES's: what differs is told, counted and
//! written down.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use super::{CompareError, Desk, sweep::Swept};
use crate::{
    domain::{
        decimals::Scales,
        difference::{
            BalanceLine, BookFunds, ComparedJob, Finding, FindingKind, ShownJob, compare_balance,
            compare_job,
        },
        ids::{ConnectionId, CurrencyCode, RecordId},
        shown::{Listed, ShownBalances},
        time::TimestampMs,
    },
    store::runs::{FinishedRun, RunResult},
    tally::Tally,
};

/// Most jobs that are compared at once.
pub const JOBS_MAX: usize = 100_000;

/// Most records that one list request asks for: their ids make 3.7 KB of a URL.
const RECORDS_MAX: usize = 100;

/// Times that a job or a balance that differs is looked at: both sides may have moved in between.
const LOOKS_MAX: usize = 3;

/// What is asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReconcileRequest {
    /// Jobs that were taken in from then on.
    pub since_ms: TimestampMs,
    /// To then.
    pub until_ms: TimestampMs,
    /// Whether records without a job are taken in.
    pub adopt: bool,
    /// Who asks.
    pub source: String,
}

/// What was found.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReconcileReport {
    /// When it began.
    pub started_at_ms: TimestampMs,
    /// When it ended.
    pub finished_at_ms: TimestampMs,
    /// Jobs that were taken in from then on, and every open job.
    pub since_ms: TimestampMs,
    /// To then.
    pub until_ms: TimestampMs,
    /// Jobs that were compared.
    pub jobs: usize,
    /// Records that OES holds as reserved.
    pub reserved: usize,
    /// What each connection has, on both sides.
    pub balances: Vec<BalanceLine>,
    /// How many of the findings are differences.
    pub differences: usize,
    /// How much the records without a job move, by currency.
    pub at_risk: BTreeMap<String, String>,
    /// What was found.
    pub findings: Vec<Finding>,
}

type BalanceKey = (ConnectionId, CurrencyCode);

impl Desk {
    /// Compares jobs, balances and reserved records with OES, and writes down what was found, or that
    /// it could not be done. Jobs are counted as they are compared.
    ///
    /// # Errors
    /// [`CompareError`] when it could not be done.
    pub async fn reconcile(
        &self,
        request: &ReconcileRequest,
        tally: &Tally,
    ) -> Result<ReconcileReport, CompareError> {
        let _alone = self.at_work.lock().await;
        let started_at = self.clock.now();
        let compared = self.compare(request, started_at, tally).await;
        let run = FinishedRun {
            started_at,
            finished_at: self.clock.now().max(started_at),
            since: request.since_ms,
            until: request.until_ms,
            source: request.source.clone(),
            jobs: compared.as_ref().map_or(0, |report| report.jobs),
            balances: compared.as_ref().map_or(0, |report| report.balances.len()),
            findings: match &compared {
                Ok(report) => Ok(report.findings.clone()),
                Err(error) => Err(error.to_string()),
            },
        };
        let result = run.result();
        self.metrics.reconciled(result);
        match result {
            RunResult::Clean => tracing::info!(jobs = run.jobs, "the book and OES agree"),
            RunResult::Differences => tracing::error!(
                jobs = run.jobs,
                differences = compared.as_ref().map_or(0, |report| report.differences),
                "the book and OES differ: settled reconcile shows in what"
            ),
            RunResult::Failed => {}
        }
        self.writer.note_run(run).await?.map_err(CompareError::Refused)?;
        compared
    }

    async fn compare(
        &self,
        request: &ReconcileRequest,
        started_at: TimestampMs,
        tally: &Tally,
    ) -> Result<ReconcileReport, CompareError> {
        let range = (request.since_ms, request.until_ms);
        let jobs = self
            .readers
            .jobs_to_compare(range, JOBS_MAX)
            .await?
            .ok_or(CompareError::TooManyJobs(JOBS_MAX))?;
        let mut findings = self.compare_jobs(&jobs, tally).await?;
        let Swept { reserved, at_risk, findings: swept, .. } =
            self.sweep_now(request.adopt).await?;
        findings.extend(swept);
        let (balances, unreadable) = self.compare_balances().await?;
        if self.compare_balances {
            findings.extend(unreadable);
            findings.extend(balances.iter().filter_map(BalanceLine::finding));
        }
        findings.sort_by_key(|finding| finding.kind);
        Ok(ReconcileReport {
            started_at_ms: started_at,
            finished_at_ms: self.clock.now(),
            since_ms: request.since_ms,
            until_ms: request.until_ms,
            jobs: jobs.len(),
            reserved,
            balances,
            differences: findings.iter().filter(|finding| finding.kind.is_difference()).count(),
            at_risk,
            findings,
        })
    }

    async fn compare_jobs(
        &self,
        jobs: &[ComparedJob],
        tally: &Tally,
    ) -> Result<Vec<Finding>, CompareError> {
        tally.expect(u64::try_from(jobs.len()).unwrap_or(0));
        let mut findings = Vec::new();
        let scales = self.scales().await?;
        for chunk in jobs.chunks(RECORDS_MAX) {
            let ids: Vec<RecordId> = chunk.iter().map(|job| job.record_id).collect();
            let listed = self.asker.records(&ids).await?.into_iter();
            let mut shown: HashMap<RecordId, ShownJob> = listed
                .map(|Listed { id, item }| {
                    let shown = match item {
                        Ok(record) => ShownJob::Found(Box::new(record)),
                        Err(reason) => ShownJob::Unreadable(reason),
                    };
                    (RecordId::from(id), shown)
                })
                .collect();
            for job in chunk {
                let first = match shown.remove(&job.record_id) {
                    Some(shown) => shown,
                    // A list may leave out what exists, so an absence is asked for by name.
                    None => self.asker.record(job.record_id).await?,
                };
                let mut found = compare_job(job, &first, &scales);
                let mut looks = 1;
                while looks < LOOKS_MAX && found.iter().any(|it| it.kind.is_difference()) {
                    found = self.look_again(job.record_id, &scales).await?;
                    looks = looks.saturating_add(1);
                }
                findings.extend(found);
                tally.add(1);
            }
        }
        Ok(findings)
    }

    /// The job first: what has moved when the record is read is then behind OES, as it may be.
    async fn look_again(
        &self,
        record: RecordId,
        scales: &Scales,
    ) -> Result<Vec<Finding>, CompareError> {
        let jobs = self.readers.jobs_about(&[record]).await?;
        let shown = self.asker.record(record).await?;
        Ok(jobs.values().flat_map(|job| compare_job(job, &shown, scales)).collect())
    }

    /// What every connection has on both sides, and what OES shows that cannot be read.
    async fn compare_balances(&self) -> Result<(Vec<BalanceLine>, Vec<Finding>), CompareError> {
        let scales = self.scales().await?;
        let mut looks = 1;
        loop {
            let before = self.book_funds().await?;
            let shown = self.asker.balances().await?;
            let after = self.book_funds().await?;
            let (lines, unreadable) = compare_funds(&before, &shown, &after, &scales);
            let has_moved = |line: &BalanceLine| {
                let key = (line.connection_id, line.currency.clone());
                before.get(&key) != after.get(&key)
            };
            let is_in_doubt =
                lines.iter().any(|line| !line.unexplained.is_zero() && has_moved(line));
            if looks >= LOOKS_MAX || !is_in_doubt {
                return Ok((lines, unreadable));
            }
            looks = looks.saturating_add(1);
        }
    }

    async fn book_funds(&self) -> Result<BTreeMap<BalanceKey, BookFunds>, CompareError> {
        let holdings = self.readers.holdings().await?.into_iter();
        Ok(holdings
            .map(|holding| {
                let funds = BookFunds {
                    available: holding.available,
                    held: holding.held,
                    incoming: holding.incoming,
                };
                ((holding.connection_id, holding.currency), funds)
            })
            .collect())
    }
}

fn compare_funds(
    before: &BTreeMap<BalanceKey, BookFunds>,
    shown: &[Listed<ShownBalances>],
    after: &BTreeMap<BalanceKey, BookFunds>,
    scales: &Scales,
) -> (Vec<BalanceLine>, Vec<Finding>) {
    let mut unreadable = Vec::new();
    let mut at_oes = BTreeMap::new();
    let mut skipped: BTreeSet<ConnectionId> = BTreeSet::new();
    let mut tell =
        |connection_id: ConnectionId, currency: Option<&str>, oes: String, note: String| {
            unreadable.push(Finding {
                kind: FindingKind::Unreadable,
                record_id: None,
                connection_id: Some(connection_id),
                currency: currency.map(str::to_owned),
                here: String::new(),
                oes,
                note,
            });
        };
    let mut unread: BTreeSet<BalanceKey> = BTreeSet::new();
    for Listed { id, item } in shown {
        let connection_id = ConnectionId::from(*id);
        let balances = match item {
            Ok(ShownBalances { balances }) => balances,
            Err(reason) => {
                skipped.insert(connection_id);
                tell(connection_id, None, String::new(), reason.clone());
                continue;
            }
        };
        for (name, funds) in balances {
            let oes = format!("{} + {} held", funds.available, funds.held);
            let Ok(currency) = name.parse::<CurrencyCode>() else {
                tell(connection_id, Some(name), oes, "not a currency's name".to_owned());
                continue;
            };
            match funds.read(&currency, scales.of(&currency)) {
                Ok(funds) => {
                    at_oes.insert((connection_id, currency), funds);
                }
                Err(error) => {
                    tell(connection_id, Some(name), oes, error.to_string());
                    unread.insert((connection_id, currency));
                }
            }
        }
    }
    let keys: BTreeSet<&BalanceKey> =
        before.keys().chain(after.keys()).chain(at_oes.keys()).collect();
    let mut lines = Vec::new();
    for key in keys {
        if skipped.contains(&key.0) || unread.contains(key) {
            continue;
        }
        let of =
            |book: &BTreeMap<BalanceKey, BookFunds>| book.get(key).copied().unwrap_or_default();
        let funds = at_oes.get(key).copied().unwrap_or_default();
        match compare_balance(key.0, key.1.clone(), (of(before), of(after)), funds) {
            Ok(line) => lines.push(line),
            Err(error) => {
                tell(key.0, Some(key.1.as_str()), String::new(), error.to_string());
            }
        }
    }
    (lines, unreadable)
}
