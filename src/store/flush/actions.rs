//! What operators did.

use serde_json::json;
use sqlx::SqliteConnection;

use super::{array, expect};
use crate::store::{
    StoreError,
    work::{NumberedAction, Subject, Work},
};

pub(super) async fn actions(
    connection: &mut SqliteConnection,
    work: &Work,
) -> Result<(), StoreError> {
    if work.changes.actions.is_empty() {
        return Ok(());
    }
    let row = |new: &NumberedAction| {
        let action = &new.action;
        let mut row = json!({
            "action_seq": new.seq, "kind": action.kind.as_str(), "who": action.by.who,
            "reason": action.by.reason, "bulk_id": action.by.bulk_id,
            "detail": action.detail.to_string(),
        });
        let subject = match action.subject {
            Subject::Job(job) => json!({"job_seq": job}),
            Subject::End(job, outcome, expires_at) => {
                json!({"job_seq": job, "outcome": outcome, "expires_at": expires_at})
            }
            Subject::Message(message) => json!({"quarantine_seq": message}),
            Subject::Switch(switch, _) => json!({"switch": switch}),
            Subject::Connection(connection) => json!({"connection_id": connection}),
        };
        if let (Some(row), Some(subject)) = (row.as_object_mut(), subject.as_object()) {
            row.extend(subject.clone());
        }
        row
    };
    let (expected, rows) = array(work.changes.actions.iter().map(row))?;
    let now_ms = work.now.as_millis();
    let result = sqlx::query!(
        "INSERT INTO actions (action_seq, at_ms, kind, who, reason, job_seq, quarantine_seq, switch,
             connection_id, outcome, expires_at_ms, bulk_id, detail)
         SELECT value ->> 'action_seq', ?2, value ->> 'kind', value ->> 'who', value ->> 'reason',
                value ->> 'job_seq', value ->> 'quarantine_seq', value ->> 'switch',
                value ->> 'connection_id', value ->> 'outcome', value ->> 'expires_at', value ->> 'bulk_id', value ->> 'detail'
         FROM json_each(?1)",
        rows,
        now_ms
    )
    .execute(connection)
    .await;
    expect(result, "the operators' actions", expected)
}

pub(super) async fn switches(
    connection: &mut SqliteConnection,
    work: &Work,
) -> Result<(), StoreError> {
    // There are three, and they are set by hand.
    for new in &work.changes.actions {
        let Subject::Switch(switch, on) = new.action.subject else { continue };
        let switch = switch.as_str();
        let result = sqlx::query!(
            "UPDATE switches SET is_on = ?2, action_seq = ?3 WHERE switch = ?1",
            switch,
            on,
            new.seq
        )
        .execute(&mut *connection)
        .await;
        expect(result, "a switch", 1)?;
    }
    Ok(())
}
