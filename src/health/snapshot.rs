//! One look at the book and at the daemon's parts, for a scrape and for alerts.

use super::{BrokerSide, Checks};
use crate::{metrics::Snapshot, store::StoreError};

impl Checks {
    /// Looks at everything that gauges show.
    ///
    /// # Errors
    /// [`StoreError`] when the book cannot be read.
    pub async fn snapshot(&self) -> Result<Snapshot, StoreError> {
        let readers = &self.readers;
        let released = readers.released_unconfirmed().await?;
        let approvals = readers.approvals_waiting().await?;
        let outbox = readers.outbox_waiting().await?;
        let gate = self.gate.look(self.clock.now());
        let notices = readers.notices_waiting().await?;
        Ok(Snapshot {
            jobs: readers
                .job_counts()
                .await?
                .into_iter()
                .map(|line| (line.state, line.job_type, line.jobs))
                .collect(),
            oldest: readers
                .oldest_open()
                .await?
                .into_iter()
                .map(|line| (line.state, line.received_at_ms))
                .collect(),
            at_risk: readers.at_risk().await?,
            released_unconfirmed: (released.jobs, released.oldest_received_at_ms),
            released_stuck: released.stuck,
            approvals_waiting: (approvals.jobs, approvals.oldest_since_ms),
            outbox_waiting: (outbox.messages, outbox.oldest_since_ms),
            quarantined: readers.quarantined_count().await?,
            overdrawn: readers.overdrawn_count().await?,
            notices_waiting: (notices.notices, notices.oldest_since_ms),
            dropped: self.health.dropped(),
            sender_stopped: self.sender_stopped(),
            switches: self.switches.now(),
            consumer_connected: self.health.is_broker_connected(BrokerSide::Consumer),
            publisher_connected: self.health.is_broker_connected(BrokerSide::Publisher),
            publisher_blocked: self.health.is_publisher_blocked(),
            feed_connected: gate.is_fed.then(|| self.health.is_broker_connected(BrokerSide::Feed)),
            gate,
            feeds: readers.feeds_at_work().await?,
            batch_age: self.health.batch_age(),
            comparisons: readers.past_runs().await?,
            clock_ahead: self.clock.ahead(),
            free_bytes: self.volumes.free(),
            verification_waiting: if self.verifies { readers.unverified_count().await? } else { 0 },
        })
    }
}
