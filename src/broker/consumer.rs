//! One session of consuming: it ends at the first sign of trouble, and another is opened.

use std::time::Duration;

use futures_util::StreamExt as _;
use lapin::{
    Channel, Consumer,
    options::{
        BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicQosOptions,
        QueueDeclareOptions,
    },
    types::FieldTable,
};

use super::{BrokerError, Link, REPLY_SUCCESS, close, connect, within};
use crate::{config::BrokerConfig, crash};

/// The name under which the daemon consumes; a session has one consumer.
const CONSUMER_TAG: &str = "settled";

/// A message from the queue.
#[derive(Debug)]
pub struct Delivery {
    /// Its number in this session.
    pub tag: u64,
    /// Its bytes.
    pub body: Vec<u8>,
}

/// How a queue is consumed.
#[derive(Clone, Copy, Debug)]
pub struct Consuming<'q> {
    /// The queue.
    pub queue: &'q str,
    /// Most deliveries that are unacknowledged at a time.
    pub prefetch: u16,
    /// Whether nobody else may consume it: another consumer would take part of what is to be taken in
    /// order. The last session's counts until the broker has noticed its end, because what was delivered to
    /// it is not in the queue.
    pub is_alone: bool,
    /// The crash points before and after an acknowledgement.
    pub ack_points: [&'static str; 2],
}

/// An open connection that delivers messages.
pub struct ConsumerSession {
    connection: Link,
    channel: Channel,
    consumer: Consumer,
    queue: String,
    backlog: u32,
    ack_points: [&'static str; 2],
    call_timeout: Duration,
}

impl ConsumerSession {
    /// Connects and consumes a queue with a bound on what is unacknowledged.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn open(config: &BrokerConfig, how: &Consuming<'_>) -> Result<Self, BrokerError> {
        let connection = connect(config, "consumer").await?;
        let limit = config.call_timeout();
        let channel = within(limit, "opening a channel", connection.create_channel()).await?;
        let found = find(&channel, how.queue, limit).await?;
        if how.is_alone && found.consumer_count() > 0 {
            close(&connection, limit).await;
            return Err(BrokerError::lost(
                "consuming",
                format!(
                    "queue {} has {} other consumers: it must be consumed by this daemon alone",
                    how.queue,
                    found.consumer_count()
                ),
            ));
        }
        let consumer = consume(&channel, how.queue, how.prefetch, limit).await?;
        Ok(Self {
            connection,
            channel,
            consumer,
            queue: how.queue.to_owned(),
            backlog: found.message_count(),
            ack_points: how.ack_points,
            call_timeout: limit,
        })
    }

    /// How many messages were in the queue before this session consumed it.
    #[must_use]
    pub fn backlog(&self) -> u32 {
        self.backlog
    }

    /// The next delivery. Can be dropped and called again without losing one.
    ///
    /// # Errors
    /// [`BrokerError::Lost`] when the session is over, for whatever reason.
    pub async fn next(&mut self) -> Result<Delivery, BrokerError> {
        match self.consumer.next().await {
            Some(Ok(delivery)) => Ok(Delivery { tag: delivery.delivery_tag, body: delivery.data }),
            Some(Err(error)) => Err(BrokerError::lost("consuming", error.to_string())),
            None => Err(BrokerError::lost(
                "consuming",
                format!("the broker cancelled the consumer of queue {}", self.queue),
            )),
        }
    }

    /// Acknowledges everything up to and including `tag`.
    ///
    /// # Errors
    /// [`BrokerError::Lost`]; what was not acknowledged comes again.
    pub async fn acknowledge_up_to(&self, tag: u64) -> Result<(), BrokerError> {
        let options = BasicAckOptions { multiple: true };
        let [before_ack, after_ack] = self.ack_points;
        crash::point(before_ack);
        within(self.call_timeout, "acknowledging", self.channel.basic_ack(tag, options)).await?;
        crash::point(after_ack);
        // An acknowledgement on a dead channel is no error to the library, but it is to us.
        if self.channel.status().connected() {
            Ok(())
        } else {
            Err(BrokerError::lost("acknowledging", "the channel is closed"))
        }
    }

    /// Asks for the queue, to see that channel, connection and queue are alive.
    ///
    /// # Errors
    /// [`BrokerError`] when one of them is not.
    pub async fn check(&self) -> Result<(), BrokerError> {
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let call =
            self.channel.queue_declare(self.queue.as_str().into(), options, FieldTable::default());
        within(self.call_timeout, "checking the consumer", call).await.map(drop)
    }

    /// How many messages are in another queue; nothing if it cannot be asked for, which is no fault of this
    /// session.
    ///
    /// # Errors
    /// [`BrokerError::Lost`] when the session is over.
    pub async fn count(&self, queue: &str) -> Result<Option<u32>, BrokerError> {
        // A channel of its own, because the broker closes it if there is no such queue.
        let opening = self.connection.create_channel();
        let channel = within(self.call_timeout, "opening a channel", opening).await?;
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let call = channel.queue_declare(queue.into(), options, FieldTable::default());
        let counted = match tokio::time::timeout(self.call_timeout, call).await {
            Ok(Ok(found)) => Some(found.message_count()),
            Ok(Err(_)) | Err(_) => None,
        };
        if channel.status().connected() {
            let closing = channel.close(REPLY_SUCCESS, "OK".into());
            within(self.call_timeout, "closing a channel", closing).await?;
        }
        Ok(counted)
    }

    /// Stops deliveries and waits until the broker has stopped them. What was delivered before may
    /// still be acknowledged; closing without this can lose acknowledgements.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn cancel(&self) -> Result<(), BrokerError> {
        let call = self.channel.basic_cancel(CONSUMER_TAG.into(), BasicCancelOptions::default());
        within(self.call_timeout, "cancelling the consumer", call).await
    }

    /// Consumes again on the same channel, with another bound. [`Self::cancel`] comes before.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn resume(&mut self, prefetch: u16) -> Result<(), BrokerError> {
        self.consumer = consume(&self.channel, &self.queue, prefetch, self.call_timeout).await?;
        Ok(())
    }

    /// Ends the session politely.
    pub async fn close(self) {
        close(&self.connection, self.call_timeout).await;
    }
}

/// What is in a queue, and who consumes it.
async fn find(
    channel: &Channel,
    queue: &str,
    limit: Duration,
) -> Result<lapin::Queue, BrokerError> {
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let call = channel.queue_declare(queue.into(), options, FieldTable::default());
    match tokio::time::timeout(limit, call).await {
        Ok(Ok(found)) => Ok(found),
        Ok(Err(error)) => Err(BrokerError::of(&error, "consuming", &format!("queue {queue}"), "")),
        Err(_) => Err(BrokerError::lost("consuming", "no answer in time")),
    }
}

async fn consume(
    channel: &Channel,
    queue: &str,
    prefetch: u16,
    limit: Duration,
) -> Result<Consumer, BrokerError> {
    let qos = channel.basic_qos(prefetch, BasicQosOptions::default());
    within(limit, "setting the prefetch", qos).await?;
    let consume = channel.basic_consume(
        queue.into(),
        CONSUMER_TAG.into(),
        BasicConsumeOptions::default(),
        FieldTable::default(),
    );
    match tokio::time::timeout(limit, consume).await {
        Ok(Ok(consumer)) => Ok(consumer),
        Ok(Err(error)) => Err(BrokerError::of(&error, "consuming", &format!("queue {queue}"), "")),
        Err(_) => Err(BrokerError::lost("consuming", "no answer in time")),
    }
}
