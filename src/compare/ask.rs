//! Asking OES for what comparisons need: paced, behind the gate, tried again where that may help.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use uuid::Uuid;

use super::CompareError;
use crate::{
    config::OesConfig,
    domain::{
        difference::ShownJob,
        gate::{Permission, StopCause},
        ids::{ConnectionId, CurrencyCode, RecordId},
        paging::{Page, Paging},
        schedule::Schedule,
        shown::{Listed, ShownBalances, ShownConnection, ShownRecord},
    },
    metrics::Metrics,
    oes::{OesClient, ReadError},
    pipeline::{budget::Budget, read::Purpose},
};

/// Times that a read is tried.
const TRIES_MAX: u32 = 4;
/// First delay before a read is tried again.
const RETRY_BASE: Duration = Duration::from_millis(500);
/// Longest delay before a read is tried again.
const RETRY_MAX: Duration = Duration::from_secs(5);

/// Comparisons take at most one in so many of the requests that OES allows, so that a long list does
/// not hold up what clients wait for.
const SHARE: u32 = 4;

/// The status that is told when the gate is closed for the token already.
const REFUSED: u16 = 401;

/// Asks OES.
#[derive(Debug)]
pub struct Asker {
    oes: Arc<OesClient>,
    budget: Arc<Budget>,
    pause: Duration,
    metrics: Option<Arc<Metrics>>,
}

impl Asker {
    /// Asks within `budget`, which others share: not more often than every so often.
    #[must_use]
    pub fn sharing(oes: Arc<OesClient>, budget: Arc<Budget>, config: &OesConfig) -> Self {
        let window = Duration::from_secs(config.rate_window_s);
        let pause = window.saturating_mul(SHARE).div_f64(f64::from(config.rate_limit.max(1)));
        Self { oes, budget, pause, metrics: None }
    }

    /// Asks within a budget that nobody else uses.
    #[must_use]
    pub fn alone(oes: Arc<OesClient>, budget: Arc<Budget>) -> Self {
        Self { oes, budget, pause: Duration::ZERO, metrics: None }
    }

    /// The same, counted.
    #[must_use]
    pub fn counted_by(self, metrics: Arc<Metrics>) -> Self {
        Self { metrics: Some(metrics), ..self }
    }

    async fn ask<T, F>(&self, request: impl Fn() -> F) -> Result<T, ReadError>
    where
        F: Future<Output = Result<T, ReadError>>,
    {
        let schedule = Schedule::new(RETRY_BASE, RETRY_MAX);
        let mut tries: u32 = 0;
        loop {
            // Whoever reads records back finds out when the token is taken again.
            if matches!(self.budget.permission(), Permission::Stopped(StopCause::TokenRefused, _)) {
                return Err(ReadError::TokenRefused(REFUSED));
            }
            self.budget.wait_for_read().await;
            if let Some(metrics) = &self.metrics {
                metrics.read(Purpose::Compare);
            }
            let answer = request().await;
            tries = tries.saturating_add(1);
            match &answer {
                Ok(_) => {
                    self.budget.read_answered();
                    tokio::time::sleep(self.pause).await;
                    return answer;
                }
                Err(ReadError::TokenRefused(_)) => {
                    self.budget.token_refused();
                    return answer;
                }
                Err(ReadError::RateLimited { retry_at }) => self.budget.rate_limited(*retry_at),
                Err(ReadError::Failed(_)) => tokio::time::sleep(schedule.delay(tries)).await,
            }
            if tries >= TRIES_MAX {
                return answer;
            }
        }
    }

    /// A list to its end.
    async fn all<T, F>(
        &self,
        what: &'static str,
        request: impl Fn(Page) -> F,
    ) -> Result<Vec<Listed<T>>, CompareError>
    where
        F: Future<Output = Result<Vec<Listed<T>>, ReadError>>,
    {
        let mut paging = Paging::default();
        let mut all = Vec::new();
        loop {
            let page = paging.page();
            let items = self.ask(|| request(page)).await?;
            let ids: Vec<Uuid> = items.iter().map(|item| item.id).collect();
            match paging.took(&ids).map_err(|source| CompareError::Paging { what, source })? {
                None => return Ok(all),
                Some(fresh) => {
                    let new = items.into_iter().zip(fresh).filter(|(_, is_fresh)| *is_fresh);
                    all.extend(new.map(|(item, _)| item));
                }
            }
        }
    }

    pub(super) async fn connections(&self) -> Result<Vec<Listed<ShownConnection>>, CompareError> {
        self.all("connections", |page| self.oes.list_connections(page)).await
    }

    pub(super) async fn connection(
        &self,
        id: ConnectionId,
    ) -> Result<Option<Listed<ShownConnection>>, ReadError> {
        self.ask(|| self.oes.show_connection(id)).await
    }

    pub(super) async fn currencies(
        &self,
        partners: &BTreeSet<Uuid>,
    ) -> Result<BTreeSet<CurrencyCode>, ReadError> {
        self.ask(|| self.oes.supported_currencies(partners)).await
    }

    pub(super) async fn reserved(&self) -> Result<Vec<Listed<ShownRecord>>, CompareError> {
        self.all("reserved records", |page| self.oes.list_reserved(page)).await
    }

    pub(super) async fn balances(&self) -> Result<Vec<Listed<ShownBalances>>, CompareError> {
        self.all("balances", |page| self.oes.list_balances(page)).await
    }

    pub(super) async fn records(
        &self,
        ids: &[RecordId],
    ) -> Result<Vec<Listed<ShownRecord>>, ReadError> {
        self.ask(|| self.oes.list_records(ids)).await
    }

    pub(super) async fn record(&self, id: RecordId) -> Result<ShownJob, ReadError> {
        self.ask(|| self.oes.show_record(id)).await
    }
}
