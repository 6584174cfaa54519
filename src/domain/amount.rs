//! Currencies and quantities: whole base units, never floats, never a silent wrap.
//!
//! A [`Quantity`] is what one record moves (up to 256 bits, as a uint256 token may). A [`Total`] is
//! the lifetime sum of one side of an account; it has 64 bits more than a quantity, so that no
//! number of rows that SQLite can hold makes it overflow. A [`Balance`] is the difference of two
//! totals and may be negative.

use std::{cmp::Ordering, fmt, str::FromStr};

use ruint::{Uint, aliases::U256};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::ids::{CurrencyCode, FromStrVisitor};

type U320 = Uint<320, 5>;

/// Most decimal digits that a 256-bit number has.
pub(super) const QUANTITY_DIGITS_MAX: usize = 78;
/// Most decimal digits that a 320-bit number has.
const TOTAL_DIGITS_MAX: usize = 97;

/// Why a text is not a quantity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AmountError {
    /// Anything but digits, or a leading zero.
    #[error("not a canonical whole number (digits only, no leading zero)")]
    NotCanonical,
    /// More than the type can hold.
    #[error("larger than the largest amount that can be held")]
    TooLarge,
    /// Zero where something must move.
    #[error("zero, but an amount must be positive")]
    Zero,
    /// A sum or difference that cannot be represented.
    #[error("the ledger total cannot be represented")]
    Overflow,
}

/// Checks that `text` is `0` or digits without a leading zero, at most `digits_max` of them.
fn canonical_digits(text: &str, digits_max: usize) -> Result<(), AmountError> {
    let digits = text.as_bytes();
    match digits {
        [] | [b'0', _, ..] => Err(AmountError::NotCanonical),
        _ if !digits.iter().all(u8::is_ascii_digit) => Err(AmountError::NotCanonical),
        _ if digits.len() > digits_max => Err(AmountError::TooLarge),
        _ => Ok(()),
    }
}

/// A non-negative number of base units, up to 256 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Quantity(U256);

impl Quantity {
    /// Nothing.
    pub const ZERO: Self = Self(U256::ZERO);
    /// The most that one record can move.
    pub const MAX: Self = Self(U256::MAX);

    /// Whether this is nothing.
    #[must_use]
    pub fn is_zero(self) -> bool {
        self.0.is_zero()
    }

    /// What is left after taking `other` away; nothing if `other` is larger.
    #[must_use]
    pub fn less(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl From<u64> for Quantity {
    fn from(units: u64) -> Self {
        Self(U256::from(units))
    }
}

impl FromStr for Quantity {
    type Err = AmountError;

    /// Accepts the canonical decimal form only.
    fn from_str(text: &str) -> Result<Self, AmountError> {
        canonical_digits(text, QUANTITY_DIGITS_MAX)?;
        U256::from_str_radix(text, 10).map(Self).map_err(|_| AmountError::TooLarge)
    }
}

/// A lifetime sum of quantities on one side of an account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Total(U320);

impl Total {
    /// Nothing yet.
    pub const ZERO: Self = Self(U320::ZERO);

    /// The sum with one more quantity.
    ///
    /// # Errors
    /// [`AmountError::Overflow`], which 2^64 rows could not reach.
    pub fn plus(self, quantity: Quantity) -> Result<Self, AmountError> {
        self.0.checked_add(U320::from(quantity.0)).map(Self).ok_or(AmountError::Overflow)
    }

    /// The sum of two sums.
    ///
    /// # Errors
    /// [`AmountError::Overflow`], which 2^64 rows could not reach.
    pub fn and(self, other: Self) -> Result<Self, AmountError> {
        self.0.checked_add(other.0).map(Self).ok_or(AmountError::Overflow)
    }
}

impl FromStr for Total {
    type Err = AmountError;

    /// Accepts the canonical decimal form only.
    fn from_str(text: &str) -> Result<Self, AmountError> {
        canonical_digits(text, TOTAL_DIGITS_MAX)?;
        U320::from_str_radix(text, 10).map(Self).map_err(|_| AmountError::TooLarge)
    }
}

/// What an account holds: credits less debits, possibly negative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Balance {
    negative: bool,
    magnitude: U320,
}

impl Balance {
    /// An empty account.
    pub const ZERO: Self = Self { negative: false, magnitude: U320::ZERO };

    /// Credits less debits.
    #[must_use]
    pub fn of(credits: Total, debits: Total) -> Self {
        // Both branches subtract the smaller from the larger, so neither can wrap.
        if credits >= debits {
            Self { negative: false, magnitude: credits.0.wrapping_sub(debits.0) }
        } else {
            Self { negative: true, magnitude: debits.0.wrapping_sub(credits.0) }
        }
    }

    /// Whether the account holds at least `quantity`.
    #[must_use]
    pub fn covers(self, quantity: Quantity) -> bool {
        !self.negative && self.magnitude >= U320::from(quantity.0)
    }

    /// Whether this and `more` together are at most `most`. What is below zero is room.
    #[must_use]
    pub fn has_room_for(self, more: Quantity, most: Quantity) -> bool {
        let (more, most) = (U320::from(more.0), U320::from(most.0));
        if self.negative {
            // A room that cannot be represented is larger than any quantity.
            self.magnitude.checked_add(most).is_none_or(|room| more <= room)
        } else {
            self.magnitude.checked_add(more).is_some_and(|sum| sum <= most)
        }
    }

    /// Whether more has left the account than has come in.
    #[must_use]
    pub fn is_negative(self) -> bool {
        self.negative
    }

    /// Whether the account is empty.
    #[must_use]
    pub fn is_zero(self) -> bool {
        self.magnitude.is_zero()
    }

    /// The sum of two balances.
    ///
    /// # Errors
    /// [`AmountError::Overflow`] when it cannot be represented.
    pub fn plus(self, other: Self) -> Result<Self, AmountError> {
        let (magnitude, negative) = if self.negative == other.negative {
            let sum = self.magnitude.checked_add(other.magnitude).ok_or(AmountError::Overflow)?;
            (sum, self.negative)
        } else if self.magnitude >= other.magnitude {
            // The smaller is subtracted from the larger, so neither branch can wrap.
            (self.magnitude.wrapping_sub(other.magnitude), self.negative)
        } else {
            (other.magnitude.wrapping_sub(self.magnitude), other.negative)
        };
        Ok(Self { negative: negative && !magnitude.is_zero(), magnitude })
    }

    /// The same quantity the other way round.
    #[must_use]
    pub fn negated(self) -> Self {
        Self { negative: !self.negative && !self.magnitude.is_zero(), magnitude: self.magnitude }
    }

    /// The part of `quantity` that the account holds: all of it, some, or nothing.
    #[must_use]
    pub fn covered_part(self, quantity: Quantity) -> Quantity {
        if self.covers(quantity) {
            quantity
        } else if self.negative {
            Quantity::ZERO
        } else {
            // Less than a quantity, so it fits one.
            U256::checked_from_limbs_slice(self.magnitude.as_limbs()).map_or(quantity, Quantity)
        }
    }
}

impl From<Total> for Balance {
    fn from(total: Total) -> Self {
        Self { negative: false, magnitude: total.0 }
    }
}

impl Ord for Balance {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self.negative, other.negative) {
            (false, false) => self.magnitude.cmp(&other.magnitude),
            (true, true) => other.magnitude.cmp(&self.magnitude),
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
        }
    }
}

impl PartialOrd for Balance {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl FromStr for Balance {
    type Err = AmountError;

    /// Accepts what [`fmt::Display`] writes.
    fn from_str(text: &str) -> Result<Self, AmountError> {
        match text.strip_prefix('-') {
            Some("0") => Err(AmountError::NotCanonical),
            Some(digits) => Ok(Self::from(digits.parse::<Total>()?).negated()),
            None => Ok(text.parse::<Total>()?.into()),
        }
    }
}

/// A movement of an account as a feed tells it: up or down, never nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Delta {
    negative: bool,
    magnitude: Quantity,
}

impl Delta {
    /// Whether the account goes down.
    #[must_use]
    pub fn is_negative(self) -> bool {
        self.negative
    }

    /// By how much.
    #[must_use]
    pub fn magnitude(self) -> Quantity {
        self.magnitude
    }
}

impl From<Delta> for Balance {
    fn from(delta: Delta) -> Self {
        // A delta is never nothing, so there is no negative zero.
        Self { negative: delta.negative, magnitude: U320::from(delta.magnitude.0) }
    }
}

impl FromStr for Delta {
    type Err = AmountError;

    /// Accepts canonical positive digits, with a leading `-` for a decrease.
    fn from_str(text: &str) -> Result<Self, AmountError> {
        let (negative, digits) = match text.strip_prefix('-') {
            Some(digits) => (true, digits),
            None => (false, text),
        };
        let magnitude: Quantity = digits.parse()?;
        if magnitude.is_zero() {
            return Err(AmountError::Zero);
        }
        Ok(Self { negative, magnitude })
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Display for Total {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Display for Balance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.negative {
            f.write_str("-")?;
        }
        fmt::Display::fmt(&self.magnitude, f)
    }
}

impl fmt::Display for Delta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.negative {
            f.write_str("-")?;
        }
        fmt::Display::fmt(&self.magnitude, f)
    }
}

/// Serialises as the decimal string, the only form in which amounts travel or rest.
macro_rules! decimal_string {
    ($($name:ident),*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    )*};
}
decimal_string!(Quantity, Total, Balance, Delta);

/// Deserialises from the decimal string, and from nothing else.
macro_rules! from_decimal_string {
    ($($name:ident),*) => {$(
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str(FromStrVisitor::<Self>::new())
            }
        }
    )*};
}
from_decimal_string!(Quantity, Balance, Delta);

/// So much of a currency, as OES writes it: `{"currency": …, "quantity": …}`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Amount {
    currency: CurrencyCode,
    quantity: Quantity,
}

impl Amount {
    /// An amount of a record: positive, as the reference requires.
    ///
    /// # Errors
    /// [`AmountError::Zero`].
    pub fn positive(currency: CurrencyCode, quantity: Quantity) -> Result<Self, AmountError> {
        if quantity.is_zero() { Err(AmountError::Zero) } else { Ok(Self { currency, quantity }) }
    }

    /// The currency.
    #[must_use]
    pub fn currency(&self) -> &CurrencyCode {
        &self.currency
    }

    /// How much, in base units.
    #[must_use]
    pub fn quantity(&self) -> Quantity {
        self.quantity
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.quantity, self.currency)
    }
}

#[cfg(test)]
mod tests;
