//! A client's allocation or deallocation: the two POST routes.

use serde_json::{Map, Value, json};

use super::{
    answer::{Reader, Refusal, record_view},
    incoming::Incoming,
    platform::{Done, NONCES_MAX, Platform},
    record::Record,
    rules::Settlement,
    signed::{Body, Field, Kind, unknown_signer},
    units::Units,
    update::broken,
    world::{NewRecord, WorldError},
};
use crate::domain::{
    decision::Outcome,
    ids::{ClientId, ConnectionId, CurrencyCode, RecordId},
    job::JobType,
    time::TimestampMs,
};

const FIELDS: [Field; 4] = [
    Field::required("amount", Kind::Amount),
    Field::required("clientExternalId", Kind::Text),
    Field::required("nonce", Kind::Text),
    Field::optional("notes", Kind::Text),
];

/// The payload's keys in the documented order; the last two are the path's.
const DOCUMENTED: [&str; 6] =
    ["amount", "clientExternalId", "nonce", "notes", "connectionId", "enterpriseId"];

/// What a client asks for.
struct Order {
    client_id: ClientId,
    new: NewRecord,
}

impl Platform {
    /// Checks and carries out an order of a client. The same `clientExternalId` again is the same
    /// order: it answers the same record, and does nothing.
    pub(super) fn order(
        &mut self,
        route: JobType,
        incoming: &Incoming,
        now: TimestampMs,
    ) -> Result<Done, Refusal> {
        let connection_id: ConnectionId = incoming.id.parse().map_err(|_| {
            let text = format!("{:?} is not a lower-case hyphenated UUID", incoming.id);
            Refusal::new(400, "InvalidRequest", text)
        })?;
        let body = Body::read(&incoming.body, &FIELDS)?;
        let path = [
            ("connectionId", incoming.id.as_str()),
            ("enterpriseId", incoming.enterprise_id.as_str()),
        ];
        body.check_payload(&DOCUMENTED, &path, self.rules.key_order)?;
        let signer = body.signer()?;
        let client = self
            .world
            .client_of(&incoming.enterprise_id)
            .filter(|client| client.public_keys.contains(&signer))
            .ok_or_else(unknown_signer)?;
        let client_id = client.id;
        let is_theirs = |id| {
            let connection = self.world.connections.get(&id);
            connection.is_some_and(|connection| connection.client_id == client_id)
        };
        if !is_theirs(connection_id) {
            let text = format!("there is no connection {connection_id} of this client");
            return Err(Refusal::new(404, "ConnectionNotFound", text));
        }
        let order = Order { client_id, new: new_record(route, connection_id, &body)? };
        let id = match self.known(&order)? {
            Some(id) => id,
            None => self.take(order, &body.text("nonce"), now)?,
        };
        let record = self.world.record(id).ok_or_else(|| broken(&WorldError::NoRecord(id)))?;
        Ok(answer(record))
    }

    /// The record of the same order, if it was made before.
    fn known(&self, order: &Order) -> Result<Option<RecordId>, Refusal> {
        let external_id = &order.new.client_external_id;
        match self.world.record_of(order.client_id, external_id) {
            None => Ok(None),
            Some(record) if is_same(record, &order.new) => Ok(Some(record.id)),
            Some(_) => {
                let text = format!("clientExternalId {external_id:?} is another order's");
                Err(Refusal::new(400, "ExternalIdTaken", text))
            }
        }
    }

    fn take(&mut self, order: Order, nonce: &str, now: TimestampMs) -> Result<RecordId, Refusal> {
        let used = (order.client_id, nonce.to_owned());
        if self.client_nonces.contains(&used) {
            let text = "the nonce was used before".to_owned();
            return Err(Refusal::new(400, "NonceUsed", text));
        }
        if self.client_nonces.len() >= NONCES_MAX {
            let text = format!("{NONCES_MAX} nonces are remembered: start a new sandbox");
            return Err(Refusal::new(500, "SandboxFull", text));
        }
        let placed = self.place(order.new, now).map_err(|error| match &error {
            WorldError::NoCurrency(_) => Refusal::new(400, "UnknownCurrency", error.to_string()),
            WorldError::NoRecord(_)
            | WorldError::NoConnection(_)
            | WorldError::Objection(_)
            | WorldError::Final(_)
            | WorldError::NotWaiting(_)
            | WorldError::ExternalIdTaken(_)
            | WorldError::Full
            | WorldError::Books(_) => broken(&error),
        })?;
        self.client_nonces.insert(used);
        Ok(placed)
    }

    /// Makes a record, and has its job published if it is the partner's turn.
    pub(super) fn place(
        &mut self,
        new: NewRecord,
        now: TimestampMs,
    ) -> Result<RecordId, WorldError> {
        let id = self.world.place(new, self.rules.settlement, now)?;
        let record = self.world.record(id).ok_or(WorldError::NoRecord(id))?;
        tracing::info!(
            record_id = %id,
            record_type = %record.record_type,
            status = record.standing.status(),
            "a record was made"
        );
        match self.rules.settlement {
            Settlement::Async if self.publishes_jobs && record.standing.outcome().is_none() => {
                self.jobs.push_back(id);
            }
            Settlement::Async | Settlement::Sync => {}
        }
        Ok(id)
    }
}

fn new_record(
    route: JobType,
    connection_id: ConnectionId,
    body: &Body,
) -> Result<NewRecord, Refusal> {
    let invalid = |text: String| Refusal::new(400, "InvalidRequest", text);
    let (currency, quantity) = body.amount();
    Ok(NewRecord {
        record_type: route,
        connection_id,
        currency: currency
            .parse::<CurrencyCode>()
            .map_err(|error| invalid(format!("amount.currency is {error}")))?,
        quantity: quantity
            .parse::<Units>()
            .map_err(|error| invalid(format!("amount.quantity is {error}")))?,
        client_external_id: body.text("clientExternalId"),
        notes: body.optional("notes"),
        partners_record_id: None,
        initiated_by: "sandbox-client".to_owned(),
    })
}

fn is_same(record: &Record, new: &NewRecord) -> bool {
    record.record_type == new.record_type
        && record.connection_id == new.connection_id
        && record.currency == new.currency
        && record.quantity == new.quantity
        && record.notes == new.notes
}

/// The documented answer for a record as it stands: 422 with an `error` if it was released.
fn answer(record: &Record) -> Done {
    let mut view = record_view(record, Reader::Client);
    let is_cleared = record.standing.outcome() == Some(Outcome::Cleared);
    if let Some(fields) = view.as_object_mut() {
        fields.remove("type");
        if is_cleared {
            fields.remove("reason");
        }
    }
    let mut body = Map::new();
    body.insert(record.record_type.as_str().to_owned(), view);
    let (status, verdict) = match record.standing.outcome() {
        Some(Outcome::Released) => {
            let reason = record.reason.clone().unwrap_or_default();
            body.insert("error".to_owned(), json!(reason));
            body.insert("name".to_owned(), json!("Released"));
            (422, "released")
        }
        Some(Outcome::Cleared) => (200, "cleared"),
        None => (200, "reserved"),
    };
    Done { status, body: Value::Object(body), verdict, applied: false }
}
