//! Bad messages, and what waits to be published.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::{BadMessage, ContentHashKey, Needs, OutcomeMessage, Work, next};
use crate::domain::ids::{OutboxSeq, QuarantineSeq, RecordId};

impl Work {
    /// Which of the doubtful messages are about records of which something is known: a job, a refusal, or
    /// another message of this batch. The others are new jobs, and are not looked for in the quarantine.
    pub(in crate::store) fn known_otherwise(
        &self,
        needs: &Needs,
    ) -> BTreeSet<(String, ContentHashKey)> {
        let refused: BTreeSet<RecordId> = self.refused.iter().map(|(record, _)| *record).collect();
        let mut messages: BTreeMap<RecordId, usize> = BTreeMap::new();
        for (record, _) in &needs.doubtful {
            let count = messages.entry(*record).or_default();
            *count = count.saturating_add(1);
        }
        let is_known = |record: &RecordId| {
            self.by_record.contains_key(record)
                || refused.contains(record)
                || messages.get(record).is_some_and(|count| *count > 1)
        };
        let doubtful = needs.doubtful.iter().filter(|(record, _)| is_known(record));
        doubtful.map(|(_, key)| key.clone()).collect()
    }

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::{ids::JobSeq, job::ContentHash, time::TimestampMs},
        store::work::Counters,
    };

    #[test]
    fn a_message_is_looked_for_in_the_quarantine_if_something_else_is_known_of_its_record() {
        let [plain, has_job, was_refused, comes_twice] =
            [1, 2, 3, 4].map(|n| RecordId::from(Uuid::from_u128(n)));
        let key = |n: u8| ("jobs".to_owned(), ContentHashKey([n; 32]));
        let mut work = Work::new(TimestampMs::from_millis(0), Counters::default());
        work.by_record.insert(has_job, JobSeq::from(7));
        work.refused.insert((was_refused, ContentHash::from([9; 32])));
        let messages = [plain, has_job, was_refused, comes_twice, comes_twice];
        let doubtful = messages.into_iter().zip(1..).map(|(record, n)| (record, key(n))).collect();
        let needs = Needs { doubtful, ..Needs::default() };
        assert_eq!(work.known_otherwise(&needs), [2, 3, 4, 5].map(key).into());
    }
}
