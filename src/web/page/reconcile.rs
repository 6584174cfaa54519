//! Comparisons of jobs and balances with OES, and what they found.

use askama::Template;
use axum::{
    extract::{Path, Query, State},
    response::Response,
};
use serde::Deserialize;

use super::{
    Page,
    failure::{Failure, html},
    guard::Visitor,
    layout::Layout,
    shown::{Age, Ago, At},
};
use crate::{
    domain::time::TimestampMs,
    store::query::{FindingLine, RunLine},
};

/// Comparisons on a page.
const SHOWN_MAX: u32 = 30;

/// A comparison, shown.
struct Run {
    seq: i64,
    started: Ago,
    took: Age,
    since: At,
    until: At,
    source: String,
    result: String,
    jobs: u64,
    balances: u64,
    differences: u64,
    /// Findings by kind.
    counts: Vec<(String, String)>,
    error: Option<String>,
}

impl Run {
    fn of(line: RunLine, now: TimestampMs) -> Self {
        let counts: Result<serde_json::Map<String, serde_json::Value>, _> =
            serde_json::from_str(line.counts.get());
        let counts = counts.unwrap_or_default().into_iter();
        Self {
            seq: line.seq,
            started: Ago { at: line.started_at_ms, now },
            took: Age(line.finished_at_ms.since(line.started_at_ms)),
            since: At(line.since_ms),
            until: At(line.until_ms),
            source: line.source,
            result: line.result,
            jobs: line.jobs,
            balances: line.balances,
            differences: line.differences,
            counts: counts.map(|(kind, count)| (kind, count.to_string())).collect(),
            error: line.error,
        }
    }
}

/// Which comparisons.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Asked {
    before: Option<i64>,
}

#[derive(Template)]
#[template(path = "reconcile.html")]
struct ListPage {
    layout: Layout,
    runs: Vec<Run>,
    next: Option<i64>,
}

/// The list.
pub(super) async fn list(
    State(page): State<Page>,
    visitor: Visitor,
    Query(asked): Query<Asked>,
) -> Result<Response, Failure> {
    let layout = Layout::new(&page, &visitor, "/page/reconcile", "Comparisons with OES");
    let runs = page.api.checks.readers.runs(asked.before, SHOWN_MAX).await?;
    let is_full = u32::try_from(runs.len()) == Ok(SHOWN_MAX);
    let next = runs.last().filter(|_| is_full).map(|run| run.seq);
    let runs = runs.into_iter().map(|run| Run::of(run, layout.now)).collect();
    Ok(html(&ListPage { layout, runs, next }))
}

#[derive(Template)]
#[template(path = "reconciled.html")]
struct RunPage {
    layout: Layout,
    run: Run,
    findings: Vec<FindingLine>,
}

/// One comparison with what it found.
pub(super) async fn show(
    State(page): State<Page>,
    visitor: Visitor,
    Path(seq): Path<String>,
) -> Result<Response, Failure> {
    let missing = || Failure::not_found(format!("there is no comparison {seq}"));
    let number: i64 = seq.parse().map_err(|_| missing())?;
    let readers = &page.api.checks.readers;
    let found = readers.runs(Some(number.saturating_add(1)), 1).await?.pop();
    let run = found.filter(|run| run.seq == number).ok_or_else(missing)?;
    let layout = Layout::new(&page, &visitor, "/page/reconcile", format!("Comparison {seq}"));
    let findings = readers.findings(number).await?;
    Ok(html(&RunPage { run: Run::of(run, layout.now), findings, layout }))
}
