//! `settled archive`.

use std::sync::Arc;

use anyhow::{Context as _, bail};
use tokio_util::sync::CancellationToken;

use super::{output, progress, target::Target};
use crate::{
    clock::SystemClock,
    config::Config,
    control::Caller,
    metrics::Metrics,
    pipeline::archive::Archiver,
    store::{Mark, mark::Standing, open_readers},
    tally::Tally,
};

/// How the lock says who holds the book.
const HOLDER: &str = "settled archive";

pub(super) async fn run(config: &Config, caller: &Caller) -> anyhow::Result<()> {
    config.archive.path.as_deref().context("archive.path is not set: nothing is archived")?;
    // The command waits for its book to be there, and makes none.
    open_readers(&config.store.path).await?.close().await;
    let target = Target::open(config, HOLDER, caller).await?;
    let writer = match &target {
        Target::Book { operations, .. } => operations.writer.clone(),
        Target::Daemon { client, holder } => {
            client
                .archive(HOLDER)
                .await
                .with_context(|| format!("the book is held by {holder}"))?;
            return output::line(format_args!(
                "{holder} archives now what is old enough; its log says how much, and \
                 settled_archived_jobs_total counts it"
            ));
        }
    };
    let readers = open_readers(&config.store.path).await?;
    if let Some(path) = &config.store.mark_path {
        let (ledger, attempt) = readers.last_signed().await?;
        let standing = Mark::open(path)?.standing(ledger, attempt);
        if standing != Standing::Fits {
            bail!("{standing}: nothing is archived. See `settled book accept-restore --help`");
        }
    }
    let archiver = Archiver::new(
        &config.archive,
        config.store.path.clone(),
        readers.clone(),
        writer,
        Arc::new(Metrics::new()),
        Arc::new(SystemClock),
    );
    let mut archiver = archiver.context("archive.path is not set")?;
    let stop = CancellationToken::new();
    let tally = Tally::default();
    tally.expect(archiver.waiting().await?);
    let archiving = archiver.archive(None, &stop, &tally);
    let moved = progress::counting("archiving old history", &tally, archiving).await;
    let file = archiver.file.display().to_string();
    drop(archiver);
    readers.close().await;
    target.close().await?;
    output::line(format_args!("the history of {} jobs went into {file}", moved?))
}
