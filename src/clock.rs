//! The one place where the wall clock is read.

use std::{
    fmt::Debug,
    sync::atomic::{AtomicI64, Ordering},
    time::{Duration, Instant, SystemTime},
};

use crate::domain::time::TimestampMs;

/// A source of the current time; tests have their own.
pub trait Clock: Debug + Send + Sync + 'static {
    /// The current time.
    fn now(&self) -> TimestampMs;

    /// How far [`Clock::now`] is ahead of the machine's clock, because that was set back.
    fn ahead(&self) -> Duration {
        Duration::ZERO
    }
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

/// A clock that follows another one forward and never back.
///
/// What is due is compared with the time. If the machine's clock is set back by an hour, everything that
/// was scheduled would be due an hour late; here the time just goes on at its pace.
#[derive(Debug)]
pub struct SteadyClock<C> {
    source: C,
    begun: Instant,
    /// Time minus the age of this clock; it only grows.
    origin_ms: AtomicI64,
}

impl<C: Clock> SteadyClock<C> {
    /// A clock that shows what `source` shows.
    #[must_use]
    pub fn new(source: C) -> Self {
        let origin_ms = AtomicI64::new(source.now().as_millis());
        Self { source, begun: Instant::now(), origin_ms }
    }

    fn age_ms(&self) -> i64 {
        i64::try_from(self.begun.elapsed().as_millis()).unwrap_or(i64::MAX)
    }
}

impl<C: Clock> Clock for SteadyClock<C> {
    fn now(&self) -> TimestampMs {
        let age_ms = self.age_ms();
        let shown = self.source.now().as_millis().saturating_sub(age_ms);
        let origin_ms = self.origin_ms.fetch_max(shown, Ordering::Relaxed).max(shown);
        TimestampMs::from_millis(origin_ms.saturating_add(age_ms))
    }

    fn ahead(&self) -> Duration {
        self.now().since(self.source.now())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[derive(Clone, Debug, Default)]
    struct SetByHand(Arc<AtomicI64>);

    impl Clock for SetByHand {
        fn now(&self) -> TimestampMs {
            TimestampMs::from_millis(self.0.load(Ordering::Relaxed))
        }
    }

    #[test]
    fn a_clock_that_is_set_back_takes_nothing_with_it_and_one_that_is_set_forward_is_followed() {
        let machine = SetByHand::default();
        let hour_ms = 3_600_000;
        machine.0.store(10 * hour_ms, Ordering::Relaxed);
        let steady = SteadyClock::new(machine.clone());
        let before = steady.now();
        assert!(before.as_millis() >= 10 * hour_ms);

        machine.0.store(9 * hour_ms, Ordering::Relaxed);
        assert!(steady.now() >= before);
        assert!(steady.ahead() >= Duration::from_secs(3_600));

        machine.0.store(12 * hour_ms, Ordering::Relaxed);
        assert!(steady.now().as_millis() >= 12 * hour_ms);
        assert!(steady.ahead() < Duration::from_secs(60), "it is the machine's time again");
    }
}
