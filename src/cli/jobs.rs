//! `settled jobs`: what can be asked about jobs and done to them. Nothing here can change a decision.

mod act;
mod filter;
pub(super) mod list;
mod show;
mod watch;

use std::path::PathBuf;

use clap::Subcommand;

use act::ActArgs;
use filter::OutcomeArgument;
use list::ListArgs;
use show::AgainstArgument;
use watch::WatchArgs;

use crate::{
    config::Config, control::Caller, domain::ids::RecordId, domain::policy::OperatorWord,
    writer::JobAction,
};

#[derive(Debug, Subcommand)]
pub(super) enum JobsCommand {
    /// List jobs, the newest first.
    ///
    /// A list is read along an index, so it is as quick among millions. Where no index leads to what is
    /// asked for, a limited number of jobs is looked at, and the list says so and where it goes on.
    List(ListArgs),
    /// Show jobs as they change: drawn again and again on a terminal, else a line for each change.
    Watch(WatchArgs),
    /// Show everything that happened to one job, in order, with the times between, and what to do about it.
    Show {
        /// The record: allocationId or deallocationId.
        #[arg(value_name = "ID")]
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
    /// Let parked jobs go on, after their cause is gone. Never changes a decision that was made.
    ///
    /// A job that was parked undecided is decided as if it had just arrived. One that was decided keeps
    /// its decision: its record is read back first, and if OES still has it reserved, the same outcome
    /// is sent again with a fresh nonce.
    Retry(ActArgs),
    /// Approve jobs that wait for it because their quantity is above the threshold.
    ///
    /// The policy looks at each again, as the book is now, with the threshold waived and nothing else: it
    /// may release the record, or park the job for another reason. A job is decided once; a word about one
    /// that does not wait for it changes nothing.
    Approve(ActArgs),
    /// Refuse jobs that wait for approval: their records are released. The client does not see your reason.
    Refuse(ActArgs),
    /// Say how OES ended the records of jobs that are in conflict. It takes two operators.
    ///
    /// The first one's word is a proposal; when another operator says the same in time, the job is closed.
    /// Nothing is signed, and the decision stays as it is: the book follows OES, a shortfall is alerted, and
    /// the actual outcome is announced. OES is asked before a word counts, and what it shows must agree.
    Resolve {
        /// How OES ended them.
        #[arg(long)]
        outcome: OutcomeArgument,
        #[command(flatten)]
        on: ActArgs,
    },
}

pub(super) async fn run(
    config: &Config,
    caller: &Caller,
    command: JobsCommand,
) -> anyhow::Result<()> {
    match command {
        JobsCommand::List(arguments) => list::run(config, arguments).await,
        JobsCommand::Watch(arguments) => watch::run(config, arguments).await,
        JobsCommand::Show { id, json } => show::run(config, &id, json).await,
        JobsCommand::Explain { id, against, json } => {
            show::explain(config, id, against, json).await
        }
        JobsCommand::Evidence { id, out } => {
            super::evidence::export(config, id, out.as_deref()).await
        }
        JobsCommand::Retry(on) => act::run(config, caller, JobAction::Retry, &on).await,
        JobsCommand::Approve(on) => {
            act::run(config, caller, JobAction::Say(OperatorWord::Approved), &on).await
        }
        JobsCommand::Refuse(on) => {
            act::run(config, caller, JobAction::Say(OperatorWord::Refused), &on).await
        }
        JobsCommand::Resolve { outcome, on } => {
            act::run(config, caller, JobAction::Close(outcome.into()), &on).await
        }
    }
}
