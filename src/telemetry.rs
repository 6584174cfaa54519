//! Logs, set up once at the start.

use tracing_subscriber::{
    EnvFilter, filter::filter_fn, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

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

/// Crates that are never logged, whatever the filter says: the broker's client library logs the frames that
/// it sends, and with them the password, and whole messages. What it has to say reaches us as errors, which are
/// logged where they are handled.
const NEVER_LOGGED: [&str; 2] = ["lapin", "amq_protocol"];

/// Whether something may be logged at all.
fn may_be_logged(target: &str) -> bool {
    let of = |name: &str| target.strip_prefix(name).is_some_and(|rest| !rest.starts_with('_'));
    !NEVER_LOGGED.into_iter().any(of)
}

/// Sends logs to standard error, so that standard output stays for answers.
///
/// # Errors
/// [`TelemetryError`].
pub fn start(config: &LogConfig) -> Result<(), TelemetryError> {
    let filter = EnvFilter::try_new(&config.filter).map_err(|error| TelemetryError::BadFilter {
        filter: config.filter.clone(),
        reason: error.to_string(),
    })?;
    let allowed = filter_fn(|metadata| may_be_logged(metadata.target()));
    let registry = tracing_subscriber::registry().with(filter).with(allowed);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_log_the_password_is_never_logged() {
        for name in NEVER_LOGGED {
            assert!(!may_be_logged(name) && !may_be_logged(&format!("{name}::frames")), "{name}");
        }
        for target in ["settled", "settled::broker", "lapin_like", "hyper"] {
            assert!(may_be_logged(target), "{target}");
        }
    }
}
