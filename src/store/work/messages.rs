//! Bad messages, and what waits to be published.

use uuid::Uuid;

use super::{BadMessage, ContentHashKey, OutcomeMessage, Work, next};
use crate::domain::ids::{OutboxSeq, QuarantineSeq};

impl Work {
    /// Puts a bad message away, with a dead letter for it; the same bytes again are only counted.
    /// Answers whether the message is new.
    pub fn quarantine(&mut self, message: BadMessage) -> bool {
        let key = (message.queue.clone(), ContentHashKey(message.sha256));
        if let Some(seq) = self.quarantined.get(&key) {
            let times = self.changes.seen_again.entry(*seq).or_default();
            *times = times.saturating_add(1);
            return false;
        }
        let seq = QuarantineSeq::from(next(&mut self.counters.quarantine));
        let outbox = OutboxSeq::from(next(&mut self.counters.outbox));
        let event_id = dead_letter_id(&message.queue, &message.sha256);
        self.changes.dead_letters.push((outbox, seq, event_id, message.queue.clone()));
        self.quarantined.insert(key, seq);
        self.changes.quarantined.push((seq, message));
        true
    }

    /// Puts an outcome into the outbox.
    pub fn announce(&mut self, message: OutcomeMessage) {
        let seq = OutboxSeq::from(next(&mut self.counters.outbox));
        self.changes.outcomes.push((seq, message));
    }

    /// Notes that the broker has confirmed messages of the outbox.
    pub fn published(&mut self, messages: impl IntoIterator<Item = OutboxSeq>) {
        self.changes.published.extend(messages);
    }
}

/// Namespace of dead letters' message ids.
const DEAD_LETTER_NAMESPACE: Uuid = uuid::uuid!("2f6f2d1e-08c9-5b8e-8d44-6e0c5b3a9f17");

/// The message id of a dead letter: the same whenever the same bytes from the same queue are refused.
fn dead_letter_id(queue: &str, sha256: &[u8; 32]) -> Uuid {
    let mut name = queue.as_bytes().to_vec();
    name.push(0);
    name.extend_from_slice(sha256);
    Uuid::new_v5(&DEAD_LETTER_NAMESPACE, &name)
}
