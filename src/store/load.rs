//! Reading the rows that a batch needs, a statement per kind of row.

mod accused;
mod actions;
mod due;
mod feeds;
mod sums;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sqlx::SqliteConnection;

use super::{
    error::{StoreError, While as _, unreadable},
    kept::{self, Kept, Wanted},
    open::Readers,
    rows::{CurrencyRow, JobRow, hash_of, parse},
    work::{Account, ContentHashKey, Counters, Needs, TrackedJob, Work},
};
use crate::domain::{
    book::Connection,
    ids::{ConnectionId, CurrencyCode, JobSeq, QuarantineSeq, RecordId},
    ledger::{AccountKey, AccountKind, AccountTotals},
    state::State,
    time::TimestampMs,
    turns::Turns,
};

const LOADING: &str = "reading the rows of a batch";

impl Counters {
    /// The last row numbers in the book.
    pub(super) async fn load(connection: &mut SqliteConnection) -> Result<Self, StoreError> {
        // What stands in an archive has its number for ever.
        let row = sqlx::query!(
            r#"SELECT
                (SELECT coalesce(max(job_seq), 0) FROM jobs) AS "job!: i64",
                max((SELECT coalesce(max(attempt_seq), 0) FROM attempts),
                    (SELECT coalesce(max(attempt_seq), 0) FROM archives),
                    (SELECT coalesce(max(mark_attempt), 0) FROM restores)) AS "attempt!: i64",
                (SELECT max(accepted_at_ms) FROM restores) AS "restored_at_ms?: i64",
                (SELECT coalesce(max(account_seq), 0) FROM accounts) AS "account!: i64",
                max((SELECT coalesce(max(transfer_seq), 0) FROM transfers),
                    (SELECT coalesce(max(transfer_seq), 0) FROM archives)) AS "transfer!: i64",
                (SELECT coalesce(max(event_seq), 0) FROM book_events) AS "book_event!: i64",
                max((SELECT coalesce(max(event_seq), 0) FROM job_events),
                    (SELECT coalesce(max(job_event_seq), 0) FROM archives)) AS "job_event!: i64",
                (SELECT coalesce(max(quarantine_seq), 0) FROM quarantine) AS "quarantine!: i64",
                max((SELECT coalesce(max(outbox_seq), 0) FROM outbox),
                    (SELECT coalesce(max(outbox_seq), 0) FROM archives)) AS "outbox!: i64",
                (SELECT coalesce(max(action_seq), 0) FROM actions) AS "action!: i64",
                (SELECT coalesce(max(finding_seq), 0) FROM feed_findings) AS "finding!: i64",
                (SELECT gate_open_ms FROM feed_state) AS "gate_open_ms!: i64",
                (SELECT heartbeat_sent_at_ms FROM feed_state) AS "heartbeat_ms?: i64""#
        )
        .fetch_one(connection)
        .await
        .while_doing("reading the last row numbers")?;
        Ok(Self {
            job: row.job,
            attempt: row.attempt,
            account: row.account,
            transfer: row.transfer,
            book_event: row.book_event,
            job_event: row.job_event,
            quarantine: row.quarantine,
            outbox: row.outbox,
            action: row.action,
            turns: Turns::default(),
            finding: row.finding,
            gate_open_ms: row.gate_open_ms,
            heartbeat: row.heartbeat_ms.map(TimestampMs::from_millis),
            restored_at: row.restored_at_ms.map(TimestampMs::from_millis),
        })
    }
}

impl Readers {
    /// The book as a batch would see it that is about one record; nothing can be written from here.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn work_on(&self, record: RecordId, now: TimestampMs) -> Result<Work, StoreError> {
        let mut transaction = self.pool.begin().await.while_doing(LOADING)?;
        let counters = Counters::load(&mut transaction).await?;
        let needs = Needs { records: BTreeSet::from([record]), ..Needs::default() };
        let (work, _) = load(&mut transaction, &Kept::default(), now, counters, &needs).await?;
        Ok(work)
    }
}

/// Shows everything that `needs` names and what belongs to it. What is not kept is read.
pub(super) async fn load(
    connection: &mut SqliteConnection,
    kept: &Kept,
    now: TimestampMs,
    counters: Counters,
    needs: &Needs,
) -> Result<(Work, Wanted), StoreError> {
    let (work, wanted) = load_unkept(connection, kept, now, counters, needs).await?;
    // Tests run without optimisation, and see with each batch whether what is kept is what the book has.
    if cfg!(debug_assertions) {
        let (read, _) = load_unkept(connection, &Kept::default(), now, counters, needs).await?;
        kept::compare(&work, &read)?;
    }
    Ok((work, wanted))
}

async fn load_unkept(
    connection: &mut SqliteConnection,
    kept: &Kept,
    now: TimestampMs,
    counters: Counters,
    needs: &Needs,
) -> Result<(Work, Wanted), StoreError> {
    let mut work = Work::new(now, counters);
    let mut jobs = needs.jobs.clone();
    due::find_due(connection, &mut work, needs).await?;
    jobs.extend(work.due_attempts.iter().chain(&work.due_decisions));
    let jobs = kept.show_jobs(&mut work, jobs);
    load_jobs(connection, &mut work, &jobs, &needs.records).await?;
    accused::load_refused(connection, &mut work, &needs.records).await?;
    let quarantined = accused::load_accused(connection, &mut work, needs).await?;

    let wanted = Wanted::of(&work, needs);
    let unknown = kept.show(&mut work, &wanted);
    load_connections(connection, &mut work, &unknown.connections).await?;
    feeds::load_feeds(connection, &mut work, &unknown.connections).await?;
    feeds::load_whole_connections(connection, &mut work, needs).await?;
    load_currencies(connection, &mut work, &unknown.currencies).await?;
    load_accounts(connection, &mut work, &unknown.accounts).await?;
    sums::load_connection_caps(connection, &mut work, &unknown.accounts).await?;
    sums::load_currency_totals(connection, &mut work, &unknown.currencies).await?;
    sums::load_daily(connection, &mut work, &unknown.days).await?;
    load_book_events(connection, &mut work, needs).await?;
    load_quarantined(connection, &mut work, &quarantined).await?;
    actions::load_proposals(connection, &mut work, needs).await?;
    Ok((work, wanted))
}

/// Keys as the JSON array that `json_each` reads.
fn keys<T: Serialize>(keys: impl IntoIterator<Item = T>) -> Result<String, StoreError> {
    let keys: Vec<T> = keys.into_iter().collect();
    serde_json::to_string(&keys)
        .map_err(|error| StoreError::Refused { doing: LOADING, reason: error.to_string() })
}

async fn load_jobs(
    connection: &mut SqliteConnection,
    work: &mut Work,
    jobs: &BTreeSet<JobSeq>,
    records: &BTreeSet<RecordId>,
) -> Result<(), StoreError> {
    if jobs.is_empty() && records.is_empty() {
        return Ok(());
    }
    let (jobs, records) = (keys(jobs)?, keys(records)?);
    let rows = sqlx::query_as!(
        JobRow,
        r#"SELECT job_seq AS "job_seq!", record_id, type AS job_type, currency, quantity,
            client_id, connection_id, partners_client_id, partners_connection_id,
            partners_record_id, content_sha256, received_at_ms, state, state_reason,
            state_since_ms, jobs.outcome, final_outcome, next_step_at_ms, attempts_made,
            attempts_counted, reads_made, absences, tried_since_ms, verified_at_ms, approval_before,
            book_sequence, gate_ms, waits_for_book AS "waits_for_book: bool", decided_at_ms AS "decided_at_ms?", reject_code, reject_reason
         FROM jobs LEFT JOIN decisions USING (job_seq)
         WHERE job_seq IN (SELECT value FROM json_each(?1))
            OR (state <> 'refused' AND record_id IN (SELECT value FROM json_each(?2)))"#,
        jobs,
        records
    )
    .fetch_all(&mut *connection)
    .await
    .while_doing(LOADING)?;
    for row in rows {
        let job = row.into_job()?;
        if job.state != State::Refused {
            work.by_record.insert(job.terms.record_id, job.seq);
        }
        let before = Some(job.state.name());
        work.jobs.insert(job.seq, TrackedJob { job, before, changed: false });
    }
    Ok(())
}

async fn load_connections(
    connection: &mut SqliteConnection,
    work: &mut Work,
    ids: &BTreeSet<ConnectionId>,
) -> Result<(), StoreError> {
    if ids.is_empty() {
        return Ok(());
    }
    let wanted = keys(ids)?;
    let rows = sqlx::query!(
        r#"SELECT connection_id, client_id, partners_client_id, partners_connection_id,
            active AS "active: bool"
         FROM connections WHERE connection_id IN (SELECT value FROM json_each(?1))"#,
        wanted
    )
    .fetch_all(connection)
    .await
    .while_doing(LOADING)?;
    for row in rows {
        let connection = Connection {
            connection_id: parse("connections", &row.connection_id)?,
            client_id: parse("connections", &row.client_id)?,
            partners_client_id: parse("connections", &row.partners_client_id)?,
            partners_connection_id: parse("connections", &row.partners_connection_id)?,
            active: row.active,
        };
        work.connections.insert(connection.connection_id, connection);
    }
    Ok(())
}

async fn load_currencies(
    connection: &mut SqliteConnection,
    work: &mut Work,
    codes: &BTreeSet<CurrencyCode>,
) -> Result<(), StoreError> {
    if codes.is_empty() {
        return Ok(());
    }
    let wanted = keys(codes)?;
    let rows = sqlx::query_as!(
        CurrencyRow,
        r#"SELECT currency, enabled AS "enabled: bool", quantity_min, quantity_max,
            exposure_max_total, exposure_max_per_connection, daily_allocation_max_per_connection,
            daily_deallocation_max_per_connection, approval_above, decimals
         FROM currencies WHERE currency IN (SELECT value FROM json_each(?1))"#,
        wanted
    )
    .fetch_all(connection)
    .await
    .while_doing(LOADING)?;
    for row in rows {
        let currency = row.into_currency()?;
        work.currencies.insert(currency.currency.clone(), currency);
    }
    Ok(())
}

async fn load_accounts(
    connection: &mut SqliteConnection,
    work: &mut Work,
    wanted: &BTreeSet<(ConnectionId, CurrencyCode)>,
) -> Result<(), StoreError> {
    if wanted.is_empty() {
        return Ok(());
    }
    let wanted = keys(wanted)?;
    let rows = sqlx::query_scalar!(
        r#"SELECT json_group_array(json_array(account_seq, connection_id, currency, kind, debits,
               credits)) AS "rows!: String"
           FROM json_each(?1) AS wanted
           JOIN accounts ON connection_id = wanted.value ->> 0 AND currency = wanted.value ->> 1"#,
        wanted
    )
    .fetch_one(connection)
    .await
    .while_doing(LOADING)?;
    for row in in_one::<AccountRow>("accounts", &rows)? {
        add_account(work, &row)?;
    }
    Ok(())
}

/// A row of `accounts`, its columns in this order.
#[derive(Deserialize)]
struct AccountRow {
    account_seq: i64,
    connection_id: String,
    currency: String,
    kind: String,
    debits: String,
    credits: String,
}

fn add_account(work: &mut Work, row: &AccountRow) -> Result<(), StoreError> {
    let key = AccountKey {
        connection_id: parse("accounts", &row.connection_id)?,
        currency: parse("accounts", &row.currency)?,
        kind: account_kind(&row.kind)?,
    };
    let totals = AccountTotals {
        debits: parse("accounts", &row.debits)?,
        credits: parse("accounts", &row.credits)?,
    };
    work.accounts.insert(key, Account { seq: row.account_seq, totals, before: Some(totals) });
    Ok(())
}

/// Rows that come as one JSON array of arrays: a row that is handed over alone costs more than its reading.
fn in_one<T: DeserializeOwned>(table: &'static str, rows: &str) -> Result<Vec<T>, StoreError> {
    serde_json::from_str(rows).map_err(|error| unreadable(table)(&error))
}

pub(super) fn account_kind(word: &str) -> Result<AccountKind, StoreError> {
    AccountKind::ALL.into_iter().find(|kind| kind.as_str() == word).ok_or_else(|| {
        StoreError::Unreadable {
            table: "accounts",
            reason: format!("{word:?} is no kind of account"),
        }
    })
}

async fn load_book_events(
    connection: &mut SqliteConnection,
    work: &mut Work,
    needs: &Needs,
) -> Result<(), StoreError> {
    if needs.book_events.is_empty() {
        return Ok(());
    }
    let wanted = keys(&needs.book_events)?;
    let rows = sqlx::query!(
        "SELECT event_id, body_sha256 FROM book_events
         WHERE event_id IN (SELECT value FROM json_each(?1))",
        wanted
    )
    .fetch_all(connection)
    .await
    .while_doing(LOADING)?;
    for row in rows {
        work.book_events.insert(
            parse("book_events", &row.event_id)?,
            hash_of("book_events", &row.body_sha256)?,
        );
    }
    Ok(())
}

async fn load_quarantined(
    connection: &mut SqliteConnection,
    work: &mut Work,
    quarantined: &BTreeSet<(String, ContentHashKey)>,
) -> Result<(), StoreError> {
    if quarantined.is_empty() {
        return Ok(());
    }
    let wanted = keys(quarantined.iter().map(|(queue, hash)| (queue, hex::encode(hash.0))))?;
    let rows = sqlx::query!(
        r#"SELECT quarantine_seq AS "quarantine_seq!", queue, sha256 FROM json_each(?1) AS wanted
           JOIN quarantine ON queue = wanted.value ->> 0 AND sha256 = unhex(wanted.value ->> 1)"#,
        wanted
    )
    .fetch_all(connection)
    .await
    .while_doing(LOADING)?;
    for row in rows {
        let hash = ContentHashKey::from(hash_of("quarantine", &row.sha256)?);
        work.quarantined.insert((row.queue, hash), QuarantineSeq::from(row.quarantine_seq));
    }
    Ok(())
}
