//! Many jobs at once: first shown, then done to those that were shown and no others, so many in one step.

use std::collections::BTreeMap;

use askama::Template;
use axum::{extract::State, response::Response};
use serde::Deserialize;
use uuid::Uuid;

use super::{
    Page,
    failure::{Failure, html},
    guard::{Filled, Visitor},
    job_actions::{action_of, told},
    jobs::question,
    layout::Layout,
    shown::Units,
};
use crate::{
    domain::{decision::Outcome, ids::RecordId, policy::OperatorWord},
    operator::bulk::preview as look,
    writer::JobAction,
};

/// Most jobs in one step, so that each step is answered soon.
const STEP_MAX: usize = 1_000;
/// Most jobs in one step of an action that reads each record at OES first.
const CLOSING_STEP_MAX: usize = 25;
/// Jobs that are named for an example.
const EXAMPLES_MAX: usize = 10;

/// What was shown and is not done yet. A session keeps it between two requests.
pub(super) struct Shown {
    /// Which one: also what the journal has for all jobs of it.
    pub(super) id: Uuid,
    action: JobAction,
    /// The jobs that are left.
    records: Vec<RecordId>,
    /// What became of those that are not, and of how many.
    became: BTreeMap<String, usize>,
    query: String,
}

/// What would be done, and to which jobs.
#[derive(Deserialize)]
pub(super) struct Wanted {
    action: String,
    #[serde(default)]
    query: String,
}

/// What moves in one currency.
struct Moved {
    currency: String,
    jobs: usize,
    units: Units,
}

#[derive(Template)]
#[template(path = "bulk.html")]
struct BulkPage {
    layout: Layout,
    /// What is done, as on the button.
    doing: &'static str,
    id: Uuid,
    /// Jobs that are left.
    jobs: usize,
    /// How many of them go in the next step.
    step: usize,
    sums: Vec<Moved>,
    left_alone: BTreeMap<String, usize>,
    examples: Vec<RecordId>,
    became: BTreeMap<String, usize>,
    failed: Option<String>,
    reason: String,
    query: String,
}

const fn doing(action: JobAction) -> &'static str {
    match action {
        JobAction::Retry => "Send on",
        JobAction::Say(OperatorWord::Approved) => "Approve",
        JobAction::Say(OperatorWord::Refused) => "Refuse",
        JobAction::Close(Outcome::Cleared) => "Say that OES cleared",
        JobAction::Close(Outcome::Released) => "Say that OES released",
    }
}

const fn step_max(action: JobAction) -> usize {
    match action {
        JobAction::Retry | JobAction::Say(_) => STEP_MAX,
        JobAction::Close(_) => CLOSING_STEP_MAX,
    }
}

fn bulk_page(layout: Layout, shown: &Shown) -> BulkPage {
    let jobs = shown.records.len();
    BulkPage {
        layout,
        doing: doing(shown.action),
        id: shown.id,
        jobs,
        step: jobs.min(step_max(shown.action)),
        sums: Vec::new(),
        left_alone: BTreeMap::new(),
        examples: shown.records.iter().take(EXAMPLES_MAX).copied().collect(),
        became: shown.became.clone(),
        failed: None,
        reason: String::new(),
        query: shown.query.clone(),
    }
}

/// Shows what an action on all jobs that match would be about. Changes nothing.
pub(super) async fn preview(
    State(page): State<Page>,
    visitor: Visitor,
    filled: Filled<Wanted>,
) -> Result<Response, Failure> {
    let Wanted { action, query } = filled.form;
    let action = action_of(&action)?;
    let filter = question(&query)?.filter(page.api.clock.now())?;
    let found = look(&page.api.checks.readers, action, &filter).await?;
    let shown = Shown {
        id: Uuid::new_v4(),
        action,
        records: found.records,
        became: BTreeMap::new(),
        query,
    };
    let layout = Layout::new(&page, &visitor, "/page/jobs", "All that match");
    let sums = found.sums.into_iter().map(|sum| Moved {
        currency: sum.currency.to_string(),
        jobs: sum.jobs,
        units: Units::of(sum.quantity),
    });
    let written = BulkPage {
        sums: sums.collect(),
        left_alone: found.left_alone,
        ..bulk_page(layout, &shown)
    };
    page.sessions.show(&visitor.open, shown);
    Ok(html(&written))
}

/// What was shown, and why it is done.
#[derive(Deserialize)]
pub(super) struct Confirmed {
    id: Uuid,
    #[serde(default)]
    reason: String,
}

/// Carries one step of what was shown out. What is left then is shown again.
pub(super) async fn act(
    State(page): State<Page>,
    visitor: Visitor,
    filled: Filled<Confirmed>,
) -> Result<Response, Failure> {
    let mut by = filled.because(&filled.form.reason)?;
    let Confirmed { id, reason } = filled.form;
    let mut shown = page.sessions.take_shown(&visitor.open, id).ok_or_else(|| {
        let detail = "this was carried out already, or something else was shown since: look again";
        Failure::new(axum::http::StatusCode::CONFLICT, detail)
    })?;
    by.bulk_id = Some(id);
    let rest = shown.records.split_off(shown.records.len().min(step_max(shown.action)));
    let step = std::mem::replace(&mut shown.records, rest);
    let done = Box::pin(page.api.operations.act(shown.action, &step, &by)).await;
    let failed = match done {
        Ok(acted) => {
            for (_, acted) in acted {
                let count = shown.became.entry(told(acted).1).or_default();
                *count = count.saturating_add(1);
            }
            None
        }
        // What was done before the job that failed stays done, and the action log has it.
        Err(error) => Some(error.to_string()),
    };
    let layout = Layout::new(&page, &visitor, "/page/jobs", "All that match");
    let written = BulkPage { failed, reason, ..bulk_page(layout, &shown) };
    if !shown.records.is_empty() && written.failed.is_none() {
        page.sessions.show(&visitor.open, shown);
    }
    Ok(html(&written))
}
