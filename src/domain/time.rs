//! Points in time as the domain sees them: whole milliseconds, handed in from outside.

use std::{fmt, str::FromStr, time::Duration};

use jiff::{Timestamp, civil, tz::TimeZone};
use serde::{Deserialize, Serialize};

/// Milliseconds since the Unix epoch, UTC.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct TimestampMs(i64);

impl TimestampMs {
    /// A timestamp from milliseconds since the Unix epoch.
    #[must_use]
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// This time plus `duration`, held at the largest time there is.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        let millis = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        Self(self.0.saturating_add(millis))
    }

    /// This time less `duration`, held at the smallest time there is.
    #[must_use]
    pub fn before(self, duration: Duration) -> Self {
        let millis = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        Self(self.0.saturating_sub(millis))
    }

    /// How long after `earlier` this is; zero if it is not after it.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        let millis = self.0.saturating_sub(earlier.0);
        Duration::from_millis(u64::try_from(millis).unwrap_or(0))
    }
}

/// An age in words: a whole number and a unit, e.g. `90s`, `15m`, `2h`, `3d`; without a unit, seconds.
///
/// # Errors
/// A sentence that says what an age looks like.
pub fn parse_age(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: u64 =
        number.parse().map_err(|_| "a number and a unit: 90s, 15m, 2h, 3d".to_owned())?;
    let seconds = match unit {
        "s" | "" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(format!("{unit:?} is no unit; there are s, m, h and d")),
    };
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(|| "too long".to_owned())
}

/// A day in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Day(civil::Date);

impl TimestampMs {
    /// The day, in UTC, that this time is in.
    #[must_use]
    pub fn day(self) -> Day {
        let ends = if self.0 < 0 { Timestamp::MIN } else { Timestamp::MAX };
        let time = Timestamp::from_millisecond(self.0).unwrap_or(ends);
        Day(TimeZone::UTC.to_datetime(time).date())
    }
}

impl FromStr for Day {
    type Err = jiff::Error;

    fn from_str(text: &str) -> Result<Self, jiff::Error> {
        text.parse().map(Self)
    }
}

impl fmt::Display for Day {
    /// As in `2026-11-22`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for TimestampMs {
    type Err = jiff::Error;

    /// RFC 3339 with any offset and any number of decimals.
    fn from_str(text: &str) -> Result<Self, jiff::Error> {
        text.parse::<Timestamp>().map(|time| Self(time.as_millisecond()))
    }
}

impl fmt::Display for TimestampMs {
    /// RFC 3339 in UTC with milliseconds, e.g. `2026-11-22T08:15:30.250Z`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Timestamp::from_millisecond(self.0) {
            Ok(timestamp) => write!(f, "{timestamp:.3}"),
            Err(_) => write!(f, "{} ms", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_as_rfc_3339_in_utc() {
        let time = TimestampMs::from_millis(1_795_335_330_250);
        assert_eq!(time.to_string(), "2026-11-22T08:15:30.250Z");
        assert_eq!("2026-11-22T09:15:30.250001+01:00".parse::<TimestampMs>().unwrap(), time);
    }

    #[test]
    fn a_day_ends_at_midnight_in_utc() {
        let last: TimestampMs = "2026-11-22T23:59:59.999Z".parse().unwrap();
        assert_eq!(last.day().to_string(), "2026-11-22");
        assert_eq!(last.after(Duration::from_millis(1)).day().to_string(), "2026-11-23");
        for millis in [i64::MIN, -1, 0, i64::MAX] {
            let day = TimestampMs::from_millis(millis).day();
            assert_eq!(day.to_string().parse::<Day>().unwrap(), day);
            assert_eq!(serde_json::to_string(&day).unwrap(), format!("\"{day}\""));
        }
        let end_of_time = |millis: i64| TimestampMs::from_millis(millis).day().to_string();
        assert!(
            end_of_time(i64::MIN).starts_with('-') && end_of_time(i64::MAX).starts_with("9999")
        );
    }

    #[test]
    fn ages_have_units() {
        assert_eq!(parse_age("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_age("7"), Ok(Duration::from_secs(7)));
        assert_eq!(parse_age("15m"), Ok(Duration::from_secs(900)));
        assert_eq!(parse_age("2h"), Ok(Duration::from_secs(7_200)));
        assert_eq!(parse_age("3d"), Ok(Duration::from_secs(259_200)));
        for bad in ["", "h", "-1s", "1.5h", "2w", "99999999999999999999d"] {
            assert!(parse_age(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn arithmetic_holds_at_the_ends_of_time() {
        let last = TimestampMs::from_millis(i64::MAX);
        assert_eq!(last.after(Duration::from_secs(1)), last);
        let first = TimestampMs::from_millis(i64::MIN);
        assert_eq!(first.before(Duration::from_secs(1)), first);
        let second = TimestampMs::from_millis(1_000);
        assert_eq!(second.before(Duration::from_millis(1)), TimestampMs::from_millis(999));
        assert_eq!(TimestampMs::from_millis(1).since(last), Duration::ZERO);
    }
}
