//! What OES's lists show: records, connections and balances, as far as they matter here.
//!
//! Fields that are not named are allowed. An item that cannot be read keeps its id and says why, so
//! that it neither hides the others nor looks as if it were not there. Source: OES reference,
//! `GET …/partners/allocations`, `…/partners/connections`, `…/partners/balances`,
//! `…/supportedCurrencies`.

use std::collections::BTreeMap;

use serde::Deserialize;
use uuid::Uuid;

use super::{
    amount::{Amount, Quantity, Total},
    decimals::{Scale, Scales, UnreadableAmount},
    ids::{ClientId, ConnectionId, CurrencyCode, PartnersClientId, PartnersConnectionId},
    record::{OesRecord, any_spelling},
};

/// One item of a list: its id, and the item, or why it cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed<T> {
    /// What it is about.
    pub id: Uuid,
    /// What is said about it.
    pub item: Result<T, String>,
}

/// An amount as reads give it: in base units, or in decimals, as the partner is configured.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ShownAmount {
    /// The partner's mapped name.
    pub currency: String,
    /// How much.
    pub quantity: String,
}

impl ShownAmount {
    /// The amount as a scale reads it.
    ///
    /// # Errors
    /// What is wrong with it, for a reader.
    pub fn read(&self, scale: Scale) -> Result<Amount, String> {
        let currency = self.currency()?;
        let quantity: Quantity = scale
            .units(&currency, &self.quantity)
            .map_err(|error| format!("its quantity: {error}"))?;
        Amount::positive(currency, quantity).map_err(|error| format!("its quantity is {error}"))
    }

    /// The amount, by how amounts in its currency are read.
    ///
    /// # Errors
    /// What is wrong with it, for a reader.
    pub fn read_by(&self, scales: &Scales) -> Result<Amount, String> {
        self.read(scales.of(&self.currency()?))
    }

    fn currency(&self) -> Result<CurrencyCode, String> {
        self.currency.parse().map_err(|error| format!("its currency is {error}"))
    }
}

/// A record with what a comparison and an adoption need beyond its status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShownRecord {
    /// Its status and what it belongs to.
    pub record: OesRecord,
    /// How much of what.
    pub amount: ShownAmount,
    /// The record on the exchange, where OES shows it.
    pub partner_external_id: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RestOfRecord {
    amount: ShownAmount,
    #[serde(default)]
    partner_external_id: Option<String>,
}

impl ShownRecord {
    /// Reads a record.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(json: &str) -> Result<Self, serde_json::Error> {
        let record: OesRecord = serde_json::from_str(json)?;
        let RestOfRecord { amount, partner_external_id } = serde_json::from_str(json)?;
        Ok(Self { record, amount, partner_external_id })
    }
}

/// A connection as OES has it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShownConnection {
    /// Its id.
    #[serde(deserialize_with = "any_spelling")]
    pub id: ConnectionId,
    /// Its client.
    #[serde(deserialize_with = "any_spelling")]
    pub client_id: ClientId,
    /// Which of the enterprise's partners it is with.
    pub partner_id: Uuid,
    /// The client on the exchange; null until the exchange has set the connection up.
    pub partners_client_id: Option<PartnersClientId>,
    /// The connection on the exchange; null until then.
    pub partners_connection_id: Option<PartnersConnectionId>,
    /// Whether anything may be allocated or deallocated.
    pub active: bool,
    /// Whether the exchange has set it up.
    pub initialized: bool,
}

/// What a connection has in a currency, as reads give it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ShownFunds {
    /// What nothing is reserved of.
    pub available: String,
    /// What is reserved for deallocations.
    pub held: String,
}

impl ShownFunds {
    /// Both, as a scale reads them.
    ///
    /// # Errors
    /// [`UnreadableAmount`].
    pub fn read(
        &self,
        currency: &CurrencyCode,
        scale: Scale,
    ) -> Result<(Total, Total), UnreadableAmount> {
        Ok((scale.units(currency, &self.available)?, scale.units(currency, &self.held)?))
    }
}

/// What a connection has, by currency.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ShownBalances {
    /// By the partner's mapped name.
    pub balances: BTreeMap<String, ShownFunds>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::decimals::AmountForm;

    const UNITS: Scale = Scale::new(AmountForm::BaseUnits, None);

    const RECORD: &str = r#"{"id":"0B4A3F3E-7d0a-4b5e-9a0e-3d1c5f2b7a10","type":"allocation",
        "amount":{"currency":"BTC","quantity":"150000"},"status":"reserved","new":[1],
        "connectionId":"9e8d7c6b-5a49-4838-a716-0f1e2d3c4b5a","clientExternalId":"x",
        "createdAt":"2026-11-22T08:15:30.250Z","partnerExternalId":"alloc-1"}"#;

    #[test]
    fn a_record_is_read_with_its_amount_and_fields_that_are_not_known() {
        let shown = ShownRecord::parse(RECORD).unwrap();
        assert_eq!(shown.amount.read(UNITS).unwrap().to_string(), "150000 BTC");
        assert_eq!(shown.partner_external_id.as_deref(), Some("alloc-1"));
        for broken in [r#""amount":{"currency":"BTC"}"#, r#""amount":"150000 BTC""#] {
            let json = RECORD.replace(r#""amount":{"currency":"BTC","quantity":"150000"}"#, broken);
            assert!(ShownRecord::parse(&json).is_err(), "{json}");
        }
    }

    #[test]
    fn only_whole_base_units_are_an_amount() {
        for quantity in ["1.5", "", "-1", "01", "0", "1e3", " 1"] {
            let shown = ShownAmount { currency: "BTC".to_owned(), quantity: quantity.to_owned() };
            assert!(shown.read(UNITS).is_err(), "{quantity:?}");
        }
    }

    #[test]
    fn funds_are_read_both_or_not_at_all() {
        let funds = |available: &str, held: &str| {
            let funds = ShownFunds { available: available.to_owned(), held: held.to_owned() };
            let read = funds.read(&"BTC".parse().unwrap(), UNITS).ok();
            read.map(|(available, held)| (available.to_string(), held.to_string()))
        };
        assert_eq!(funds("5", "7"), Some(("5".to_owned(), "7".to_owned())));
        assert_eq!((funds("5", "0.7"), funds("x", "7")), (None, None));
    }

    #[test]
    fn a_connection_that_the_exchange_has_not_set_up_has_no_ids_of_it() {
        let json = r#"{"id":"9e8d7c6b-5a49-4838-a716-0f1e2d3c4b5a","name":"x","active":true,
            "clientId":"5d1f0e3a-2b6c-4f0d-8a37-1f0a3c9b2d11","partnersConnectionId":null,
            "partnerId":"5d1f0e3a-2b6c-4f0d-8a37-1f0a3c9b2d12","partnersClientId":null,
            "initialized":false}"#;
        let shown: ShownConnection = serde_json::from_str(json).unwrap();
        assert!(shown.partners_client_id.is_none() && !shown.initialized);
        let empty = json.replace(r#""partnersClientId":null"#, r#""partnersClientId":"""#);
        assert!(serde_json::from_str::<ShownConnection>(&empty).is_err());
    }
}
