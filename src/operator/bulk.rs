//! Many jobs at once: shown first, with what they move.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::operations::{BULK_MAX, OperationError};
use crate::{
    domain::{
        amount::Total,
        ids::{CurrencyCode, RecordId},
        state::{ConflictKind, ParkReason, State},
    },
    store::{
        Readers,
        error::unreadable,
        query::{JobFilter, JobLine, PAGE_MAX, PageWanted, Sort},
    },
    writer::JobAction,
};

/// What an action on all jobs that match a filter would be about.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Preview {
    /// How many jobs the action can be carried out on.
    pub jobs: usize,
    /// What they move, by currency.
    pub sums: Vec<CurrencySum>,
    /// How many jobs match and are left alone, by state: the action is not for them.
    pub left_alone: BTreeMap<String, usize>,
    /// The jobs, oldest first. Naming them carries the action out on these and no others.
    pub records: Vec<RecordId>,
}

/// What jobs move in one currency.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CurrencySum {
    /// In what.
    pub currency: CurrencyCode,
    /// How many jobs.
    pub jobs: usize,
    /// How much together, base units.
    pub quantity: Total,
}

/// Whether an action is for jobs in a state.
fn is_for(action: JobAction, state: State) -> bool {
    let waits = state == State::Parked(ParkReason::NeedsApproval);
    match action {
        JobAction::Retry => matches!(state, State::Parked(_)) && !waits,
        JobAction::Say(_) => waits,
        JobAction::Close(_) => matches!(state, State::Conflict(_)),
    }
}

/// The state that an action is for, by name.
const fn state_for(action: JobAction) -> &'static str {
    match action {
        JobAction::Retry | JobAction::Say(_) => State::Parked(ParkReason::NeedsApproval).name(),
        JobAction::Close(_) => State::Conflict(ConflictKind::OtherOutcome).name(),
    }
}

/// Shows what an action on all jobs that match would be about. Changes nothing.
///
/// # Errors
/// [`OperationError::TooMany`] when there are more than one request may be about.
pub async fn preview(
    readers: &Readers,
    action: JobAction,
    filter: &JobFilter,
) -> Result<Preview, OperationError> {
    let mut filter = filter.clone();
    if filter.states.is_empty() {
        filter.states = BTreeSet::from([state_for(action).to_owned()]);
    }
    let (mut sums, mut left_alone) =
        (BTreeMap::<CurrencyCode, CurrencySum>::new(), BTreeMap::new());
    let (mut records, mut wanted) = (Vec::new(), PageWanted::first(Sort::Oldest, PAGE_MAX));
    loop {
        let page = readers.list_jobs(&filter, &wanted).await?;
        for job in page.jobs {
            let bad = unreadable("jobs");
            let state = State::from_row(&job.state, job.state_reason.as_deref());
            let state = state.map_err(|error| bad(&error))?;
            if !is_for(action, state) {
                let count: &mut usize = left_alone.entry(state.to_string()).or_default();
                *count = count.saturating_add(1);
                continue;
            }
            add(&mut sums, &job)?;
            records.push(job.record_id);
        }
        if records.len() > BULK_MAX {
            return Err(OperationError::TooMany(records.len()));
        }
        let Some(next) = page.next else { break };
        wanted = PageWanted::after(next, PAGE_MAX);
    }
    Ok(Preview { jobs: records.len(), sums: sums.into_values().collect(), left_alone, records })
}

fn add(
    sums: &mut BTreeMap<CurrencyCode, CurrencySum>,
    job: &JobLine,
) -> Result<(), OperationError> {
    let currency = job.amount.currency();
    let sum = sums.entry(currency.clone()).or_insert_with(|| CurrencySum {
        currency: currency.clone(),
        jobs: 0,
        quantity: Total::default(),
    });
    sum.jobs = sum.jobs.saturating_add(1);
    let quantity = sum.quantity.plus(job.amount.quantity());
    sum.quantity = quantity.map_err(|error| unreadable("jobs")(&error))?;
    Ok(())
}
