//! Messages that never acted, and what became of their dead letters: one view for both.

use askama::Template;
use axum::{
    extract::{Path, Query, State},
    response::{Redirect, Response},
};
use serde::Deserialize;

use super::{
    Page,
    failure::{Failure, html},
    guard::{Filled, Visitor},
    layout::Layout,
    session::Said,
    shown::Ago,
};
use crate::{
    domain::{ids::QuarantineSeq, time::TimestampMs},
    operator::operations::Requeueing,
    store::query::{QuarantineFilter, QuarantineLine},
};

/// Messages on a page.
const SHOWN_MAX: u32 = 50;
/// Bytes of a hexadecimal view in a line.
const HEX_LINE_BYTES: usize = 16;

/// Which messages.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Asked {
    waiting: Option<String>,
    code: String,
    before: Option<i64>,
}

/// A message in quarantine, shown.
struct Line {
    message: QuarantineLine,
    first_seen: Ago,
    last_seen: Ago,
    dead_letter: Option<Ago>,
    /// When it was put back in last, by whom, why.
    requeued: Option<(Ago, String, String)>,
}

impl Line {
    fn of(mut message: QuarantineLine, now: TimestampMs) -> Self {
        let ago = |at| Ago { at, now };
        let requeued = message.requeued.take();
        Self {
            first_seen: ago(message.first_seen_ms),
            last_seen: ago(message.last_seen_ms),
            dead_letter: message.dead_letter_published_at_ms.map(ago),
            requeued: requeued.map(|done| (ago(done.at_ms), done.who, done.reason)),
            message,
        }
    }
}

#[derive(Template)]
#[template(path = "quarantine.html")]
struct ListPage {
    layout: Layout,
    waiting: bool,
    code: String,
    lines: Vec<Line>,
    /// The query of the next page.
    next: Option<String>,
}

/// The list.
pub(super) async fn list(
    State(page): State<Page>,
    visitor: Visitor,
    Query(asked): Query<Asked>,
) -> Result<Response, Failure> {
    let layout = Layout::new(&page, &visitor, "/page/quarantine", "Quarantine and dead letters");
    let code = asked.code.trim().to_owned();
    let filter = QuarantineFilter {
        code: (!code.is_empty()).then(|| code.clone()),
        waiting: asked.waiting.is_some(),
        before: asked.before,
        limit: SHOWN_MAX,
    };
    let lines = page.api.checks.readers.quarantine(&filter).await?;
    let is_full = u32::try_from(lines.len()) == Ok(SHOWN_MAX);
    let last = lines.last().filter(|_| is_full).map(|line| line.seq.to_string());
    let next = last.map(|before| {
        let mut query = vec![("before", before.as_str()), ("code", code.as_str())];
        query.extend(filter.waiting.then_some(("waiting", "on")));
        serde_urlencoded::to_string(query).unwrap_or_default()
    });
    let lines = lines.into_iter().map(|line| Line::of(line, layout.now)).collect();
    Ok(html(&ListPage { layout, waiting: filter.waiting, code, lines, next }))
}

#[derive(Template)]
#[template(path = "quarantined.html")]
struct MessagePage {
    layout: Layout,
    line: Line,
    text: String,
    hex: String,
}

fn number(text: &str) -> Result<QuarantineSeq, Failure> {
    let number: Result<i64, _> = text.parse();
    let number = number.map_err(|_| Failure::not_found(format!("{text:?} is no number")))?;
    Ok(QuarantineSeq::from(number))
}

/// One message with its bytes.
pub(super) async fn show(
    State(page): State<Page>,
    visitor: Visitor,
    Path(seq): Path<String>,
) -> Result<Response, Failure> {
    let found = page.api.checks.readers.quarantined(number(&seq)?).await?;
    let missing = || Failure::not_found(format!("there is no message {seq} in quarantine"));
    let found = found.ok_or_else(missing)?;
    let title = format!("Message {seq} in quarantine");
    let layout = Layout::new(&page, &visitor, "/page/quarantine", title);
    let lines = found.bytes.chunks(HEX_LINE_BYTES).map(hex::encode);
    Ok(html(&MessagePage {
        line: Line::of(found.line, layout.now),
        text: String::from_utf8_lossy(&found.bytes).into_owned(),
        hex: lines.collect::<Vec<_>>().join("\n"),
        layout,
    }))
}

/// Why it is put back in.
#[derive(Deserialize)]
pub(super) struct Because {
    #[serde(default)]
    reason: String,
}

/// Puts a message back in: it is read as strictly as when it came.
pub(super) async fn requeue(
    State(page): State<Page>,
    Path(seq): Path<String>,
    filled: Filled<Because>,
) -> Result<Redirect, Failure> {
    let number = number(&seq)?;
    let said = match filled.because(&filled.form.reason) {
        Err(failure) => Said::failed(&failure),
        Ok(by) => match page.api.operations.requeue(number, &by).await {
            Err(error) => Said::failed(&error.into()),
            Ok(requeued) => told(requeued),
        },
    };
    page.sessions.say(&filled.open, said);
    Ok(Redirect::to(&format!("/page/quarantine/{number}")))
}

fn told(requeued: Requeueing) -> Said {
    match requeued {
        Requeueing::New(record) => Said::done(format!("It is a job now, about record {record}.")),
        Requeueing::Repeated(record) => Said::done(format!(
            "There was such a job already, about record {record}, with the same content."
        )),
        Requeueing::Contradicts(record) => Said::not_done(format!(
            "There is a job about record {record} with other content, which holds: nothing was changed."
        )),
        Requeueing::StillBad(why) => {
            Said::not_done(format!("It is as bad as it was, and nothing was changed: {why}"))
        }
    }
}
