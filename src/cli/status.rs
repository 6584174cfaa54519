//! `settled status`.

use std::{io::ErrorKind, path::Path};

use serde_json::{Value, json};
use tokio::net::UnixStream;

use super::output;
use crate::{
    clock::{Clock as _, SystemClock},
    config::Config,
    control::{Caller, ControlClient},
    domain::time::TimestampMs,
    operator::{self, Status},
    store::{lock::socket_path, open_readers},
};

pub(super) async fn run(config: &Config, caller: &Caller, json: bool) -> anyhow::Result<()> {
    let readers = open_readers(&config.store.path).await?;
    let daemon = daemon(&config.store.path, caller).await?;
    let status = operator::status(&readers, daemon, SystemClock.now()).await?;
    if json { output::json(&status) } else { show(&status) }
}

/// What the daemon says of its parts; nothing if none listens. The lock is not asked: a daemon that
/// starts at this moment would find it taken.
async fn daemon(path: &Path, caller: &Caller) -> anyhow::Result<Option<Value>> {
    let socket = socket_path(path)?;
    match UnixStream::connect(&socket).await {
        Err(error)
            if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) =>
        {
            return Ok(None);
        }
        Ok(_) | Err(_) => {}
    }
    let said = ControlClient::new(&socket, caller.clone())?.status().await;
    Ok(Some(said.unwrap_or_else(|error| {
        let part = json!({"name": "daemon", "ready": false, "detail": error.to_string()});
        json!({"ready": false, "parts": [part]})
    })))
}

fn show(status: &Status) -> anyhow::Result<()> {
    let now = status.at_ms;
    match &status.daemon {
        None => output::line("daemon: not running on this book")?,
        Some(readiness) => show_parts(readiness)?,
    }
    let mut table = output::table(["state", "allocations", "deallocations", "oldest"]);
    // Counts come in pairs of one state, allocation first.
    for pair in status.jobs.chunks(2) {
        let [allocations, deallocations] = pair else {
            continue;
        };
        let oldest = status.oldest.iter().find(|line| line.state == allocations.state);
        table.add_row([
            allocations.state.clone(),
            allocations.jobs.to_string(),
            deallocations.jobs.to_string(),
            oldest.map_or_else(String::new, |line| age(now, line.received_at_ms)),
        ]);
    }
    output::line(table)?;
    let released = &status.released_unconfirmed;
    match released.oldest_received_at_ms {
        Some(oldest) => output::line(format_args!(
            "released and not confirmed by OES: {} (oldest {}): their clients' funds are stuck",
            released.jobs,
            age(now, oldest)
        ))?,
        None => output::line("released and not confirmed by OES: none")?,
    }
    let approvals = &status.approvals_waiting;
    match approvals.oldest_since_ms {
        Some(oldest) => output::line(format_args!(
            "waiting for an operator's approval: {} (oldest {}): settled jobs approve or refuse",
            approvals.jobs,
            age(now, oldest)
        ))?,
        None => output::line("waiting for an operator's approval: none")?,
    }
    let feeds = &status.feeds;
    if feeds.with_gaps > 0 || feeds.differing > 0 || feeds.unproven > 0 {
        output::line(format_args!(
            "feeds of connections: {} with missing events, {} whose snapshot differs, {} to be proved after a \
             restore: `settled book feed`",
            feeds.with_gaps, feeds.differing, feeds.unproven
        ))?;
    }
    output::line(format_args!("outcomes and dead letters to publish: {}", status.outbox_waiting))?;
    output::line(format_args!("bad messages in quarantine: {}", status.quarantined))
}

fn age(now: TimestampMs, since: TimestampMs) -> String {
    output::duration(now.since(since))
}

fn show_parts(readiness: &Value) -> anyhow::Result<()> {
    let ready = readiness.get("ready").and_then(Value::as_bool).unwrap_or(false);
    output::line(if ready { "daemon: ready" } else { "daemon: NOT READY" })?;
    let parts = readiness.get("parts").and_then(Value::as_array);
    for part in parts.into_iter().flatten() {
        let text = |key: &str| part.get(key).and_then(Value::as_str).unwrap_or_default();
        output::line(format_args!("  {:<10} {}", text("name"), text("detail")))?;
    }
    Ok(())
}
