//! `settled jobs show` and `explain`: everything about one job.

use anyhow::{Context as _, bail};
use clap::ValueEnum;

use crate::{
    cli::output,
    clock::{Clock as _, SystemClock},
    config::Config,
    domain::{ids::RecordId, time::TimestampMs},
    operator::{
        self, JobView,
        explain::{self, Against},
    },
    store::archive::open_history,
};

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(in crate::cli) enum AgainstArgument {
    Then,
    Now,
}

pub(super) async fn run(config: &Config, id: &str, json: bool) -> anyhow::Result<()> {
    let id: RecordId = id.parse().with_context(|| format!("{id:?}"))?;
    let readers = open_history(&config.store.path).await?;
    let Some(view) = operator::job(&readers, id).await? else {
        bail!("there is no job about record {id} in {}", config.store.path.display());
    };
    if json {
        return output::json(&view);
    }
    let now = SystemClock.now();
    show(&view, now)?;
    for refused in &view.refused_before {
        output::line(format_args!("\nrefused: a job that named the same record"))?;
        show(refused, now)?;
    }
    Ok(())
}

fn show(view: &JobView, now: TimestampMs) -> anyhow::Result<()> {
    let terms = &view.terms;
    let next = match view.next_step_at_ms {
        None => "–".to_owned(),
        Some(at) if at <= now => format!("{at}, which is now"),
        Some(at) => format!("{at}, in {}", output::duration(at.since(now))),
    };
    let since = output::duration(now.since(view.state_since_ms));
    let mut facts = output::table(["job", &view.seq.to_string()]);
    for (name, value) in [
        ("record", terms.record_id.to_string()),
        ("type", terms.job_type.to_string()),
        ("amount", terms.amount.to_string()),
        ("state", format!("{} for {since}", view.state)),
        ("client", format!("{} / {}", terms.client_id, terms.partners_client_id)),
        ("connection", format!("{} / {}", terms.connection_id, terms.partners_connection_id)),
        ("partner's record", terms.partners_record_id.to_string()),
        ("next step at", next),
    ] {
        facts.add_row([name.to_owned(), value]);
    }
    output::line(format_args!("{facts}\n"))?;
    let mut timeline = output::table(["at", "after", "what", ""]);
    for (index, happening) in view.timeline.iter().enumerate() {
        let after = std::time::Duration::from_millis(happening.after_ms);
        timeline.add_row([
            happening.at_ms.to_string(),
            if index == 0 { String::new() } else { format!("+{}", output::duration(after)) },
            happening.what.to_owned(),
            output::printable(&happening.summary),
        ]);
    }
    output::line(timeline)?;
    match &view.advice {
        Some(advice) => output::line(format_args!("\nwhat to do: {advice}")),
        None => Ok(()),
    }
}

pub(super) async fn explain(
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
