//! The book: connections, currencies and balances.

use serde::Serialize;

use super::READING;
use crate::{
    domain::{
        amount::Balance,
        book::{Connection, Currency},
        ids::{ConnectionId, CurrencyCode},
        ledger::{AccountKind, AccountTotals},
    },
    store::{
        Readers, StoreError,
        error::While as _,
        load::account_kind,
        rows::{CurrencyRow, parse},
    },
};

/// What a connection holds in a currency.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Holding {
    /// The connection.
    pub connection_id: ConnectionId,
    /// The currency.
    pub currency: CurrencyCode,
    /// What may be traded or taken back.
    pub available: Balance,
    /// Decided deallocations that OES has not confirmed.
    pub held: Balance,
    /// Decided allocations that OES has not confirmed.
    pub incoming: Balance,
    /// What has come from OES less what has gone back, with what is incoming.
    pub exposure: Balance,
}

impl Readers {
    /// Every connection in the book.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn connections(&self) -> Result<Vec<Connection>, StoreError> {
        let rows = sqlx::query!(
            r#"SELECT connection_id, client_id, partners_client_id, partners_connection_id,
                active AS "active: bool" FROM connections ORDER BY connection_id"#
        )
        .fetch_all(&self.pool)
        .await
        .while_doing(READING)?;
        rows.into_iter()
            .map(|row| {
                Ok(Connection {
                    connection_id: parse("connections", &row.connection_id)?,
                    client_id: parse("connections", &row.client_id)?,
                    partners_client_id: parse("connections", &row.partners_client_id)?,
                    partners_connection_id: parse("connections", &row.partners_connection_id)?,
                    active: row.active,
                })
            })
            .collect()
    }

    /// Every currency in the book.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn currencies(&self) -> Result<Vec<Currency>, StoreError> {
        let rows = sqlx::query_as!(
            CurrencyRow,
            r#"SELECT currency, enabled AS "enabled: bool", quantity_min, quantity_max,
                decimals, exposure_max_total, exposure_max_per_connection,
                daily_allocation_max_per_connection, daily_deallocation_max_per_connection,
                approval_above
               FROM currencies ORDER BY currency"#
        )
        .fetch_all(&self.pool)
        .await
        .while_doing(READING)?;
        rows.into_iter().map(CurrencyRow::into_currency).collect()
    }

    /// What each connection holds in each currency.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn holdings(&self) -> Result<Vec<Holding>, StoreError> {
        let rows = sqlx::query!(
            "SELECT connection_id, currency, kind, debits, credits FROM accounts
             ORDER BY connection_id, currency, kind"
        )
        .fetch_all(&self.pool)
        .await
        .while_doing(READING)?;
        let mut holdings: Vec<Holding> = Vec::new();
        for row in rows {
            let connection_id: ConnectionId = parse("accounts", &row.connection_id)?;
            let currency: CurrencyCode = parse("accounts", &row.currency)?;
            let totals = AccountTotals {
                debits: parse("accounts", &row.debits)?,
                credits: parse("accounts", &row.credits)?,
            };
            let same = |holding: &&mut Holding| {
                holding.connection_id == connection_id && holding.currency == currency
            };
            if holdings.last_mut().is_none_or(|last| !same(&last)) {
                holdings.push(Holding {
                    connection_id,
                    currency: currency.clone(),
                    available: Balance::ZERO,
                    held: Balance::ZERO,
                    incoming: Balance::ZERO,
                    exposure: Balance::ZERO,
                });
            }
            let Some(holding) = holdings.last_mut() else {
                continue;
            };
            match account_kind(&row.kind)? {
                AccountKind::Available => holding.available = totals.balance(),
                AccountKind::Held => holding.held = totals.balance(),
                AccountKind::Incoming => holding.incoming = totals.balance(),
                // The contra account has it the other way round.
                AccountKind::Oes => {
                    holding.exposure = Balance::of(totals.debits, totals.credits);
                }
                AccountKind::Exchange => {}
            }
        }
        Ok(holdings)
    }
}
