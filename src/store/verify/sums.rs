//! Recomputing the sums that limits are compared with.

use std::collections::BTreeMap;

use futures_util::TryStreamExt as _;

use super::{VERIFYING, Verification};
use crate::{
    domain::{
        amount::{AmountError, Quantity, Total},
        decision::Outcome,
        ids::CurrencyCode,
        ledger::{AccountKind, AccountTotals},
        limits::DailyKey,
        time::TimestampMs,
    },
    store::{
        StoreError,
        error::While as _,
        rows::{outcome_of, parse},
    },
};

fn overflow(error: &AmountError) -> StoreError {
    StoreError::Unreadable {
        table: "transfers",
        reason: format!("the sum of what limits count cannot be represented: {error}"),
    }
}

/// What each currency's connections are exposed to, from their accounts, which are verified themselves.
pub(super) async fn verify_currency_totals(
    connection: &mut sqlx::SqliteConnection,
    found: &mut Verification,
) -> Result<(), StoreError> {
    let mut recomputed: BTreeMap<CurrencyCode, AccountTotals> = BTreeMap::new();
    let kind = AccountKind::Oes.as_str();
    let mut rows =
        sqlx::query!("SELECT currency, debits, credits FROM accounts WHERE kind = ?1", kind)
            .fetch(&mut *connection);
    while let Some(row) = rows.try_next().await.while_doing(VERIFYING)? {
        let sum = recomputed.entry(parse("accounts", &row.currency)?).or_default();
        let (debits, credits): (Total, Total) =
            (parse("accounts", &row.debits)?, parse("accounts", &row.credits)?);
        sum.credits = sum.credits.and(debits).map_err(|error| overflow(&error))?;
        sum.debits = sum.debits.and(credits).map_err(|error| overflow(&error))?;
    }
    drop(rows);
    let rows = sqlx::query!("SELECT currency, from_oes, to_oes FROM currency_totals")
        .fetch_all(connection)
        .await
        .while_doing(VERIFYING)?;
    for row in rows {
        let currency: CurrencyCode = parse("currency_totals", &row.currency)?;
        let stored = AccountTotals {
            credits: parse("currency_totals", &row.from_oes)?,
            debits: parse("currency_totals", &row.to_oes)?,
        };
        let sums = recomputed.remove(&currency).unwrap_or_default();
        compare(found, &format!("exposure in {currency}"), stored, sums);
    }
    for (currency, sums) in recomputed {
        compare(found, &format!("exposure in {currency}"), AccountTotals::default(), sums);
    }
    Ok(())
}

/// What the records of each currency move that were taken in, and those that are final, from the jobs.
pub(super) async fn verify_jobs_totals(
    connection: &mut sqlx::SqliteConnection,
    found: &mut Verification,
) -> Result<(), StoreError> {
    let mut recomputed: BTreeMap<CurrencyCode, AccountTotals> = BTreeMap::new();
    let mut rows = sqlx::query!(
        r#"SELECT currency, quantity, (final_outcome IS NOT NULL OR state = 'refused')
            AS "is_final!: bool" FROM jobs"#
    )
    .fetch(&mut *connection);
    while let Some(row) = rows.try_next().await.while_doing(VERIFYING)? {
        let quantity: Quantity = parse("jobs", &row.quantity)?;
        let sum = recomputed.entry(parse("jobs", &row.currency)?).or_default();
        sum.credit(quantity).map_err(|error| overflow(&error))?;
        if row.is_final {
            sum.debit(quantity).map_err(|error| overflow(&error))?;
        }
    }
    drop(rows);
    let rows = sqlx::query!("SELECT currency, taken_in, ended FROM currency_totals")
        .fetch_all(connection)
        .await
        .while_doing(VERIFYING)?;
    for row in rows {
        let currency: CurrencyCode = parse("currency_totals", &row.currency)?;
        let stored = AccountTotals {
            credits: parse("currency_totals", &row.taken_in)?,
            debits: parse("currency_totals", &row.ended)?,
        };
        let sums = recomputed.remove(&currency).unwrap_or_default();
        compare(found, &format!("what jobs move in {currency}"), stored, sums);
    }
    for (currency, sums) in recomputed {
        compare(found, &format!("what jobs move in {currency}"), AccountTotals::default(), sums);
    }
    Ok(())
}

/// What each day has cleared, from the decisions.
pub(super) async fn verify_daily(
    connection: &mut sqlx::SqliteConnection,
    found: &mut Verification,
) -> Result<(), StoreError> {
    let mut recomputed: BTreeMap<DailyKey, AccountTotals> = BTreeMap::new();
    let mut rows = sqlx::query!(
        r#"SELECT connection_id, currency, type AS job_type, quantity, decided_at_ms, final_outcome
           FROM decisions JOIN jobs USING (job_seq) WHERE decisions.outcome = 'cleared'"#
    )
    .fetch(&mut *connection);
    while let Some(row) = rows.try_next().await.while_doing(VERIFYING)? {
        let key = DailyKey {
            connection_id: parse("jobs", &row.connection_id)?,
            currency: parse("jobs", &row.currency)?,
            day: TimestampMs::from_millis(row.decided_at_ms).day(),
            job_type: parse("jobs", &row.job_type)?,
        };
        let quantity: Quantity = parse("jobs", &row.quantity)?;
        let sum = recomputed.entry(key).or_default();
        sum.credit(quantity).map_err(|error| overflow(&error))?;
        if row.final_outcome.as_deref().map(outcome_of).transpose()? == Some(Outcome::Released) {
            sum.debit(quantity).map_err(|error| overflow(&error))?;
        }
    }
    drop(rows);
    let rows = sqlx::query!(
        "SELECT connection_id, currency, day, type AS job_type, cleared, taken_back
         FROM daily_cleared"
    )
    .fetch_all(connection)
    .await
    .while_doing(VERIFYING)?;
    let table = "daily_cleared";
    for row in rows {
        let key = DailyKey {
            connection_id: parse(table, &row.connection_id)?,
            currency: parse(table, &row.currency)?,
            day: parse(table, &row.day)?,
            job_type: parse(table, &row.job_type)?,
        };
        let stored = AccountTotals {
            credits: parse(table, &row.cleared)?,
            debits: parse(table, &row.taken_back)?,
        };
        let sums = recomputed.remove(&key).unwrap_or_default();
        compare(found, &day_name(&key), stored, sums);
    }
    for (key, sums) in recomputed {
        compare(found, &day_name(&key), AccountTotals::default(), sums);
    }
    Ok(())
}

fn day_name(key: &DailyKey) -> String {
    let DailyKey { connection_id, currency, day, job_type } = key;
    format!("{job_type}s of {day} in {currency} of connection {connection_id}")
}

fn compare(found: &mut Verification, name: &str, stored: AccountTotals, sums: AccountTotals) {
    if stored != sums {
        found.fault(format!(
            "{name}: the book says {} less {}, its entries sum to {} less {}",
            stored.credits, stored.debits, sums.credits, sums.debits
        ));
    }
}
