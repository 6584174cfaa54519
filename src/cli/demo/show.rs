//! What the demo shows when everything is final.

use std::{path::Path, time::Duration};

use serde_json::Value;

use super::{parts::Parts, play::Played};
use crate::{
    cli::{jobs, output},
    clock::{Clock as _, SystemClock},
    store::{
        Readers,
        query::{Holding, JobFilter, PageWanted, Sort},
    },
};

/// Jobs that are shown.
const JOBS_SHOWN: u32 = 12;

/// How long a client waits for a record that is final already.
const READ_LIMIT: Duration = Duration::from_secs(10);

/// The job table, the balances before and after on both sides, and what two clients see.
pub(super) async fn everything(
    parts: &Parts,
    readers: &Readers,
    before: &[Holding],
    played: &Played,
) -> anyhow::Result<()> {
    output::line("\nThe last jobs (settled jobs list):\n")?;
    let page = readers
        .list_jobs(&JobFilter::default(), &PageWanted::first(Sort::Newest, JOBS_SHOWN))
        .await?;
    output::line(jobs::list::table(&page.jobs, Sort::Newest, SystemClock.now()))?;
    totals(readers).await?;
    balances(parts, before, &readers.holdings().await?).await?;
    sandbox_s_word(parts).await?;
    clients_see(parts, played).await
}

async fn totals(readers: &Readers) -> anyhow::Result<()> {
    let mut table = output::table(["type", "decision", "jobs"]);
    for line in readers.outcome_counts().await? {
        let decision = match &line.reject_code {
            Some(code) => format!("{} ({code})", line.outcome),
            None => line.outcome.to_string(),
        };
        table.add_row([line.job_type.to_string(), decision, line.jobs.to_string()]);
    }
    output::line("\nAll decisions:\n")?;
    output::line(table)
}

async fn balances(parts: &Parts, before: &[Holding], after: &[Holding]) -> anyhow::Result<()> {
    let oes = parts.client.balances().await?;
    let headings =
        ["connection", "currency", "available before", "available after", "held", "at OES"];
    let mut table = output::table(headings);
    for holding in after {
        let same = |other: &&Holding| {
            other.connection_id == holding.connection_id && other.currency == holding.currency
        };
        let was =
            before.iter().find(same).map_or_else(String::new, |was| was.available.to_string());
        // Clients have their own names for currencies; the sandbox's are the same in lower case.
        let pointer = format!(
            "/networkBalances/{}/balances/{}/available",
            holding.connection_id,
            holding.currency.as_str().to_lowercase()
        );
        table.add_row([
            holding.connection_id.to_string(),
            holding.currency.to_string(),
            was,
            holding.available.to_string(),
            holding.held.to_string(),
            oes.pointer(&pointer).and_then(Value::as_str).unwrap_or("–").to_owned(),
        ]);
    }
    output::line("\nBalances (available on the exchange: OES's less what was traded away):\n")?;
    output::line(table)
}

/// What the stand-in for OES has to complain about.
async fn sandbox_s_word(parts: &Parts) -> anyhow::Result<()> {
    let overview = parts.client.overview().await?;
    let count = |name: &str| {
        overview.pointer(&format!("/counts/{name}")).and_then(Value::as_u64).unwrap_or(0)
    };
    output::line(format_args!(
        "\nOES's word: {} updates for {} records, {} faults on the way; {} contradictions, {} repeated \
         nonces, {} bad signatures.",
        count("puts"),
        count("applied"),
        count("faults"),
        count("contradictions"),
        count("repeatedNonces"),
        count("badSignatures"),
    ))
}

async fn clients_see(parts: &Parts, played: &Played) -> anyhow::Result<()> {
    output::line("\nWhat a client sees of its first orders:\n")?;
    let mut table = output::table(["record", "status", "reason"]);
    for id in played.records.iter().take(4) {
        let record = parts.client.wait_until_final(*id, READ_LIMIT).await?.record;
        let reason = record.reason.unwrap_or_default();
        table.add_row([record.id.to_string(), record.status, reason]);
    }
    output::line(table)
}

pub(super) fn where_to_look_next(parts: &Parts, stays_up: bool) -> anyhow::Result<()> {
    let here = std::env::current_dir()?;
    let short = |path: &Path| path.strip_prefix(&here).unwrap_or(path).display().to_string();
    let program = short(&std::env::current_exe()?);
    let folder = short(&parts.folder);
    let settled = format!("{program} -c {folder}/settled.toml");
    output::line(format_args!(
        "\nWhere to look next:\n\
         \n  {settled} status\
         \n  {settled} jobs list --type deallocation\
         \n  {settled} jobs show RECORD\
         \n  {settled} book show\
         \n  less {folder}/daemon.log"
    ))?;
    if !stays_up {
        return Ok(());
    }
    output::line(format_args!(
        "\nWhile everything is running, from another terminal:\n\
         \n  curl -s http://{http}/readyz; curl -s http://{http}/metrics\
         \n  curl -s {sandbox}/_sandbox/state\
         \n  export SETTLED_SANDBOX_BASE_URL={sandbox} SETTLED_SANDBOX_ENTERPRISE_ID={enterprise}\
         \n  export SETTLED_SANDBOX_TOKEN_FILE={folder}/client.token SETTLED_SANDBOX_KEY_FILE={folder}/client.key\
         \n  {program} sandbox allocate --connection-id {connection} --currency btc --quantity 150000 --wait",
        http = parts.config.http.listen,
        sandbox = parts.sandbox_url,
        enterprise = parts.seed.clients.first().map_or("", |client| client.enterprise_id.as_str()),
        connection = parts.connections().first().map_or_else(String::new, ToString::to_string),
    ))
}
