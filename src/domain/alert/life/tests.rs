use proptest::prelude::*;

use super::*;
use crate::domain::alert::AlertKind;

const PACE: Pace = Pace {
    hold: Duration::from_secs(60),
    calm: Duration::from_secs(30),
    repeat_every: Duration::from_secs(3_600),
};

fn key(kind: AlertKind) -> AlertKey {
    AlertKey { kind, subject: String::new() }
}

fn holding(kind: AlertKind, things: u64) -> Findings {
    let condition = Condition { key: key(kind), things, summary: format!("{things} things") };
    Findings { holding: vec![condition], untold: Vec::new() }
}

/// A look every so many seconds; answers what was told, with the second.
fn tell(looks: &[(u64, Findings)]) -> Vec<(u64, NoticeEvent)> {
    let mut known = BTreeMap::new();
    let mut told = Vec::new();
    for (at_s, found) in looks {
        let now = TimestampMs::from_millis(i64::try_from(at_s * 1_000).unwrap());
        let changes = step(&mut known, found, &PACE, now);
        told.extend(changes.notices.into_iter().map(|notice| (*at_s, notice.event)));
    }
    told
}

#[test]
fn what_comes_and_goes_is_told_only_once_it_has_lasted() {
    let down = || holding(AlertKind::BrokerDisconnected, 1);
    let none = Findings::default;
    assert_eq!(tell(&[(0, down()), (45, none()), (60, down()), (110, down())]), []);
    assert_eq!(
        tell(&[(0, down()), (60, down()), (75, none()), (90, none()), (105, none())]),
        [(60, NoticeEvent::Firing), (105, NoticeEvent::Resolved)]
    );
}

#[test]
fn what_flaps_is_one_alert() {
    let (bad, none) = (|| holding(AlertKind::Conflict, 1), Findings::default);
    assert_eq!(
        tell(&[(0, bad()), (15, none()), (30, bad()), (45, none()), (60, bad()), (90, none())]),
        [(0, NoticeEvent::Firing)]
    );
}

#[test]
fn what_lasts_is_told_again_and_what_becomes_worse_at_once_but_not_all_the_time() {
    let bad = |things| holding(AlertKind::Conflict, things);
    assert_eq!(
        tell(&[
            (0, bad(1)),
            (15, bad(2)),
            (75, bad(2)),
            (90, bad(3)),
            (140, bad(2)),
            (3_700, bad(2)),
        ]),
        [(0, NoticeEvent::Firing), (75, NoticeEvent::Worse), (3_700, NoticeEvent::Repeated)]
    );
}

#[test]
fn what_cannot_be_told_goes_on_as_it_was() {
    let unknown = || Findings { holding: Vec::new(), untold: vec![AlertKind::RecordsWithoutJob] };
    let bad = || holding(AlertKind::RecordsWithoutJob, 1);
    assert_eq!(
        tell(&[
            (0, bad()),
            (60, bad()),
            (75, unknown()),
            (900, unknown()),
            (915, Findings::default()),
            (960, Findings::default()),
        ]),
        [(60, NoticeEvent::Firing), (960, NoticeEvent::Resolved)]
    );
}

/// What is written down, as the database has it.
fn write(rows: &mut BTreeMap<AlertKey, Known>, changes: &Changes) {
    rows.extend(changes.put.iter().cloned());
    for key in &changes.over {
        rows.remove(key);
    }
}

proptest! {
    /// Whatever happens, and however often the daemon is restarted: an alert is told to begin, perhaps
    /// told again, told to be over, and only then told to begin again. Notices of what lasts keep their
    /// distance.
    #[test]
    fn restarts_neither_repeat_nor_forget(
        looks in prop::collection::vec((1_u64..90, 0_u64..4, any::<bool>(), 0_u8..10), 1..120),
        kind in prop::sample::select(AlertKind::ALL.to_vec()),
    ) {
        let (mut known, mut rows) = (BTreeMap::new(), BTreeMap::new());
        let (mut now, mut firing, mut told_at) = (TimestampMs::from_millis(0), false, None);
        for (after_s, things, untold, dice) in looks {
            now = now.after(Duration::from_secs(after_s));
            if dice == 0 {
                // The process died; what is written down is all that is left.
                known = rows.clone();
            }
            let found = if things > 0 {
                holding(kind, things)
            } else if untold {
                Findings { holding: Vec::new(), untold: vec![kind] }
            } else {
                Findings::default()
            };
            let changes = step(&mut known, &found, &PACE, now);
            write(&mut rows, &changes);
            prop_assert!(changes.notices.len() <= 1);
            for notice in changes.notices {
                match notice.event {
                    NoticeEvent::Firing => prop_assert!(!firing && things > 0),
                    NoticeEvent::Worse | NoticeEvent::Repeated => {
                        prop_assert!(firing && things > 0);
                        let since = now.since(told_at.unwrap());
                        prop_assert!(since >= PACE.hold);
                    }
                    NoticeEvent::Resolved => prop_assert!(firing && things == 0),
                    NoticeEvent::Test => prop_assert!(false),
                }
                firing = notice.event != NoticeEvent::Resolved;
                told_at = Some(now);
            }
            prop_assert_eq!(firing, rows.get(&key(kind)).is_some_and(Known::is_firing));
            prop_assert_eq!(rows.keys().collect::<Vec<_>>(), known.keys().collect::<Vec<_>>());
        }
    }
}
