//! `settled reconcile`.

use std::{fs::File, io::Write as _, path::PathBuf};

use anyhow::bail;
use clap::Args;

use super::{NOT_COMPARED, output, progress, target::Target};
use crate::{
    clock::{Clock as _, SystemClock},
    compare::reconcile::{ReconcileReport, ReconcileRequest},
    config::Config,
    control::Caller,
    domain::{
        difference::Finding,
        ids::RecordId,
        time::{TimestampMs, parse_age},
    },
    tally::Tally,
};

/// How the lock says who holds the book.
const HOLDER: &str = "settled reconcile";

/// Compare jobs, balances and reserved records with OES. Exits with 1 if they differ, with 2 if that
/// could not be found out.
///
/// Each job that was taken in between two times, and every open one, is compared with OES's record:
/// type, amount, connection, status. What each connection has, available and held together, is compared
/// with OES's balances; what is on its way explains a difference. Records that OES has held as reserved
/// for longer than `reconcile.sweep_age_s` and that have no job here are listed. What seems to differ is
/// looked at again before it is told. The result is kept in the book.
///
/// With a daemon running on the book, the daemon asks OES, within its rate limit.
#[derive(Debug, Args)]
pub(super) struct ReconcileArgs {
    /// Compare jobs that were taken in from then on: RFC 3339, or an age such as 90m, 24h, 7d.
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = parse_time)]
    since: TimeArgument,
    /// Compare jobs that were taken in until then.
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = parse_time)]
    until: TimeArgument,
    /// Take records without a job in, where the record and the book together hold every field. They are
    /// then decided as if their message had come. Only for records that the exchange knows of: the
    /// amount of a deallocation must be locked there.
    #[arg(long)]
    adopt: bool,
    /// As JSON, with every balance.
    #[arg(long, conflicts_with = "csv")]
    json: bool,
    /// Write what was found to this file as CSV.
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug)]
enum TimeArgument {
    At(TimestampMs),
    Ago(std::time::Duration),
}

fn parse_time(text: &str) -> Result<TimeArgument, String> {
    match text.parse::<TimestampMs>() {
        Ok(at) => Ok(TimeArgument::At(at)),
        Err(_) => parse_age(text)
            .map(TimeArgument::Ago)
            .map_err(|error| format!("neither RFC 3339 nor an age ({error})")),
    }
}

impl TimeArgument {
    fn seen_at(self, now: TimestampMs) -> TimestampMs {
        match self {
            Self::At(at) => at,
            Self::Ago(age) => {
                let age = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
                TimestampMs::from_millis(now.as_millis().saturating_sub(age))
            }
        }
    }
}

pub(super) async fn run(
    config: &Config,
    caller: &Caller,
    arguments: &ReconcileArgs,
) -> anyhow::Result<()> {
    let report =
        compare(config, caller, arguments).await.map_err(|error| error.context(NOT_COMPARED))?;
    if arguments.json {
        output::json(&report)?;
    } else {
        show(&report)?;
    }
    if report.differences == 0 {
        Ok(())
    } else {
        bail!("the book and OES differ in {} things", report.differences)
    }
}

/// Everything that must be done before it can be said whether anything differs.
async fn compare(
    config: &Config,
    caller: &Caller,
    arguments: &ReconcileArgs,
) -> anyhow::Result<ReconcileReport> {
    let now = SystemClock.now();
    let request = ReconcileRequest {
        since_ms: arguments.since.seen_at(now),
        until_ms: arguments.until.seen_at(now),
        adopt: arguments.adopt,
        source: caller.who.clone(),
    };
    if request.since_ms > request.until_ms {
        bail!("--since is after --until");
    }
    // A file that cannot be written is better known of before OES is asked.
    let csv = arguments.csv.as_deref().map(File::create).transpose()?;
    let mut target = Target::open(config, HOLDER, caller).await?;
    let tally = Tally::default();
    let comparing = target.reconcile(config, &request, &tally);
    let compared = progress::counting("comparing with OES", &tally, comparing).await;
    target.close().await?;
    let report = compared?;
    if let Some(file) = csv {
        write_csv(file, &report.findings)?;
    }
    Ok(report)
}

fn show(report: &ReconcileReport) -> anyhow::Result<()> {
    if !report.findings.is_empty() {
        let mut table =
            output::table(["what", "record", "connection", "currency", "here", "at OES", ""]);
        for finding in &report.findings {
            let Finding { kind, record_id, connection_id, currency, here, oes, note } = finding;
            table.add_row([
                kind.to_string(),
                record_id.as_ref().map_or_else(String::new, RecordId::to_string),
                connection_id.map_or_else(String::new, |id| id.to_string()),
                currency.clone().unwrap_or_default(),
                here.clone(),
                oes.clone(),
                note.clone(),
            ]);
        }
        output::line(format_args!("{table}\n"))?;
    }
    output::line(format_args!(
        "{} jobs from {} to {}, {} balances and {} reserved records were compared: {} differences",
        report.jobs,
        report.since_ms,
        report.until_ms,
        report.balances.len(),
        report.reserved,
        report.differences
    ))?;
    for (currency, quantity) in &report.at_risk {
        output::line(format_args!("records without a job move {quantity} {currency}"))?;
    }
    Ok(())
}

/// The findings, one a row.
fn write_csv(file: File, findings: &[Finding]) -> anyhow::Result<()> {
    let mut writer = csv::Writer::from_writer(file);
    writer.write_record([
        "kind",
        "isDifference",
        "recordId",
        "connectionId",
        "currency",
        "here",
        "oes",
        "note",
    ])?;
    for Finding { kind, record_id, connection_id, currency, here, oes, note } in findings {
        let difference = if kind.is_difference() { "true" } else { "false" };
        let record = record_id.map_or_else(String::new, |id| id.to_string());
        let connection = connection_id.map_or_else(String::new, |id| id.to_string());
        let currency = currency.as_deref().unwrap_or_default();
        writer.write_record([
            kind.as_str(),
            difference,
            &record,
            &connection,
            currency,
            here,
            oes,
            note,
        ])?;
    }
    writer.into_inner()?.flush()?;
    Ok(())
}
