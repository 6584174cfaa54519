//! Which part of the daemon works, for readiness and metrics.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use serde::Serialize;

use crate::{clock::Clock, domain::gate::Permission, pipeline::budget::Budget, store::Readers};

/// Which side of the broker a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BrokerSide {
    /// Taking jobs.
    Consumer,
    /// Publishing outcomes and dead letters.
    Publisher,
}

/// What the parts say of themselves while they work.
#[derive(Debug, Default)]
pub struct Health {
    consumer: AtomicBool,
    publisher: AtomicBool,
    writer_gone: AtomicBool,
}

impl Health {
    /// Whether a connection to the broker is up.
    pub fn broker_connected(&self, side: BrokerSide, connected: bool) {
        match side {
            BrokerSide::Consumer => self.consumer.store(connected, Ordering::Relaxed),
            BrokerSide::Publisher => self.publisher.store(connected, Ordering::Relaxed),
        }
    }

    /// Whether that connection is up.
    #[must_use]
    pub fn is_broker_connected(&self, side: BrokerSide) -> bool {
        match side {
            BrokerSide::Consumer => self.consumer.load(Ordering::Relaxed),
            BrokerSide::Publisher => self.publisher.load(Ordering::Relaxed),
        }
    }

    /// The writer has ended.
    pub fn writer_ended(&self) {
        self.writer_gone.store(true, Ordering::Relaxed);
    }

    /// Whether the process can still do its work at all.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        !self.writer_gone.load(Ordering::Relaxed)
    }
}

/// One part and whether it is ready.
#[derive(Clone, Debug, Serialize)]
pub struct Part {
    /// The part's name.
    pub name: &'static str,
    /// Whether it is ready.
    pub ready: bool,
    /// Why not, or what else there is to say.
    pub detail: String,
}

impl Part {
    fn new(name: &'static str, ready: bool, otherwise: &str) -> Self {
        Self { name, ready, detail: if ready { "ok".to_owned() } else { otherwise.to_owned() } }
    }
}

/// All parts.
#[derive(Clone, Debug, Serialize)]
pub struct Readiness {
    /// Whether all are ready.
    pub ready: bool,
    /// Each of them.
    pub parts: Vec<Part>,
}

/// What readiness is read from.
#[derive(Clone, Debug)]
pub struct Checks {
    /// What the parts say of themselves.
    pub health: Arc<Health>,
    /// The book.
    pub readers: Readers,
    /// The sender's budget; absent when nothing may be signed.
    pub budget: Option<Arc<Budget>>,
    /// Why nothing may be signed, if so.
    pub signer_fault: Option<String>,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

impl Checks {
    /// Looks at every part.
    pub async fn readiness(&self) -> Readiness {
        let book = self.readers.unpublished_count().await;
        let parts = vec![
            Part::new(
                "book",
                book.is_ok(),
                &book.err().map(|error| error.to_string()).unwrap_or_default(),
            ),
            Part::new("writer", self.health.is_alive(), "the writer has ended"),
            Part::new(
                "consumer",
                self.health.is_broker_connected(BrokerSide::Consumer),
                "not connected to the broker",
            ),
            Part::new(
                "publisher",
                self.health.is_broker_connected(BrokerSide::Publisher),
                "not connected to the broker",
            ),
            Part::new(
                "signer",
                self.signer_fault.is_none(),
                self.signer_fault.as_deref().unwrap_or_default(),
            ),
            self.sender(),
        ];
        Readiness { ready: parts.iter().all(|part| part.ready), parts }
    }

    fn sender(&self) -> Part {
        let Some(budget) = &self.budget else {
            return Part::new("sender", false, "nothing is sent, because nothing may be signed");
        };
        match budget.permission() {
            Permission::Open => Part::new("sender", true, ""),
            Permission::PausedUntil(until) => Part {
                name: "sender",
                // A pause for the rate limit ends by itself and is no reason to restart anything.
                ready: true,
                detail: format!("paused until {until}: OES limits the rate of requests"),
            },
            Permission::Stopped(cause, trial_at) => Part::new(
                "sender",
                false,
                &format!("stopped: {}; the next trial is at {trial_at}", cause.as_str()),
            ),
        }
    }

    /// Why the sender is stopped or paused, for the gauge.
    #[must_use]
    pub fn sender_stopped(&self) -> Option<&'static str> {
        match self.budget.as_ref()?.permission() {
            Permission::Open => None,
            Permission::PausedUntil(_) => Some("rate_limited"),
            Permission::Stopped(cause, _) => Some(cause.as_str()),
        }
    }
}
