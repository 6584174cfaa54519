//! What those who watch the book look at, again and again: nothing here gets slower with its history.

use super::READING;
use crate::{
    domain::{
        amount::Balance,
        ids::{ConnectionId, CurrencyCode, RecordId},
        time::TimestampMs,
    },
    store::{Readers, StoreError, error::While as _, rows::parse},
};

/// Most currencies that are looked at; whoever publishes wrong jobs can name as many as they like.
const CURRENCIES_MAX: i64 = 1_000;

/// Of which records examples are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Examples {
    /// Parked, those that need approval not counted.
    Parked,
    /// In conflict.
    Conflict,
    /// Released, and not confirmed.
    Released,
}

/// Messages that wait to be published.
#[derive(Clone, Copy, Debug, Default)]
pub struct OutboxWaiting {
    /// How many.
    pub messages: u64,
    /// Since when the first waits.
    pub oldest_since_ms: Option<TimestampMs>,
}

/// A balance that is below zero.
#[derive(Clone, Debug)]
pub struct Overdrawn {
    /// Whose.
    pub connection_id: ConnectionId,
    /// In what.
    pub currency: CurrencyCode,
    /// What is available, base units; below zero.
    pub available: Balance,
}

impl Readers {
    /// What the records of each currency move that are not final: the amount at risk.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn at_risk(&self) -> Result<Vec<(CurrencyCode, Balance)>, StoreError> {
        let table = "currency_totals";
        let rows = sqlx::query!(
            "SELECT currency, taken_in, ended FROM currency_totals ORDER BY currency LIMIT ?1",
            CURRENCIES_MAX
        )
        .fetch_all(&self.pool)
        .await
        .while_doing(READING)?;
        rows.into_iter()
            .map(|row| {
                let open = Balance::of(parse(table, &row.taken_in)?, parse(table, &row.ended)?);
                Ok((parse(table, &row.currency)?, open))
            })
            .collect()
    }

    /// How many balances are below zero.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn overdrawn_count(&self) -> Result<u64, StoreError> {
        let count = sqlx::query_scalar!(
            r#"SELECT count(*) AS "count!: i64" FROM accounts WHERE overdrawn = 1"#
        )
        .fetch_one(&self.pool)
        .await
        .while_doing(READING)?;
        Ok(super::count(count))
    }

    /// Balances that are below zero, at most so many.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn overdrawn(&self, limit: u32) -> Result<Vec<Overdrawn>, StoreError> {
        let table = "accounts";
        let rows = sqlx::query!(
            "SELECT connection_id, currency, debits, credits FROM accounts WHERE overdrawn = 1
             ORDER BY account_seq LIMIT ?1",
            limit
        )
        .fetch_all(&self.pool)
        .await
        .while_doing(READING)?;
        rows.into_iter()
            .map(|row| {
                Ok(Overdrawn {
                    connection_id: parse(table, &row.connection_id)?,
                    currency: parse(table, &row.currency)?,
                    available: Balance::of(parse(table, &row.credits)?, parse(table, &row.debits)?),
                })
            })
            .collect()
    }

    /// When a message that was not known was last quarantined.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn last_quarantined_at(&self) -> Result<Option<TimestampMs>, StoreError> {
        let last = sqlx::query_scalar!(
            "SELECT first_seen_ms FROM quarantine ORDER BY quarantine_seq DESC LIMIT 1"
        )
        .fetch_optional(&self.pool)
        .await
        .while_doing(READING)?;
        Ok(last.map(TimestampMs::from_millis))
    }

    /// When a message that is not what OES's record says was last quarantined.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn last_forged_at(&self) -> Result<Option<TimestampMs>, StoreError> {
        let last = sqlx::query_scalar!(
            "SELECT last_seen_ms FROM quarantine WHERE code = 'not_as_at_oes'
             ORDER BY quarantine_seq DESC LIMIT 1"
        )
        .fetch_optional(&self.pool)
        .await
        .while_doing(READING)?;
        Ok(last.map(TimestampMs::from_millis))
    }

    /// Records that are parked, those that need approval not counted, or in conflict, or released and not
    /// confirmed: a few, the oldest first, for whoever is told of them.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn examples(&self, which: Examples, limit: u32) -> Result<Vec<RecordId>, StoreError> {
        let rows = match which {
            Examples::Parked => {
                sqlx::query_scalar!(
                    "SELECT record_id FROM jobs WHERE final_outcome IS NULL AND state = 'parked'
                       AND state_reason <> 'needs_approval' ORDER BY job_seq LIMIT ?1",
                    limit
                )
                .fetch_all(&self.pool)
                .await
            }
            Examples::Conflict => {
                sqlx::query_scalar!(
                    "SELECT record_id FROM jobs WHERE final_outcome IS NULL AND state = 'conflict'
                     ORDER BY job_seq LIMIT ?1",
                    limit
                )
                .fetch_all(&self.pool)
                .await
            }
            Examples::Released => {
                sqlx::query_scalar!(
                    "SELECT record_id FROM jobs WHERE final_outcome IS NULL AND outcome = 'released'
                     ORDER BY received_at_ms LIMIT ?1",
                    limit
                )
                .fetch_all(&self.pool)
                .await
            }
        };
        let rows = rows.while_doing(READING)?;
        rows.iter().map(|id| parse("jobs", id)).collect()
    }

    /// Messages that wait to be published.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn outbox_waiting(&self) -> Result<OutboxWaiting, StoreError> {
        let first = sqlx::query_scalar!(
            "SELECT created_at_ms FROM outbox WHERE published_at_ms IS NULL
             ORDER BY outbox_seq LIMIT 1"
        )
        .fetch_optional(&self.pool)
        .await
        .while_doing(READING)?;
        Ok(OutboxWaiting {
            messages: self.unpublished_count().await?,
            oldest_since_ms: first.map(TimestampMs::from_millis),
        })
    }
}
