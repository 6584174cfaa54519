//! `settled jobs`.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, bail};
use clap::{Subcommand, ValueEnum};

use super::{output, target::Target};
use crate::{
    clock::{Clock as _, SystemClock},
    config::Config,
    control::Caller,
    domain::{
        action::Operator,
        decision::Outcome,
        ids::RecordId,
        job::JobType,
        policy::OperatorWord,
        state::State,
        time::{TimestampMs, parse_age},
    },
    operator::{
        self, JobView,
        explain::{self, Against},
    },
    pipeline::{
        approve::{Approval, DecidedAs},
        close::Closing,
        send_on::SentOn,
    },
    store::{
        archive::open_history,
        open_readers,
        query::{JobFilter, JobLine, PageWanted, Sort},
    },
    web::api::RECORDS_MAX,
    writer::{Acted, JobAction},
};

/// How the lock says who holds the book.
const HOLDER: &str = "settled jobs";

/// Jobs that a list has at most, unless asked otherwise.
const LIST_DEFAULT: u32 = 50;
/// Jobs that a list has at most.
const LIST_MAX: i64 = 100_000;

#[derive(Debug, Subcommand)]
pub(super) enum JobsCommand {
    /// List jobs, newest first.
    List {
        /// Only jobs in this state.
        #[arg(long, value_parser = State::NAMES)]
        state: Option<String>,
        /// Only allocations or only deallocations.
        #[arg(long, value_name = "TYPE")]
        r#type: Option<TypeArgument>,
        /// Only jobs that were taken in at least this long ago, e.g. 90s, 15m, 2h, 3d.
        #[arg(long, value_name = "AGE", value_parser = parse_age)]
        older_than: Option<Duration>,
        /// At most this many.
        #[arg(long, default_value_t = LIST_DEFAULT, value_parser = clap::value_parser!(u32).range(1..=LIST_MAX))]
        limit: u32,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show everything that happened to one job, in order.
    Show {
        /// The record: allocationId or deallocationId.
        id: String,
        /// As JSON, with the exact signed bodies and what the decision saw.
        #[arg(long)]
        json: bool,
    },
    /// Show what the decision about one record saw, and ask the policy once more. Changes nothing.
    Explain {
        /// The record: allocationId or deallocationId.
        id: RecordId,
        /// Over which book: as the decision saw it, or as it is now, with what the job has moved in it.
        #[arg(long, value_name = "WHEN", default_value = "then")]
        against: AgainstArgument,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Write everything that proves what was said about one record: its message, decision, movements,
    /// exact signed bytes, answers and operators' actions, as they were sealed in the journal.
    /// `settled verify --evidence FILE` checks it, also where the book is not.
    Evidence {
        /// The record: allocationId or deallocationId.
        id: RecordId,
        /// Where to; standard output if it is not given. The file must not exist.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Let a parked job go on, after its cause is gone. Never changes a decision that was made.
    ///
    /// A job that was parked undecided is decided as if it had just arrived. One that was decided keeps
    /// its decision: its record is read back first, and if OES still has it reserved, the same outcome
    /// is sent again with a fresh nonce.
    Retry {
        /// The records: allocationIds or deallocationIds.
        #[arg(required = true)]
        ids: Vec<RecordId>,
        /// Why it may go on; kept with the job.
        #[arg(long)]
        reason: String,
    },
    /// Approve jobs that wait for it because their quantity is above the threshold.
    ///
    /// The policy looks at each again, as the book is now, with the threshold waived and nothing else: it
    /// may release the record, or park the job for another reason. A job is decided once; a word about one
    /// that does not wait for it changes nothing.
    Approve {
        /// The records: allocationIds or deallocationIds.
        #[arg(required = true)]
        ids: Vec<RecordId>,
        /// Why it may be cleared; kept with the decision.
        #[arg(long)]
        reason: String,
    },
    /// Refuse jobs that wait for approval: their records are released.
    Refuse {
        /// The records: allocationIds or deallocationIds.
        #[arg(required = true)]
        ids: Vec<RecordId>,
        /// Why not; kept with the decision. The client does not see it.
        #[arg(long)]
        reason: String,
    },
    /// Say how OES ended the records of jobs that are in conflict. It takes two operators.
    ///
    /// The first one's word is a proposal; when another operator says the same in time, the job is closed.
    /// Nothing is signed, and the decision stays as it is: the book follows OES, a shortfall is alerted, and
    /// the actual outcome is announced. OES is asked before a word counts, and what it shows must agree.
    Resolve {
        /// The records: allocationIds or deallocationIds.
        #[arg(required = true)]
        ids: Vec<RecordId>,
        /// How OES ended them.
        #[arg(long)]
        outcome: OutcomeArgument,
        /// How that is known; kept in the journal.
        #[arg(long)]
        reason: String,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum TypeArgument {
    Allocation,
    Deallocation,
}

impl From<TypeArgument> for JobType {
    fn from(argument: TypeArgument) -> Self {
        match argument {
            TypeArgument::Allocation => Self::Allocation,
            TypeArgument::Deallocation => Self::Deallocation,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum OutcomeArgument {
    Cleared,
    Released,
}

impl From<OutcomeArgument> for Outcome {
    fn from(argument: OutcomeArgument) -> Self {
        match argument {
            OutcomeArgument::Cleared => Self::Cleared,
            OutcomeArgument::Released => Self::Released,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum AgainstArgument {
    Then,
    Now,
}

async fn explain(
    config: &Config,
    id: RecordId,
    against: AgainstArgument,
    json: bool,
) -> anyhow::Result<()> {
    let against = match against {
        AgainstArgument::Then => Against::Then,
        AgainstArgument::Now => Against::Now,
    };
    let readers = open_history(&config.store.path).await?;
    let explained = explain::explain(&readers, id, against, SystemClock.now()).await?;
    if json {
        return output::json(&explained);
    }
    let history = readers.job_history(id).await?.context("the job is gone")?;
    let mut table = output::table(["the policy was shown", ""]);
    for (what, value) in explained.facts(&history.job.terms) {
        table.add_row([what, value]);
    }
    output::line(table)?;
    if let Some(then) = &explained.decided {
        output::line(format_args!("decided at {} by {}: {}", then.at_ms, then.source, then.as_))?;
    }
    let verdict = match explained.agrees {
        Some(true) => ", the same",
        Some(false) => ", NOT the same",
        None => "",
    };
    output::line(format_args!("the policy says: {}{verdict}", explained.says))
}

/// Carries an action out on jobs, and says what became of each.
async fn act(
    config: &Config,
    caller: &Caller,
    action: JobAction,
    ids: &[RecordId],
    reason: &str,
) -> anyhow::Result<()> {
    let by = Operator::new(&caller.who, reason).map_err(anyhow::Error::msg)?;
    let mut target = Target::open(config, HOLDER, caller).await?;
    let mut left = 0_usize;
    for chunk in ids.chunks(RECORDS_MAX) {
        for (id, acted) in target.act(action, chunk, &by).await? {
            let (done, said) = acted_text(acted);
            left = left.saturating_add(usize::from(!done));
            output::line(format_args!("{id} {said}"))?;
        }
    }
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

pub(super) async fn run(
    config: &Config,
    caller: &Caller,
    command: JobsCommand,
) -> anyhow::Result<()> {
    let now = SystemClock.now();
    match command {
        JobsCommand::List { state, r#type, older_than, limit, json } => {
            let age = older_than.unwrap_or(Duration::ZERO);
            let until = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
            let until = TimestampMs::from_millis(now.as_millis().saturating_sub(until));
            let filter = JobFilter {
                states: state.into_iter().collect(),
                job_type: r#type.map(JobType::from),
                received_until: older_than.map(|_| until),
                ..JobFilter::default()
            };
            let readers = open_readers(&config.store.path).await?;
            let page = readers.list_jobs(&filter, &PageWanted::first(Sort::Newest, limit)).await?;
            if json { output::json(&page.jobs) } else { list(&page.jobs, now) }
        }
        JobsCommand::Show { id, json } => {
            let id: RecordId = id.parse().with_context(|| format!("{id:?}"))?;
            let readers = open_history(&config.store.path).await?;
            let Some(view) = operator::job(&readers, id).await? else {
                bail!("there is no job about record {id} in {}", config.store.path.display());
            };
            if json {
                return output::json(&view);
            }
            show(&view)?;
            for refused in &view.refused_before {
                output::line(format_args!("\nrefused: a job that named the same record"))?;
                show(refused)?;
            }
            Ok(())
        }
        JobsCommand::Explain { id, against, json } => explain(config, id, against, json).await,
        JobsCommand::Evidence { id, out } => {
            super::evidence::export(config, id, out.as_deref()).await
        }
        JobsCommand::Retry { ids, reason } => {
            act(config, caller, JobAction::Retry, &ids, &reason).await
        }
        JobsCommand::Approve { ids, reason } => {
            let action = JobAction::Say(OperatorWord::Approved);
            act(config, caller, action, &ids, &reason).await
        }
        JobsCommand::Resolve { ids, outcome, reason } => {
            let action = JobAction::Close(outcome.into());
            act(config, caller, action, &ids, &reason).await
        }
        JobsCommand::Refuse { ids, reason } => {
            let action = JobAction::Say(OperatorWord::Refused);
            act(config, caller, action, &ids, &reason).await
        }
    }
}

pub(super) fn list(jobs: &[JobLine], now: TimestampMs) -> anyhow::Result<()> {
    let mut table =
        output::table(["record", "type", "amount", "state", "decision", "attempts", "age"]);
    for job in jobs {
        let state = match &job.state_reason {
            Some(reason) => format!("{} ({reason})", job.state),
            None => job.state.clone(),
        };
        let mut decision =
            job.outcome.map_or_else(|| "–".to_owned(), |outcome| outcome.to_string());
        if let Some(code) = &job.reject_code {
            decision = format!("{decision} ({code})");
        }
        if let Some(actual) = job.final_outcome.filter(|_| job.final_outcome != job.outcome) {
            decision = format!("{decision}, OES: {actual}");
        }
        table.add_row([
            job.record_id.to_string(),
            job.job_type.to_string(),
            job.amount.to_string(),
            state,
            decision,
            job.attempts.to_string(),
            output::duration(now.since(job.received_at_ms)),
        ]);
    }
    output::line(table)?;
    output::line(format_args!("{} jobs", jobs.len()))
}

fn show(view: &JobView) -> anyhow::Result<()> {
    let terms = &view.terms;
    let mut facts = output::table(["job", &view.seq.to_string()]);
    for (name, value) in [
        ("record", terms.record_id.to_string()),
        ("type", terms.job_type.to_string()),
        ("amount", terms.amount.to_string()),
        ("state", view.state.clone()),
        ("client", format!("{} / {}", terms.client_id, terms.partners_client_id)),
        ("connection", format!("{} / {}", terms.connection_id, terms.partners_connection_id)),
        ("partner's record", terms.partners_record_id.to_string()),
        ("next step at", view.next_step_at_ms.map_or_else(|| "–".to_owned(), |at| at.to_string())),
    ] {
        facts.add_row([name.to_owned(), value]);
    }
    output::line(facts)?;
    let mut timeline = output::table(["at", "after", "what", ""]);
    let mut before = None;
    for happening in &view.timeline {
        let after = before.map_or_else(String::new, |before| {
            format!("+{}", output::duration(happening.at_ms.since(before)))
        });
        before = Some(happening.at_ms);
        timeline.add_row([
            happening.at_ms.to_string(),
            after,
            happening.what.to_owned(),
            happening.summary.clone(),
        ]);
    }
    output::line(timeline)
}
