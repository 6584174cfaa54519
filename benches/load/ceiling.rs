//! The ceiling: from the queue to the server with nothing in between, as fast as the same libraries go.
//! No row, no signature, no decision; what it takes it forgets.

use std::{fmt::Write as _, io::Write as _, sync::Arc, time::Duration};

use anyhow::{Context as _, ensure};
use futures_util::StreamExt as _;
use lapin::{
    Channel, Connection, ConnectionProperties,
    options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions},
    types::FieldTable,
};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE};
use serde::Deserialize;
use tokio::{sync::Semaphore, task::JoinSet};

/// What a measured process is told, in its environment, whatever language it is written in.
pub(crate) struct Orders {
    amqp_url: String,
    queue: String,
    oes_url: String,
    token: String,
    jobs: u64,
    prefetch: u16,
    in_flight: usize,
}

impl Orders {
    pub(crate) fn from_environment() -> anyhow::Result<Self> {
        let get = |name: &str| std::env::var(name).with_context(|| format!("{name} is not set"));
        Ok(Self {
            amqp_url: get("BENCH_AMQP_URL")?,
            queue: get("BENCH_QUEUE")?,
            oes_url: get("BENCH_OES_URL")?,
            token: get("BENCH_TOKEN")?,
            jobs: get("BENCH_JOBS")?.parse()?,
            prefetch: get("BENCH_PREFETCH")?.parse()?,
            in_flight: get("BENCH_IN_FLIGHT")?.parse()?,
        })
    }

    async fn consume(&self) -> anyhow::Result<(Connection, Channel, lapin::Consumer)> {
        let connection =
            Connection::connect(&self.amqp_url, ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        channel.basic_qos(self.prefetch, BasicQosOptions::default()).await?;
        let options = BasicConsumeOptions::default();
        let consumer = channel
            .basic_consume(
                self.queue.as_str().into(),
                "bench".into(),
                options,
                FieldTable::default(),
            )
            .await?;
        Ok((connection, channel, consumer))
    }
}

/// Says that all is done, and waits for the end: what the process has used is looked at before.
async fn done() -> anyhow::Result<()> {
    say("done")?;
    std::future::pending().await
}

/// Says something to whoever measures.
fn say(word: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{word}")?;
    Ok(out.flush()?)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Message<'a> {
    r#type: &'a str,
}

/// As long as a real signature, and by nobody.
const SIGNATURE: &str = "1f0000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000";
const NONCE: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Consume, PUT, acknowledge.
pub(crate) async fn run() -> anyhow::Result<()> {
    let orders = Orders::from_environment()?;
    settled::tls::use_ring();
    let http = reqwest::Client::builder()
        .tls_certs_only([])
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(Duration::from_secs(30))
        .pool_max_idle_per_host(orders.in_flight)
        .build()?;
    let (_connection, channel, mut consumer) = orders.consume().await?;
    say("consuming")?;
    let slots = Arc::new(Semaphore::new(orders.in_flight));
    let (mut sends, mut acknowledged) = (JoinSet::new(), Acknowledged::default());
    let authorization = format!("Bearer {}", orders.token);
    let mut taken = 0;
    while acknowledged.count < orders.jobs {
        tokio::select! {
            Some(sent) = sends.join_next() => {
                acknowledged.add(sent??);
                while let Some(sent) = sends.try_join_next() {
                    acknowledged.add(sent??);
                }
                if let Some(tag) = acknowledged.next() {
                    channel.basic_ack(tag, BasicAckOptions { multiple: true }).await?;
                }
            }
            Some(delivery) = consumer.next(), if taken < orders.jobs => {
                let delivery = delivery?;
                taken += 1;
                let slot = Arc::clone(&slots).acquire_owned().await?;
                let (kind, body) = body(&delivery.data)?;
                let request = http
                    .put(format!("{}/{kind}s", orders.oes_url))
                    .header(AUTHORIZATION, &authorization)
                    .header(CONTENT_TYPE, "application/json")
                    .body(body);
                sends.spawn(async move {
                    let answer = request.send().await?.error_for_status()?;
                    ensure!(!answer.bytes().await?.is_empty(), "an empty answer");
                    drop(slot);
                    anyhow::Ok(delivery.delivery_tag)
                });
            }
        }
    }
    done().await
}

/// A body as long as a real one: the same members, the payload as text, a signature.
fn body(message: &[u8]) -> anyhow::Result<(&str, String)> {
    let text = std::str::from_utf8(message)?;
    let kind = serde_json::from_str::<Message<'_>>(text)?.r#type;
    let members = text
        .split_once(',')
        .map(|(_, rest)| rest.trim_end_matches('}'))
        .context("a message without members")?;
    let payload = format!(r#"{{"status":"cleared",{members},"nonce":"{NONCE}"}}"#);
    let mut body = payload.clone();
    body.pop();
    write!(body, r#","payload":{},"signature":"{SIGNATURE}"}}"#, serde_json::to_string(&payload)?)?;
    Ok((kind, body))
}

/// Tags that may be acknowledged together: all up to the first that is missing.
#[derive(Default)]
struct Acknowledged {
    waiting: std::collections::BTreeSet<u64>,
    last: u64,
    told: u64,
    count: u64,
}

impl Acknowledged {
    fn add(&mut self, tag: u64) {
        self.waiting.insert(tag);
        self.count += 1;
        while self.waiting.remove(&(self.last + 1)) {
            self.last += 1;
        }
    }

    fn next(&mut self) -> Option<u64> {
        (self.last > self.told).then(|| {
            self.told = self.last;
            self.last
        })
    }
}

/// The broker's part alone: consume and acknowledge.
pub(crate) async fn consume_only() -> anyhow::Result<()> {
    let orders = Orders::from_environment()?;
    let (_connection, channel, mut consumer) = orders.consume().await?;
    say("consuming")?;
    let mut count = 0;
    // As far apart as the commits of the daemon would have them.
    let every = u64::from(orders.prefetch).div_euclid(4).max(1);
    while let Some(delivery) = consumer.next().await {
        let delivery = delivery?;
        count += 1;
        if count % every == 0 || count == orders.jobs {
            let options = BasicAckOptions { multiple: true };
            channel.basic_ack(delivery.delivery_tag, options).await?;
        }
        if count == orders.jobs {
            break;
        }
    }
    done().await
}
