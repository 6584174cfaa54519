//! Where spans go, and how much may wait for that.

use std::{path::PathBuf, time::Duration};

use serde::Deserialize;

use super::PrivateUrl;

/// Traces for an OpenTelemetry collector.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TracesConfig {
    /// Where spans are sent; without it there are none.
    pub endpoint: Option<PrivateUrl>,
    /// A file with headers of each request, such as a token.
    pub headers_file: Option<PathBuf>,
    /// Whether `http://` to another machine is allowed.
    pub allow_plain_http: bool,
    /// The share of jobs whose traces are exported.
    pub sample_ratio: f64,
    /// What the daemon is called in the viewer.
    pub service_name: String,
    /// How long a span waits for company.
    pub every_ms: u64,
    /// Most steps that share a request.
    pub batch_len_max: usize,
    /// Most steps that wait.
    pub queue_len_max: usize,
    /// Limit on one request.
    pub timeout_ms: u64,
}

impl Default for TracesConfig {
    fn default() -> Self {
        Self {
            endpoint: None,
            headers_file: None,
            allow_plain_http: false,
            sample_ratio: 1.0,
            service_name: "settled".to_owned(),
            every_ms: 1_000,
            batch_len_max: 512,
            queue_len_max: 16_384,
            timeout_ms: 5_000,
        }
    }
}

impl TracesConfig {
    /// Limit on one request.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }

    /// What cannot work, a line for each.
    pub(super) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let wide = |value: usize| u64::try_from(value).unwrap_or(u64::MAX);
        for (key, value) in [
            ("traces.every_ms", self.every_ms),
            ("traces.batch_len_max", wide(self.batch_len_max)),
            ("traces.queue_len_max", wide(self.queue_len_max)),
            ("traces.timeout_ms", self.timeout_ms),
        ] {
            if value == 0 {
                problems.push(format!("{key} is 0, and must be at least 1"));
            }
        }
        // A request is kept whole in memory, and collectors refuse those of some megabytes.
        for (key, value, most) in [
            ("traces.batch_len_max", self.batch_len_max, BATCH_LEN_LIMIT),
            ("traces.queue_len_max", self.queue_len_max, QUEUE_LEN_LIMIT),
        ] {
            if value > most {
                problems.push(format!("{key} is {value}, and must be at most {most}"));
            }
        }
        if !(0.0..=1.0).contains(&self.sample_ratio) {
            problems.push(format!(
                "traces.sample_ratio is {}, and must be from 0.0 to 1.0",
                self.sample_ratio
            ));
        }
        problems
    }
}

/// Largest `batch_len_max`: spans of 400 bytes make a request of 1.6 MB.
const BATCH_LEN_LIMIT: usize = 4_096;

/// Largest `queue_len_max`: steps of 100 bytes take 100 MB.
const QUEUE_LEN_LIMIT: usize = 1_048_576;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_work_is_named() {
        let config = TracesConfig {
            sample_ratio: f64::NAN,
            batch_len_max: 0,
            queue_len_max: usize::MAX,
            ..TracesConfig::default()
        };
        let problems = config.problems().join("\n");
        for key in ["sample_ratio", "batch_len_max is 0", "queue_len_max is 18"] {
            assert!(problems.contains(key), "{key} is not in {problems}");
        }
        assert_eq!(TracesConfig::default().problems(), Vec::<String>::new());
    }
}
