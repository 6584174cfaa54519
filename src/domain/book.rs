//! The exchange's facts that decisions rest on, and the events that bring them.
//!
//! A fed fact is always applied, at most once by its event id.

mod event;

use serde::{Deserialize, Serialize};

use super::{
    amount::{Balance, Delta, Quantity},
    decimals::Decimals,
    ids::{ClientId, ConnectionId, CurrencyCode, PartnersClientId, PartnersConnectionId},
    ledger::{AccountKind, Movement, Phase},
    limits::{ConnectionCaps, ConnectionLimits, CurrencyLimits},
    time::TimestampMs,
};

pub use event::{BOOK_EVENTS_MAX, BookEvent, BookEventError, EVENT_BYTES_MAX, body_hash};

/// A link between a client and this exchange, with the identifiers of both sides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Connection {
    /// The connection at BitGo.
    pub connection_id: ConnectionId,
    /// The client at BitGo.
    pub client_id: ClientId,
    /// The client on the exchange.
    pub partners_client_id: PartnersClientId,
    /// The connection on the exchange.
    pub partners_connection_id: PartnersConnectionId,
    /// Whether records of this connection may be cleared.
    pub active: bool,
}

/// What the exchange accepts of a currency.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Currency {
    /// The partner's mapped name.
    pub currency: CurrencyCode,
    /// Whether records in this currency may be cleared.
    pub enabled: bool,
    /// Smallest quantity that is cleared, base units.
    pub quantity_min: Quantity,
    /// Largest quantity that is cleared, base units.
    pub quantity_max: Quantity,
    /// How many digits stand after the point where amounts are shown as decimals.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decimals: Option<Decimals>,
    /// Most that all connections together may be exposed to, base units.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exposure_max_total: Option<Quantity>,
    /// The caps of each connection that has none of its own.
    #[serde(flatten)]
    pub caps: ConnectionCaps,
}

impl Currency {
    /// Its limits, to be checked.
    fn limits(&self) -> CurrencyLimits {
        let Self { quantity_min, quantity_max, exposure_max_total, caps, .. } = *self;
        CurrencyLimits { quantity_min, quantity_max, exposure_max_total, caps }
    }
}

/// A change of what a connection has available that did not originate here: a trade, an order
/// lock, an opening balance. Locks and credits that belong to an allocation or a deallocation are
/// never fed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Adjustment {
    /// The connection at BitGo.
    pub connection_id: ConnectionId,
    /// The currency.
    pub currency: CurrencyCode,
    /// By how much `available` changes, base units.
    pub delta: Delta,
}

impl Adjustment {
    /// The movement it makes in the ledger.
    #[must_use]
    pub fn movement(&self) -> Movement {
        let (debit, credit) = if self.delta.is_negative() {
            (AccountKind::Available, AccountKind::Exchange)
        } else {
            (AccountKind::Exchange, AccountKind::Available)
        };
        Movement { phase: Phase::Adjusted, debit, credit, quantity: self.delta.magnitude() }
    }
}

/// A connection whose records may not be cleared until it is stated anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Suspension {
    /// The connection at BitGo.
    pub connection_id: ConnectionId,
}

/// What a connection has of one currency, as the exchange sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpectedTotal {
    /// The currency.
    pub currency: CurrencyCode,
    /// What is available and, besides it, what is locked for deallocations whose outcome the exchange
    /// has not taken in yet; base units.
    pub total: Balance,
}

/// Everything that a connection has, as the exchange sees it. A currency that it does not name is one
/// of which the connection has nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BalanceSnapshot {
    /// The connection at BitGo.
    pub connection_id: ConnectionId,
    /// What it has, each currency once.
    pub totals: Vec<ExpectedTotal>,
}

/// A sign that the feed is up to date: everything that happened at the exchange before was fed before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Heartbeat {
    /// When the exchange sent it, by its own clock.
    pub sent_at_ms: TimestampMs,
}

/// One fact from the exchange.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "type")]
pub enum BookFact {
    /// A connection as it is from now on.
    #[serde(rename = "connection.upserted")]
    ConnectionUpserted(Connection),
    /// A connection that is inactive from now on.
    #[serde(rename = "connection.suspended")]
    ConnectionSuspended(Suspension),
    /// A currency as it is from now on.
    #[serde(rename = "currency.configured")]
    CurrencyConfigured(Currency),
    /// The caps of a connection in a currency as they are from now on.
    #[serde(rename = "connection.limited")]
    ConnectionLimited(ConnectionLimits),
    /// A signed change of `available`.
    #[serde(rename = "balance.adjusted")]
    BalanceAdjusted(Adjustment),
    /// What a connection has, to be compared and never taken over.
    #[serde(rename = "balance.snapshot")]
    BalanceSnapshot(BalanceSnapshot),
    /// The feed is up to date.
    #[serde(rename = "book.heartbeat")]
    Heartbeat(Heartbeat),
}

impl BookFact {
    /// The event's type as messages and rows have it.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::ConnectionUpserted(_) => "connection.upserted",
            Self::ConnectionSuspended(_) => "connection.suspended",
            Self::CurrencyConfigured(_) => "currency.configured",
            Self::ConnectionLimited(_) => "connection.limited",
            Self::BalanceAdjusted(_) => "balance.adjusted",
            Self::BalanceSnapshot(_) => "balance.snapshot",
            Self::Heartbeat(_) => "book.heartbeat",
        }
    }

    /// The connection that it is about, if it is about one.
    #[must_use]
    pub const fn connection_id(&self) -> Option<ConnectionId> {
        match self {
            Self::ConnectionUpserted(connection) => Some(connection.connection_id),
            Self::ConnectionSuspended(suspension) => Some(suspension.connection_id),
            Self::ConnectionLimited(limits) => Some(limits.connection_id),
            Self::BalanceAdjusted(adjustment) => Some(adjustment.connection_id),
            Self::BalanceSnapshot(snapshot) => Some(snapshot.connection_id),
            Self::CurrencyConfigured(_) | Self::Heartbeat(_) => None,
        }
    }
}

#[cfg(test)]
mod tests;
