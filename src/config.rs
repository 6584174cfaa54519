//! The configuration: one TOML file, every key of which can be set from the environment.
//!
//! `SETTLED__SECTION__KEY` overrides `section.key`. Unknown keys are refused, in the file and in the
//! environment. Secrets are named by file; the broker's URL may hold a password and is never shown
//! with it. Durations and sizes carry their unit in the key.

mod alerts;
mod book;
mod broker;
mod compare;
mod defaults;
mod traces;

use std::{
    collections::HashMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;

use crate::{
    domain::{
        decimals::AmountForm,
        schedule::{RetryLimits, Schedule},
        verification::Verification,
    },
    pipeline::decide::Conditions,
};

pub use alerts::{AlertsConfig, PrivateUrl};
pub use book::BookConfig;
pub use broker::BrokerUrl;
pub use compare::ReconcileConfig;
pub use traces::TracesConfig;

/// Prefix of the environment variables that override keys.
pub const ENVIRONMENT_PREFIX: &str = "SETTLED";

/// The file that is read when none is named and it exists.
pub const DEFAULT_FILE: &str = "settled.toml";

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file that was named is not there.
    #[error("there is no configuration file {0}: copy config/settled.example.toml and adapt it")]
    Missing(PathBuf),
    /// A key is unknown, of the wrong type, or the file is not TOML.
    #[error("the configuration cannot be read: {0}")]
    Unreadable(String),
    /// Values that cannot work.
    #[error("the configuration cannot work:\n  - {}", .0.join("\n  - "))]
    Unusable(Vec<String>),
}

impl From<config::ConfigError> for ConfigError {
    /// Without the lines of the file that the parser shows: they may hold a password.
    fn from(error: config::ConfigError) -> Self {
        let text = error.to_string();
        let shows_the_file = |line: &str| {
            line.trim_start_matches(|c: char| c.is_ascii_digit() || c == ' ').starts_with('|')
        };
        let told: Vec<&str> = text
            .lines()
            .filter(|line| !shows_the_file(line) && !line.trim().is_empty())
            .map(str::trim)
            .collect();
        Self::Unreadable(told.join("; "))
    }
}

/// Everything that can be configured.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The database.
    pub store: StoreConfig,
    /// RabbitMQ.
    pub broker: BrokerConfig,
    /// OES.
    pub oes: OesConfig,
    /// The signing key.
    pub signer: SignerConfig,
    /// The decision.
    pub decide: DecideConfig,
    /// Trying again.
    pub retry: RetryConfig,
    /// The book's connections and currencies.
    pub book: BookConfig,
    /// Comparing the book with OES.
    pub reconcile: ReconcileConfig,
    /// The writer.
    pub writer: WriterConfig,
    /// Archives.
    pub archive: ArchiveConfig,
    /// The HTTP listener.
    pub http: HttpConfig,
    /// What operators may do.
    pub operator: OperatorConfig,
    /// What counts as stuck.
    pub health: HealthConfig,
    /// Built-in alerts.
    pub alerts: AlertsConfig,
    /// The end.
    pub shutdown: ShutdownConfig,
    /// Logs.
    pub log: LogConfig,
    /// Spans for a collector.
    pub traces: TracesConfig,
}

/// The database.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreConfig {
    /// The database file. A lock file and a control socket stand beside it.
    pub path: PathBuf,
    /// Where it is noted how far the book has signed; not in the book's backup.
    pub mark_path: Option<PathBuf>,
}

/// RabbitMQ.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BrokerConfig {
    /// Where it is, with user and virtual host.
    pub url: BrokerUrl,
    /// A file with the password, which replaces the one in the URL.
    pub password_file: Option<PathBuf>,
    /// Whether `settled run` declares queues and exchanges.
    pub declare: bool,
    /// The queue that jobs come from.
    pub jobs_queue: String,
    /// The queue that the exchange feeds the book through; without one there is no feed.
    pub book_queue: Option<String>,
    /// The exchange that outcomes go to.
    pub outcomes_exchange: String,
    /// The exchange that bad messages go to.
    pub dead_letter_exchange: String,
    /// Most deliveries that are unacknowledged at a time.
    pub prefetch: u16,
    /// Heartbeat; a dead peer is noticed after twice this time.
    pub heartbeat_s: u16,
    /// Limit on connecting.
    pub connect_timeout_ms: u64,
    /// Limit on every other call.
    pub call_timeout_ms: u64,
    /// How often the consumer's channel is checked by asking for its queue.
    pub watchdog_s: u64,
    /// First delay before connecting again.
    pub reconnect_base_ms: u64,
    /// Longest delay before connecting again.
    pub reconnect_max_ms: u64,
}

/// How requests to OES are authenticated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuthStyle {
    /// `Authorization: Bearer <token>`.
    #[default]
    Bearer,
    /// The SDK's way, for tokens that begin with `v2x`: a hash of the token and an HMAC.
    Hmac,
}

/// OES.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OesConfig {
    /// Scheme and host, e.g. `https://app.bitgo.com`.
    pub base_url: Option<String>,
    /// The partner's enterprise.
    pub enterprise_id: Option<String>,
    /// A file with the access token.
    pub access_token_file: Option<PathBuf>,
    /// How requests are authenticated.
    pub auth: AuthStyle,
    /// How reads give amounts to this partner.
    pub amounts: AmountForm,
    /// Whether `http://` to another machine is allowed.
    pub allow_plain_http: bool,
    /// Limit on connecting.
    pub connect_timeout_ms: u64,
    /// Limit on a whole request.
    pub request_timeout_ms: u64,
    /// Largest answer that is read.
    pub response_bytes_max: usize,
    /// Most updates that are under way at a time.
    pub in_flight_max: usize,
    /// Requests that OES allows in a window.
    pub rate_limit: u32,
    /// The window.
    pub rate_window_s: u64,
    /// How many of them may go at once.
    pub rate_burst: u32,
}

/// The signing key.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SignerConfig {
    /// A file with an `xprv` or 64 hexadecimal characters.
    pub key_file: Option<PathBuf>,
    /// The compressed public key that it must have.
    pub expected_public_key: Option<String>,
}

/// The decision.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DecideConfig {
    /// How long a job for an unknown connection waits before it is released.
    pub unknown_connection_grace_s: u64,
    /// Whether a job is decided only after OES's record agrees with its message.
    pub verify_with_oes: bool,
}

/// Trying again.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetryConfig {
    /// First delay.
    pub base_ms: u64,
    /// Longest delay.
    pub max_ms: u64,
    /// Attempts after which a job is parked.
    pub attempts_max: u32,
    /// Age after which a job is parked instead of tried again.
    pub age_max_s: u64,
    /// Attempts answered 404 after which a job is parked.
    pub not_found_attempts_max: u32,
    /// Reads that do not find the record after which a job is parked.
    pub absent_reads_max: u32,
    /// How often a record that waits for an approval at OES is read.
    pub approval_read_every_s: u64,
    /// How often a record that waits for an operator is read.
    pub slow_read_every_s: u64,
}

/// The writer.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WriterConfig {
    /// Most commands that share a commit.
    pub batch_max: usize,
    /// Most commands that wait.
    pub queue_len_max: usize,
    /// How long a change that nobody waits for may wait for company.
    pub lazy_ms: u64,
}

/// Archives.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ArchiveConfig {
    /// The file that the rows of old jobs go to; without one they stay in the book.
    pub path: Option<PathBuf>,
    /// How long a job has been final before its rows go.
    pub after_days: u32,
    /// How often the daemon looks for such jobs.
    pub every_s: u64,
}

/// What operators may do.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OperatorConfig {
    /// How long after one operator's word about the end of a record another one's counts.
    pub confirm_within_s: u64,
}

/// The HTTP listener.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpConfig {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Who may use the API and the page, with a hash of each one's token; without it there is neither.
    pub tokens_file: Option<PathBuf>,
    /// Whether there is a page for operators.
    pub page: bool,
    /// Whether browsers come over TLS, through a proxy: what they keep is then never sent in the clear.
    pub behind_tls: bool,
}

/// What counts as stuck.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HealthConfig {
    /// How long a part may be at one thing that has a time limit of its own.
    pub stuck_after_s: u64,
}

/// The end.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ShutdownConfig {
    /// How long what is in flight may take to finish.
    pub grace_s: u64,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Logs.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// How lines look.
    pub format: LogFormat,
    /// What is logged: a level, or directives as of `tracing-subscriber`'s `EnvFilter`.
    pub filter: String,
}

impl Config {
    /// Reads the file, if one is named or the default one exists, and the environment over it.
    ///
    /// # Errors
    /// [`ConfigError`], which names the key.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        Self::load_with(file, None)
    }

    /// As [`Config::load`], with a given environment instead of the process's.
    ///
    /// # Errors
    /// [`ConfigError`], which names the key.
    pub fn load_with(
        file: Option<&Path>,
        environment: Option<HashMap<String, String>>,
    ) -> Result<Self, ConfigError> {
        let mut builder = config::Config::builder();
        match file {
            Some(file) if !file.exists() => return Err(ConfigError::Missing(file.to_owned())),
            Some(file) => {
                builder = builder.add_source(
                    config::File::from(file).format(config::FileFormat::Toml).required(true),
                );
            }
            None => {
                builder = builder.add_source(
                    config::File::new(DEFAULT_FILE, config::FileFormat::Toml).required(false),
                );
            }
        }
        let environment = environment.map(|map| map.into_iter().collect());
        let config: Self = builder
            .add_source(
                config::Environment::with_prefix(ENVIRONMENT_PREFIX)
                    .prefix_separator("__")
                    .separator("__")
                    .source(environment),
            )
            .build()?
            .try_deserialize()?;
        config.check()?;
        Ok(config)
    }

    /// Refuses values with which the daemon would stand still or fall over.
    fn check(&self) -> Result<(), ConfigError> {
        let mut problems = Vec::new();
        let url = self.broker.url.expose();
        if !(url.starts_with("amqp://") || url.starts_with("amqps://")) {
            problems.push("broker.url must begin with amqp:// or amqps://".to_owned());
        }
        let mut positive = |key: &str, value: u64| {
            if value == 0 {
                problems.push(format!("{key} is 0, and must be at least 1"));
            }
        };
        let wide = |value: usize| u64::try_from(value).unwrap_or(u64::MAX);
        positive("broker.prefetch", self.broker.prefetch.into());
        positive("broker.heartbeat_s", self.broker.heartbeat_s.into());
        positive("broker.connect_timeout_ms", self.broker.connect_timeout_ms);
        positive("broker.call_timeout_ms", self.broker.call_timeout_ms);
        positive("broker.watchdog_s", self.broker.watchdog_s);
        positive("broker.reconnect_base_ms", self.broker.reconnect_base_ms);
        positive("oes.connect_timeout_ms", self.oes.connect_timeout_ms);
        positive("oes.request_timeout_ms", self.oes.request_timeout_ms);
        positive("oes.response_bytes_max", wide(self.oes.response_bytes_max));
        positive("oes.in_flight_max", wide(self.oes.in_flight_max));
        positive("oes.rate_limit", self.oes.rate_limit.into());
        positive("oes.rate_window_s", self.oes.rate_window_s);
        positive("oes.rate_burst", self.oes.rate_burst.into());
        positive("retry.base_ms", self.retry.base_ms);
        positive("retry.attempts_max", self.retry.attempts_max.into());
        positive("retry.approval_read_every_s", self.retry.approval_read_every_s);
        positive("retry.slow_read_every_s", self.retry.slow_read_every_s);
        positive("writer.batch_max", wide(self.writer.batch_max));
        positive("writer.queue_len_max", wide(self.writer.queue_len_max));
        positive("operator.confirm_within_s", self.operator.confirm_within_s);
        positive("archive.every_s", self.archive.every_s);
        positive("health.stuck_after_s", self.health.stuck_after_s);
        positive("shutdown.grace_s", self.shutdown.grace_s);
        positive("reconcile.range_s", self.reconcile.range_s);
        if self.oes.rate_burst >= self.oes.rate_limit && self.oes.rate_limit > 0 {
            problems.push(format!(
                "oes.rate_burst is {} and oes.rate_limit is {}: the burst must be smaller, because \
                 what is left of the limit is spread over the window",
                self.oes.rate_burst, self.oes.rate_limit
            ));
        }
        let longest_call_s =
            self.oes.request_timeout_ms.max(self.broker.connect_timeout_ms) / 1_000;
        if self.health.stuck_after_s <= longest_call_s {
            problems.push(format!(
                "health.stuck_after_s is {}, and one call may take {longest_call_s} s by its own limit",
                self.health.stuck_after_s
            ));
        }
        if self.retry.max_ms < self.retry.base_ms {
            problems.push("retry.max_ms is below retry.base_ms".to_owned());
        }
        if self.broker.reconnect_max_ms < self.broker.reconnect_base_ms {
            problems.push("broker.reconnect_max_ms is below broker.reconnect_base_ms".to_owned());
        }
        problems.extend(self.broker.bad_names());
        problems.extend(self.alerts.problems());
        problems.extend(self.traces.problems());
        if problems.is_empty() { Ok(()) } else { Err(ConfigError::Unusable(problems)) }
    }
}

impl Config {
    /// When a job may be decided.
    #[must_use]
    pub fn conditions(&self) -> Conditions {
        Conditions {
            grace: Duration::from_secs(self.decide.unknown_connection_grace_s),
            verification: Verification {
                is_required: self.decide.verify_with_oes,
                amounts: self.oes.amounts,
            },
            slow_read_every: Duration::from_secs(self.retry.slow_read_every_s),
            sequence_wait_max: Duration::from_secs(self.book.sequence_wait_max_s),
        }
    }
}

impl RetryConfig {
    /// The bounds of retrying as the domain has them.
    #[must_use]
    pub fn limits(&self) -> RetryLimits {
        RetryLimits {
            schedule: Schedule::new(
                Duration::from_millis(self.base_ms),
                Duration::from_millis(self.max_ms),
            ),
            attempts_max: self.attempts_max,
            age_max: Duration::from_secs(self.age_max_s),
            not_found_attempts_max: self.not_found_attempts_max,
            absent_reads_max: self.absent_reads_max,
            approval_read_every: Duration::from_secs(self.approval_read_every_s),
            slow_read_every: Duration::from_secs(self.slow_read_every_s),
        }
    }
}

#[cfg(test)]
mod tests;
