//! Whose attempt goes next when there is more to send than may be sent.
//!
//! Connections take turns, so that one client's flood does not delay another's single job: a job that
//! is the first of its connection waits for at most one attempt of each other connection. Within a
//! connection the order is that of arrival. First attempts go before late retries, but one in
//! [`FIRST_ATTEMPTS_PER_RETRY`] and one is a retry, so that retries come to their end under any load.

use super::ids::{ConnectionId, JobSeq};

/// First attempts after which a retry that is due has its turn.
pub const FIRST_ATTEMPTS_PER_RETRY: usize = 8;

/// Most turns that retries can save up while none is due.
const RETRY_TURNS_MAX: usize = 8;

/// Where the turns have come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turns {
    after: Option<ConnectionId>,
    first_attempts: usize,
}

impl Turns {
    /// The connection that had the last turn: the one after it is next, in the order of ids.
    #[must_use]
    pub fn after(&self) -> Option<ConnectionId> {
        self.after
    }

    /// How many of `attempts` are for retries that are due, before any first attempt.
    #[must_use]
    pub fn retries_share(&self, attempts: usize) -> usize {
        (self.first_attempts / FIRST_ATTEMPTS_PER_RETRY).min(attempts)
    }

    /// Notes that retries had `retries` turns.
    pub fn retried(&mut self, retries: usize) {
        let paid = retries.saturating_mul(FIRST_ATTEMPTS_PER_RETRY);
        self.first_attempts = self.first_attempts.saturating_sub(paid);
    }

    /// Takes at most `attempts` of the first attempts that wait, one of each connection in turn.
    /// `waiting` has the connections in the order of their turns, and each one's jobs in order.
    pub fn take(
        &mut self,
        waiting: &[(ConnectionId, Vec<JobSeq>)],
        attempts: usize,
    ) -> Vec<JobSeq> {
        let rounds = waiting.iter().map(|(_, jobs)| jobs.len()).max().unwrap_or(0);
        let in_turn = (0..rounds).flat_map(|round| {
            waiting
                .iter()
                .filter_map(move |(connection, jobs)| Some((*connection, *jobs.get(round)?)))
        });
        let mut taken = Vec::with_capacity(attempts);
        for (connection, job) in in_turn.take(attempts) {
            taken.push(job);
            self.after = Some(connection);
        }
        let most = RETRY_TURNS_MAX.saturating_mul(FIRST_ATTEMPTS_PER_RETRY);
        self.first_attempts = self.first_attempts.saturating_add(taken.len()).min(most);
        taken
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn connection(number: u8) -> ConnectionId {
        uuid::Uuid::from_bytes([number; 16]).into()
    }

    /// The connections that wait, from the one whose turn it is.
    fn rotated(
        queues: &[Vec<JobSeq>],
        after: Option<ConnectionId>,
    ) -> Vec<(ConnectionId, Vec<JobSeq>)> {
        let all: Vec<_> = (0_u8..)
            .zip(queues)
            .filter(|(_, jobs)| !jobs.is_empty())
            .map(|(number, jobs)| (connection(number), jobs.clone()))
            .collect();
        let (first, last): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|(id, _)| after.is_none_or(|after| *id > after));
        first.into_iter().chain(last).collect()
    }

    proptest! {
        #[test]
        fn the_first_job_of_a_connection_waits_for_one_attempt_of_each_other_at_most(
            lengths in prop::collection::vec(0_usize..40, 1..8),
            attempts in prop::collection::vec(1_usize..10, 1..60),
        ) {
            let mut next = 0;
            let mut queues: Vec<Vec<JobSeq>> = lengths
                .iter()
                .map(|length| (0..*length).map(|_| { next += 1; JobSeq::from(next) }).collect())
                .collect();
            let connections = queues.iter().filter(|queue| !queue.is_empty()).count();
            let mut turns = Turns::default();
            // How many attempts have gone since each connection had its last one.
            let mut waited = vec![0; queues.len()];
            for permits in attempts {
                for job in turns.take(&rotated(&queues, turns.after()), permits) {
                    let of = queues.iter().position(|queue| queue.first() == Some(&job));
                    let of = of.expect("the order within a connection is that of arrival");
                    queues[of].remove(0);
                    for (number, wait) in waited.iter_mut().enumerate() {
                        *wait = if number == of || queues[number].is_empty() { 0 } else { *wait + 1 };
                        prop_assert!(*wait < connections, "connection {number} waited {wait} turns");
                    }
                }
            }
        }
    }

    #[test]
    fn retries_have_their_turns_under_any_load() {
        let mut turns = Turns::default();
        let flood = [(connection(1), (0..100_000).map(JobSeq::from).collect::<Vec<_>>())];
        let (mut firsts, mut retries) = (0, 0);
        for permits in [1, 1, 3, 64, 7].into_iter().cycle().take(500) {
            let share = turns.retries_share(permits);
            turns.retried(share);
            retries += share;
            firsts += turns.take(&flood, permits - share).len();
        }
        let one_in = firsts / retries;
        assert!((6..=9).contains(&one_in), "{firsts} first attempts and {retries} retries");
    }
}
