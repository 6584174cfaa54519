//! The exchange around the worker: its connections and currencies, the messages that it publishes and
//! the events that it hears.

use std::rc::Rc;

use serde_json::{Value, json};
use uuid::Uuid;

use super::operation::{Caps, Difference, Fact};
use crate::domain::{
    amount::{Amount, Quantity},
    ids::{ClientId, ConnectionId, CurrencyCode, RecordId},
    job::{JobTerms, JobType},
};

/// A message on the queue, with what its publisher meant by it.
#[derive(Clone, Debug)]
pub(super) struct Message {
    pub(super) bytes: Rc<[u8]>,
    /// `None` for bytes that are no job.
    pub(super) terms: Option<Rc<JobTerms>>,
}

const GARBAGE: [&[u8]; 4] = [
    b"",
    b"{\"type\":\"allocation\"}",
    b"\xff\xfe",
    br#"{"type":"allocation","allocationId":"0B4A3F3E-7D0A-4B5E-9A0E-3D1C5F2B7A10"}"#,
];

/// Connections that the exchange has; the book learns of the last one only when it is fed.
pub(super) const CONNECTIONS: u8 = 3;
pub(super) const CURRENCIES: [&str; 2] = ["BTC", "ETH"];

pub(super) fn connection_id(which: u8) -> ConnectionId {
    Uuid::from_u128(0xc0_0000 + u128::from(which)).into()
}

fn client_id(which: u8) -> ClientId {
    Uuid::from_u128(0xd0_0000 + u128::from(which)).into()
}

pub(super) fn currency(which: u8) -> CurrencyCode {
    CURRENCIES[usize::from(which) % CURRENCIES.len()].parse().unwrap()
}

/// The terms of the record with this number.
pub(super) fn terms(
    number: usize,
    job_type: JobType,
    (connection, currency_which, quantity): (u8, u8, u8),
    wrong_identity: bool,
) -> JobTerms {
    let record: RecordId = Uuid::from_u128(0xa0_0000 + u128::try_from(number).unwrap()).into();
    let client = if wrong_identity { "somebody-else".to_owned() } else { partner(connection) };
    let quantity = Quantity::from(u64::from(quantity));
    JobTerms {
        job_type,
        record_id: record,
        amount: Amount::positive(currency(currency_which), quantity).unwrap(),
        client_id: client_id(connection),
        connection_id: connection_id(connection),
        partners_client_id: client.parse().unwrap(),
        partners_connection_id: partner(connection).parse().unwrap(),
        partners_record_id: format!("r-{number}").parse().unwrap(),
    }
}

/// Other terms of the same record, as another client might have them.
pub(super) fn altered(terms: &JobTerms, difference: Difference) -> JobTerms {
    let mut other = terms.clone();
    match difference {
        Difference::Connection => {
            let now = (0..CONNECTIONS).find(|which| connection_id(*which) == terms.connection_id);
            let which = (now.unwrap() + 1) % CONNECTIONS;
            (other.client_id, other.connection_id) = (client_id(which), connection_id(which));
            other.partners_client_id = partner(which).parse().unwrap();
            other.partners_connection_id = partner(which).parse().unwrap();
        }
        Difference::Type => {
            other.job_type = match terms.job_type {
                JobType::Allocation => JobType::Deallocation,
                JobType::Deallocation => JobType::Allocation,
            };
        }
        Difference::Amount => {
            let units: u64 = terms.amount.quantity().to_string().parse().unwrap();
            let currency = terms.amount.currency().clone();
            other.amount = Amount::positive(currency, Quantity::from(units + 7)).unwrap();
        }
    }
    other
}

fn partner(connection: u8) -> String {
    format!("p-{connection}")
}

impl Message {
    pub(super) fn job(terms: Rc<JobTerms>) -> Self {
        let kind = terms.job_type.as_str();
        let mut fields = serde_json::to_value(&*terms).unwrap();
        let object = fields.as_object_mut().unwrap();
        let own = if kind == "allocation" { "Allocation" } else { "Deallocation" };
        let id = object.remove("recordId").unwrap();
        object.insert(format!("{kind}Id"), id);
        let id = object.remove("partnersRecordId").unwrap();
        object.insert(format!("partners{own}Id"), id);
        Self { bytes: fields.to_string().into_bytes().into(), terms: Some(terms) }
    }

    pub(super) fn garbage(which: u8) -> Self {
        let bytes = GARBAGE[usize::from(which) % GARBAGE.len()];
        Self { bytes: bytes.into(), terms: None }
    }
}

/// A fact as the feed writes it.
pub(super) fn fact_text(number: usize, fact: Fact) -> String {
    let event_id = format!("event-{number}");
    let mut text = match fact {
        Fact::Connection { which, active } => json!({
            "eventId": event_id, "type": "connection.upserted",
            "connectionId": connection_id(which), "clientId": client_id(which),
            "partnersClientId": partner(which), "partnersConnectionId": partner(which),
            "active": active,
        }),
        Fact::Currency { which, enabled, least, most, .. } => json!({
            "eventId": event_id, "type": "currency.configured", "currency": currency(which),
            "enabled": enabled, "quantityMin": least.to_string(), "quantityMax": most.to_string(),
        }),
        Fact::Limits { connection, currency: which, .. } => json!({
            "eventId": event_id, "type": "connection.limited",
            "connectionId": connection_id(connection), "currency": currency(which),
        }),
        Fact::Adjust { connection, currency: which, delta } => json!({
            "eventId": event_id, "type": "balance.adjusted",
            "connectionId": connection_id(connection), "currency": currency(which),
            "delta": delta.to_string(),
        }),
    };
    if let Fact::Currency { caps, .. } | Fact::Limits { caps, .. } = fact {
        add_caps(&mut text, caps);
    }
    text.to_string()
}

fn add_caps(event: &mut Value, caps: Caps) {
    for (name, cap) in [
        ("exposureMaxTotal", caps.total),
        ("exposureMaxPerConnection", caps.exposure),
        ("dailyAllocationMaxPerConnection", caps.allocations),
        ("dailyDeallocationMaxPerConnection", caps.deallocations),
        ("approvalAbove", caps.approval_above),
    ] {
        if let Some(cap) = cap {
            event[name] = json!(cap.to_string());
        }
    }
}

/// Limits that some runs reach; the second currency has the same.
const OPENING_CAPS: Caps = Caps {
    total: Some(260),
    exposure: Some(180),
    allocations: Some(150),
    deallocations: Some(120),
    approval_above: Some(50),
};

/// What is in the book before anything happens.
pub(super) fn opening() -> Vec<Fact> {
    let mut facts = Vec::new();
    for which in 0..CONNECTIONS - 1 {
        facts.push(Fact::Connection { which, active: true });
    }
    for which in 0..2 {
        facts.push(Fact::Currency { which, enabled: true, least: 2, most: 80, caps: OPENING_CAPS });
        facts.push(Fact::Adjust { connection: which, currency: 0, delta: 70 });
    }
    facts
}
