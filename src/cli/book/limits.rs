//! The limits that hold, how much of them is used, and how they came to be.

use std::collections::{BTreeMap, BTreeSet};

use comfy_table::Table;
use serde::Serialize;
use serde_json::Value;

use super::output;
use crate::{
    domain::{
        amount::{Balance, Quantity},
        book::Currency,
        ids::{ConnectionId, CurrencyCode},
        job::JobType,
        limits::{ConnectionCaps, ConnectionLimits, DailyKey},
        time::TimestampMs,
    },
    store::{
        Readers, StoreError,
        query::{Holding, SettingLine, SettingsFilter},
    },
};

/// What limits count, beside the limits themselves.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Usage {
    connection_id: ConnectionId,
    currency: CurrencyCode,
    exposure: Balance,
    allocated_today: Balance,
    deallocated_today: Balance,
    /// The caps that hold: the connection's own, or else the currency's.
    #[serde(flatten)]
    caps: ConnectionCaps,
    #[serde(skip)]
    own: ConnectionCaps,
}

/// Everything about limits as it is now.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Limits {
    #[serde(rename = "connectionLimits")]
    of_connections: Vec<ConnectionLimits>,
    exposure_totals: BTreeMap<String, Balance>,
    limited: Vec<Usage>,
}

impl Limits {
    /// Reads what limits count at `now`, for whatever has a limit.
    pub(super) async fn read(
        readers: &Readers,
        currencies: &[Currency],
        holdings: &[Holding],
        now: TimestampMs,
    ) -> Result<Self, StoreError> {
        let day = now.day();
        let (of_connections, totals) =
            (readers.connection_limits().await?, readers.exposure_totals().await?);
        let today = readers.cleared_on(day).await?;
        let own: BTreeMap<_, ConnectionCaps> = of_connections
            .iter()
            .map(|limits| ((limits.connection_id, limits.currency.clone()), limits.caps))
            .collect();
        let held: BTreeMap<_, Balance> = holdings
            .iter()
            .map(|held| ((held.connection_id, held.currency.clone()), held.exposure))
            .collect();
        let places: BTreeSet<_> = own.keys().chain(held.keys()).cloned().collect();
        let usage = |(connection_id, currency): (ConnectionId, CurrencyCode)| {
            let place = (connection_id, currency.clone());
            let general = currencies.iter().find(|known| known.currency == currency);
            let own = own.get(&place).copied().unwrap_or_default();
            let cleared = |job_type| {
                let currency = currency.clone();
                let key = DailyKey { connection_id, currency, day, job_type };
                today.get(&key).copied().unwrap_or_default()
            };
            Usage {
                connection_id,
                exposure: held.get(&place).copied().unwrap_or_default(),
                allocated_today: cleared(JobType::Allocation),
                deallocated_today: cleared(JobType::Deallocation),
                caps: own.or(general.map(|known| known.caps).unwrap_or_default()),
                own,
                currency,
            }
        };
        let limited = places
            .into_iter()
            .map(usage)
            .filter(|usage| usage.caps != ConnectionCaps::default())
            .collect();
        let exposure_totals =
            totals.into_iter().map(|(currency, sum)| (currency.to_string(), sum)).collect();
        Ok(Self { of_connections, exposure_totals, limited })
    }

    /// The limits of currencies, and where each connection stands; nothing where there are none.
    pub(super) fn show(&self, currencies: &[Currency]) -> anyhow::Result<()> {
        let is_limited = |known: &&Currency| {
            known.exposure_max_total.is_some() || known.caps != ConnectionCaps::default()
        };
        let mut table = output::table([
            "limits of",
            "exposure of all",
            "exposure of each",
            "allocated a day",
            "deallocated a day",
            "approval above",
        ]);
        for known in currencies.iter().filter(is_limited) {
            let total = self.exposure_totals.get(known.currency.as_str()).copied();
            table.add_row([
                known.currency.to_string(),
                used(total.unwrap_or_default(), known.exposure_max_total),
                at_most(known.caps.exposure_max_per_connection),
                at_most(known.caps.daily_allocation_max_per_connection),
                at_most(known.caps.daily_deallocation_max_per_connection),
                at_most(known.caps.approval_above),
            ]);
        }
        if table.row_iter().next().is_some() {
            output::line(table)?;
        }
        if self.limited.is_empty() { Ok(()) } else { output::line(self.usage()) }
    }

    fn usage(&self) -> Table {
        let mut table = output::table([
            "connection",
            "currency",
            "exposure",
            "allocated today",
            "deallocated today",
            "approval above",
        ]);
        for line in &self.limited {
            let (caps, own) = (&line.caps, &line.own);
            let mark = |text: String, own: Option<Quantity>| {
                if own.is_some() { format!("{text} (own)") } else { text }
            };
            let (exposure, allocated, deallocated) = (
                used(line.exposure, caps.exposure_max_per_connection),
                used(line.allocated_today, caps.daily_allocation_max_per_connection),
                used(line.deallocated_today, caps.daily_deallocation_max_per_connection),
            );
            table.add_row([
                line.connection_id.to_string(),
                line.currency.to_string(),
                mark(exposure, own.exposure_max_per_connection),
                mark(allocated, own.daily_allocation_max_per_connection),
                mark(deallocated, own.daily_deallocation_max_per_connection),
                mark(at_most(caps.approval_above), own.approval_above),
            ]);
        }
        table
    }
}

fn at_most(cap: Option<Quantity>) -> String {
    cap.map_or_else(|| "–".to_owned(), |cap| cap.to_string())
}

fn used(sum: Balance, cap: Option<Quantity>) -> String {
    match cap {
        Some(cap) => format!("{sum} of {cap}"),
        None => sum.to_string(),
    }
}

/// How connections, currencies and limits came to be.
pub(super) async fn history(
    readers: &Readers,
    filter: &SettingsFilter,
    json: bool,
) -> anyhow::Result<()> {
    let lines = readers.settings_history(filter).await?;
    if json {
        return output::json(&lines);
    }
    let mut table = output::table(["at", "event", "from", "what", ""]);
    for line in &lines {
        table.add_row([
            line.at_ms.to_string(),
            line.event_id.clone(),
            line.source.clone(),
            format!("{} {}", line.kind, line.subject),
            changed(line),
        ]);
    }
    output::line(table)
}

fn changed(line: &SettingLine) -> String {
    let text = |value: &Option<Value>| match value {
        None => "–".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    let changes: Vec<String> = line
        .changes
        .iter()
        .map(|change| format!("{}: {} → {}", change.field, text(&change.from), text(&change.to)))
        .collect();
    if changes.is_empty() { "nothing changed".to_owned() } else { changes.join("\n") }
}
