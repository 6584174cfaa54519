//! The exchange's facts that decisions rest on, and the events that bring them.
//!
//! A fed fact is always applied, at most once by its event id.

use serde::{Deserialize, Deserializer, Serialize};
use sha2::{Digest, Sha256};

use super::{
    amount::{Delta, Quantity},
    decimals::Decimals,
    ids::{
        BookEventId, ClientId, ConnectionId, CurrencyCode, PartnersClientId, PartnersConnectionId,
    },
    job::ContentHash,
    ledger::{AccountKind, Movement, Phase},
    limits::{ConnectionCaps, ConnectionLimits, CrossedLimits, CurrencyLimits},
    object::{self, ObjectError},
};

/// Longest book event, in bytes of JSON.
pub const EVENT_BYTES_MAX: usize = 16 * 1_024;

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

/// One fact from the exchange.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "type")]
pub enum BookFact {
    /// A connection as it is from now on.
    #[serde(rename = "connection.upserted")]
    ConnectionUpserted(Connection),
    /// A currency as it is from now on.
    #[serde(rename = "currency.configured")]
    CurrencyConfigured(Currency),
    /// The caps of a connection in a currency as they are from now on.
    #[serde(rename = "connection.limited")]
    ConnectionLimited(ConnectionLimits),
    /// A signed change of `available`.
    #[serde(rename = "balance.adjusted")]
    BalanceAdjusted(Adjustment),
}

impl BookFact {
    /// The event's type as messages and rows have it.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::ConnectionUpserted(_) => "connection.upserted",
            Self::CurrencyConfigured(_) => "currency.configured",
            Self::ConnectionLimited(_) => "connection.limited",
            Self::BalanceAdjusted(_) => "balance.adjusted",
        }
    }
}

/// A fact with the id that makes it idempotent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BookEvent {
    id: BookEventId,
    fact: BookFact,
}

/// Why a line or message is not a book event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BookEventError {
    /// More bytes than [`EVENT_BYTES_MAX`].
    #[error("{bytes} bytes; an event has at most {EVENT_BYTES_MAX}")]
    TooLarge {
        /// How many there were.
        bytes: usize,
    },
    /// Not the object that is expected.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// Limits that cannot all be meant.
    #[error(transparent)]
    LimitsCross(#[from] CrossedLimits),
}

/// The event's id and type, read before the rest because the type says what the rest is.
#[derive(Deserialize)]
struct Envelope {
    #[serde(rename = "eventId")]
    id: BookEventId,
    #[serde(rename = "type")]
    kind: EventType,
}

#[derive(Clone, Copy, Deserialize)]
enum EventType {
    #[serde(rename = "connection.upserted")]
    ConnectionUpserted,
    #[serde(rename = "currency.configured")]
    CurrencyConfigured,
    #[serde(rename = "connection.limited")]
    ConnectionLimited,
    #[serde(rename = "balance.adjusted")]
    BalanceAdjusted,
}

/// A fact with the envelope's fields beside it, so that any other field is unknown and refused: a
/// misspelt `active` must not pass as an absent one.
macro_rules! enveloped {
    ($name:ident { $($field:ident : $type:ty),* $(,)? }) => {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase", deny_unknown_fields)]
        struct $name {
            #[serde(rename = "eventId", deserialize_with = "ignored")]
            _id: (),
            #[serde(rename = "type", deserialize_with = "ignored")]
            _kind: (),
            $($field: $type,)*
        }
    };
}

enveloped!(EnvelopedConnection {
    connection_id: ConnectionId,
    client_id: ClientId,
    partners_client_id: PartnersClientId,
    partners_connection_id: PartnersConnectionId,
    active: bool,
});
enveloped!(EnvelopedCurrency {
    currency: CurrencyCode,
    enabled: bool,
    quantity_min: Quantity,
    quantity_max: Quantity,
    decimals: Option<Decimals>,
    exposure_max_total: Option<Quantity>,
    exposure_max_per_connection: Option<Quantity>,
    daily_allocation_max_per_connection: Option<Quantity>,
    daily_deallocation_max_per_connection: Option<Quantity>,
    approval_above: Option<Quantity>,
});
enveloped!(EnvelopedLimits {
    connection_id: ConnectionId,
    currency: CurrencyCode,
    exposure_max_per_connection: Option<Quantity>,
    daily_allocation_max_per_connection: Option<Quantity>,
    daily_deallocation_max_per_connection: Option<Quantity>,
    approval_above: Option<Quantity>,
});
enveloped!(EnvelopedAdjustment {
    connection_id: ConnectionId,
    currency: CurrencyCode,
    delta: Delta,
});

/// The caps among the fields of an event.
macro_rules! caps {
    ($fields:ident) => {
        ConnectionCaps {
            exposure_max_per_connection: $fields.exposure_max_per_connection,
            daily_allocation_max_per_connection: $fields.daily_allocation_max_per_connection,
            daily_deallocation_max_per_connection: $fields.daily_deallocation_max_per_connection,
            approval_above: $fields.approval_above,
        }
    };
}

fn ignored<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    serde::de::IgnoredAny::deserialize(deserializer).map(|_| ())
}

impl BookEvent {
    /// Reads one event: `{"eventId": …, "type": …, …}`, every field known.
    ///
    /// # Errors
    /// [`BookEventError`], for a reader.
    pub fn parse(text: &str) -> Result<Self, BookEventError> {
        if text.len() > EVENT_BYTES_MAX {
            return Err(BookEventError::TooLarge { bytes: text.len() });
        }
        let envelope: Envelope = object::parse(text)?;
        let fact = match envelope.kind {
            EventType::ConnectionUpserted => {
                let fields: EnvelopedConnection = object::parse(text)?;
                BookFact::ConnectionUpserted(Connection {
                    connection_id: fields.connection_id,
                    client_id: fields.client_id,
                    partners_client_id: fields.partners_client_id,
                    partners_connection_id: fields.partners_connection_id,
                    active: fields.active,
                })
            }
            EventType::CurrencyConfigured => {
                let fields: EnvelopedCurrency = object::parse(text)?;
                let caps = caps!(fields);
                let currency = Currency {
                    currency: fields.currency,
                    enabled: fields.enabled,
                    quantity_min: fields.quantity_min,
                    quantity_max: fields.quantity_max,
                    decimals: fields.decimals,
                    exposure_max_total: fields.exposure_max_total,
                    caps,
                };
                currency.limits().check()?;
                BookFact::CurrencyConfigured(currency)
            }
            EventType::ConnectionLimited => {
                let fields: EnvelopedLimits = object::parse(text)?;
                let caps = caps!(fields);
                BookFact::ConnectionLimited(ConnectionLimits {
                    connection_id: fields.connection_id,
                    currency: fields.currency,
                    caps,
                })
            }
            EventType::BalanceAdjusted => {
                let fields: EnvelopedAdjustment = object::parse(text)?;
                BookFact::BalanceAdjusted(Adjustment {
                    connection_id: fields.connection_id,
                    currency: fields.currency,
                    delta: fields.delta,
                })
            }
        };
        Ok(Self { id: envelope.id, fact })
    }

    /// The exchange's id of the event.
    #[must_use]
    pub fn id(&self) -> &BookEventId {
        &self.id
    }

    /// What it says.
    #[must_use]
    pub fn fact(&self) -> &BookFact {
        &self.fact
    }

    /// The fact as stored: compact JSON in one order, whatever order it arrived in.
    ///
    /// # Errors
    /// Never for these types; serde's signature has an error.
    pub fn canonical_body(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(&self.fact)
    }
}

/// The hash of a stored fact: one event id with two hashes is a contradiction.
#[must_use]
pub fn body_hash(canonical_body: &str) -> ContentHash {
    let digest: [u8; 32] = Sha256::digest(canonical_body.as_bytes()).into();
    ContentHash::from(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONNECTION: &str = r#"{"eventId":"c-1","type":"connection.upserted",
        "connectionId":"9e8d7c6b-5a49-4838-a716-0f1e2d3c4b5a",
        "clientId":"5d1f0e3a-2b6c-4f0d-8a37-1f0a3c9b2d11",
        "partnersClientId":"client-001","partnersConnectionId":"conn-001","active":true}"#;

    #[test]
    fn reads_each_kind_of_event() {
        let event = BookEvent::parse(CONNECTION).unwrap();
        assert_eq!(event.id().as_str(), "c-1");
        assert_eq!(event.fact().kind(), "connection.upserted");
        let currency = r#"{"type":"currency.configured","eventId":"x","currency":"BTC",
            "enabled":true,"quantityMin":"1","quantityMax":"5"}"#;
        assert_eq!(BookEvent::parse(currency).unwrap().fact().kind(), "currency.configured");
        let adjusted = r#"{"type":"balance.adjusted","eventId":"y","currency":"BTC","delta":"-5",
            "connectionId":"9e8d7c6b-5a49-4838-a716-0f1e2d3c4b5a"}"#;
        assert_eq!(
            BookEvent::parse(adjusted).unwrap().canonical_body().unwrap(),
            r#"{"type":"balance.adjusted","connectionId":"9e8d7c6b-5a49-4838-a716-0f1e2d3c4b5a","currency":"BTC","delta":"-5"}"#
        );
    }

    #[test]
    fn refuses_unknown_missing_and_repeated_fields() {
        for broken in [
            CONNECTION.replace("\"active\":true", "\"activ\":true"),
            CONNECTION.replace(",\"active\":true", ""),
            CONNECTION.replace("\"active\":true", "\"active\":true,\"active\":false"),
            CONNECTION.replace("\"active\":true", "\"active\":\"true\""),
            CONNECTION.replace("connection.upserted", "connection.deleted"),
            CONNECTION.replace("\"c-1\"", "\"\""),
            CONNECTION.replace("9e8d", "9E8D"),
            format!("[{CONNECTION}]"),
            format!("{CONNECTION} {CONNECTION}"),
        ] {
            assert!(BookEvent::parse(&broken).is_err(), "{broken}");
        }
    }

    #[test]
    fn refuses_limits_that_cross_and_movements_of_nothing() {
        let crossed = r#"{"type":"currency.configured","eventId":"x","currency":"BTC",
            "enabled":true,"quantityMin":"6","quantityMax":"5"}"#;
        assert!(matches!(BookEvent::parse(crossed), Err(BookEventError::LimitsCross(_))));
        let nothing = r#"{"type":"balance.adjusted","eventId":"y","currency":"BTC","delta":"0",
            "connectionId":"9e8d7c6b-5a49-4838-a716-0f1e2d3c4b5a"}"#;
        assert!(BookEvent::parse(nothing).is_err());
    }

    #[test]
    fn limits_are_optional_and_what_is_absent_stays_out_of_the_fact() {
        let plain = r#"{"type":"currency.configured","currency":"BTC","enabled":true,"quantityMin":"1","quantityMax":"5"}"#;
        let with_id = |fact: &str| fact.replace(r#"{"type""#, r#"{"eventId":"x","type""#);
        let event = BookEvent::parse(&with_id(plain)).unwrap();
        assert_eq!(event.canonical_body().unwrap(), plain);
        let all = r#"{"type":"currency.configured","currency":"BTC","enabled":true,"quantityMin":"1","quantityMax":"5","decimals":8,"exposureMaxTotal":"90","exposureMaxPerConnection":"50","dailyAllocationMaxPerConnection":"9","dailyDeallocationMaxPerConnection":"8","approvalAbove":"4"}"#;
        let event = BookEvent::parse(&with_id(all)).unwrap();
        assert_eq!(event.canonical_body().unwrap(), all);
        let crossed = with_id(all).replace("\"90\"", "\"49\"");
        assert!(matches!(BookEvent::parse(&crossed), Err(BookEventError::LimitsCross(_))));
        let of_one = r#"{"type":"connection.limited","connectionId":"9e8d7c6b-5a49-4838-a716-0f1e2d3c4b5a","currency":"BTC","approvalAbove":"4"}"#;
        let event = BookEvent::parse(&with_id(of_one)).unwrap();
        assert_eq!(event.canonical_body().unwrap(), of_one);
        for misspelt in [
            with_id(all).replace("exposureMaxTotal", "exposureMax"),
            with_id(all).replace("\"decimals\":8", "\"decimals\":78"),
            with_id(all).replace("\"decimals\":8", "\"decimals\":\"8\""),
            with_id(all).replace("\"decimals\":8", "\"decimals\":-1"),
            with_id(of_one).replace("approvalAbove", "approval_above"),
            with_id(of_one).replace("approvalAbove", "exposureMaxTotal"),
            with_id(of_one).replace("\"4\"", "4"),
            with_id(of_one).replace("\"4\"", "\"-4\""),
        ] {
            assert!(BookEvent::parse(&misspelt).is_err(), "{misspelt}");
        }
    }

    #[test]
    fn one_fact_has_one_hash_whatever_its_order() {
        let reordered = r#"{"partnersConnectionId":"conn-001","active":true,
            "clientId":"5d1f0e3a-2b6c-4f0d-8a37-1f0a3c9b2d11","eventId":"other",
            "connectionId":"9e8d7c6b-5a49-4838-a716-0f1e2d3c4b5a",
            "partnersClientId":"client-001","type":"connection.upserted"}"#;
        let first = BookEvent::parse(CONNECTION).unwrap().canonical_body().unwrap();
        let second = BookEvent::parse(reordered).unwrap().canonical_body().unwrap();
        assert_eq!(body_hash(&first), body_hash(&second));
    }
}
