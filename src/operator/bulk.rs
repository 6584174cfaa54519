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
    /// Why, by state.
    pub why: BTreeMap<String, &'static str>,
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

/// Why an action is not for jobs in a state.
const fn why_not(action: JobAction, state: State) -> &'static str {
    match (action, state) {
        (_, State::Confirmed | State::Overruled | State::Refused) => {
            "over, and never touched again"
        }
        (JobAction::Retry, State::Parked(_)) => "approved or refused, and not sent on",
        (JobAction::Say(_), State::Parked(reason)) if !reason.is_undecided() => {
            "decided, and no decision is ever changed"
        }
        (JobAction::Say(_), State::Parked(_)) => "parked for another reason than approval",
        (JobAction::Retry | JobAction::Say(_), State::Conflict(_)) => {
            "frozen: two operators say how OES ended it"
        }
        (JobAction::Say(_), State::Received) => "not decided yet, and does not wait for approval",
        (
            JobAction::Say(_),
            State::Decided | State::Sending | State::Unknown(_) | State::AwaitingApproval,
        ) => "decided, and no decision is ever changed",
        (
            JobAction::Retry,
            State::Received
            | State::Decided
            | State::Sending
            | State::Unknown(_)
            | State::AwaitingApproval,
        ) => "not parked: it goes on by itself",
        (
            JobAction::Close(_),
            State::Received
            | State::Decided
            | State::Sending
            | State::Unknown(_)
            | State::AwaitingApproval
            | State::Parked(_)
            | State::Conflict(_),
        ) => "not in conflict: OES is read and says how it ends",
    }
}

impl Preview {
    /// The state that an action is for, by name.
    #[must_use]
    pub const fn state_for(action: JobAction) -> &'static str {
        state_for(action)
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
    let mut why = BTreeMap::new();
    for (state, jobs) in count_over(readers, &mut filter).await? {
        why.insert(state.to_string(), why_not(action, state));
        left_alone.insert(state.to_string(), jobs);
    }
    let (mut records, mut wanted) = (Vec::new(), PageWanted::first(Sort::Oldest, PAGE_MAX));
    while !filter.states.is_empty() {
        let page = readers.list_jobs(&filter, &wanted).await?;
        for job in page.jobs {
            let bad = unreadable("jobs");
            let state = State::from_row(&job.state, job.state_reason.as_deref());
            let state = state.map_err(|error| bad(&error))?;
            if !is_for(action, state) {
                let count: &mut usize = left_alone.entry(state.to_string()).or_default();
                *count = count.saturating_add(1);
                why.insert(state.to_string(), why_not(action, state));
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
    Ok(Preview {
        jobs: records.len(),
        sums: sums.into_values().collect(),
        left_alone,
        why,
        records,
    })
}

/// How many jobs match that are over, which may be a whole history: they are counted as far as a list
/// counts, and not looked at. The filter is left with the other states.
async fn count_over(
    readers: &Readers,
    filter: &mut JobFilter,
) -> Result<Vec<(State, usize)>, OperationError> {
    let mut over = Vec::new();
    for state in [State::Confirmed, State::Overruled, State::Refused] {
        if filter.states.remove(state.name()) {
            let states = BTreeSet::from([state.name().to_owned()]);
            let counted = readers.count_jobs(&JobFilter { states, ..filter.clone() }).await?;
            if counted.jobs > 0 {
                over.push((state, usize::try_from(counted.jobs).unwrap_or(usize::MAX)));
            }
        }
    }
    Ok(over)
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
