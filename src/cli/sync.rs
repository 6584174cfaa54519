//! `settled book sync`.

use clap::Args;

use super::{output, target::Target};
use crate::{
    compare::sync::{SyncReport, SyncRequest},
    config::Config,
    control::Caller,
    domain::ids::ConnectionId,
};

/// How the lock says who holds the book.
const HOLDER: &str = "settled book sync";

#[derive(Debug, Args)]
pub(super) struct SyncArgs {
    /// Bring the book in step. Without it, nothing is changed.
    #[arg(long)]
    apply: bool,
    /// Give this connection back, which the exchange has suspended, if OES has it active. Can be given
    /// several times.
    #[arg(long, value_name = "CONNECTION")]
    activate: Vec<ConnectionId>,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(
    config: &Config,
    caller: &Caller,
    arguments: &SyncArgs,
) -> anyhow::Result<()> {
    let request = SyncRequest {
        apply: arguments.apply,
        activate: arguments.activate.clone(),
        who: caller.who.clone(),
    };
    let mut target = Target::open(config, HOLDER, caller).await?;
    let compared = target.sync(config, &request).await;
    target.close().await?;
    let report = compared?;
    if arguments.json { output::json(&report) } else { show(&report) }
}

fn show(report: &SyncReport) -> anyhow::Result<()> {
    if !report.lines.is_empty() {
        let mut table = output::table(["what", "which", "here", "at OES", ""]);
        for line in &report.lines {
            table.add_row([line.kind.as_str(), &line.about, &line.here, &line.oes, &line.note]);
        }
        output::line(format_args!("{table}\n"))?;
    }
    match report.currencies {
        Some(currencies) => output::line(format_args!(
            "OES shows {} connections and {currencies} currencies",
            report.connections
        ))?,
        None => output::line(
            "OES shows no connection that can be read, so nothing tells whose currencies to ask for",
        )?,
    }
    let changes = report.lines.iter().filter(|line| line.kind.is_applied()).count();
    let left = report.lines.len().saturating_sub(changes);
    let left = if left == 0 { String::new() } else { format!("; {left} left alone") };
    match report.applied {
        Some(applied) => output::line(format_args!("{applied} facts taken into the book{left}")),
        None if changes == 0 => output::line(format_args!("the book is in step{left}")),
        None => output::line(format_args!("{changes} to apply with --apply{left}")),
    }
}
