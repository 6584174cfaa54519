//! The ways by which people are told, as configured.

use std::{fmt, path::PathBuf, time::Duration};

use crate::{
    alerts::{command, webhook::Webhook},
    config::AlertsConfig,
    domain::time::TimestampMs,
    secret_file::SecretFileError,
    store::alerts::Channel,
};

/// Why a channel cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The address.
    #[error("{key} ({shown}) is no address that can be used: {reason}")]
    BadUrl {
        /// The key.
        key: &'static str,
        /// As much of it as may be shown.
        shown: String,
        /// What is wrong.
        reason: String,
    },
    /// There is none.
    #[error(
        "alerts.webhook_url is set and alerts.webhook_secret_file is not: without a secret the receiver \
         cannot know who sends notices"
    )]
    NoSecret,
    /// The secret that notices are signed with.
    #[error("alerts.webhook_secret_file: {0}")]
    Secret(#[from] SecretFileError),
    /// A secret that is too easy, or no base64.
    #[error("alerts.webhook_secret_file: {0}")]
    BadSecret(&'static str),
    /// The program.
    #[error("alerts.command: {program} cannot be run: {reason}")]
    BadProgram {
        /// Which.
        program: String,
        /// Why not.
        reason: String,
    },
    /// TLS or the client library.
    #[error("the HTTP client for alerts cannot be set up: {0}")]
    Client(String),
}

/// Why a notice did not arrive, or perhaps did: it is sent again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Undelivered(pub(super) String);

/// The channels that are configured.
pub struct Channels {
    webhook: Option<Webhook>,
    heartbeat: Option<Webhook>,
    command: Option<Vec<String>>,
    timeout: Duration,
}

impl fmt::Debug for Channels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channels").field("configured", &self.configured()).finish_non_exhaustive()
    }
}

impl Channels {
    /// The channels as configured. Reads the secret once, to see that it can be used.
    ///
    /// # Errors
    /// [`ChannelError`], which names the key.
    pub fn new(config: &AlertsConfig) -> Result<Self, ChannelError> {
        let timeout = Duration::from_millis(config.timeout_ms);
        let open = |key, url: &Option<_>| {
            let secret_file: Option<PathBuf> = config.webhook_secret_file.clone();
            url.as_ref().map(|url| Webhook::new(key, url, secret_file, timeout)).transpose()
        };
        if config.webhook_url.is_some() && config.webhook_secret_file.is_none() {
            return Err(ChannelError::NoSecret);
        }
        let command = (!config.command.is_empty()).then(|| config.command.clone());
        if let Some(program) = command.as_ref().and_then(|argv| argv.first()) {
            command::check(program)?;
        }
        Ok(Self {
            webhook: open("alerts.webhook_url", &config.webhook_url)?,
            heartbeat: open("alerts.heartbeat_url", &config.heartbeat_url)?,
            command,
            timeout,
        })
    }

    /// Those by which notices go.
    #[must_use]
    pub fn configured(&self) -> Vec<Channel> {
        Channel::ALL
            .into_iter()
            .filter(|channel| match channel {
                Channel::Webhook => self.webhook.is_some(),
                Channel::Command => self.command.is_some(),
            })
            .collect()
    }

    /// Whether a sign of life is sent.
    #[must_use]
    pub fn has_heartbeat(&self) -> bool {
        self.heartbeat.is_some()
    }

    /// Sends a notice by one of them, once. `id` stays the same when it is sent again.
    ///
    /// # Errors
    /// [`Undelivered`].
    pub async fn send(
        &self,
        channel: Channel,
        id: &str,
        body: &str,
        now: TimestampMs,
    ) -> Result<(), Undelivered> {
        match (channel, &self.webhook, &self.command) {
            (Channel::Webhook, Some(webhook), _) => webhook.send(id, body, now).await,
            (Channel::Command, _, Some(argv)) => command::run(argv, body, self.timeout).await,
            (Channel::Webhook, None, _) | (Channel::Command, _, None) => {
                Err(Undelivered("the channel is not configured any more".to_owned()))
            }
        }
    }

    /// Sends a sign of life.
    ///
    /// # Errors
    /// [`Undelivered`].
    pub async fn beat(&self, id: &str, body: &str, now: TimestampMs) -> Result<(), Undelivered> {
        match &self.heartbeat {
            Some(heartbeat) => heartbeat.send(id, body, now).await,
            None => Ok(()),
        }
    }
}
