//! `settled alerts`.

use std::collections::BTreeMap;

use anyhow::bail;
use clap::Subcommand;
use serde_json::json;
use uuid::Uuid;

use super::output;
use crate::{
    alerts::{Channels, Origin, test_body},
    clock::{Clock as _, SystemClock},
    config::Config,
    domain::{
        alert::{
            AlertKey,
            life::{Known, Stage},
        },
        time::TimestampMs,
    },
    store::{
        alerts::{NoticeLine, NoticesWaiting},
        open_readers,
    },
};

/// Notices that a list shows.
const NOTICES_SHOWN: u32 = 10;

#[derive(Debug, Subcommand)]
pub(super) enum AlertsCommand {
    /// What fires now, what may fire soon, and what was told last. As the daemon saw it when it last looked.
    List {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Send a test notice by each channel that is configured, and say what came of it. The book is not
    /// needed.
    Test,
}

pub(super) async fn run(config: &Config, command: AlertsCommand) -> anyhow::Result<()> {
    match command {
        AlertsCommand::List { json } => list(config, json).await,
        AlertsCommand::Test => test(config).await,
    }
}

async fn list(config: &Config, json: bool) -> anyhow::Result<()> {
    let readers = open_readers(&config.store.path).await?;
    let (alerts, notices) = (readers.alerts().await?, readers.notices(NOTICES_SHOWN).await?);
    let waiting = readers.notices_waiting().await?;
    if json { as_json(&alerts, &notices, waiting) } else { show(&alerts, &notices, waiting) }
}

fn stage(known: &Known) -> (&'static str, TimestampMs) {
    match known.stage {
        Stage::Pending => ("pending", known.held_since),
        Stage::Firing { clear_since: Some(since), .. } => ("ending", since),
        Stage::Firing { fired_at, clear_since: None, .. } => ("firing", fired_at),
    }
}

fn as_json(
    alerts: &BTreeMap<AlertKey, Known>,
    notices: &[NoticeLine],
    waiting: NoticesWaiting,
) -> anyhow::Result<()> {
    let lines: Vec<_> = alerts
        .iter()
        .map(|(key, known)| {
            let (stage, since_ms) = stage(known);
            json!({
                "alert": key.kind.name(), "subject": key.subject,
                "severity": key.kind.severity(), "stage": stage, "sinceMs": since_ms,
                "count": known.things, "summary": known.summary,
            })
        })
        .collect();
    output::json(&json!({"alerts": lines, "notices": notices, "waiting": waiting}))
}

fn show(
    alerts: &BTreeMap<AlertKey, Known>,
    notices: &[NoticeLine],
    waiting: NoticesWaiting,
) -> anyhow::Result<()> {
    let now = SystemClock.now();
    if alerts.is_empty() {
        output::line("no alert fires")?;
    } else {
        let mut table = output::table(["alert", "severity", "stage", "for", "what"]);
        for (key, known) in alerts {
            let (stage, since) = stage(known);
            table.add_row([
                key.to_string(),
                key.kind.severity().to_string(),
                stage.to_owned(),
                output::duration(now.since(since)),
                known.summary.clone(),
            ]);
        }
        output::line(table)?;
    }
    if let Some(oldest) = waiting.oldest_since_ms {
        output::line(format_args!(
            "{} notices wait to be delivered, the first for {}",
            waiting.notices,
            output::duration(now.since(oldest))
        ))?;
    }
    if notices.is_empty() {
        return Ok(());
    }
    let mut table = output::table(["at", "alert", "event", "channel", "result", "detail"]);
    for line in notices {
        let result = line.result.clone().unwrap_or_else(|| format!("waits ({} tries)", line.tries));
        let subject =
            if line.subject.is_empty() { String::new() } else { format!("({})", line.subject) };
        table.add_row([
            line.created_at_ms.to_string(),
            format!("{}{subject}", line.alert),
            line.event.clone(),
            line.channel.clone(),
            result,
            line.detail.clone().unwrap_or_default(),
        ]);
    }
    output::line(table)
}

async fn test(config: &Config) -> anyhow::Result<()> {
    let channels = Channels::new(&config.alerts)?;
    let configured = channels.configured();
    if configured.is_empty() {
        bail!(
            "nobody is told of alerts: set alerts.webhook_url or alerts.command, or watch /metrics with \
             the rules in config/alerts.yml"
        );
    }
    let origin = Origin::new(&config.alerts, None);
    let mut failed = 0_usize;
    for channel in configured {
        let (id, now) = (Uuid::new_v4(), SystemClock.now());
        let body = test_body(&origin, id, now);
        match channels.send(channel, &id.to_string(), &body, now).await {
            Ok(()) => output::line(format_args!("{}: delivered", channel.as_str()))?,
            Err(error) => {
                failed = failed.saturating_add(1);
                output::line(format_args!("{}: FAILED: {error}", channel.as_str()))?;
            }
        }
    }
    if channels.has_heartbeat() {
        output::line("heartbeat: not tried, because it would hide a daemon that does not run")?;
    }
    if failed == 0 { Ok(()) } else { bail!("{failed} channels did not take the notice") }
}
