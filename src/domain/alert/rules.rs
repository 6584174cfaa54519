//! What holds in a situation. Pure: a look at the daemon goes in, conditions come out.

use std::{collections::BTreeSet, time::Duration};

use super::{AlertKey, AlertKind, Condition};
use crate::domain::{lag::Shut, time::TimestampMs};

/// How long the writer may be at one batch.
const BATCH_AGE_MAX: Duration = Duration::from_secs(10);

/// How far the machine's clock may be behind.
const CLOCK_AHEAD_MAX: Duration = Duration::from_secs(60);

/// How long something that happened once, such as a refused message, is told as holding.
const RECENT: Duration = Duration::from_secs(600);

/// How long OES may limit the rate of requests.
const PAUSE_MAX: Duration = Duration::from_secs(600);

/// How many comparisons with OES, or tries to archive, may fail one after another.
const FAILURES_IN_A_ROW: u32 = 3;

/// An alert about a level is over only when the level is this much better than what it fired at, in
/// hundredths, so that a level near its bound does not fire again and again.
const LEVEL_MARGIN_PERCENT: u64 = 10;

/// The bounds that an operator sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// Age of a released record that OES has not confirmed.
    pub released_unconfirmed_age: Duration,
    /// Age of an open job that nobody has to look at.
    pub oldest_job_age: Duration,
    /// How long a job may wait for an operator's approval.
    pub approval_age: Duration,
    /// Age of a job that waits for a policy approval at OES.
    pub awaiting_approval_age: Duration,
    /// How long a message may wait to be published.
    pub unpublished_age: Duration,
    /// Least room on a volume, in bytes.
    pub free_bytes_min: u64,
    /// Largest log beside the database, in bytes.
    pub log_bytes_max: u64,
}

/// Things that wait, and since when the oldest does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// How many.
    pub count: u64,
    /// Since when.
    pub since: Option<TimestampMs>,
}

impl Waiting {
    /// How long the oldest has waited, if it is longer than `limit`.
    fn longer_than(self, limit: Duration, now: TimestampMs) -> Option<Duration> {
        let age = now.since(self.since?);
        (age > limit).then_some(age)
    }
}

/// One look at the daemon. Where it cannot be told at present, there is nothing; what fires then goes on.
#[derive(Clone, Debug, Default)]
pub struct Situation {
    /// Released records that OES has not confirmed.
    pub released: Waiting,
    /// Those of them that are parked or in conflict.
    pub released_stuck: u64,
    /// Jobs in conflict.
    pub conflicts: u64,
    /// Parked jobs, those that need approval not counted.
    pub parked: u64,
    /// Jobs that wait for an operator's approval.
    pub approvals: Waiting,
    /// Jobs that wait for an approval at OES, by when they were taken in.
    pub awaiting: Waiting,
    /// The oldest job that is received, decided, sent or read back.
    pub oldest_under_way: Option<TimestampMs>,
    /// Why nothing is sent.
    pub sender_stopped: Option<&'static str>,
    /// Sides of the broker that are not connected.
    pub disconnected: Vec<&'static str>,
    /// Whether the broker takes no messages.
    pub publisher_blocked: bool,
    /// Messages that the broker has given up by itself.
    pub dropped: Option<u64>,
    /// When a message that is not what OES's record says was last quarantined.
    pub forged_at: Option<TimestampMs>,
    /// When a message that was not known was last quarantined.
    pub quarantined_at: Option<TimestampMs>,
    /// Messages that wait to be published.
    pub unpublished: Waiting,
    /// Reserved records without a job.
    pub without_job: Option<u64>,
    /// Differences that the last comparison found.
    pub differences: u64,
    /// How often each kind of comparison has failed in a row.
    pub comparisons_failed: Vec<(&'static str, u32)>,
    /// Differences of connections and currencies that a sync would apply.
    pub sync_differences: Option<u64>,
    /// Balances below zero.
    pub overdrawn: u64,
    /// How long ago a shortfall was found, in this process's life.
    pub shortfall_ago: Option<Duration>,
    /// How long the writer has been at its batch.
    pub batch_age: Duration,
    /// Room on the volumes that are written to.
    pub free_bytes: Vec<(&'static str, u64)>,
    /// Length of the log beside the database.
    pub log_bytes: u64,
    /// How often archiving has failed in a row.
    pub archiving_failed: u32,
    /// How far the daemon's time is ahead of the machine's clock.
    pub clock_ahead: Duration,
    /// Whether a feed is configured and not consumed.
    pub feed_down: bool,
    /// Why the feed counts as standing still.
    pub feed_stale: Option<Shut>,
    /// Connections whose feeds have missing events.
    pub feeds_with_gaps: u64,
    /// Connections whose last snapshot differs from the book.
    pub snapshots_differing: u64,
    /// Connections about which the book is to be proved after a restore.
    pub unproven: u64,
}

/// What holds, and what cannot be told.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// What holds.
    pub holding: Vec<Condition>,
    /// Kinds of which nothing is known at present.
    pub untold: Vec<AlertKind>,
}

impl Findings {
    fn add(&mut self, kind: AlertKind, subject: &str, things: u64, summary: String) {
        let key = AlertKey { kind, subject: subject.to_owned() };
        self.holding.push(Condition { key, things, summary });
    }

    /// A condition about a number that may be unknown.
    fn count(&mut self, kind: AlertKind, number: Option<u64>, what: &str) {
        match number {
            None => self.untold.push(kind),
            Some(0) => {}
            Some(number) => self.add(kind, "", number, format!("{number} {what}")),
        }
    }
}

/// What holds in a situation, given what fires already.
#[must_use]
pub fn find(
    situation: &Situation,
    thresholds: &Thresholds,
    firing: &BTreeSet<AlertKey>,
    now: TimestampMs,
) -> Findings {
    let mut found = Findings::default();
    find_jobs(&mut found, situation, thresholds, now);
    find_ways_out(&mut found, situation, thresholds, now);
    find_book(&mut found, situation);
    find_feed(&mut found, situation);
    find_machine(&mut found, situation, thresholds, firing);
    found
}

/// An age for a person: whole seconds, minutes or hours.
fn shown(age: Duration) -> String {
    match age.as_secs() {
        seconds @ 0..=119 => format!("{seconds} s"),
        seconds @ 120..=7_199 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3_600),
    }
}

fn find_jobs(found: &mut Findings, at: &Situation, bounds: &Thresholds, now: TimestampMs) {
    let released = at.released.longer_than(bounds.released_unconfirmed_age, now);
    if released.is_some() || at.released_stuck > 0 {
        let count = at.released.count;
        let age = shown(at.released.since.map_or(Duration::ZERO, |since| now.since(since)));
        found.add(AlertKind::ReleasedUnconfirmed, "", count, format!(
            "{count} released records are not confirmed by OES, the oldest is {age} old, {} are parked \
             or in conflict: their clients' funds are stuck", at.released_stuck
        ));
    }
    if at.conflicts > 0 {
        let text =
            format!("OES contradicts what was decided and sent for {} records", at.conflicts);
        found.add(AlertKind::Conflict, "", at.conflicts, text);
    }
    if at.parked > 0 {
        let text = format!("{} jobs are parked and wait for an operator", at.parked);
        found.add(AlertKind::Parked, "", at.parked, text);
    }
    if let Some(age) = at.approvals.longer_than(bounds.approval_age, now) {
        let count = at.approvals.count;
        let text =
            format!("{count} jobs wait for an operator's approval, the oldest for {}", shown(age));
        found.add(AlertKind::ApprovalWaiting, "", count, text);
    }
    if let Some(age) = at.awaiting.longer_than(bounds.awaiting_approval_age, now) {
        let count = at.awaiting.count;
        let text = format!(
            "{count} jobs wait for a policy approval at OES, the oldest is {} old",
            shown(age)
        );
        found.add(AlertKind::ApprovalAbandoned, "", count, text);
    }
    if let Some(since) = at.oldest_under_way
        && now.since(since) > bounds.oldest_job_age
    {
        let text = format!("the oldest open job is {} old", shown(now.since(since)));
        found.add(AlertKind::OldestJob, "", 1, text);
    }
}

fn find_ways_out(found: &mut Findings, at: &Situation, bounds: &Thresholds, now: TimestampMs) {
    match at.sender_stopped {
        Some("rate_limited") => {
            let text = "OES limits the rate of requests: nothing is sent or read".to_owned();
            found.add(AlertKind::SenderPaused, "", 1, text);
        }
        Some(cause) => {
            found.add(
                AlertKind::SenderStopped,
                cause,
                1,
                format!("nothing is sent to OES: {cause}"),
            );
        }
        None => {}
    }
    for side in &at.disconnected {
        let text = format!("no connection to the broker: {side}");
        found.add(AlertKind::BrokerDisconnected, side, 1, text);
    }
    if at.publisher_blocked {
        let text = "the broker takes no messages: it is short of memory or disk".to_owned();
        found.add(AlertKind::PublisherBlocked, "", 1, text);
    }
    let what =
        "messages of the jobs queue were given up by the broker, and nobody has taken them in";
    found.count(AlertKind::DroppedByBroker, at.dropped, what);
    if at.forged_at.is_some_and(|at| now.since(at) <= RECENT) {
        let text =
            "a job's message is not what OES's record says: somebody may have forged it".to_owned();
        found.add(AlertKind::ForgedJob, "", 1, text);
    }
    if at.quarantined_at.is_some_and(|at| now.since(at) <= RECENT) {
        let text = "a message was refused and is in quarantine".to_owned();
        found.add(AlertKind::Quarantine, "", 1, text);
    }
    if let Some(age) = at.unpublished.longer_than(bounds.unpublished_age, now) {
        let count = at.unpublished.count;
        let text = format!(
            "{count} outcomes or dead letters wait to be published, the first for {}",
            shown(age)
        );
        found.add(AlertKind::OutcomesUnpublished, "", count, text);
    }
}

fn find_book(found: &mut Findings, at: &Situation) {
    let what = "records are reserved at OES, and their jobs never came";
    found.count(AlertKind::RecordsWithoutJob, at.without_job, what);
    let what = "things differ between the book and OES";
    found.count(AlertKind::ReconcileDifferences, Some(at.differences), what);
    for (kind, failures) in &at.comparisons_failed {
        if *failures >= FAILURES_IN_A_ROW {
            let text =
                format!("the book cannot be compared with OES: {kind} failed {failures} times");
            found.add(AlertKind::ComparisonsFail, kind, 1, text);
        }
    }
    let what = "connections or currencies of the book are not as OES has them";
    found.count(AlertKind::BookOutOfStep, at.sync_differences, what);
    found.count(AlertKind::Overdrawn, Some(at.overdrawn), "available balances are below zero");
    if at.shortfall_ago.is_some_and(|ago| ago <= RECENT) {
        let text =
            "OES cleared a deallocation that was released here, and the book cannot cover it";
        found.add(AlertKind::Shortfall, "", 1, text.to_owned());
    }
}

fn find_feed(found: &mut Findings, at: &Situation) {
    if at.feed_down {
        let text = "the exchange's feed is not consumed: nothing is decided".to_owned();
        found.add(AlertKind::FeedConsumerDown, "", 1, text);
    }
    if let Some(shut) = at.feed_stale {
        found.add(AlertKind::FeedStale, "", 1, format!("nothing is decided: {shut}"));
    }
    let what = "connections' feeds have missing events";
    found.count(AlertKind::FeedGap, Some(at.feeds_with_gaps), what);
    let what = "connections' snapshots differ from the book";
    found.count(AlertKind::SnapshotDifference, Some(at.snapshots_differing), what);
    let what = "connections are not decided about since the restore";
    found.count(AlertKind::Unproven, Some(at.unproven), what);
}

fn find_machine(
    found: &mut Findings,
    at: &Situation,
    bounds: &Thresholds,
    firing: &BTreeSet<AlertKey>,
) {
    let fires = |kind: AlertKind, subject: &str| {
        firing.contains(&AlertKey { kind, subject: subject.to_owned() })
    };
    if at.batch_age > BATCH_AGE_MAX {
        let text =
            format!("the writer is at one batch for {}: nothing is taken in", shown(at.batch_age));
        found.add(AlertKind::WriterStuck, "", 1, text);
    }
    for (volume, free) in &at.free_bytes {
        let margin =
            if fires(AlertKind::DiskLow, volume) { percent(bounds.free_bytes_min) } else { 0 };
        if *free < bounds.free_bytes_min.saturating_add(margin) {
            let text = format!("{} MiB are left on the volume of the {volume}", free >> 20);
            found.add(AlertKind::DiskLow, volume, 1, text);
        }
    }
    let margin = if fires(AlertKind::LogLong, "") { percent(bounds.log_bytes_max) } else { 0 };
    if at.log_bytes > bounds.log_bytes_max.saturating_sub(margin) {
        let text = format!("the log beside the database has {} MiB", at.log_bytes >> 20);
        found.add(AlertKind::LogLong, "", 1, text);
    }
    if at.archiving_failed >= FAILURES_IN_A_ROW {
        let text = format!("old history could not be archived {} times", at.archiving_failed);
        found.add(AlertKind::ArchiveFails, "", 1, text);
    }
    if at.clock_ahead > CLOCK_AHEAD_MAX {
        let text = format!("the machine's clock is {} behind what it was", shown(at.clock_ahead));
        found.add(AlertKind::ClockSetBack, "", 1, text);
    }
}

/// The margin of a level.
fn percent(of: u64) -> u64 {
    (of / 100).saturating_mul(LEVEL_MARGIN_PERCENT)
}

/// How long a kind must have held before it is told, given how long those have to that come and go.
#[must_use]
pub fn patience(kind: AlertKind, hold: Duration) -> Duration {
    if kind == AlertKind::SenderPaused {
        // A pause is asked for every now and then; it is told when it does not end.
        return PAUSE_MAX.max(hold);
    }
    if kind.must_last() { hold } else { Duration::ZERO }
}

#[cfg(test)]
mod tests;
