//! The exchange that feeds the book.

use serde_json::{Value, json};
use settled::store::query::{FeedFinding, FeedLine};
use uuid::Uuid;

use super::{eventually, world::World};

/// A world whose book is fed, with further settings.
pub(crate) async fn fed_world(settings: &[(&str, &str)]) -> World {
    let queue = format!("t{}.book", Uuid::new_v4().simple());
    let mut all = vec![("broker.book_queue", queue.as_str())];
    all.extend(settings);
    World::with(&all).await
}

impl World {
    /// Publishes events as the exchange does; they are in the queue when this returns.
    pub(crate) async fn feed(&self, events: &[Value]) {
        let messages = events.iter().map(|event| event.to_string().into_bytes());
        self.exchange.publish(self.setting("broker.book_queue"), messages).await;
    }

    /// A change of what the connection has available, with its number.
    pub(crate) fn numbered(&self, sequence: u64, delta: &str) -> Value {
        let mut event = self.adjustment(&format!("n-{sequence}"), delta);
        event["sequence"] = json!(sequence);
        event
    }

    /// What the exchange states that the connection has of BTC.
    pub(crate) fn snapshot(&self, event: &str, total: &str) -> Value {
        json!({
            "eventId": event, "type": "balance.snapshot", "connectionId": self.connection_id,
            "totals": [{"currency": "BTC", "total": total}],
        })
    }

    /// Waits until the connection has so much available.
    pub(crate) async fn wait_for_available(&self, available: u64) {
        eventually(&format!("{available} to be available"), || async {
            (self.balances().await[0] == available.to_string()).then_some(())
        })
        .await;
    }

    /// The feed of the connection as the book knows it.
    pub(crate) async fn known_feed(&self) -> Option<FeedLine> {
        let readers = self.readers().await;
        let feeds = readers.feeds(false, 100).await.unwrap();
        readers.close().await;
        feeds.into_iter().find(|feed| feed.connection_id == self.connection_id)
    }

    pub(crate) async fn feed_findings(&self) -> Vec<FeedFinding> {
        let readers = self.readers().await;
        let findings = readers.feed_findings(100).await.unwrap();
        readers.close().await;
        findings
    }
}

/// A sign of life that was sent so many seconds ago.
pub(crate) fn heartbeat(event: &str, seconds_ago: i64) -> Value {
    use settled::clock::{Clock as _, SystemClock};
    let sent_at = SystemClock.now().as_millis() - seconds_ago * 1_000;
    json!({"eventId": event, "type": "book.heartbeat", "sentAtMs": sent_at})
}
