//! One look at the daemon, as the rules want it.

use crate::{
    domain::alert::rules::{Situation, Waiting},
    health::{BrokerSide, Checks},
    metrics::{Metrics, Snapshot},
    store::StoreError,
};

/// States of jobs that nobody has to look at: they go on by themselves.
const UNDER_WAY: [&str; 4] = ["received", "decided", "sending", "unknown"];

/// Looks at everything that alerts are about.
///
/// # Errors
/// [`StoreError`] when the book cannot be read.
pub(super) async fn look(checks: &Checks, metrics: &Metrics) -> Result<Situation, StoreError> {
    let snapshot = checks.snapshot().await?;
    let quarantined_at = checks.readers.last_quarantined_at().await?;
    let forged_at = checks.readers.last_forged_at().await?;
    let count = |state: &str| -> u64 {
        let of_state = snapshot.jobs.iter().filter(|(name, ..)| name == state);
        of_state.map(|(_, _, jobs)| *jobs).sum()
    };
    let oldest = |state: &str| {
        snapshot.oldest.iter().find(|(name, _)| name == state).map(|(_, since)| *since)
    };
    let waiting = |(count, since): (u64, Option<_>)| Waiting { count, since };
    Ok(Situation {
        released: waiting(snapshot.released_unconfirmed),
        released_stuck: snapshot.released_stuck,
        conflicts: count("conflict"),
        parked: count("parked").saturating_sub(snapshot.approvals_waiting.0),
        approvals: waiting(snapshot.approvals_waiting),
        awaiting: waiting((count("awaiting_approval"), oldest("awaiting_approval"))),
        oldest_under_way: UNDER_WAY.into_iter().filter_map(oldest).min(),
        sender_stopped: snapshot.sender_stopped,
        disconnected: disconnected(&snapshot),
        publisher_blocked: snapshot.publisher_blocked,
        dropped: checks.health.dropped(),
        forged_at,
        quarantined_at,
        unpublished: waiting(snapshot.outbox_waiting),
        without_job: metrics.records_without_job(),
        differences: snapshot.comparisons.differences(),
        comparisons_failed: metrics.comparisons_failing(),
        sync_differences: metrics.sync_differences(),
        overdrawn: snapshot.overdrawn,
        shortfall_ago: metrics.shortfall_ago(),
        batch_age: snapshot.batch_age,
        free_bytes: snapshot.free_bytes,
        log_bytes: metrics.log_bytes(),
        archiving_failed: metrics.archiving_failing(),
        clock_ahead: snapshot.clock_ahead,
        feed_down: snapshot.feed_connected == Some(false),
        feed_stale: snapshot.gate.shut.filter(|shut| shut.is_stale()),
        feeds_with_gaps: snapshot.feeds.with_gaps,
        snapshots_differing: snapshot.feeds.differing,
        unproven: snapshot.feeds.unproven,
    })
}

fn disconnected(snapshot: &Snapshot) -> Vec<&'static str> {
    [
        (BrokerSide::Consumer, snapshot.consumer_connected),
        (BrokerSide::Publisher, snapshot.publisher_connected),
    ]
    .into_iter()
    .filter(|(_, connected)| !connected)
    .map(|(side, _)| side.as_str())
    .collect()
}
