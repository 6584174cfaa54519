//! `settled status`: one screen, and an exit code that says whether a person should look.

use std::{io::ErrorKind, path::Path};

use anyhow::{Context as _, bail};
use comfy_table::CellAlignment;
use serde_json::{Value, json};
use tokio::net::UnixStream;

use super::{
    NOT_READ,
    output::{self, Tint},
};
use crate::{
    clock::{Clock as _, SystemClock},
    config::Config,
    control::{Caller, ControlClient},
    domain::time::TimestampMs,
    operator::status::{Attention, Status, status},
    store::{lock::socket_path, open_readers},
};

/// Answers of OES are cut to so many characters.
const DETAIL_CHARS_MAX: usize = 160;

pub(super) async fn run(config: &Config, caller: &Caller, json: bool) -> anyhow::Result<()> {
    let status = read(config, caller).await.context(NOT_READ)?;
    if json {
        output::json(&status)?;
    } else {
        show(&status, &config.store.path)?;
    }
    match status.attention.len() {
        0 => Ok(()),
        1 => bail!("1 thing needs attention"),
        things => bail!("{things} things need attention"),
    }
}

async fn read(config: &Config, caller: &Caller) -> anyhow::Result<Status> {
    let readers = open_readers(&config.store.path).await?;
    let daemon = daemon(&config.store.path, caller).await?;
    Ok(status(&readers, daemon, SystemClock.now()).await?)
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

fn show(status: &Status, book: &Path) -> anyhow::Result<()> {
    let now = status.at_ms;
    output::line(format_args!("{} at {now}", book.display()))?;
    show_attention(&status.attention, now)?;
    show_daemon(status)?;
    show_jobs(status)?;
    let released = &status.released_unconfirmed;
    let waiting = &status.approvals_waiting;
    let some = |jobs: u64, since: Option<TimestampMs>| match since {
        Some(since) => format!("{jobs} (oldest {})", age(now, since)),
        None => "none".to_owned(),
    };
    let at_risk: Vec<String> =
        status.at_risk.iter().map(|sum| format!("{} {}", sum.quantity, sum.currency)).collect();
    for (what, value) in [
        ("at risk in open records", or_none(&at_risk, ", ")),
        ("released and not confirmed by OES", some(released.jobs, released.oldest_received_at_ms)),
        ("waiting for an operator's approval", some(waiting.jobs, waiting.oldest_since_ms)),
        ("outcomes and dead letters to publish", status.outbox_waiting.to_string()),
        ("bad messages in quarantine", status.quarantined.to_string()),
        ("switched off", or_none(&switched_off(status), "; ")),
    ] {
        output::line(format_args!("{what}: {value}"))?;
    }
    show_troubles(status)
}

fn or_none(found: &[String], between: &str) -> String {
    if found.is_empty() { "none".to_owned() } else { found.join(between) }
}

fn switched_off(status: &Status) -> Vec<String> {
    let off = status.switches.iter().filter(|line| !line.on);
    off.map(|line| {
        let since =
            line.since_ms.map_or_else(String::new, |at| format!(" for {}", age(status.at_ms, at)));
        let who = line.who.as_deref().unwrap_or("nobody");
        let why = line.reason.as_deref().unwrap_or_default();
        output::printable(&format!("{}{since} by {who}: {why}", line.switch))
    })
    .collect()
}

fn show_attention(attention: &[Attention], now: TimestampMs) -> anyhow::Result<()> {
    if attention.is_empty() {
        return output::line(output::painted("all is well: nothing needs a person", Tint::Good));
    }
    output::line(output::painted("NEEDS ATTENTION", Tint::Bad))?;
    for Attention { what, since_ms, look } in attention {
        let since = since_ms.map_or_else(String::new, |at| format!(", for {}", age(now, at)));
        let what = output::printable(&format!("{what}{since}"));
        output::line(format_args!("  {}\n      {look}", output::painted(&what, Tint::Bad)))?;
    }
    Ok(())
}

fn show_daemon(status: &Status) -> anyhow::Result<()> {
    let Some(readiness) = &status.daemon else {
        return output::line(output::painted("daemon: not running on this book", Tint::Bad));
    };
    let is_ready = |part: &Value| part.get("ready").and_then(Value::as_bool).unwrap_or(false);
    let all = is_ready(readiness);
    let (word, tint) =
        if all { ("daemon: ready", Tint::Good) } else { ("daemon: NOT READY", Tint::Bad) };
    output::line(output::painted(word, tint))?;
    let parts = readiness.get("parts").and_then(Value::as_array);
    for part in parts.into_iter().flatten() {
        let text = |key: &str| part.get(key).and_then(Value::as_str).unwrap_or_default();
        let line = output::printable(&format!("  {:<10} {}", text("name"), text("detail")));
        let tint = if is_ready(part) { Tint::Plain } else { Tint::Bad };
        output::line(output::painted(&line, tint))?;
    }
    Ok(())
}

/// Counts come in pairs of one state, allocation first.
fn show_jobs(status: &Status) -> anyhow::Result<()> {
    let mut table = output::table(["state", "allocations", "deallocations", "oldest"]);
    for pair in status.jobs.chunks(2) {
        let [allocations, deallocations] = pair else {
            continue;
        };
        let oldest = status.oldest.iter().find(|line| line.state == allocations.state);
        let jobs = allocations.jobs.saturating_add(deallocations.jobs);
        let tint =
            if jobs == 0 { Tint::Plain } else { super::jobs::list::tint(&allocations.state) };
        let right = |number: u64| output::cell(number).set_alignment(CellAlignment::Right);
        table.add_row([
            output::tinted(allocations.state.clone(), tint),
            right(allocations.jobs),
            right(deallocations.jobs),
            output::cell(
                oldest.map_or_else(String::new, |line| age(status.at_ms, line.received_at_ms)),
            ),
        ]);
    }
    output::line(table)
}

fn show_troubles(status: &Status) -> anyhow::Result<()> {
    if status.last_troubles.is_empty() {
        return output::line("last attempts that OES did not accept: none");
    }
    output::line("last attempts that OES did not accept:")?;
    for trouble in &status.last_troubles {
        let http = trouble.http_status.map_or_else(String::new, |code| format!(" (status {code})"));
        let detail = trouble.detail.as_deref().unwrap_or_default();
        let detail: String = detail.chars().take(DETAIL_CHARS_MAX).collect();
        let said = format!(
            "  {} ago, {} attempt {}: {}{http} {detail}",
            age(status.at_ms, trouble.at_ms),
            trouble.record_id,
            trouble.attempt,
            trouble.result,
        );
        output::line(output::printable(said.trim_end()))?;
    }
    Ok(())
}

fn age(now: TimestampMs, since: TimestampMs) -> String {
    output::duration(now.since(since))
}
