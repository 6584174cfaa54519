//! The feed: each delivery is something that the exchange says about the book.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::{Lane, Pending, quarantine};
use crate::{
    broker::{Consuming, Delivery},
    clock::Clock,
    domain::{
        action::Switch,
        message::{Refusal, RefusalCode},
    },
    health::{BrokerSide, Health, pulse::Pulse},
    metrics::Metrics,
    pipeline::{
        feed::{self, FedEvent},
        wake::Wake,
    },
    store::work::BookEventOutcome,
    writer::{Feeding, WriterGone, WriterHandle},
};

/// The queue that the exchange feeds the book through.
pub struct FeedLane {
    /// Its name.
    pub queue: String,
    /// Where events go.
    pub writer: WriterHandle,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// The bells of the loops.
    pub wake: Wake,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

impl Lane for FeedLane {
    const SIDE: BrokerSide = BrokerSide::Feed;

    fn consuming(&self, prefetch: u16) -> Consuming<'_> {
        let ack_points = ["before_feed_ack", "after_feed_ack"];
        Consuming { queue: &self.queue, prefetch, is_alone: true, ack_points }
    }

    fn pulse<'h>(&self, health: &'h Health) -> &'h Pulse {
        &health.feed_pulse
    }

    /// Without the feed the book would fall behind, and nothing could be decided afterwards.
    fn switch(&self) -> Option<Switch> {
        None
    }

    fn connected(&self, backlog: u32) {
        let now = self.clock.now();
        self.writer.gate().with(|gate| gate.connected(now, backlog.into()));
        self.wake.decide.notify_one();
    }

    fn committed(&self, deliveries: u64) {
        let now = self.clock.now();
        if self.writer.gate().with(|gate| gate.applied(now, deliveries)) {
            tracing::info!(queue = self.queue, "the feed's backlog is applied");
            self.wake.decide.notify_one();
        }
    }

    fn disconnected(&self) {
        let now = self.clock.now();
        self.writer.gate().with(|gate| gate.disconnected(now));
    }

    async fn take(&self, delivery: Delivery) -> Pending {
        let Delivery { tag, body } = delivery;
        let queue = self.queue.clone();
        let (writer, metrics) = (self.writer.clone(), Arc::clone(&self.metrics));
        let read = feed::read(&body).map(|(event, text)| (event, text.to_owned()));
        match read {
            Err(refusal) => Box::pin(async move {
                quarantine(&writer, &metrics, &queue, body, refusal).await?;
                metrics.fed("refused");
                Ok(tag)
            }),
            Ok((event, raw)) => {
                // Handed over here, in the order of arrival; only the answer is waited for later.
                let handed_over = writer.feed(FedEvent { event, raw, queue: queue.clone() }).await;
                Box::pin(async move {
                    finish(handed_over, &writer, &metrics, &queue, body).await.map(|()| tag)
                })
            }
        }
    }
}

async fn finish(
    handed_over: Result<oneshot::Receiver<Feeding>, WriterGone>,
    writer: &WriterHandle,
    metrics: &Metrics,
    queue: &str,
    body: Vec<u8>,
) -> Result<(), WriterGone> {
    let result = match handed_over?.await.map_err(|_| WriterGone)? {
        Feeding::Taken(outcome) => told(outcome, metrics, queue),
        Feeding::Refused(reason) => {
            let refusal = Refusal::new(RefusalCode::NotStorable, reason);
            quarantine(writer, metrics, queue, body, refusal).await?;
            "refused"
        }
    };
    metrics.fed(result);
    Ok(())
}

/// What is counted and logged of an event that is committed.
fn told(outcome: BookEventOutcome, metrics: &Metrics, queue: &str) -> &'static str {
    match outcome {
        BookEventOutcome::Applied => "applied",
        BookEventOutcome::AlreadyApplied => "repeated",
        BookEventOutcome::Superseded => "old",
        BookEventOutcome::Differs => "differs",
        BookEventOutcome::Contradicts => {
            metrics.refused(RefusalCode::ContentDiffers);
            tracing::error!(
                queue,
                "an event of the feed has an id that is known with other content: it is quarantined, and the \
                 first one holds"
            );
            "contradicts"
        }
        BookEventOutcome::UnknownConnection => {
            metrics.refused(RefusalCode::UnknownConnection);
            tracing::error!(
                queue,
                "an event of the feed is about a connection that the book does not have: it is quarantined"
            );
            "unknown_connection"
        }
    }
}
