//! Everything about one job, and what may be done about it.

use askama::Template;
use axum::{
    Json,
    extract::{Path, State},
    http::{HeaderValue, header},
    response::{IntoResponse as _, Response},
};

use super::{
    Page,
    failure::{Failure, html},
    guard::Visitor,
    job_actions::{Choice, choices},
    layout::Layout,
    shown::{Age, Ago, At, Standing, Sum, Units, pretty, terms},
};
use crate::{
    domain::{action::ActionKind, amount::Amount, ids::RecordId, job::JobTerms, time::TimestampMs},
    operator::{
        self, Happening, JobView,
        evidence::evidence as gather,
        explain::{Against, ExplainError, Explanation, explain},
    },
    store::{
        Readers,
        query::{ActionFilter, ActionLine, AttemptLine, JobHistory, TransferLine},
    },
};

/// Operators' actions on one job that are shown.
const ACTIONS_SHOWN_MAX: u32 = 50;

/// A step of the timeline.
struct Step {
    at: At,
    /// How long after the one before; nothing for the first.
    after: Option<Age>,
    what: &'static str,
    /// The same, as one word for the style.
    class: String,
    summary: String,
    detail: String,
}

/// An attempt with its request and its answer.
struct Attempt {
    number: i64,
    prepared: Ago,
    took: Option<Age>,
    public_key: String,
    signature: String,
    body: String,
    result: String,
    http_status: Option<i64>,
    request_id: Option<String>,
    response: Option<String>,
    detail: Option<String>,
}

/// A movement in the ledger.
struct Entry {
    seq: i64,
    at: At,
    phase: String,
    debit: String,
    credit: String,
    units: Units,
}

/// What the policy was shown, and what it says.
struct Explained {
    /// In the words of the page: when.
    over: &'static str,
    facts: Vec<(String, String)>,
    says: String,
    decided: Option<String>,
    agrees: Option<bool>,
}

/// A word about how OES ended the record that another operator may confirm.
struct Proposed {
    who: String,
    reason: String,
    outcome: String,
    at: Ago,
    until: Ago,
}

#[derive(Template)]
#[template(path = "job.html")]
struct JobPage {
    layout: Layout,
    record: RecordId,
    seq: i64,
    job_type: String,
    sum: Sum,
    standing: Standing,
    since: Ago,
    next_step: Option<Ago>,
    terms: Vec<(&'static str, String)>,
    connection: String,
    client: String,
    choices: Vec<Choice>,
    proposed: Vec<Proposed>,
    steps: Vec<Step>,
    attempts: Vec<Attempt>,
    entries: Vec<Entry>,
    explained: Result<Explained, String>,
    actions: Vec<ActionRow>,
    message: String,
    refused_before: Vec<Refused>,
}

/// A job that named the same record and was refused.
struct Refused {
    seq: i64,
    since: Ago,
    steps: Vec<Step>,
    message: String,
}

/// What an operator did to this job.
struct ActionRow {
    at: At,
    kind: String,
    who: String,
    reason: String,
}

pub(super) fn parse_record(text: &str) -> Result<RecordId, Failure> {
    text.parse().map_err(|error| Failure::not_found(format!("{text:?} is {error}")))
}

/// The page.
pub(super) async fn show(
    State(page): State<Page>,
    visitor: Visitor,
    Path(record): Path<String>,
) -> Result<Response, Failure> {
    let record = parse_record(&record)?;
    let unknown = || Failure::not_found(format!("there is no job about record {record}"));
    let readers = page.api.history_of(record).await?;
    let view = operator::job(&readers, record).await?.ok_or_else(unknown)?;
    let history = readers.job_history(record).await?.ok_or_else(unknown)?;
    let title = format!("{} {}", view.terms.job_type, short(record));
    let layout = Layout::new(&page, &visitor, "/page/jobs", title);
    let now = layout.now;
    let filter = ActionFilter {
        record_id: Some(record),
        limit: ACTIONS_SHOWN_MAX,
        ..ActionFilter::default()
    };
    let actions = page.api.checks.readers.actions(&filter).await?;
    let standing = Standing::of(&view.state);
    let choices =
        if layout.acts { choices(&standing, &actions, &layout.name, now) } else { vec![] };
    let JobHistory { attempts, transfers, .. } = history;
    Ok(html(&JobPage {
        record,
        seq: view.seq,
        job_type: view.terms.job_type.to_string(),
        sum: sum(&view.terms.amount),
        since: Ago { at: view.state_since_ms, now },
        next_step: view.next_step_at_ms.map(|at| Ago { at, now }),
        terms: terms(&view.terms),
        connection: view.terms.connection_id.to_string(),
        client: view.terms.client_id.to_string(),
        choices,
        proposed: proposed(&standing, &actions, now),
        attempts: attempts.into_iter().map(|attempt| attempt_shown(attempt, now)).collect(),
        entries: transfers.into_iter().map(entry).collect(),
        explained: explained(&readers, record, &view.terms, now).await?,
        actions: actions.into_iter().map(action_row).collect(),
        steps: view.timeline.into_iter().enumerate().map(step).collect(),
        message: pretty(&view.message),
        refused_before: view.refused_before.into_iter().map(|job| refused(job, now)).collect(),
        standing,
        layout,
    }))
}

fn sum(amount: &Amount) -> Sum {
    Sum::from(amount)
}

/// The beginning of a long id.
pub(super) fn short(record: RecordId) -> String {
    record.to_string().chars().take(8).collect()
}

fn step((index, happening): (usize, Happening)) -> Step {
    let Happening { at_ms, after_ms, what, summary, detail } = happening;
    Step {
        at: At(at_ms),
        after: (index > 0).then(|| Age(std::time::Duration::from_millis(after_ms))),
        what,
        class: what.replace(' ', "-"),
        summary,
        detail: serde_json::to_string_pretty(&detail).unwrap_or_default(),
    }
}

fn attempt_shown(attempt: AttemptLine, now: TimestampMs) -> Attempt {
    let finished = attempt.finished_at_ms;
    Attempt {
        number: attempt.number,
        prepared: Ago { at: attempt.prepared_at_ms, now },
        took: finished.map(|at| Age(at.since(attempt.prepared_at_ms))),
        public_key: attempt.public_key,
        signature: attempt.signature,
        body: attempt.body,
        result: attempt.result.unwrap_or_else(|| "no answer yet".to_owned()),
        http_status: attempt.http_status,
        request_id: attempt.request_id,
        response: attempt.response,
        detail: attempt.detail,
    }
}

fn entry(transfer: TransferLine) -> Entry {
    Entry {
        seq: transfer.seq,
        at: At(transfer.booked_at_ms),
        phase: transfer.phase,
        debit: transfer.debit,
        credit: transfer.credit,
        units: Units::of(transfer.quantity),
    }
}

fn action_row(line: ActionLine) -> ActionRow {
    let kind = match line.outcome {
        Some(outcome) => format!("{} {outcome}", line.kind),
        None => line.kind,
    };
    ActionRow { at: At(line.at_ms), kind, who: line.who, reason: line.reason }
}

fn refused(job: JobView, now: TimestampMs) -> Refused {
    Refused {
        seq: job.seq,
        since: Ago { at: job.state_since_ms, now },
        steps: job.timeline.into_iter().enumerate().map(step).collect(),
        message: pretty(&job.message),
    }
}

/// Words about the end of the record that another operator may confirm now.
fn proposed(standing: &Standing, actions: &[ActionLine], now: TimestampMs) -> Vec<Proposed> {
    if standing.state != "conflict" {
        return Vec::new();
    }
    let open = actions.iter().filter_map(|line| {
        let until = line.expires_at_ms.filter(|until| *until > now)?;
        let proposes = line.kind == ActionKind::ProposeEnd.as_str();
        proposes.then(|| Proposed {
            who: line.who.clone(),
            reason: line.reason.clone(),
            outcome: line.outcome.map_or_else(String::new, |outcome| outcome.to_string()),
            at: Ago { at: line.at_ms, now },
            until: Ago { at: until, now },
        })
    });
    open.collect()
}

/// Why it was decided so, or what the policy would say now.
async fn explained(
    readers: &Readers,
    record: RecordId,
    terms: &JobTerms,
    now: TimestampMs,
) -> Result<Result<Explained, String>, Failure> {
    let then = explain(readers, record, Against::Then, now).await;
    let asked = match then {
        Err(ExplainError::Undecided(_) | ExplainError::NoView { .. }) => {
            explain(readers, record, Against::Now, now).await
        }
        other => other,
    };
    match asked {
        Ok(found) => Ok(Ok(in_words(&found, terms))),
        Err(ExplainError::Store(error)) => Err(error.into()),
        Err(error) => Ok(Err(error.to_string())),
    }
}

fn in_words(found: &Explanation, terms: &JobTerms) -> Explained {
    Explained {
        over: match found.against {
            Against::Then => "the book as the decision saw it",
            Against::Now => "the book as it is now",
        },
        facts: found.facts(terms),
        says: found.says.clone(),
        decided: found.decided.as_ref().map(|then| format!("{} by {}", then.as_, then.source)),
        agrees: found.agrees,
    }
}

/// What proves what was said about the record, to be kept or given away.
pub(super) async fn evidence(
    State(page): State<Page>,
    _: Visitor,
    Path(record): Path<String>,
) -> Result<Response, Failure> {
    let record = parse_record(&record)?;
    let readers = page.api.history_of(record).await?;
    let found = gather(&readers, record, page.api.clock.now()).await?;
    let found = found
        .ok_or_else(|| Failure::not_found(format!("there is no job about record {record}")))?;
    let name = format!("attachment; filename=\"evidence-{record}.json\"");
    let name = HeaderValue::from_str(&name).unwrap_or(HeaderValue::from_static("attachment"));
    Ok(([(header::CONTENT_DISPOSITION, name)], Json(found)).into_response())
}
