//! What operators ask for, as data: the command line prints it, and other surfaces can show it.

pub mod advice;
pub mod audit;
pub mod bulk;
pub mod evidence;
pub mod explain;
pub mod operations;
pub mod status;

use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    domain::{
        decision::Outcome,
        ids::RecordId,
        job::{Job, JobTerms},
        ledger::Phase,
        reply::Verdict,
        state::State,
        time::TimestampMs,
    },
    store::{
        Readers, StoreError,
        query::{AttemptLine, DecisionLine, JobHistory, NoteLine, OutboxLine, TransferLine},
    },
};

/// One thing that happened to a job.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Happening {
    /// When.
    pub at_ms: TimestampMs,
    /// How long after what happened before it.
    pub after_ms: u64,
    /// What, in a word or two.
    pub what: &'static str,
    /// More of it, in a line.
    pub summary: String,
    /// All of it.
    #[schema(value_type = Object)]
    pub detail: Value,
}

/// Everything about one job, in the order in which it happened.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct JobView {
    /// Its number.
    pub seq: i64,
    /// What it is about.
    #[serde(flatten)]
    pub terms: JobTerms,
    /// How far it has come, with its reason.
    pub state: String,
    /// When it came to its state.
    pub state_since_ms: TimestampMs,
    /// When the next step is due.
    pub next_step_at_ms: Option<TimestampMs>,
    /// What a person can do about it, if one must.
    pub advice: Option<String>,
    /// What happened.
    pub timeline: Vec<Happening>,
    /// The message as it came.
    pub message: String,
    /// Jobs that named the same record and were refused, the latest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(no_recursion)]
    pub refused_before: Vec<JobView>,
}

/// So much of an answer of OES is shown in the timeline; the whole start that was kept is in its detail.
const ANSWER_CHARS_MAX: usize = 200;

/// Most refused jobs that are shown with the one that has the record's id.
const REFUSED_SHOWN_MAX: i64 = 20;

/// Reads everything about one job.
///
/// # Errors
/// [`StoreError`].
pub async fn job(readers: &Readers, id: RecordId) -> Result<Option<JobView>, StoreError> {
    let most = REFUSED_SHOWN_MAX.saturating_add(1);
    let mut histories = readers.job_histories(id, most).await?.into_iter();
    let Some(history) = histories.next() else { return Ok(None) };
    let (state, connection) = (history.job.state, history.job.terms.connection_id);
    let mut first = view(history);
    if state == State::Received && readers.is_unproven(connection).await? {
        first.advice = Some(advice::unproven(connection));
    }
    first.refused_before = histories.map(view).collect();
    Ok(Some(first))
}

fn view(history: JobHistory) -> JobView {
    let job = &history.job;
    let mut timeline = vec![Happening {
        at_ms: job.received_at,
        after_ms: 0,
        what: "received",
        summary: format!("{} of {}", job.terms.job_type, job.terms.amount),
        detail: json!({"contentSha256": job.content_hash.to_string()}),
    }];
    // An operator's word comes before the decision that follows it, in the same commit.
    let (words, notes): (Vec<_>, Vec<_>) = history
        .notes
        .iter()
        .partition(|note| ["approved", "refused"].contains(&note.kind.as_str()));
    timeline.extend(words.into_iter().map(note_happening));
    timeline.extend(history.decision.as_ref().map(decision_happening));
    // The hold belongs to the decision; what closes it follows an answer or a read.
    let (holds, closings): (Vec<_>, Vec<_>) =
        history.transfers.iter().partition(|transfer| transfer.phase == Phase::Pending.as_str());
    timeline.extend(holds.into_iter().map(transfer_happening));
    timeline.extend(history.attempts.iter().flat_map(attempt_happenings));
    timeline.extend(notes.into_iter().map(note_happening));
    timeline.extend(closings.into_iter().map(transfer_happening));
    if let Some(announcement) = &history.announcement {
        timeline.extend(end_happenings(job, announcement));
    }
    // Stable: what happened in one commit stays in the order of the steps.
    timeline.sort_by_key(|happening| happening.at_ms);
    let mut before = job.received_at;
    for happening in &mut timeline {
        let after = happening.at_ms.since(before).as_millis();
        happening.after_ms = u64::try_from(after).unwrap_or(u64::MAX);
        before = happening.at_ms;
    }
    JobView {
        seq: job.seq.get(),
        terms: job.terms.clone(),
        state: job.state.to_string(),
        state_since_ms: job.state_since,
        next_step_at_ms: job.next_step_at,
        advice: advice::advice(job.state, job.terms.record_id),
        timeline,
        message: history.raw_message,
        refused_before: Vec::new(),
    }
}

fn decision_happening(decision: &DecisionLine) -> Happening {
    Happening {
        at_ms: decision.decided_at_ms,
        after_ms: 0,
        what: "decided",
        summary: match &decision.reject_reason {
            Some(reason) => format!("{}: {reason}", decision.outcome),
            None => decision.outcome.clone(),
        },
        detail: json!(decision),
    }
}

fn transfer_happening(transfer: &TransferLine) -> Happening {
    let TransferLine { quantity, debit, credit, phase, .. } = transfer;
    Happening {
        at_ms: transfer.booked_at_ms,
        after_ms: 0,
        what: "booked",
        summary: format!("{quantity} {debit} → {credit} ({phase})"),
        detail: json!(transfer),
    }
}

fn note_happening(note: &NoteLine) -> Happening {
    Happening {
        at_ms: note.at_ms,
        after_ms: 0,
        what: match note.kind.as_str() {
            "parked" => "parked",
            "sent_on" => "sent on",
            "approved" => "approved",
            "refused" => "refused",
            "end_proposed" => "end proposed",
            "end_confirmed" => "end confirmed",
            _ => "read back",
        },
        summary: note_summary(note.detail.get()),
        detail: json!(note),
    }
}

fn end_happenings(job: &Job, announcement: &OutboxLine) -> Vec<Happening> {
    let outcome = job.final_outcome.map_or("", Outcome::as_str);
    let overruled = if job.state == State::Overruled { " (overruled by OES)" } else { "" };
    let mut happenings = vec![Happening {
        at_ms: announcement.created_at_ms,
        after_ms: 0,
        what: "final",
        summary: format!("{outcome}{overruled}"),
        detail: json!({"state": job.state.to_string()}),
    }];
    happenings.extend(announcement.published_at_ms.map(|at_ms| Happening {
        at_ms,
        after_ms: 0,
        what: "announced",
        summary: format!("{} as event {}", announcement.routing_key, announcement.event_id),
        detail: json!(announcement),
    }));
    happenings
}

fn attempt_happenings(attempt: &AttemptLine) -> Vec<Happening> {
    let mut happenings = vec![Happening {
        at_ms: attempt.prepared_at_ms,
        after_ms: 0,
        what: "signed",
        summary: format!("attempt {} by key {}", attempt.number, attempt.public_key),
        detail: json!({
            "attempt": attempt.number, "body": attempt.body, "signature": attempt.signature,
            "publicKey": attempt.public_key,
        }),
    }];
    if let (Some(result), Some(at_ms)) = (&attempt.result, attempt.finished_at_ms) {
        let status =
            attempt.http_status.map_or_else(String::new, |status| format!(" (status {status})"));
        // What OES says to an update that it does not accept is the first thing to read.
        let is_taken = [Verdict::Accepted, Verdict::ApprovalPending]
            .iter()
            .any(|verdict| verdict.as_str() == result);
        let answer = attempt.response.as_ref().filter(|_| !is_taken);
        let said = attempt.detail.as_ref().or(answer);
        let detail = said.map_or_else(String::new, |text| {
            format!(": {}", text.chars().take(ANSWER_CHARS_MAX).collect::<String>())
        });
        happenings.push(Happening {
            at_ms,
            after_ms: 0,
            what: "answered",
            summary: format!("attempt {}: {result}{status}{detail}", attempt.number),
            detail: json!({
                "attempt": attempt.number, "result": result, "httpStatus": attempt.http_status,
                "requestId": attempt.request_id, "response": attempt.response,
                "detail": attempt.detail,
            }),
        });
    }
    happenings
}

/// The fields of a note on one line.
fn note_summary(detail: &str) -> String {
    let Ok(Value::Object(fields)) = serde_json::from_str(detail) else {
        return detail.to_owned();
    };
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    if let (Some(who), Some(why), Some(to)) =
        (fields.get("who"), fields.get("why"), fields.get("to"))
    {
        return format!("by {} → {}: {}", text(who), text(to), text(why));
    }
    if let (Some(who), Some(why), Some(outcome)) =
        (fields.get("who"), fields.get("why"), fields.get("outcome"))
    {
        return format!("by {}: OES ended it as {}: {}", text(who), text(outcome), text(why));
    }
    if let (Some(differs), Some(to)) = (fields.get("differs"), fields.get("to")) {
        return format!("{} → {}", text(differs), text(to));
    }
    match (fields.get("found"), fields.get("from"), fields.get("to"), fields.get("reason")) {
        (Some(found), Some(from), Some(to), _) => {
            format!("found {}: {} → {}", text(found), text(from), text(to))
        }
        (_, _, _, Some(reason)) => match fields.get("why") {
            Some(why) => format!("{}: {}", text(reason), text(why)),
            None => text(reason),
        },
        _ => detail.to_owned(),
    }
}
