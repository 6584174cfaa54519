//! The book of the model: connections, currencies and balances, from facts, decisions and ends.

use std::collections::{BTreeMap, BTreeSet};

use super::{Violation, holds};
use crate::{
    domain::{
        amount::{Balance, Quantity, Total},
        book::{BookEvent, BookFact, Connection, Currency},
        decision::Outcome,
        ids::{BookEventId, ConnectionId, CurrencyCode},
        job::{JobTerms, JobType},
        ledger::AccountKind,
        time::TimestampMs,
    },
    simulation::world::GRACE,
    store::memory::MemoryBook,
};

/// What a connection has in a currency. Amounts are small here, so plain numbers do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Holding {
    available: i64,
    held: i64,
    incoming: i64,
    /// What came from OES less what went there, in flight included.
    from_oes: i64,
    fed: i64,
}

#[derive(Default)]
pub(super) struct Money {
    connections: BTreeMap<ConnectionId, Connection>,
    currencies: BTreeMap<CurrencyCode, Currency>,
    holdings: BTreeMap<(ConnectionId, CurrencyCode), Holding>,
    facts: BTreeSet<BookEventId>,
}

fn units(quantity: Quantity) -> i64 {
    quantity.to_string().parse().unwrap()
}

fn balance(units: i64) -> Balance {
    let sum = |units: u64| Total::ZERO.plus(Quantity::from(units)).unwrap();
    match u64::try_from(units) {
        Ok(credit) => Balance::of(sum(credit), Total::ZERO),
        Err(_) => Balance::of(Total::ZERO, sum(units.unsigned_abs())),
    }
}

impl Money {
    fn holding(&mut self, terms: &JobTerms) -> &mut Holding {
        let key = (terms.connection_id, terms.amount.currency().clone());
        self.holdings.entry(key).or_default()
    }

    /// A fact is applied once, whenever it is fed; one about an unknown connection is not.
    pub(super) fn apply(&mut self, event: &BookEvent) {
        let is_known = match event.fact() {
            BookFact::BalanceAdjusted(adjustment) => {
                self.connections.contains_key(&adjustment.connection_id)
            }
            BookFact::ConnectionUpserted(_) | BookFact::CurrencyConfigured(_) => true,
        };
        if !is_known || !self.facts.insert(event.id().clone()) {
            return;
        }
        match event.fact() {
            BookFact::ConnectionUpserted(connection) => {
                self.connections.insert(connection.connection_id, connection.clone());
            }
            BookFact::CurrencyConfigured(currency) => {
                self.currencies.insert(currency.currency.clone(), currency.clone());
            }
            BookFact::BalanceAdjusted(adjustment) => {
                let delta: i64 = adjustment.delta.to_string().parse().unwrap();
                let key = (adjustment.connection_id, adjustment.currency.clone());
                let holding = self.holdings.entry(key).or_default();
                holding.available += delta;
                holding.fed += delta;
            }
        }
    }

    /// Whether a job's identifiers are those of its connection.
    pub(super) fn identity_agrees(&self, terms: &JobTerms) -> Option<bool> {
        let known = self.connections.get(&terms.connection_id)?;
        let ours = (&known.client_id, &known.partners_client_id, &known.partners_connection_id);
        Some(ours == (&terms.client_id, &terms.partners_client_id, &terms.partners_connection_id))
    }

    /// The outcome that a record must be given now; `None` if it must not be given any.
    pub(super) fn ruling(
        &self,
        terms: &JobTerms,
        received_at: TimestampMs,
        now: TimestampMs,
    ) -> Option<Outcome> {
        let agrees = self.identity_agrees(terms);
        if agrees.is_none() {
            return (now >= received_at.after(GRACE)).then_some(Outcome::Released);
        }
        if agrees == Some(false) {
            return None;
        }
        let quantity = terms.amount.quantity();
        let is_active = self.connections[&terms.connection_id].active;
        let is_within = self.currencies.get(terms.amount.currency()).is_some_and(|currency| {
            currency.enabled && (currency.quantity_min..=currency.quantity_max).contains(&quantity)
        });
        let key = (terms.connection_id, terms.amount.currency().clone());
        let available = self.holdings.get(&key).map_or(0, |holding| holding.available);
        let is_covered = terms.job_type == JobType::Allocation || available >= units(quantity);
        Some(if is_active && is_within && is_covered {
            Outcome::Cleared
        } else {
            Outcome::Released
        })
    }

    /// A decision holds what it clears.
    pub(super) fn decided(&mut self, terms: &JobTerms, cleared: bool) {
        if !cleared {
            return;
        }
        let quantity = units(terms.amount.quantity());
        let holding = self.holding(terms);
        match terms.job_type {
            JobType::Allocation => {
                holding.incoming += quantity;
                holding.from_oes += quantity;
            }
            JobType::Deallocation => {
                holding.available -= quantity;
                holding.held += quantity;
            }
        }
    }

    /// An end takes the hold away, and moves what OES moved.
    pub(super) fn ended(&mut self, terms: &JobTerms, decided: Outcome, actual: Outcome) {
        if (decided, actual) == (Outcome::Released, Outcome::Released) {
            return;
        }
        let quantity = units(terms.amount.quantity());
        let holding = self.holding(terms);
        if decided == Outcome::Cleared {
            // As if nothing had been decided.
            match terms.job_type {
                JobType::Allocation => {
                    holding.incoming -= quantity;
                    holding.from_oes -= quantity;
                }
                JobType::Deallocation => {
                    holding.available += quantity;
                    holding.held -= quantity;
                }
            }
        }
        if actual == Outcome::Cleared {
            let moved = match terms.job_type {
                JobType::Allocation => quantity,
                JobType::Deallocation if decided == Outcome::Cleared => -quantity,
                // What the client no longer has is short.
                JobType::Deallocation => -quantity.min(holding.available.max(0)),
            };
            holding.available += moved;
            holding.from_oes += moved;
        }
    }

    /// Whether the movements of the book add up to its balances.
    pub(super) fn check_movements(book: &MemoryBook) -> Result<(), Violation> {
        let from_transfers = book.totals_from_transfers();
        book.accounts().zip(from_transfers).try_for_each(|((key, totals), moved)| {
            holds("balances come from their movements", *totals == moved, || {
                format!("{key:?}: {totals:?}, and the movements say {moved:?}")
            })
        })
    }

    /// Whether the book holds what the model holds.
    pub(super) fn check(&self, book: &MemoryBook) -> Result<(), Violation> {
        let mut balances: BTreeMap<_, [Balance; 5]> = BTreeMap::new();
        for (key, totals) in book.accounts() {
            let place = (key.connection_id, &key.currency);
            let index = AccountKind::ALL.iter().position(|kind| *kind == key.kind).unwrap();
            balances.entry(place).or_default()[index] = totals.balance();
        }
        // A connection that nothing has moved for has no accounts.
        let holdings = self.holdings.iter().filter(|(_, holding)| **holding != Holding::default());
        balances.retain(|_, found| *found != [Balance::ZERO; 5]);
        holds("money moves once", balances.len() == holdings.clone().count(), || {
            format!("{balances:?}, and the model says {:?}", self.holdings)
        })?;
        balances.into_iter().zip(holdings).try_for_each(|(found, (place, holding))| {
            let Holding { available, held, incoming, from_oes, fed } = *holding;
            let expected = [available, held, incoming, -from_oes, -fed].map(balance);
            let place = (place.0, &place.1);
            holds("money moves once", found == (place, expected), || {
                format!("{found:?}, and the model says {holding:?} for {place:?}")
            })
        })
    }
}
