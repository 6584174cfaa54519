//! How the settings came to be, and where each connection stands with its limits.

use std::collections::{BTreeMap, VecDeque};

use futures_util::TryStreamExt as _;
use serde::Serialize;
use serde_json::{Map, Value};

use super::READING;
use crate::{
    domain::{
        amount::Balance,
        ids::{ConnectionId, CurrencyCode},
        job::JobType,
        ledger::AccountTotals,
        limits::{ConnectionCaps, ConnectionLimits, DailyKey},
        time::{Day, TimestampMs},
    },
    store::{
        Readers, StoreError,
        error::{While as _, unreadable},
        rows::{parse, parse_optional},
    },
};

/// Which settings to show.
#[derive(Clone, Debug, Default)]
pub struct SettingsFilter {
    /// Only those of this connection.
    pub connection_id: Option<ConnectionId>,
    /// Only those of this currency.
    pub currency: Option<CurrencyCode>,
    /// At most this many, the latest.
    pub limit: usize,
}

/// One field that a fact changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct FieldChange {
    /// The field.
    pub field: String,
    /// What it was; nothing if it was not set.
    pub from: Option<Value>,
    /// What it is; nothing if it is not set any more.
    pub to: Option<Value>,
}

/// A fact that set something.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SettingLine {
    /// Its number in the book.
    pub seq: i64,
    /// When it was taken in.
    pub at_ms: TimestampMs,
    /// The exchange's id.
    pub event_id: String,
    /// Where it came from, and by whom.
    pub source: String,
    /// Its type.
    pub kind: String,
    /// Of what: a connection, a currency, or both.
    pub subject: String,
    /// What it changed.
    pub changes: Vec<FieldChange>,
}

/// The fact that states a connection.
const UPSERTED: &str = "connection.upserted";
/// The fact that makes it inactive.
const SUSPENDED: &str = "connection.suspended";

/// Fields that say what a fact is about.
const SUBJECT: [&str; 2] = ["connectionId", "currency"];

impl Readers {
    /// The facts that set connections, currencies and limits, oldest first, with what each changed.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn settings_history(
        &self,
        filter: &SettingsFilter,
    ) -> Result<Vec<SettingLine>, StoreError> {
        let connection = filter.connection_id.map(|id| id.to_string());
        let currency = filter.currency.as_ref().map(CurrencyCode::as_str);
        let mut rows = sqlx::query!(
            r#"SELECT event_seq AS "event_seq!", event_id, kind, body, source, recorded_at_ms
               FROM book_events
               WHERE kind IN ('connection.upserted', 'connection.suspended', 'currency.configured',
                              'connection.limited')
                 AND (?1 IS NULL OR body ->> 'connectionId' = ?1)
                 AND (?2 IS NULL OR body ->> 'currency' = ?2)
               ORDER BY event_seq"#,
            connection,
            currency
        )
        .fetch(&self.pool);
        // What each subject was before is found by following the facts from the first one on.
        let mut known: BTreeMap<(String, String), Map<String, Value>> = BTreeMap::new();
        let mut lines: VecDeque<SettingLine> = VecDeque::new();
        while let Some(row) = rows.try_next().await.while_doing(READING)? {
            let mut fields: Map<String, Value> = serde_json::from_str(&row.body)
                .map_err(|error| unreadable("book_events")(&error))?;
            fields.remove("type");
            fields.remove("sequence");
            let subject: Vec<String> = SUBJECT
                .iter()
                .filter_map(|name| fields.remove(*name)?.as_str().map(str::to_owned))
                .collect();
            let subject = subject.join(" ");
            let about = if row.kind == SUSPENDED { UPSERTED } else { row.kind.as_str() };
            let about = (about.to_owned(), subject.clone());
            if row.kind == SUSPENDED {
                // It changes one thing about the connection and leaves the rest.
                fields = known.get(&about).cloned().unwrap_or_default();
                fields.insert("active".to_owned(), Value::Bool(false));
            }
            let before = known.insert(about, fields.clone()).unwrap_or_default();
            if lines.len() == filter.limit {
                lines.pop_front();
            }
            lines.push_back(SettingLine {
                seq: row.event_seq,
                at_ms: TimestampMs::from_millis(row.recorded_at_ms),
                event_id: row.event_id,
                source: row.source,
                kind: row.kind,
                subject,
                changes: changes(&before, &fields),
            });
        }
        Ok(lines.into())
    }

    /// The own caps of every connection that has some.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn connection_limits(&self) -> Result<Vec<ConnectionLimits>, StoreError> {
        let rows = sqlx::query!(
            "SELECT connection_id, currency, exposure_max_per_connection,
                daily_allocation_max_per_connection, daily_deallocation_max_per_connection,
                approval_above
             FROM connection_limits ORDER BY connection_id, currency"
        )
        .fetch_all(&self.pool)
        .await
        .while_doing(READING)?;
        let table = "connection_limits";
        let optional = |text: Option<String>| parse_optional(table, text.as_deref());
        rows.into_iter()
            .map(|row| {
                Ok(ConnectionLimits {
                    connection_id: parse(table, &row.connection_id)?,
                    currency: parse(table, &row.currency)?,
                    caps: ConnectionCaps {
                        exposure_max_per_connection: optional(row.exposure_max_per_connection)?,
                        daily_allocation_max_per_connection: optional(
                            row.daily_allocation_max_per_connection,
                        )?,
                        daily_deallocation_max_per_connection: optional(
                            row.daily_deallocation_max_per_connection,
                        )?,
                        approval_above: optional(row.approval_above)?,
                    },
                })
            })
            .collect()
    }

    /// What all connections together are exposed to, by currency.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn exposure_totals(&self) -> Result<BTreeMap<CurrencyCode, Balance>, StoreError> {
        let rows = sqlx::query!("SELECT currency, from_oes, to_oes FROM currency_totals")
            .fetch_all(&self.pool)
            .await
            .while_doing(READING)?;
        let table = "currency_totals";
        rows.into_iter()
            .map(|row| {
                let exposure =
                    Balance::of(parse(table, &row.from_oes)?, parse(table, &row.to_oes)?);
                Ok((parse(table, &row.currency)?, exposure))
            })
            .collect()
    }

    /// What one day has cleared.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn cleared_on(&self, day: Day) -> Result<BTreeMap<DailyKey, Balance>, StoreError> {
        let text = day.to_string();
        let rows = sqlx::query!(
            "SELECT connection_id, currency, type AS job_type, cleared, taken_back
             FROM daily_cleared WHERE day = ?1",
            text
        )
        .fetch_all(&self.pool)
        .await
        .while_doing(READING)?;
        let table = "daily_cleared";
        rows.into_iter()
            .map(|row| {
                let job_type: JobType = parse(table, &row.job_type)?;
                let key = DailyKey {
                    connection_id: parse(table, &row.connection_id)?,
                    currency: parse(table, &row.currency)?,
                    day,
                    job_type,
                };
                let totals = AccountTotals {
                    credits: parse(table, &row.cleared)?,
                    debits: parse(table, &row.taken_back)?,
                };
                Ok((key, totals.balance()))
            })
            .collect()
    }
}

fn changes(before: &Map<String, Value>, after: &Map<String, Value>) -> Vec<FieldChange> {
    let gone = before.keys().filter(|name| !after.contains_key(*name));
    after
        .keys()
        .chain(gone)
        .filter(|name| before.get(*name) != after.get(*name))
        .map(|name| FieldChange {
            field: name.clone(),
            from: before.get(name).cloned(),
            to: after.get(name).cloned(),
        })
        .collect()
}
