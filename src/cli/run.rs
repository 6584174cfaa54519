//! `settled run`.

use std::{process, sync::Arc};

use anyhow::Context as _;
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::{
    app::{App, watchdog::tell},
    clock::{SteadyClock, SystemClock},
    config::Config,
    confine, telemetry,
};

/// Exit code after a second signal: the next start picks up from the book.
const LEFT_AT_ONCE: i32 = 130;

pub(super) async fn run(config: Config) -> anyhow::Result<()> {
    telemetry::start(&config.log)?;
    confine::forbid_dumps().context("core dumps cannot be switched off")?;
    // Taken before anything starts, so that no signal falls into a gap.
    let signals = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tracing::info!(version = env!("CARGO_PKG_VERSION"), book = %config.store.path.display(), "starting");
    let app = App::start(config, Arc::new(SteadyClock::new(SystemClock))).await?;
    tracing::info!(listen = %app.http_address(), "health and metrics are served");
    tell(&[NotifyState::Ready]);
    let stop = app.stop_token();
    tokio::select! {
        result = app.run() => result,
        () = obey(signals, stop) => Ok(()),
    }
}

/// The first signal asks the daemon to end; the second ends the process.
async fn obey((mut terminate, mut interrupt): (Signal, Signal), stop: CancellationToken) {
    let mut asked = false;
    loop {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        if asked {
            tracing::warn!(
                "a second signal: leaving at once; the next start picks up from the book"
            );
            process::exit(LEFT_AT_ONCE);
        }
        tracing::info!("asked to end");
        tell(&[NotifyState::Stopping]);
        asked = true;
        stop.cancel();
    }
}
