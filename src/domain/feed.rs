//! What the exchange feeds of one connection: in which order, whether anything is missing, and whether
//! what it states agrees with the book.
//!
//! Numbers are optional. Where the exchange gives them, a gap is told and an old number is ignored. A
//! number that was missing and comes late is taken if nothing that came since has overtaken what it says:
//! a change of a balance always is, because changes commute.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Deserializer, Serialize};

use super::{
    amount::{AmountError, Balance},
    book::{Adjustment, BalanceSnapshot, BookFact},
    ids::CurrencyCode,
};

/// Largest number: the largest whole number that every JSON library reads exactly.
const SEQUENCE_MAX: u64 = (1 << 53) - 1;

/// Most gaps of a connection that may still be filled; of more, the oldest is given up.
pub const GAPS_MAX: usize = 100;

/// The place of an event among those of its connection: 1, 2, 3 and so on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct BookSequence(u64);

/// Not a number that an event can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a sequence is a whole number from 1 to 9007199254740991")]
pub struct SequenceError;

impl TryFrom<u64> for BookSequence {
    type Error = SequenceError;

    fn try_from(number: u64) -> Result<Self, SequenceError> {
        if (1..=SEQUENCE_MAX).contains(&number) { Ok(Self(number)) } else { Err(SequenceError) }
    }
}

impl TryFrom<i64> for BookSequence {
    type Error = SequenceError;

    fn try_from(number: i64) -> Result<Self, SequenceError> {
        u64::try_from(number).map_err(|_| SequenceError)?.try_into()
    }
}

impl<'de> Deserialize<'de> for BookSequence {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        u64::deserialize(deserializer)?.try_into().map_err(serde::de::Error::custom)
    }
}

impl BookSequence {
    /// The number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    const fn before(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

impl fmt::Display for BookSequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Numbers that did not come, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap(pub BookSequence, pub BookSequence);

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == self.1 {
            write!(f, "{}", self.0)
        } else {
            write!(f, "{} to {}", self.0, self.1)
        }
    }
}

/// What is to be done with an event, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// It has no number, or the next one, or the first of its connection: it is taken.
    InOrder,
    /// Numbers before it are missing: it is taken, and that is told.
    AfterGap(Gap),
    /// It was missing and comes late, and nothing has overtaken it: it is taken.
    FillsGap,
    /// It was missing and comes late, but what came since says more: it only counts as having come.
    Overtaken,
    /// Its number was there before: it is ignored.
    Old,
}

/// How far the numbered events of a connection have come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FeedOrder {
    /// The highest number that came.
    pub last: Option<BookSequence>,
    /// The highest that stated or suspended the connection.
    pub stated: Option<BookSequence>,
    /// The highest that set limits of it.
    pub limited: Option<BookSequence>,
    /// Numbers below the highest that did not come, in their order.
    pub missing: Vec<Gap>,
}

impl FeedOrder {
    /// What is to be done with an event.
    #[must_use]
    pub fn place(&self, sequence: Option<BookSequence>, fact: &BookFact) -> Place {
        let (Some(sequence), Some(last)) = (sequence, self.last) else { return Place::InOrder };
        if sequence == last.next() {
            Place::InOrder
        } else if sequence > last {
            Place::AfterGap(Gap(last.next(), sequence.before()))
        } else if !self.missing.iter().any(|gap| (gap.0..=gap.1).contains(&sequence)) {
            Place::Old
        } else if self.is_overtaken(sequence, fact) {
            Place::Overtaken
        } else {
            Place::FillsGap
        }
    }

    fn is_overtaken(&self, sequence: BookSequence, fact: &BookFact) -> bool {
        match fact {
            BookFact::ConnectionUpserted(_) | BookFact::ConnectionSuspended(_) => {
                self.stated.is_some_and(|stated| stated > sequence)
            }
            BookFact::ConnectionLimited(_) => {
                self.limited.is_some_and(|limited| limited > sequence)
            }
            // It was true before what has come since.
            BookFact::BalanceSnapshot(_) => true,
            BookFact::BalanceAdjusted(_)
            | BookFact::CurrencyConfigured(_)
            | BookFact::Heartbeat(_) => false,
        }
    }

    /// Notes that an event has come; [`Place::Old`] ones are not noted.
    pub fn take(&mut self, sequence: Option<BookSequence>, fact: &BookFact) {
        let Some(sequence) = sequence else { return };
        match self.place(Some(sequence), fact) {
            Place::AfterGap(gap) => {
                self.missing.push(gap);
                if self.missing.len() > GAPS_MAX {
                    self.missing.remove(0);
                }
            }
            Place::FillsGap | Place::Overtaken => self.fill(sequence),
            Place::InOrder | Place::Old => {}
        }
        let highest =
            |known: Option<BookSequence>| Some(known.map_or(sequence, |n| n.max(sequence)));
        self.last = highest(self.last);
        match fact {
            BookFact::ConnectionUpserted(_) | BookFact::ConnectionSuspended(_) => {
                self.stated = highest(self.stated);
            }
            BookFact::ConnectionLimited(_) => self.limited = highest(self.limited),
            BookFact::BalanceSnapshot(_)
            | BookFact::BalanceAdjusted(_)
            | BookFact::CurrencyConfigured(_)
            | BookFact::Heartbeat(_) => {}
        }
    }

    fn fill(&mut self, sequence: BookSequence) {
        let gaps = std::mem::take(&mut self.missing);
        self.missing = gaps
            .into_iter()
            .flat_map(|gap| {
                if !(gap.0..=gap.1).contains(&sequence) {
                    return [Some(gap), None];
                }
                let before = (gap.0 < sequence).then(|| Gap(gap.0, sequence.before()));
                let after = (gap.1 > sequence).then(|| Gap(sequence.next(), gap.1));
                [before, after]
            })
            .flatten()
            .collect();
    }

    /// Whether everything up to a number has come.
    #[must_use]
    pub fn has_reached(&self, sequence: BookSequence) -> bool {
        self.last.is_some_and(|last| last >= sequence)
            && self.missing.iter().all(|gap| gap.0 > sequence)
    }
}

/// One total that the exchange and the book do not agree about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TotalDiffers {
    /// The currency.
    pub currency: CurrencyCode,
    /// What the exchange states, base units.
    pub expected: Balance,
    /// What the book had then, available and held together; base units.
    pub found: Balance,
}

impl TotalDiffers {
    /// By how much the book would have to change.
    ///
    /// # Errors
    /// [`AmountError`] when that cannot be represented.
    pub fn missing(&self) -> Result<Balance, AmountError> {
        self.expected.plus(self.found.negated())
    }
}

/// What is known of the feed of one connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectionFeed {
    /// How far it has come.
    pub order: FeedOrder,
    /// In what the last snapshot differed, less what has come late since.
    pub differs: Vec<TotalDiffers>,
    /// The highest number that had come when the last snapshot was compared.
    pub compared_at: Option<BookSequence>,
    /// Whether the book was restored, and nothing has shown since that it is right about this connection.
    pub is_unproven: bool,
}

impl ConnectionFeed {
    /// A change of a balance has come late. If it was missing when the last snapshot was compared, it is part of
    /// the difference: accepted as it was then, the difference would be booked a second time.
    ///
    /// # Errors
    /// [`AmountError`] when what is left of the difference cannot be represented.
    pub fn take_late(
        &mut self,
        sequence: BookSequence,
        adjustment: &Adjustment,
    ) -> Result<(), AmountError> {
        if self.compared_at.is_none_or(|compared_at| sequence > compared_at) {
            return Ok(());
        }
        for differs in self.differs.iter_mut().filter(|one| one.currency == adjustment.currency) {
            differs.found = differs.found.plus(adjustment.delta.into())?;
        }
        self.differs.retain(|one| one.expected != one.found);
        Ok(())
    }
}

/// Compares a snapshot with what the book has in each currency: available and held together.
#[must_use]
pub fn compare(
    snapshot: &BalanceSnapshot,
    found: &BTreeMap<CurrencyCode, Balance>,
) -> Vec<TotalDiffers> {
    let mut expected: BTreeMap<&CurrencyCode, Balance> =
        found.keys().map(|currency| (currency, Balance::ZERO)).collect();
    expected.extend(snapshot.totals.iter().map(|total| (&total.currency, total.total)));
    expected
        .into_iter()
        .filter_map(|(currency, expected)| {
            let found = found.get(currency).copied().unwrap_or(Balance::ZERO);
            let currency = currency.clone();
            (expected != found).then_some(TotalDiffers { currency, expected, found })
        })
        .collect()
}

#[cfg(test)]
mod tests;
