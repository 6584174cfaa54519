//! `settled demo`: the worker at work, on a broker that is there.
//!
//! It plays everything around the daemon: it starts the sandbox and the daemon as processes of their
//! own, has clients order, spoils what it can, waits until everything is final, and shows the books.

mod parts;
mod play;
mod show;

use std::{io::IsTerminal as _, path::PathBuf, time::Duration};

use anyhow::{Context as _, bail};
use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::output;
use crate::config::Config;
use parts::Parts;
use play::Played;

/// Orders that clients make, unless asked otherwise.
const ORDERS_DEFAULT: u32 = 300;
/// Orders that clients make at most.
const ORDERS_MAX: i64 = 100_000;

/// How long everything may take to become final, besides what each order may.
const PATIENCE: Duration = Duration::from_secs(120);
const PATIENCE_PER_ORDER: Duration = Duration::from_millis(100);

#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// The folder for keys, book and logs. It is made anew each time; one that is not a demo's is
    /// left alone.
    #[arg(long, default_value = "demo-data", value_name = "FOLDER")]
    folder: PathBuf,
    /// How many orders clients make.
    #[arg(long, default_value_t = ORDERS_DEFAULT, value_parser = clap::value_parser!(u32).range(1..=ORDERS_MAX))]
    orders: u32,
}

pub(super) async fn run(config: &Config, arguments: &DemoArgs) -> anyhow::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut parts = Parts::start(config, &arguments.folder).await?;
    let stays_up = std::io::stdout().is_terminal();
    let result = tokio::select! {
        result = perform(&mut parts, arguments, stays_up) => result,
        () = either(&mut interrupt, &mut terminate) => Err(anyhow::anyhow!("interrupted")),
    };
    let result = match result {
        Ok(()) if stays_up => {
            output::line("\nEverything goes on running; order more, or press Ctrl-C to end it.")?;
            either(&mut interrupt, &mut terminate).await;
            Ok(())
        }
        other => other,
    };
    parts.stop().await;
    result
}

async fn either(one: &mut Signal, other: &mut Signal) {
    tokio::select! {
        _ = one.recv() => {}
        _ = other.recv() => {}
    }
}

async fn perform(parts: &mut Parts, arguments: &DemoArgs, stays_up: bool) -> anyhow::Result<()> {
    let readers = parts.readers().await?;
    let before = readers.holdings().await?;
    let played: Played = play::play(parts, arguments.orders).await?;
    let patience = PATIENCE.saturating_add(PATIENCE_PER_ORDER.saturating_mul(arguments.orders));
    tokio::time::timeout(patience, play::watch(parts, &readers, &played))
        .await
        .context("not everything became final in time: see daemon.log in the demo's folder")??;
    parts.still_running()?;
    show::everything(parts, &readers, &before, &played).await?;
    let verified = readers.verify().await?;
    readers.close().await;
    for fault in &verified.faults {
        output::line(format_args!("DIFFERENCE: {fault}"))?;
    }
    if !verified.holds() {
        bail!("the book does not hold: {} differences", verified.faults_count);
    }
    output::line(format_args!(
        "\nThe book holds: {} movements of {} jobs add up to the balances of {} accounts.",
        verified.transfers, verified.jobs, verified.accounts
    ))?;
    show::where_to_look_next(parts, stays_up)
}
