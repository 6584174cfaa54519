//! Reading the events that bring facts, strictly.

use serde::{Deserialize, Deserializer, Serialize};
use sha2::{Digest, Sha256};

use super::{
    Adjustment, BalanceSnapshot, BookFact, Connection, Currency, ExpectedTotal, Heartbeat,
    Suspension,
};
use crate::domain::{
    amount::{Delta, Quantity},
    decimals::Decimals,
    feed::BookSequence,
    ids::{
        BookEventId, ClientId, ConnectionId, CurrencyCode, PartnersClientId, PartnersConnectionId,
    },
    job::ContentHash,
    limits::{ConnectionCaps, ConnectionLimits, CrossedLimits},
    object::{self, Object, ObjectError},
    time::TimestampMs,
};

/// Longest book event, in bytes of JSON.
pub const EVENT_BYTES_MAX: usize = 16 * 1_024;

/// Most events that are taken together; they share a transaction.
pub const BOOK_EVENTS_MAX: usize = 500;

/// A fact with the id that makes it idempotent, and its place in the order of its connection's events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BookEvent {
    id: BookEventId,
    sequence: Option<BookSequence>,
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
    /// A snapshot that states one currency twice.
    #[error("totals: {0} is there twice")]
    TotalRepeated(CurrencyCode),
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
    #[serde(rename = "connection.suspended")]
    ConnectionSuspended,
    #[serde(rename = "currency.configured")]
    CurrencyConfigured,
    #[serde(rename = "connection.limited")]
    ConnectionLimited,
    #[serde(rename = "balance.adjusted")]
    BalanceAdjusted,
    #[serde(rename = "balance.snapshot")]
    BalanceSnapshot,
    #[serde(rename = "book.heartbeat")]
    Heartbeat,
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
    sequence: Option<BookSequence>,
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
    sequence: Option<BookSequence>,
    connection_id: ConnectionId,
    currency: CurrencyCode,
    exposure_max_per_connection: Option<Quantity>,
    daily_allocation_max_per_connection: Option<Quantity>,
    daily_deallocation_max_per_connection: Option<Quantity>,
    approval_above: Option<Quantity>,
});
enveloped!(EnvelopedAdjustment {
    sequence: Option<BookSequence>,
    connection_id: ConnectionId,
    currency: CurrencyCode,
    delta: Delta,
});
enveloped!(EnvelopedSuspension {
    sequence: Option<BookSequence>,
    connection_id: ConnectionId,
});
enveloped!(EnvelopedSnapshot {
    sequence: Option<BookSequence>,
    connection_id: ConnectionId,
    totals: Vec<Object<ExpectedTotal>>,
});
enveloped!(EnvelopedHeartbeat { sent_at_ms: TimestampMs });

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
        let Envelope { id, kind } = object::parse(text)?;
        let (sequence, fact) = match kind {
            EventType::ConnectionUpserted => connection(object::parse(text)?),
            EventType::ConnectionSuspended => {
                let EnvelopedSuspension { sequence, connection_id, .. } = object::parse(text)?;
                (sequence, BookFact::ConnectionSuspended(Suspension { connection_id }))
            }
            EventType::CurrencyConfigured => (None, currency(object::parse(text)?)?),
            EventType::ConnectionLimited => limits(object::parse(text)?),
            EventType::BalanceAdjusted => {
                let fields: EnvelopedAdjustment = object::parse(text)?;
                let EnvelopedAdjustment { sequence, connection_id, currency, delta, .. } = fields;
                let adjustment = Adjustment { connection_id, currency, delta };
                (sequence, BookFact::BalanceAdjusted(adjustment))
            }
            EventType::BalanceSnapshot => snapshot(object::parse(text)?)?,
            EventType::Heartbeat => {
                let EnvelopedHeartbeat { sent_at_ms, .. } = object::parse(text)?;
                (None, BookFact::Heartbeat(Heartbeat { sent_at_ms }))
            }
        };
        Ok(Self { id, sequence, fact })
    }

    /// The exchange's id of the event.
    #[must_use]
    pub fn id(&self) -> &BookEventId {
        &self.id
    }

    /// Its place among the events of its connection, where the exchange numbers them.
    #[must_use]
    pub fn sequence(&self) -> Option<BookSequence> {
        self.sequence
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
        #[derive(Serialize)]
        struct Body<'a> {
            #[serde(flatten)]
            fact: &'a BookFact,
            #[serde(skip_serializing_if = "Option::is_none")]
            sequence: Option<BookSequence>,
        }
        match self.sequence {
            None => serde_json::to_string(&self.fact),
            Some(_) => serde_json::to_string(&Body { fact: &self.fact, sequence: self.sequence }),
        }
    }
}

type Numbered = (Option<BookSequence>, BookFact);

fn connection(fields: EnvelopedConnection) -> Numbered {
    let connection = Connection {
        connection_id: fields.connection_id,
        client_id: fields.client_id,
        partners_client_id: fields.partners_client_id,
        partners_connection_id: fields.partners_connection_id,
        active: fields.active,
    };
    (fields.sequence, BookFact::ConnectionUpserted(connection))
}

fn currency(fields: EnvelopedCurrency) -> Result<BookFact, BookEventError> {
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
    Ok(BookFact::CurrencyConfigured(currency))
}

fn limits(fields: EnvelopedLimits) -> Numbered {
    let caps = caps!(fields);
    let limits =
        ConnectionLimits { connection_id: fields.connection_id, currency: fields.currency, caps };
    (fields.sequence, BookFact::ConnectionLimited(limits))
}

fn snapshot(fields: EnvelopedSnapshot) -> Result<Numbered, BookEventError> {
    let mut totals: Vec<ExpectedTotal> =
        fields.totals.into_iter().map(|Object(total)| total).collect();
    // One order, so that one statement has one hash.
    totals.sort_by(|one, other| one.currency.cmp(&other.currency));
    let repeated = totals.windows(2).find_map(|pair| match pair {
        [one, other] if one.currency == other.currency => Some(one.currency.clone()),
        _ => None,
    });
    if let Some(currency) = repeated {
        return Err(BookEventError::TotalRepeated(currency));
    }
    let snapshot = BalanceSnapshot { connection_id: fields.connection_id, totals };
    Ok((fields.sequence, BookFact::BalanceSnapshot(snapshot)))
}

/// The hash of a stored fact: one event id with two hashes is a contradiction.
#[must_use]
pub fn body_hash(canonical_body: &str) -> ContentHash {
    let digest: [u8; 32] = Sha256::digest(canonical_body.as_bytes()).into();
    ContentHash::from(digest)
}
