//! How the domain's types look in the API's description. The domain itself knows of no API.

use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        RefOr,
        schema::{ObjectBuilder, Schema, SchemaFormat, Type},
    },
};

use crate::{
    domain::{
        action::Switch,
        amount::{Amount, Balance, Quantity, Total},
        book::{Connection, Currency},
        decision::Outcome,
        ids::{
            ClientId, ConnectionId, CurrencyCode, JobSeq, PartnersClientId, PartnersConnectionId,
            PartnersRecordId, RecordId,
        },
        job::{JobTerms, JobType},
        time::TimestampMs,
    },
    store::query::Cursor,
};

fn text(format: Option<&str>, description: &str) -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .format(format.map(|format| SchemaFormat::Custom(format.to_owned())))
        .description(Some(description))
}

fn whole(description: &str) -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(Type::Integer)
        .format(Some(SchemaFormat::Custom("int64".to_owned())))
        .description(Some(description))
}

macro_rules! schemas {
    ($($type:ty => $schema:expr),* $(,)?) => {$(
        impl PartialSchema for $type {
            fn schema() -> RefOr<Schema> {
                RefOr::T(Schema::Object($schema.build()))
            }
        }
        impl ToSchema for $type {}
    )*};
}

schemas! {
    RecordId => text(Some("uuid"), "allocationId or deallocationId"),
    ClientId => text(Some("uuid"), "The client at BitGo"),
    ConnectionId => text(Some("uuid"), "The connection at BitGo"),
    PartnersRecordId => text(None, "The record on the exchange"),
    PartnersClientId => text(None, "The client on the exchange"),
    PartnersConnectionId => text(None, "The connection on the exchange"),
    CurrencyCode => text(None, "A currency by the partner's name for it"),
    Cursor => text(None, "Where a list goes on"),
    Quantity => text(None, "Base units, whole, up to 256 bits"),
    Total => text(None, "Base units, whole"),
    Balance => text(None, "Base units, whole, with a sign if it is below zero"),
    TimestampMs => whole("Milliseconds since the Unix epoch, UTC"),
    JobSeq => whole("The job's number, in the order of arrival"),
    Outcome => text(None, "How a record ends").enum_values(Some(["cleared", "released"])),
    JobType => text(None, "Which way").enum_values(Some(["allocation", "deallocation"])),
    Switch => text(None, "A switch").enum_values(Some(["intake", "signing", "sending"])),
    Amount => ObjectBuilder::new()
        .property("currency", CurrencyCode::schema())
        .required("currency")
        .property("quantity", Quantity::schema())
        .required("quantity"),
    JobTerms => ObjectBuilder::new()
        .property("type", JobType::schema())
        .property("recordId", RecordId::schema())
        .property("amount", Amount::schema())
        .property("clientId", ClientId::schema())
        .property("connectionId", ConnectionId::schema())
        .property("partnersClientId", PartnersClientId::schema())
        .property("partnersConnectionId", PartnersConnectionId::schema())
        .property("partnersRecordId", PartnersRecordId::schema()),
    Connection => ObjectBuilder::new()
        .property("connectionId", ConnectionId::schema())
        .property("clientId", ClientId::schema())
        .property("partnersClientId", PartnersClientId::schema())
        .property("partnersConnectionId", PartnersConnectionId::schema())
        .property("active", ObjectBuilder::new().schema_type(Type::Boolean)),
    Currency => ObjectBuilder::new()
        .property("currency", CurrencyCode::schema())
        .property("enabled", ObjectBuilder::new().schema_type(Type::Boolean))
        .property("quantityMin", Quantity::schema())
        .property("quantityMax", Quantity::schema())
        .description(Some("A currency with its limits")),
}
