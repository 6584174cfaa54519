//! The private RabbitMQ node, and what is put on its queues.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use lapin::{
    BasicProperties, Channel,
    options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions},
    types::FieldTable,
};
use settled::{
    broker::{self, Link},
    config::{BrokerConfig, BrokerUrl},
};

use crate::workload::Workload;

/// Messages that wait for their confirms at a time.
const UNCONFIRMED_MAX: u64 = 2_048;
/// AMQP's number for a message that survives a restart of the broker.
const PERSISTENT: u8 = 2;
const COUNT_LIMIT: Duration = Duration::from_secs(60);

/// The node; it ends with its owner.
pub(crate) struct Node {
    script: PathBuf,
    folder: PathBuf,
    pub(crate) url: String,
    /// Its process, for what it uses.
    pub(crate) pid: u32,
}

impl Node {
    pub(crate) fn start(root: &Path, folder: &Path) -> anyhow::Result<Self> {
        let script = root.join("scripts/rabbitmq.sh");
        let out = Command::new(&script).arg("start").arg(folder).output()?;
        if !out.status.success() {
            bail!("the node did not start: {}", String::from_utf8_lossy(&out.stderr));
        }
        let url = String::from_utf8(out.stdout)?.trim().to_owned();
        let pid = fs::read_to_string(folder.join("pid"))?.trim().parse()?;
        Ok(Self { script, folder: folder.to_owned(), url, pid })
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _stopped = Command::new(&self.script).arg("stop").arg(&self.folder).status();
    }
}

/// Queues and exchanges of one run.
pub(crate) struct Queues {
    pub(crate) config: BrokerConfig,
    pub(crate) outcomes: String,
    link: Link,
    channel: Channel,
}

impl Queues {
    /// Declares everything for a run, in names of its own.
    pub(crate) async fn declare(url: &str, name: &str) -> anyhow::Result<Self> {
        let config = BrokerConfig {
            url: BrokerUrl::from(url.to_owned()),
            declare: true,
            jobs_queue: format!("{name}.jobs"),
            outcomes_exchange: format!("{name}.outcomes"),
            dead_letter_exchange: format!("{name}.dead"),
            ..BrokerConfig::default()
        };
        let link = broker::connect(&config, "bench").await?;
        broker::declare(&link, &config).await?;
        let outcomes = broker::declare_outcomes_queue(&link, &config).await?;
        let channel = link.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok(Self { config, outcomes, link, channel })
    }

    /// Publishes records `from..to`, persistently, and waits until the broker has confirmed all.
    pub(crate) async fn preload(
        &self,
        workload: Workload,
        numbers: std::ops::Range<u64>,
    ) -> anyhow::Result<()> {
        let mut from = numbers.start;
        while from < numbers.end {
            let to = numbers.end.min(from + UNCONFIRMED_MAX);
            let mut confirms = Vec::new();
            for number in from..to {
                confirms.push(self.publish(&workload.message(number)).await?);
            }
            for confirm in confirms {
                ensure!(confirm.await?.is_ack(), "the broker refused a message");
            }
            from = to;
        }
        Ok(())
    }

    /// Publishes one message; the answer is the broker's word on it.
    pub(crate) async fn publish(
        &self,
        body: &[u8],
    ) -> anyhow::Result<impl Future<Output = Result<lapin::Confirmation, lapin::Error>> + use<>>
    {
        let properties = BasicProperties::default().with_delivery_mode(PERSISTENT);
        let queue = self.config.jobs_queue.as_str();
        Ok(self
            .channel
            .basic_publish(
                "".into(),
                queue.into(),
                BasicPublishOptions::default(),
                body,
                properties,
            )
            .await?)
    }

    /// How many messages a queue has, as the broker says now; its counts lag.
    async fn count(&self, queue: &str) -> anyhow::Result<u64> {
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let declared =
            self.channel.queue_declare(queue.into(), options, FieldTable::default()).await?;
        Ok(declared.message_count().into())
    }

    /// Waits until a queue has as many messages as expected.
    pub(crate) async fn must_have(&self, queue: &str, expected: u64) -> anyhow::Result<()> {
        let begun = std::time::Instant::now();
        loop {
            let there = self.count(queue).await?;
            if there == expected {
                return Ok(());
            }
            if begun.elapsed() > COUNT_LIMIT {
                bail!("queue {queue} has {there} messages, and should have {expected}");
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// A channel of its own for a consumer.
    pub(crate) async fn channel(&self) -> anyhow::Result<Channel> {
        self.link.create_channel().await.context("opening a channel")
    }

    /// Removes everything of the run.
    pub(crate) async fn remove(self) -> anyhow::Result<()> {
        broker::remove(&self.link, &self.config, &[&self.outcomes]).await?;
        broker::close(&self.link, Duration::from_secs(5)).await;
        Ok(())
    }
}
