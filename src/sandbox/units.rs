//! Money in the sandbox: whole base units, with arithmetic of its own.
//!
//! The worker's ledger is not used on purpose: a fault in it must show as a difference here.

use std::{fmt, str::FromStr};

use ruint::{Uint, aliases::U256};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// 64 bits wider than a quantity: no number of records that fits into memory makes a sum overflow.
type U320 = Uint<320, 5>;

/// Why a text is no number of base units.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitsError {
    /// Anything but digits, or a leading zero.
    #[error("not a canonical whole number: digits only, no sign, no leading zero")]
    NotCanonical,
    /// More than 256 bits.
    #[error("larger than 2^256 - 1")]
    TooLarge,
}

/// A number of base units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Units(U320);

impl Units {
    /// Nothing.
    pub const ZERO: Self = Self(U320::ZERO);

    /// Whether this is nothing.
    #[must_use]
    pub fn is_zero(self) -> bool {
        self.0.is_zero()
    }

    /// The sum, held at the largest number there is, which no sum of real quantities reaches.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// The difference, unless `other` is larger.
    #[must_use]
    pub fn minus(self, other: Self) -> Option<Self> {
        self.0.checked_sub(other.0).map(Self)
    }

    /// With a decimal point before the last `decimals` digits and no trailing zeros, as OES shows
    /// amounts to partners that are configured so.
    #[must_use]
    pub fn to_decimal(self, decimals: u8) -> String {
        let digits =
            format!("{:0>width$}", self.0, width = usize::from(decimals).saturating_add(1));
        let (whole, part) = digits.split_at(digits.len().saturating_sub(usize::from(decimals)));
        match part.trim_end_matches('0') {
            "" => whole.to_owned(),
            part => format!("{whole}.{part}"),
        }
    }
}

impl From<u64> for Units {
    fn from(units: u64) -> Self {
        Self(U320::from(units))
    }
}

impl FromStr for Units {
    type Err = UnitsError;

    /// Accepts the canonical decimal form of a 256-bit number only.
    fn from_str(text: &str) -> Result<Self, UnitsError> {
        let has_leading_zero = text.len() > 1 && text.starts_with('0');
        if text.is_empty() || has_leading_zero || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(UnitsError::NotCanonical);
        }
        U256::from_str_radix(text, 10)
            .map(|number| Self(U320::from(number)))
            .map_err(|_| UnitsError::TooLarge)
    }
}

impl fmt::Display for Units {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl Serialize for Units {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Units {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

/// There is less than what was to be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is less than what was to be taken")]
pub struct Short;

/// What an owner has of one currency.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Funds {
    /// Free to be used.
    pub available: Units,
    /// Reserved for records that are not final.
    pub held: Units,
}

impl Funds {
    /// Everything there is.
    #[must_use]
    pub fn total(self) -> Units {
        self.available.plus(self.held)
    }

    /// Reserves what is available.
    pub(super) fn hold(&mut self, units: Units) -> Result<(), Short> {
        self.available = self.available.minus(units).ok_or(Short)?;
        self.held = self.held.plus(units);
        Ok(())
    }

    /// Makes what is held available again.
    pub(super) fn unhold(&mut self, units: Units) -> Result<(), Short> {
        self.held = self.held.minus(units).ok_or(Short)?;
        self.available = self.available.plus(units);
        Ok(())
    }

    /// Takes what is held away.
    pub(super) fn take_held(&mut self, units: Units) -> Result<(), Short> {
        self.held = self.held.minus(units).ok_or(Short)?;
        Ok(())
    }

    /// Adds to what is available.
    pub(super) fn add(&mut self, units: Units) {
        self.available = self.available.plus(units);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_canonical_form_of_256_bits_is_accepted() {
        let max = U256::MAX.to_string();
        for text in ["0", "1", "18446744073709551616", &max] {
            assert_eq!(text.parse::<Units>().unwrap().to_string(), text);
        }
        for text in ["", "01", "-1", "+1", "1.0", "1e3", " 1", "1_0", "٣"] {
            assert_eq!(text.parse::<Units>(), Err(UnitsError::NotCanonical), "{text}");
        }
        for text in [format!("{max}0"), "9".repeat(500)] {
            assert_eq!(text.parse::<Units>(), Err(UnitsError::TooLarge), "{text}");
        }
    }

    #[test]
    fn decimals_are_a_point_and_no_trailing_zeros() {
        for (units, decimals, text) in [
            (150_000_000, 8, "1.5"),
            (100_000_000, 8, "1"),
            (1, 8, "0.00000001"),
            (12, 0, "12"),
            (0, 8, "0"),
            (120, 1, "12"),
        ] {
            assert_eq!(Units::from(units).to_decimal(decimals), text);
        }
    }

    #[test]
    fn funds_never_go_below_nothing() {
        let mut funds = Funds::default();
        funds.add(Units::from(5));
        assert_eq!(funds.hold(Units::from(6)), Err(Short));
        assert_eq!(funds.hold(Units::from(4)), Ok(()));
        assert_eq!(funds.take_held(Units::from(5)), Err(Short));
        assert_eq!(funds.take_held(Units::from(1)), Ok(()));
        assert_eq!(funds.unhold(Units::from(3)), Ok(()));
        assert_eq!(funds.available, Units::from(4));
        assert_eq!(funds.total(), Units::from(4));
    }
}
