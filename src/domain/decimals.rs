//! Amounts as OES's reads give them: in base units, or as decimals where a partner is configured so.
//!
//! Everything here is text and whole numbers. A text that could be meant in two ways is refused, so that
//! what cannot be read is never taken for another amount.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use super::{
    amount::{AmountError, QUANTITY_DIGITS_MAX},
    ids::CurrencyCode,
};

/// Most digits after the point: one less than a 256-bit number has.
const DECIMALS_MAX: u8 = 77;

/// How many digits of a currency stand after the point: 10 to this power base units are one of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Decimals(u8);

/// More decimals than an amount has digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("decimals are a number from 0 to {DECIMALS_MAX}")]
pub struct TooManyDecimals;

impl TryFrom<u8> for Decimals {
    type Error = TooManyDecimals;

    fn try_from(number: u8) -> Result<Self, TooManyDecimals> {
        if number <= DECIMALS_MAX { Ok(Self(number)) } else { Err(TooManyDecimals) }
    }
}

impl From<Decimals> for u8 {
    fn from(decimals: Decimals) -> Self {
        decimals.0
    }
}

impl fmt::Display for Decimals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How OES's reads give amounts to this partner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AmountForm {
    /// As updates do: satoshi, wei.
    #[default]
    BaseUnits,
    /// As decimals: 1.5 instead of 150000000 satoshi.
    Decimals,
}

/// Why a text is no amount.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnreadableAmount {
    /// Decimals, and the book does not say how many the currency has.
    #[error(
        "OES shows amounts as decimals, and the book does not say how many decimals {0} has: feed \
         currency.configured with its decimals"
    )]
    NoDecimals(CurrencyCode),
    /// Something else than digits with a point in between, or more digits after it than there are.
    #[error("{text:?} is no amount with at most {decimals} decimals")]
    NotDecimal {
        /// The text.
        text: String,
        /// How many there may be.
        decimals: Decimals,
    },
    /// Not a number of base units.
    #[error("{text:?} is {source}")]
    NotUnits {
        /// The text.
        text: String,
        /// What is wrong with it.
        source: AmountError,
    },
}

/// How amounts in one currency are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scale {
    form: AmountForm,
    decimals: Option<Decimals>,
}

impl Scale {
    /// Amounts in this form, in a currency with so many decimals, if that is known.
    #[must_use]
    pub const fn new(form: AmountForm, decimals: Option<Decimals>) -> Self {
        Self { form, decimals }
    }

    /// The same currency in the other form.
    #[must_use]
    pub const fn otherwise(self) -> Self {
        let form = match self.form {
            AmountForm::BaseUnits => AmountForm::Decimals,
            AmountForm::Decimals => AmountForm::BaseUnits,
        };
        Self { form, ..self }
    }

    /// A shown amount as a number of base units.
    ///
    /// # Errors
    /// [`UnreadableAmount`].
    pub fn units<T>(self, currency: &CurrencyCode, text: &str) -> Result<T, UnreadableAmount>
    where
        T: std::str::FromStr<Err = AmountError>,
    {
        let not_units = |source| UnreadableAmount::NotUnits { text: text.to_owned(), source };
        match self.form {
            AmountForm::BaseUnits => text.parse().map_err(not_units),
            AmountForm::Decimals => {
                let decimals =
                    self.decimals.ok_or_else(|| UnreadableAmount::NoDecimals(currency.clone()))?;
                let digits = shifted(text, decimals).ok_or_else(|| {
                    UnreadableAmount::NotDecimal { text: text.to_owned(), decimals }
                })?;
                digits.parse().map_err(not_units)
            }
        }
    }
}

/// The digits of a decimal without its point, as many after it as there are decimals.
fn shifted(text: &str, decimals: Decimals) -> Option<String> {
    let (whole, fraction) = match text.split_once('.') {
        None => (text, ""),
        // A point with nothing behind it is cut off rather than whole.
        Some((_, "")) => return None,
        Some(parts) => parts,
    };
    let places = usize::from(decimals.0);
    let is_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let is_whole = whole == "0" || (!whole.is_empty() && !whole.starts_with('0'));
    if !is_whole || !is_digits(whole) || !is_digits(fraction) || fraction.len() > places {
        return None;
    }
    // A bound, before zeros are added; what is too large by less is refused as a number.
    if whole.len() > QUANTITY_DIGITS_MAX {
        return None;
    }
    let digits = format!("{whole}{fraction:0<places$}");
    let digits = digits.trim_start_matches('0');
    Some(if digits.is_empty() { "0" } else { digits }.to_owned())
}

/// How amounts in each currency are read.
#[derive(Clone, Debug, Default)]
pub struct Scales {
    form: AmountForm,
    decimals: BTreeMap<CurrencyCode, Decimals>,
}

impl Scales {
    /// Amounts in this form, with the decimals of the currencies that have them in the book.
    #[must_use]
    pub const fn new(form: AmountForm, decimals: BTreeMap<CurrencyCode, Decimals>) -> Self {
        Self { form, decimals }
    }

    /// How amounts in a currency are read.
    #[must_use]
    pub fn of(&self, currency: &CurrencyCode) -> Scale {
        Scale::new(self.form, self.decimals.get(currency).copied())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::amount::Quantity;

    fn decimals(number: u8) -> Decimals {
        Decimals::try_from(number).unwrap()
    }

    fn read(text: &str, places: u8) -> Result<String, UnreadableAmount> {
        let scale = Scale::new(AmountForm::Decimals, Some(decimals(places)));
        scale.units(&"BTC".parse().unwrap(), text).map(|units: Quantity| units.to_string())
    }

    #[test]
    fn decimals_are_read_exactly_or_not_at_all() {
        for (text, places, units) in [
            ("1.50", 8, "150000000"),
            ("1.5", 8, "150000000"),
            ("1", 8, "100000000"),
            ("0.00000001", 8, "1"),
            ("0", 8, "0"),
            ("0.0", 8, "0"),
            ("12", 0, "12"),
            (&Quantity::MAX.to_string(), 0, &Quantity::MAX.to_string()),
            ("0.1", 77, &format!("1{}", "0".repeat(76))),
            ("1.5", 77, &format!("15{}", "0".repeat(76))),
        ] {
            // The last one is larger than 256 bits.
            let expected = if units.len() > 77 && places == 77 { None } else { Some(units) };
            assert_eq!(read(text, places).ok().as_deref(), expected, "{text} with {places}");
        }
        for text in [
            "",
            ".",
            ".5",
            "5.",
            "-1",
            "+1",
            "1e3",
            "1E3",
            "1.5e0",
            "01",
            "00.5",
            "1,5",
            " 1",
            "1 ",
            "1.5.0",
            "0x1",
            "1.000000000",
            "1.123456789",
            "٣",
            "NaN",
            "1_0",
        ] {
            assert!(
                matches!(read(text, 8), Err(UnreadableAmount::NotDecimal { .. })),
                "{text:?}: {:?}",
                read(text, 8)
            );
        }
        assert!(read(&"9".repeat(500), 8).is_err());
        assert!(read("1.5", 0).is_err(), "no digit may stand after the point");
    }

    #[test]
    fn without_its_decimals_a_currency_cannot_be_read() {
        let scale = Scale::new(AmountForm::Decimals, None);
        let read = scale.units::<Quantity>(&"BTC".parse().unwrap(), "1");
        assert_eq!(read, Err(UnreadableAmount::NoDecimals("BTC".parse().unwrap())));
        assert!(Decimals::try_from(78).is_err());
    }

    proptest! {
        /// Written as a decimal and read, a number of base units is what it was.
        #[test]
        fn a_decimal_means_the_units_that_it_was_written_from(units: u128, places in 0_u8..=77) {
            let digits = format!("{units:0>width$}", width = usize::from(places) + 1);
            let (whole, fraction) = digits.split_at(digits.len() - usize::from(places));
            let text = if places == 0 { whole.to_owned() } else { format!("{whole}.{fraction}") };
            prop_assert_eq!(read(&text, places).unwrap(), units.to_string());
            let short = text.trim_end_matches('0').trim_end_matches('.');
            if places > 0 && !short.is_empty() {
                prop_assert_eq!(read(short, places).unwrap(), units.to_string());
            }
        }
    }
}
