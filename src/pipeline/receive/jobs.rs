//! Jobs: each delivery is a record that somebody wants settled.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::{Lane, Pending, quarantine};
use crate::{
    broker::{Consuming, Delivery},
    crash,
    domain::{
        action::Switch,
        message::{JobMessage, Refusal, RefusalCode, parse_message},
    },
    health::{BrokerSide, Health, pulse::Pulse},
    metrics::Metrics,
    pipeline::record::{Intake, Recorded},
    writer::{Recording, WriterGone, WriterHandle},
};

/// The queue that jobs come from.
pub struct JobsLane {
    /// Its name.
    pub queue: String,
    /// Where jobs go.
    pub writer: WriterHandle,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

impl Lane for JobsLane {
    const SIDE: BrokerSide = BrokerSide::Consumer;

    fn consuming(&self, prefetch: u16) -> Consuming<'_> {
        let ack_points = ["before_ack", "after_ack"];
        Consuming { queue: &self.queue, prefetch, is_alone: false, ack_points }
    }

    fn pulse<'h>(&self, health: &'h Health) -> &'h Pulse {
        &health.receiver_pulse
    }

    fn switch(&self) -> Option<Switch> {
        Some(Switch::Intake)
    }

    fn connected(&self, _backlog: u32) {}

    fn committed(&self, _deliveries: u64) {}

    fn disconnected(&self) {}

    async fn take(&self, delivery: Delivery) -> Pending {
        crash::stall("receiver").await;
        let Delivery { tag, body } = delivery;
        let queue = self.queue.clone();
        let (writer, metrics) = (self.writer.clone(), Arc::clone(&self.metrics));
        match parse_message(&body) {
            Err(refusal) => Box::pin(async move {
                refuse(&writer, &metrics, &queue, body, refusal).await.map(|()| tag)
            }),
            Ok(JobMessage { terms, book_sequence }) => {
                // It was read as UTF-8 already.
                let raw = String::from_utf8_lossy(&body).into_owned();
                let intake = Intake { terms, raw, queue: queue.clone(), book_sequence };
                // Handed over here, in the order of arrival; only the answer is waited for later.
                let handed_over = writer.record(intake).await;
                Box::pin(async move {
                    finish_recording(handed_over, &writer, &metrics, &queue, body)
                        .await
                        .map(|()| tag)
                })
            }
        }
    }
}

async fn refuse(
    writer: &WriterHandle,
    metrics: &Metrics,
    queue: &str,
    body: Vec<u8>,
    refusal: Refusal,
) -> Result<(), WriterGone> {
    quarantine(writer, metrics, queue, body, refusal).await?;
    metrics.message("refused");
    Ok(())
}

async fn finish_recording(
    handed_over: Result<oneshot::Receiver<Recording>, WriterGone>,
    writer: &WriterHandle,
    metrics: &Metrics,
    queue: &str,
    body: Vec<u8>,
) -> Result<(), WriterGone> {
    match handed_over?.await.map_err(|_| WriterGone)? {
        Recording::Recorded(recorded) => {
            metrics.message(match recorded {
                Recorded::New(_) => "new",
                Recorded::Repeated(_) => "repeated",
                Recorded::Contradicts(job) => {
                    tracing::error!(
                        %job,
                        "a message names a record that is known with other content: it is quarantined, and the first one holds"
                    );
                    metrics.refused(RefusalCode::ContentDiffers);
                    "contradicts"
                }
                Recorded::RefusedBefore => {
                    tracing::warn!(queue, "a message that was refused as not OES's record has come again");
                    metrics.refused(RefusalCode::NotAsAtOes);
                    "refused"
                }
            });
            Ok(())
        }
        Recording::Refused(reason) => {
            let refusal = Refusal::new(RefusalCode::NotStorable, reason);
            refuse(writer, metrics, queue, body, refusal).await
        }
    }
}
