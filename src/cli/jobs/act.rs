//! `settled jobs retry|approve|refuse|resolve`: on records by name, or on all that match, shown first.

use anyhow::bail;
use clap::Args;
use uuid::Uuid;

use super::filter::FilterArgs;
use crate::{
    cli::{
        output::{self, Tint},
        progress::Progress,
        target::Target,
    },
    clock::{Clock as _, SystemClock},
    config::Config,
    control::Caller,
    domain::{action::Operator, ids::RecordId},
    operator::bulk::{Preview, preview},
    pipeline::{
        approve::{Approval, DecidedAs},
        close::Closing,
        send_on::SentOn,
    },
    store::{open_readers, query::JobFilter},
    writer::{ACTED_ON_MAX, Acted, JobAction},
};

/// How the lock says who holds the book.
const HOLDER: &str = "settled jobs";

/// Records that a preview names.
const NAMED_MAX: usize = 10;

/// On which jobs, and why.
#[derive(Debug, Args)]
pub(in crate::cli) struct ActArgs {
    /// The records: allocationIds or deallocationIds. Without any, those that match; they are shown first,
    /// and nothing is done without --yes.
    #[arg(value_name = "ID")]
    ids: Vec<RecordId>,
    #[command(flatten)]
    which: FilterArgs,
    /// Only jobs whose state has this reason, e.g. `refused_by_oes`.
    #[arg(long, value_parser = JobFilter::parse_reason, help_heading = "Which jobs")]
    state_reason: Option<String>,
    /// Why this is done; kept in the journal with your name. A preview needs none.
    #[arg(long, value_name = "WHY")]
    reason: Option<String>,
    /// Do it to all that match, and do not only show them.
    #[arg(long)]
    yes: bool,
    /// Do it only if so many jobs would be acted on, as the preview said.
    #[arg(long, value_name = "COUNT", requires = "yes")]
    expect: Option<usize>,
    /// The preview as JSON.
    #[arg(long, conflicts_with_all = ["ids", "yes"])]
    json: bool,
}

pub(super) async fn run(
    config: &Config,
    caller: &Caller,
    action: JobAction,
    arguments: &ActArgs,
) -> anyhow::Result<()> {
    let is_asked = !arguments.which.is_empty() || arguments.state_reason.is_some();
    if !arguments.ids.is_empty() {
        if is_asked {
            bail!("name records, or say which jobs are meant, not both");
        }
        return act(config, caller, action, &arguments.ids, &by(caller, arguments)?).await;
    }
    if !is_asked {
        bail!(
            "name the records, or say which jobs are meant, e.g. --state {}",
            Preview::state_for(action)
        );
    }
    let filter = arguments.which.filter(arguments.state_reason.as_ref(), SystemClock.now());
    let readers = open_readers(&config.store.path).await?;
    let shown = preview(&readers, action, &filter).await?;
    readers.close().await;
    if arguments.json {
        return output::json(&shown);
    }
    if !arguments.yes {
        return show(&shown, action);
    }
    if let Some(expected) = arguments.expect.filter(|expected| *expected != shown.jobs) {
        bail!("{} jobs would be acted on now, and not {expected}: nothing was done", shown.jobs);
    }
    if shown.jobs == 0 {
        return output::line("no job that matches is one that this is for: nothing was done");
    }
    act(config, caller, action, &shown.records, &by(caller, arguments)?).await
}

fn by(caller: &Caller, arguments: &ActArgs) -> anyhow::Result<Operator> {
    let Some(reason) = &arguments.reason else {
        bail!("say why with --reason: it is kept in the journal with your name");
    };
    Operator::new(&caller.who, reason).map_err(anyhow::Error::msg)
}

/// What would be done, and to which. Changes nothing.
fn show(shown: &Preview, action: JobAction) -> anyhow::Result<()> {
    for (state, jobs) in &shown.left_alone {
        let (why, are) = (shown.why.get(state), if *jobs == 1 { "is" } else { "are" });
        let why = why.copied().unwrap_or_default();
        output::line(format_args!("left alone: {} {are} {state}: {why}", counted(*jobs)))?;
    }
    if shown.jobs == 0 {
        return output::line("nothing would be done");
    }
    output::line(format_args!("{} would be {}:", counted(shown.jobs), past(action)))?;
    let mut table = output::table(["currency", "jobs", "together, base units"]);
    for sum in &shown.sums {
        let (currency, quantity) = (sum.currency.to_string(), sum.quantity.to_string());
        table.add_row([currency, sum.jobs.to_string(), quantity]);
    }
    output::line(table)?;
    for record in shown.records.iter().take(NAMED_MAX) {
        output::line(format_args!("  {record}"))?;
    }
    let more = shown.records.len().saturating_sub(NAMED_MAX);
    if more > 0 {
        output::line(format_args!("  and {more} more, in the order of their arrival"))?;
    }
    output::line(format_args!(
        "nothing was done yet: to do it, add --yes --expect {} --reason \"…\"",
        shown.jobs
    ))
}

fn counted(jobs: usize) -> String {
    if jobs == 1 { "1 job".to_owned() } else { format!("{jobs} jobs") }
}

/// What was done, for a sentence.
const fn past(action: JobAction) -> &'static str {
    use crate::domain::policy::OperatorWord;
    match action {
        JobAction::Retry => "sent on",
        JobAction::Say(OperatorWord::Approved) => "approved",
        JobAction::Say(OperatorWord::Refused) => "refused",
        JobAction::Close(_) => "said to have ended",
    }
}

/// Carries an action out on jobs, a few at a time, and says what became of each.
async fn act(
    config: &Config,
    caller: &Caller,
    action: JobAction,
    ids: &[RecordId],
    by: &Operator,
) -> anyhow::Result<()> {
    let mut by = by.clone();
    if ids.len() > 1 {
        by.bulk_id = Some(Uuid::new_v4());
    }
    let mut target = Target::open(config, HOLDER, caller).await?;
    let progress = Progress::new("jobs", ids.len());
    let (mut left, mut done_to) = (0_usize, 0_usize);
    for chunk in ids.chunks(ACTED_ON_MAX) {
        let acted = match target.act(action, chunk, &by).await {
            Ok(acted) => acted,
            Err(error) => {
                progress.end();
                let said = format!("{done_to} of {} jobs had been acted on", ids.len());
                return Err(error.context(said));
            }
        };
        for (id, acted) in acted {
            let (done, said) = acted_text(acted);
            left = left.saturating_add(usize::from(!done));
            let tint = if done { Tint::Plain } else { Tint::Warning };
            progress.around(|| output::line(output::painted(&format!("{id} {said}"), tint)))?;
        }
        done_to = done_to.saturating_add(chunk.len());
        progress.at(done_to);
    }
    progress.end();
    target.close().await?;
    match (left, action) {
        (0, _) => Ok(()),
        (_, JobAction::Say(_)) => bail!("{left} of {} jobs were not decided by this", ids.len()),
        (_, JobAction::Retry | JobAction::Close(_)) => {
            bail!("{left} of {} jobs were left alone", ids.len())
        }
    }
}

/// Whether an action did what it is for, and what became of the job.
fn acted_text(acted: Acted) -> (bool, String) {
    match acted {
        Acted::Retry(SentOn::GoesOn(state)) => (true, format!("goes on as {state}")),
        Acted::Retry(SentOn::NotParked(state)) => {
            (false, format!("is {state} and not parked: left alone"))
        }
        Acted::Retry(SentOn::NeedsApproval) => {
            let said = "waits for `settled jobs approve` or `settled jobs refuse`: left alone";
            (false, said.to_owned())
        }
        Acted::Retry(SentOn::Unknown) | Acted::Close(Closing::Unknown) => {
            (false, "is not in the book".to_owned())
        }
        Acted::Word(approval) => {
            (matches!(approval, Approval::Decided(_)), approval_text(approval))
        }
        Acted::Close(Closing::Proposed(until)) => {
            (true, format!("stays in conflict: another operator must say the same until {until}"))
        }
        Acted::Close(Closing::Closed(state)) => (true, format!("is closed as {state}")),
        Acted::Close(Closing::SamePerson(until)) => (
            false,
            format!("was proposed by you: another operator must say the same until {until}"),
        ),
        Acted::Close(Closing::NotTheOutcome(shown)) => (
            false,
            format!("was read from OES as {shown}, so that is what can be said: left alone"),
        ),
        Acted::Close(Closing::NotInConflict(state)) => {
            (false, format!("is {state} and not in conflict: left alone"))
        }
        Acted::Failed(reason) => (false, format!("is left alone: {reason}")),
    }
}

fn approval_text(approval: Approval) -> String {
    let decision = |DecidedAs { outcome, reject_code }: DecidedAs| match reject_code {
        Some(code) => format!("{outcome} ({code})"),
        None => outcome.to_string(),
    };
    match approval {
        Approval::Decided(decided) => format!("is decided: {}", decision(decided)),
        Approval::Parked(state) => format!("cannot be decided and is {state} now"),
        Approval::NotWaiting { state, decided: Some(decided) } => {
            format!("was decided before: {}; it is {state}: left alone", decision(decided))
        }
        Approval::NotWaiting { state, decided: None } => {
            format!("is {state} and does not wait for approval: left alone")
        }
        Approval::BookIsBehind(why) => format!("is left alone, because {why}"),
        Approval::Waits => "waits for something else first: left alone".to_owned(),
        Approval::DecisionsAreOff => {
            "is left alone: nothing is decided at present; `settled status` and `settled doctor` say why"
                .to_owned()
        }
        Approval::Unknown => "is not in the book".to_owned(),
    }
}
