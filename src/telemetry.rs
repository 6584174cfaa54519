//! Logs, set up once at the start.

use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _};

use crate::config::{LogConfig, LogFormat};

/// Why logs cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter is not one.
    #[error("log.filter {filter:?} is not a level or a list of directives: {reason}")]
    BadFilter {
        /// What is configured.
        filter: String,
        /// What is wrong with it.
        reason: String,
    },
    /// There are logs already.
    #[error("logs are set up already: {0}")]
    Twice(String),
}

/// The broker's client library logs whole messages when the broker returns them. What it has to say
/// reaches us as errors, which are logged where they are handled.
const QUIET: &str = "lapin";

/// Sends logs to standard error, so that standard output stays for answers.
///
/// # Errors
/// [`TelemetryError`].
pub fn start(config: &LogConfig) -> Result<(), TelemetryError> {
    let directives = if config.filter.contains(QUIET) {
        config.filter.clone()
    } else {
        format!("{},{QUIET}=off", config.filter)
    };
    let filter = EnvFilter::try_new(directives).map_err(|error| TelemetryError::BadFilter {
        filter: config.filter.clone(),
        reason: error.to_string(),
    })?;
    let registry = tracing_subscriber::registry().with(filter);
    let started = match config.format {
        LogFormat::Text => {
            let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
            registry
                .with(fmt::layer().with_writer(std::io::stderr).with_ansi(is_terminal))
                .try_init()
        }
        LogFormat::Json => registry
            .with(fmt::layer().json().flatten_event(true).with_writer(std::io::stderr))
            .try_init(),
    };
    started.map_err(|error| TelemetryError::Twice(error.to_string()))
}
