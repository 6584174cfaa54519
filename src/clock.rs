//! The one place where the wall clock is read.

use std::{
    fmt::Debug,
    time::{Duration, SystemTime},
};

use crate::domain::time::TimestampMs;

/// A source of the current time; tests have their own.
pub trait Clock: Debug + Send + Sync + 'static {
    /// The current time.
    fn now(&self) -> TimestampMs;
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the place that the ban points to")]
    fn now(&self) -> TimestampMs {
        let since_epoch =
            SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        TimestampMs::from_millis(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
    }
}
