//! The book: currencies with their limits, connections with what each holds, and how they came to be so.

use askama::Template;
use axum::{
    extract::{Query, State},
    response::Response,
};
use serde::Deserialize;

use super::{
    Page,
    failure::{Failure, html},
    guard::Visitor,
    layout::Layout,
    shown::{Ago, Units},
};
use crate::{
    domain::{
        amount::{Balance, Quantity},
        book::{Connection, Currency},
        ids::ConnectionId,
        limits::{ConnectionCaps, ConnectionLimits},
        time::TimestampMs,
    },
    store::query::{Holding, SettingLine, SettingsFilter},
    web::problem::Problem,
};

/// Connections on a page.
const SHOWN_MAX: u32 = 25;
/// Settings that are shown, the latest.
const SETTINGS_SHOWN_MAX: usize = 20;

/// Which connections.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Asked {
    connection: String,
    after: String,
    /// Whether is shown how settings came to be, for which every fact is read.
    history: Option<String>,
}

/// Caps by what they bound.
struct Caps(Vec<(&'static str, Units)>);

impl Caps {
    fn of(caps: &ConnectionCaps) -> Self {
        let each = [
            ("exposure of a connection", caps.exposure_max_per_connection),
            ("allocations in a day", caps.daily_allocation_max_per_connection),
            ("deallocations in a day", caps.daily_deallocation_max_per_connection),
            ("approval above", caps.approval_above),
        ];
        Self(each.into_iter().filter_map(|(name, cap)| Some((name, Units::of(cap?)))).collect())
    }
}

struct CurrencyView {
    name: String,
    enabled: bool,
    decimals: Option<u8>,
    min: Units,
    max: Units,
    exposure: Units,
    exposure_max: Option<Units>,
    caps: Caps,
}

fn currency_view(currency: &Currency, exposure: Balance) -> CurrencyView {
    let units = |most: Option<Quantity>| most.map(Units::of);
    CurrencyView {
        name: currency.currency.to_string(),
        enabled: currency.enabled,
        decimals: currency.decimals.map(u8::from),
        min: Units::of(currency.quantity_min),
        max: Units::of(currency.quantity_max),
        exposure: Units::of(exposure),
        exposure_max: units(currency.exposure_max_total),
        caps: Caps::of(&currency.caps),
    }
}

struct HoldingView {
    currency: String,
    available: Units,
    /// Whether that is below zero.
    overdrawn: bool,
    held: Units,
    incoming: Units,
    exposure: Units,
    caps: Caps,
}

struct ConnectionView {
    connection: Connection,
    holdings: Vec<HoldingView>,
}

fn connection_view(
    connection: Connection,
    holdings: &[Holding],
    limits: &[ConnectionLimits],
) -> ConnectionView {
    let id = connection.connection_id;
    let own = holdings.iter().filter(|holding| holding.connection_id == id);
    let caps_in = |holding: &Holding| {
        let own = limits
            .iter()
            .find(|limits| limits.connection_id == id && limits.currency == holding.currency);
        Caps::of(&own.map(|limits| limits.caps).unwrap_or_default())
    };
    let holdings = own.map(|holding| HoldingView {
        currency: holding.currency.to_string(),
        available: Units::of(holding.available),
        overdrawn: holding.available.is_negative(),
        held: Units::of(holding.held),
        incoming: Units::of(holding.incoming),
        exposure: Units::of(holding.exposure),
        caps: caps_in(holding),
    });
    ConnectionView { holdings: holdings.collect(), connection }
}

/// A fact that set something, shown.
struct Setting {
    at: Ago,
    what: String,
    source: String,
    changes: Vec<String>,
}

fn setting(line: SettingLine, now: TimestampMs) -> Setting {
    let value = |value: Option<&serde_json::Value>| match value {
        None => "–".to_owned(),
        Some(serde_json::Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    let change = |change: &crate::store::query::FieldChange| {
        format!("{}: {} → {}", change.field, value(change.from.as_ref()), value(change.to.as_ref()))
    };
    Setting {
        at: Ago { at: line.at_ms, now },
        changes: line.changes.iter().map(change).collect(),
        what: format!("{} {}", line.kind, line.subject),
        source: line.source,
    }
}

#[derive(Template)]
#[template(path = "book.html")]
struct BookPage {
    layout: Layout,
    asked: String,
    currencies: Vec<CurrencyView>,
    connections: Vec<ConnectionView>,
    settings: Option<Vec<Setting>>,
    next: Option<String>,
}

fn connection(text: &str) -> Result<Option<ConnectionId>, Failure> {
    let text = Some(text.trim()).filter(|text| !text.is_empty());
    let parsed = text.map(|text| {
        text.parse().map_err(|error| Failure::from(Problem::bad(format!("{text:?} is {error}"))))
    });
    parsed.transpose()
}

/// The page.
pub(super) async fn show(
    State(page): State<Page>,
    visitor: Visitor,
    Query(asked): Query<Asked>,
) -> Result<Response, Failure> {
    let layout = Layout::new(&page, &visitor, "/page/book", "Book");
    let readers = &page.api.checks.readers;
    let (only, after) = (connection(&asked.connection)?, connection(&asked.after)?);
    let found = readers.connections_page(only, after, SHOWN_MAX).await?;
    let ids: Vec<ConnectionId> = found.iter().map(|connection| connection.connection_id).collect();
    let (holdings, limits) = (readers.holdings_of(&ids).await?, readers.connection_limits().await?);
    let totals = readers.exposure_totals().await?;
    let currencies = readers.currencies().await?.into_iter().map(|currency| {
        let exposure = totals.get(&currency.currency).copied().unwrap_or(Balance::ZERO);
        currency_view(&currency, exposure)
    });
    let currencies = currencies.collect();
    let filter = SettingsFilter {
        connection_id: only,
        limit: SETTINGS_SHOWN_MAX,
        ..SettingsFilter::default()
    };
    let settings = match asked.history {
        None => None,
        Some(_) => Some(readers.settings_history(&filter).await?.into_iter().rev()),
    };
    let is_full = u32::try_from(found.len()) == Ok(SHOWN_MAX);
    Ok(html(&BookPage {
        asked: asked.connection,
        currencies,
        next: ids.last().filter(|_| is_full).map(ToString::to_string),
        connections: found
            .into_iter()
            .map(|connection| connection_view(connection, &holdings, &limits))
            .collect(),
        settings: settings.map(|lines| lines.map(|line| setting(line, layout.now)).collect()),
        layout,
    }))
}
