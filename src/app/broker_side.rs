//! The parts that talk to the broker.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::{App, Material, Stage};
use crate::{
    broker,
    config::BrokerConfig,
    pipeline::{
        announce::Announcer,
        receive::{FeedLane, JobsLane, Lane, Receiver},
    },
};

impl App {
    /// What takes jobs from the broker and gives outcomes to it.
    pub(super) fn spawn_broker_side(&mut self, material: &Material) {
        let config = &material.config.broker;
        let announcer = Announcer {
            config: config.clone(),
            readers: material.readers.clone(),
            writer: material.writer.clone(),
            wake: material.wake.clone(),
            metrics: Arc::clone(&material.metrics),
            traces: material.traces.clone(),
            health: Arc::clone(&material.health),
            clock: Arc::clone(&material.clock),
        };
        let (writer, metrics) = (material.writer.clone(), Arc::clone(&material.metrics));
        let jobs =
            material.receiver(JobsLane { queue: config.jobs_queue.clone(), writer, metrics });
        let feed = config.book_queue.clone().map(|queue| {
            material.receiver(FeedLane {
                queue,
                writer: material.writer.clone(),
                metrics: Arc::clone(&material.metrics),
                wake: material.wake.clone(),
                clock: Arc::clone(&material.clock),
            })
        });
        // Cancelled once the topology is as it must be.
        let declared = CancellationToken::new();
        let (stop, stop_last) = (self.stop.clone(), self.stop_last.clone());
        self.spawn("topology", Stage::Intake, {
            let (config, declared, stop) = (config.clone(), declared.clone(), stop.clone());
            async move {
                declare_topology(&config, &stop).await?;
                declared.cancel();
                // Its work is done; ending now would look like a failure.
                stop.cancelled().await;
                Ok(())
            }
        });
        if let Some(feed) = feed {
            self.spawn_receiver("feed", feed, &declared);
        }
        self.spawn_receiver("receiver", jobs, &declared);
        self.spawn("announcer", Stage::Serving, async move {
            first_of(&declared, &stop_last).await;
            Ok(announcer.run(stop_last).await?)
        });
    }

    /// What takes deliveries from a queue, once the topology is as it must be.
    fn spawn_receiver<L: Lane + 'static>(
        &mut self,
        name: &'static str,
        receiver: Receiver<L>,
        declared: &CancellationToken,
    ) {
        let (declared, stop) = (declared.clone(), self.stop.clone());
        self.spawn(name, Stage::Intake, async move {
            first_of(&declared, &stop).await;
            receiver.run(stop).await;
            Ok(())
        });
    }
}

impl Material {
    fn receiver<L>(&self, lane: L) -> Receiver<L> {
        Receiver {
            lane,
            config: self.config.broker.clone(),
            writer: self.writer.clone(),
            metrics: Arc::clone(&self.metrics),
            health: Arc::clone(&self.health),
        }
    }
}

/// Waits for either.
async fn first_of(one: &CancellationToken, other: &CancellationToken) {
    tokio::select! {
        () = one.cancelled() => {}
        () = other.cancelled() => {}
    }
}

/// Declares the topology if that is configured, trying again while the broker is away.
async fn declare_topology(config: &BrokerConfig, stop: &CancellationToken) -> anyhow::Result<()> {
    let schedule = config.reconnect_schedule();
    let mut failures: u32 = 0;
    while config.declare && !stop.is_cancelled() {
        let error = match broker::connect_and_declare(config).await {
            Ok(lines) => {
                tracing::info!(
                    declared = lines.len(),
                    "the broker's queues and exchanges are as needed"
                );
                return Ok(());
            }
            Err(error) if !error.is_lost() => return Err(error.into()),
            Err(error) => error,
        };
        failures = failures.saturating_add(1);
        let delay = schedule.delay(failures);
        tracing::warn!(%error, ?delay, "the broker cannot be asked for its queues; it is asked again");
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(delay) => {}
        }
    }
    Ok(())
}
