//! What is open, by currency: the amounts that are at risk until OES has confirmed.

use std::collections::BTreeMap;

use futures_util::TryStreamExt as _;
use serde::Serialize;

use super::READING;
use crate::{
    domain::{
        amount::{Quantity, Total},
        ids::CurrencyCode,
        job::JobType,
        state::State,
    },
    store::{
        Readers, StoreError,
        error::{While as _, unreadable},
        rows::parse,
    },
};

/// What open jobs move in one currency, of one type and in one state.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RiskLine {
    /// In what.
    pub currency: CurrencyCode,
    /// Which way.
    #[serde(rename = "type")]
    pub job_type: JobType,
    /// The state's name.
    pub state: String,
    /// How many jobs.
    pub jobs: u64,
    /// How much together, base units.
    pub quantity: Total,
}

impl Readers {
    /// What open jobs move, by currency, type and state. Looks at every open job, and at no other.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn at_risk(&self) -> Result<Vec<RiskLine>, StoreError> {
        let rank = |state: &str| State::NAMES.iter().position(|name| *name == state);
        let mut sums: BTreeMap<(CurrencyCode, JobType, Option<usize>), RiskLine> = BTreeMap::new();
        let mut rows = sqlx::query!(
            "SELECT currency, type AS job_type, state, quantity FROM jobs INDEXED BY jobs_open_by_state
             WHERE final_outcome IS NULL"
        )
        .fetch(&self.pool);
        while let Some(row) = rows.try_next().await.while_doing(READING)? {
            let currency: CurrencyCode = parse("jobs", &row.currency)?;
            let job_type: JobType = parse("jobs", &row.job_type)?;
            let quantity: Quantity = parse("jobs", &row.quantity)?;
            let key = (currency.clone(), job_type, rank(&row.state));
            let line = sums.entry(key).or_insert_with(|| RiskLine {
                currency,
                job_type,
                state: row.state,
                jobs: 0,
                quantity: Total::default(),
            });
            line.jobs = line.jobs.saturating_add(1);
            line.quantity =
                line.quantity.plus(quantity).map_err(|error| unreadable("jobs")(&error))?;
        }
        Ok(sums.into_values().collect())
    }
}
