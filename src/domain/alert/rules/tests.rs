use super::*;
use crate::domain::alert::{AlertKind as Kind, Severity};

const BOUNDS: Thresholds = Thresholds {
    released_unconfirmed_age: Duration::from_secs(300),
    oldest_job_age: Duration::from_secs(900),
    approval_age: Duration::from_secs(1_800),
    awaiting_approval_age: Duration::from_secs(86_400),
    unpublished_age: Duration::from_secs(300),
    free_bytes_min: 1_000,
    log_bytes_max: 1_000,
};

const NOW_S: i64 = 1_000_000;

fn ago(seconds: i64) -> TimestampMs {
    TimestampMs::from_millis((NOW_S - seconds) * 1_000)
}

fn waiting(count: u64, seconds: i64) -> Waiting {
    Waiting { count, since: Some(ago(seconds)) }
}

/// Where nothing is wrong and everything can be told.
fn quiet() -> Situation {
    Situation {
        dropped: Some(0),
        without_job: Some(0),
        sync_differences: Some(0),
        ..Situation::default()
    }
}

fn found(situation: &Situation, firing: &[AlertKey]) -> Vec<(AlertKind, String, u64)> {
    let firing = firing.iter().cloned().collect();
    find(situation, &BOUNDS, &firing, TimestampMs::from_millis(NOW_S * 1_000))
        .holding
        .into_iter()
        .map(|condition| (condition.key.kind, condition.key.subject, condition.things))
        .collect()
}

type Change = fn(&mut Situation);

/// A kind, what is within its bound, and what is beyond.
type Case = (Kind, Change, Change);

/// About jobs.
fn of_jobs() -> [Case; 6] {
    [
        (
            Kind::ReleasedUnconfirmed,
            |at| at.released = waiting(2, 300),
            |at| {
                at.released = waiting(2, 301);
            },
        ),
        (Kind::Conflict, |at| at.conflicts = 0, |at| at.conflicts = 1),
        (Kind::Parked, |at| at.parked = 0, |at| at.parked = 1),
        (
            Kind::ApprovalWaiting,
            |at| at.approvals = waiting(1, 1_800),
            |at| {
                at.approvals = waiting(1, 1_801);
            },
        ),
        (
            Kind::ApprovalAbandoned,
            |at| at.awaiting = waiting(1, 86_400),
            |at| {
                at.awaiting = waiting(1, 86_401);
            },
        ),
        (
            Kind::OldestJob,
            |at| at.oldest_under_way = Some(ago(900)),
            |at| {
                at.oldest_under_way = Some(ago(901));
            },
        ),
    ]
}

/// About OES and the broker.
fn of_ways_out() -> [Case; 8] {
    [
        (Kind::ForgedJob, |at| at.forged_at = Some(ago(601)), |at| at.forged_at = Some(ago(600))),
        (
            Kind::SenderStopped,
            |at| at.sender_stopped = None,
            |at| {
                at.sender_stopped = Some("token_refused");
            },
        ),
        (
            Kind::SenderPaused,
            |at| at.sender_stopped = None,
            |at| {
                at.sender_stopped = Some("rate_limited");
            },
        ),
        (
            Kind::BrokerDisconnected,
            |at| at.disconnected.clear(),
            |at| {
                at.disconnected.push("consumer");
            },
        ),
        (
            Kind::PublisherBlocked,
            |at| at.publisher_blocked = false,
            |at| {
                at.publisher_blocked = true;
            },
        ),
        (Kind::DroppedByBroker, |at| at.dropped = Some(0), |at| at.dropped = Some(1)),
        (
            Kind::Quarantine,
            |at| at.quarantined_at = Some(ago(601)),
            |at| at.quarantined_at = Some(ago(600)),
        ),
        (
            Kind::OutcomesUnpublished,
            |at| at.unpublished = waiting(9, 300),
            |at| {
                at.unpublished = waiting(9, 301);
            },
        ),
    ]
}

/// About the book and the machine.
fn of_book_and_machine() -> [Case; 11] {
    [
        (Kind::RecordsWithoutJob, |at| at.without_job = Some(0), |at| at.without_job = Some(1)),
        (Kind::ReconcileDifferences, |at| at.differences = 0, |at| at.differences = 1),
        (
            Kind::ComparisonsFail,
            |at| at.comparisons_failed.push(("sweep", 2)),
            |at| {
                at.comparisons_failed.push(("sweep", 3));
            },
        ),
        (
            Kind::BookOutOfStep,
            |at| at.sync_differences = Some(0),
            |at| {
                at.sync_differences = Some(1);
            },
        ),
        (Kind::Overdrawn, |at| at.overdrawn = 0, |at| at.overdrawn = 1),
        (
            Kind::Shortfall,
            |at| at.shortfall_ago = Some(Duration::from_secs(601)),
            |at| {
                at.shortfall_ago = Some(Duration::from_secs(600));
            },
        ),
        (
            Kind::WriterStuck,
            |at| at.batch_age = Duration::from_secs(10),
            |at| {
                at.batch_age = Duration::from_millis(10_001);
            },
        ),
        (
            Kind::DiskLow,
            |at| at.free_bytes.push(("book", 1_000)),
            |at| {
                at.free_bytes.push(("book", 999));
            },
        ),
        (Kind::LogLong, |at| at.log_bytes = 1_000, |at| at.log_bytes = 1_001),
        (Kind::ArchiveFails, |at| at.archiving_failed = 2, |at| at.archiving_failed = 3),
        (
            Kind::ClockSetBack,
            |at| at.clock_ahead = Duration::from_secs(60),
            |at| {
                at.clock_ahead = Duration::from_millis(60_001);
            },
        ),
    ]
}

/// About the exchange's feed.
fn of_feed() -> [Case; 5] {
    [
        (Kind::FeedConsumerDown, |at| at.feed_down = false, |at| at.feed_down = true),
        (
            Kind::FeedStale,
            |at| at.feed_stale = None,
            |at| {
                at.feed_stale = Some(Shut::NoHeartbeat);
            },
        ),
        (Kind::FeedGap, |at| at.feeds_with_gaps = 0, |at| at.feeds_with_gaps = 1),
        (
            Kind::SnapshotDifference,
            |at| at.snapshots_differing = 0,
            |at| at.snapshots_differing = 1,
        ),
        (Kind::Unproven, |at| at.unproven = 0, |at| at.unproven = 1),
    ]
}

/// Each bound from both sides.
#[test]
fn each_kind_holds_beyond_its_bound_and_not_within_it() {
    let cases: Vec<Case> = of_jobs()
        .into_iter()
        .chain(of_ways_out())
        .chain(of_feed())
        .chain(of_book_and_machine())
        .collect();
    for (kind, within, beyond) in &cases {
        let mut situation = quiet();
        within(&mut situation);
        assert_eq!(found(&situation, &[]), [], "{}", kind.name());
        beyond(&mut situation);
        let kinds: Vec<Kind> = found(&situation, &[]).into_iter().map(|(kind, ..)| kind).collect();
        assert_eq!(kinds, [*kind]);
    }
    let covered: BTreeSet<Kind> = cases.iter().map(|(kind, ..)| *kind).collect();
    assert_eq!(covered, BTreeSet::from(Kind::ALL), "a kind has no case");
}

#[test]
fn a_released_record_that_is_parked_is_told_however_young_it_is() {
    let mut situation = quiet();
    situation.released = waiting(3, 5);
    assert_eq!(found(&situation, &[]), []);
    situation.released_stuck = 1;
    let kind = AlertKind::ReleasedUnconfirmed;
    assert_eq!(found(&situation, &[]), [(kind, String::new(), 3)]);
    assert_eq!(kind.severity(), Severity::Critical);
}

#[test]
fn a_level_near_its_bound_does_not_come_and_go() {
    let disk = AlertKey { kind: AlertKind::DiskLow, subject: "book".to_owned() };
    let mut situation = quiet();
    situation.free_bytes = vec![("book", 1_099), ("mark", 1_099)];
    assert_eq!(found(&situation, &[]), []);
    let still = found(&situation, std::slice::from_ref(&disk));
    assert_eq!(still, [(AlertKind::DiskLow, "book".to_owned(), 1)]);
    situation.free_bytes = vec![("book", 1_100)];
    assert_eq!(found(&situation, &[disk]), []);

    let log = AlertKey { kind: AlertKind::LogLong, subject: String::new() };
    situation.log_bytes = 901;
    assert_eq!(found(&situation, &[]), []);
    assert_eq!(found(&situation, std::slice::from_ref(&log)).len(), 1);
    situation.log_bytes = 900;
    assert_eq!(found(&situation, &[log]), []);
}

#[test]
fn what_is_not_known_is_neither_good_nor_bad() {
    let none = BTreeSet::new();
    let findings =
        find(&Situation::default(), &BOUNDS, &none, TimestampMs::from_millis(NOW_S * 1_000));
    assert!(findings.holding.is_empty());
    assert_eq!(
        findings.untold,
        [AlertKind::DroppedByBroker, AlertKind::RecordsWithoutJob, AlertKind::BookOutOfStep]
    );
}

#[test]
fn names_are_unique_and_lead_back() {
    for kind in AlertKind::ALL {
        assert_eq!(AlertKind::from_name(kind.name()), Some(kind));
    }
    assert_eq!(AlertKind::from_name("SettledDown"), None, "that is Prometheus's");
}

#[test]
fn ages_read_well() {
    let shown_s = |seconds| shown(Duration::from_secs(seconds));
    assert_eq!(
        [shown_s(0), shown_s(119), shown_s(120), shown_s(7_200)],
        ["0 s", "119 s", "2 min", "2 h"]
    );
}
