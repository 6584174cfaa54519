//! `settled verify`.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::Args;

use super::{output, progress};
use crate::{
    config::Config,
    operator::audit::{self, Audit},
    store::{archive::open_history, verify::Head},
    tally::Tally,
};

/// What to check, and against what.
#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// Another book than that of the configuration, for example a copy.
    #[arg(long, value_name = "FILE")]
    book: Option<PathBuf>,
    /// A link of the journal that you noted earlier, as this command prints it. It must still be there:
    /// then nothing up to it was replaced.
    #[arg(long, value_name = "SEAL:HASH", value_parser = parse_head)]
    known: Option<Head>,
    /// The evidence for one record, as `settled jobs evidence` made it, instead of a book: whether its
    /// rows are those that were sealed, and its signatures those of its key.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["book", "known", "json"])]
    evidence: Option<PathBuf>,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

fn parse_head(text: &str) -> Result<Head, String> {
    let (commit, chain) = text.split_once(':').ok_or("write it as SEAL:HASH")?;
    Ok(Head {
        commit: commit.parse().map_err(|_| format!("{commit:?} is no number of a seal"))?,
        chain: chain.parse().map_err(|error| format!("{error}"))?,
    })
}

pub(super) async fn run(
    load: impl FnOnce() -> anyhow::Result<Config>,
    arguments: VerifyArgs,
) -> anyhow::Result<()> {
    if let Some(file) = &arguments.evidence {
        return super::evidence::verify(file);
    }
    let path = match arguments.book {
        Some(path) => path,
        None => load()?.store.path,
    };
    let readers = open_history(&path).await?;
    let tally = Tally::default();
    let auditing = audit::audit_counting(&readers, arguments.known, &tally);
    let audit = progress::counting("verifying the book", &tally, auditing)
        .await
        .with_context(|| format!("{} cannot be verified", path.display()))?;
    readers.close().await;
    if arguments.json {
        output::json(&audit)?;
    } else {
        tell(&audit)?;
    }
    if audit.holds() { Ok(()) } else { bail!("{} does not hold", path.display()) }
}

fn tell(audit: &Audit) -> anyhow::Result<()> {
    for fault in audit.faults() {
        output::line(format_args!("FAULT in the {fault}"))?;
    }
    let Audit { file, balances, journal, signatures, archives } = audit;
    let verdict = |faults: u64| match faults {
        0 => "holds".to_owned(),
        1 => "1 fault".to_owned(),
        faults => format!("{faults} faults"),
    };
    let mut table = output::table(["part", "checked", "result"]);
    table.add_row([
        "file".to_owned(),
        "every page and index".to_owned(),
        verdict(u64::try_from(file.len()).unwrap_or(u64::MAX)),
    ]);
    table.add_row([
        "journal".to_owned(),
        format!("{} seals over {} rows", journal.seals, journal.rows),
        verdict(journal.faults_count),
    ]);
    table.add_row([
        "balances".to_owned(),
        format!(
            "{} accounts, {} movements, {} jobs",
            balances.accounts, balances.transfers, balances.jobs
        ),
        verdict(balances.faults_count),
    ]);
    table.add_row([
        "signatures".to_owned(),
        format!("{} attempts", signatures.attempts),
        verdict(signatures.faults_count),
    ]);
    if archives.archives > 0 {
        table.add_row([
            "archives".to_owned(),
            format!("{} files with the rows of {} jobs", archives.archives, archives.jobs),
            verdict(archives.faults_count),
        ]);
    }
    output::line(table)?;
    if let Some(head) = journal.head {
        output::line(format_args!(
            "the journal ends with {}:{}; note that elsewhere, and give it to --known the next time",
            head.commit, head.chain
        ))?;
    }
    Ok(())
}
