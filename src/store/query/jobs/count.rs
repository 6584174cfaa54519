//! How many jobs a list has, as far as it is worth counting.

use std::collections::BTreeSet;

use serde::Serialize;
use sqlx::QueryBuilder;

use super::{
    JobFilter, Sort, bounded,
    path::Stretch,
    push_conditions,
    way::{arrived, ways},
};
use crate::store::{
    Readers, StoreError,
    error::While as _,
    query::{READING, count},
};

/// Up to how many jobs are counted where the book does not keep the number.
pub const COUNTED_MAX: i64 = 10_000;

/// How many jobs a list has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct JobCount {
    /// How many, or how many at least.
    pub jobs: u64,
    /// Whether these are all.
    pub is_exact: bool,
}

impl Readers {
    /// Counts the jobs that a filter means, as far as a page would look, and up to [`COUNTED_MAX`]. By
    /// states and type the book has the numbers, however large.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn count_jobs(&self, filter: &JobFilter) -> Result<JobCount, StoreError> {
        if filter.is_counted() {
            let counts = self.job_counts().await?.into_iter().filter(|line| {
                filter.job_type.is_none_or(|wanted| wanted == line.job_type)
                    && (filter.states.is_empty() || filter.states.contains(&line.state))
            });
            let jobs = counts.map(|line| line.jobs).fold(0, u64::saturating_add);
            return Ok(JobCount { jobs, is_exact: true });
        }
        let order = Sort::Newest.order();
        let mut snapshot = self.pool.begin().await.while_doing(READING)?;
        let ways = ways(&mut snapshot, filter, order.by).await?;
        let arrived = arrived(&mut snapshot, filter).await?;
        let (mut jobs, mut is_exact) = (BTreeSet::new(), !ways.is_cut);
        for path in &ways.paths {
            let most = path.looked_at_max(ways.paths.len());
            let stretch = Stretch { order, after: None, up_to: None, arrived };
            let Some(stretch) = bounded(&mut snapshot, path, stretch, most).await? else {
                continue;
            };
            is_exact &= stretch.up_to.is_none();
            let mut sql = QueryBuilder::new("SELECT jobs.job_seq FROM ");
            path.push_from(&mut sql);
            stretch.push_where(&mut sql, path);
            push_conditions(&mut sql, filter);
            path.push_order_and_limit(&mut sql, order, COUNTED_MAX.saturating_add(1));
            let found = sql.build_query_scalar::<i64>().fetch_all(&mut *snapshot).await;
            jobs.extend(found.while_doing(READING)?);
        }
        snapshot.rollback().await.while_doing(READING)?;
        let counted = i64::try_from(jobs.len()).unwrap_or(i64::MAX);
        Ok(JobCount {
            jobs: count(counted.min(COUNTED_MAX)),
            is_exact: is_exact && counted <= COUNTED_MAX,
        })
    }
}
