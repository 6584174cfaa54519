//! Adding to the world: a seed is checked whole before any of it is taken.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::{
    seed::{ClientSeed, ConnectionSeed, Seed, SeedError, check_public_key},
    units::Units,
    world::{Client, Connection, Currency, PARTIES_MAX, Purse, World},
};
use crate::domain::{
    ids::{ClientId, CurrencyCode},
    time::TimestampMs,
};

impl World {
    /// Adds what a seed has, all of it or nothing.
    pub(super) fn apply(&mut self, seed: &Seed, now: TimestampMs) -> Result<(), SeedError> {
        self.check(seed)?;
        if let Some(enterprise) = &seed.partner.enterprise_id {
            enterprise.clone_into(&mut self.partner.enterprise_id);
        }
        self.partner.public_keys.extend(seed.partner.public_keys.iter().cloned());
        for currency in &seed.currencies {
            self.currencies.insert(
                currency.name.clone(),
                Currency {
                    partner_name: currency.partner_name.clone(),
                    decimals: currency.decimals,
                },
            );
        }
        for client in &seed.clients {
            self.apply_client(client);
        }
        for connection in &seed.connections {
            self.apply_connection(connection, now);
        }
        Ok(())
    }

    fn check(&self, seed: &Seed) -> Result<(), SeedError> {
        let clients = seed.clients.iter().map(|client| client.id);
        let known_clients: BTreeSet<ClientId> =
            clients.chain(self.clients.keys().copied()).collect();
        let names = seed.currencies.iter().map(|currency| &currency.name);
        let known_currencies: BTreeSet<&CurrencyCode> =
            names.chain(self.currencies.keys()).collect();
        let connections = self.connections.len().saturating_add(seed.connections.len());
        for (what, count) in [
            ("clients", known_clients.len()),
            ("currencies", known_currencies.len()),
            ("connections", connections),
        ] {
            if count > PARTIES_MAX {
                return Err(SeedError::TooMany { what, max: PARTIES_MAX });
            }
        }
        let client_keys = seed.clients.iter().flat_map(|client| &client.public_keys);
        for key in seed.partner.public_keys.iter().chain(client_keys) {
            check_public_key(key)?;
        }
        not_empty("partner.enterpriseId", seed.partner.enterprise_id.as_ref())?;
        self.check_clients(seed)?;
        self.check_connections(seed, &known_clients)?;
        let client_balances = seed.clients.iter().flat_map(|client| client.balances.keys());
        let balances = seed.connections.iter().flat_map(|connection| connection.balances.keys());
        for currency in client_balances.chain(balances) {
            if !known_currencies.contains(currency) {
                return Err(SeedError::UnknownCurrency(currency.clone()));
            }
        }
        Ok(())
    }

    fn check_clients(&self, seed: &Seed) -> Result<(), SeedError> {
        let known = self.clients.values();
        let mut owners: BTreeMap<&str, ClientId> =
            known.map(|client| (client.enterprise_id.as_str(), client.id)).collect();
        for client in &seed.clients {
            not_empty("a client's enterpriseId", Some(&client.enterprise_id))?;
            let owner = owners.insert(&client.enterprise_id, client.id);
            if owner.is_some_and(|owner| owner != client.id) {
                return Err(SeedError::EnterpriseTaken(client.enterprise_id.clone()));
            }
        }
        Ok(())
    }

    fn check_connections(
        &self,
        seed: &Seed,
        known_clients: &BTreeSet<ClientId>,
    ) -> Result<(), SeedError> {
        for connection in &seed.connections {
            not_empty("a connection's name", Some(&connection.name))?;
            not_empty("partnersClientId", connection.partners_client_id.as_ref())?;
            not_empty("partnersConnectionId", connection.partners_connection_id.as_ref())?;
            let known = self.connections.get(&connection.id);
            if known.is_some_and(|known| known.client_id != connection.client_id) {
                return Err(SeedError::ClientChanged(connection.id));
            }
            if !known_clients.contains(&connection.client_id) {
                return Err(SeedError::UnknownClient {
                    connection: connection.id,
                    client: connection.client_id,
                });
            }
        }
        Ok(())
    }

    fn apply_client(&mut self, seed: &ClientSeed) {
        let client = self.clients.entry(seed.id).or_insert_with(|| Client {
            id: seed.id,
            enterprise_id: String::new(),
            public_keys: BTreeSet::new(),
            purse: Purse::new(),
        });
        client.enterprise_id.clone_from(&seed.enterprise_id);
        client.public_keys.extend(seed.public_keys.iter().cloned());
        fill(&mut client.purse, &seed.balances);
    }

    fn apply_connection(&mut self, seed: &ConnectionSeed, now: TimestampMs) {
        let connection = self.connections.entry(seed.id).or_insert_with(|| Connection {
            id: seed.id,
            name: String::new(),
            client_id: seed.client_id,
            network_account_id: Uuid::new_v4(),
            partners_client_id: None,
            partners_connection_id: None,
            active: true,
            purse: Purse::new(),
            created_at: now,
            updated_at: now,
        });
        connection.name.clone_from(&seed.name);
        connection.client_id = seed.client_id;
        connection.partners_client_id.clone_from(&seed.partners_client_id);
        connection.partners_connection_id.clone_from(&seed.partners_connection_id);
        connection.active = seed.active;
        connection.updated_at = now;
        fill(&mut connection.purse, &seed.balances);
    }
}

fn not_empty(what: &'static str, text: Option<&String>) -> Result<(), SeedError> {
    match text {
        Some(text) if text.is_empty() => Err(SeedError::Empty(what)),
        Some(_) | None => Ok(()),
    }
}

fn fill(purse: &mut Purse, balances: &BTreeMap<CurrencyCode, Units>) {
    for (currency, units) in balances {
        purse.entry(currency.clone()).or_default().available = *units;
    }
}
