//! What needs attention now: the alerts that hold, each with the page that shows its cause and the runbook's
//! section that says what to do.

use super::shown::Ago;
use crate::{
    domain::{
        alert::{AlertKey, AlertKind, Severity, life::Known},
        time::TimestampMs,
    },
    store::{Readers, StoreError},
};

/// Something that needs attention.
pub(super) struct Attention {
    pub(super) name: &'static str,
    pub(super) subject: String,
    pub(super) severity: Severity,
    pub(super) summary: String,
    pub(super) since: Ago,
    /// Whether it has been told; otherwise it has not held for long enough.
    pub(super) told: bool,
    /// Whether it does not hold any more, and is watched for a while.
    pub(super) clears: bool,
    /// The page that shows it.
    pub(super) link: &'static str,
    /// What is there.
    pub(super) link_says: &'static str,
    /// The section of the runbook.
    pub(super) section: String,
}

/// The page that shows what an alert is about.
const fn page_of(kind: AlertKind) -> (&'static str, &'static str) {
    match kind {
        AlertKind::ReleasedUnconfirmed => {
            ("/page/jobs?state=open&outcome=released&sort=oldest", "released and open jobs")
        }
        AlertKind::Conflict => ("/page/jobs?state=conflict", "jobs in conflict"),
        AlertKind::Parked => ("/page/jobs?state=parked", "parked jobs"),
        AlertKind::ApprovalWaiting => {
            ("/page/jobs?state=parked&reason=needs_approval", "jobs that need approval")
        }
        AlertKind::ApprovalAbandoned => {
            ("/page/jobs?state=awaiting_approval", "jobs that wait for approval at OES")
        }
        AlertKind::OldestJob => ("/page/jobs?sort=longest", "open jobs, the longest first"),
        AlertKind::ForgedJob | AlertKind::Quarantine => {
            ("/page/quarantine?waiting=on", "messages in quarantine")
        }
        AlertKind::RecordsWithoutJob
        | AlertKind::ReconcileDifferences
        | AlertKind::ComparisonsFail => ("/page/reconcile", "comparisons with OES"),
        AlertKind::BookOutOfStep
        | AlertKind::Overdrawn
        | AlertKind::FeedGap
        | AlertKind::SnapshotDifference
        | AlertKind::Unproven => ("/page/book", "the book"),
        AlertKind::Shortfall => ("/page/jobs?state=overruled", "overruled jobs"),
        AlertKind::SenderStopped
        | AlertKind::SenderPaused
        | AlertKind::BrokerDisconnected
        | AlertKind::FeedConsumerDown
        | AlertKind::FeedStale
        | AlertKind::PublisherBlocked
        | AlertKind::DroppedByBroker
        | AlertKind::OutcomesUnpublished
        | AlertKind::WriterStuck
        | AlertKind::DiskLow
        | AlertKind::LogLong
        | AlertKind::ArchiveFails
        | AlertKind::ClockSetBack => ("/page#parts", "the daemon's parts"),
    }
}

/// The name by which the runbook's section is found.
pub(super) fn section(name: &str) -> String {
    name.to_lowercase()
}

fn attention((key, known): (AlertKey, Known), now: TimestampMs) -> Attention {
    use crate::domain::alert::life::Stage;
    let AlertKey { kind, subject } = key;
    let (link, link_says) = page_of(kind);
    Attention {
        name: kind.name(),
        subject,
        severity: kind.severity(),
        since: Ago { at: known.held_since, now },
        told: known.is_firing(),
        clears: matches!(known.stage, Stage::Firing { clear_since: Some(_), .. }),
        summary: known.summary,
        link,
        link_says,
        section: section(kind.name()),
    }
}

/// What needs attention now, the most urgent first.
pub(super) async fn now(readers: &Readers, now: TimestampMs) -> Result<Vec<Attention>, StoreError> {
    let mut all: Vec<(AlertKey, Known)> = readers.alerts().await?.into_iter().collect();
    let rank = |key: &AlertKey| AlertKind::ALL.iter().position(|kind| *kind == key.kind);
    all.sort_by_key(|(key, known)| (!known.is_firing(), rank(key)));
    Ok(all.into_iter().map(|alert| attention(alert, now)).collect())
}
