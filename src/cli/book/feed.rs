//! `settled book feed` and `settled book accept-snapshot`.

use anyhow::bail;

use crate::{
    cli::{output, target::Target},
    config::Config,
    control::Caller,
    domain::{action::Operator, feed::TotalDiffers, ids::ConnectionId},
    pipeline::accept::ACCEPTED_MAX,
    store::Readers,
};

/// How the lock says who holds the book.
const HOLDER: &str = "settled book accept-snapshot";

pub(super) async fn show(
    readers: &Readers,
    only_wrong: bool,
    limit: u32,
    json: bool,
) -> anyhow::Result<()> {
    let feeds = readers.feeds(only_wrong, limit).await?;
    if json {
        return output::json(&feeds);
    }
    let mut table = output::table([
        "connection",
        "number",
        "missing",
        "snapshot differs in",
        "after a restore",
    ]);
    for feed in &feeds {
        let missing: Vec<String> = feed.missing.iter().map(ToString::to_string).collect();
        let differs: Vec<String> = feed
            .differs
            .iter()
            .map(|TotalDiffers { currency, expected, found }| {
                format!("{currency}: {expected} there, {found} here")
            })
            .collect();
        table.add_row([
            feed.connection_id.to_string(),
            feed.last_sequence.map_or_else(String::new, |number| number.to_string()),
            missing.join(", "),
            differs.join("\n"),
            if feed.is_unproven { "to be proved" } else { "" }.to_owned(),
        ]);
    }
    output::line(table)
}

pub(super) async fn accept(
    config: &Config,
    caller: &Caller,
    connections: &[ConnectionId],
    reason: &str,
) -> anyhow::Result<()> {
    let by = Operator::new(&caller.who, reason).map_err(anyhow::Error::msg)?;
    let mut target = Target::open(config, HOLDER, caller).await?;
    let mut unknown: usize = 0;
    for chunk in connections.chunks(ACCEPTED_MAX) {
        for accepted in target.accept_snapshots(chunk, &by).await? {
            let id = accepted.connection_id;
            if !accepted.is_known {
                unknown = unknown.saturating_add(1);
                output::line(format_args!("{id}: the book does not have this connection"))?;
                continue;
            }
            if accepted.booked.is_empty() {
                output::line(format_args!("{id}: accepted as the book has it"))?;
            }
            for differs in &accepted.booked {
                let change = differs.missing()?;
                output::line(format_args!(
                    "{id}: accepted; {change} {} is booked",
                    differs.currency
                ))?;
            }
        }
    }
    target.close().await?;
    if unknown == 0 { Ok(()) } else { bail!("{unknown} connections are not in the book") }
}
