//! Who there is, what they have, and the records between them.
//!
//! Money is only ever moved here, between a client's account at BitGo and its connections; nothing
//! makes or destroys it but a seed.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Serialize;
use uuid::Uuid;

use super::{
    record::{Record, Standing},
    rules::Settlement,
    units::{Funds, Short, Units},
};
use crate::domain::{
    decision::Outcome,
    ids::{ClientId, ConnectionId, CurrencyCode, RecordId},
    job::JobType,
    time::TimestampMs,
};

/// Most records that are kept; a sandbox that has more must be started anew.
pub const RECORDS_MAX: usize = 1_000_000;

/// Most clients, connections and currencies, each.
pub const PARTIES_MAX: usize = 100_000;

/// Hexadecimal characters of a record's id that its id in the partner's system repeats.
const PARTNERS_ID_CHARS: usize = 12;

/// Money, by the client's currency names.
pub(super) type Purse = BTreeMap<CurrencyCode, Funds>;

/// A currency.
#[derive(Clone, Debug)]
pub(super) struct Currency {
    pub(super) partner_name: CurrencyCode,
    pub(super) decimals: u8,
}

/// A client and its account at BitGo.
#[derive(Clone, Debug)]
pub(super) struct Client {
    pub(super) id: ClientId,
    pub(super) enterprise_id: String,
    pub(super) public_keys: BTreeSet<String>,
    pub(super) purse: Purse,
}

/// A connection and what is allocated to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Connection {
    /// Its id.
    pub id: ConnectionId,
    /// A name for people.
    pub name: String,
    /// Its client.
    pub client_id: ClientId,
    /// The account that it stands for.
    pub network_account_id: Uuid,
    /// The client's id in the partner's system.
    pub partners_client_id: Option<String>,
    /// The connection's id in the partner's system.
    pub partners_connection_id: Option<String>,
    /// Whether anything can be allocated or deallocated.
    pub active: bool,
    /// What is allocated, by the client's currency names.
    pub purse: BTreeMap<CurrencyCode, Funds>,
    /// When it was made.
    pub created_at: TimestampMs,
    /// When it last changed.
    pub updated_at: TimestampMs,
}

impl Connection {
    /// Whether the partner has set it up.
    #[must_use]
    pub fn is_initialized(&self) -> bool {
        self.partners_client_id.is_some() && self.partners_connection_id.is_some()
    }
}

/// Whose funds.
#[derive(Clone, Copy)]
pub(super) enum Account {
    /// The client's at BitGo.
    Client,
    /// The connection's.
    Connection,
}

impl Account {
    /// From where the funds of a record are taken.
    pub(super) const fn paying(record_type: JobType) -> Self {
        match record_type {
            JobType::Allocation => Self::Client,
            JobType::Deallocation => Self::Connection,
        }
    }

    /// Where they go if it is cleared.
    pub(super) const fn receiving(record_type: JobType) -> Self {
        match record_type {
            JobType::Allocation => Self::Connection,
            JobType::Deallocation => Self::Client,
        }
    }
}

/// What a new record is to be.
#[derive(Clone, Debug)]
pub(super) struct NewRecord {
    pub(super) record_type: JobType,
    pub(super) connection_id: ConnectionId,
    pub(super) currency: CurrencyCode,
    pub(super) quantity: Units,
    pub(super) client_external_id: String,
    pub(super) notes: Option<String>,
    pub(super) partners_record_id: Option<String>,
    pub(super) initiated_by: String,
}

/// Why something cannot be done with a record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WorldError {
    /// There is no such record.
    #[error("there is no record {0}")]
    NoRecord(RecordId),
    /// There is no such connection.
    #[error("there is no connection {0}")]
    NoConnection(ConnectionId),
    /// There is no such currency.
    #[error("there is no currency {0}")]
    NoCurrency(CurrencyCode),
    /// A rule of OES is against it.
    #[error("the record would be released at once: {0}")]
    Objection(&'static str),
    /// It has ended.
    #[error("record {0} is final")]
    Final(RecordId),
    /// It does not wait for an approval.
    #[error("record {0} does not wait for an approval")]
    NotWaiting(RecordId),
    /// There is another record with the same id of the client.
    #[error("there is another record with the clientExternalId {0:?}")]
    ExternalIdTaken(String),
    /// No more records fit.
    #[error("there are {RECORDS_MAX} records already: start a new sandbox")]
    Full,
    /// The sandbox's own books do not hold: a fault in it.
    #[error("the sandbox's own books do not hold: {0}")]
    Books(#[from] Short),
}

/// The partner.
#[derive(Clone, Debug)]
pub(super) struct Partner {
    pub(super) id: Uuid,
    pub(super) enterprise_id: String,
    pub(super) public_keys: BTreeSet<String>,
}

/// All of it.
#[derive(Debug)]
pub(super) struct World {
    pub(super) partner: Partner,
    pub(super) currencies: BTreeMap<CurrencyCode, Currency>,
    pub(super) clients: BTreeMap<ClientId, Client>,
    /// Records that the partner's reads do not show.
    pub(super) hidden: BTreeSet<RecordId>,
    pub(super) connections: BTreeMap<ConnectionId, Connection>,
    records: HashMap<RecordId, Record>,
    /// The records in the order in which they were made.
    sequence: Vec<RecordId>,
    by_external_id: HashMap<(ClientId, String), RecordId>,
}

impl World {
    pub(super) fn new(partner_id: Uuid) -> Self {
        Self {
            partner: Partner {
                id: partner_id,
                enterprise_id: String::new(),
                public_keys: BTreeSet::new(),
            },
            currencies: BTreeMap::new(),
            clients: BTreeMap::new(),
            hidden: BTreeSet::new(),
            connections: BTreeMap::new(),
            records: HashMap::new(),
            sequence: Vec::new(),
            by_external_id: HashMap::new(),
        }
    }

    /// The client whose enterprise this is.
    pub(super) fn client_of(&self, enterprise_id: &str) -> Option<&Client> {
        self.clients.values().find(|client| client.enterprise_id == enterprise_id)
    }

    pub(super) fn record(&self, id: RecordId) -> Option<&Record> {
        self.records.get(&id)
    }

    pub(super) fn record_mut(&mut self, id: RecordId) -> Result<&mut Record, WorldError> {
        self.records.get_mut(&id).ok_or(WorldError::NoRecord(id))
    }

    /// All records in the order in which they were made.
    pub(super) fn records(&self) -> impl Iterator<Item = &Record> {
        self.sequence.iter().filter_map(|id| self.records.get(id))
    }

    pub(super) fn record_of(&self, client: ClientId, external_id: &str) -> Option<&Record> {
        let id = self.by_external_id.get(&(client, external_id.to_owned()))?;
        self.records.get(id)
    }

    /// What OES has against a new record, if anything: it would be released at once.
    pub(super) fn objection(&self, new: &NewRecord) -> Result<Option<&'static str>, WorldError> {
        let connection = self
            .connections
            .get(&new.connection_id)
            .ok_or(WorldError::NoConnection(new.connection_id))?;
        if !self.currencies.contains_key(&new.currency) {
            return Err(WorldError::NoCurrency(new.currency.clone()));
        }
        let (purse, too_little) = match new.record_type {
            JobType::Allocation => (
                self.clients.get(&connection.client_id).map(|client| &client.purse),
                "Insufficient balance for the allocation.",
            ),
            JobType::Deallocation => {
                (Some(&connection.purse), "Insufficient funds allocated for the deallocation.")
            }
        };
        let funds = purse.and_then(|purse| purse.get(&new.currency));
        Ok(if !connection.active {
            Some("The connection is not active.")
        } else if !connection.is_initialized() {
            Some("The partner has not initialized the connection.")
        } else if funds.is_none_or(|funds| funds.available < new.quantity) {
            Some(too_little)
        } else {
            None
        })
    }

    /// Makes a record: reserved with its funds held, or released at once if there is an objection.
    pub(super) fn place(
        &mut self,
        new: NewRecord,
        settlement: Settlement,
        now: TimestampMs,
    ) -> Result<RecordId, WorldError> {
        let objection = self.objection(&new)?;
        let (Some(connection), Some(currency)) =
            (self.connections.get(&new.connection_id), self.currencies.get(&new.currency))
        else {
            return Err(WorldError::NoConnection(new.connection_id));
        };
        let client_id = connection.client_id;
        let partner_currency = currency.partner_name.clone();
        let external = (client_id, new.client_external_id.clone());
        if self.by_external_id.contains_key(&external) {
            return Err(WorldError::ExternalIdTaken(new.client_external_id));
        }
        if self.records.len() >= RECORDS_MAX {
            return Err(WorldError::Full);
        }
        if objection.is_none() {
            let paying = Account::paying(new.record_type);
            self.funds(new.connection_id, paying, &new.currency)?.hold(new.quantity)?;
        }
        let id = RecordId::from(Uuid::new_v4());
        let record = Record {
            id,
            record_type: new.record_type,
            connection_id: new.connection_id,
            client_id,
            currency: new.currency,
            partner_currency,
            quantity: new.quantity,
            client_external_id: new.client_external_id,
            notes: new.notes,
            initiated_by: new.initiated_by,
            partners_record_id: new
                .partners_record_id
                .unwrap_or_else(|| partners_record_id(new.record_type, id)),
            partner_external_id: None,
            standing: match objection {
                Some(_) => Standing::Final(Outcome::Released),
                None => Standing::Reserved,
            },
            reason: objection.map(str::to_owned),
            pending_approval_id: None,
            policy_result: None,
            created_at: now,
            updated_at: now,
        };
        self.records.insert(id, record);
        self.sequence.push(id);
        self.by_external_id.insert(external, id);
        match settlement {
            Settlement::Sync if objection.is_none() => {
                self.settle(id, Outcome::Cleared, None, now)?;
            }
            Settlement::Sync | Settlement::Async => {}
        }
        Ok(id)
    }

    pub(super) fn funds(
        &mut self,
        connection_id: ConnectionId,
        account: Account,
        currency: &CurrencyCode,
    ) -> Result<&mut Funds, WorldError> {
        let gone = WorldError::NoConnection(connection_id);
        let Some(connection) = self.connections.get_mut(&connection_id) else {
            return Err(gone);
        };
        let purse = match account {
            Account::Connection => &mut connection.purse,
            Account::Client => match self.clients.get_mut(&connection.client_id) {
                Some(client) => &mut client.purse,
                None => return Err(gone),
            },
        };
        Ok(purse.entry(currency.clone()).or_default())
    }

    /// Everything that everybody has of a currency: only a seed changes it.
    pub(super) fn total(&self, currency: &CurrencyCode) -> Units {
        let clients = self.clients.values().map(|client| &client.purse);
        let connections = self.connections.values().map(|connection| &connection.purse);
        clients
            .chain(connections)
            .filter_map(|purse| purse.get(currency))
            .fold(Units::ZERO, |sum, funds| sum.plus(funds.total()))
    }
}

/// What the partner's edge calls a record, unless it is told.
fn partners_record_id(record_type: JobType, id: RecordId) -> String {
    let word = match record_type {
        JobType::Allocation => "alloc",
        JobType::Deallocation => "dealloc",
    };
    let hex = id.as_uuid().simple().to_string();
    format!("{word}-{}", hex.get(..PARTNERS_ID_CHARS).unwrap_or(&hex))
}
