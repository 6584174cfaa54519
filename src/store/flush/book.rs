//! What the exchange said, and what moved.

use serde_json::json;
use sqlx::SqliteConnection;

use super::{array, expect, row};
use crate::{
    domain::{
        book::body_hash,
        ids::{BookEventSeq, JobSeq},
        ledger::{AccountKey, AccountKind},
    },
    store::{
        StoreError,
        work::{Account, NewTransfer, Owner, Work},
    },
};

pub(super) async fn book_events(
    connection: &mut SqliteConnection,
    work: &Work,
) -> Result<(), StoreError> {
    if work.changes.book_events.is_empty() {
        return Ok(());
    }
    let (expected, rows) = array(work.changes.book_events.iter().map(|new| {
        json!({
            "event_seq": new.seq, "event_id": new.event.id(),
            "kind": new.event.fact().kind(), "body": new.body,
            "hash": body_hash(&new.body).to_string(),
            "source": new.source,
        })
    }))?;
    let now_ms = work.now.as_millis();
    let result = sqlx::query!(
        "INSERT INTO book_events (event_seq, event_id, kind, body, body_sha256, source, recorded_at_ms)
         SELECT value ->> 'event_seq', value ->> 'event_id', value ->> 'kind', value ->> 'body',
                unhex(value ->> 'hash'), value ->> 'source', ?2
         FROM jsonb_each(?1)",
        rows,
        now_ms
    )
    .execute(connection)
    .await;
    expect(result, "the new book events", expected)
}

pub(super) async fn connections(
    connection: &mut SqliteConnection,
    work: &Work,
) -> Result<(), StoreError> {
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
    let (expected, rows) = array(work.changes.connections.iter().filter_map(row))?;
    let result = sqlx::query!(
        "INSERT INTO connections (connection_id, client_id, partners_client_id,
             partners_connection_id, active, event_seq)
         SELECT value ->> 'connection_id', value ->> 'client_id', value ->> 'partners_client_id',
                value ->> 'partners_connection_id', value ->> 'active', value ->> 'event_seq'
         FROM jsonb_each(?1) WHERE true
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

pub(super) async fn currencies(
    connection: &mut SqliteConnection,
    work: &Work,
) -> Result<(), StoreError> {
    if work.changes.currencies.is_empty() {
        return Ok(());
    }
    let row = |(code, event): (_, &BookEventSeq)| {
        let known = work.currencies.get(code)?;
        Some(json!({
            "currency": code, "enabled": i32::from(known.enabled),
            "quantity_min": known.quantity_min, "quantity_max": known.quantity_max,
            "decimals": known.decimals, "exposure_total": known.exposure_max_total,
            "exposure": known.caps.exposure_max_per_connection,
            "allocation": known.caps.daily_allocation_max_per_connection,
            "deallocation": known.caps.daily_deallocation_max_per_connection,
            "approval": known.caps.approval_above, "event_seq": event,
        }))
    };
    let (expected, rows) = array(work.changes.currencies.iter().filter_map(row))?;
    let result = sqlx::query!(
        "INSERT INTO currencies (currency, enabled, quantity_min, quantity_max, decimals, exposure_max_total,
             exposure_max_per_connection, daily_allocation_max_per_connection,
             daily_deallocation_max_per_connection, approval_above, event_seq)
         SELECT value ->> 'currency', value ->> 'enabled', value ->> 'quantity_min',
                value ->> 'quantity_max', value ->> 'decimals', value ->> 'exposure_total',
                value ->> 'exposure',
                value ->> 'allocation', value ->> 'deallocation', value ->> 'approval',
                value ->> 'event_seq'
         FROM jsonb_each(?1) WHERE true
         ON CONFLICT (currency) DO UPDATE SET enabled = excluded.enabled,
             quantity_min = excluded.quantity_min, quantity_max = excluded.quantity_max,
             decimals = excluded.decimals,
             exposure_max_total = excluded.exposure_max_total,
             exposure_max_per_connection = excluded.exposure_max_per_connection,
             daily_allocation_max_per_connection = excluded.daily_allocation_max_per_connection,
             daily_deallocation_max_per_connection = excluded.daily_deallocation_max_per_connection,
             approval_above = excluded.approval_above, event_seq = excluded.event_seq",
        rows
    )
    .execute(connection)
    .await;
    expect(result, "the changed currencies", expected)
}

/// Whether an account shows as below zero: only what is available may be.
fn overdrawn(key: &AccountKey, account: &Account) -> i32 {
    i32::from(key.kind == AccountKind::Available && account.totals.balance().is_negative())
}

pub(super) async fn new_accounts(
    connection: &mut SqliteConnection,
    work: &Work,
) -> Result<(), StoreError> {
    let new = work.accounts.iter().filter(|(_, account)| account.before.is_none());
    let rows = new.map(|(key, account)| {
        row! {
            account_seq: account.seq, connection_id: key.connection_id,
            currency: &key.currency, kind: key.kind,
            debits: account.totals.debits, credits: account.totals.credits,
            overdrawn: overdrawn(key, account),
        }
    });
    let (expected, rows) = array(rows)?;
    if expected == 0 {
        return Ok(());
    }
    let result = sqlx::query!(
        "INSERT INTO accounts (account_seq, connection_id, currency, kind, debits, credits, overdrawn)
         SELECT value ->> 'account_seq', value ->> 'connection_id', value ->> 'currency',
                value ->> 'kind', value ->> 'debits', value ->> 'credits', value ->> 'overdrawn'
         FROM jsonb_each(?1)",
        rows
    )
    .execute(connection)
    .await;
    expect(result, "the new accounts", expected)
}

pub(super) async fn changed_accounts(
    connection: &mut SqliteConnection,
    work: &Work,
) -> Result<(), StoreError> {
    let row = |(key, account): (&AccountKey, &Account)| {
        let before = account.before.filter(|before| *before != account.totals)?;
        Some(row! {
            account_seq: account.seq,
            debits: account.totals.debits, credits: account.totals.credits,
            overdrawn: overdrawn(key, account),
            old_debits: before.debits, old_credits: before.credits,
        })
    };
    let (expected, rows) = array(work.accounts.iter().filter_map(row))?;
    if expected == 0 {
        return Ok(());
    }
    let result = sqlx::query!(
        "UPDATE accounts SET debits = new.value ->> 'debits', credits = new.value ->> 'credits',
             overdrawn = new.value ->> 'overdrawn'
         FROM jsonb_each(?1) AS new
         WHERE account_seq = new.value ->> 'account_seq'
           AND accounts.debits = new.value ->> 'old_debits'
           AND accounts.credits = new.value ->> 'old_credits'",
        rows
    )
    .execute(connection)
    .await;
    expect(result, "the changed accounts", expected)
}

pub(super) async fn transfers(
    connection: &mut SqliteConnection,
    work: &Work,
) -> Result<(), StoreError> {
    if work.changes.transfers.is_empty() {
        return Ok(());
    }
    let row = |new: &NewTransfer| {
        let (job, event): (Option<JobSeq>, Option<BookEventSeq>) = match new.owner {
            Owner::Job(seq) => (Some(seq), None),
            Owner::BookEvent(seq) => (None, Some(seq)),
        };
        row! {
            transfer_seq: new.seq, job_seq: job, event_seq: event,
            phase: new.movement.phase, debit: new.debit, credit: new.credit,
            quantity: new.movement.quantity,
        }
    };
    let (expected, rows) = array(work.changes.transfers.iter().map(row))?;
    let now_ms = work.now.as_millis();
    let result = sqlx::query!(
        "INSERT INTO transfers (transfer_seq, job_seq, event_seq, phase, debit_account,
             credit_account, quantity, booked_at_ms)
         SELECT value ->> 'transfer_seq', value ->> 'job_seq', value ->> 'event_seq',
                value ->> 'phase', value ->> 'debit', value ->> 'credit', value ->> 'quantity', ?2
         FROM jsonb_each(?1)",
        rows,
        now_ms
    )
    .execute(connection)
    .await;
    expect(result, "the new movements", expected)
}
