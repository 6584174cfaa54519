//! Which part of the daemon works, for readiness and metrics.

pub mod pulse;
mod snapshot;
mod volumes;

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use serde::Serialize;

use pulse::Pulse;
pub use volumes::Volumes;

use crate::{
    clock::Clock,
    domain::{action::Switch, gate::Permission},
    pipeline::{book_gate::GateBoard, budget::Budget, switches::SwitchBoard, wake::Wake},
    store::Readers,
};

/// How long a batch may take before the writer counts as stuck: the disk hangs, or another program
/// holds the database.
const BATCH_PATIENCE: Duration = Duration::from_secs(10);

/// How long a pause that OES asked for may be before somebody should know.
const PAUSE_PATIENCE: Duration = Duration::from_secs(300);

/// Which side of the broker a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BrokerSide {
    /// Taking jobs.
    Consumer,
    /// Publishing outcomes and dead letters.
    Publisher,
    /// Taking what the exchange feeds, where that is configured.
    Feed,
}

impl BrokerSide {
    /// All sides.
    pub const ALL: [Self; 3] = [Self::Consumer, Self::Publisher, Self::Feed];

    /// The word that metrics use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Consumer => "consumer",
            Self::Publisher => "publisher",
            Self::Feed => "feed",
        }
    }
}

/// What the parts say of themselves while they work.
#[derive(Debug, Default)]
pub struct Health {
    consumer: AtomicBool,
    publisher: AtomicBool,
    feed: AtomicBool,
    publisher_blocked: AtomicBool,
    /// Whether the loop that takes jobs comes back from what it does.
    pub receiver_pulse: Pulse,
    /// Whether the loop that takes what is fed comes back from what it does.
    pub feed_pulse: Pulse,
    writer_gone: AtomicBool,
    /// Messages that the broker has given up of the jobs queue and of the feed's, each plus one; 0 where
    /// that is not known.
    dropped: [AtomicU64; 2],
    batch_begun: Mutex<Option<Instant>>,
}

/// A batch of the writer, from its begin until this is dropped.
#[derive(Debug)]
pub struct BatchAtWork<'h>(&'h Health);

impl Drop for BatchAtWork<'_> {
    fn drop(&mut self) {
        self.0.set_batch_begun(None);
    }
}

impl Health {
    /// Whether a connection to the broker is up.
    pub fn broker_connected(&self, side: BrokerSide, connected: bool) {
        match side {
            BrokerSide::Consumer => self.consumer.store(connected, Ordering::Relaxed),
            BrokerSide::Publisher => self.publisher.store(connected, Ordering::Relaxed),
            BrokerSide::Feed => self.feed.store(connected, Ordering::Relaxed),
        }
    }

    /// Whether that connection is up.
    #[must_use]
    pub fn is_broker_connected(&self, side: BrokerSide) -> bool {
        match side {
            BrokerSide::Consumer => self.consumer.load(Ordering::Relaxed),
            BrokerSide::Publisher => self.publisher.load(Ordering::Relaxed),
            BrokerSide::Feed => self.feed.load(Ordering::Relaxed),
        }
    }

    /// Whether the broker takes no messages at present. Answers what held before.
    pub fn publisher_blocked(&self, blocked: bool) -> bool {
        self.publisher_blocked.swap(blocked, Ordering::Relaxed)
    }

    /// Whether the broker takes no messages at present.
    #[must_use]
    pub fn is_publisher_blocked(&self) -> bool {
        self.publisher_blocked.load(Ordering::Relaxed)
    }

    /// How many messages of a side's queue the broker has given up by itself; nothing if it cannot be asked.
    pub fn dropped_by_broker(&self, side: BrokerSide, messages: Option<u32>) {
        let noted = messages.map_or(0, |messages| u64::from(messages).saturating_add(1));
        let [of_jobs, of_feed] = &self.dropped;
        match side {
            BrokerSide::Consumer => of_jobs.store(noted, Ordering::Relaxed),
            BrokerSide::Feed => of_feed.store(noted, Ordering::Relaxed),
            BrokerSide::Publisher => {}
        }
    }

    /// The same of both queues, as it was last told.
    #[must_use]
    pub fn dropped(&self) -> Option<u64> {
        let [of_jobs, of_feed] =
            self.dropped.each_ref().map(|noted| noted.load(Ordering::Relaxed).checked_sub(1));
        Some(of_jobs?.saturating_add(of_feed.unwrap_or(0)))
    }

    /// The writer begins a batch.
    #[must_use]
    pub fn batch_begins(&self) -> BatchAtWork<'_> {
        self.set_batch_begun(Some(Instant::now()));
        BatchAtWork(self)
    }

    fn set_batch_begun(&self, begun: Option<Instant>) {
        *self.batch_begun.lock().unwrap_or_else(PoisonError::into_inner) = begun;
    }

    /// How long the writer has been at its batch.
    #[must_use]
    pub fn batch_age(&self) -> Duration {
        let begun = *self.batch_begun.lock().unwrap_or_else(PoisonError::into_inner);
        begun.map_or(Duration::ZERO, |begun| begun.elapsed())
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
    /// Whether records are read before they are decided.
    pub verifies: bool,
    /// What the parts say of themselves.
    pub health: Arc<Health>,
    /// The book.
    pub readers: Readers,
    /// What may be asked of OES.
    pub budget: Arc<Budget>,
    /// Why nothing may be signed, if so.
    pub signer_fault: Option<String>,
    /// What operators have switched off.
    pub switches: SwitchBoard,
    /// Whether the book is far enough for decisions.
    pub gate: GateBoard,
    /// How long a part may be at one thing before it counts as stuck.
    pub stuck_after: Duration,
    /// The loops.
    pub wake: Wake,
    /// Where the daemon writes.
    pub volumes: Volumes,
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
            self.writer(),
            Part::new(
                "consumer",
                self.health.is_broker_connected(BrokerSide::Consumer),
                "not connected to the broker",
            ),
            self.publisher(),
            self.feed(),
            self.book_gate(),
            Part::new(
                "signer",
                self.signer_fault.is_none(),
                self.signer_fault.as_deref().unwrap_or_default(),
            ),
            self.sender(),
            self.switched(),
        ];
        Readiness { ready: parts.iter().all(|part| part.ready), parts }
    }

    /// Whether the process still does its work; otherwise which part does not. Only a start from new helps
    /// then: what waits for somebody else, such as OES, the broker or an operator, is not stuck.
    #[must_use]
    pub fn stuck(&self) -> Option<String> {
        if !self.health.is_alive() {
            return Some("the writer has ended".to_owned());
        }
        let loops = self.wake.pulses().map(|(name, pulse)| (name, pulse.busy_for()));
        let others = [
            ("receiver", self.health.receiver_pulse.busy_for()),
            ("feed", self.health.feed_pulse.busy_for()),
            ("writer", self.health.batch_age()),
            // Every call has a time limit, so an update that is in flight for longer never comes back.
            ("sender", self.budget.in_flight_for()),
        ];
        let stuck = loops.into_iter().chain(others).find(|(_, busy)| *busy > self.stuck_after);
        stuck.map(|(name, busy)| format!("the {name} is at one thing for {} s", busy.as_secs()))
    }

    fn writer(&self) -> Part {
        let age = self.health.batch_age();
        if age > BATCH_PATIENCE {
            let stuck = format!(
                "at one batch for {} s: does another program hold the database, or is the disk stuck?",
                age.as_secs()
            );
            return Part::new("writer", false, &stuck);
        }
        Part::new("writer", self.health.is_alive(), "the writer has ended")
    }

    fn publisher(&self) -> Part {
        if self.health.is_publisher_blocked() {
            return Part::new("publisher", false, "blocked by the broker: memory or disk alarm");
        }
        let connected = self.health.is_broker_connected(BrokerSide::Publisher);
        Part::new("publisher", connected, "not connected to the broker")
    }

    fn feed(&self) -> Part {
        if !self.gate.look(self.clock.now()).is_fed {
            return Part { name: "feed", ready: true, detail: "not configured".to_owned() };
        }
        let connected = self.health.is_broker_connected(BrokerSide::Feed);
        Part::new("feed", connected, "not connected to the broker, or not alone on its queue")
    }

    /// Whether the book is far enough for decisions.
    fn book_gate(&self) -> Part {
        match self.gate.look(self.clock.now()).shut {
            None => Part::new("decisions", true, ""),
            Some(shut) => Part::new("decisions", false, &format!("nothing is decided: {shut}")),
        }
    }

    /// What an operator has switched off is not ready, so that nobody forgets it.
    fn switched(&self) -> Part {
        let off: Vec<&str> = self.switches.now().off().map(Switch::while_off).collect();
        let said =
            format!("{}: `settled switch` says who switched it off, and why", off.join("; "));
        Part::new("switches", off.is_empty(), &said)
    }

    fn sender(&self) -> Part {
        if self.signer_fault.is_some() {
            return Part::new("sender", false, "nothing is sent, because nothing may be signed");
        }
        match self.budget.permission() {
            Permission::Open => Part::new("sender", true, ""),
            Permission::PausedUntil(until) => Part {
                name: "sender",
                // A short pause for the rate limit is no reason to restart anything.
                ready: until.since(self.clock.now()) <= PAUSE_PATIENCE,
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
        if self.signer_fault.is_some() {
            return Some("signer");
        }
        match self.budget.permission() {
            Permission::Open => None,
            Permission::PausedUntil(_) => Some("rate_limited"),
            Permission::Stopped(cause, _) => Some(cause.as_str()),
        }
    }
}
