//! `settled quarantine`.

use anyhow::{Context as _, bail};
use clap::Subcommand;

use super::{output, target::Target};
use crate::{
    clock::{Clock as _, SystemClock},
    config::Config,
    control::Caller,
    domain::{action::Operator, ids::QuarantineSeq},
    operator::operations::Requeueing,
    store::{
        open_readers,
        query::{PAGE_MAX, QuarantineFilter, QuarantinedBytes},
    },
};

/// How the lock says who holds the book.
const HOLDER: &str = "settled quarantine";

/// Messages that a list has at most, unless asked otherwise.
const LIST_DEFAULT: u32 = 50;

#[derive(Debug, Subcommand)]
pub(super) enum QuarantineCommand {
    /// List messages that could not act, the latest first. Each has a dead letter, too.
    List {
        /// Only those with this kind of fault, e.g. `bad_field`.
        #[arg(long, value_name = "CODE")]
        code: Option<String>,
        /// Only those that nobody has put back in since they last came.
        #[arg(long)]
        waiting: bool,
        /// Only those before this number: the last of the page before.
        #[arg(long, value_name = "NUMBER")]
        before: Option<i64>,
        /// At most this many.
        #[arg(long, default_value_t = LIST_DEFAULT, value_parser = clap::value_parser!(u32).range(1..=i64::from(PAGE_MAX)))]
        limit: u32,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show one message as it came, and what is wrong with it.
    Show {
        /// Its number.
        seq: i64,
        /// As JSON, with the bytes in hexadecimal.
        #[arg(long)]
        json: bool,
    },
    /// Put messages back in, after what was wrong is put right here; a message itself is never changed.
    ///
    /// Each is read as strictly as when it came. Its row stays in quarantine, marked with who put it back
    /// in and why, and its dead letter stays in the dead-letter queue.
    Requeue {
        /// Their numbers.
        #[arg(required = true)]
        seqs: Vec<i64>,
        /// Why; kept in the journal.
        #[arg(long)]
        reason: String,
    },
}

pub(super) async fn run(
    config: &Config,
    caller: &Caller,
    command: QuarantineCommand,
) -> anyhow::Result<()> {
    match command {
        QuarantineCommand::List { code, waiting, before, limit, json } => {
            let filter = QuarantineFilter { code, waiting, before, limit };
            list(config, &filter, json).await
        }
        QuarantineCommand::Show { seq, json } => {
            let readers = open_readers(&config.store.path).await?;
            let found = readers.quarantined(QuarantineSeq::from(seq)).await?;
            let found =
                found.with_context(|| format!("there is no message {seq} in quarantine"))?;
            show(&found, json)
        }
        QuarantineCommand::Requeue { seqs, reason } => {
            requeue(config, caller, &seqs, &reason).await
        }
    }
}

async fn list(config: &Config, filter: &QuarantineFilter, json: bool) -> anyhow::Result<()> {
    let lines = open_readers(&config.store.path).await?.quarantine(filter).await?;
    if json {
        return output::json(&lines);
    }
    let now = SystemClock.now();
    let mut table =
        output::table(["message", "fault", "what is wrong", "queue", "times", "last seen", ""]);
    for line in &lines {
        table.add_row([
            line.seq.to_string(),
            line.code.clone(),
            output::printable(&line.detail),
            line.queue.clone(),
            line.times_seen.to_string(),
            format!("{} ago", output::duration(now.since(line.last_seen_ms))),
            line.requeued
                .as_ref()
                .map_or_else(String::new, |done| format!("put back in by {}", done.who)),
        ]);
    }
    output::line(table)?;
    output::note(format_args!("{} messages", lines.len()))?;
    match lines.last().filter(|_| u32::try_from(lines.len()) == Ok(filter.limit)) {
        Some(last) => output::note(format_args!("more: --before {}", last.seq)),
        None => Ok(()),
    }
}

fn show(found: &QuarantinedBytes, json: bool) -> anyhow::Result<()> {
    let line = &found.line;
    if json {
        return output::json(&serde_json::json!({
            "message": line, "text": String::from_utf8_lossy(&found.bytes),
            "hex": hex::encode(&found.bytes),
        }));
    }
    let mut facts = output::table(["message", &line.seq.to_string()]);
    let at = |time: Option<crate::domain::time::TimestampMs>| {
        time.map_or_else(|| "–".to_owned(), |at| at.to_string())
    };
    for (name, value) in [
        ("fault", line.code.clone()),
        ("what is wrong", output::printable(&line.detail)),
        ("record", line.record_id.map_or_else(|| "–".to_owned(), |id| id.to_string())),
        ("queue", line.queue.clone()),
        ("deliveries", line.times_seen.to_string()),
        ("first seen", line.first_seen_ms.to_string()),
        ("last seen", line.last_seen_ms.to_string()),
        ("dead letter published", at(line.dead_letter_published_at_ms)),
        ("SHA-256", line.sha256.clone()),
    ] {
        facts.add_row([name.to_owned(), value]);
    }
    if let Some(done) = &line.requeued {
        let who = format!("{} by {}: {}", done.at_ms, done.who, done.reason);
        facts.add_row(["put back in".to_owned(), who]);
    }
    output::line(format_args!("{facts}\n"))?;
    // Control characters could do things to a terminal.
    output::line(String::from_utf8_lossy(&found.bytes).escape_debug())
}

async fn requeue(
    config: &Config,
    caller: &Caller,
    seqs: &[i64],
    reason: &str,
) -> anyhow::Result<()> {
    let by = Operator::new(&caller.who, reason).map_err(anyhow::Error::msg)?;
    let mut target = Target::open(config, HOLDER, caller).await?;
    let mut left = 0_usize;
    for seq in seqs {
        let said = match target.requeue(QuarantineSeq::from(*seq), &by).await? {
            Requeueing::New(record) => format!("is a job now, about record {record}"),
            Requeueing::Repeated(record) => format!("is the job about record {record} again"),
            Requeueing::Contradicts(record) => {
                left = left.saturating_add(1);
                format!("contradicts the job about record {record}, which holds: left alone")
            }
            Requeueing::StillBad(what) => {
                left = left.saturating_add(1);
                format!("is as bad as it was ({what}): left alone")
            }
        };
        output::line(format_args!("message {seq} {said}"))?;
    }
    target.close().await?;
    if left == 0 { Ok(()) } else { bail!("{left} of {} messages were left alone", seqs.len()) }
}
