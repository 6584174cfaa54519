//! `settled jobs watch`: what changes, as it changes.

use std::{
    collections::HashSet,
    io::{self, IsTerminal as _, Write as _},
    time::Duration,
};

use clap::Args;
use comfy_table::Table;

use super::{
    filter::FilterArgs,
    list::{decision_text, state_text, table, tint},
};
use crate::{
    cli::output,
    clock::{Clock as _, SystemClock},
    config::Config,
    domain::{
        state::State,
        time::{TimestampMs, parse_age},
    },
    store::{
        Readers, open_readers,
        query::{Cursor, JobFilter, JobLine, PAGE_MAX, PageWanted, Sort},
    },
};

/// Changes that are told before the first new one, where there is no terminal.
const BEFORE: u32 = 10;
/// How far back a look goes again: what is committed later may carry the same millisecond.
const OVERLAP: Duration = Duration::from_secs(2);
/// Rows of a terminal of which nobody knows the size.
const ROWS_DEFAULT: u16 = 24;
/// Rows that are no jobs: the counts, the headings, and a free one at the end.
const ROWS_AROUND: u16 = 6;

#[derive(Debug, Args)]
pub(in crate::cli) struct WatchArgs {
    /// Only jobs whose state has this reason, or that were released for it.
    #[arg(long, value_parser = JobFilter::parse_reason, help_heading = "Which jobs")]
    reason: Option<String>,
    /// How often to look.
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = parse_age)]
    every: Duration,
    /// One JSON object a line, also on a terminal.
    #[arg(long)]
    json: bool,
    // Last, because its heading in the help is for all that comes after it.
    #[command(flatten)]
    which: FilterArgs,
}

pub(super) async fn run(config: &Config, arguments: WatchArgs) -> anyhow::Result<()> {
    let readers = open_readers(&config.store.path).await?;
    // Ages are as they were when this began: a job that was asked for stays.
    let filter = arguments.which.filter(arguments.reason.as_ref(), SystemClock.now());
    let every = arguments.every.max(Duration::from_millis(100));
    if io::stdout().is_terminal() && !arguments.json {
        redraw(&readers, &filter, every).await
    } else {
        follow(&readers, &filter, every, arguments.json).await
    }
}

/// Draws the jobs that changed last over and over again.
async fn redraw(readers: &Readers, filter: &JobFilter, every: Duration) -> anyhow::Result<()> {
    loop {
        let rows =
            rustix::termios::tcgetwinsize(io::stdout()).map_or(ROWS_DEFAULT, |size| size.ws_row);
        let limit = u32::from(rows.saturating_sub(ROWS_AROUND).max(1));
        let page = readers.list_jobs(filter, &PageWanted::first(Sort::Updated, limit)).await?;
        let now = SystemClock.now();
        let drawn =
            picture(&counts(readers).await?, &table(&page.jobs, Sort::Updated, now), now, rows);
        let mut out = io::stdout().lock();
        match write!(out, "{drawn}").and_then(|()| out.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            other => other?,
        }
        drop(out);
        tokio::time::sleep(every).await;
    }
}

/// Goes to the first row, writes over what is there, and clears what is left.
fn picture(counts: &str, table: &Table, now: TimestampMs, rows: u16) -> String {
    let lines = [format!("{now}   {counts}   (Ctrl-C ends this)"), String::new()];
    let most = usize::from(rows.saturating_sub(1));
    let lines = lines.into_iter().chain(table.lines()).take(most);
    let drawn: Vec<String> = lines.map(|line| format!("{line}\x1b[K\r\n")).collect();
    format!("\x1b[H{}\x1b[J", drawn.concat())
}

/// How many jobs are open, by state.
async fn counts(readers: &Readers) -> anyhow::Result<String> {
    let counts = readers.job_counts().await?;
    let open = State::NAMES.iter().filter(|name| !State::FINAL_NAMES.contains(name));
    let said: Vec<String> = open
        .filter_map(|name| {
            let of_state = counts.iter().filter(|line| line.state == **name);
            let jobs = of_state.map(|line| line.jobs).fold(0, u64::saturating_add);
            (jobs > 0).then(|| format!("{name} {jobs}"))
        })
        .collect();
    Ok(if said.is_empty() { "nothing is open".to_owned() } else { said.join(", ") })
}

/// Tells each change on a line, the last few first, until nobody reads any more.
async fn follow(
    readers: &Readers,
    filter: &JobFilter,
    every: Duration,
    json: bool,
) -> anyhow::Result<()> {
    let page = readers.list_jobs(filter, &PageWanted::first(Sort::Updated, BEFORE)).await?;
    let mut last = page.jobs.first().map_or(SystemClock.now(), |job| job.state_since_ms);
    let mut seen = HashSet::new();
    for job in page.jobs.iter().rev() {
        seen.insert((job.state_since_ms, job.seq));
        if !tell(job, json)? {
            return Ok(());
        }
    }
    // What changed before the first that was told is not new.
    let begin = page.jobs.last().filter(|_| page.next.is_some()).map(|job| job.state_since_ms);
    loop {
        tokio::time::sleep(every).await;
        let from = begin.into_iter().chain([last.before(OVERLAP)]).max().unwrap_or(last);
        let mut before = Some(Cursor::changed_until(from));
        while let Some(cursor) = before {
            let wanted = PageWanted::before(cursor, PAGE_MAX);
            let page = readers.list_jobs(filter, &wanted).await?;
            for job in page.jobs.iter().rev() {
                last = last.max(job.state_since_ms);
                if seen.insert((job.state_since_ms, job.seq)) && !tell(job, json)? {
                    return Ok(());
                }
            }
            before = page.previous;
        }
        seen.retain(|(since, _)| *since >= last.before(OVERLAP));
    }
}

/// Writes a line. Answers whether somebody reads it.
fn tell(job: &JobLine, json: bool) -> anyhow::Result<bool> {
    if json {
        return output::try_line(serde_json::to_string(job)?);
    }
    let state = output::painted(&state_text(job), tint(&job.state));
    output::try_line(format_args!(
        "{} {} {} {} {state}, {}",
        job.state_since_ms,
        job.record_id,
        job.job_type,
        job.amount,
        decision_text(job)
    ))
}
