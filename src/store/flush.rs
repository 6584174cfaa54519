//! Writing what a batch changed, a statement per kind of row.
//!
//! Each statement takes its rows as one JSON array and must change exactly as many rows as the array
//! has; updates are guarded by what was read. Anything else rolls the whole batch back.

use serde_json::{Value, json};
use sqlx::{SqliteConnection, sqlite::SqliteQueryResult};

use super::{
    error::{StoreError, While as _},
    work::{Account, BadMessage, NewTransfer, Owner, TrackedJob, Work},
};
use crate::domain::{
    ids::{AttemptSeq, BookEventSeq, JobSeq},
    ledger::AccountKey,
};

/// Writes all changes of `work`; `key_id` is the number of the key that signed its attempts.
pub(super) async fn flush(
    connection: &mut SqliteConnection,
    work: &Work,
    key_id: i64,
) -> Result<(), StoreError> {
    // The order is that of the references between the tables. Attempts end before new ones begin,
    // because a job has at most one that is open.
    book_events(connection, work).await?;
    connections(connection, work).await?;
    currencies(connection, work).await?;
    new_accounts(connection, work).await?;
    new_jobs(connection, work).await?;
    decisions(connection, work).await?;
    changed_jobs(connection, work).await?;
    attempt_ends(connection, work).await?;
    new_attempts(connection, work, key_id).await?;
    transfers(connection, work).await?;
    changed_accounts(connection, work).await?;
    job_events(connection, work).await?;
    quarantine(connection, work).await?;
    outbox(connection, work).await?;
    published(connection, work).await?;
    job_counts(connection, work).await
}

fn array(rows: Vec<Value>) -> (usize, String) {
    (rows.len(), Value::Array(rows).to_string())
}

/// Insists on the number of rows that a statement changed.
fn expect(
    result: Result<SqliteQueryResult, sqlx::Error>,
    doing: &'static str,
    expected: usize,
) -> Result<(), StoreError> {
    let changed = result.while_doing(doing)?.rows_affected();
    if u64::try_from(expected) == Ok(changed) {
        Ok(())
    } else {
        Err(StoreError::Moved {
            doing,
            expected,
            changed,
        })
    }
}

async fn book_events(connection: &mut SqliteConnection, work: &Work) -> Result<(), StoreError> {
    if work.changes.book_events.is_empty() {
        return Ok(());
    }
    let (expected, rows) = array(
        work.changes
            .book_events
            .iter()
            .map(|new| {
                json!({
                    "event_seq": new.seq, "event_id": new.event.id(),
                    "kind": new.event.fact().kind(), "body": new.body,
                    "hash": crate::domain::book::body_hash(&new.body).to_string(),
                    "source": new.source,
                })
            })
            .collect(),
    );
    let now_ms = work.now.as_millis();
    let result = sqlx::query!(
        "INSERT INTO book_events (event_seq, event_id, kind, body, body_sha256, source, recorded_at_ms)
         SELECT value ->> 'event_seq', value ->> 'event_id', value ->> 'kind', value ->> 'body',
                unhex(value ->> 'hash'), value ->> 'source', ?2
         FROM json_each(?1)",
        rows,
        now_ms
    )
    .execute(connection)
    .await;
    expect(result, "the new book events", expected)
}

async fn connections(connection: &mut SqliteConnection, work: &Work) -> Result<(), StoreError> {
    if work.changes.connections.is_empty() {
        return Ok(());
    }
    let row = |(id, event): (_, &BookEventSeq)| {
        let known = work.connections.get(id)?;
        Some(json!({
            "connection_id": id, "client_id": known.client_id,
            "partners_client_id": known.partners_client_id,
            "partners_connection_id": known.partners_connection_id,
            "active": i32::from(known.active), "event_seq": event,
        }))
    };
    let (expected, rows) = array(work.changes.connections.iter().filter_map(row).collect());
    let result = sqlx::query!(
        "INSERT INTO connections (connection_id, client_id, partners_client_id,
             partners_connection_id, active, event_seq)
         SELECT value ->> 'connection_id', value ->> 'client_id', value ->> 'partners_client_id',
                value ->> 'partners_connection_id', value ->> 'active', value ->> 'event_seq'
         FROM json_each(?1) WHERE true
         ON CONFLICT (connection_id) DO UPDATE SET client_id = excluded.client_id,
             partners_client_id = excluded.partners_client_id,
             partners_connection_id = excluded.partners_connection_id,
             active = excluded.active, event_seq = excluded.event_seq",
        rows
    )
    .execute(connection)
    .await;
    expect(result, "the changed connections", expected)
}

async fn currencies(connection: &mut SqliteConnection, work: &Work) -> Result<(), StoreError> {
    if work.changes.currencies.is_empty() {
        return Ok(());
    }
    let row = |(code, event): (_, &BookEventSeq)| {
        let known = work.currencies.get(code)?;
        Some(json!({
            "currency": code, "enabled": i32::from(known.enabled),
            "quantity_min": known.quantity_min, "quantity_max": known.quantity_max,
            "event_seq": event,
        }))
    };
    let (expected, rows) = array(work.changes.currencies.iter().filter_map(row).collect());
    let result = sqlx::query!(
        "INSERT INTO currencies (currency, enabled, quantity_min, quantity_max, event_seq)
         SELECT value ->> 'currency', value ->> 'enabled', value ->> 'quantity_min',
                value ->> 'quantity_max', value ->> 'event_seq'
         FROM json_each(?1) WHERE true
         ON CONFLICT (currency) DO UPDATE SET enabled = excluded.enabled,
             quantity_min = excluded.quantity_min, quantity_max = excluded.quantity_max,
             event_seq = excluded.event_seq",
        rows
    )
    .execute(connection)
    .await;
    expect(result, "the changed currencies", expected)
}

async fn new_accounts(connection: &mut SqliteConnection, work: &Work) -> Result<(), StoreError> {
    let row = |(key, account): (&AccountKey, &Account)| {
        account.before.is_none().then(|| {
            json!({
                "account_seq": account.seq, "connection_id": key.connection_id,
                "currency": key.currency, "kind": key.kind,
                "debits": account.totals.debits, "credits": account.totals.credits,
            })
        })
    };
    let (expected, rows) = array(work.accounts.iter().filter_map(row).collect());
    if expected == 0 {
        return Ok(());
    }
    let result = sqlx::query!(
        "INSERT INTO accounts (account_seq, connection_id, currency, kind, debits, credits)
         SELECT value ->> 'account_seq', value ->> 'connection_id', value ->> 'currency',
                value ->> 'kind', value ->> 'debits', value ->> 'credits'
         FROM json_each(?1)",
        rows
    )
    .execute(connection)
    .await;
    expect(result, "the new accounts", expected)
}

async fn changed_accounts(
    connection: &mut SqliteConnection,
    work: &Work,
) -> Result<(), StoreError> {
    let row = |account: &Account| {
        let before = account.before.filter(|before| *before != account.totals)?;
        Some(json!({
            "account_seq": account.seq,
            "debits": account.totals.debits, "credits": account.totals.credits,
            "old_debits": before.debits, "old_credits": before.credits,
        }))
    };
    let (expected, rows) = array(work.accounts.values().filter_map(row).collect());
    if expected == 0 {
        return Ok(());
    }
    let result = sqlx::query!(
        "UPDATE accounts SET debits = new.value ->> 'debits', credits = new.value ->> 'credits'
         FROM json_each(?1) AS new
         WHERE account_seq = new.value ->> 'account_seq'
           AND accounts.debits = new.value ->> 'old_debits'
           AND accounts.credits = new.value ->> 'old_credits'",
        rows
    )
    .execute(connection)
    .await;
    expect(result, "the changed accounts", expected)
}

/// The columns of a job that change in its life.
fn progress(tracked: &TrackedJob) -> Value {
    let job = &tracked.job;
    json!({
        "job_seq": job.seq, "old_state": tracked.before,
        "state": job.state.name(), "reason": job.state.reason(), "since": job.state_since,
        "outcome": job.decision.as_ref().map(crate::domain::decision::Decision::outcome),
        "final_outcome": job.final_outcome, "next_step_at": job.next_step_at,
        "attempts_made": job.attempts_made, "attempts_counted": job.attempts_counted,
        "reads_made": job.reads_made,
    })
}

async fn new_jobs(connection: &mut SqliteConnection, work: &Work) -> Result<(), StoreError> {
    let row = |tracked: &TrackedJob| {
        tracked.before.is_none().then(|| {
            let terms = &tracked.job.terms;
            json!({
                "record_id": terms.record_id, "type": terms.job_type,
                "currency": terms.amount.currency(), "quantity": terms.amount.quantity(),
                "client_id": terms.client_id, "connection_id": terms.connection_id,
                "partners_client_id": terms.partners_client_id,
                "partners_connection_id": terms.partners_connection_id,
                "partners_record_id": terms.partners_record_id,
                "hash": tracked.job.content_hash.to_string(),
                "received_at": tracked.job.received_at, "progress": progress(tracked),
            })
        })
    };
    let (expected, rows) = array(work.jobs.values().filter_map(row).collect());
    if expected == 0 {
        return Ok(());
    }
    let result = sqlx::query!(
        "INSERT INTO jobs (job_seq, record_id, type, currency, quantity, client_id, connection_id,
             partners_client_id, partners_connection_id, partners_record_id, content_sha256,
             received_at_ms, state, state_reason, state_since_ms, outcome, final_outcome,
             next_step_at_ms, attempts_made, attempts_counted, reads_made)
         SELECT value ->> '$.progress.job_seq', value ->> 'record_id', value ->> 'type',
                value ->> 'currency', value ->> 'quantity', value ->> 'client_id',
                value ->> 'connection_id', value ->> 'partners_client_id',
                value ->> 'partners_connection_id', value ->> 'partners_record_id',
                unhex(value ->> 'hash'), value ->> 'received_at', value ->> '$.progress.state',
                value ->> '$.progress.reason', value ->> '$.progress.since',
                value ->> '$.progress.outcome', value ->> '$.progress.final_outcome',
                value ->> '$.progress.next_step_at', value ->> '$.progress.attempts_made',
                value ->> '$.progress.attempts_counted', value ->> '$.progress.reads_made'
         FROM json_each(?1)",
        rows
    )
    .execute(&mut *connection)
    .await;
    expect(result, "the new jobs", expected)?;

    let (expected, rows) = array(
        work.changes
            .raw_messages
            .iter()
            .map(|(job, raw)| json!({"job_seq": job, "raw": raw}))
            .collect(),
    );
    let result = sqlx::query!(
        "INSERT INTO messages (job_seq, raw)
         SELECT value ->> 'job_seq', value ->> 'raw' FROM json_each(?1)",
        rows
    )
    .execute(connection)
    .await;
    expect(result, "the new jobs' messages", expected)
}

async fn changed_jobs(connection: &mut SqliteConnection, work: &Work) -> Result<(), StoreError> {
    let changed = work
        .jobs
        .values()
        .filter(|job| job.changed && job.before.is_some());
    let (expected, rows) = array(changed.map(progress).collect());
    if expected == 0 {
        return Ok(());
    }
    let result = sqlx::query!(
        "UPDATE jobs SET state = new.value ->> 'state', state_reason = new.value ->> 'reason',
             state_since_ms = new.value ->> 'since', outcome = new.value ->> 'outcome',
             final_outcome = new.value ->> 'final_outcome',
             next_step_at_ms = new.value ->> 'next_step_at',
             attempts_made = new.value ->> 'attempts_made',
             attempts_counted = new.value ->> 'attempts_counted',
             reads_made = new.value ->> 'reads_made'
         FROM json_each(?1) AS new
         WHERE job_seq = new.value ->> 'job_seq' AND jobs.state = new.value ->> 'old_state'",
        rows
    )
    .execute(connection)
    .await;
    expect(result, "the changed jobs", expected)
}

async fn decisions(connection: &mut SqliteConnection, work: &Work) -> Result<(), StoreError> {
    if work.changes.decisions.is_empty() {
        return Ok(());
    }
    let row = |new: &super::work::NewDecision| {
        let decision = work.jobs.get(&new.job)?.job.decision.as_ref()?;
        Some(json!({
            "job_seq": new.job, "outcome": decision.outcome(), "code": decision.reject_code(),
            "reject_reason": decision.reject_reason(), "seen": new.seen,
        }))
    };
    let (expected, rows) = array(work.changes.decisions.iter().filter_map(row).collect());
    let now_ms = work.now.as_millis();
    let result = sqlx::query!(
        "INSERT INTO decisions (job_seq, outcome, reject_code, reject_reason, source, seen, decided_at_ms)
         SELECT value ->> 'job_seq', value ->> 'outcome', value ->> 'code', value ->> 'reject_reason',
                'policy', value ->> 'seen', ?2
         FROM json_each(?1)",
        rows,
        now_ms
    )
    .execute(connection)
    .await;
    expect(result, "the new decisions", expected)
}

async fn new_attempts(
    connection: &mut SqliteConnection,
    work: &Work,
    key_id: i64,
) -> Result<(), StoreError> {
    if work.changes.attempts.is_empty() {
        return Ok(());
    }
    let row = |(seq, number, new): &(AttemptSeq, u32, super::work::NewAttempt)| {
        json!({
            "attempt_seq": seq, "job_seq": new.job, "attempt_no": number, "outcome": new.outcome,
            "nonce": new.nonce, "body": new.body, "signature": new.signature,
        })
    };
    let (expected, rows) = array(work.changes.attempts.iter().map(row).collect());
    let now_ms = work.now.as_millis();
    let result = sqlx::query!(
        "INSERT INTO attempts (attempt_seq, job_seq, attempt_no, outcome, nonce, body, signature,
             key_id, prepared_at_ms)
         SELECT value ->> 'attempt_seq', value ->> 'job_seq', value ->> 'attempt_no',
                value ->> 'outcome', value ->> 'nonce', value ->> 'body', value ->> 'signature', ?2, ?3
         FROM json_each(?1)",
        rows,
        key_id,
        now_ms
    )
    .execute(connection)
    .await;
    expect(result, "the new attempts", expected)
}

async fn attempt_ends(connection: &mut SqliteConnection, work: &Work) -> Result<(), StoreError> {
    if work.changes.attempt_ends.is_empty() {
        return Ok(());
    }
    let row = |(seq, end): &(AttemptSeq, super::work::AttemptEnd)| {
        json!({
            "attempt_seq": seq, "result": end.result, "status": end.http_status,
            "request_id": end.request_id, "response": end.response, "detail": end.detail,
        })
    };
    let (expected, rows) = array(work.changes.attempt_ends.iter().map(row).collect());
    let now_ms = work.now.as_millis();
    let result = sqlx::query!(
        "UPDATE attempts SET result = new.value ->> 'result', http_status = new.value ->> 'status',
             request_id = new.value ->> 'request_id', response = new.value ->> 'response',
             detail = new.value ->> 'detail', finished_at_ms = ?2
         FROM json_each(?1) AS new
         WHERE attempt_seq = new.value ->> 'attempt_seq' AND attempts.result IS NULL",
        rows,
        now_ms
    )
    .execute(connection)
    .await;
    expect(result, "the results of attempts", expected)
}

async fn transfers(connection: &mut SqliteConnection, work: &Work) -> Result<(), StoreError> {
    if work.changes.transfers.is_empty() {
        return Ok(());
    }
    let row = |new: &NewTransfer| {
        let (job, event): (Option<JobSeq>, Option<BookEventSeq>) = match new.owner {
            Owner::Job(seq) => (Some(seq), None),
            Owner::BookEvent(seq) => (None, Some(seq)),
        };
        json!({
            "transfer_seq": new.seq, "job_seq": job, "event_seq": event,
            "phase": new.movement.phase, "debit": new.debit, "credit": new.credit,
            "quantity": new.movement.quantity,
        })
    };
    let (expected, rows) = array(work.changes.transfers.iter().map(row).collect());
    let now_ms = work.now.as_millis();
    let result = sqlx::query!(
        "INSERT INTO transfers (transfer_seq, job_seq, event_seq, phase, debit_account,
             credit_account, quantity, booked_at_ms)
         SELECT value ->> 'transfer_seq', value ->> 'job_seq', value ->> 'event_seq',
                value ->> 'phase', value ->> 'debit', value ->> 'credit', value ->> 'quantity', ?2
         FROM json_each(?1)",
        rows,
        now_ms
    )
    .execute(connection)
    .await;
    expect(result, "the new movements", expected)
}

async fn job_events(connection: &mut SqliteConnection, work: &Work) -> Result<(), StoreError> {
    if work.changes.job_events.is_empty() {
        return Ok(());
    }
    let row = |new: &super::work::NewJobEvent| {
        json!({
            "event_seq": new.seq, "job_seq": new.job, "kind": new.kind.as_str(),
            "detail": new.detail,
        })
    };
    let (expected, rows) = array(work.changes.job_events.iter().map(row).collect());
    let now_ms = work.now.as_millis();
    let result = sqlx::query!(
        "INSERT INTO job_events (event_seq, job_seq, at_ms, kind, detail)
         SELECT value ->> 'event_seq', value ->> 'job_seq', ?2, value ->> 'kind', value ->> 'detail'
         FROM json_each(?1)",
        rows,
        now_ms
    )
    .execute(connection)
    .await;
    expect(result, "the new job events", expected)
}

async fn quarantine(connection: &mut SqliteConnection, work: &Work) -> Result<(), StoreError> {
    let now_ms = work.now.as_millis();
    // Bad messages are rare and may be any bytes, so they are bound one by one.
    for (seq, message) in &work.changes.quarantined {
        let BadMessage {
            queue,
            sha256,
            bytes,
            refusal,
            record_id,
        } = message;
        let (seq, sha256) = (seq.get(), sha256.as_slice());
        let (code, detail) = (refusal.code.as_str(), refusal.detail.as_str());
        let record_id = record_id.map(|id| id.to_string());
        let result = sqlx::query!(
            "INSERT INTO quarantine (quarantine_seq, queue, sha256, bytes, code, detail, record_id,
                 times_seen, first_seen_ms, last_seen_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 1, ?8, ?8)",
            seq,
            queue,
            sha256,
            bytes,
            code,
            detail,
            record_id,
            now_ms
        )
        .execute(&mut *connection)
        .await;
        expect(result, "a quarantined message", 1)?;
    }
    if work.changes.seen_again.is_empty() {
        return Ok(());
    }
    let (expected, rows) = array(
        work.changes
            .seen_again
            .iter()
            .map(|(seq, times)| json!({"seq": seq, "times": times}))
            .collect(),
    );
    let result = sqlx::query!(
        "UPDATE quarantine SET times_seen = times_seen + (again.value ->> 'times'), last_seen_ms = ?2
         FROM json_each(?1) AS again WHERE quarantine_seq = again.value ->> 'seq'",
        rows,
        now_ms
    )
    .execute(connection)
    .await;
    expect(result, "the counts of quarantined messages", expected)
}

async fn outbox(connection: &mut SqliteConnection, work: &Work) -> Result<(), StoreError> {
    let outcomes = work.changes.outcomes.iter().map(|(seq, message)| {
        json!({
            "outbox_seq": seq, "kind": "outcome", "job_seq": message.job,
            "event_id": message.event_id, "routing_key": message.routing_key,
            "body": message.body,
        })
    });
    let dead_letters =
        work.changes
            .dead_letters
            .iter()
            .map(|(seq, quarantined, event_id, routing_key)| {
                json!({
                    "outbox_seq": seq, "kind": "dead_letter", "quarantine_seq": quarantined,
                    "event_id": event_id, "routing_key": routing_key,
                })
            });
    let (expected, rows) = array(outcomes.chain(dead_letters).collect());
    if expected == 0 {
        return Ok(());
    }
    let now_ms = work.now.as_millis();
    let result = sqlx::query!(
        "INSERT INTO outbox (outbox_seq, kind, job_seq, quarantine_seq, event_id, routing_key, body,
             created_at_ms)
         SELECT value ->> 'outbox_seq', value ->> 'kind', value ->> 'job_seq',
                value ->> 'quarantine_seq', value ->> 'event_id', value ->> 'routing_key',
                value ->> 'body', ?2
         FROM json_each(?1)",
        rows,
        now_ms
    )
    .execute(connection)
    .await;
    expect(result, "the new announcements", expected)
}

async fn published(connection: &mut SqliteConnection, work: &Work) -> Result<(), StoreError> {
    if work.changes.published.is_empty() {
        return Ok(());
    }
    let (expected, rows) = array(
        work.changes
            .published
            .iter()
            .map(|seq| json!(seq))
            .collect(),
    );
    let now_ms = work.now.as_millis();
    let result = sqlx::query!(
        "UPDATE outbox SET published_at_ms = ?2
         WHERE outbox_seq IN (SELECT value FROM json_each(?1)) AND published_at_ms IS NULL",
        rows,
        now_ms
    )
    .execute(connection)
    .await;
    expect(result, "the published announcements", expected)
}

async fn job_counts(connection: &mut SqliteConnection, work: &Work) -> Result<(), StoreError> {
    let row = |((state, job_type), by): (&(&'static str, _), &i64)| {
        (*by != 0).then(|| json!({"state": state, "type": job_type, "by": by}))
    };
    let (expected, rows) = array(work.changes.counts.iter().filter_map(row).collect());
    if expected == 0 {
        return Ok(());
    }
    let result = sqlx::query!(
        "UPDATE job_counts SET jobs = jobs + (change.value ->> 'by')
         FROM json_each(?1) AS change
         WHERE job_counts.state = change.value ->> 'state'
           AND job_counts.type = change.value ->> 'type'",
        rows
    )
    .execute(connection)
    .await;
    expect(result, "the counts of jobs", expected)
}
