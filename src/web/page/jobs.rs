//! The table of jobs, by the same questions as the command line and the API ask.

use std::collections::BTreeSet;

use askama::Template;
use axum::{
    extract::{RawQuery, State},
    response::{IntoResponse as _, Redirect, Response},
};

use super::{
    Page,
    failure::{Failure, html},
    guard::Visitor,
    layout::Layout,
    shown::{Age, Ago, Standing, Sum},
};
use crate::{
    domain::{ids::RecordId, state::State as JobState, time::TimestampMs},
    store::query::{Cursor, JobCount, JobFilter, JobLine, Sort},
    web::{api::JobQuery, problem::Problem},
};

/// Where the table is.
const HERE: &str = "/page/jobs";
/// Jobs in a table.
const SHOWN_MAX: u32 = 50;

/// One line of the table.
struct Row {
    record: RecordId,
    job_type: String,
    sum: Sum,
    standing: Standing,
    decision: String,
    /// The exchange's own id of the record.
    partners_record: String,
    attempts: i64,
    received: Ago,
    in_state: Age,
}

impl Row {
    fn of(line: &JobLine, now: TimestampMs) -> Self {
        let mut decision = line.outcome.map_or_else(String::new, |outcome| outcome.to_string());
        if let Some(code) = &line.reject_code {
            decision = format!("{decision} ({code})");
        }
        if let Some(actual) = line.final_outcome.filter(|_| line.final_outcome != line.outcome) {
            decision = format!("{decision}, OES: {actual}");
        }
        Self {
            record: line.record_id,
            job_type: line.job_type.to_string(),
            sum: Sum::from(&line.amount),
            standing: Standing {
                state: line.state.clone(),
                reason: line.state_reason.clone().unwrap_or_default(),
            },
            decision,
            partners_record: line.partners_record_id.to_string(),
            attempts: line.attempts,
            received: Ago { at: line.received_at_ms, now },
            in_state: Age(now.since(line.state_since_ms)),
        }
    }
}

/// One of the words that a field takes.
struct Choice {
    word: &'static str,
    says: &'static str,
    is_chosen: bool,
}

fn words(
    known: impl IntoIterator<Item = (&'static str, &'static str)>,
    chosen: &str,
) -> Vec<Choice> {
    let word = |(word, says)| Choice { word, says, is_chosen: word == chosen };
    known.into_iter().map(word).collect()
}

#[derive(Template)]
#[template(path = "jobs.html")]
struct JobsPage {
    layout: Layout,
    states: Vec<Choice>,
    types: Vec<Choice>,
    outcomes: Vec<Choice>,
    sorts: Vec<Choice>,
    reasons: Vec<Choice>,
    asked: Fields,
    /// Whether something is asked that is folded away at first.
    asks_more: bool,
    count: JobCount,
    rows: Vec<Row>,
    next: Option<String>,
    previous: Option<String>,
    /// Up to how many jobs were looked at for this page, if there are more.
    looked_at: Option<u64>,
    is_cut: bool,
    /// The question, as a bulk action takes it.
    query: String,
    /// What may be done to all that match.
    deeds: Vec<(&'static str, &'static str)>,
}

/// The fields as they were filled in.
#[derive(Default)]
struct Fields {
    connection: String,
    client: String,
    currency: String,
    older_than: String,
    younger_than: String,
}

/// Reads a question from a query, and leaves out what was not filled in.
pub(super) fn question(query: &str) -> Result<JobQuery, Failure> {
    let pairs: Vec<(String, String)> = serde_urlencoded::from_str(query)
        .map_err(|error| Failure::from(Problem::bad(error.to_string())))?;
    let filled = pairs.into_iter().filter(|(_, value)| !value.trim().is_empty());
    let filled = serde_urlencoded::to_string(filled.collect::<Vec<_>>());
    let question = filled.ok().and_then(|filled| serde_urlencoded::from_str(&filled).ok());
    question.ok_or_else(|| Problem::bad("that is no question about jobs").into())
}

fn address(query: &JobQuery) -> String {
    serde_urlencoded::to_string(query).unwrap_or_default()
}

fn page_address(query: &JobQuery, after: Option<Cursor>, before: Option<Cursor>) -> Option<String> {
    after.or(before)?;
    let (after, before) = (after.map(|at| at.to_string()), before.map(|at| at.to_string()));
    Some(address(&JobQuery { after, before, ..query.clone() }))
}

/// What may be done to all jobs that match, by their states.
fn deeds(states: &BTreeSet<String>) -> Vec<(&'static str, &'static str)> {
    let mut deeds = Vec::new();
    if states.is_empty() || states.contains("parked") {
        deeds.extend([("retry", "Send on …"), ("approve", "Approve …"), ("refuse", "Refuse …")]);
    }
    if states.contains("conflict") {
        deeds.extend([
            ("close-cleared", "OES ended them as cleared …"),
            ("close-released", "OES ended them as released …"),
        ]);
    }
    deeds
}

fn said(text: Option<&String>) -> String {
    text.cloned().unwrap_or_default()
}

/// The table. Whoever looks for a whole id is led to its job.
pub(super) async fn list(
    State(page): State<Page>,
    visitor: Visitor,
    RawQuery(query): RawQuery,
) -> Result<Response, Failure> {
    let query = question(query.as_deref().unwrap_or_default())?;
    let readers = &page.api.checks.readers;
    let now = page.api.clock.now();
    let filter = query.filter(now)?;
    let whole = query.text.as_deref().and_then(|text| text.trim().parse::<RecordId>().ok());
    if let Some(record) = whole.filter(|_| !visitor.is_live)
        && readers.job_history(record).await?.is_some()
    {
        return Ok(Redirect::to(&format!("/page/jobs/{record}")).into_response());
    }
    let found = readers.list_jobs(&filter, &query.wanted(SHOWN_MAX)?).await?;
    let mut layout = Layout::new(&page, &visitor, HERE, "Jobs");
    layout.searched = said(query.text.as_ref());
    let first = JobQuery { after: None, before: None, limit: None, count: None, ..query.clone() };
    let chosen = |field: &Option<String>| said(field.as_ref());
    let states = [("", "any"), ("open", "open")].into_iter();
    let reasons = JobFilter::reasons().into_iter().map(|word| (word, word));
    let asked = Fields {
        connection: chosen(&query.connection),
        client: chosen(&query.client),
        currency: chosen(&query.currency),
        older_than: chosen(&query.older_than),
        younger_than: chosen(&query.younger_than),
    };
    let more = [&query.connection, &query.client, &query.outcome, &query.younger_than];
    Ok(html(&JobsPage {
        states: words(
            states.chain(JobState::NAMES.map(|name| (name, name))),
            &chosen(&query.state),
        ),
        types: words(
            [("", "any"), ("allocation", "allocation"), ("deallocation", "deallocation")],
            &chosen(&query.job_type),
        ),
        outcomes: words(
            [("", "any"), ("cleared", "cleared"), ("released", "released")],
            &chosen(&query.outcome),
        ),
        sorts: words(Sort::ALL.map(|sort| (sort.as_str(), order(sort))), &chosen(&query.sort)),
        reasons: words([("", "any")].into_iter().chain(reasons), &chosen(&query.reason)),
        asks_more: more.into_iter().any(Option::is_some),
        asked,
        count: readers.count_jobs(&filter).await?,
        next: page_address(&first, found.next, None),
        previous: page_address(&first, None, found.previous),
        looked_at: found.looked_at,
        is_cut: found.is_cut,
        rows: found.jobs.iter().map(|line| Row::of(line, now)).collect(),
        query: address(&first),
        deeds: if layout.acts { deeds(&filter.states) } else { Vec::new() },
        layout,
    }))
}

/// An order in words.
const fn order(sort: Sort) -> &'static str {
    match sort {
        Sort::Newest => "newest first",
        Sort::Oldest => "oldest first",
        Sort::Updated => "last changed first",
        Sort::Longest => "longest in their state first",
        Sort::Next => "next step first",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_filled_in_is_not_asked_for_and_what_is_unknown_is_no_question() {
        let asked = question("state=open&type=&text=+&olderThan=5m&limit=").unwrap();
        assert_eq!(address(&asked), "state=open&olderThan=5m");
        for wrong in ["colour=red", "limit=many", "state=open&state=parked"] {
            assert!(question(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_may_be_done_follows_the_states_that_are_asked_for() {
        let of = |states: &[&str]| {
            let states = states.iter().map(|state| (*state).to_owned()).collect();
            deeds(&states).into_iter().map(|(word, _)| word).collect::<Vec<_>>()
        };
        assert_eq!(of(&[]), ["retry", "approve", "refuse"]);
        assert_eq!(of(&["conflict"]), ["close-cleared", "close-released"]);
        assert_eq!(of(&["confirmed"]), Vec::<&str>::new());
    }
}
