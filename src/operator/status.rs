//! The book and its daemon at a glance: what goes on, what is at risk, and what needs a person.

use serde::Serialize;
use serde_json::Value;

use crate::{
    domain::{
        alert::{AlertKind, life::Stage},
        amount::Balance,
        ids::CurrencyCode,
        state::{ConflictKind, ParkReason, State},
        time::TimestampMs,
    },
    store::{
        Readers, StoreError,
        query::{
            ApprovalsWaiting, FeedsAtWork, OldestJob, ReleasedUnconfirmed, StateCount, SwitchLine,
            TroubleLine,
        },
    },
};

/// Troubles that are shown.
const TROUBLES_SHOWN: u32 = 5;

/// The book at a glance.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// When this was read.
    pub at_ms: TimestampMs,
    /// What needs a person now, the most urgent first; nothing, if all is well.
    pub attention: Vec<Attention>,
    /// What the daemon says of its parts; `None` if none answers.
    #[schema(value_type = Option<Object>)]
    pub daemon: Option<Value>,
    /// Jobs by state and type.
    pub jobs: Vec<StateCount>,
    /// The oldest open job of each state that has one.
    pub oldest: Vec<OldestJob>,
    /// Released records that OES has not confirmed.
    pub released_unconfirmed: ReleasedUnconfirmed,
    /// Jobs that wait for an operator's approval.
    pub approvals_waiting: ApprovalsWaiting,
    /// Messages that wait to be published.
    pub outbox_waiting: u64,
    /// Different bad messages.
    pub quarantined: u64,
    /// What records move that are not final, by currency: the amounts at risk.
    pub at_risk: Vec<AtRisk>,
    /// Connections whose feeds need a look.
    pub feeds: FeedsAtWork,
    /// What operators have switched off, and on again.
    pub switches: Vec<SwitchLine>,
    /// The latest attempts that OES did not accept.
    pub last_troubles: Vec<TroubleLine>,
}

/// What open records move in one currency.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct AtRisk {
    /// In what.
    pub currency: CurrencyCode,
    /// How much together, base units.
    pub quantity: Balance,
}

/// Something that a person should look at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Attention {
    /// What it is.
    pub what: String,
    /// Since when, where that is known.
    pub since_ms: Option<TimestampMs>,
    /// What shows more of it, or what to do.
    pub look: String,
}

/// Reads the status from the book.
///
/// # Errors
/// [`StoreError`].
pub async fn status(
    readers: &Readers,
    daemon: Option<Value>,
    now: TimestampMs,
) -> Result<Status, StoreError> {
    let at_risk = readers.at_risk().await?.into_iter().filter(|(_, quantity)| !quantity.is_zero());
    let mut status = Status {
        at_ms: now,
        attention: Vec::new(),
        daemon,
        jobs: readers.job_counts().await?,
        oldest: readers.oldest_open().await?,
        released_unconfirmed: readers.released_unconfirmed().await?,
        approvals_waiting: readers.approvals_waiting().await?,
        outbox_waiting: readers.unpublished_count().await?,
        quarantined: readers.quarantined_count().await?,
        at_risk: at_risk.map(|(currency, quantity)| AtRisk { currency, quantity }).collect(),
        feeds: readers.feeds_at_work().await?,
        switches: readers.switches().await?,
        last_troubles: readers.last_troubles(TROUBLES_SHOWN).await?,
    };
    status.attention = attention(&status);
    let are_stuck = status.released_unconfirmed.stuck > 0;
    status.attention.extend(firing(readers, are_stuck).await?);
    Ok(status)
}

fn needs(what: String, since_ms: Option<TimestampMs>, look: &str) -> Attention {
    Attention { what, since_ms, look: look.to_owned() }
}

/// What the numbers say that needs a person.
fn attention(status: &Status) -> Vec<Attention> {
    let of_state = |name: &str| {
        let lines = status.jobs.iter().filter(|line| line.state == name);
        let oldest = status.oldest.iter().find(|line| line.state == name);
        let jobs = lines.map(|line| line.jobs).fold(0, u64::saturating_add);
        (jobs, oldest.map(|line| line.received_at_ms))
    };
    let mut found = parts(status);
    let (conflicts, since) = of_state(State::Conflict(ConflictKind::OtherOutcome).name());
    if conflicts > 0 {
        let what = format!("{} in conflict with OES", jobs_are(conflicts));
        found.push(needs(what, since, "settled jobs list --state conflict"));
    }
    let released = status.released_unconfirmed;
    if released.stuck > 0 {
        let what = format!(
            "{} released and parked or in conflict: their clients' funds are stuck",
            jobs_are(released.stuck)
        );
        let look = "settled jobs list --state parked,conflict --decided released";
        found.push(needs(what, released.oldest_received_at_ms, look));
    }
    let (parked, since) = of_state(State::Parked(ParkReason::NeedsApproval).name());
    let parked = parked.saturating_sub(status.approvals_waiting.jobs);
    if parked > 0 {
        let what = format!("{} parked", jobs_are(parked));
        found.push(needs(what, since, "settled jobs list --state parked"));
    }
    let approvals = status.approvals_waiting;
    if approvals.jobs > 0 {
        let what = match approvals.jobs {
            1 => "1 job waits for an operator's approval".to_owned(),
            jobs => format!("{jobs} jobs wait for an operator's approval"),
        };
        let look = "settled jobs list --reason needs_approval";
        found.push(needs(what, approvals.oldest_since_ms, look));
    }
    found.extend(feeds(&status.feeds));
    found
}

/// What is wrong with what the exchange feeds.
fn feeds(feeds: &FeedsAtWork) -> impl Iterator<Item = Attention> {
    let connections = |number: u64| match number {
        1 => "1 connection".to_owned(),
        more => format!("{more} connections"),
    };
    let lines = [
        (feeds.differing, "of the book are not as the exchange's snapshot has them"),
        (feeds.with_gaps, "have missing events in their feed"),
        (feeds.unproven, "are not decided about since the restore"),
    ];
    lines.into_iter().filter(|(number, _)| *number > 0).map(move |(number, what)| {
        needs(format!("{} {what}", connections(number)), None, "settled book feed --wrong")
    })
}

/// Parts of the daemon that are not ready; what is switched off is one of them, if there is a daemon.
fn parts(status: &Status) -> Vec<Attention> {
    let Some(daemon) = &status.daemon else {
        let look = "start it (settled run); settled doctor checks what it needs";
        let mut found = vec![needs("no daemon runs on this book".to_owned(), None, look)];
        found.extend(status.switches.iter().filter(|line| !line.on).map(|line| {
            let what = format!("{}, once a daemon runs", line.switch.while_off());
            needs(what, line.since_ms, "settled switch")
        }));
        return found;
    };
    let parts = daemon.get("parts").and_then(Value::as_array).into_iter().flatten();
    parts
        .filter(|part| part.get("ready").and_then(Value::as_bool) == Some(false))
        .map(|part| {
            let text = |key: &str| part.get(key).and_then(Value::as_str).unwrap_or_default();
            needs(format!("{}: {}", text("name"), text("detail")), None, "settled doctor")
        })
        .collect()
}

fn jobs_are(jobs: u64) -> String {
    if jobs == 1 { "1 job is".to_owned() } else { format!("{jobs} jobs are") }
}

/// Alerts that fire and of which nothing else above tells.
async fn firing(readers: &Readers, are_stuck: bool) -> Result<Vec<Attention>, StoreError> {
    let alerts = readers.alerts().await?;
    let firing = alerts.into_iter().filter_map(|(key, known)| match known.stage {
        Stage::Firing { fired_at, clear_since: None, .. }
            if !is_told_above(key.kind, are_stuck) =>
        {
            let look = format!("settled alerts list; docs/RUNBOOK.md, {}", key.kind.name());
            Some(needs(known.summary, Some(fired_at), &look))
        }
        Stage::Firing { .. } | Stage::Pending => None,
    });
    Ok(firing.collect())
}

/// Whether [`attention`] tells of the same. Released records that are only late are told by their alert.
const fn is_told_above(kind: AlertKind, are_stuck: bool) -> bool {
    match kind {
        AlertKind::ReleasedUnconfirmed => are_stuck,
        AlertKind::Conflict
        | AlertKind::Parked
        | AlertKind::ApprovalWaiting
        | AlertKind::SenderStopped
        | AlertKind::SenderPaused
        | AlertKind::BrokerDisconnected
        | AlertKind::PublisherBlocked
        | AlertKind::FeedConsumerDown
        | AlertKind::FeedStale
        | AlertKind::FeedGap
        | AlertKind::SnapshotDifference
        | AlertKind::Unproven
        | AlertKind::WriterStuck => true,
        AlertKind::ApprovalAbandoned
        | AlertKind::OldestJob
        | AlertKind::DroppedByBroker
        | AlertKind::ForgedJob
        | AlertKind::Quarantine
        | AlertKind::OutcomesUnpublished
        | AlertKind::RecordsWithoutJob
        | AlertKind::ReconcileDifferences
        | AlertKind::ComparisonsFail
        | AlertKind::BookOutOfStep
        | AlertKind::Overdrawn
        | AlertKind::Shortfall
        | AlertKind::DiskLow
        | AlertKind::LogLong
        | AlertKind::ArchiveFails
        | AlertKind::ClockSetBack => false,
    }
}
