//! When to try again, and when to stop trying.
//!
//! The delays come from the `backoff` crate: exponential with full jitter, that is, anything from
//! nothing to the interval. Only its arithmetic is used; the schedule itself is kept in the job's
//! row, so a restart loses nothing.

use std::time::Duration;

use backoff::{ExponentialBackoff, backoff::Backoff};

use super::state::{ParkReason, State};

/// Growth of the interval from one try to the next.
const MULTIPLIER: f64 = 2.0;

/// Tries after which the interval has stopped growing for any sane base and maximum.
const GROWTH_STEPS_MAX: u32 = 32;

/// An exponential schedule with full jitter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    base: Duration,
    max: Duration,
    jittered: bool,
}

impl Schedule {
    /// A schedule whose first delay is at most `base` and whose delays are at most `max`.
    #[must_use]
    pub const fn new(base: Duration, max: Duration) -> Self {
        Self { base, max, jittered: true }
    }

    /// A schedule without jitter, whose delays are the middle of each interval: what is simulated
    /// from a seed must come out the same each time.
    #[cfg(test)]
    pub(crate) const fn steady(base: Duration, max: Duration) -> Self {
        Self { base, max, jittered: false }
    }

    /// A delay before try number `tries + 1`, given that `tries` were made.
    #[must_use]
    pub fn delay(&self, tries: u32) -> Duration {
        // `backoff` draws from the interval ± its factor: half the interval ± all of it is full
        // jitter. Its own deadline is off, because deadlines are ours to keep.
        let mut schedule = ExponentialBackoff {
            current_interval: self.base.mul_f64(0.5),
            initial_interval: self.base.mul_f64(0.5),
            randomization_factor: if self.jittered { 1.0 } else { 0.0 },
            multiplier: MULTIPLIER,
            max_interval: self.max.mul_f64(0.5),
            max_elapsed_time: None,
            ..ExponentialBackoff::default()
        };
        for _ in 1..tries.clamp(1, GROWTH_STEPS_MAX) {
            if schedule.next_backoff().is_none() {
                break;
            }
        }
        schedule.next_backoff().unwrap_or(self.max).min(self.max)
    }
}

/// What has been tried for one job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tries {
    /// Attempts that count: those that OES was asked to look at.
    pub attempts: u32,
    /// Reads since the last attempt that did not settle it.
    pub reads: u32,
    /// Those of them that did not find the record.
    pub absences: u32,
    /// How long the job has been tried.
    pub age: Duration,
}

/// The bounds of retrying.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryLimits {
    /// Delays between attempts, and between reads that failed.
    pub schedule: Schedule,
    /// Attempts after which a job is parked.
    pub attempts_max: u32,
    /// Time since the first attempt after which a job is parked instead of tried again.
    pub age_max: Duration,
    /// Attempts answered 404 after which a job is parked.
    pub not_found_attempts_max: u32,
    /// Reads that find nothing after which a job is parked.
    pub absent_reads_max: u32,
    /// Pace of reading while an approval is pending at OES.
    pub approval_read_every: Duration,
    /// Pace of reading jobs that wait for an operator.
    pub slow_read_every: Duration,
}

impl RetryLimits {
    /// The reason to stop trying, if a bound is reached.
    #[must_use]
    pub fn exhausted(&self, tries: Tries) -> Option<ParkReason> {
        if tries.attempts >= self.attempts_max {
            Some(ParkReason::AttemptsExhausted)
        } else if tries.age >= self.age_max {
            Some(ParkReason::TooOld)
        } else {
            None
        }
    }

    /// The longest delay that a step is ever given.
    #[must_use]
    pub fn longest_delay(&self) -> Duration {
        self.schedule.max.max(self.approval_read_every).max(self.slow_read_every)
    }

    /// The delay before a job in `state` is read again after `reads` reads.
    #[must_use]
    pub fn next_read(&self, state: State, reads: u32) -> Duration {
        match state {
            State::AwaitingApproval => self.approval_read_every,
            State::Parked(_) | State::Conflict(_) => self.slow_read_every,
            State::Unknown(_)
            | State::Received
            | State::Decided
            | State::Sending
            | State::Confirmed
            | State::Overruled
            | State::Refused => self.schedule.delay(reads.saturating_add(1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEDULE: Schedule = Schedule::new(Duration::from_secs(1), Duration::from_secs(60));

    #[test]
    fn delays_are_jittered_within_a_doubling_interval() {
        for (tries, most) in [(0, 1), (1, 1), (2, 2), (3, 4), (6, 32), (7, 60), (1_000, 60)] {
            let drawn: Vec<Duration> = (0..400).map(|_| SCHEDULE.delay(tries)).collect();
            let most = Duration::from_secs(most);
            // Full jitter: the draws fill the interval, so their ends are near both of its ends.
            assert!(drawn.iter().all(|delay| *delay <= most + Duration::from_micros(1)));
            assert!(drawn.iter().any(|delay| *delay > most * 3 / 4), "try {tries}");
            assert!(drawn.iter().any(|delay| *delay < most / 4), "try {tries}");
        }
    }

    #[test]
    fn the_first_delay_the_growth_and_the_longest_are_those_that_are_configured() {
        // Nothing here is what the crate would take by itself.
        let schedule = Schedule::new(Duration::from_hours(2), Duration::from_hours(5));
        let steady = Schedule { jittered: false, ..schedule };
        let middles = [0, 1, 2, 3, 1_000].map(|tries| steady.delay(tries).as_secs());
        assert_eq!(middles, [3_600, 3_600, 7_200, 9_000, 9_000]);
        // Draws that are cut off at the longest delay would be no jitter any more.
        let drawn = (0..400).map(|_| schedule.delay(1_000));
        assert!(drawn.filter(|delay| *delay == Duration::from_hours(5)).count() < 10);
    }

    #[test]
    fn stops_at_either_bound() {
        let limits = RetryLimits {
            schedule: SCHEDULE,
            attempts_max: 3,
            age_max: Duration::from_secs(100),
            not_found_attempts_max: 2,
            absent_reads_max: 2,
            approval_read_every: Duration::from_secs(30),
            slow_read_every: Duration::from_secs(900),
        };
        let tries = |attempts, age_s| Tries {
            attempts,
            reads: 0,
            absences: 0,
            age: Duration::from_secs(age_s),
        };
        assert_eq!(limits.longest_delay(), Duration::from_secs(900));
        assert_eq!(limits.exhausted(tries(2, 99)), None);
        assert_eq!(limits.exhausted(tries(3, 0)), Some(ParkReason::AttemptsExhausted));
        assert_eq!(limits.exhausted(tries(0, 100)), Some(ParkReason::TooOld));
    }
}
