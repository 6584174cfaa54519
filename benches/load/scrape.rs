//! What the daemon counts itself.

use std::collections::BTreeMap;

use crate::{bench::Commits, server::client};

/// One look at its metrics.
pub(crate) struct Scrape {
    values: BTreeMap<String, f64>,
}

impl Scrape {
    pub(crate) async fn of(port: u16) -> anyhow::Result<Self> {
        let url = format!("http://127.0.0.1:{port}/metrics");
        let text = client()?.get(url).send().await?.error_for_status()?.text().await?;
        let values = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| {
                let (name, value) = line.rsplit_once(' ')?;
                Some((name.to_owned(), value.parse().ok()?))
            })
            .collect();
        Ok(Self { values })
    }

    pub(crate) fn value(&self, name: &str) -> f64 {
        self.values.get(name).copied().unwrap_or_default()
    }

    pub(crate) fn commits(&self, jobs: u64) -> Commits {
        let commands = "settled_writer_batch_commands";
        let duration = "settled_writer_commit_duration_seconds";
        let commits = self.value(&format!("{commands}_count")).max(1.0);
        let bucket = format!("{commands}_bucket{{le=\"");
        let mut up_to: Vec<(String, u64)> = self
            .values
            .iter()
            .filter_map(|(name, count)| {
                let bound = name.strip_prefix(&bucket)?.strip_suffix("\"}")?;
                Some((bound.to_owned(), *count as u64))
            })
            .collect();
        up_to.sort_by_key(|(_, count)| *count);
        Commits {
            per_job: commits / jobs as f64,
            commands_mean: self.value(&format!("{commands}_sum")) / commits,
            commands_up_to: up_to,
            duration_mean_ms: self.value(&format!("{duration}_sum")) / commits * 1e3,
        }
    }
}
