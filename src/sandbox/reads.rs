//! The reads of both sides.

use std::cmp::Ordering;

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{
    answer::{Reader, Refusal, record_view},
    auth::Side,
    incoming::{Filters, Incoming},
    platform::{Done, Platform},
    record::Record,
    rules::ReadAmounts,
    units::{Funds, Units},
    world::{Connection, Purse},
};
use crate::domain::{ids::CurrencyCode, job::JobType};

/// Parameters of the partner's list of records.
const PARTNER_LIST: [&str; 11] = [
    "allocationIds",
    "types",
    "statuses",
    "currencies",
    "connectionIds",
    "partnerIds",
    "clientIds",
    "pageNumber",
    "pageSize",
    "sortField",
    "sortDirection",
];

/// Parameters of a client's list of records.
const CLIENT_LIST: [&str; 12] = [
    "allocationIds",
    "types",
    "statuses",
    "currencies",
    "connectionIds",
    "partnerIds",
    "createdOnOrAfter",
    "createdBefore",
    "pageNumber",
    "pageSize",
    "sortField",
    "sortDirection",
];

const CONNECTION_LIST: [&str; 8] = [
    "pageNumber",
    "pageSize",
    "active",
    "clientIds",
    "connectionIds",
    "partnersClientIds",
    "partnersConnectionIds",
    "partnerIds",
];

const PARTNER_BALANCES: [&str; 6] =
    ["pageNumber", "pageSize", "partnerIds", "clientIds", "connectionIds", "partnersConnectionIds"];

const CLIENT_BALANCES: [&str; 4] = ["pageNumber", "pageSize", "connectionIds", "partnerIds"];

/// The name that every sandbox has as an API server.
const DOMAIN: &str = "bitgo-network";

fn not_found(text: String) -> Refusal {
    Refusal::new(404, "NotFound", text)
}

fn bad_id(text: &str) -> Refusal {
    Refusal::new(400, "InvalidRequest", format!("{text:?} is not a UUID"))
}

/// Whether a filter lets a value through; one that is absent lets everything.
fn lets<T: PartialEq>(filter: Option<&Vec<T>>, value: &T) -> bool {
    filter.is_none_or(|values| values.contains(value))
}

impl Platform {
    fn reader(&self, side: Side, record: &Record) -> Reader {
        match side {
            Side::Client => Reader::Client,
            Side::Partner => {
                let currency = self.world.currencies.get(&record.currency);
                Reader::Partner(
                    self.rules.read_amounts,
                    currency.map_or(0, |currency| currency.decimals),
                    self.rules.reserved_partner_id,
                )
            }
        }
    }

    /// Whether whoever reads may see a record: the partner sees all that are not hidden, a client its own.
    fn is_visible(&self, side: Side, incoming: &Incoming, record: &Record) -> bool {
        match side {
            Side::Partner => !self.world.hidden.contains(&record.id),
            Side::Client => self
                .world
                .client_of(&incoming.enterprise_id)
                .is_some_and(|client| client.id == record.client_id),
        }
    }

    pub(super) fn read_record(&self, side: Side, incoming: &Incoming) -> Result<Done, Refusal> {
        incoming.filters(&[])?;
        let id = Uuid::try_parse(&incoming.id).map_err(|_| bad_id(&incoming.id))?;
        let record = self
            .world
            .record(id.into())
            .filter(|record| self.is_visible(side, incoming, record))
            .ok_or_else(|| not_found(format!("there is no record {id}")))?;
        let view = record_view(record, self.reader(side, record));
        Ok(Done::read(json!({ "allocation": view })))
    }

    pub(super) fn read_records(&self, side: Side, incoming: &Incoming) -> Result<Done, Refusal> {
        let filters = incoming.filters(match side {
            Side::Partner => &PARTNER_LIST,
            Side::Client => &CLIENT_LIST,
        })?;
        let wanted = Wanted::read(&filters)?;
        let ids = filters.uuids("allocationIds")?;
        let page = filters.page(&self.rules)?;
        let fits = |record: &&Record| {
            self.is_visible(side, incoming, record)
                && wanted.has(side, record)
                && lets(wanted.partner_ids.as_ref(), &self.world.partner.id)
        };
        let mut records: Vec<&Record> = match ids {
            None => self.world.records().filter(fits).collect(),
            Some(mut ids) => {
                ids.sort_unstable();
                ids.dedup();
                let found = ids.into_iter().filter_map(|id| self.world.record(id.into()));
                found.filter(fits).collect()
            }
        };
        let sort = Sort::read(side, &filters)?;
        records.sort_by(|one, other| sort.compare(one, other));
        let views: Vec<Value> = page
            .of(records)
            .into_iter()
            .map(|record| record_view(record, self.reader(side, record)))
            .collect();
        Ok(Done::read(json!({ "allocations": views })))
    }

    pub(super) fn read_connections(&self, incoming: &Incoming) -> Result<Done, Refusal> {
        let filters = incoming.filters(&CONNECTION_LIST)?;
        let wanted = WantedConnections::read(&filters)?;
        let active = match filters.one("active") {
            None => None,
            Some("true") => Some(true),
            Some("false") => Some(false),
            Some(text) => {
                let text = format!("active: {text:?} is neither true nor false");
                return Err(Refusal::new(400, "InvalidQuery", text));
            }
        };
        let page = filters.page(&self.rules)?;
        let connections = self
            .world
            .connections
            .values()
            .filter(|connection| wanted.has(connection, self.world.partner.id))
            .filter(|connection| active.is_none_or(|active| active == connection.active));
        let views: Vec<Value> = page
            .of(connections)
            .into_iter()
            .map(|connection| self.connection_view(connection))
            .collect();
        Ok(Done::read(json!({ "connections": views })))
    }

    pub(super) fn read_connection(&self, incoming: &Incoming) -> Result<Done, Refusal> {
        incoming.filters(&[])?;
        let id = Uuid::try_parse(&incoming.id).map_err(|_| bad_id(&incoming.id))?;
        let connection = self
            .world
            .connections
            .get(&id.into())
            .ok_or_else(|| not_found(format!("there is no connection {id}")))?;
        let view = self.connection_view(connection);
        Ok(Done::read(json!({ "connection": view })))
    }

    fn connection_view(&self, connection: &Connection) -> Value {
        json!({
            "id": connection.id,
            "name": connection.name,
            "clientId": connection.client_id,
            "partnerId": self.world.partner.id,
            "networkAccountId": connection.network_account_id,
            "createdAt": connection.created_at.to_string(),
            "updatedAt": connection.updated_at.to_string(),
            "active": connection.active,
            "proof": "sandbox",
            "nonce": connection.network_account_id.simple().to_string(),
            "partnersConnectionId": connection.partners_connection_id,
            "partnersClientId": connection.partners_client_id,
            "initialized": connection.is_initialized(),
        })
    }

    pub(super) fn read_partner_balances(&self, incoming: &Incoming) -> Result<Done, Refusal> {
        let filters = incoming.filters(&PARTNER_BALANCES)?;
        let wanted = WantedConnections::read(&filters)?;
        let page = filters.page(&self.rules)?;
        // A connection that the partner has not set up has no name to be shown with.
        let connections = self
            .world
            .connections
            .values()
            .filter(|connection| connection.partners_connection_id.is_some())
            .filter(|connection| wanted.has(connection, self.world.partner.id));
        let mut balances = Map::new();
        for connection in page.of(connections) {
            let purse = connection.purse.iter();
            let by_partner_name = purse.filter_map(|(name, funds)| {
                let currency = self.world.currencies.get(name)?;
                let write = |units: Units| match self.rules.read_amounts {
                    ReadAmounts::BaseUnits => units.to_string(),
                    ReadAmounts::Decimals => units.to_decimal(currency.decimals),
                };
                Some((currency.partner_name.to_string(), funds_view(*funds, write)))
            });
            let view = json!({
                "clientId": connection.client_id,
                "partnerId": self.world.partner.id,
                "partnersConnectionId": connection.partners_connection_id,
                "balances": by_partner_name.collect::<Map<_, _>>(),
            });
            balances.insert(connection.id.to_string(), view);
        }
        Ok(Done::read(json!({ "networkBalances": balances })))
    }

    pub(super) fn read_client_balances(&self, incoming: &Incoming) -> Result<Done, Refusal> {
        let filters = incoming.filters(&CLIENT_BALANCES)?;
        let wanted = WantedConnections::read(&filters)?;
        let page = filters.page(&self.rules)?;
        let enterprise = &incoming.enterprise_id;
        let client = self
            .world
            .client_of(enterprise)
            .ok_or_else(|| not_found(format!("there is no client {enterprise:?}")))?;
        let connections = self
            .world
            .connections
            .values()
            .filter(|connection| connection.client_id == client.id)
            .filter(|connection| connection.partners_connection_id.is_some())
            .filter(|connection| wanted.has(connection, self.world.partner.id));
        let mut balances = Map::new();
        for connection in page.of(connections) {
            let view = json!({
                "partnerId": self.world.partner.id,
                "partnersConnectionId": connection.partners_connection_id,
                "name": connection.name,
                "partnerInstitutionIdentifier": "sandbox-partner",
                "balances": purse_view(&connection.purse),
            });
            balances.insert(connection.id.to_string(), view);
        }
        Ok(Done::read(json!({
            "clientId": client.id,
            "balances": purse_view(&client.purse),
            "networkBalances": balances,
        })))
    }

    pub(super) fn read_currencies(&self, incoming: &Incoming) -> Result<Done, Refusal> {
        let filters = incoming.filters(&["partnerIds"])?;
        let partner_ids = filters
            .uuids("partnerIds")?
            .ok_or_else(|| Refusal::new(400, "InvalidQuery", "partnerIds is missing".to_owned()))?;
        let mut partners = Map::new();
        if partner_ids.contains(&self.world.partner.id) {
            let currencies: Vec<Value> = self
                .world
                .currencies
                .iter()
                .map(|(name, currency)| {
                    json!({ "name": name, "partnerNames": [currency.partner_name] })
                })
                .collect();
            partners.insert(self.world.partner.id.to_string(), json!(currencies));
        }
        Ok(Done::read(json!({ "supportedCurrencies": partners, "domain": DOMAIN })))
    }
}

fn funds_view(funds: Funds, write: impl Fn(Units) -> String) -> Value {
    json!({ "available": write(funds.available), "held": write(funds.held) })
}

fn purse_view(purse: &Purse) -> Map<String, Value> {
    let entries = purse.iter();
    entries
        .map(|(name, funds)| {
            let view = funds_view(*funds, |units| units.to_string());
            (name.to_string(), view)
        })
        .collect()
}

/// The filters of a list of records.
struct Wanted<'a> {
    types: Option<Vec<&'a str>>,
    statuses: Option<Vec<&'a str>>,
    currencies: Option<Vec<&'a str>>,
    connection_ids: Option<Vec<Uuid>>,
    client_ids: Option<Vec<Uuid>>,
    partner_ids: Option<Vec<Uuid>>,
    created: (Option<i64>, Option<i64>),
}

impl<'a> Wanted<'a> {
    fn read(filters: &Filters<'a>) -> Result<Self, Refusal> {
        let time = |name: &str| match filters.one(name) {
            None => Ok(None),
            Some(text) => text
                .parse::<jiff::Timestamp>()
                .map(|time| Some(time.as_millisecond()))
                .map_err(|_| {
                    let text = format!("{name}: {text:?} is not an ISO 8601 date with a zone");
                    Refusal::new(400, "InvalidQuery", text)
                }),
        };
        Ok(Self {
            types: filters.words("types", &JobType::ALL.map(JobType::as_str))?,
            statuses: filters.words("statuses", &["cleared", "released", "reserved"])?,
            currencies: filters.list("currencies")?,
            connection_ids: filters.uuids("connectionIds")?,
            client_ids: filters.uuids("clientIds")?,
            partner_ids: filters.uuids("partnerIds")?,
            created: (time("createdOnOrAfter")?, time("createdBefore")?),
        })
    }

    fn has(&self, side: Side, record: &Record) -> bool {
        let currency: &CurrencyCode = match side {
            Side::Client => &record.currency,
            Side::Partner => &record.partner_currency,
        };
        let created = record.created_at.as_millis();
        let (from, before) = self.created;
        lets(self.types.as_ref(), &record.record_type.as_str())
            && lets(self.statuses.as_ref(), &record.standing.status())
            && lets(self.currencies.as_ref(), &currency.as_str())
            && lets(self.connection_ids.as_ref(), &record.connection_id.as_uuid())
            && lets(self.client_ids.as_ref(), &record.client_id.as_uuid())
            && from.is_none_or(|from| created >= from)
            && before.is_none_or(|before| created < before)
    }
}

/// The filters of what is about connections.
#[expect(clippy::struct_field_names, reason = "the fields are named as the parameters are")]
struct WantedConnections<'a> {
    connection_ids: Option<Vec<Uuid>>,
    client_ids: Option<Vec<Uuid>>,
    partner_ids: Option<Vec<Uuid>>,
    partners_client_ids: Option<Vec<&'a str>>,
    partners_connection_ids: Option<Vec<&'a str>>,
}

impl<'a> WantedConnections<'a> {
    fn read(filters: &Filters<'a>) -> Result<Self, Refusal> {
        Ok(Self {
            connection_ids: filters.uuids("connectionIds")?,
            client_ids: filters.uuids("clientIds")?,
            partner_ids: filters.uuids("partnerIds")?,
            partners_client_ids: filters.list("partnersClientIds")?,
            partners_connection_ids: filters.list("partnersConnectionIds")?,
        })
    }

    fn has(&self, connection: &Connection, partner_id: Uuid) -> bool {
        let text = |id: &'_ Option<String>| id.clone().unwrap_or_default();
        lets(self.connection_ids.as_ref(), &connection.id.as_uuid())
            && lets(self.client_ids.as_ref(), &connection.client_id.as_uuid())
            && lets(self.partner_ids.as_ref(), &partner_id)
            && lets(
                self.partners_client_ids.as_ref(),
                &text(&connection.partners_client_id).as_str(),
            )
            && lets(
                self.partners_connection_ids.as_ref(),
                &text(&connection.partners_connection_id).as_str(),
            )
    }
}

/// The order of a list of records.
struct Sort<'a> {
    field: Option<&'a str>,
    is_descending: bool,
}

impl<'a> Sort<'a> {
    fn read(side: Side, filters: &Filters<'a>) -> Result<Self, Refusal> {
        let fields: &[&str] = match side {
            Side::Partner => &["id", "updatedAt", "quantity"],
            Side::Client => &["id", "updatedAt", "quantity", "currency"],
        };
        let first =
            |values: Option<Vec<&'a str>>| values.and_then(|values| values.first().copied());
        Ok(Self {
            field: first(filters.words("sortField", fields)?),
            is_descending: first(filters.words("sortDirection", &["ASC", "DESC"])?) == Some("DESC"),
        })
    }

    /// As documented: by the field, and then always by age and id.
    fn compare(&self, one: &Record, other: &Record) -> Ordering {
        let by_field = match self.field {
            Some("id") => one.id.cmp(&other.id),
            Some("updatedAt") => one.updated_at.cmp(&other.updated_at),
            Some("quantity") => one.quantity.cmp(&other.quantity),
            Some("currency") => one.currency.cmp(&other.currency),
            Some(_) | None => Ordering::Equal,
        };
        let by_field = if self.is_descending { by_field.reverse() } else { by_field };
        by_field.then(one.created_at.cmp(&other.created_at)).then(one.id.cmp(&other.id))
    }
}
