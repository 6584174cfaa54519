//! What a notice says.

use serde::Serialize;
use serde_json::json;
use uuid::Uuid;

use crate::{
    config::AlertsConfig,
    domain::{
        alert::{
            NoticeEvent, Severity,
            life::{Notice, Stage},
        },
        ids::RecordId,
        time::TimestampMs,
    },
};

/// The form of a notice's body; a later form has a later number.
const FORM: u32 = 1;

/// Whose alerts they are.
#[derive(Clone, Debug)]
pub struct Origin {
    instance: String,
    runbook_url: String,
    /// The identity of the book, where it is known.
    ledger: Option<Uuid>,
}

impl Origin {
    /// As configured; the machine's name stands in where nothing is.
    #[must_use]
    pub fn new(config: &AlertsConfig, ledger: Option<Uuid>) -> Self {
        let instance = if config.instance.is_empty() {
            rustix::system::uname().nodename().to_string_lossy().into_owned()
        } else {
            config.instance.clone()
        };
        Self { instance, runbook_url: config.runbook_url.clone(), ledger }
    }

    fn runbook(&self, alert: &str) -> String {
        format!("{}#{}", self.runbook_url, alert.to_lowercase())
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    form: u32,
    id: Uuid,
    event: NoticeEvent,
    alert: &'a str,
    subject: &'a str,
    severity: Severity,
    summary: &'a str,
    count: u64,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    records: &'a [RecordId],
    since: String,
    fired_at: String,
    at: String,
    instance: &'a str,
    ledger: Option<Uuid>,
    runbook: String,
}

/// The exact text of a notice. `records` are some of those that it is about.
pub(super) fn body(
    origin: &Origin,
    id: Uuid,
    notice: &Notice,
    records: &[RecordId],
    now: TimestampMs,
) -> String {
    let kind = notice.key.kind;
    let fired_at = match notice.known.stage {
        Stage::Firing { fired_at, .. } => fired_at,
        Stage::Pending => now,
    };
    json!(Body {
        form: FORM,
        id,
        event: notice.event,
        alert: kind.name(),
        subject: &notice.key.subject,
        severity: kind.severity(),
        summary: &notice.known.summary,
        count: notice.known.things,
        records,
        since: notice.known.held_since.to_string(),
        fired_at: fired_at.to_string(),
        at: now.to_string(),
        instance: &origin.instance,
        ledger: origin.ledger,
        runbook: origin.runbook(kind.name()),
    })
    .to_string()
}

/// A notice that only tries whether notices arrive.
#[must_use]
pub fn test_body(origin: &Origin, id: Uuid, now: TimestampMs) -> String {
    json!({
        "form": FORM, "id": id, "event": NoticeEvent::Test, "alert": "Test", "subject": "",
        "severity": Severity::Warning, "summary": "somebody tries whether notices arrive",
        "count": 0, "at": now.to_string(), "instance": origin.instance, "ledger": origin.ledger,
        "runbook": origin.runbook_url,
    })
    .to_string()
}

/// A sign of life, with how many alerts fire.
pub(super) fn heartbeat(origin: &Origin, id: Uuid, firing: usize, now: TimestampMs) -> String {
    json!({
        "form": FORM, "id": id, "event": "alive", "firing": firing, "at": now.to_string(),
        "instance": origin.instance, "ledger": origin.ledger,
    })
    .to_string()
}
