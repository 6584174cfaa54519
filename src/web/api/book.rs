//! The book: connections, currencies, balances, and the facts that make them.

use axum::{Json, extract::State, http::StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    Api, BookFacts,
    bodies::{Asked, Told},
};
use crate::{
    domain::{
        amount::Balance,
        book::{BOOK_EVENTS_MAX, BookEvent, Connection, Currency},
        ids::ConnectionId,
        limits::ConnectionLimits,
    },
    store::{
        query::{Holding, PAGE_MAX, SettingLine, SettingsFilter},
        work::BookEventOutcome,
    },
    web::{
        auth::{Acting, Principal},
        problem::Problem,
    },
};

/// Which part of a list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ConnectionQuery {
    /// Only this connection.
    connection: Option<String>,
    /// Only those behind this one: the last of the page before.
    after: Option<String>,
    /// Most connections on the page, 1 to 1,000.
    limit: Option<u32>,
}

/// A connection with what it holds.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ConnectionView {
    #[serde(flatten)]
    connection: Connection,
    /// What it holds in each currency.
    holdings: Vec<Holding>,
    /// Its own limits, where it has some.
    #[schema(value_type = Vec<Object>)]
    limits: Vec<ConnectionLimits>,
}

fn connection(text: Option<&str>) -> Result<Option<ConnectionId>, Problem> {
    let text = text.filter(|text| !text.is_empty());
    text.map(|text| text.parse().map_err(|error| Problem::bad(format!("{text:?} is {error}"))))
        .transpose()
}

/// Connections by their ids, with what each holds.
#[utoipa::path(get, path = "/v1/book/connections", tag = "book", params(ConnectionQuery),
    responses((status = 200, body = Vec<ConnectionView>), (status = "4XX", body = Problem)))]
pub(super) async fn connections(
    State(api): State<Api>,
    _: Principal,
    Asked(query): Asked<ConnectionQuery>,
) -> Result<Json<Vec<ConnectionView>>, Problem> {
    let readers = &api.checks.readers;
    let (only, after) =
        (connection(query.connection.as_deref())?, connection(query.after.as_deref())?);
    let limit = query.limit.unwrap_or(50).clamp(1, PAGE_MAX);
    let page = readers.connections_page(only, after, limit).await?;
    let ids: Vec<ConnectionId> = page.iter().map(|connection| connection.connection_id).collect();
    let holdings = readers.holdings_of(&ids).await?;
    let limits = readers.connection_limits().await?;
    let views = page.into_iter().map(|connection| {
        let id = connection.connection_id;
        let own = holdings.iter().filter(|holding| holding.connection_id == id);
        let caps = limits.iter().filter(|limits| limits.connection_id == id);
        ConnectionView {
            holdings: own.cloned().collect(),
            limits: caps.cloned().collect(),
            connection,
        }
    });
    Ok(Json(views.collect()))
}

/// A currency with its limits and what all connections together are exposed to.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct CurrencyView {
    #[serde(flatten)]
    currency: Currency,
    /// What all connections together are exposed to, base units.
    exposure_total: Balance,
}

/// Currencies with their limits.
#[utoipa::path(get, path = "/v1/book/currencies", tag = "book",
    responses((status = 200, body = Vec<CurrencyView>)))]
pub(super) async fn currencies(
    State(api): State<Api>,
    _: Principal,
) -> Result<Json<Vec<CurrencyView>>, Problem> {
    let readers = &api.checks.readers;
    let totals = readers.exposure_totals().await?;
    let views = readers.currencies().await?.into_iter().map(|currency| {
        let total = totals.get(&currency.currency).copied();
        CurrencyView { exposure_total: total.unwrap_or(Balance::ZERO), currency }
    });
    Ok(Json(views.collect()))
}

/// Which settings.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct HistoryQuery {
    /// Only those of this connection.
    connection: Option<String>,
    /// Only those of this currency.
    currency: Option<String>,
    /// Most settings, the latest; 1 to 1,000.
    limit: Option<u32>,
}

/// How connections, currencies and limits came to be as they are, oldest first.
#[utoipa::path(get, path = "/v1/book/history", tag = "book", params(HistoryQuery),
    responses((status = 200, body = Vec<SettingLine>), (status = "4XX", body = Problem)))]
pub(super) async fn history(
    State(api): State<Api>,
    _: Principal,
    Asked(query): Asked<HistoryQuery>,
) -> Result<Json<Vec<SettingLine>>, Problem> {
    let currency = query.currency.filter(|text| !text.is_empty());
    let currency = currency.map(|text| text.parse()).transpose();
    let limit = query.limit.unwrap_or(50).clamp(1, PAGE_MAX);
    let filter = SettingsFilter {
        connection_id: connection(query.connection.as_deref())?,
        currency: currency.map_err(|error| Problem::bad(format!("currency: {error}")))?,
        limit: usize::try_from(limit).unwrap_or(usize::MAX),
    };
    Ok(Json(api.checks.readers.settings_history(&filter).await?))
}

/// What became of each fact, in order.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct BookAnswer {
    /// What became of each.
    pub outcomes: Vec<BookEventOutcome>,
}

/// Takes facts of the exchange into the book, each at most once, all together or none.
#[utoipa::path(post, path = "/v1/book/events", tag = "book", request_body = BookFacts,
    responses((status = 200, body = BookAnswer), (status = "4XX", body = Problem)))]
pub(super) async fn events(
    State(api): State<Api>,
    acting: Acting,
    Told(facts): Told<BookFacts>,
) -> Result<Json<BookAnswer>, Problem> {
    let by = acting.because(&facts.source)?;
    if facts.events.len() > BOOK_EVENTS_MAX {
        let detail =
            format!("{} events; at most {BOOK_EVENTS_MAX} go together", facts.events.len());
        return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail));
    }
    let events: Result<Vec<BookEvent>, _> =
        facts.events.iter().map(|raw| BookEvent::parse(raw.get())).collect();
    let events = events.map_err(|error| Problem::bad(error.to_string()))?;
    let source = format!("{} by {}", by.reason, by.who);
    let outcomes = api.operations.writer.apply_book_events(events, source).await?;
    match outcomes {
        Ok(outcomes) => Ok(Json(BookAnswer { outcomes })),
        Err(reason) => Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, reason)),
    }
}
