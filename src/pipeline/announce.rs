//! Announce: what the outbox holds goes to the broker, and is marked once the broker has it.
//!
//! A message may be published more than once, always with the same id; it is never lost.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

use super::wake::{Rested, Wake, rest};
use crate::{
    broker::{BrokerError, Outgoing, PublishOutcome, PublisherSession},
    clock::Clock,
    config::BrokerConfig,
    crash,
    domain::{
        announcement,
        ids::{OutboxSeq, RecordId},
        time::TimestampMs,
    },
    health::{BrokerSide, Health},
    metrics::Metrics,
    store::{
        Readers, StoreError,
        query::{OutboxContent, OutboxMessage},
    },
    traces::{Step, Traces},
    writer::{WriterGone, WriterHandle},
};

/// Most messages that are published together.
const PUBLISH_MAX: usize = 256;

/// How long a message that no queue is bound for, or that was refused, waits for its next try. A broker that
/// has just come back refuses for a while, and what it refused must not wait much longer than that.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// Most messages that wait for another try. Beyond that everything waits for a queue to be bound.
const SET_ASIDE_MAX: usize = 4_096;

/// Publishes from the outbox, session after session.
pub struct Announcer {
    /// The broker.
    pub config: BrokerConfig,
    /// The book.
    pub readers: Readers,
    /// Who marks what is published.
    pub writer: WriterHandle,
    /// The bells.
    pub wake: Wake,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Where steps are told.
    pub traces: Traces,
    /// What is said of the connection.
    pub health: Arc<Health>,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

/// What has become of messages that this process has read from the outbox.
#[derive(Debug)]
struct Progress {
    /// Everything up to here was read.
    cursor: OutboxSeq,
    /// Not taken by the broker, with the time of the next try.
    set_aside: BTreeMap<OutboxSeq, TimestampMs>,
    /// How many messages are still to be published one by one, because together with another they
    /// ended a session.
    one_by_one: usize,
    /// Whether the session has published something or has rested.
    session_worked: bool,
}

impl Progress {
    fn from_the_start() -> Self {
        Self {
            cursor: OutboxSeq::from(0),
            set_aside: BTreeMap::new(),
            one_by_one: 0,
            session_worked: false,
        }
    }

    /// A session has ended while it published these. A broker ends a session over a single message, for
    /// example if its exchange is missing; the others must not wait for that.
    fn ended_publishing(&mut self, messages: &[OutboxSeq], now: TimestampMs) {
        match messages {
            [alone] => {
                self.cursor = self.cursor.max(*alone);
                self.set_aside.insert(*alone, now.after(TRY_AGAIN_AFTER));
                self.one_by_one = self.one_by_one.saturating_sub(1);
            }
            together => self.one_by_one = together.len(),
        }
    }

    fn next_try(&self) -> Option<TimestampMs> {
        self.set_aside.values().min().copied()
    }
}

/// Why a session ended.
enum SessionEnd {
    Stopped,
    Lost(BrokerError),
}

impl Announcer {
    /// Publishes until the daemon ends.
    ///
    /// # Errors
    /// [`StoreError`] when the book cannot be read.
    pub async fn run(self, stop: CancellationToken) -> Result<(), StoreError> {
        let schedule = self.config.reconnect_schedule();
        let mut failures: u32 = 0;
        let mut progress = Progress::from_the_start();
        while !stop.is_cancelled() {
            self.wake.announce.pulse.beat();
            let opened = tokio::select! {
                () = stop.cancelled() => break,
                opened = PublisherSession::open(&self.config) => opened,
            };
            let end = match opened {
                Ok(session) => {
                    self.health.broker_connected(BrokerSide::Publisher, true);
                    progress.session_worked = false;
                    let end = tokio::select! {
                        end = self.session(&session, &mut progress, &stop) => end?,
                        // Nothing can be published while the broker blocks, so the end does not wait
                        // for that: the outbox keeps what is left.
                        () = self.watch_blocked(&session, &stop) => SessionEnd::Stopped,
                    };
                    self.health.publisher_blocked(false);
                    if matches!(end, SessionEnd::Stopped) {
                        session.close().await;
                    }
                    // A session that ends before it has done anything counts as one that failed.
                    if progress.session_worked {
                        failures = 0;
                    }
                    end
                }
                Err(error) => SessionEnd::Lost(error),
            };
            self.health.broker_connected(BrokerSide::Publisher, false);
            match end {
                SessionEnd::Stopped => break,
                SessionEnd::Lost(error) => {
                    self.metrics.session_lost(BrokerSide::Publisher);
                    failures = failures.saturating_add(1);
                    let delay = schedule.delay(failures);
                    tracing::warn!(%error, ?delay, "the publisher's session is over; a new one is opened");
                    let _resting = self.wake.announce.pulse.rest();
                    tokio::select! {
                        () = stop.cancelled() => break,
                        () = tokio::time::sleep(delay) => {}
                    }
                }
            }
        }
        Ok(())
    }

    async fn session(
        &self,
        session: &PublisherSession,
        progress: &mut Progress,
        stop: &CancellationToken,
    ) -> Result<SessionEnd, StoreError> {
        loop {
            self.wake.announce.pulse.beat();
            // Asked before messages are tried: what ended the session is none of them.
            if !session.is_open() {
                let closed = BrokerError::lost("publishing", "the connection is closed");
                return Ok(SessionEnd::Lost(closed));
            }
            let messages = self.next_messages(progress).await?;
            if messages.is_empty() {
                let due = progress.next_try();
                // Asked to end, it ends here: when nothing is left to be published.
                let rested = if stop.is_cancelled() {
                    Rested::Stop
                } else {
                    tokio::select! {
                        rested = rest(&self.wake.announce, due, self.clock.as_ref(), stop) => rested,
                        () = session.closed() => continue,
                    }
                };
                if rested == Rested::Stop {
                    if self.next_messages(progress).await?.is_empty() {
                        return Ok(SessionEnd::Stopped);
                    }
                    continue;
                }
                progress.session_worked = true;
                continue;
            }
            // A publish that has begun is finished, so that what the broker has is marked.
            let seqs: Vec<OutboxSeq> = messages.iter().map(|message| message.seq).collect();
            match self.publish(session, messages, progress).await {
                Ok(Ok(())) => {
                    progress.session_worked = true;
                    progress.one_by_one = progress.one_by_one.saturating_sub(seqs.len());
                }
                Ok(Err(WriterGone)) => return Ok(SessionEnd::Stopped),
                Err(error) => {
                    progress.ended_publishing(&seqs, self.clock.now());
                    return Ok(SessionEnd::Lost(error));
                }
            }
        }
    }

    /// Says whether the broker blocks the session. Ends when it does and the daemon is asked to end.
    async fn watch_blocked(&self, session: &PublisherSession, stop: &CancellationToken) {
        let tell = |blocked| {
            if blocked {
                // Waiting for the broker to have room is no fault of ours.
                self.wake.announce.pulse.beat();
            }
            match (self.health.publisher_blocked(blocked), blocked) {
                (false, true) => tracing::error!(
                    "the broker takes no messages, because it is short of memory or disk: outcomes wait"
                ),
                (true, false) => tracing::info!("the broker takes messages again"),
                (false, false) | (true, true) => {}
            }
            if blocked && stop.is_cancelled() {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        };
        session.watch_blocked(tell).await;
    }

    /// New messages, and those that were set aside and are due again.
    async fn next_messages(
        &self,
        progress: &mut Progress,
    ) -> Result<Vec<OutboxMessage>, StoreError> {
        let now = self.clock.now();
        let most = if progress.one_by_one > 0 { 1 } else { PUBLISH_MAX };
        let due: BTreeSet<OutboxSeq> = progress
            .set_aside
            .iter()
            .filter(|(_, due)| **due <= now)
            .map(|(seq, _)| *seq)
            .take(most)
            .collect();
        if let Some(first) = due.first() {
            // They are unpublished, so they are found from just before the first of them on.
            let before = OutboxSeq::from(first.get().saturating_sub(1));
            let found = self.readers.unpublished(before, SET_ASIDE_MAX).await?;
            let again: Vec<_> =
                found.into_iter().filter(|message| due.contains(&message.seq)).collect();
            if !again.is_empty() {
                return Ok(again);
            }
            progress.set_aside.retain(|seq, _| !due.contains(seq));
        }
        if progress.set_aside.len() >= SET_ASIDE_MAX {
            return Ok(Vec::new());
        }
        self.readers.unpublished(progress.cursor, most).await
    }

    async fn publish(
        &self,
        session: &PublisherSession,
        messages: Vec<OutboxMessage>,
        progress: &mut Progress,
    ) -> Result<Result<(), WriterGone>, BrokerError> {
        let now = self.clock.now();
        let about = self.records_of(&messages);
        let begun = Instant::now();
        let sequence: Vec<(OutboxSeq, &'static str, String)> = messages
            .iter()
            .map(|message| (message.seq, kind(message), message.event_id.to_string()))
            .collect();
        let outgoing = messages.into_iter().map(|message| self.outgoing(message, now)).collect();
        crash::point("before_publish");
        crash::stall("announcer").await;
        let outcomes = session.publish(outgoing).await?;
        crash::point("after_publish");
        let mut confirmed = Vec::with_capacity(sequence.len());
        let mut refused: Vec<(String, PublishOutcome)> = Vec::new();
        for ((seq, kind, event_id), outcome) in sequence.into_iter().zip(outcomes) {
            progress.cursor = progress.cursor.max(seq);
            match outcome {
                PublishOutcome::Confirmed => {
                    progress.set_aside.remove(&seq);
                    self.metrics.published(kind);
                    if let Some(record) = about.get(&seq) {
                        self.traces.tell(*record, Step::Announced, begun);
                    }
                    confirmed.push(seq);
                }
                PublishOutcome::Unroutable | PublishOutcome::Refused => {
                    self.metrics.publish_refused();
                    progress.set_aside.insert(seq, now.after(TRY_AGAIN_AFTER));
                    refused.push((event_id, outcome));
                }
            }
        }
        if let Some((first_event, outcome)) = refused.first() {
            tracing::error!(
                messages = refused.len(),
                first_event,
                ?outcome,
                "the broker did not take messages: they are tried again. Is a queue bound for them?"
            );
        }
        Ok(if confirmed.is_empty() { Ok(()) } else { self.writer.published(confirmed).await })
    }

    /// Which outcomes are about which record, if anybody wants to know.
    fn records_of(&self, messages: &[OutboxMessage]) -> BTreeMap<OutboxSeq, RecordId> {
        if !self.traces.is_on() {
            return BTreeMap::new();
        }
        let record = |message: &OutboxMessage| Some((message.seq, record_of(message)?));
        messages.iter().filter_map(record).collect()
    }

    fn outgoing(&self, message: OutboxMessage, now: TimestampMs) -> Outgoing {
        let record = || record_of(&message).map(tracing::field::display);
        let _span = tracing::debug_span!("announce", record = record()).entered();
        tracing::debug!(event = %message.event_id, "publishing");
        let message_id = message.event_id.to_string();
        match message.content {
            OutboxContent::Outcome { body } => Outgoing {
                exchange: self.config.outcomes_exchange.clone(),
                routing_key: message.routing_key,
                message_id,
                content_type: "application/json",
                headers: Vec::new(),
                body: body.into_bytes(),
                published_at: now,
            },
            OutboxContent::DeadLetter { bytes, code, detail } => Outgoing {
                exchange: self.config.dead_letter_exchange.clone(),
                headers: vec![
                    ("x-settled-reason", code),
                    ("x-settled-detail", detail),
                    ("x-settled-queue", message.routing_key.clone()),
                ],
                routing_key: message.routing_key,
                message_id,
                content_type: "application/octet-stream",
                body: bytes,
                published_at: now,
            },
        }
    }
}

fn record_of(message: &OutboxMessage) -> Option<RecordId> {
    match &message.content {
        OutboxContent::Outcome { body } => announcement::record_of(body),
        OutboxContent::DeadLetter { .. } => None,
    }
}

fn kind(message: &OutboxMessage) -> &'static str {
    match message.content {
        OutboxContent::Outcome { .. } => "outcome",
        OutboxContent::DeadLetter { .. } => "dead_letter",
    }
}
