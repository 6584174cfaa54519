//! What bounds a decision beside the quantity of one record: how much a connection may hold, how much
//! it may move in a day, and above which quantity a person is asked.
//!
//! The exposure of a connection in a currency is what has come from OES less what has gone back. What
//! was decided and is not confirmed counts as if it had come; what is on its way back counts until it
//! is confirmed. A day is one of UTC, and a record belongs to the day of its decision; one that OES
//! ended as released after all is taken back from that day.

use serde::{Deserialize, Serialize};

use super::{
    amount::Quantity,
    ids::{ConnectionId, CurrencyCode},
    job::JobType,
    time::Day,
};

/// What one connection may do in a currency. What is `None` has no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConnectionCaps {
    /// Most that a connection may be exposed to, base units.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exposure_max_per_connection: Option<Quantity>,
    /// Most that may be allocated in a day, base units.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub daily_allocation_max_per_connection: Option<Quantity>,
    /// Most that may be deallocated in a day, base units.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub daily_deallocation_max_per_connection: Option<Quantity>,
    /// Largest quantity that is cleared without an operator's approval, base units.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approval_above: Option<Quantity>,
}

impl ConnectionCaps {
    /// These, and where they are silent, the others.
    #[must_use]
    pub fn or(self, others: Self) -> Self {
        Self {
            exposure_max_per_connection: self
                .exposure_max_per_connection
                .or(others.exposure_max_per_connection),
            daily_allocation_max_per_connection: self
                .daily_allocation_max_per_connection
                .or(others.daily_allocation_max_per_connection),
            daily_deallocation_max_per_connection: self
                .daily_deallocation_max_per_connection
                .or(others.daily_deallocation_max_per_connection),
            approval_above: self.approval_above.or(others.approval_above),
        }
    }

    /// The cap on a day's records of one type.
    #[must_use]
    pub fn daily_max(&self, job_type: JobType) -> Option<Quantity> {
        match job_type {
            JobType::Allocation => self.daily_allocation_max_per_connection,
            JobType::Deallocation => self.daily_deallocation_max_per_connection,
        }
    }
}

/// The caps of one connection in one currency, as they are from now on. Where they are silent, the
/// currency's hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConnectionLimits {
    /// The connection at BitGo.
    pub connection_id: ConnectionId,
    /// The currency.
    pub currency: CurrencyCode,
    /// The caps.
    #[serde(flatten)]
    pub caps: ConnectionCaps,
}

/// All the limits of a currency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CurrencyLimits {
    /// Smallest quantity that is cleared.
    pub quantity_min: Quantity,
    /// Largest quantity that is cleared.
    pub quantity_max: Quantity,
    /// Most that all connections together may be exposed to.
    pub exposure_max_total: Option<Quantity>,
    /// The caps of each connection that has none of its own.
    pub caps: ConnectionCaps,
}

/// Two limits that cannot both be meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{low} {low_value} is above {high} {high_value}: {so}")]
pub struct CrossedLimits {
    low: &'static str,
    low_value: Quantity,
    high: &'static str,
    high_value: Quantity,
    so: &'static str,
}

impl CurrencyLimits {
    /// Refuses limits of which one makes another pointless. A cap of zero is meant: it stops what it
    /// is about.
    ///
    /// # Errors
    /// [`CrossedLimits`] names the two.
    pub fn check(&self) -> Result<(), CrossedLimits> {
        const NOTHING: &str = "nothing could be cleared";
        let Self { quantity_min, quantity_max, exposure_max_total, caps } = *self;
        let smallest = ("quantityMin", Some(quantity_min));
        let of_each = ("exposureMaxPerConnection", caps.exposure_max_per_connection);
        let of_all = ("exposureMaxTotal", exposure_max_total);
        let allocated = "dailyAllocationMaxPerConnection";
        let deallocated = "dailyDeallocationMaxPerConnection";
        let above_zero = |(name, cap): (&'static str, Option<Quantity>)| {
            (name, cap.filter(|cap| !cap.is_zero()))
        };
        for (low, high, so) in [
            (smallest, ("quantityMax", Some(quantity_max)), NOTHING),
            (smallest, above_zero(of_each), NOTHING),
            (smallest, above_zero(of_all), NOTHING),
            (smallest, above_zero((allocated, caps.daily_allocation_max_per_connection)), NOTHING),
            (
                smallest,
                above_zero((deallocated, caps.daily_deallocation_max_per_connection)),
                NOTHING,
            ),
            (of_each, above_zero(of_all), "no connection could reach its own"),
            (
                ("approvalAbove", caps.approval_above),
                ("quantityMax", Some(quantity_max)),
                "nobody would ever be asked",
            ),
        ] {
            if let ((low, Some(low_value)), (high, Some(high_value))) = (low, high)
                && low_value > high_value
            {
                return Err(CrossedLimits { low, low_value, high, high_value, so });
            }
        }
        Ok(())
    }
}

/// What is added up over a day: the cleared records of one type of a connection in a currency.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DailyKey {
    /// The connection at BitGo.
    pub connection_id: ConnectionId,
    /// The currency.
    pub currency: CurrencyCode,
    /// The day of the decisions.
    pub day: Day,
    /// Allocations or deallocations.
    pub job_type: JobType,
}

#[cfg(test)]
mod tests {
    use super::*;

    type Change = fn(&mut CurrencyLimits);

    #[expect(clippy::unnecessary_wraps, reason = "limits are optional")]
    fn units(units: u64) -> Option<Quantity> {
        Some(Quantity::from(units))
    }

    fn limits(change: impl FnOnce(&mut CurrencyLimits)) -> CurrencyLimits {
        let mut limits = CurrencyLimits {
            quantity_min: Quantity::from(10),
            quantity_max: Quantity::from(100),
            exposure_max_total: units(1_000),
            caps: ConnectionCaps {
                exposure_max_per_connection: units(1_000),
                daily_allocation_max_per_connection: units(10),
                daily_deallocation_max_per_connection: units(10),
                approval_above: units(100),
            },
        };
        change(&mut limits);
        limits
    }

    #[test]
    fn limits_may_touch_and_not_cross() {
        assert_eq!(limits(|_| {}).check(), Ok(()));
        let crossed: [(&str, Change); 7] = [
            ("quantityMax 9", |limits| limits.quantity_max = Quantity::from(9)),
            ("exposureMaxPerConnection 9", |limits| {
                limits.caps.exposure_max_per_connection = units(9);
            }),
            ("exposureMaxTotal 9", |limits| limits.exposure_max_total = units(9)),
            ("dailyAllocationMaxPerConnection 9", |limits| {
                limits.caps.daily_allocation_max_per_connection = units(9);
            }),
            ("dailyDeallocationMaxPerConnection 9", |limits| {
                limits.caps.daily_deallocation_max_per_connection = units(9);
            }),
            ("exposureMaxTotal 999", |limits| limits.exposure_max_total = units(999)),
            ("approvalAbove 101", |limits| limits.caps.approval_above = units(101)),
        ];
        for (named, cross) in crossed {
            let error = limits(cross).check().unwrap_err().to_string();
            assert!(error.contains(named), "{named}: {error}");
        }
    }

    #[test]
    fn a_cap_of_zero_stops_and_crosses_nothing() {
        let stopped = limits(|limits| {
            limits.exposure_max_total = units(0);
            limits.caps.daily_allocation_max_per_connection = units(0);
            limits.caps.daily_deallocation_max_per_connection = units(0);
            limits.caps.approval_above = units(0);
        });
        assert_eq!(stopped.check(), Ok(()));
        let none = limits(|limits| limits.caps.exposure_max_per_connection = units(0));
        assert_eq!(none.check(), Ok(()));
    }

    #[test]
    fn a_connection_s_own_caps_go_before_the_currency_s() {
        let own = ConnectionCaps { approval_above: units(5), ..ConnectionCaps::default() };
        let caps = own.or(limits(|_| {}).caps);
        assert_eq!(caps.approval_above, units(5));
        assert_eq!(caps.exposure_max_per_connection, units(1_000));
        assert_eq!(ConnectionCaps::default().or(own), own);
    }
}
