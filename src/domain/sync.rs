//! What the book's connections and currencies would have to become to be as OES has them.
//!
//! Two parties say whether a connection is active, and it is only if both do. OES's word is read; the
//! exchange's word is the last fact that it gave. So a connection that OES deactivates is deactivated
//! here and comes back with OES's word, and one that the exchange has suspended stays so, whatever OES
//! says, until the exchange or an operator speaks again. Limits and whether a currency is enabled are
//! the exchange's alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde::{Deserialize, Serialize};

use super::{
    amount::Quantity,
    book::{BookFact, Connection, Currency},
    ids::{ConnectionId, CurrencyCode},
    limits::ConnectionCaps,
    shown::{Listed, ShownConnection},
};

/// The source of facts that a sync made from what OES says.
pub const SYNC_SOURCE: &str = "sync";

/// What a line of a sync is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SyncKind {
    /// OES has a connection that the book does not have.
    NewConnection,
    /// The ids of its client or of the exchange differ.
    ChangedConnection,
    /// It is active here, and must not be.
    Deactivated,
    /// OES does not have it any more.
    GoneConnection,
    /// OES had deactivated it, and has it active again.
    Reactivated,
    /// The exchange had suspended it, and an operator gives it back.
    Activated,
    /// OES has it active, and the exchange has suspended it: left alone.
    SuspendedHere,
    /// The exchange has not set it up at OES: left alone.
    NotReady,
    /// OES shows it in a way that cannot be read: left alone.
    Unreadable,
    /// OES supports a currency that the book does not have.
    NewCurrency,
    /// The book has a currency that OES does not support: left alone.
    UnsupportedCurrency,
}

impl SyncKind {
    /// All kinds, for metrics.
    pub const ALL: [Self; 11] = [
        Self::NewConnection,
        Self::ChangedConnection,
        Self::Deactivated,
        Self::GoneConnection,
        Self::Reactivated,
        Self::Activated,
        Self::SuspendedHere,
        Self::NotReady,
        Self::Unreadable,
        Self::NewCurrency,
        Self::UnsupportedCurrency,
    ];

    /// Whether a sync brings the book in step; the others are only shown.
    #[must_use]
    pub const fn is_applied(self) -> bool {
        match self {
            Self::NewConnection
            | Self::ChangedConnection
            | Self::Deactivated
            | Self::GoneConnection
            | Self::Reactivated
            | Self::Activated
            | Self::NewCurrency => true,
            Self::SuspendedHere | Self::NotReady | Self::Unreadable | Self::UnsupportedCurrency => {
                false
            }
        }
    }

    /// Whether somebody should know when it stays: records can be refused, or cleared, wrongly.
    #[must_use]
    pub const fn needs_attention(self) -> bool {
        match self {
            Self::NewConnection
            | Self::ChangedConnection
            | Self::Deactivated
            | Self::GoneConnection
            | Self::Reactivated
            | Self::Unreadable => true,
            Self::Activated
            | Self::SuspendedHere
            | Self::NotReady
            | Self::NewCurrency
            | Self::UnsupportedCurrency => false,
        }
    }

    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NewConnection => "new_connection",
            Self::ChangedConnection => "changed_connection",
            Self::Deactivated => "deactivated",
            Self::GoneConnection => "gone_connection",
            Self::Reactivated => "reactivated",
            Self::Activated => "activated",
            Self::SuspendedHere => "suspended_here",
            Self::NotReady => "not_ready",
            Self::Unreadable => "unreadable",
            Self::NewCurrency => "new_currency",
            Self::UnsupportedCurrency => "unsupported_currency",
        }
    }
}

impl fmt::Display for SyncKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A connection in the book.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BookConnection {
    /// As it is.
    pub connection: Connection,
    /// Whether the exchange's last word about it was that it is active; `None` if it never spoke.
    pub exchange_word: Option<bool>,
}

/// What a sync looks at.
#[derive(Debug)]
pub struct SyncView<'a> {
    /// The connections that OES shows.
    pub shown: &'a [Listed<ShownConnection>],
    /// Connections of the book that OES does not have: each was asked for by name.
    pub gone: &'a BTreeSet<ConnectionId>,
    /// The connections in the book.
    pub book: &'a [BookConnection],
    /// The currencies that OES supports, if that could be asked for.
    pub supported: Option<&'a BTreeSet<CurrencyCode>>,
    /// The currencies in the book.
    pub currencies: &'a [Currency],
    /// Suspended connections that an operator gives back.
    pub activate: &'a BTreeSet<ConnectionId>,
}

/// One thing in which the book and OES differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SyncLine {
    /// What it is about.
    pub kind: SyncKind,
    /// The connection or the currency.
    pub about: String,
    /// How it is here.
    pub here: String,
    /// How it is at OES.
    pub oes: String,
    /// What is done about it, or why nothing is.
    pub note: String,
    /// The fact that would bring the book in step; nothing if it is left alone.
    #[serde(skip)]
    pub fact: Option<BookFact>,
}

/// Everything in which the book and OES differ, connections first.
#[must_use]
pub fn differences(view: &SyncView<'_>) -> Vec<SyncLine> {
    let book: BTreeMap<ConnectionId, &BookConnection> =
        view.book.iter().map(|known| (known.connection.connection_id, known)).collect();
    let mut lines: Vec<SyncLine> = Vec::new();
    for Listed { id, item } in view.shown {
        match item {
            Ok(shown) => lines.extend(compare(shown, book.get(&shown.id).copied(), view.activate)),
            Err(reason) => lines.push(SyncLine {
                kind: SyncKind::Unreadable,
                about: id.to_string(),
                here: String::new(),
                oes: String::new(),
                note: format!("left alone: {reason}"),
                fact: None,
            }),
        }
    }
    lines.extend(view.book.iter().filter_map(|known| {
        let connection = &known.connection;
        let is_gone = connection.active && view.gone.contains(&connection.connection_id);
        is_gone.then(|| SyncLine {
            kind: SyncKind::GoneConnection,
            about: connection.connection_id.to_string(),
            here: describe(connection),
            oes: "not there".to_owned(),
            note: "becomes inactive".to_owned(),
            fact: Some(BookFact::ConnectionUpserted(Connection {
                active: false,
                ..connection.clone()
            })),
        })
    }));
    lines.sort_by(|one, other| (one.kind, &one.about).cmp(&(other.kind, &other.about)));
    lines.extend(
        view.supported
            .into_iter()
            .flat_map(|supported| compare_currencies(supported, view.currencies)),
    );
    lines
}

fn compare(
    shown: &ShownConnection,
    book: Option<&BookConnection>,
    activate: &BTreeSet<ConnectionId>,
) -> Option<SyncLine> {
    let line = |kind, note: &str, fact| SyncLine {
        kind,
        about: shown.id.to_string(),
        here: book.map_or_else(|| "not there".to_owned(), |known| describe(&known.connection)),
        oes: describe_shown(shown),
        note: note.to_owned(),
        fact,
    };
    let (true, Some(partners_client_id), Some(partners_connection_id)) =
        (shown.initialized, &shown.partners_client_id, &shown.partners_connection_id)
    else {
        let note = "left alone: the exchange has not set it up at OES";
        return Some(line(SyncKind::NotReady, note, None));
    };
    let with = |active| Connection {
        connection_id: shown.id,
        client_id: shown.client_id,
        partners_client_id: partners_client_id.clone(),
        partners_connection_id: partners_connection_id.clone(),
        active,
    };
    let fact = |active| Some(BookFact::ConnectionUpserted(with(active)));
    let Some(known) = book else {
        let note = if shown.active { "is added" } else { "is added, inactive" };
        return Some(line(SyncKind::NewConnection, note, fact(shown.active)));
    };
    let is_wanted = known.exchange_word.unwrap_or(true);
    let is_given_back = activate.contains(&shown.id);
    let active = shown.active && (is_wanted || is_given_back);
    let here = &known.connection;
    if *here != with(here.active) {
        let note = match (here.active, active) {
            (true, false) => "takes OES's ids and becomes inactive",
            (false, true) => "takes OES's ids and becomes active",
            (true, true) | (false, false) => "takes OES's ids",
        };
        return Some(line(SyncKind::ChangedConnection, note, fact(active)));
    }
    match (here.active, active) {
        (true, false) => Some(line(SyncKind::Deactivated, "becomes inactive", fact(false))),
        (false, true) if is_wanted => {
            Some(line(SyncKind::Reactivated, "becomes active again", fact(true)))
        }
        (false, true) => Some(line(SyncKind::Activated, "becomes active, as asked", fact(true))),
        (false, false) if shown.active => {
            let note = "left alone: the exchange has suspended it (--activate gives it back)";
            Some(line(SyncKind::SuspendedHere, note, None))
        }
        (true, true) | (false, false) => None,
    }
}

fn compare_currencies(supported: &BTreeSet<CurrencyCode>, known: &[Currency]) -> Vec<SyncLine> {
    let names: BTreeSet<&CurrencyCode> = known.iter().map(|currency| &currency.currency).collect();
    let new = supported.iter().filter(|name| !names.contains(name)).map(|name| SyncLine {
        kind: SyncKind::NewCurrency,
        about: name.to_string(),
        here: "not there".to_owned(),
        oes: "supported".to_owned(),
        note: "is added, disabled and with limits of 0".to_owned(),
        fact: Some(BookFact::CurrencyConfigured(Currency {
            currency: name.clone(),
            enabled: false,
            quantity_min: Quantity::ZERO,
            // Even enabled by mistake, it clears nothing before somebody has thought of its limits.
            quantity_max: Quantity::ZERO,
            decimals: None,
            exposure_max_total: None,
            caps: ConnectionCaps::default(),
        })),
    });
    let unsupported =
        known.iter().filter(|currency| !supported.contains(&currency.currency)).map(|currency| {
            SyncLine {
                kind: SyncKind::UnsupportedCurrency,
                about: currency.currency.to_string(),
                here: if currency.enabled { "enabled" } else { "disabled" }.to_owned(),
                oes: "not supported".to_owned(),
                note: "left alone: whether it is enabled is the exchange's to say".to_owned(),
                fact: None,
            }
        });
    new.chain(unsupported).collect()
}

fn activity(active: bool) -> &'static str {
    if active { "active" } else { "inactive" }
}

fn describe(connection: &Connection) -> String {
    format!(
        "{}, client {}, partner's {} / {}",
        activity(connection.active),
        connection.client_id,
        connection.partners_client_id,
        connection.partners_connection_id
    )
}

fn describe_shown(shown: &ShownConnection) -> String {
    let text = |id: Option<&str>| id.unwrap_or("(none)").to_owned();
    format!(
        "{}, client {}, partner's {} / {}",
        activity(shown.active),
        shown.client_id,
        text(shown.partners_client_id.as_ref().map(super::ids::PartnersClientId::as_str)),
        text(shown.partners_connection_id.as_ref().map(super::ids::PartnersConnectionId::as_str)),
    )
}

#[cfg(test)]
mod tests;
