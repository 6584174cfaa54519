//! The broker's URL, and what follows from its settings: names, delays and limits.

use std::{fmt, time::Duration};

use serde::Deserialize;

use super::BrokerConfig;
use crate::domain::schedule::Schedule;

/// The broker's URL. It may hold a password, so it is shown without.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct BrokerUrl(String);

impl BrokerUrl {
    /// The URL with whatever it holds.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for BrokerUrl {
    fn from(url: String) -> Self {
        Self(url)
    }
}

impl fmt::Display for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The last `@` ends the user's part, whatever a password has in it, and however the rest is
        // misspelt.
        let (scheme, rest) = self.0.split_once("://").map_or(("", self.0.as_str()), |parts| parts);
        match rest.rsplit_once('@') {
            Some((_, place)) => write!(f, "{scheme}://{place}"),
            None if scheme.is_empty() => f.write_str("what is set"),
            None => write!(f, "{scheme}://{rest}"),
        }
    }
}

impl fmt::Debug for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl BrokerConfig {
    /// What is wrong with the names of queues and exchanges.
    pub(super) fn bad_names(&self) -> Vec<String> {
        let names = [
            ("broker.jobs_queue", Some(&self.jobs_queue)),
            ("broker.book_queue", self.book_queue.as_ref()),
            ("broker.outcomes_exchange", Some(&self.outcomes_exchange)),
            ("broker.dead_letter_exchange", Some(&self.dead_letter_exchange)),
        ];
        // `.dropped` is appended to a queue's name, and AMQP names have at most 255 bytes.
        let is_bad = |name: &&String| name.is_empty() || name.len() > 240;
        let mut problems: Vec<String> = names
            .into_iter()
            .filter(|(_, name)| name.as_ref().is_some_and(is_bad))
            .map(|(key, _)| format!("{key} must have 1 to 240 bytes"))
            .collect();
        if self.book_queue.as_ref() == Some(&self.jobs_queue) {
            problems.push("broker.book_queue and broker.jobs_queue are the same".to_owned());
        }
        problems
    }

    /// The queues that are consumed: that of the jobs and, if there is one, that of the feed.
    pub fn queues(&self) -> impl Iterator<Item = &str> {
        [Some(self.jobs_queue.as_str()), self.book_queue.as_deref()].into_iter().flatten()
    }

    /// The queue that keeps what the daemon refused of another one.
    #[must_use]
    pub fn dead_queue(queue: &str) -> String {
        format!("{queue}.dead")
    }

    /// The queue that keeps what the broker itself gives up of another one. It is another one than
    /// [`Self::dead_queue`], so that one look at its length tells of a message that nobody has taken in.
    #[must_use]
    pub fn dropped_queue(queue: &str) -> String {
        format!("{queue}.dropped")
    }

    /// The delays between connections.
    #[must_use]
    pub fn reconnect_schedule(&self) -> Schedule {
        Schedule::new(
            Duration::from_millis(self.reconnect_base_ms),
            Duration::from_millis(self.reconnect_max_ms),
        )
    }

    /// The limit on every call but connecting.
    #[must_use]
    pub fn call_timeout(&self) -> Duration {
        Duration::from_millis(self.call_timeout_ms)
    }
}
