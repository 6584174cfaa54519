//! Reading lists: a page of what OES has, as it shows it. One call is one page; how a list is read to
//! its end is [`crate::domain::paging`].

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::{
    OesClient, Operation,
    read::{ReadError, parse},
};
use crate::domain::{
    difference::ShownJob,
    ids::{ConnectionId, CurrencyCode, RecordId},
    paging::Page,
    shown::{Listed, ShownBalances, ShownConnection, ShownRecord},
};

#[derive(Deserialize)]
struct OnlyId {
    id: Uuid,
}

#[derive(Deserialize)]
struct Records {
    allocations: Vec<Box<RawValue>>,
}

#[derive(Deserialize)]
struct OneRecord {
    allocation: Box<RawValue>,
}

#[derive(Deserialize)]
struct Connections {
    connections: Vec<Box<RawValue>>,
}

#[derive(Deserialize)]
struct OneConnection {
    connection: Box<RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Balances {
    network_balances: BTreeMap<String, Box<RawValue>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Currencies {
    supported_currencies: BTreeMap<String, Vec<SupportedCurrency>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SupportedCurrency {
    partner_names: Vec<String>,
}

/// The parameters that ask for a page.
fn paged(page: Page) -> [(&'static str, String); 2] {
    [("pageNumber", page.number.to_string()), ("pageSize", page.size.to_string())]
}

impl OesClient {
    async fn list<T: DeserializeOwned>(
        &self,
        operation: Operation,
        segments: &[&str],
        parameters: &[(&str, String)],
    ) -> Result<T, ReadError> {
        let mut url = self.route(segments);
        url.query_pairs_mut().extend_pairs(parameters);
        parse(&self.request(operation, url, None).await?)
    }

    /// A page of the partner's connections.
    ///
    /// # Errors
    /// [`ReadError`] when the answer tells nothing.
    pub async fn list_connections(
        &self,
        page: Page,
    ) -> Result<Vec<Listed<ShownConnection>>, ReadError> {
        let Connections { connections } =
            self.list(Operation::Connections, &["connections"], &paged(page)).await?;
        connections.iter().map(|raw| listed(raw, read_json)).collect()
    }

    /// One connection; nothing if OES answers that there is none.
    ///
    /// # Errors
    /// [`ReadError`] when the answer tells nothing.
    pub async fn show_connection(
        &self,
        id: ConnectionId,
    ) -> Result<Option<Listed<ShownConnection>>, ReadError> {
        let url = self.route(&["connections", &id.to_string()]);
        let answer = self.request(Operation::Connections, url, None).await?;
        if answer.status == 404 {
            return Ok(None);
        }
        let OneConnection { connection } = parse(&answer)?;
        let listed = listed(&connection, read_json)?;
        same(listed.id, id.as_uuid())?;
        Ok(Some(listed))
    }

    /// A page of the records that are reserved, those first that have been left alone for longest: what
    /// is settled while the list is read is behind them.
    ///
    /// # Errors
    /// [`ReadError`] when the answer tells nothing.
    pub async fn list_reserved(&self, page: Page) -> Result<Vec<Listed<ShownRecord>>, ReadError> {
        let mut parameters = vec![
            ("statuses", "reserved".to_owned()),
            ("sortField", "updatedAt".to_owned()),
            ("sortDirection", "ASC".to_owned()),
        ];
        parameters.extend(paged(page));
        let Records { allocations } =
            self.list(Operation::List, &["allocations"], &parameters).await?;
        allocations.iter().map(|raw| listed(raw, ShownRecord::parse)).collect()
    }

    /// Many records with one request. One that is missing from the answer may still exist, because the
    /// size of a page has a limit that is not documented: an absence is for [`Self::show_record`].
    ///
    /// # Errors
    /// [`ReadError`] when the answer tells nothing.
    pub async fn list_records(
        &self,
        ids: &[RecordId],
    ) -> Result<Vec<Listed<ShownRecord>>, ReadError> {
        let names = ids.iter().map(RecordId::to_string).collect::<Vec<_>>().join(",");
        let mut parameters = vec![("allocationIds", names)];
        parameters.extend(paged(Page { number: 0, size: ids.len() }));
        let Records { allocations } =
            self.list(Operation::List, &["allocations"], &parameters).await?;
        allocations.iter().map(|raw| listed(raw, ShownRecord::parse)).collect()
    }

    /// One record with its amount.
    ///
    /// # Errors
    /// [`ReadError`] when the answer tells nothing.
    pub async fn show_record(&self, id: RecordId) -> Result<ShownJob, ReadError> {
        let url = self.route(&["allocations", &id.to_string()]);
        let answer = self.request(Operation::Read, url, None).await?;
        if answer.status == 404 {
            return Ok(ShownJob::Absent);
        }
        let OneRecord { allocation } = parse(&answer)?;
        let Listed { id: shown, item } = listed(&allocation, ShownRecord::parse)?;
        same(shown, id.as_uuid())?;
        Ok(match item {
            Ok(record) => ShownJob::Found(Box::new(record)),
            Err(reason) => ShownJob::Unreadable(reason),
        })
    }

    /// A page of what the partner's connections have.
    ///
    /// # Errors
    /// [`ReadError`] when the answer tells nothing.
    pub async fn list_balances(&self, page: Page) -> Result<Vec<Listed<ShownBalances>>, ReadError> {
        let Balances { network_balances } =
            self.list(Operation::Balances, &["balances"], &paged(page)).await?;
        network_balances
            .iter()
            .map(|(id, raw)| {
                let id = Uuid::try_parse(id).map_err(|_| {
                    ReadError::Failed(format!("OES shows balances of {id:?}, which is no UUID"))
                })?;
                Ok(Listed { id, item: read_json(raw.get()).map_err(|error| error.to_string()) })
            })
            .collect()
    }

    /// The currencies of these partners, by the names that the partner gave them. Names that no job
    /// could have are left out.
    ///
    /// # Errors
    /// [`ReadError`] when the answer tells nothing.
    pub async fn supported_currencies(
        &self,
        partners: &BTreeSet<Uuid>,
    ) -> Result<BTreeSet<CurrencyCode>, ReadError> {
        let names = partners.iter().map(Uuid::to_string).collect::<Vec<_>>().join(",");
        let mut url = self.base.clone();
        // The route is the enterprise's, and the base is the partner's part of it.
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop().push("supportedCurrencies");
        }
        url.query_pairs_mut().append_pair("partnerIds", &names);
        let Currencies { supported_currencies } =
            parse(&self.request(Operation::Currencies, url, None).await?)?;
        Ok(supported_currencies
            .into_values()
            .flatten()
            .flat_map(|currency| currency.partner_names)
            .filter_map(|name| name.parse().ok())
            .collect())
    }
}

fn read_json<T: DeserializeOwned>(json: &str) -> Result<T, serde_json::Error> {
    serde_json::from_str(json)
}

/// An item with its id. An item without one cannot be told of, so the list tells nothing.
fn listed<T>(
    raw: &RawValue,
    read: impl Fn(&str) -> Result<T, serde_json::Error>,
) -> Result<Listed<T>, ReadError> {
    let OnlyId { id } = serde_json::from_str(raw.get()).map_err(|error| {
        ReadError::Failed(format!("OES lists something without an id: {error}"))
    })?;
    Ok(Listed { id, item: read(raw.get()).map_err(|error| error.to_string()) })
}

fn same(shown: Uuid, asked: Uuid) -> Result<(), ReadError> {
    if shown == asked {
        Ok(())
    } else {
        Err(ReadError::Failed(format!("OES answered with {shown} instead of {asked}")))
    }
}
