//! `settled actions`.

use clap::{Args, ValueEnum};

use super::output;
use crate::{
    config::Config,
    domain::{action::ActionKind, ids::RecordId},
    store::{
        open_readers,
        query::{ActionFilter, ActionLine, PAGE_MAX},
    },
};

/// Show what operators did: when, who, what, and why; the latest first.
#[derive(Debug, Args)]
pub(super) struct ActionsArgs {
    /// Only actions of this kind.
    #[arg(long)]
    kind: Option<KindArgument>,
    /// Only actions on the job about this record.
    #[arg(long)]
    record: Option<RecordId>,
    /// Only actions by this name, as the list has it.
    #[arg(long)]
    who: Option<String>,
    /// Only those before this number: the last of the page before.
    #[arg(long, value_name = "NUMBER")]
    before: Option<i64>,
    /// At most this many.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=i64::from(PAGE_MAX)))]
    limit: u32,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum KindArgument {
    Retry,
    Approve,
    Refuse,
    ProposeEnd,
    ConfirmEnd,
    Requeue,
    Switch,
    AcceptSnapshot,
}

impl From<KindArgument> for ActionKind {
    fn from(argument: KindArgument) -> Self {
        match argument {
            KindArgument::Retry => Self::Retry,
            KindArgument::Approve => Self::Approve,
            KindArgument::Refuse => Self::Refuse,
            KindArgument::ProposeEnd => Self::ProposeEnd,
            KindArgument::ConfirmEnd => Self::ConfirmEnd,
            KindArgument::Requeue => Self::Requeue,
            KindArgument::Switch => Self::Switch,
            KindArgument::AcceptSnapshot => Self::AcceptSnapshot,
        }
    }
}

pub(super) async fn run(config: &Config, arguments: ActionsArgs) -> anyhow::Result<()> {
    let filter = ActionFilter {
        kind: arguments.kind.map(ActionKind::from),
        record_id: arguments.record,
        who: arguments.who,
        before: arguments.before,
        limit: arguments.limit,
    };
    let lines = open_readers(&config.store.path).await?.actions(&filter).await?;
    if arguments.json {
        return output::json(&lines);
    }
    let mut table = output::table(["action", "at", "who", "what", "to", "reason"]);
    for line in &lines {
        table.add_row([
            line.seq.to_string(),
            line.at_ms.to_string(),
            line.who.clone(),
            what(line),
            subject(line),
            line.reason.clone(),
        ]);
    }
    output::line(table)?;
    output::line(format_args!("{} actions", lines.len()))
}

fn what(line: &ActionLine) -> String {
    let detail: serde_json::Value = serde_json::from_str(line.detail.get()).unwrap_or_default();
    let off = detail.get("on").is_some_and(|on| on == false);
    match (line.outcome, line.switch) {
        (Some(outcome), _) => format!("{} as {outcome}", line.kind),
        (None, Some(_)) if off => format!("{} off", line.kind),
        (None, Some(_)) => format!("{} on", line.kind),
        (None, None) => line.kind.clone(),
    }
}

fn subject(line: &ActionLine) -> String {
    match (line.record_id, line.quarantine_seq, line.switch) {
        (Some(record), ..) => record.to_string(),
        (None, Some(message), _) => format!("message {message}"),
        (None, None, Some(switch)) => switch.to_string(),
        (None, None, None) => {
            line.connection_id.map_or_else(String::new, |id| format!("connection {id}"))
        }
    }
}
