//! The broker's other side: the exchange that publishes jobs and hears outcomes.

use std::collections::HashMap;

use futures_util::StreamExt as _;
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions,
        QueueBindOptions, QueueDeclareOptions,
    },
    types::{AMQPValue, FieldTable},
    uri::AMQPUri,
};
use serde_json::Value;
use tokio::sync::Mutex;

use super::{PATIENCE, eventually, proxy::Proxy};

/// The broker that `make test` starts.
pub(crate) fn url() -> String {
    std::env::var("SETTLED_TEST_AMQP_URL").unwrap_or_else(|_| {
        panic!("no broker: run `make test`, or `scripts/with-rabbitmq.sh cargo test`")
    })
}

/// A proxy before a broker, and the broker's URL through it.
pub(crate) async fn through_proxy(url: &str) -> (Proxy, String) {
    let authority = url.parse::<AMQPUri>().unwrap().authority;
    let place = format!("{}:{}", authority.host, authority.port);
    let proxy = Proxy::before(place.parse().unwrap()).await;
    let through = url.replace(&place, &proxy.address().to_string());
    (proxy, through)
}

/// A message as the exchange hears it.
#[derive(Clone, Debug)]
pub(crate) struct Heard {
    pub(crate) routing_key: String,
    pub(crate) message_id: String,
    pub(crate) persistent: bool,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Heard {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

pub(crate) struct Exchange {
    connection: Connection,
    channel: Mutex<Channel>,
}

impl Exchange {
    pub(crate) async fn connect(url: &str) -> Self {
        let connection = Connection::connect(url, ConnectionProperties::default()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        Self { connection, channel: Mutex::new(channel) }
    }

    /// Puts messages on a queue; they are there when this returns.
    pub(crate) async fn publish(&self, queue: &str, messages: impl IntoIterator<Item = Vec<u8>>) {
        let channel = self.channel.lock().await;
        let mut confirms = Vec::new();
        for message in messages {
            let properties = BasicProperties::default().with_delivery_mode(2);
            let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
            confirms.push(
                channel
                    .basic_publish("".into(), queue.into(), options, &message, properties)
                    .await
                    .unwrap(),
            );
        }
        for confirm in confirms {
            let confirmation = confirm.await.unwrap();
            assert!(confirmation.is_ack() && confirmation.take_message().is_none(), "{queue}");
        }
    }

    /// How many messages are ready in a queue, not counting those that are delivered and not
    /// acknowledged.
    pub(crate) async fn ready(&self, queue: &str) -> u32 {
        let channel = self.connection.create_channel().await.unwrap();
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let state =
            channel.queue_declare(queue.into(), options, FieldTable::default()).await.unwrap();
        state.message_count()
    }

    /// A queue of the exchange's own, bound to an exchange of the daemon.
    pub(crate) async fn bind(&self, exchange: &str, key: &str) -> String {
        let channel = self.connection.create_channel().await.unwrap();
        let queue = format!("{exchange}.heard");
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        channel.queue_declare(queue.as_str().into(), options, FieldTable::default()).await.unwrap();
        channel
            .queue_bind(
                queue.as_str().into(),
                exchange.into(),
                key.into(),
                QueueBindOptions::default(),
                FieldTable::default(),
            )
            .await
            .unwrap();
        queue
    }

    /// Takes messages from a queue until there are at least `count`.
    pub(crate) async fn hear(&self, queue: &str, count: usize) -> Vec<Heard> {
        let channel = self.connection.create_channel().await.unwrap();
        let mut consumer = channel
            .basic_consume(
                queue.into(),
                "test".into(),
                BasicConsumeOptions::default(),
                FieldTable::default(),
            )
            .await
            .unwrap();
        let mut heard = Vec::new();
        while heard.len() < count {
            let delivery = tokio::time::timeout(PATIENCE, consumer.next())
                .await
                .unwrap_or_else(|_| panic!("heard {} of {count} messages", heard.len()))
                .unwrap()
                .unwrap();
            delivery.ack(BasicAckOptions::default()).await.unwrap();
            let properties = &delivery.properties;
            heard.push(Heard {
                routing_key: delivery.routing_key.to_string(),
                message_id: properties
                    .message_id()
                    .as_ref()
                    .map(ToString::to_string)
                    .unwrap_or_default(),
                persistent: *properties.delivery_mode() == Some(2),
                headers: properties.headers().as_ref().map(text_headers).unwrap_or_default(),
                body: delivery.data,
            });
        }
        channel.close(200, "OK".into()).await.unwrap();
        heard
    }

    /// Waits until nothing is ready in a queue.
    pub(crate) async fn wait_until_taken(&self, queue: &str) {
        eventually("the queue to be taken", || async {
            (self.ready(queue).await == 0).then_some(())
        })
        .await;
    }

    pub(crate) async fn channel(&self) -> Channel {
        self.connection.create_channel().await.unwrap()
    }
}

fn text_headers(table: &FieldTable) -> HashMap<String, String> {
    table
        .inner()
        .iter()
        .filter_map(|(name, value)| match value {
            AMQPValue::LongString(text) => Some((name.to_string(), text.to_string())),
            _ => None,
        })
        .collect()
}
