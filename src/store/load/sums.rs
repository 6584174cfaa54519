//! Limits of connections, and the sums that limits are compared with.

use std::collections::BTreeSet;

use serde::Deserialize;
use sqlx::SqliteConnection;

use super::{LOADING, in_one, keys};
use crate::{
    domain::{
        ids::{ConnectionId, CurrencyCode},
        ledger::AccountTotals,
        limits::{ConnectionCaps, DailyKey},
        time::Day,
    },
    store::{
        error::{StoreError, While as _},
        rows::{parse, parse_optional},
        work::{Sum, Work},
    },
};

/// The own caps of each of these connections in its currency.
pub(super) async fn load_connection_caps(
    connection: &mut SqliteConnection,
    work: &mut Work,
    wanted: &BTreeSet<(ConnectionId, CurrencyCode)>,
) -> Result<(), StoreError> {
    if wanted.is_empty() {
        return Ok(());
    }
    let wanted = keys(wanted)?;
    let rows = sqlx::query!(
        r#"SELECT connection_id, currency, exposure_max_per_connection,
            daily_allocation_max_per_connection, daily_deallocation_max_per_connection, approval_above
           FROM json_each(?1) AS wanted JOIN connection_limits
             ON connection_id = wanted.value ->> 0 AND currency = wanted.value ->> 1"#,
        wanted
    )
    .fetch_all(connection)
    .await
    .while_doing(LOADING)?;
    for row in rows {
        let table = "connection_limits";
        let optional = |text: Option<String>| parse_optional(table, text.as_deref());
        let caps = ConnectionCaps {
            exposure_max_per_connection: optional(row.exposure_max_per_connection)?,
            daily_allocation_max_per_connection: optional(row.daily_allocation_max_per_connection)?,
            daily_deallocation_max_per_connection: optional(
                row.daily_deallocation_max_per_connection,
            )?,
            approval_above: optional(row.approval_above)?,
        };
        let key = (parse(table, &row.connection_id)?, parse(table, &row.currency)?);
        work.connection_caps.insert(key, caps);
    }
    Ok(())
}

/// What all connections together are exposed to in each of these currencies, and what its jobs move.
pub(super) async fn load_currency_totals(
    connection: &mut SqliteConnection,
    work: &mut Work,
    codes: &BTreeSet<CurrencyCode>,
) -> Result<(), StoreError> {
    if codes.is_empty() {
        return Ok(());
    }
    let wanted = keys(codes)?;
    let rows = sqlx::query!(
        "SELECT currency, from_oes, to_oes, taken_in, ended FROM currency_totals
         WHERE currency IN (SELECT value FROM json_each(?1))",
        wanted
    )
    .fetch_all(connection)
    .await
    .while_doing(LOADING)?;
    for row in rows {
        let table = "currency_totals";
        let totals = AccountTotals {
            credits: parse(table, &row.from_oes)?,
            debits: parse(table, &row.to_oes)?,
        };
        let jobs = AccountTotals {
            credits: parse(table, &row.taken_in)?,
            debits: parse(table, &row.ended)?,
        };
        let currency: CurrencyCode = parse(table, &row.currency)?;
        work.jobs_before.insert(currency.clone(), jobs);
        work.currency_totals.insert(currency, Sum::loaded(totals));
    }
    Ok(())
}

/// What was cleared on these days, of either type.
pub(super) async fn load_daily(
    connection: &mut SqliteConnection,
    work: &mut Work,
    days: &BTreeSet<(ConnectionId, CurrencyCode, Day)>,
) -> Result<(), StoreError> {
    if days.is_empty() {
        return Ok(());
    }
    let wanted = keys(days)?;
    let rows = sqlx::query_scalar!(
        r#"SELECT json_group_array(json_array(connection_id, currency, day, daily_cleared.type, cleared,
               taken_back)) AS "rows!: String"
           FROM json_each(?1) AS wanted JOIN daily_cleared
             ON connection_id = wanted.value ->> 0 AND currency = wanted.value ->> 1
            AND day = wanted.value ->> 2"#,
        wanted
    )
    .fetch_one(connection)
    .await
    .while_doing(LOADING)?;
    let table = "daily_cleared";
    for row in in_one::<DailyRow>(table, &rows)? {
        let key = DailyKey {
            connection_id: parse(table, &row.connection_id)?,
            currency: parse(table, &row.currency)?,
            day: parse(table, &row.day)?,
            job_type: parse(table, &row.job_type)?,
        };
        let totals = AccountTotals {
            credits: parse(table, &row.cleared)?,
            debits: parse(table, &row.taken_back)?,
        };
        work.daily.insert(key, Sum::loaded(totals));
    }
    Ok(())
}

/// A row of `daily_cleared`, its columns in this order.
#[derive(Deserialize)]
struct DailyRow {
    connection_id: String,
    currency: String,
    day: String,
    job_type: String,
    cleared: String,
    taken_back: String,
}
