//! Logs, set up once at the start.

use std::{
    collections::VecDeque,
    fmt::Write as _,
    sync::{Mutex, PoisonError},
};

use serde::Serialize;
use tracing::{
    Level,
    field::{Field, Visit},
};
use tracing_subscriber::{
    EnvFilter, Layer, filter::filter_fn, fmt, layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

use crate::{
    clock::{Clock as _, SystemClock},
    config::{LogConfig, LogFormat},
    domain::time::TimestampMs,
};

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

/// Most warnings and errors that are kept to be shown.
const PROBLEMS_KEPT_MAX: usize = 50;
/// Longest line that is kept, in bytes.
const PROBLEM_BYTES_MAX: usize = 1_024;

/// A warning or an error that was logged.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// When.
    pub at_ms: TimestampMs,
    /// `WARN` or `ERROR`.
    pub level: &'static str,
    /// What, with its fields.
    pub text: String,
}

static PROBLEMS: Mutex<VecDeque<Problem>> = Mutex::new(VecDeque::new());

/// The last warnings and errors of this process, the latest first.
#[must_use]
pub fn recent_problems() -> Vec<Problem> {
    PROBLEMS.lock().unwrap_or_else(PoisonError::into_inner).iter().rev().cloned().collect()
}

/// Keeps the last warnings and errors, so that they can be shown without the log.
struct Remember;

impl<S: tracing::Subscriber> Layer<S> for Remember {
    fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        let level = match *event.metadata().level() {
            Level::ERROR => "ERROR",
            Level::WARN => "WARN",
            Level::INFO | Level::DEBUG | Level::TRACE => return,
        };
        let mut line = Line::default();
        event.record(&mut line);
        let mut text = format!("{}{}", line.message, line.fields);
        text.truncate(text.floor_char_boundary(PROBLEM_BYTES_MAX));
        let mut problems = PROBLEMS.lock().unwrap_or_else(PoisonError::into_inner);
        if problems.len() >= PROBLEMS_KEPT_MAX {
            problems.pop_front();
        }
        problems.push_back(Problem { at_ms: SystemClock.now(), level, text });
    }
}

/// An event as one line.
#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        // Writing to a string does not fail.
        let _written = if field.name() == "message" {
            write!(self.message, "{value:?}")
        } else {
            write!(self.fields, " {}={value:?}", field.name())
        };
    }
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
    let registry = tracing_subscriber::registry().with(filter).with(allowed).with(Remember);
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
