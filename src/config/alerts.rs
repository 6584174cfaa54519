//! The alerts that are built in: what they fire at, and by which ways they are told.

use std::{fmt, path::PathBuf, time::Duration};

use serde::{Deserialize, Deserializer, de::Error as _};

use crate::domain::alert::{life::Pace, rules::Thresholds};

/// An address whose path may be all that protects what is behind it, as with chat services and dead-man
/// switches: only its scheme and host are ever shown.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct PrivateUrl(String);

impl PrivateUrl {
    /// All of it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for PrivateUrl {
    fn from(url: String) -> Self {
        Self(url)
    }
}

impl fmt::Display for PrivateUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((scheme, rest)) = self.0.split_once("://") else {
            return f.write_str("what is set");
        };
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        // What stands before the last `@` is a user, whatever it looks like.
        let host = authority.rsplit('@').next().unwrap_or_default();
        write!(f, "{scheme}://{host}")
    }
}

impl fmt::Debug for PrivateUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Built-in alerts.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AlertsConfig {
    /// How often the daemon looks.
    pub every_s: u64,
    /// Where notices are sent.
    pub webhook_url: Option<PrivateUrl>,
    /// A file with the secret that notices are signed with.
    pub webhook_secret_file: Option<PathBuf>,
    /// A program and its arguments that gets notices on its standard input.
    #[serde(deserialize_with = "list_or_json")]
    pub command: Vec<String>,
    /// Where a sign of life is sent.
    pub heartbeat_url: Option<PrivateUrl>,
    /// How often.
    pub heartbeat_every_s: u64,
    /// Limit on one request, or one run of the program.
    pub timeout_ms: u64,
    /// How long a notice that cannot be delivered is tried.
    pub give_up_after_s: u64,
    /// What comes and goes must hold for so long before it is told.
    pub hold_s: u64,
    /// It must be gone for so long before it is over.
    pub calm_s: u64,
    /// How often an alert that lasts is told again.
    pub repeat_every_s: u64,
    /// Age of a released record that OES has not confirmed.
    pub released_unconfirmed_age_s: u64,
    /// Age of an open job that nobody has to look at.
    pub oldest_job_age_s: u64,
    /// How long a job may wait for an operator's approval.
    pub approval_age_s: u64,
    /// Age of a job that waits for a policy approval at OES.
    pub awaiting_approval_age_s: u64,
    /// How long a message may wait to be published.
    pub unpublished_age_s: u64,
    /// Least room on each volume that is written to.
    pub free_bytes_min: u64,
    /// Largest log beside the database.
    pub log_bytes_max: u64,
    /// What notices call this daemon; the machine's name if empty.
    pub instance: String,
    /// Where the runbook is to be read.
    pub runbook_url: String,
}

impl Default for AlertsConfig {
    fn default() -> Self {
        Self {
            every_s: 15,
            webhook_url: None,
            webhook_secret_file: None,
            command: Vec::new(),
            heartbeat_url: None,
            heartbeat_every_s: 60,
            timeout_ms: 10_000,
            give_up_after_s: 86_400,
            hold_s: 60,
            calm_s: 60,
            repeat_every_s: 14_400,
            released_unconfirmed_age_s: 300,
            oldest_job_age_s: 900,
            approval_age_s: 1_800,
            awaiting_approval_age_s: 86_400,
            unpublished_age_s: 300,
            free_bytes_min: 1_024 * 1_024 * 1_024,
            log_bytes_max: 1_024 * 1_024 * 1_024,
            instance: String::new(),
            runbook_url: "docs/RUNBOOK.md".to_owned(),
        }
    }
}

impl AlertsConfig {
    /// The bounds as the domain has them.
    #[must_use]
    pub fn thresholds(&self) -> Thresholds {
        Thresholds {
            released_unconfirmed_age: Duration::from_secs(self.released_unconfirmed_age_s),
            oldest_job_age: Duration::from_secs(self.oldest_job_age_s),
            approval_age: Duration::from_secs(self.approval_age_s),
            awaiting_approval_age: Duration::from_secs(self.awaiting_approval_age_s),
            unpublished_age: Duration::from_secs(self.unpublished_age_s),
            free_bytes_min: self.free_bytes_min,
            log_bytes_max: self.log_bytes_max,
        }
    }

    /// The times that an alert's life goes by.
    #[must_use]
    pub fn pace(&self) -> Pace {
        Pace {
            hold: Duration::from_secs(self.hold_s),
            calm: Duration::from_secs(self.calm_s),
            repeat_every: Duration::from_secs(self.repeat_every_s),
        }
    }

    /// What cannot work, a line for each.
    pub(super) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for (key, value) in [
            ("alerts.every_s", self.every_s),
            ("alerts.heartbeat_every_s", self.heartbeat_every_s),
            ("alerts.timeout_ms", self.timeout_ms),
            ("alerts.repeat_every_s", self.repeat_every_s),
        ] {
            if value == 0 {
                problems.push(format!("{key} is 0, and must be at least 1"));
            }
        }
        for (key, url) in [
            ("alerts.webhook_url", &self.webhook_url),
            ("alerts.heartbeat_url", &self.heartbeat_url),
        ] {
            let is_http = |url: &PrivateUrl| {
                url.expose().starts_with("https://") || url.expose().starts_with("http://")
            };
            if url.as_ref().is_some_and(|url| !is_http(url)) {
                problems.push(format!("{key} must begin with https:// or http://"));
            }
        }
        if self.command.first().is_some_and(|program| !program.starts_with('/')) {
            problems.push("alerts.command must begin with the whole path of a program".to_owned());
        }
        problems
    }
}

/// A list, or, from the environment, the text of a JSON list.
fn list_or_json<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        List(Vec<String>),
        Text(String),
    }
    match Either::deserialize(deserializer) {
        Ok(Either::List(words)) => Ok(words),
        Ok(Either::Text(text)) => serde_json::from_str(&text).map_err(|_| {
            D::Error::custom(
                "command must be a list of words, such as [\"/usr/bin/page\", \"desk\"]",
            )
        }),
        Err(_) => Err(D::Error::custom("command must be a list of words")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_without_what_protects_it() {
        for (url, shown) in [
            ("https://hooks.example/T0/B1/secret", "https://hooks.example"),
            ("https://user:secret@hc.example:8443?key=secret", "https://hc.example:8443"),
            ("http://a@secret@host#secret", "http://host"),
            ("no-address-but-a-secret", "what is set"),
        ] {
            let url = PrivateUrl(url.to_owned());
            assert_eq!(format!("{url} {url:?}"), format!("{shown} {shown}"));
        }
    }

    #[test]
    fn what_cannot_work_is_named() {
        let config = AlertsConfig {
            webhook_url: Some(PrivateUrl("ftp://x".to_owned())),
            command: vec!["page".to_owned()],
            every_s: 0,
            ..AlertsConfig::default()
        };
        let problems = config.problems().join("\n");
        for part in ["alerts.every_s", "alerts.webhook_url must begin", "command"] {
            assert!(problems.contains(part), "{part} is not in {problems}");
        }
        assert_eq!(AlertsConfig::default().problems(), Vec::<String>::new());
    }
}
