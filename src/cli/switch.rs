//! `settled switch`.

use clap::{Args, ValueEnum};

use super::{
    output::{self, Tint},
    target::Target,
};
use crate::{
    clock::{Clock as _, SystemClock},
    config::Config,
    control::Caller,
    domain::action::{Operator, Switch},
    store::open_readers,
};

/// How the lock says who holds the book.
const HOLDER: &str = "settled switch";

/// Show what is switched off, or switch it off or on.
///
/// A switch stays as it is until somebody sets it again, also over a restart. What is under way when
/// sending is switched off is finished; nothing more is sent.
#[derive(Debug, Args)]
pub(super) struct SwitchArgs {
    /// Which: taking jobs from the queue, deciding and signing, or sending updates to OES. Without it, all
    /// are shown.
    #[arg(requires = "setting")]
    switch: Option<SwitchArgument>,
    /// Whether it goes on.
    #[arg(requires = "reason")]
    setting: Option<Setting>,
    /// Why; kept in the journal.
    #[arg(long)]
    reason: Option<String>,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum SwitchArgument {
    Intake,
    Signing,
    Sending,
}

impl From<SwitchArgument> for Switch {
    fn from(argument: SwitchArgument) -> Self {
        match argument {
            SwitchArgument::Intake => Self::Intake,
            SwitchArgument::Signing => Self::Signing,
            SwitchArgument::Sending => Self::Sending,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Setting {
    On,
    Off,
}

pub(super) async fn run(
    config: &Config,
    caller: &Caller,
    arguments: &SwitchArgs,
) -> anyhow::Result<()> {
    let (Some(switch), Some(setting), Some(reason)) =
        (arguments.switch, arguments.setting, &arguments.reason)
    else {
        return show(config, arguments.json).await;
    };
    let by = Operator::new(&caller.who, reason).map_err(anyhow::Error::msg)?;
    let (switch, on) = (Switch::from(switch), setting == Setting::On);
    let mut target = Target::open(config, HOLDER, caller).await?;
    let set = target.set_switch(switch, on, &by).await;
    target.close().await?;
    let word = if on { "on" } else { "off" };
    match (set?, on) {
        (false, _) => output::line(format_args!("{switch} was {word} already")),
        (true, true) => output::line(format_args!("{switch} is on")),
        (true, false) => output::line(format_args!("{switch} is off: {}", switch.while_off())),
    }
}

async fn show(config: &Config, json: bool) -> anyhow::Result<()> {
    let readers = open_readers(&config.store.path).await?;
    let (switches, now) = (readers.switches().await?, SystemClock.now());
    if json {
        return output::json(&switches);
    }
    let mut table = output::table(["switch", "", "since", "by", "reason"]);
    for line in switches {
        table.add_row([
            output::cell(line.switch),
            output::tinted(
                if line.on { "on" } else { "OFF" }.to_owned(),
                if line.on { Tint::Plain } else { Tint::Bad },
            ),
            output::cell(
                line.since_ms.map_or_else(String::new, |at| output::duration(now.since(at))),
            ),
            output::cell(output::printable(&line.who.unwrap_or_default())),
            output::cell(output::printable(&line.reason.unwrap_or_default())),
        ]);
    }
    output::line(table)
}
