//! Limits of connections, and the sums that limits are compared with.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use sqlx::SqliteConnection;

use super::{array, expect, row};
use crate::{
    domain::{
        ids::{BookEventSeq, ConnectionId, CurrencyCode},
        ledger::AccountTotals,
    },
    store::{StoreError, work::Work},
};

pub(super) async fn connection_limits(
    connection: &mut SqliteConnection,
    work: &Work,
) -> Result<(), StoreError> {
    if work.changes.connection_caps.is_empty() {
        return Ok(());
    }
    let row = |(key, event): (&(ConnectionId, CurrencyCode), &BookEventSeq)| {
        let caps = work.connection_caps.get(key)?;
        Some(json!({
            "connection_id": key.0, "currency": key.1,
            "exposure": caps.exposure_max_per_connection,
            "allocation": caps.daily_allocation_max_per_connection,
            "deallocation": caps.daily_deallocation_max_per_connection,
            "approval": caps.approval_above, "event_seq": event,
        }))
    };
    let (expected, rows) = array(work.changes.connection_caps.iter().filter_map(row))?;
    let result = sqlx::query!(
        "INSERT INTO connection_limits (connection_id, currency, exposure_max_per_connection,
             daily_allocation_max_per_connection, daily_deallocation_max_per_connection,
             approval_above, event_seq)
         SELECT value ->> 'connection_id', value ->> 'currency', value ->> 'exposure',
                value ->> 'allocation', value ->> 'deallocation', value ->> 'approval',
                value ->> 'event_seq'
         FROM jsonb_each(?1) WHERE true
         ON CONFLICT (connection_id, currency) DO UPDATE SET
             exposure_max_per_connection = excluded.exposure_max_per_connection,
             daily_allocation_max_per_connection = excluded.daily_allocation_max_per_connection,
             daily_deallocation_max_per_connection = excluded.daily_deallocation_max_per_connection,
             approval_above = excluded.approval_above, event_seq = excluded.event_seq",
        rows
    )
    .execute(connection)
    .await;
    expect(result, "the changed limits of connections", expected)
}

/// The totals of currencies that are new with this batch, and those that it changed.
fn split_currencies(work: &Work) -> Result<(Vec<Value>, Vec<Value>), StoreError> {
    let jobs_after = work.jobs_after().map_err(|error| StoreError::Refused {
        doing: "the totals of currencies",
        reason: error.to_string(),
    })?;
    let (mut new, mut changed) = (Vec::new(), Vec::new());
    let currencies: BTreeSet<&CurrencyCode> =
        work.currency_totals.keys().chain(jobs_after.keys()).collect();
    for currency in currencies {
        let exposure = work.currency_totals.get(currency).copied().unwrap_or_default();
        let jobs = jobs_after.get(currency).copied().unwrap_or_default();
        let row = |exposure: AccountTotals, jobs: AccountTotals| {
            json!([exposure.credits, exposure.debits, jobs.credits, jobs.debits])
        };
        let after = row(exposure.totals, jobs);
        match (exposure.before, work.jobs_before.get(currency)) {
            (Some(exposure_before), Some(jobs_before)) => {
                if exposure_before != exposure.totals || *jobs_before != jobs {
                    let before = row(exposure_before, *jobs_before);
                    changed.push(json!({"currency": currency, "old": before, "new": after}));
                }
            }
            (None, _) | (_, None) => new.push(json!({"currency": currency, "new": after})),
        }
    }
    Ok((new, changed))
}

pub(super) async fn currency_totals(
    connection: &mut SqliteConnection,
    work: &Work,
) -> Result<(), StoreError> {
    let (new, changed) = split_currencies(work)?;
    if !new.is_empty() {
        let (expected, rows) = array(new)?;
        let result = sqlx::query!(
            "INSERT INTO currency_totals (currency, from_oes, to_oes, taken_in, ended)
             SELECT value ->> 'currency', value -> 'new' ->> 0, value -> 'new' ->> 1,
                    value -> 'new' ->> 2, value -> 'new' ->> 3
             FROM jsonb_each(?1)",
            rows
        )
        .execute(&mut *connection)
        .await;
        expect(result, "the new totals of currencies", expected)?;
    }
    if changed.is_empty() {
        return Ok(());
    }
    let (expected, rows) = array(changed)?;
    let result = sqlx::query!(
        "UPDATE currency_totals SET
             from_oes = row.value -> 'new' ->> 0, to_oes = row.value -> 'new' ->> 1,
             taken_in = row.value -> 'new' ->> 2, ended = row.value -> 'new' ->> 3
         FROM jsonb_each(?1) AS row
         WHERE currency_totals.currency = row.value ->> 'currency'
           AND from_oes = row.value -> 'old' ->> 0 AND to_oes = row.value -> 'old' ->> 1
           AND taken_in = row.value -> 'old' ->> 2 AND ended = row.value -> 'old' ->> 3",
        rows
    )
    .execute(connection)
    .await;
    expect(result, "the changed totals of currencies", expected)
}

pub(super) async fn daily_cleared(
    connection: &mut SqliteConnection,
    work: &Work,
) -> Result<(), StoreError> {
    let (mut new, mut changed) = (Vec::new(), Vec::new());
    for (key, sum) in &work.daily {
        let old = sum.before;
        let row = row! {
            connection_id: key.connection_id, currency: &key.currency, day: key.day,
            job_type: key.job_type, cleared: sum.totals.credits, taken_back: sum.totals.debits,
            old_cleared: old.map(|old| old.credits), old_taken_back: old.map(|old| old.debits),
        };
        match old {
            None => new.push(row),
            Some(old) if old != sum.totals => changed.push(row),
            Some(_) => {}
        }
    }
    if !new.is_empty() {
        let (expected, rows) = array(new)?;
        let result = sqlx::query!(
            "INSERT INTO daily_cleared (connection_id, currency, day, type, cleared, taken_back)
             SELECT value ->> 'connection_id', value ->> 'currency', value ->> 'day',
                    value ->> 'job_type', value ->> 'cleared', value ->> 'taken_back'
             FROM jsonb_each(?1)",
            rows
        )
        .execute(&mut *connection)
        .await;
        expect(result, "the new sums of days", expected)?;
    }
    if changed.is_empty() {
        return Ok(());
    }
    let (expected, rows) = array(changed)?;
    let result = sqlx::query!(
        "UPDATE daily_cleared SET cleared = new.value ->> 'cleared', taken_back = new.value ->> 'taken_back'
         FROM jsonb_each(?1) AS new
         WHERE daily_cleared.connection_id = new.value ->> 'connection_id'
           AND daily_cleared.currency = new.value ->> 'currency'
           AND daily_cleared.day = new.value ->> 'day'
           AND daily_cleared.type = new.value ->> 'job_type'
           AND daily_cleared.cleared = new.value ->> 'old_cleared'
           AND daily_cleared.taken_back = new.value ->> 'old_taken_back'",
        rows
    )
    .execute(connection)
    .await;
    expect(result, "the changed sums of days", expected)
}
