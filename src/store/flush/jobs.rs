//! Jobs, their decisions, attempts and history.

use sqlx::SqliteConnection;

use super::{array, expect, list, row};
use crate::{
    domain::{
        decision::{DecidedBy, Decision},
        job::Job,
        state::State,
    },
    store::{StoreError, work::Work},
};

/// A job's row: the columns that change in its life at the places 0 to 16, and those that it has from its
/// beginning from 17 on.
macro_rules! job_row {
    ($tracked:expr $(, $column:ident: $value:expr)* $(,)?) => {{
        let job = &$tracked.job;
        list! {
            job_seq: job.seq, old_state: $tracked.before,
            state: job.state.name(), reason: job.state.reason(), since: job.state_since,
            outcome: job.decision.as_ref().map(Decision::outcome),
            final_outcome: job.final_outcome, next_step_at: job.next_step_at,
            attempts_made: job.attempts_made, attempts_counted: job.attempts_counted,
            reads_made: job.reads_made, absences: job.absences, tried_since: job.tried_since,
            verified_at: job.verified_at, approval_before: &job.approval_before,
            gate_ms: job.waits_since.map(|open| u64::try_from(open.as_millis()).unwrap_or(u64::MAX)),
            waits_for_book: i32::from(job.waits_for_book),
            $($column: $value),*
        }
    }};
}

pub(super) async fn new_jobs(
    connection: &mut SqliteConnection,
    work: &Work,
) -> Result<(), StoreError> {
    let new = work.jobs.values().filter(|tracked| tracked.before.is_none());
    let rows = new.map(|tracked| {
        let terms = &tracked.job.terms;
        job_row! {
            tracked,
            record_id: terms.record_id, job_type: terms.job_type,
            currency: terms.amount.currency(), quantity: terms.amount.quantity(),
            client_id: terms.client_id, connection_id: terms.connection_id,
            partners_client_id: &terms.partners_client_id,
            partners_connection_id: &terms.partners_connection_id,
            partners_record_id: &terms.partners_record_id,
            hash: tracked.job.content_hash.to_string(),
            received_at: tracked.job.received_at,
            book_sequence: tracked.job.book_sequence,
        }
    });
    let (expected, rows) = array(rows)?;
    if expected == 0 {
        return Ok(());
    }
    let result = sqlx::query!(
        "INSERT INTO jobs (job_seq, record_id, type, currency, quantity, client_id, connection_id,
             partners_client_id, partners_connection_id, partners_record_id, content_sha256,
             received_at_ms, state, state_reason, state_since_ms, outcome, final_outcome,
             next_step_at_ms, attempts_made, attempts_counted, reads_made, absences, tried_since_ms,
             verified_at_ms, approval_before, book_sequence, gate_ms, waits_for_book)
         SELECT value ->> 0, value ->> 17, value ->> 18, value ->> 19, value ->> 20, value ->> 21,
                value ->> 22, value ->> 23, value ->> 24, value ->> 25, unhex(value ->> 26),
                value ->> 27, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6,
                value ->> 7, value ->> 8, value ->> 9, value ->> 10, value ->> 11, value ->> 12,
                value ->> 13, value ->> 14, value ->> 28, value ->> 15, value ->> 16
         FROM jsonb_each(?1)",
        rows
    )
    .execute(&mut *connection)
    .await;
    expect(result, "the new jobs", expected)?;

    let messages = work.changes.raw_messages.iter();
    let (expected, rows) = array(messages.map(|(job, raw)| row! { job_seq: job, raw: raw }))?;
    let result = sqlx::query!(
        "INSERT INTO messages (job_seq, raw)
         SELECT value ->> 'job_seq', value ->> 'raw' FROM jsonb_each(?1)",
        rows
    )
    .execute(connection)
    .await;
    expect(result, "the new jobs' messages", expected)
}

/// Jobs that give their record's id up, so that another one can have it.
pub(super) async fn refused_jobs(
    connection: &mut SqliteConnection,
    work: &Work,
) -> Result<(), StoreError> {
    change_jobs(connection, work, |job| job.state == State::Refused).await
}

pub(super) async fn changed_jobs(
    connection: &mut SqliteConnection,
    work: &Work,
) -> Result<(), StoreError> {
    change_jobs(connection, work, |job| job.state != State::Refused).await
}

async fn change_jobs(
    connection: &mut SqliteConnection,
    work: &Work,
    fits: impl Fn(&Job) -> bool,
) -> Result<(), StoreError> {
    let known = work.jobs.values().filter(|tracked| tracked.before.is_some());
    let changed = known.filter(|tracked| tracked.changed && fits(&tracked.job));
    let (expected, rows) = array(changed.map(|tracked| job_row!(tracked)))?;
    if expected == 0 {
        return Ok(());
    }
    let result = sqlx::query!(
        "UPDATE jobs SET state = new.value ->> 2, state_reason = new.value ->> 3,
             state_since_ms = new.value ->> 4, outcome = new.value ->> 5,
             final_outcome = new.value ->> 6, next_step_at_ms = new.value ->> 7,
             attempts_made = new.value ->> 8, attempts_counted = new.value ->> 9,
             reads_made = new.value ->> 10, absences = new.value ->> 11,
             tried_since_ms = new.value ->> 12, verified_at_ms = new.value ->> 13,
             approval_before = new.value ->> 14, gate_ms = new.value ->> 15,
             waits_for_book = new.value ->> 16
         FROM jsonb_each(?1) AS new
         WHERE job_seq = new.value ->> 0 AND jobs.state = new.value ->> 1",
        rows
    )
    .execute(connection)
    .await;
    expect(result, "the changed jobs", expected)
}

pub(super) async fn decisions(
    connection: &mut SqliteConnection,
    work: &Work,
) -> Result<(), StoreError> {
    if work.changes.decisions.is_empty() {
        return Ok(());
    }
    let rows = work.changes.decisions.iter().filter_map(|new| {
        let decision = work.jobs.get(&new.job)?.job.decision.as_ref()?;
        let (source, who, reason) = match &new.by {
            DecidedBy::Policy => ("policy", None, None),
            DecidedBy::Operator { who, reason } => ("operator", Some(who), Some(reason)),
            DecidedBy::Oes => ("oes", None, None),
        };
        Some(row! {
            job_seq: new.job, outcome: decision.outcome(), code: decision.reject_code(),
            reject_reason: decision.reject_reason(), source: source, seen: &new.seen,
            by: who, because: reason,
        })
    });
    let (expected, rows) = array(rows)?;
    let now_ms = work.now.as_millis();
    let result = sqlx::query!(
        "INSERT INTO decisions (job_seq, outcome, reject_code, reject_reason, source, seen, decided_at_ms,
             decided_by, decided_because)
         SELECT value ->> 'job_seq', value ->> 'outcome', value ->> 'code', value ->> 'reject_reason',
                value ->> 'source', value ->> 'seen', ?2, value ->> 'by', value ->> 'because'
         FROM jsonb_each(?1)",
        rows,
        now_ms
    )
    .execute(connection)
    .await;
    expect(result, "the new decisions", expected)
}

pub(super) async fn new_attempts(
    connection: &mut SqliteConnection,
    work: &Work,
    key_id: i64,
) -> Result<(), StoreError> {
    if work.changes.attempts.is_empty() {
        return Ok(());
    }
    let rows = work.changes.attempts.iter().map(|new| {
        row! {
            attempt_seq: new.seq, job_seq: new.job, attempt_no: new.number, outcome: new.outcome,
            nonce: &new.nonce, body: &new.body, signature: &new.signature,
        }
    });
    let (expected, rows) = array(rows)?;
    let now_ms = work.now.as_millis();
    let result = sqlx::query!(
        "INSERT INTO attempts (attempt_seq, job_seq, attempt_no, outcome, nonce, body, signature,
             key_id, prepared_at_ms)
         SELECT value ->> 'attempt_seq', value ->> 'job_seq', value ->> 'attempt_no',
                value ->> 'outcome', value ->> 'nonce', value ->> 'body', value ->> 'signature', ?2, ?3
         FROM jsonb_each(?1)",
        rows,
        key_id,
        now_ms
    )
    .execute(connection)
    .await;
    expect(result, "the new attempts", expected)
}

pub(super) async fn attempt_ends(
    connection: &mut SqliteConnection,
    work: &Work,
) -> Result<(), StoreError> {
    if work.changes.attempt_ends.is_empty() {
        return Ok(());
    }
    let rows = work.changes.attempt_ends.iter().map(|(seq, end)| {
        row! {
            attempt_seq: *seq, result: end.result, status: end.http_status,
            request_id: &end.request_id, response: &end.response, detail: &end.detail,
        }
    });
    let (expected, rows) = array(rows)?;
    let now_ms = work.now.as_millis();
    let result = sqlx::query!(
        "UPDATE attempts SET result = new.value ->> 'result', http_status = new.value ->> 'status',
             request_id = new.value ->> 'request_id', response = new.value ->> 'response',
             detail = new.value ->> 'detail', finished_at_ms = ?2
         FROM jsonb_each(?1) AS new
         WHERE attempt_seq = new.value ->> 'attempt_seq' AND attempts.result IS NULL",
        rows,
        now_ms
    )
    .execute(connection)
    .await;
    expect(result, "the results of attempts", expected)
}

pub(super) async fn job_events(
    connection: &mut SqliteConnection,
    work: &Work,
) -> Result<(), StoreError> {
    if work.changes.job_events.is_empty() {
        return Ok(());
    }
    let rows = work.changes.job_events.iter().map(|new| {
        row! {
            event_seq: new.seq, job_seq: new.job, kind: new.kind.as_str(), detail: &new.detail,
        }
    });
    let (expected, rows) = array(rows)?;
    let now_ms = work.now.as_millis();
    let result = sqlx::query!(
        "INSERT INTO job_events (event_seq, job_seq, at_ms, kind, detail)
         SELECT value ->> 'event_seq', value ->> 'job_seq', ?2, value ->> 'kind', value ->> 'detail'
         FROM jsonb_each(?1)",
        rows,
        now_ms
    )
    .execute(connection)
    .await;
    expect(result, "the new job events", expected)
}

pub(super) async fn job_counts(
    connection: &mut SqliteConnection,
    work: &Work,
) -> Result<(), StoreError> {
    let row = |((state, job_type), by): (&(&'static str, _), &i64)| {
        (*by != 0).then(|| row! { state: *state, job_type: *job_type, by: *by })
    };
    let (expected, rows) = array(work.changes.counts.iter().filter_map(row))?;
    if expected == 0 {
        return Ok(());
    }
    let result = sqlx::query!(
        "UPDATE job_counts SET jobs = jobs + (change.value ->> 'by')
         FROM jsonb_each(?1) AS change
         WHERE job_counts.state = change.value ->> 'state'
           AND job_counts.type = change.value ->> 'job_type'",
        rows
    )
    .execute(connection)
    .await;
    expect(result, "the counts of jobs", expected)
}
