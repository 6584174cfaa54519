//! One session of publishing with confirms.

use std::{
    future::{poll_fn, ready},
    mem,
    ops::ControlFlow,
    pin::{Pin, pin},
    task::Poll,
    time::Duration,
};

use futures_util::future::Either;
use lapin::{
    BasicProperties, Channel, Confirmation,
    options::{BasicPublishOptions, ConfirmSelectOptions},
    types::{AMQPValue, FieldTable},
};

use super::{BrokerError, Link, close, connect_to_publish, within};
use crate::{config::BrokerConfig, domain::time::TimestampMs};

/// AMQP's number for a message that survives a restart of the broker.
const PERSISTENT: u8 = 2;

/// How often it is looked whether the session is closed, or the broker blocks it.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// A message to publish.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// To which exchange.
    pub exchange: String,
    /// With which key.
    pub routing_key: String,
    /// Its id; a repetition has the same.
    pub message_id: String,
    /// What its body is.
    pub content_type: &'static str,
    /// Further headers, as text.
    pub headers: Vec<(&'static str, String)>,
    /// Its body.
    pub body: Vec<u8>,
    /// When it was published.
    pub published_at: TimestampMs,
}

/// What the broker did with a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublishOutcome {
    /// It is stored in every queue that it was routed to.
    Confirmed,
    /// No queue is bound for it; the broker sent it back.
    Unroutable,
    /// The broker did not take it, e.g. because a queue is full.
    Refused,
}

/// An open connection that publishes.
pub struct PublisherSession {
    connection: Link,
    channel: Channel,
    call_timeout: Duration,
}

impl PublisherSession {
    /// Connects and asks for confirms.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn open(config: &BrokerConfig) -> Result<Self, BrokerError> {
        let connection = connect_to_publish(config).await?;
        let call_timeout = config.call_timeout();
        let channel =
            within(call_timeout, "opening a channel", connection.create_channel()).await?;
        let confirms = channel.confirm_select(ConfirmSelectOptions::default());
        within(call_timeout, "asking for publisher confirms", confirms).await?;
        Ok(Self { connection, channel, call_timeout })
    }

    /// Publishes messages together and waits for the broker's word on each.
    ///
    /// # Errors
    /// [`BrokerError::Lost`] when the session is over; any of the messages may have arrived. A broker
    /// that blocks publishers ends no session: another one would be blocked as well, and this one's
    /// messages would be published twice.
    pub async fn publish(
        &self,
        messages: Vec<Outgoing>,
    ) -> Result<Vec<PublishOutcome>, BrokerError> {
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let calls = messages.iter().map(|message| {
            self.channel.basic_publish(
                message.exchange.as_str().into(),
                message.routing_key.as_str().into(),
                options,
                &message.body,
                properties(message),
            )
        });
        let calls = begin(calls.collect()).await;
        let mut confirms = Vec::with_capacity(calls.len());
        for call in calls {
            confirms.push(self.unless_blocked("publishing", call).await?);
        }
        let mut outcomes = Vec::with_capacity(confirms.len());
        for confirm in confirms {
            outcomes.push(
                match self.unless_blocked("waiting for a publisher confirm", confirm).await? {
                    Confirmation::Ack(None) => PublishOutcome::Confirmed,
                    Confirmation::Ack(Some(_)) => PublishOutcome::Unroutable,
                    Confirmation::Nack(_) => PublishOutcome::Refused,
                    Confirmation::NotRequested => {
                        return Err(BrokerError::lost("publishing", "confirms are not on"));
                    }
                },
            );
        }
        Ok(outcomes)
    }

    /// Whether the library knows of trouble with the session.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.channel.status().connected() && self.connection.status().connected()
    }

    /// Whether the broker takes no messages at present, because it is short of memory or disk.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        self.connection.status().connected() && self.connection.status().blocked()
    }

    /// Waits until the library knows of trouble with the session.
    pub async fn closed(&self) {
        while self.is_open() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Tells whether the broker blocks the session, now and then.
    pub async fn watch_blocked(&self, mut tell: impl FnMut(bool) -> ControlFlow<()>) {
        while tell(self.is_blocked()).is_continue() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Puts the time limit on a call, not counting the time in which the broker blocks the session.
    async fn unless_blocked<T>(
        &self,
        doing: &str,
        call: impl Future<Output = Result<T, lapin::Error>>,
    ) -> Result<T, BrokerError> {
        let mut call = pin!(call);
        let mut waited = Duration::ZERO;
        while waited < self.call_timeout {
            let slice = LOOK_EVERY.min(self.call_timeout);
            match tokio::time::timeout(slice, &mut call).await {
                Ok(Ok(value)) => return Ok(value),
                Ok(Err(error)) => return Err(BrokerError::lost(doing, error.to_string())),
                Err(_) if self.is_blocked() => waited = Duration::ZERO,
                Err(_) => waited = waited.saturating_add(slice),
            }
        }
        Err(BrokerError::lost(doing, format!("no answer within {:?}", self.call_timeout)))
    }

    /// Ends the session politely.
    pub async fn close(self) {
        close(&self.connection, self.call_timeout).await;
    }
}

/// Begins calls in their order, all of them before the first is waited for. A call of the library ends when it is
/// written to the socket: one after the other, each would be a write and two changes of thread, here and at the
/// broker.
async fn begin<F: Future>(calls: Vec<F>) -> Vec<impl Future<Output = F::Output>> {
    let mut calls: Vec<Pin<Box<F>>> = calls.into_iter().map(Box::pin).collect();
    poll_fn(move |context| {
        let begun =
            mem::take(&mut calls).into_iter().map(|mut call| match call.as_mut().poll(context) {
                Poll::Ready(ended) => Either::Left(ready(ended)),
                Poll::Pending => Either::Right(call),
            });
        Poll::Ready(begun.collect())
    })
    .await
}

fn properties(message: &Outgoing) -> BasicProperties {
    let mut headers = FieldTable::default();
    for (name, text) in &message.headers {
        headers.insert((*name).into(), AMQPValue::LongString(text.as_str().into()));
    }
    let published_s = message.published_at.as_millis().div_euclid(1_000);
    BasicProperties::default()
        .with_delivery_mode(PERSISTENT)
        .with_content_type(message.content_type.into())
        .with_message_id(message.message_id.as_str().into())
        .with_timestamp(u64::try_from(published_s).unwrap_or(0))
        .with_headers(headers)
}
