//! Making the job of a record whose message never came.
//!
//! The record says what is to be moved, and the book whose it is; only where both together hold every
//! field is there a job. The message that is made is read as any other, so its job is the one that the
//! real message makes: should that come later, it is the same job again.

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{
    book::Connection,
    decimals::Scales,
    job::{JobTerms, JobType},
    message::parse_job,
    record::RecordStatus,
    shown::ShownRecord,
};

/// Where the message of an adopted job says that it came from.
pub const ADOPTED_QUEUE: &str = "sweep";

/// Why a record cannot be taken in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum NotAdoptable {
    /// It is final.
    #[error("it is not reserved any more")]
    NotReserved,
    /// The book does not know its connection.
    #[error("the book does not have its connection: settled book sync")]
    UnknownConnection,
    /// OES does not show the exchange's id of it, and the update has to name it.
    #[error("OES does not show the exchange's id of it (partnerExternalId)")]
    NoPartnersId,
    /// The amount or an id is not as a message must have it.
    #[error("{0}")]
    Unusable(String),
}

/// A record as a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adoption {
    /// What the job is about.
    pub terms: JobTerms,
    /// The message that the exchange would have published, and where it came from instead.
    pub raw: String,
}

/// Makes the job of a record, `connection` being what the book has for its connection, and `scales` how
/// OES's amounts are read.
///
/// # Errors
/// [`NotAdoptable`].
pub fn adopt(
    shown: &ShownRecord,
    connection: Option<&Connection>,
    scales: &Scales,
) -> Result<Adoption, NotAdoptable> {
    let record = &shown.record;
    if record.status != RecordStatus::Reserved {
        return Err(NotAdoptable::NotReserved);
    }
    let connection = connection
        .filter(|connection| connection.connection_id == record.connection_id)
        .ok_or(NotAdoptable::UnknownConnection)?;
    let partners_record_id =
        shown.partner_external_id.as_deref().ok_or(NotAdoptable::NoPartnersId)?;
    let amount = shown.amount.read_by(scales).map_err(NotAdoptable::Unusable)?;
    let (id_name, partners_id_name) = match record.job_type {
        JobType::Allocation => ("allocationId", "partnersAllocationId"),
        JobType::Deallocation => ("deallocationId", "partnersDeallocationId"),
    };
    let message = Map::from_iter([
        ("type".to_owned(), json!(record.job_type)),
        (id_name.to_owned(), json!(record.id)),
        ("amount".to_owned(), json!(amount)),
        ("clientId".to_owned(), json!(connection.client_id)),
        ("connectionId".to_owned(), json!(connection.connection_id)),
        ("partnersClientId".to_owned(), json!(connection.partners_client_id)),
        ("partnersConnectionId".to_owned(), json!(connection.partners_connection_id)),
        (partners_id_name.to_owned(), json!(partners_record_id)),
        // Fields that a job does not have are kept with its message.
        ("source".to_owned(), json!(ADOPTED_QUEUE)),
    ]);
    let raw = Value::Object(message).to_string();
    match parse_job(raw.as_bytes()) {
        Ok(terms) => Ok(Adoption { terms, raw }),
        Err(refusal) => Err(NotAdoptable::Unusable(refusal.detail)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE: &str = r#"{"type":"deallocation",
        "deallocationId":"0b4a3f3e-7d0a-4b5e-9a0e-3d1c5f2b7a10",
        "amount":{"currency":"BTC","quantity":"150000"},
        "clientId":"5d1f0e3a-2b6c-4f0d-8a37-1f0a3c9b2d11",
        "connectionId":"9e8d7c6b-5a49-4838-a716-0f1e2d3c4b5a",
        "partnersClientId":"client-001","partnersConnectionId":"conn-001",
        "partnersDeallocationId":"dealloc-001"}"#;

    fn shown() -> ShownRecord {
        ShownRecord::parse(
            r#"{"id":"0b4a3f3e-7d0a-4b5e-9a0e-3d1c5f2b7a10","type":"deallocation",
            "amount":{"currency":"BTC","quantity":"150000"},"status":"reserved",
            "connectionId":"9e8d7c6b-5a49-4838-a716-0f1e2d3c4b5a",
            "partnerExternalId":"dealloc-001"}"#,
        )
        .unwrap()
    }

    fn connection() -> Connection {
        let terms = parse_job(MESSAGE.as_bytes()).unwrap();
        Connection {
            connection_id: terms.connection_id,
            client_id: terms.client_id,
            partners_client_id: terms.partners_client_id,
            partners_connection_id: terms.partners_connection_id,
            active: true,
        }
    }

    #[test]
    fn an_adopted_job_is_the_job_of_the_message_that_never_came() {
        let adoption = adopt(&shown(), Some(&connection()), &Scales::default()).unwrap();
        let genuine = parse_job(MESSAGE.as_bytes()).unwrap();
        assert_eq!(adoption.terms, genuine);
        assert_eq!(adoption.terms.content_hash(), genuine.content_hash());
        let raw: Value = serde_json::from_str(&adoption.raw).unwrap();
        assert_eq!(raw["source"], "sweep");
    }

    #[test]
    fn without_every_field_there_is_no_job() {
        let connection = connection();
        assert_eq!(adopt(&shown(), None, &Scales::default()), Err(NotAdoptable::UnknownConnection));
        let unnamed = ShownRecord { partner_external_id: None, ..shown() };
        assert_eq!(
            adopt(&unnamed, Some(&connection), &Scales::default()),
            Err(NotAdoptable::NoPartnersId)
        );
        for (quantity, name) in [("0.0015", "dealloc-001"), ("0", "dealloc-001"), ("1", "")] {
            let mut odd = shown();
            odd.amount.quantity = quantity.to_owned();
            odd.partner_external_id = Some(name.to_owned());
            let refused = adopt(&odd, Some(&connection), &Scales::default());
            assert!(matches!(refused, Err(NotAdoptable::Unusable(_))), "{refused:?}");
        }
        let mut ended = shown();
        ended.record.status = RecordStatus::Cleared;
        assert_eq!(
            adopt(&ended, Some(&connection), &Scales::default()),
            Err(NotAdoptable::NotReserved)
        );
        let mut elsewhere = connection;
        elsewhere.connection_id = uuid::Uuid::nil().into();
        assert_eq!(
            adopt(&shown(), Some(&elsewhere), &Scales::default()),
            Err(NotAdoptable::UnknownConnection)
        );
    }
}
