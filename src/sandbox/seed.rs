//! What the sandbox's world begins with, and what can be added to it later: one JSON format for the
//! seed file, the control route and tests.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::units::Units;
use crate::domain::ids::{ClientId, ConnectionId, CurrencyCode};

/// The partner of the sandbox.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PartnerSeed {
    /// The partner's enterprise; a second one replaces the first.
    #[serde(default)]
    pub enterprise_id: Option<String>,
    /// Compressed public keys, hexadecimal, that may sign updates; they are added to those known.
    #[serde(default)]
    pub public_keys: Vec<String>,
}

/// A currency.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CurrencySeed {
    /// As clients name it.
    pub name: CurrencyCode,
    /// As the partner names it: jobs, updates and the partner's reads have this one.
    pub partner_name: CurrencyCode,
    /// Digits behind the point, for reads in decimals.
    #[serde(default)]
    pub decimals: u8,
}

/// A client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClientSeed {
    /// Its id.
    pub id: ClientId,
    /// Its enterprise.
    pub enterprise_id: String,
    /// Compressed public keys, hexadecimal, that may sign its allocations; added to those known.
    #[serde(default)]
    pub public_keys: Vec<String>,
    /// What it has available at BitGo, by the client's currency names; replaces what is known.
    #[serde(default)]
    pub balances: BTreeMap<CurrencyCode, Units>,
}

/// A connection between a client and the partner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConnectionSeed {
    /// Its id.
    pub id: ConnectionId,
    /// Its client.
    pub client_id: ClientId,
    /// A name for people.
    #[serde(default = "connection_name")]
    pub name: String,
    /// The client's id in the partner's system, unless the partner has not set it up yet.
    pub partners_client_id: Option<String>,
    /// The connection's id in the partner's system, unless the partner has not set it up yet.
    pub partners_connection_id: Option<String>,
    /// Whether anything can be allocated or deallocated.
    #[serde(default = "yes")]
    pub active: bool,
    /// What is allocated to it, by the client's currency names; replaces what is known.
    #[serde(default)]
    pub balances: BTreeMap<CurrencyCode, Units>,
}

fn connection_name() -> String {
    "connection".to_owned()
}

fn yes() -> bool {
    true
}

/// Things to add to the world. What is known already is replaced as its fields say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Seed {
    /// The partner.
    pub partner: PartnerSeed,
    /// Currencies.
    pub currencies: Vec<CurrencySeed>,
    /// Clients.
    pub clients: Vec<ClientSeed>,
    /// Connections.
    pub connections: Vec<ConnectionSeed>,
}

/// Why a seed cannot be taken; nothing of it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SeedError {
    /// Not a public key.
    #[error(
        "{0:?} is not a compressed public key: 66 hexadecimal characters that begin with 02 or 03"
    )]
    BadPublicKey(String),
    /// A connection of a client that is not there.
    #[error("connection {connection} is of client {client}, which is not in the seed or known")]
    UnknownClient {
        /// The connection.
        connection: ConnectionId,
        /// Its client.
        client: ClientId,
    },
    /// A connection that is another client's already.
    #[error("connection {0} is another client's, and cannot change hands")]
    ClientChanged(ConnectionId),
    /// Two clients in one enterprise.
    #[error("enterprise {0:?} is another client's")]
    EnterpriseTaken(String),
    /// A balance in a currency that is not there.
    #[error("a balance is in {0}, which is not in the seed or known")]
    UnknownCurrency(CurrencyCode),
    /// An empty text where an id belongs.
    #[error("{0} is empty")]
    Empty(&'static str),
    /// More than the sandbox holds.
    #[error("more than {max} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// The bound.
        max: usize,
    },
}

/// Whether a text can be a compressed public key.
pub(super) fn check_public_key(text: &str) -> Result<(), SeedError> {
    let is_key = text.len() == 66
        && (text.starts_with("02") || text.starts_with("03"))
        && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if is_key { Ok(()) } else { Err(SeedError::BadPublicKey(text.to_owned())) }
}

impl Seed {
    /// A small world to begin with: one client with two connections, three currencies (one with 18
    /// digits behind the point, so that quantities go beyond 64 bits), and balances on both sides.
    #[must_use]
    pub fn example(partner_public_key: &str, client_public_key: &str) -> Self {
        let currency = |name: &str, partner_name: &str, decimals| {
            Some(CurrencySeed {
                name: name.parse().ok()?,
                partner_name: partner_name.parse().ok()?,
                decimals,
            })
        };
        let balances = |units: [(&str, &str); 3]| {
            let pair =
                |(name, units): (&str, &str)| Some((name.parse().ok()?, units.parse().ok()?));
            units.into_iter().filter_map(pair).collect()
        };
        let client_id = ClientId::from(example_id(1));
        let connection = |number: u8, active| ConnectionSeed {
            id: ConnectionId::from(example_id(number.saturating_add(16))),
            client_id,
            name: format!("connection {number}"),
            partners_client_id: Some("client-001".to_owned()),
            partners_connection_id: Some(format!("conn-{number:03}")),
            active,
            balances: balances([
                ("btc", "500000000"),
                ("eth", "25000000000000000000"),
                ("usdc", "1000000000000"),
            ]),
        };
        Self {
            partner: PartnerSeed {
                enterprise_id: Some("partner-enterprise".to_owned()),
                public_keys: vec![partner_public_key.to_owned()],
            },
            currencies: [
                currency("btc", "BTC", 8),
                currency("eth", "ETH", 18),
                currency("usdc", "USDC", 6),
            ]
            .into_iter()
            .flatten()
            .collect(),
            clients: vec![ClientSeed {
                id: client_id,
                enterprise_id: "client-enterprise".to_owned(),
                public_keys: vec![client_public_key.to_owned()],
                balances: balances([
                    ("btc", "100000000000"),
                    ("eth", "50000000000000000000000"),
                    ("usdc", "10000000000000"),
                ]),
            }],
            connections: vec![connection(1, true), connection(2, true)],
        }
    }
}

/// The ids of the example: always the same, and easy to tell apart.
fn example_id(last: u8) -> Uuid {
    Uuid::from_u128(0x0e5a_0000_0000_4000_8000_0000_0000_0000 | u128::from(last))
}
