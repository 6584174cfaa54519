//! The gate before decisions, for everybody who minds it: `domain::lag` with a lock around it.

use std::sync::{Arc, Mutex, PoisonError};

use crate::domain::{
    lag::{BookGate, GateView},
    time::TimestampMs,
};

/// The gate. What consumes the feed moves it, the writer and the loop that decides look at it.
#[derive(Clone, Debug)]
pub struct GateBoard {
    gate: Arc<Mutex<BookGate>>,
}

impl GateBoard {
    /// A board with this gate.
    #[must_use]
    pub fn new(gate: BookGate) -> Self {
        Self { gate: Arc::new(Mutex::new(gate)) }
    }

    /// A board with the gate that nothing is asked of.
    #[must_use]
    pub fn without_feed() -> Self {
        Self::new(BookGate::without_feed())
    }

    /// The gate as it is now.
    #[must_use]
    pub fn look(&self, now: TimestampMs) -> GateView {
        self.with(|gate| gate.look(now))
    }

    /// Changes the gate.
    pub fn with<T>(&self, change: impl FnOnce(&mut BookGate) -> T) -> T {
        change(&mut self.gate.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
