//! The pulse of a loop: whether it rests, and if not, since when it has been at one thing. A loop that never
//! comes back from anything is stuck, whatever else the process still answers.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
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

/// Work of one kind that is under way in many places at once. It is at one thing for as long as its oldest
/// piece is.
#[derive(Debug, Default)]
pub struct Pieces(Mutex<BTreeMap<u64, Instant>>);

/// One piece of it, until this is dropped.
#[derive(Debug)]
pub struct Piece {
    number: u64,
    pieces: Arc<Pieces>,
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.pieces.begun().remove(&self.number);
    }
}

impl Pieces {
    fn begun(&self) -> MutexGuard<'_, BTreeMap<u64, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A piece begins. Later ones have higher numbers.
    #[must_use]
    pub fn begin(self: &Arc<Self>) -> Piece {
        let mut begun = self.begun();
        let number = begun.last_key_value().map_or(0, |(last, _)| last.saturating_add(1));
        begun.insert(number, Instant::now());
        drop(begun);
        Piece { number, pieces: Arc::clone(self) }
    }

    /// How long the oldest piece has been under way.
    #[must_use]
    pub fn busy_for(&self) -> Duration {
        self.begun().first_key_value().map_or(Duration::ZERO, |(_, begun)| begun.elapsed())
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

    #[test]
    fn work_in_many_places_is_as_old_as_its_oldest_piece() {
        let wait = Duration::from_millis(5);
        let pieces = Arc::<Pieces>::default();
        assert_eq!(pieces.busy_for(), Duration::ZERO, "nothing is under way");
        let first = pieces.begin();
        std::thread::sleep(wait);
        let (second, third) = (pieces.begin(), pieces.begin());
        assert!(pieces.busy_for() >= wait);
        drop(first);
        let oldest = pieces.busy_for();
        std::thread::sleep(wait);
        drop(third);
        assert!(pieces.busy_for() >= oldest + wait, "the second is still under way");
        drop(second);
        assert_eq!(pieces.busy_for(), Duration::ZERO);
    }
}
