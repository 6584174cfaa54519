//! RabbitMQ: the only room that speaks AMQP.
//!
//! The client library's own recovery is off: any error, end of stream or silence ends a session, and
//! the loops that use sessions open a new one, for ever. Consuming and publishing have a connection
//! each, so that a blocked publisher does not stop acknowledgements. Every call has a time limit.
//!
//! What must never happen here: an acknowledgement that the pipeline did not ask for; a reject, which
//! would let the broker decide about a message; a password in a log or an error.

mod consumer;
mod link;
mod publisher;
mod topology;

use std::{future::Future, time::Duration};

use lapin::{
    Connection, ConnectionProperties, ErrorKind,
    protocol::{AMQPErrorKind, AMQPSoftError},
    uri::AMQPUri,
};

use crate::config::BrokerConfig;

pub use consumer::{ConsumerSession, Consuming, Delivery};
pub use link::Link;
pub use publisher::{Outgoing, PublishOutcome, PublisherSession};
pub use topology::{check, declare, declare_outcomes_queue, remove};

/// AMQP's code for a normal close.
const REPLY_SUCCESS: u16 = 200;

/// Largest frame of a connection that publishes, in bytes. The library has room for 32 frames in each direction of
/// a connection, and RabbitMQ's own bound of 128 KiB would make that 8 MiB. A body takes as many frames as it needs;
/// headers must fit into one, and ours are far shorter.
const PUBLISHER_FRAME_BYTES_MAX: u32 = 16 * 1_024;

/// What went wrong with the broker, by what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// Exit: the configuration cannot work.
    #[error("broker.url cannot be used: {0} is no amqp:// or amqps:// URL")]
    BadUrl(String),
    /// Exit: the password file cannot be read.
    #[error("broker.password_file: {0}")]
    Password(#[from] crate::secret_file::SecretFileError),
    /// Exit: a queue or exchange exists with other settings than the daemon needs (406).
    #[error(
        "{what} exists with other settings than settled needs, and nothing was changed.\n  \
         settled declares: {wanted}\n  the broker says:  {difference}\n  \
         Delete it once it is empty, or adapt it with a policy, and start again"
    )]
    Differs {
        /// The queue, exchange or binding.
        what: String,
        /// As the daemon declares it.
        wanted: String,
        /// What the broker said.
        difference: String,
    },
    /// Exit or doctor: a queue or exchange is missing (404).
    #[error("{what} does not exist: run `settled topology`, or set broker.declare = true")]
    Missing {
        /// The queue or exchange.
        what: String,
    },
    /// Exit or doctor: the user may not do this (403).
    #[error("the broker's user may not {doing}: {reason}")]
    NotAllowed {
        /// What was being done.
        doing: String,
        /// What the broker said.
        reason: String,
    },
    /// Retry: the session is over.
    #[error("{doing} failed: {reason}")]
    Lost {
        /// What was being done.
        doing: String,
        /// What happened.
        reason: String,
    },
}

impl BrokerError {
    /// Whether another session may do better without anyone changing anything.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        matches!(self, Self::Lost { .. })
    }

    pub(crate) fn lost(doing: &str, reason: impl Into<String>) -> Self {
        Self::Lost { doing: doing.to_owned(), reason: reason.into() }
    }

    /// Reads an error of the client library about `what`.
    fn of(error: &lapin::Error, doing: &str, what: &str, wanted: &str) -> Self {
        if let ErrorKind::ProtocolError(amqp) = error.kind() {
            let reason = amqp.get_message().to_string();
            if let AMQPErrorKind::Soft(soft) = amqp.kind() {
                match soft {
                    AMQPSoftError::PRECONDITIONFAILED => {
                        return Self::Differs {
                            what: what.to_owned(),
                            wanted: wanted.to_owned(),
                            difference: reason,
                        };
                    }
                    AMQPSoftError::NOTFOUND => {
                        return Self::Missing { what: what.to_owned() };
                    }
                    AMQPSoftError::ACCESSREFUSED => {
                        return Self::NotAllowed { doing: doing.to_owned(), reason };
                    }
                    AMQPSoftError::CONTENTTOOLARGE
                    | AMQPSoftError::NOCONSUMERS
                    | AMQPSoftError::NOROUTE
                    | AMQPSoftError::RESOURCELOCKED => {}
                }
            }
        }
        Self::lost(doing, error.to_string())
    }
}

/// Puts a time limit on a call to the broker.
async fn within<T>(
    limit: Duration,
    doing: &str,
    call: impl Future<Output = Result<T, lapin::Error>>,
) -> Result<T, BrokerError> {
    match tokio::time::timeout(limit, call).await {
        Ok(Ok(value)) => Ok(value),
        // What the broker says names the queue or exchange that it is about.
        Ok(Err(error)) => Err(BrokerError::lost(doing, error.to_string())),
        Err(_) => Err(BrokerError::lost(doing, format!("no answer within {limit:?}"))),
    }
}

/// Connects to the broker. `purpose` is shown in its own listings.
///
/// # Errors
/// [`BrokerError`], without the password.
pub async fn connect(config: &BrokerConfig, purpose: &str) -> Result<Link, BrokerError> {
    // The largest frame is left to the broker: headers come in one, as large as it let somebody else make them, and
    // a larger one than was agreed would end each session that it is delivered to.
    open_link(config, purpose, None).await
}

/// Connects to the broker to publish.
async fn connect_to_publish(config: &BrokerConfig) -> Result<Link, BrokerError> {
    open_link(config, "publisher", Some(PUBLISHER_FRAME_BYTES_MAX)).await
}

async fn open_link(
    config: &BrokerConfig,
    purpose: &str,
    frame_bytes_max: Option<u32>,
) -> Result<Link, BrokerError> {
    // The library's own message would repeat the URL, and with it the password.
    let bad_url = |_| BrokerError::BadUrl(config.url.to_string());
    let mut uri: AMQPUri = config.url.expose().parse().map_err(bad_url)?;
    if let Some(file) = &config.password_file {
        crate::secret_file::read(file)?.as_str().clone_into(&mut uri.authority.userinfo.password);
    }
    uri.query.heartbeat = Some(config.heartbeat_s);
    // Zero is AMQP's word for no bound.
    let bounds = uri.query.frame_max.into_iter().chain(frame_bytes_max);
    uri.query.frame_max = bounds.filter(|bytes| *bytes > 0).min();
    crate::tls::use_ring();
    let properties = ConnectionProperties::default()
        .with_connection_name(format!("settled {purpose} (process {})", std::process::id()).into());
    let limit = Duration::from_millis(config.connect_timeout_ms);
    Link::open(uri, properties, limit).await
}

/// Connects for a moment and declares everything that the daemon needs. Answers what there is now, a
/// line for each.
///
/// # Errors
/// [`BrokerError::Differs`] when something exists with other settings.
pub async fn connect_and_declare(config: &BrokerConfig) -> Result<Vec<String>, BrokerError> {
    let connection = connect(config, "topology").await?;
    let declared = declare(&connection, config).await;
    close(&connection, config.call_timeout()).await;
    declared
}

/// Ends a connection politely, but does not wait long for it.
pub async fn close(connection: &Connection, limit: Duration) {
    // What a blocked connection would say is not sent; it ends with its socket.
    if connection.status().blocked() {
        return;
    }
    if let Err(error) =
        within(limit, "closing the connection", connection.close(REPLY_SUCCESS, "OK".into())).await
    {
        tracing::debug!(%error, "a connection to the broker did not close politely");
    }
}
