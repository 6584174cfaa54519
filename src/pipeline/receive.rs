//! Receive: deliveries become commands, and are acknowledged once those are committed.
//!
//! Jobs and what the exchange feeds come over a [`Lane`] each: sessions, bounds and manners are the same,
//! what a delivery means is not.

mod feed;
mod jobs;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{FutureExt as _, StreamExt as _, stream::FuturesOrdered};
use tokio_util::sync::CancellationToken;

use super::record::bad_message;
use crate::{
    broker::{self, BrokerError, ConsumerSession, Consuming, Delivery},
    config::BrokerConfig,
    domain::{action::Switch, message::Refusal},
    health::{BrokerSide, Health, pulse::Pulse},
    metrics::Metrics,
    writer::{WriterGone, WriterHandle},
};

pub use feed::FeedLane;
pub use jobs::JobsLane;

/// What is unacknowledged until one commit has succeeded: a message that brings the process down
/// brings it down alone.
const CAUTIOUS_PREFETCH: u16 = 1;

/// How long a session must last for its end not to count as one more failure in a row.
const SESSION_LASTED: Duration = Duration::from_secs(30);

/// What is consumed, and what its deliveries mean.
pub trait Lane: Send + Sync {
    /// Whose connection it is.
    const SIDE: BrokerSide;

    /// How its queue is consumed.
    fn consuming(&self, prefetch: u16) -> Consuming<'_>;

    /// The pulse of its loop.
    fn pulse<'h>(&self, health: &'h Health) -> &'h Pulse;

    /// What an operator can switch it off with, if anything.
    fn switch(&self) -> Option<Switch>;

    /// Sends one delivery on its way. The answer is awaited elsewhere, so that others can follow.
    fn take(&self, delivery: Delivery) -> impl Future<Output = Pending> + Send;

    /// A session is open; so many messages were in the queue before.
    fn connected(&self, backlog: u32);

    /// So many deliveries are committed.
    fn committed(&self, deliveries: u64);

    /// The session is over.
    fn disconnected(&self);
}

/// Takes deliveries of a lane, session after session.
pub struct Receiver<L> {
    /// What is consumed.
    pub lane: L,
    /// The broker.
    pub config: BrokerConfig,
    /// What operators have switched off.
    pub writer: WriterHandle,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// What is said of the connection.
    pub health: Arc<Health>,
}

/// What outlasts a session.
#[derive(Debug, Default)]
struct Course {
    /// Whether something was committed, so that messages are taken at full width.
    committed_once: bool,
    /// Whether the session at hand has taken a delivery.
    has_taken: bool,
    /// How many sessions in a row could not be opened, or ended without having been of use.
    failures: u32,
}

impl Course {
    /// A session could not be opened, or has ended after `lasted`. A queue that ends its consumers at
    /// once must not be asked again and again without pause, so opening alone is no success.
    fn lost(&mut self, lasted: Duration) {
        if self.has_taken || lasted >= SESSION_LASTED {
            self.failures = 0;
        }
        self.has_taken = false;
        self.failures = self.failures.saturating_add(1);
    }
}

/// Why a session ended.
enum SessionEnd {
    Stopped,
    SwitchedOff,
    WriterGone,
    Lost(BrokerError),
}

impl From<BrokerError> for SessionEnd {
    fn from(error: BrokerError) -> Self {
        Self::Lost(error)
    }
}

/// What a session has to do next.
enum Turn {
    /// A delivery has come.
    Came(Delivery),
    /// Something is committed for the first of those before.
    Done(Result<u64, WriterGone>),
    /// It is time to look whether the session still works.
    Look,
}

/// A delivery on its way through the writer: its tag, once something is committed for it.
pub type Pending = std::pin::Pin<Box<dyn Future<Output = Result<u64, WriterGone>> + Send>>;

impl<L: Lane> Receiver<L> {
    /// Receives until the daemon ends.
    pub async fn run(self, stop: CancellationToken) {
        let schedule = self.config.reconnect_schedule();
        let mut course = Course::default();
        let switches = self.writer.switches();
        while !stop.is_cancelled() {
            if let Some(switch) = self.lane.switch()
                && !switches.is_on(switch)
            {
                let _resting = self.pulse().rest();
                tokio::select! {
                    () = stop.cancelled() => break,
                    () = switches.until(switch, true) => {}
                }
            }
            self.pulse().beat();
            let began = Instant::now();
            let opened = tokio::select! {
                () = stop.cancelled() => break,
                opened = self.open(&course) => opened,
            };
            let end = match opened {
                Ok(session) => self.session(session, &mut course, &stop).await,
                Err(error) => SessionEnd::Lost(error),
            };
            self.health.broker_connected(L::SIDE, false);
            self.lane.disconnected();
            self.pulse().beat();
            match end {
                SessionEnd::Stopped | SessionEnd::WriterGone => break,
                SessionEnd::SwitchedOff => {
                    tracing::warn!(queue = self.queue(), "an operator switched intake off");
                }
                SessionEnd::Lost(error) => {
                    self.metrics.session_lost(L::SIDE);
                    course.lost(began.elapsed());
                    let delay = schedule.delay(course.failures);
                    tracing::warn!(%error, queue = self.queue(), ?delay, "the consumer's session is over; a new one is opened");
                    tokio::select! {
                        () = stop.cancelled() => break,
                        () = self.recover(&error, delay) => {}
                    }
                }
            }
        }
        self.pulse().ended();
    }

    fn pulse(&self) -> &Pulse {
        self.lane.pulse(&self.health)
    }

    fn queue(&self) -> &str {
        self.lane.consuming(CAUTIOUS_PREFETCH).queue
    }

    async fn open(&self, course: &Course) -> Result<ConsumerSession, BrokerError> {
        let prefetch = if course.committed_once { self.config.prefetch } else { CAUTIOUS_PREFETCH };
        let how = self.lane.consuming(prefetch);
        let session = ConsumerSession::open(&self.config, &how).await?;
        self.lane.connected(session.backlog());
        self.health.broker_connected(L::SIDE, true);
        tracing::info!(queue = how.queue, prefetch, backlog = session.backlog(), "consuming");
        Ok(session)
    }

    /// Waits, and declares a queue that is gone if the daemon is the one to declare it.
    async fn recover(&self, error: &BrokerError, delay: Duration) {
        let resting = self.pulse().rest();
        tokio::time::sleep(delay).await;
        drop(resting);
        if !matches!(error, BrokerError::Missing { .. }) || !self.config.declare {
            return;
        }
        match broker::connect_and_declare(&self.config).await {
            Ok(_) => tracing::warn!(
                queue = self.queue(),
                "the queue was gone and is declared again; what was in it is lost to the daemon"
            ),
            Err(error) => tracing::error!(%error, "the queue is gone and cannot be declared again"),
        }
    }

    async fn session(
        &self,
        mut session: ConsumerSession,
        course: &mut Course,
        stop: &CancellationToken,
    ) -> SessionEnd {
        let mut pending: FuturesOrdered<Pending> = FuturesOrdered::new();
        let end = match self.consume(&mut session, &mut pending, course, stop).await {
            Ok(()) => SessionEnd::Stopped,
            Err(end) => end,
        };
        if matches!(end, SessionEnd::Stopped | SessionEnd::SwitchedOff) {
            // No more deliveries; what has been delivered is finished and acknowledged.
            if let Err(error) = self.drain(&session, &mut pending).await {
                tracing::warn!(%error, "some deliveries were not acknowledged and will come again");
            }
            session.close().await;
        }
        end
    }

    async fn consume(
        &self,
        session: &mut ConsumerSession,
        pending: &mut FuturesOrdered<Pending>,
        course: &mut Course,
        stop: &CancellationToken,
    ) -> Result<(), SessionEnd> {
        let switches = self.writer.switches();
        let switched_off = async {
            match self.lane.switch() {
                Some(switch) => switches.until(switch, false).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(switched_off);
        let dropped = BrokerConfig::dropped_queue(self.queue());
        let mut watchdog = tokio::time::interval(Duration::from_secs(self.config.watchdog_s));
        watchdog.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            // Nothing may come for any time; whether it would, the watchdog looks.
            let resting = self.pulse().rest();
            let turn = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = &mut switched_off => return Err(SessionEnd::SwitchedOff),
                delivery = session.next() => Turn::Came(delivery?),
                Some(done) = pending.next() => Turn::Done(done),
                _ = watchdog.tick() => Turn::Look,
            };
            drop(resting);
            match turn {
                Turn::Came(delivery) => {
                    course.has_taken = true;
                    pending.push_back(self.lane.take(delivery).await);
                }
                Turn::Done(done) => {
                    let tag = self.last_done(done, pending)?;
                    if course.committed_once {
                        session.acknowledge_up_to(tag).await?;
                    } else {
                        course.committed_once = true;
                        self.widen(session, tag).await?;
                    }
                }
                Turn::Look => {
                    session.check().await?;
                    self.health.dropped_by_broker(L::SIDE, session.count(&dropped).await?);
                }
            }
        }
    }

    /// After the first commit: acknowledges it, and consumes with the configured prefetch.
    async fn widen(&self, session: &mut ConsumerSession, tag: u64) -> Result<(), BrokerError> {
        // Cancelled before the acknowledgement: while the one message that may be unacknowledged is,
        // no other can be on its way to the consumer that ends here.
        session.cancel().await?;
        session.acknowledge_up_to(tag).await?;
        session.resume(self.config.prefetch).await?;
        tracing::info!(
            queue = self.queue(),
            prefetch = self.config.prefetch,
            "the first commit succeeded: consuming at full width"
        );
        Ok(())
    }

    async fn drain(
        &self,
        session: &ConsumerSession,
        pending: &mut FuturesOrdered<Pending>,
    ) -> Result<(), BrokerError> {
        session.cancel().await?;
        while let Some(done) = pending.next().await {
            let Ok(tag) = self.last_done(done, pending) else {
                return Ok(());
            };
            session.acknowledge_up_to(tag).await?;
        }
        Ok(())
    }

    /// The tag of the last delivery that is done without a gap, so that one acknowledgement does for all.
    fn last_done(
        &self,
        first: Result<u64, WriterGone>,
        pending: &mut FuturesOrdered<Pending>,
    ) -> Result<u64, SessionEnd> {
        let mut last = first.map_err(|WriterGone| SessionEnd::WriterGone)?;
        let mut deliveries: u64 = 1;
        while let Some(Some(done)) = pending.next().now_or_never() {
            last = done.map_err(|WriterGone| SessionEnd::WriterGone)?;
            deliveries = deliveries.saturating_add(1);
        }
        self.lane.committed(deliveries);
        Ok(last)
    }
}

/// Puts a bad message away.
async fn quarantine(
    writer: &WriterHandle,
    metrics: &Metrics,
    queue: &str,
    body: Vec<u8>,
    refusal: Refusal,
) -> Result<(), WriterGone> {
    let code = refusal.code;
    let message = bad_message(queue, body, refusal);
    let sha256 = hex::encode(message.sha256);
    tracing::warn!(
        queue,
        sha256,
        code = code.as_str(),
        detail = message.refusal.detail,
        "a message is quarantined"
    );
    writer.quarantine(message).await?.await.map_err(|_| WriterGone)?;
    metrics.refused(code);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_that_open_and_end_at_once_are_failures_in_a_row() {
        let mut course = Course::default();
        for failures in 1..=5 {
            course.lost(Duration::from_millis(3));
            assert_eq!(course.failures, failures);
        }
        course.has_taken = true;
        course.lost(Duration::from_millis(3));
        assert_eq!(course.failures, 1, "it was of use");
        course.lost(Duration::from_millis(3));
        assert_eq!(course.failures, 2, "the next one was not");
        course.lost(SESSION_LASTED);
        assert_eq!(course.failures, 1, "it lasted");
    }
}
