//! The pulse of a loop: whether it rests, and if not, since when it has been at one thing. A loop that never
//! comes back from anything is stuck, whatever else the process still answers.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// What a loop says of itself while it works. One that was never started rests.
#[derive(Debug, Default)]
pub struct Pulse(Mutex<Option<Instant>>);

/// A loop that waits for what may take any time: for work, or for leave to do it.
#[derive(Debug)]
pub struct Resting<'p>(&'p Pulse);

impl Drop for Resting<'_> {
    fn drop(&mut self) {
        self.0.beat();
    }
}

impl Pulse {
    fn set(&self, since: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }

    /// The loop begins with another thing.
    pub fn beat(&self) {
        self.set(Some(Instant::now()));
    }

    /// The loop rests until this is dropped.
    #[must_use]
    pub fn rest(&self) -> Resting<'_> {
        self.set(None);
        Resting(self)
    }

    /// The loop has ended.
    pub fn ended(&self) {
        self.set(None);
    }

    /// How long it has been at one thing.
    #[must_use]
    pub fn busy_for(&self) -> Duration {
        let since = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        since.map_or(Duration::ZERO, |since| since.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_is_busy_between_its_rests_and_not_in_them() {
        let wait = Duration::from_millis(5);
        let pulse = Pulse::default();
        assert_eq!(pulse.busy_for(), Duration::ZERO, "not started");
        pulse.beat();
        std::thread::sleep(wait);
        assert!(pulse.busy_for() >= wait);
        let resting = pulse.rest();
        std::thread::sleep(wait);
        assert_eq!(pulse.busy_for(), Duration::ZERO);
        drop(resting);
        std::thread::sleep(wait);
        assert!(pulse.busy_for() >= wait);
        pulse.ended();
        assert_eq!(pulse.busy_for(), Duration::ZERO);
    }
}
