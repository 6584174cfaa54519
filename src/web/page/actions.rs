//! The action log: what operators did, and why.

use askama::Template;
use axum::{
    extract::{Query, State},
    response::Response,
};
use serde::Deserialize;

use super::{
    Page,
    failure::{Failure, html},
    guard::Visitor,
    job::{parse_record, short},
    layout::Layout,
    shown::Ago,
};
use crate::{
    domain::{action::ActionKind, time::TimestampMs},
    store::query::{ActionFilter, ActionLine},
    web::problem::Problem,
};

/// Actions on a page.
const SHOWN_MAX: u32 = 50;

/// Which actions.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Asked {
    kind: String,
    who: String,
    record: String,
    before: Option<i64>,
}

/// An action, shown.
struct Line {
    at: Ago,
    kind: String,
    who: String,
    reason: String,
    /// What it was done to, and where that is shown.
    subject: Option<(String, String)>,
    /// What became of it.
    detail: String,
    bulk: Option<String>,
}

impl Line {
    fn of(line: ActionLine, now: TimestampMs) -> Self {
        let subject = match (line.record_id, line.quarantine_seq, line.switch) {
            (Some(record), ..) => {
                Some((format!("/page/jobs/{record}"), format!("record {}", short(record))))
            }
            (None, Some(seq), _) => {
                Some((format!("/page/quarantine/{seq}"), format!("message {seq}")))
            }
            (None, None, Some(switch)) => Some(("/page/switches".to_owned(), switch.to_string())),
            (None, None, None) => None,
        };
        Self {
            at: Ago { at: line.at_ms, now },
            kind: match line.outcome {
                Some(outcome) => format!("{} {outcome}", line.kind),
                None => line.kind,
            },
            who: line.who,
            reason: line.reason,
            subject,
            detail: line.detail.get().to_owned(),
            bulk: line.bulk_id.map(|id| id.chars().take(8).collect()),
        }
    }
}

#[derive(Template)]
#[template(path = "actions.html")]
struct ActionsPage {
    layout: Layout,
    kinds: [&'static str; ActionKind::ALL.len()],
    kind: String,
    who: String,
    record: String,
    lines: Vec<Line>,
    next: Option<String>,
}

/// The list.
pub(super) async fn list(
    State(page): State<Page>,
    visitor: Visitor,
    Query(asked): Query<Asked>,
) -> Result<Response, Failure> {
    let layout = Layout::new(&page, &visitor, "/page/actions", "Action log");
    let Asked { kind, who, record, before } = asked;
    let (who, record) = (who.trim().to_owned(), record.trim().to_owned());
    let known = ActionKind::ALL.into_iter().find(|known| known.as_str() == kind);
    if known.is_none() && !kind.is_empty() {
        return Err(Problem::bad(format!("{kind:?} is no kind of action")).into());
    }
    let filter = ActionFilter {
        kind: known,
        record_id: (!record.is_empty()).then(|| parse_record(&record)).transpose()?,
        who: (!who.is_empty()).then(|| who.clone()),
        before,
        limit: SHOWN_MAX,
    };
    let lines = page.api.checks.readers.actions(&filter).await?;
    let is_full = u32::try_from(lines.len()) == Ok(SHOWN_MAX);
    let last = lines.last().filter(|_| is_full).map(|line| line.seq.to_string());
    let next = last.map(|before| {
        let query = [("before", &before), ("kind", &kind), ("who", &who), ("record", &record)];
        serde_urlencoded::to_string(query).unwrap_or_default()
    });
    let lines = lines.into_iter().map(|line| Line::of(line, layout.now)).collect();
    let kinds = ActionKind::ALL.map(ActionKind::as_str);
    Ok(html(&ActionsPage { layout, kinds, kind, who, record, lines, next }))
}
