//! Alerts that are built in, for those without Prometheus.
//!
//! The daemon looks at itself now and then ([`look`]); `domain::alert` says what fires; what has become of
//! each alert and the notices about it are written down together ([`watch`]), and then delivered from
//! there, each notice until it is taken ([`deliver`]): a restart neither repeats nor forgets. A notice may
//! arrive more than once, always with the same id.
//!
//! What must never happen here: a change of the book other than through the writer; an address or a
//! secret of a channel in a log, an error or `Debug`; a shell.

mod channels;
mod command;
mod deliver;
mod look;
mod notice;
mod watch;
mod webhook;

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::{
    clock::Clock,
    config::AlertsConfig,
    health::Checks,
    metrics::Metrics,
    pipeline::wake::Bell,
    store::{Readers, StoreError, alerts::Channel},
    writer::WriterHandle,
};
use deliver::Deliverer;
use watch::Watcher;

pub use channels::{ChannelError, Channels, Undelivered};
pub use notice::{Origin, test_body};

/// What built-in alerts are made from.
pub struct Alerts {
    /// What is configured.
    pub config: AlertsConfig,
    /// The ways by which they are told.
    pub channels: Arc<Channels>,
    /// What is looked at.
    pub checks: Checks,
    /// What was counted.
    pub metrics: Arc<Metrics>,
    /// The book.
    pub readers: Readers,
    /// Who writes down.
    pub writer: WriterHandle,
    /// Whose alerts they are.
    pub origin: Origin,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

impl Alerts {
    /// Looks and tells until the daemon ends.
    ///
    /// # Errors
    /// [`StoreError`] when the book cannot be read to deliver from.
    pub async fn run(self, stop: CancellationToken) -> Result<(), StoreError> {
        let bells = [Arc::<Bell>::default(), Arc::default()];
        let deliverer = |channel, bell: &Arc<Bell>| Deliverer {
            channel,
            channels: Arc::clone(&self.channels),
            readers: self.readers.clone(),
            writer: self.writer.clone(),
            metrics: Arc::clone(&self.metrics),
            give_up_after: Duration::from_secs(self.config.give_up_after_s),
            bell: Arc::clone(bell),
            clock: Arc::clone(&self.clock),
        };
        let [first, second] = &bells;
        let webhook = deliverer(Channel::Webhook, first);
        let command = deliverer(Channel::Command, second);
        let watcher = Watcher::new(self, bells).await?;
        tokio::try_join!(
            watcher.run(stop.clone()),
            webhook.run(stop.clone()),
            command.run(stop.clone())
        )?;
        Ok(())
    }
}
