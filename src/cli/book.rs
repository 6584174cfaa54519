//! `settled book`.

mod feed;
mod limits;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use clap::Subcommand;

use limits::Limits;

use super::{output, progress::Progress, target::Target};
use crate::{
    book_file,
    clock::{Clock as _, SystemClock},
    config::Config,
    control::Caller,
    domain::{
        action::Operator,
        book::BOOK_EVENTS_MAX,
        ids::{ConnectionId, CurrencyCode},
    },
    store::{
        Mark,
        archive::open_history,
        lock::BookLock,
        mark::{Marked, Standing},
        open_readers, open_writer,
        query::SettingsFilter,
        restore::Acceptance,
        work::BookEventOutcome,
    },
};

/// How the lock says who holds the book.
const HOLDER: &str = "settled book import";

/// Facts that a history has at most, unless asked otherwise.
const HISTORY_DEFAULT: u32 = 100;
/// Facts that a history has at most.
const HISTORY_MAX: i64 = 100_000;

#[derive(Debug, Subcommand)]
pub(super) enum BookCommand {
    /// Take events of the exchange's feed from a file, each at most once by its id.
    ///
    /// A file ending in .csv is CSV with a heading; any other has a JSON object a line. With a daemon
    /// running on the book, the daemon takes them; the file is read whole before anything is done.
    Import {
        /// The file; - for standard input, with a JSON object a line.
        file: PathBuf,
    },
    /// Compare connections and currencies with OES; with --apply, bring the book in step.
    ///
    /// A connection is active here if OES and the exchange both say so. OES's word is read; the
    /// exchange's is the last fact that it gave (`settled book import`). So a connection that OES has
    /// deactivated, or does not have any more, becomes inactive and comes back with OES's word, and one
    /// that the exchange has suspended stays so unless it is named with --activate. New currencies are
    /// added disabled, and no currency is ever enabled, disabled or changed. What cannot be taken is
    /// shown and left alone.
    ///
    /// With a daemon running on the book, the daemon asks OES, within its rate limit.
    Sync(super::sync::SyncArgs),
    /// Show connections, currencies, balances, and limits with how much of them is used.
    Show {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show how connections, currencies and limits came to be: each fact, when it came, from where, and
    /// what it changed. Oldest first.
    History {
        /// Only what is about this connection.
        #[arg(long, value_name = "CONNECTION_ID")]
        connection: Option<ConnectionId>,
        /// Only what is about this currency.
        #[arg(long)]
        currency: Option<CurrencyCode>,
        /// At most this many facts, the latest.
        #[arg(long, default_value_t = HISTORY_DEFAULT, value_parser = clap::value_parser!(u32).range(1..=HISTORY_MAX))]
        limit: u32,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Accept a database that was restored from a backup, so that it may decide and sign again.
    ///
    /// What was decided after the backup is lost to it. Before you accept it: start the daemon, which
    /// decides and signs nothing yet, until `settled status` shows that what was open has been read
    /// back from OES; bring connections, currencies and balances up to date with `settled book
    /// import`, so that `settled book show` agrees with the exchange; then stop the daemon. Afterwards,
    /// records that OES has had since before now are parked and never decided; others are decided once
    /// OES has shown that they are younger. Where the exchange feeds the book, nothing
    /// is decided about a connection until it has sent a balance.snapshot that agrees, or you accept the
    /// book of it with `settled book accept-snapshot`; one that came before the acceptance does not count.
    AcceptRestore {
        /// How it is known that the book is up to date; kept with it.
        #[arg(long)]
        reason: String,
    },
    /// Show how far the feed of each connection has come: missing events, snapshots that differ from the
    /// book, and what is to be proved after a restore.
    Feed {
        /// Only those that need a look.
        #[arg(long)]
        wrong: bool,
        /// At most this many.
        #[arg(long, default_value_t = HISTORY_DEFAULT, value_parser = clap::value_parser!(u32).range(1..=HISTORY_MAX))]
        limit: u32,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Accept the book of connections as the exchange states it.
    ///
    /// Where the last snapshot of a connection differed from the book, the difference is booked; where there
    /// was none, the book is accepted as it is. Either way missing events are not waited for any more, and
    /// decisions about the connection go on after a restore. Find out first why the two differ: a snapshot
    /// that agrees does all this by itself.
    AcceptSnapshot {
        /// The connections.
        #[arg(required = true, value_name = "CONNECTION_ID")]
        connections: Vec<ConnectionId>,
        /// How it is known that this is right; kept with it.
        #[arg(long)]
        reason: String,
    },
    /// Recompute every balance from its movements, and compare jobs with their movements. Exits with
    /// 1 on any difference.
    Verify {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
}

pub(super) async fn run(
    config: &Config,
    caller: &Caller,
    command: BookCommand,
) -> anyhow::Result<()> {
    match command {
        BookCommand::Import { file } => import(config, caller, &file).await,
        BookCommand::Sync(arguments) => super::sync::run(config, caller, &arguments).await,
        BookCommand::Show { json } => show(config, json).await,
        BookCommand::History { connection, currency, limit, json } => {
            let readers = open_readers(&config.store.path).await?;
            let limit = usize::try_from(limit).unwrap_or(usize::MAX);
            let filter = SettingsFilter { connection_id: connection, currency, limit };
            limits::history(&readers, &filter, json).await
        }
        BookCommand::Feed { wrong, limit, json } => {
            let readers = open_readers(&config.store.path).await?;
            feed::show(&readers, wrong, limit, json).await
        }
        BookCommand::AcceptSnapshot { connections, reason } => {
            feed::accept(config, caller, &connections, &reason).await
        }
        BookCommand::AcceptRestore { reason } => accept_restore(config, caller, &reason).await,
        BookCommand::Verify { json } => verify(config, json).await,
    }
}

async fn import(config: &Config, caller: &Caller, file: &Path) -> anyhow::Result<()> {
    let events = book_file::read(file)?;
    let mut target = Target::open(config, HOLDER, caller).await?;
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let source = format!("import:{name}");
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    let mut refused = Vec::new();
    let (progress, mut taken) = (Progress::new("facts", events.len()), 0_usize);
    for chunk in events.chunks(BOOK_EVENTS_MAX) {
        let outcomes = target.apply(&source, chunk).await.with_context(|| {
            format!(
                "lines from {} on may not have been taken: import the file again, which takes each \
                 event once",
                chunk.first().map_or(0, |event| event.line)
            )
        })?;
        for (event, outcome) in chunk.iter().zip(outcomes) {
            let word = match outcome {
                BookEventOutcome::Applied => "applied",
                BookEventOutcome::AlreadyApplied => "already in the book",
                BookEventOutcome::Contradicts => {
                    refused.push(format!(
                        "line {}: event {} is in the book with another content",
                        event.line,
                        event.event.id()
                    ));
                    "refused"
                }
                BookEventOutcome::UnknownConnection => {
                    refused.push(format!(
                        "line {}: event {} is a {} of a connection that the book does not have; import \
                         the connection first",
                        event.line,
                        event.event.id(),
                        event.event.fact().kind()
                    ));
                    "refused"
                }
                BookEventOutcome::Superseded => {
                    "ignored: their number was there before, or too late"
                }
                BookEventOutcome::Differs => {
                    "snapshots differ from the book: `settled book feed` shows in what"
                }
            };
            let count = counts.entry(word).or_default();
            *count = count.saturating_add(1);
        }
        taken = taken.saturating_add(chunk.len());
        progress.at(taken);
    }
    progress.end();
    let where_to = target.name();
    target.close().await?;
    for (word, count) in counts {
        output::line(format_args!("{count} {word}"))?;
    }
    output::line(format_args!(
        "{} events read, into {where_to} {}",
        events.len(),
        config.store.path.display()
    ))?;
    if refused.is_empty() {
        Ok(())
    } else {
        bail!("{} events were refused:\n  {}", refused.len(), refused.join("\n  "))
    }
}

async fn accept_restore(config: &Config, caller: &Caller, reason: &str) -> anyhow::Result<()> {
    let path = config.store.mark_path.as_deref().context("store.mark_path is not set")?;
    let by = Operator::new(&caller.who, reason).map_err(anyhow::Error::msg)?;
    let _lock = BookLock::take(&config.store.path, "settled book accept-restore")
        .context("the daemon must be stopped for this")?;
    let at = SystemClock.now();
    let mut book = open_writer(&config.store.path, at).await?;
    let mut mark = Mark::open(path)?;
    let marked = match mark.standing(book.ledger_uuid, book.counters.last_attempt()) {
        Standing::Fits => bail!("{}: there is nothing to accept", Standing::Fits),
        Standing::Behind(marked) | Standing::Foreign(marked) => marked,
    };
    let is_fed = config.broker.book_queue.is_some();
    let acceptance = Acceptance { mark: marked, at, who: &by.who, reason: &by.reason, is_fed };
    let parked = book.accept_restore(&acceptance).await?;
    let attempt = marked.attempt.max(book.counters.last_attempt());
    mark.write(Marked { ledger: book.ledger_uuid, attempt })?;
    book.writer.close().await?;
    output::line(format_args!(
        "accepted: {parked} undecided jobs are parked (predates_restore), and OES's records from before \
         {at} are not decided"
    ))?;
    output::line("next: start the daemon (`settled run`)")?;
    match open_readers(&config.store.path).await?.unproven().await? {
        Some(unproven) => output::line(format_args!("{unproven}")),
        None => Ok(()),
    }
}

async fn show(config: &Config, json: bool) -> anyhow::Result<()> {
    let readers = open_readers(&config.store.path).await?;
    let (connections, currencies, holdings) =
        (readers.connections().await?, readers.currencies().await?, readers.holdings().await?);
    let limits = Limits::read(&readers, &currencies, &holdings, SystemClock.now()).await?;
    if json {
        return output::json(&serde_json::json!({
            "connections": connections, "currencies": currencies, "balances": holdings,
            "limits": limits,
        }));
    }
    let yes_no = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
    let mut table = output::table([
        "connection",
        "client",
        "partner's client",
        "partner's connection",
        "active",
    ]);
    for connection in &connections {
        table.add_row([
            connection.connection_id.to_string(),
            connection.client_id.to_string(),
            connection.partners_client_id.to_string(),
            connection.partners_connection_id.to_string(),
            yes_no(connection.active),
        ]);
    }
    output::line(table)?;
    let mut table = output::table(["currency", "enabled", "smallest", "largest"]);
    for currency in &currencies {
        table.add_row([
            currency.currency.to_string(),
            yes_no(currency.enabled),
            currency.quantity_min.to_string(),
            currency.quantity_max.to_string(),
        ]);
    }
    output::line(table)?;
    limits.show(&currencies)?;
    output::line(balances(&holdings))
}

/// The balances as a table.
pub(super) fn balances(holdings: &[crate::store::query::Holding]) -> comfy_table::Table {
    let mut table = output::table(["connection", "currency", "available", "held", "incoming"]);
    for holding in holdings {
        table.add_row([
            holding.connection_id.to_string(),
            holding.currency.to_string(),
            holding.available.to_string(),
            holding.held.to_string(),
            holding.incoming.to_string(),
        ]);
    }
    table
}

async fn verify(config: &Config, json: bool) -> anyhow::Result<()> {
    let readers = open_history(&config.store.path).await?;
    readers.has_all_archives()?;
    let found = readers.verify().await?;
    if json {
        output::json(&found)?;
    } else {
        for fault in &found.faults {
            output::line(format_args!("DIFFERENCE: {fault}"))?;
        }
        output::line(format_args!(
            "{} accounts, {} movements and {} jobs were compared: {}",
            found.accounts,
            found.transfers,
            found.jobs,
            if found.holds() {
                "the book holds".to_owned()
            } else {
                format!("{} differences", found.faults_count)
            }
        ))?;
    }
    if found.holds() { Ok(()) } else { bail!("the book does not hold") }
}
