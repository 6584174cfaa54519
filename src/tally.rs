//! How far long work has come. Who does it counts; who waits for it looks, as often as suits the reader.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use tokio::sync::Notify;

/// So much of so much. Copies count together.
#[derive(Clone, Debug, Default)]
pub struct Tally(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    done: AtomicU64,
    total: AtomicU64,
    /// Rings when it becomes known how much there is.
    expected: Notify,
}

impl Tally {
    /// So much is to be done, besides what is known of already.
    pub fn expect(&self, more: u64) {
        add(&self.0.total, more);
        self.0.expected.notify_one();
    }

    /// So much more is done.
    pub fn add(&self, more: u64) {
        add(&self.0.done, more);
    }

    /// Waits until more is known of what is to be done.
    pub async fn expected(&self) {
        self.0.expected.notified().await;
    }

    /// How much is done, and of how much if that is known. What grows meanwhile is never shown as more
    /// than all.
    #[must_use]
    pub fn so_far(&self) -> (u64, Option<u64>) {
        let (done, total) = (self.0.done.load(Relaxed), self.0.total.load(Relaxed));
        if total == 0 { (done, None) } else { (done.min(total), Some(total)) }
    }
}

fn add(count: &AtomicU64, more: u64) {
    // Wrapping would need centuries of counting.
    count.fetch_add(more, Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_total_is_told_once_it_is_known_and_never_exceeded() {
        let tally = Tally::default();
        let other = tally.clone();
        other.add(2);
        assert_eq!(tally.so_far(), (2, None));
        tally.expect(3);
        tally.expect(1);
        assert_eq!(tally.so_far(), (2, Some(4)));
        other.add(3);
        assert_eq!(tally.so_far(), (4, Some(4)));
    }
}
