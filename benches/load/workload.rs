//! What is put on the queue: records that a number stands for, the same in every process.

use std::fmt::Write as _;

use serde_json::json;
use uuid::{Builder, Uuid};

/// A key that signs nothing but benches.
pub(crate) const KEY_HEX: &str = "88c4670be22d23e10e6914266f622500564ee1c1c4b31af25eaccb86eedd6d74";
/// A token that opens nothing.
pub(crate) const TOKEN: &str = "a-token-that-opens-nothing";
/// The partner's enterprise.
pub(crate) const ENTERPRISE: &str = "bench-enterprise";

/// Connections that share the work.
const CONNECTIONS: u64 = 64;
const CURRENCIES: [&str; 4] = ["BTC", "ETH", "USDC", "SOL"];
/// One record in so many is above the currency's limit, and released.
const RELEASED_ONE_IN: u64 = 20;
/// Two records in five are deallocations.
const DEALLOCATIONS_IN_FIVE: u64 = 2;
const QUANTITY_MAX: u64 = 1_000_000_000;
/// What each connection has of each currency at the start: enough for every run.
const OPENING: u64 = 1_000_000_000_000_000;

/// A stream of records.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Workload {
    pub(crate) seed: u64,
}

/// One record.
pub(crate) struct Record {
    pub(crate) id: Uuid,
    pub(crate) is_allocation: bool,
    pub(crate) currency: &'static str,
    pub(crate) quantity: u64,
    pub(crate) connection: u64,
    pub(crate) partners_id: String,
}

/// The finalizer of `SplitMix64`: ids must not come in order, or indexes would grow at one end only.
fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn uuid(seed: u64, number: u64) -> Uuid {
    let high = mix(seed.wrapping_mul(31).wrapping_add(mix(number)));
    let bytes = (u128::from(high) << 64 | u128::from(mix(high ^ number))).to_be_bytes();
    Builder::from_random_bytes(bytes).into_uuid()
}

impl Workload {
    pub(crate) fn record(self, number: u64) -> Record {
        let id = uuid(self.seed, number);
        let luck = mix(number ^ self.seed.rotate_left(17));
        let over = luck.is_multiple_of(RELEASED_ONE_IN);
        Record {
            id,
            is_allocation: (luck >> 8) % 5 >= DEALLOCATIONS_IN_FIVE,
            currency: CURRENCIES[usize::try_from((luck >> 16) % 4).unwrap_or(0)],
            quantity: 1 + (luck >> 24) % 1_000_000 + if over { QUANTITY_MAX } else { 0 },
            connection: (luck >> 48) % CONNECTIONS,
            partners_id: format!("r-{number:012}"),
        }
    }

    /// The message about a record, as a partner's edge would publish it.
    pub(crate) fn message(self, number: u64) -> Vec<u8> {
        let record = self.record(number);
        let (kind, name) = if record.is_allocation {
            ("allocation", "Allocation")
        } else {
            ("deallocation", "Deallocation")
        };
        let mut text = String::with_capacity(512);
        // A `String` takes whatever is written to it.
        let _fits = write!(
            text,
            r#"{{"type":"{kind}","{kind}Id":"{}",{},"partners{name}Id":"{}"}}"#,
            record.id,
            record.terms(),
            record.partners_id
        );
        text.into_bytes()
    }
}

impl Record {
    /// The members that messages, updates and echoes share.
    pub(crate) fn terms(&self) -> String {
        let (client, connection) = (client_id(self.connection), connection_id(self.connection));
        format!(
            r#""amount":{{"currency":"{}","quantity":"{}"}},"clientId":"{client}","connectionId":"{connection}","partnersClientId":"client-{:04}","partnersConnectionId":"conn-{:04}""#,
            self.currency, self.quantity, self.connection, self.connection
        )
    }
}

pub(crate) fn client_id(connection: u64) -> Uuid {
    uuid(1, connection)
}

pub(crate) fn connection_id(connection: u64) -> Uuid {
    uuid(2, connection)
}

/// The book to begin with, as `settled book import` takes it.
pub(crate) fn book() -> String {
    let mut lines: Vec<String> = CURRENCIES
        .iter()
        .map(|currency| {
            json!({"type": "currency.configured", "eventId": format!("k-{currency}"),
                   "currency": currency, "enabled": true, "quantityMin": "1",
                   "quantityMax": QUANTITY_MAX.to_string()})
            .to_string()
        })
        .collect();
    for number in 0..CONNECTIONS {
        let connection = connection_id(number);
        lines.push(
            json!({"type": "connection.upserted", "eventId": format!("c-{number}"),
                   "connectionId": connection, "clientId": client_id(number),
                   "partnersClientId": format!("client-{number:04}"),
                   "partnersConnectionId": format!("conn-{number:04}"), "active": true})
            .to_string(),
        );
        for currency in CURRENCIES {
            lines.push(
                json!({"type": "balance.adjusted", "eventId": format!("b-{number}-{currency}"),
                       "connectionId": connection, "currency": currency,
                       "delta": OPENING.to_string()})
                .to_string(),
            );
        }
    }
    lines.join("\n") + "\n"
}
