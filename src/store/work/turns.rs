//! Jobs of a batch that have something due, and whose turn it is.

use std::collections::BTreeMap;

use super::Work;
use crate::domain::ids::{ConnectionId, JobSeq};

impl Work {
    /// Jobs that were due for an attempt when the batch was loaded: first attempts first.
    #[must_use]
    pub fn due_attempts(&self) -> &[JobSeq] {
        &self.due_attempts
    }

    /// Whether more first attempts were due than were looked for.
    #[must_use]
    pub fn first_attempts_left(&self) -> bool {
        self.first_attempts_left
    }

    /// Jobs that could be decided when the batch was loaded.
    #[must_use]
    pub fn due_decisions(&self) -> &[JobSeq] {
        &self.due_decisions
    }

    /// Those of the jobs that this batch decided whose turn it is, when `attempts` may be made and no other job
    /// waits for its first attempt.
    pub fn take_turns(&mut self, waiting: &[JobSeq], attempts: usize) -> Vec<JobSeq> {
        let mut of_connections: BTreeMap<ConnectionId, Vec<JobSeq>> = BTreeMap::new();
        for seq in waiting {
            if let Some(tracked) = self.jobs.get(seq) {
                let connection = tracked.job.terms.connection_id;
                of_connections.entry(connection).or_default().push(*seq);
            }
        }
        let turns = &mut self.counters.turns;
        let (mut later, mut in_turn): (Vec<_>, Vec<_>) = of_connections
            .into_iter()
            .partition(|(connection, _)| turns.after().is_some_and(|after| *connection <= after));
        in_turn.append(&mut later);
        turns.take(&in_turn, attempts)
    }
}
