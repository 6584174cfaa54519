//! How much may be asked of OES: in flight, in a window, and at all.
//!
//! A permit is taken before an attempt is prepared, so that what is prepared is sent at once, the
//! backlog stays in the database, and memory stays bounded.

use std::{
    num::NonZeroU32,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter, clock::Clock as _};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::{
    clock::Clock,
    config::OesConfig,
    domain::{
        gate::{Gate, Permission, StopCause, Suspicion},
        ids::RecordId,
        schedule::Schedule,
        time::TimestampMs,
    },
    health::pulse::{Piece, Pieces},
    metrics::Metrics,
    oes::Operation,
};

/// First delay before a stopped sender tries again.
const TRIAL_BASE: Duration = Duration::from_secs(5);
/// Longest delay before a stopped sender tries again.
const TRIAL_MAX: Duration = Duration::from_secs(300);
/// Longest rest before a closed gate is looked at again: somebody else may have opened it.
const GATE_REST_MAX: Duration = Duration::from_secs(1);

/// The right to send one update. In flight until it is dropped.
#[derive(Debug)]
pub struct SendPermit {
    _in_flight: OwnedSemaphorePermit,
    _piece: Piece,
}

/// The budget, shared by everything that asks OES.
#[derive(Debug)]
pub struct Budget {
    in_flight: Arc<Semaphore>,
    /// Since when each update is in flight.
    flights: Arc<Pieces>,
    rate: DefaultDirectRateLimiter,
    /// Whoever waits for the rate stands in line here, in the order of coming.
    line: tokio::sync::Mutex<()>,
    gate: Mutex<Gate>,
    gate_moved: Notify,
    clock: Arc<dyn Clock>,
    metrics: Option<Arc<Metrics>>,
}

impl Budget {
    /// The budget as configured.
    #[must_use]
    pub fn new(config: &OesConfig, clock: Arc<dyn Clock>) -> Self {
        Self {
            in_flight: Arc::new(Semaphore::new(config.in_flight_max)),
            flights: Arc::default(),
            rate: RateLimiter::direct(quota(config)),
            line: tokio::sync::Mutex::default(),
            gate: Mutex::new(Gate::new(Schedule::new(TRIAL_BASE, TRIAL_MAX))),
            gate_moved: Notify::new(),
            clock,
            metrics: None,
        }
    }

    /// The same budget with its waits counted.
    #[must_use]
    pub fn counted_by(self, metrics: Arc<Metrics>) -> Self {
        Self { metrics: Some(metrics), ..self }
    }

    fn gate(&self) -> MutexGuard<'_, Gate> {
        // The gate holds no invariant that a panic elsewhere could have broken half-way.
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What may be done now.
    #[must_use]
    pub fn permission(&self) -> Permission {
        self.gate().permission(self.clock.now())
    }

    /// Whether 403s are about the token rather than about their records.
    #[must_use]
    pub fn suspicion(&self) -> Suspicion {
        self.gate().suspicion()
    }

    /// A permit, if one is to be had without waiting.
    #[must_use]
    pub fn try_send_permit(&self) -> Option<SendPermit> {
        if self.permission() != Permission::Open {
            return None;
        }
        let in_flight = Arc::clone(&self.in_flight).try_acquire_owned().ok()?;
        self.rate.check().ok()?;
        Some(self.permit(in_flight))
    }

    fn permit(&self, in_flight: OwnedSemaphorePermit) -> SendPermit {
        SendPermit { _in_flight: in_flight, _piece: self.flights.begin() }
    }

    /// How long the oldest update has been in flight, from its permit to its answer.
    #[must_use]
    pub fn in_flight_for(&self) -> Duration {
        self.flights.busy_for()
    }

    /// At least one permit and at most `most`, as many as there are; one when a stopped sender
    /// tries whether updates are taken again. Waits until there is one.
    pub async fn send_permits(&self, most: usize) -> Vec<SendPermit> {
        loop {
            let trial = self.wait_for_gate(StopCause::UpdatesForbidden).await;
            // The semaphore is never closed.
            let Ok(in_flight) = Arc::clone(&self.in_flight).acquire_owned().await else {
                return Vec::new();
            };
            self.wait_for_rate(Operation::Update).await;
            // The gate may have closed while this waited.
            if !trial && self.permission() != Permission::Open {
                continue;
            }
            let mut permits = vec![self.permit(in_flight)];
            while !trial && permits.len() < most {
                let Some(permit) = self.try_send_permit() else {
                    break;
                };
                permits.push(permit);
            }
            return permits;
        }
    }

    /// Waits until a read may be sent; with a refused token, until one trial read is due.
    pub async fn wait_for_read(&self) {
        loop {
            let trial = self.wait_for_gate(StopCause::TokenRefused).await;
            self.wait_for_rate(Operation::Read).await;
            // OES may have asked for a pause while this waited.
            if trial || !matches!(self.permission(), Permission::PausedUntil(_)) {
                return;
            }
        }
    }

    /// Waits until the gate is open, or a trial for `trial_cause` is due and taken. Reads pass a gate
    /// that is stopped for updates.
    async fn wait_for_gate(&self, trial_cause: StopCause) -> bool {
        loop {
            // Registered before looking, so that an opening in between is not missed.
            let moved = self.gate_moved.notified();
            let now = self.clock.now();
            let until = match self.permission() {
                Permission::Open => return false,
                Permission::Stopped(StopCause::UpdatesForbidden, _)
                    if trial_cause == StopCause::TokenRefused =>
                {
                    return false;
                }
                Permission::Stopped(cause, _) if cause != trial_cause => now.after(GATE_REST_MAX),
                Permission::Stopped(cause, trial_at) => {
                    if self.gate().take_trial(now, cause) {
                        return true;
                    }
                    trial_at
                }
                Permission::PausedUntil(until) => until,
            };
            let rest = until.since(now).clamp(Duration::from_millis(1), GATE_REST_MAX);
            tokio::select! {
                () = moved => {}
                () = tokio::time::sleep(rest) => {}
            }
        }
    }

    async fn wait_for_rate(&self, operation: Operation) {
        let (begun, mut waited) = (Instant::now(), false);
        // Updates, reads before a decision, read-backs and comparisons take turns: none holds up another.
        let _turn = if let Ok(turn) = self.line.try_lock() {
            turn
        } else {
            waited = true;
            self.line.lock().await
        };
        while let Err(not_until) = self.rate.check() {
            waited = true;
            tokio::time::sleep(not_until.wait_time_from(self.rate.clock().now())).await;
        }
        if let Some(metrics) = self.metrics.as_ref().filter(|_| waited) {
            metrics.rate_limit_waited(operation, begun.elapsed());
        }
    }

    /// An update was answered, and neither with 401 nor with 403 nor with 429.
    pub fn update_answered(&self) {
        if self.gate().update_answered() {
            self.gate_moved.notify_waiters();
            tracing::info!("OES takes updates again: sending resumes");
        }
    }

    /// A read was answered.
    pub fn read_answered(&self) {
        if self.gate().read_answered() {
            self.gate_moved.notify_waiters();
            tracing::info!("OES takes the token again: sending resumes");
        }
    }

    /// OES refused the token.
    pub fn token_refused(&self) {
        let now = self.clock.now();
        if self.gate().token_refused(now) {
            tracing::error!(
                "OES refused the access token: nothing is sent until it takes it again. Check \
                 oes.access_token_file, which is read again before each trial, and whether the \
                 token's IP addresses include this machine"
            );
        }
    }

    /// OES refused to let one record be updated.
    pub fn update_forbidden(&self, record: RecordId) {
        let now = self.clock.now();
        if self.gate().update_forbidden(now, record) {
            tracing::error!(
                %record,
                "OES refused the updates of several records with 403: nothing is sent but one trial \
                 per back-off. Check that the token has the scope settlement_network_write"
            );
        }
    }

    /// OES asked to be left alone.
    pub fn rate_limited(&self, retry_at: Option<TimestampMs>) {
        let now = self.clock.now();
        let until = self.gate().rate_limited(now, retry_at);
        tracing::warn!(%until, "OES limits the rate of requests: everything waits");
    }
}

/// A bucket that never lets more than `rate_limit` requests into any window: the burst may go at
/// once, and what is left of the limit refills it over the window.
fn quota(config: &OesConfig) -> Quota {
    let refills = config.rate_limit.saturating_sub(config.rate_burst).max(1);
    let period = Duration::from_secs(config.rate_window_s).div_f64(f64::from(refills));
    let burst = NonZeroU32::new(config.rate_burst).unwrap_or(NonZeroU32::MIN);
    Quota::with_period(period.max(Duration::from_nanos(1)))
        .unwrap_or_else(|| Quota::per_second(NonZeroU32::MIN))
        .allow_burst(burst)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;

    fn budget(config: &OesConfig) -> Budget {
        Budget::new(config, Arc::new(SystemClock))
    }

    #[test]
    fn a_burst_goes_at_once_and_no_more() {
        let budget = budget(&OesConfig {
            rate_limit: 13,
            rate_burst: 10,
            rate_window_s: 3_600,
            in_flight_max: 100,
            ..OesConfig::default()
        });
        let permits: Vec<_> = std::iter::from_fn(|| budget.try_send_permit()).take(50).collect();
        assert_eq!(permits.len(), 10);
    }

    #[test]
    fn no_more_than_the_bound_is_in_flight_and_refusing_costs_no_rate() {
        let budget = budget(&OesConfig {
            rate_limit: 3_600,
            rate_burst: 4,
            rate_window_s: 3_600,
            in_flight_max: 2,
            ..OesConfig::default()
        });
        let held: Vec<_> = std::iter::from_fn(|| budget.try_send_permit()).take(10).collect();
        assert_eq!(held.len(), 2);
        assert!((0..100).all(|_| budget.try_send_permit().is_none()));
        drop(held);
        assert!(budget.try_send_permit().is_some() && budget.try_send_permit().is_some());
    }

    #[tokio::test]
    async fn a_refused_token_stops_updates_and_lets_one_read_try() {
        let budget = budget(&OesConfig { rate_limit: 100_000, ..OesConfig::default() });
        budget.token_refused();
        assert!(budget.try_send_permit().is_none());
        let waiting = tokio::time::timeout(Duration::from_millis(20), budget.send_permits(1));
        assert!(waiting.await.is_err(), "updates wait");
        budget.read_answered();
        assert!(budget.try_send_permit().is_some());
    }
}
