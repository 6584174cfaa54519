//! The book: what is compared with OES by itself, and how far it must be for a decision.

use std::time::Duration;

use serde::Deserialize;

/// The book's connections, currencies and balances.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BookConfig {
    /// How often connections and currencies are compared with OES; 0 for never.
    pub sync_every_s: u64,
    /// Whether the book is brought in step by that, or only what differs is told.
    pub sync_apply: bool,
    /// How old the exchange's last heartbeat may be for a decision, where a feed is configured; 0 for any
    /// age.
    pub lag_max_s: u64,
    /// How long a job waits for the event of the feed that it names, before it is parked.
    pub sequence_wait_max_s: u64,
}

impl Default for BookConfig {
    fn default() -> Self {
        Self { sync_every_s: 0, sync_apply: false, lag_max_s: 0, sequence_wait_max_s: 300 }
    }
}

impl BookConfig {
    /// How old the last heartbeat may be, if that is bounded.
    #[must_use]
    pub fn lag_max(&self) -> Option<Duration> {
        (self.lag_max_s > 0).then(|| Duration::from_secs(self.lag_max_s))
    }
}
