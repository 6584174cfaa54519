//! Queues and exchanges, declared with all their arguments.
//!
//! Jobs, and what the exchange feeds, come from quorum queues whose dead letters are kept at least once, which refuse
//! publishers instead of dropping, and which never give a message up on their own: a crash loop must not eat
//! jobs. Should the broker give one up all the same, because somebody has set a policy or another consumer
//! has rejected it, it goes to a queue of its own: a message there is one that nobody has taken in, and
//! the queue's length tells it without a look at any message. A queue that exists with other arguments stops the start, and is never changed.

use lapin::{
    Channel, Connection, ExchangeKind,
    options::{
        ExchangeDeclareOptions, ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions,
        QueueDeleteOptions,
    },
    types::{AMQPValue, FieldTable},
};

use super::{BrokerError, within};
use crate::config::BrokerConfig;

/// The argument that says how often a message may come back.
const DELIVERY_LIMIT: &str = "x-delivery-limit";

/// As often as need be: more often than a message can come back in a century. RabbitMQ 4 also has -1
/// for "no limit", and otherwise limits to 20; RabbitMQ 3 takes -1 as well, but as a limit that is
/// passed at once, and dead-letters a message that comes back for the first time. This number means
/// the same to both, and needs no other declaration when the broker is upgraded.
const DELIVERY_LIMIT_NEVER_REACHED: i32 = i32::MAX;

/// What a queue binds with to hear everything of a topic exchange.
const EVERY_KEY: &str = "#";

struct Declared<'a> {
    connection: &'a Connection,
    config: &'a BrokerConfig,
}

/// Declares everything that the daemon needs. Answers what there is now, a line for each.
///
/// # Errors
/// [`BrokerError::Differs`] when something exists with other settings.
pub async fn declare(
    connection: &Connection,
    config: &BrokerConfig,
) -> Result<Vec<String>, BrokerError> {
    let this = Declared { connection, config };
    let mut lines = vec![
        this.exchange(&config.dead_letter_exchange, &ExchangeKind::Direct).await?,
        this.exchange(&config.outcomes_exchange, &ExchangeKind::Topic).await?,
    ];
    for queue in config.queues() {
        let (dead, dropped) = (BrokerConfig::dead_queue(queue), BrokerConfig::dropped_queue(queue));
        lines.push(this.queue(&dead, &[]).await?);
        lines.push(this.bind(&dead, &config.dead_letter_exchange, queue).await?);
        lines.push(this.queue(&dropped, &[]).await?);
        lines.push(this.bind(&dropped, &config.dead_letter_exchange, &dropped).await?);
        let dead_lettering = [
            ("x-dead-letter-exchange", config.dead_letter_exchange.as_str()),
            ("x-dead-letter-routing-key", dropped.as_str()),
            ("x-dead-letter-strategy", "at-least-once"),
            ("x-overflow", "reject-publish"),
        ];
        lines.push(this.queue(queue, &dead_lettering).await?);
    }
    Ok(lines)
}

/// Declares a queue that takes every outcome, as an exchange would for itself. Answers its name.
///
/// # Errors
/// [`BrokerError`].
pub async fn declare_outcomes_queue(
    connection: &Connection,
    config: &BrokerConfig,
) -> Result<String, BrokerError> {
    let this = Declared { connection, config };
    let queue = format!("{}.heard", config.outcomes_exchange);
    this.queue(&queue, &[]).await?;
    this.bind(&queue, &config.outcomes_exchange, EVERY_KEY).await?;
    Ok(queue)
}

/// Removes queues and exchanges with everything in them; those that are not there are no fault.
///
/// # Errors
/// [`BrokerError`].
pub async fn remove(
    connection: &Connection,
    config: &BrokerConfig,
    further_queues: &[&str],
) -> Result<(), BrokerError> {
    let this = Declared { connection, config };
    let further = further_queues.iter().copied().map(str::to_owned);
    for queue in further.chain(all_queues(config)) {
        let channel = this.channel().await?;
        let call = channel.queue_delete(queue.as_str().into(), QueueDeleteOptions::default());
        this.answer(call, &format!("queue {queue}"), "").await?;
    }
    for exchange in [&config.outcomes_exchange, &config.dead_letter_exchange] {
        let channel = this.channel().await?;
        let options = ExchangeDeleteOptions::default();
        let call = channel.exchange_delete(exchange.as_str().into(), options);
        this.answer(call, &format!("exchange {exchange}"), "").await?;
    }
    Ok(())
}

/// Looks whether everything that the daemon needs is there, without the right to declare it. What
/// arguments it has cannot be seen that way.
///
/// # Errors
/// [`BrokerError`] when the broker cannot be asked.
pub async fn check(
    connection: &Connection,
    config: &BrokerConfig,
) -> Result<Vec<Result<String, BrokerError>>, BrokerError> {
    let this = Declared { connection, config };
    let mut lines = Vec::new();
    for (name, kind) in [
        (&config.dead_letter_exchange, ExchangeKind::Direct),
        (&config.outcomes_exchange, ExchangeKind::Topic),
    ] {
        let options = ExchangeDeclareOptions { passive: true, ..durable_exchange() };
        let what = format!("exchange {name}");
        let channel = this.channel().await?;
        let call =
            channel.exchange_declare(name.as_str().into(), kind, options, FieldTable::default());
        lines.push(this.answer(call, &what, "").await.map(|()| what));
    }
    for name in all_queues(config) {
        let options = QueueDeclareOptions { passive: true, ..durable_queue() };
        let what = format!("queue {name}");
        let channel = this.channel().await?;
        let call = channel.queue_declare(name.as_str().into(), options, FieldTable::default());
        lines.push(this.answer(call, &what, "").await.map(|queue| {
            format!(
                "{what}: {} messages, {} consumers",
                queue.message_count(),
                queue.consumer_count()
            )
        }));
    }
    Ok(lines)
}

/// Every queue that is consumed, each with what goes wrong with it before it.
fn all_queues(config: &BrokerConfig) -> Vec<String> {
    let of = |queue: &str| {
        [BrokerConfig::dead_queue(queue), BrokerConfig::dropped_queue(queue), queue.to_owned()]
    };
    config.queues().flat_map(of).collect()
}

fn durable_exchange() -> ExchangeDeclareOptions {
    ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() }
}

fn durable_queue() -> QueueDeclareOptions {
    QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() }
}

impl Declared<'_> {
    /// A channel of its own for each question, because the broker closes it with a refusal.
    async fn channel(&self) -> Result<Channel, BrokerError> {
        let limit = self.config.call_timeout();
        within(limit, "opening a channel", self.connection.create_channel()).await
    }

    async fn answer<T>(
        &self,
        call: impl Future<Output = Result<T, lapin::Error>>,
        what: &str,
        wanted: &str,
    ) -> Result<T, BrokerError> {
        let doing = format!("declaring {what}");
        match tokio::time::timeout(self.config.call_timeout(), call).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(BrokerError::of(&error, &doing, what, wanted)),
            Err(_) => Err(BrokerError::lost(&doing, "no answer in time")),
        }
    }

    async fn exchange(&self, name: &str, kind: &ExchangeKind) -> Result<String, BrokerError> {
        let wanted = format!("a durable {} exchange", kind_word(kind));
        let channel = self.channel().await?;
        let call = channel.exchange_declare(
            name.into(),
            kind.clone(),
            durable_exchange(),
            FieldTable::default(),
        );
        self.answer(call, &format!("exchange {name}"), &wanted).await?;
        Ok(format!("exchange {name}: {wanted}"))
    }

    async fn bind(&self, queue: &str, exchange: &str, key: &str) -> Result<String, BrokerError> {
        let what = format!("binding {exchange} → {queue} with key {key}");
        let channel = self.channel().await?;
        let call = channel.queue_bind(
            queue.into(),
            exchange.into(),
            key.into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        );
        self.answer(call, &what, "").await?;
        Ok(what)
    }

    /// A durable quorum queue that never gives a message up.
    async fn queue(&self, name: &str, arguments: &[(&str, &str)]) -> Result<String, BrokerError> {
        let mut table = FieldTable::default();
        let mut said = vec!["x-queue-type=quorum".to_owned()];
        table.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        table.insert(DELIVERY_LIMIT.into(), AMQPValue::LongInt(DELIVERY_LIMIT_NEVER_REACHED));
        said.push(format!("{DELIVERY_LIMIT}={DELIVERY_LIMIT_NEVER_REACHED}"));
        for (key, value) in arguments {
            table.insert((*key).into(), AMQPValue::LongString((*value).into()));
            said.push(format!("{key}={value}"));
        }
        let wanted = format!("a durable queue with {}", said.join(", "));
        let channel = self.channel().await?;
        let call = channel.queue_declare(name.into(), durable_queue(), table);
        self.answer(call, &format!("queue {name}"), &wanted).await?;
        Ok(format!("queue {name}: {wanted}"))
    }
}

fn kind_word(kind: &ExchangeKind) -> &str {
    match kind {
        ExchangeKind::Direct => "direct",
        ExchangeKind::Fanout => "fanout",
        ExchangeKind::Headers => "headers",
        ExchangeKind::Topic => "topic",
        ExchangeKind::Custom(word) => word.as_str(),
    }
}
