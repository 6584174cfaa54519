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
        ledger::{AccountKind, AccountTotals},
        limits::ConnectionCaps,
        policy::OperatorWord,
        time::{Day, TimestampMs},
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

/// What must follow for a record now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// It must be given this outcome.
    Outcome(Outcome),
    /// It must wait for an operator's word.
    Word,
    /// It must not be given any.
    Nothing,
}

impl Due {
    pub(super) fn of(decided: Option<Outcome>) -> Self {
        decided.map_or(Self::Nothing, Self::Outcome)
    }
}

/// A connection, a currency, a type and a day.
type DayOf = (ConnectionId, CurrencyCode, JobType, Day);

#[derive(Default)]
pub(super) struct Money {
    own_caps: BTreeMap<(ConnectionId, CurrencyCode), ConnectionCaps>,
    /// What was decided as cleared in a day and has not ended as released.
    days: BTreeMap<DayOf, i64>,
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

    fn day(&mut self, terms: &JobTerms, day: Day) -> &mut i64 {
        let (id, code) = (terms.connection_id, terms.amount.currency().clone());
        self.days.entry((id, code, terms.job_type, day)).or_default()
    }

    /// A fact is applied once, whenever it is fed; one about an unknown connection is not.
    pub(super) fn apply(&mut self, event: &BookEvent) {
        let makes_it = matches!(event.fact(), BookFact::ConnectionUpserted(_));
        let is_known = makes_it
            || event.fact().connection_id().is_none_or(|id| self.connections.contains_key(&id));
        if !is_known || !self.facts.insert(event.id().clone()) {
            return;
        }
        match event.fact() {
            BookFact::ConnectionUpserted(connection) => {
                self.connections.insert(connection.connection_id, connection.clone());
            }
            BookFact::ConnectionSuspended(suspension) => {
                let id = suspension.connection_id;
                self.connections.entry(id).and_modify(|known| known.active = false);
            }
            BookFact::BalanceSnapshot(_) | BookFact::Heartbeat(_) => {}
            BookFact::CurrencyConfigured(currency) => {
                self.currencies.insert(currency.currency.clone(), currency.clone());
            }
            BookFact::ConnectionLimited(limits) => {
                let key = (limits.connection_id, limits.currency.clone());
                self.own_caps.insert(key, limits.caps);
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

    /// Whether a connection has what a record takes.
    pub(super) fn covers(&self, terms: &JobTerms) -> bool {
        let key = (terms.connection_id, terms.amount.currency().clone());
        let available = self.holdings.get(&key).map_or(0, |held| held.available);
        available >= units(terms.amount.quantity())
    }

    /// What must follow for a record now, with an operator's word if there is one.
    pub(super) fn ruling(
        &self,
        terms: &JobTerms,
        received_at: TimestampMs,
        now: TimestampMs,
        word: Option<OperatorWord>,
    ) -> Due {
        let Some(agrees) = self.identity_agrees(terms) else {
            let is_over = now >= received_at.after(GRACE);
            return if is_over { Due::Outcome(Outcome::Released) } else { Due::Nothing };
        };
        if !agrees {
            return Due::Nothing;
        }
        let may_clear = word != Some(OperatorWord::Refused)
            && self.connections[&terms.connection_id].active
            && self.is_within_limits(terms, now.day());
        if !may_clear {
            return Due::Outcome(Outcome::Released);
        }
        let threshold = self.cap(terms, |caps| caps.approval_above);
        let needs_word = threshold.is_some_and(|most| units(terms.amount.quantity()) > most);
        if needs_word && word.is_none() { Due::Word } else { Due::Outcome(Outcome::Cleared) }
    }

    /// A cap of a record's connection: its own, or else the currency's.
    fn cap(
        &self,
        terms: &JobTerms,
        of: impl Fn(&ConnectionCaps) -> Option<Quantity>,
    ) -> Option<i64> {
        let key = (terms.connection_id, terms.amount.currency().clone());
        let own = self.own_caps.get(&key).and_then(&of);
        let general = || self.currencies.get(&key.1).and_then(|currency| of(&currency.caps));
        own.or_else(general).map(units)
    }

    fn is_within_limits(&self, terms: &JobTerms, day: Day) -> bool {
        let (id, code) = (terms.connection_id, terms.amount.currency());
        let Some(currency) = self.currencies.get(code).filter(|currency| currency.enabled) else {
            return false;
        };
        let quantity = units(terms.amount.quantity());
        let holds = |sum: i64, most: Option<i64>| most.is_none_or(|most| sum + quantity <= most);
        let (held, day_of) = ((id, code.clone()), (id, code.clone(), terms.job_type, day));
        let holding = self.holdings.get(&held).copied().unwrap_or_default();
        let today = self.days.get(&day_of).copied().unwrap_or_default();
        let fits_type = match terms.job_type {
            JobType::Allocation => {
                holds(holding.from_oes, self.cap(terms, |caps| caps.exposure_max_per_connection))
                    && holds(self.exposure_total(code), currency.exposure_max_total.map(units))
                    && holds(
                        today,
                        self.cap(terms, |caps| caps.daily_allocation_max_per_connection),
                    )
            }
            JobType::Deallocation => {
                holding.available >= quantity
                    && holds(
                        today,
                        self.cap(terms, |caps| caps.daily_deallocation_max_per_connection),
                    )
            }
        };
        fits_type
            && (units(currency.quantity_min)..=units(currency.quantity_max)).contains(&quantity)
    }

    /// Whether what is cleared and pending for a record's connection, this record included, is within
    /// every cap that bounds records of its type.
    pub(super) fn keeps_caps(&self, terms: &JobTerms, day: Day) -> bool {
        let (id, code) = (terms.connection_id, terms.amount.currency());
        let keeps = |sum: i64, most: Option<i64>| most.is_none_or(|most| sum <= most);
        let exposure = self.holdings.get(&(id, code.clone())).map_or(0, |held| held.from_oes);
        let today = self.days.get(&(id, code.clone(), terms.job_type, day)).copied().unwrap_or(0);
        let of_all = self.currencies.get(code).and_then(|currency| currency.exposure_max_total);
        match terms.job_type {
            JobType::Allocation => {
                keeps(exposure, self.cap(terms, |caps| caps.exposure_max_per_connection))
                    && keeps(self.exposure_total(code), of_all.map(units))
                    && keeps(
                        today,
                        self.cap(terms, |caps| caps.daily_allocation_max_per_connection),
                    )
            }
            JobType::Deallocation => {
                keeps(today, self.cap(terms, |caps| caps.daily_deallocation_max_per_connection))
            }
        }
    }

    fn exposure_total(&self, code: &CurrencyCode) -> i64 {
        let of_currency = self.holdings.iter().filter(|((_, currency), _)| currency == code);
        of_currency.map(|(_, holding)| holding.from_oes).sum()
    }

    /// A decision holds what it clears.
    pub(super) fn decided(&mut self, terms: &JobTerms, day: Day, cleared: bool) {
        if !cleared {
            return;
        }
        let quantity = units(terms.amount.quantity());
        *self.day(terms, day) += quantity;
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
    pub(super) fn ended(
        &mut self,
        terms: &JobTerms,
        day: Option<Day>,
        decided: Outcome,
        actual: Outcome,
    ) {
        if (decided, actual) == (Outcome::Released, Outcome::Released) {
            return;
        }
        let quantity = units(terms.amount.quantity());
        if (decided, actual) == (Outcome::Cleared, Outcome::Released) {
            *self.day(terms, day.unwrap()) -= quantity;
        }
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

    /// Whether the sums that limits are compared with are those of the model.
    fn check_sums(&self, book: &MemoryBook) -> Result<(), Violation> {
        let is_kept = |found: &AccountTotals, expected: i64| found.balance() == balance(expected);
        for code in self.currencies.keys() {
            let found = book.currency_totals().get(code).copied().unwrap_or_default();
            let expected = self.exposure_total(code);
            holds("exposure is what came less what went", is_kept(&found, expected), || {
                format!("{code}: {found:?}, and the model says {expected}")
            })?;
        }
        for (key, found) in book.daily() {
            let day_of = (key.connection_id, key.currency.clone(), key.job_type, key.day);
            let expected = self.days.get(&day_of).copied().unwrap_or_default();
            holds("a day's sum is what it cleared", is_kept(found, expected), || {
                format!("{key:?}: {found:?}, and the model says {expected}")
            })?;
        }
        let days = self.days.len();
        holds("a day's sum is what it cleared", book.daily().len() == days, || {
            format!("{} days, and the model says {days}", book.daily().len())
        })
    }

    /// Whether the book holds what the model holds.
    pub(super) fn check(&self, book: &MemoryBook) -> Result<(), Violation> {
        self.check_sums(book)?;
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
