//! `settled jobs list`: a table for people, plain columns for a pipe, JSON and CSV for programs.

use std::io;

use anyhow::bail;
use clap::{
    Args,
    builder::{PossibleValuesParser, TypedValueParser as _},
};
use comfy_table::{CellAlignment, ColumnConstraint, Table};
use serde_json::json;

use super::filter::FilterArgs;
use crate::{
    cli::output::{self, Tint},
    clock::{Clock as _, SystemClock},
    config::Config,
    domain::time::TimestampMs,
    store::{
        Readers, open_readers,
        query::{Cursor, JobFilter, JobLine, PAGE_MAX, PageWanted, Sort},
    },
};

/// Jobs that a list has at most, unless asked otherwise.
const LIST_DEFAULT: u32 = 50;
/// Jobs that a list has at most.
const LIST_MAX: i64 = 100_000;
/// Most pages that are looked at for one list; each looks at so many jobs only.
const PAGES_MAX: usize = 250;
/// Which column of the table the state is, from zero.
const STATE_COLUMN: usize = 3;

#[derive(Debug, Args)]
pub(in crate::cli) struct ListArgs {
    /// Only jobs whose state has this reason, or that were released for it, e.g. `refused_by_oes` or
    /// `insufficient_available`.
    #[arg(long, visible_alias = "state-reason", value_parser = JobFilter::parse_reason, help_heading = "Which jobs")]
    reason: Option<String>,
    /// In what order: as they were taken in, the newest or oldest first; by their last change, the latest
    /// first (updated); by how long they have been in their state (longest), open jobs only; by when their
    /// next step is due (next), open jobs that have one only. The newest first, unless asked otherwise.
    #[arg(long, value_parser = PossibleValuesParser::new(Sort::ALL.map(Sort::as_str)).try_map(|word| word.parse::<Sort>()))]
    sort: Option<Sort>,
    /// Go on after this place: `more` of the list before, or `next` of its JSON.
    #[arg(long, value_name = "PLACE")]
    after: Option<Cursor>,
    /// End before this place: `previous` of the JSON of the list behind.
    #[arg(long, value_name = "PLACE", conflicts_with = "after")]
    before: Option<Cursor>,
    /// At most this many.
    #[arg(long, default_value_t = LIST_DEFAULT, value_parser = clap::value_parser!(u32).range(1..=LIST_MAX))]
    limit: u32,
    /// Count all that match, too, as far as that is quickly done.
    #[arg(long)]
    count: bool,
    /// As JSON, as `GET /v1/jobs` answers.
    #[arg(long, conflicts_with = "csv")]
    json: bool,
    /// As CSV with a heading.
    #[arg(long)]
    csv: bool,
    // Last, because its heading in the help is for all that comes after it.
    #[command(flatten)]
    which: FilterArgs,
}

/// What was found of a list.
struct Listed {
    jobs: Vec<JobLine>,
    next: Option<Cursor>,
    previous: Option<Cursor>,
    /// How many jobs were looked at, at most, where looking ended before there were enough.
    looked_at: Option<u64>,
    is_cut: bool,
}

/// Reads page after page until there are enough jobs, or none is left, or enough were looked at.
async fn read(
    readers: &Readers,
    filter: &JobFilter,
    mut wanted: PageWanted,
    limit: u32,
    only_one: bool,
) -> anyhow::Result<Listed> {
    let mut listed =
        Listed { jobs: Vec::new(), next: None, previous: None, looked_at: None, is_cut: false };
    for number in 0..PAGES_MAX {
        let page = readers.list_jobs(filter, &wanted).await?;
        if number == 0 {
            listed.previous = page.previous;
        }
        listed.jobs.extend(page.jobs);
        (listed.next, listed.is_cut) = (page.next, page.is_cut);
        listed.looked_at = match (listed.looked_at, page.looked_at) {
            (Some(one), Some(more)) => Some(one.saturating_add(more)),
            (one, more) => one.or(more),
        };
        let found = u32::try_from(listed.jobs.len()).unwrap_or(u32::MAX);
        let left = limit.saturating_sub(found);
        let Some(next) = page.next.filter(|_| left > 0 && !only_one) else {
            if left == 0 || page.next.is_none() {
                listed.looked_at = None;
            }
            break;
        };
        wanted = PageWanted::after(next, left);
    }
    Ok(listed)
}

pub(super) async fn run(config: &Config, arguments: ListArgs) -> anyhow::Result<()> {
    let now = SystemClock.now();
    let filter = arguments.which.filter(arguments.reason.as_ref(), now);
    let ends_before = arguments.before.is_some();
    if ends_before && arguments.limit > PAGE_MAX {
        bail!("--before gives one page, which has at most {PAGE_MAX} jobs: lower --limit");
    }
    let (after, before) = (arguments.after, arguments.before);
    let wanted = PageWanted::new(arguments.sort, after, before, arguments.limit)?;
    let readers = open_readers(&config.store.path).await?;
    let listed = read(&readers, &filter, wanted, arguments.limit, ends_before).await?;
    let count = if arguments.count { Some(readers.count_jobs(&filter).await?) } else { None };
    if arguments.csv {
        return csv(&listed.jobs);
    }
    if arguments.json {
        return output::json(&json!({
            "jobs": listed.jobs, "next": listed.next, "previous": listed.previous,
            "lookedAt": listed.looked_at, "isCut": listed.is_cut, "count": count,
        }));
    }
    let sort = wanted.sort();
    output::line(table(&listed.jobs, sort, now))?;
    let jobs = listed.jobs.len();
    output::note(match count {
        Some(count) if count.is_exact => format!("{jobs} of {} jobs", count.jobs),
        Some(count) => format!("{jobs} of at least {} jobs", count.jobs),
        None if jobs == 1 => "1 job".to_owned(),
        None => format!("{jobs} jobs"),
    })?;
    if let Some(looked_at) = listed.looked_at {
        output::note(format_args!("{looked_at} jobs were looked at, and there are others"))?;
    }
    if listed.is_cut {
        output::note("more ids begin so than are looked for: give more of the one you mean")?;
    }
    match listed.next {
        Some(next) if !ends_before => output::note(format_args!("more: --after {next}")),
        Some(_) | None => Ok(()),
    }
}

/// The state with its reason.
pub(super) fn state_text(job: &JobLine) -> String {
    match &job.state_reason {
        Some(reason) => format!("{} ({reason})", job.state),
        None => job.state.clone(),
    }
}

/// What was decided, why it was released, and what OES made of it.
pub(super) fn decision_text(job: &JobLine) -> String {
    let mut decision = job.outcome.map_or_else(|| "–".to_owned(), |outcome| outcome.to_string());
    if let Some(code) = &job.reject_code {
        decision = format!("{decision} ({code})");
    }
    if let Some(actual) = job.final_outcome.filter(|_| job.final_outcome != job.outcome) {
        decision = format!("{decision}, OES: {actual}");
    }
    decision
}

/// How a state looks: what waits for a person stands out.
pub(in crate::cli) fn tint(state: &str) -> Tint {
    match state {
        "conflict" => Tint::Bad,
        "parked" | "overruled" => Tint::Warning,
        "unknown" | "awaiting_approval" => Tint::Waiting,
        "confirmed" => Tint::Good,
        _ => Tint::Plain,
    }
}

/// The list as a table. The last column is what it is sorted by, where that is no other column.
pub(in crate::cli) fn table(jobs: &[JobLine], sort: Sort, now: TimestampMs) -> Table {
    let is_narrow = output::is_narrow();
    let mut headings = vec!["record", "type", "amount", "state"];
    if !is_narrow {
        headings.extend(["decision", "attempts"]);
    }
    headings.push("age");
    headings.extend(match sort {
        Sort::Newest | Sort::Oldest => None,
        Sort::Updated | Sort::Longest => Some("in this state for"),
        Sort::Next => Some("next step"),
    });
    let mut table = output::wide_table(&headings);
    // The words that are looked for stay whole.
    if let Some(state) = table.column_mut(STATE_COLUMN).filter(|_| !is_narrow) {
        state.set_constraint(ColumnConstraint::ContentWidth);
    }
    for job in jobs {
        let mut row = vec![
            output::cell(job.record_id),
            output::cell(job.job_type),
            output::cell(&job.amount),
            output::tinted(state_text(job), tint(&job.state)),
        ];
        if !is_narrow {
            row.push(output::cell(decision_text(job)));
            row.push(output::cell(job.attempts).set_alignment(CellAlignment::Right));
        }
        row.push(output::cell(output::duration(now.since(job.received_at_ms))));
        let last = match sort {
            Sort::Newest | Sort::Oldest => None,
            Sort::Updated | Sort::Longest => Some(output::duration(now.since(job.state_since_ms))),
            Sort::Next => Some(next_step(job, now)),
        };
        row.extend(last.map(output::cell));
        table.add_row(row);
    }
    table
}

fn next_step(job: &JobLine, now: TimestampMs) -> String {
    match job.next_step_at_ms {
        None => "–".to_owned(),
        Some(at) if at <= now => "now".to_owned(),
        Some(at) => format!("in {}", output::duration(at.since(now))),
    }
}

/// Times are RFC 3339 in UTC, quantities base units; what there is none of stays empty.
fn csv(jobs: &[JobLine]) -> anyhow::Result<()> {
    let mut writer = csv::Writer::from_writer(io::stdout().lock());
    let written = write_csv(&mut writer, jobs).and_then(|()| Ok(writer.flush()?));
    match written {
        Err(error) if output::is_broken_pipe(&error) => Ok(()),
        other => other,
    }
}

fn write_csv(writer: &mut csv::Writer<impl io::Write>, jobs: &[JobLine]) -> anyhow::Result<()> {
    writer.write_record([
        "seq",
        "recordId",
        "type",
        "currency",
        "quantity",
        "state",
        "stateReason",
        "outcome",
        "rejectCode",
        "finalOutcome",
        "attempts",
        "receivedAt",
        "stateSince",
        "nextStepAt",
        "clientId",
        "connectionId",
        "partnersClientId",
        "partnersConnectionId",
        "partnersRecordId",
    ])?;
    let word = |word: Option<crate::domain::decision::Outcome>| {
        word.map_or_else(String::new, |word| word.to_string())
    };
    for job in jobs {
        writer.write_record([
            job.seq.to_string(),
            job.record_id.to_string(),
            job.job_type.to_string(),
            job.amount.currency().to_string(),
            job.amount.quantity().to_string(),
            job.state.clone(),
            job.state_reason.clone().unwrap_or_default(),
            word(job.outcome),
            job.reject_code.clone().unwrap_or_default(),
            word(job.final_outcome),
            job.attempts.to_string(),
            job.received_at_ms.to_string(),
            job.state_since_ms.to_string(),
            job.next_step_at_ms.map_or_else(String::new, |at| at.to_string()),
            job.client_id.to_string(),
            job.connection_id.to_string(),
            job.partners_client_id.to_string(),
            job.partners_connection_id.to_string(),
            job.partners_record_id.to_string(),
        ])?;
    }
    Ok(())
}
