//! Delivering: notices of one channel, each until it is taken or too old. Those of one alert go in order.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use super::channels::{Channels, Undelivered};
use crate::{
    clock::Clock,
    crash,
    domain::schedule::Schedule,
    metrics::Metrics,
    pipeline::wake::{Bell, Rested, rest},
    store::{
        Readers, StoreError,
        alerts::{AlertUpdate, Channel, Tried, WaitingNotice},
    },
    writer::{WriterGone, WriterHandle},
};

/// Delays between tries.
const TRY_AGAIN: Schedule = Schedule::new(Duration::from_secs(1), Duration::from_secs(300));

/// Most notices that are read at a time: no more than there are alerts of one kind each.
const READ_MAX: u32 = 64;

/// Delivers by one channel.
pub(super) struct Deliverer {
    pub(super) channel: Channel,
    pub(super) channels: Arc<Channels>,
    pub(super) readers: Readers,
    pub(super) writer: WriterHandle,
    pub(super) metrics: Arc<Metrics>,
    pub(super) give_up_after: Duration,
    pub(super) bell: Arc<Bell>,
    pub(super) clock: Arc<dyn Clock>,
}

impl Deliverer {
    /// Delivers until the daemon ends. What is under way then is sent again after the next start.
    pub(super) async fn run(self, stop: CancellationToken) -> Result<(), StoreError> {
        loop {
            let due = self.readers.due_notices(self.channel, self.clock.now(), READ_MAX).await?;
            if due.is_empty() {
                let next = self.readers.next_notice_due(self.channel).await?;
                let rested = rest(&self.bell, next, self.clock.as_ref(), &stop).await;
                if rested == Rested::Stop {
                    return Ok(());
                }
                continue;
            }
            for notice in due {
                let tried = tokio::select! {
                    () = stop.cancelled() => return Ok(()),
                    tried = self.deliver(&notice) => tried,
                };
                let update =
                    AlertUpdate { tried: vec![(notice.seq, tried)], ..AlertUpdate::default() };
                match self.writer.note_alerts(update).await {
                    Ok(Ok(())) => {}
                    // Somebody else has noted it; it is read again.
                    Ok(Err(reason)) => {
                        tracing::error!(notice = %notice.id, reason, "a try could not be noted");
                    }
                    Err(WriterGone) => return Ok(()),
                }
            }
        }
    }

    async fn deliver(&self, notice: &WaitingNotice) -> Tried {
        let (id, now) = (notice.id.to_string(), self.clock.now());
        crash::point("before_notice");
        let sent = self.channels.send(self.channel, &id, &notice.body, now).await;
        crash::point("after_notice");
        let Err(Undelivered(reason)) = sent else {
            self.metrics.notice(self.channel, "delivered");
            tracing::info!(notice = id, channel = self.channel.as_str(), "a notice was delivered");
            return Tried::Delivered;
        };
        let channel = self.channel.as_str();
        let is_configured = self.channels.configured().contains(&self.channel);
        let now = self.clock.now();
        if !is_configured || now.since(notice.created_at) >= self.give_up_after {
            self.metrics.notice(self.channel, "given_up");
            tracing::error!(
                notice = id,
                channel,
                reason,
                "a notice is given up: nobody was told of this alert by this channel"
            );
            return Tried::GivenUp(reason);
        }
        self.metrics.notice(self.channel, "failed");
        tracing::warn!(
            notice = id,
            channel,
            reason,
            "a notice could not be delivered: it is sent again"
        );
        Tried::Again(now.after(TRY_AGAIN.delay(notice.tries.saturating_add(1))), reason)
    }
}
