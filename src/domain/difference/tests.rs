use proptest::prelude::*;

use super::*;
use crate::domain::state::{ConflictKind, Doubt, ParkReason};

const RECORD: &str = r#"{"id":"0b4a3f3e-7d0a-4b5e-9a0e-3d1c5f2b7a10","type":"allocation",
    "amount":{"currency":"BTC","quantity":"150000"},"status":"STATUS",
    "connectionId":"9e8d7c6b-5a49-4838-a716-0f1e2d3c4b5a"}"#;

fn shown(status: &str) -> ShownJob {
    ShownJob::Found(Box::new(ShownRecord::parse(&RECORD.replace("STATUS", status)).unwrap()))
}

fn job(state: State, outcome: Option<Outcome>) -> ComparedJob {
    let final_outcome = match state {
        State::Confirmed => outcome,
        State::Overruled => outcome.map(|outcome| match outcome {
            Outcome::Cleared => Outcome::Released,
            Outcome::Released => Outcome::Cleared,
        }),
        _ => None,
    };
    ComparedJob {
        record_id: "0b4a3f3e-7d0a-4b5e-9a0e-3d1c5f2b7a10".parse().unwrap(),
        job_type: JobType::Allocation,
        amount: Amount::positive("BTC".parse().unwrap(), 150_000_u64.into()).unwrap(),
        connection_id: "9e8d7c6b-5a49-4838-a716-0f1e2d3c4b5a".parse().unwrap(),
        state,
        outcome,
        final_outcome,
    }
}

fn kinds(job: &ComparedJob, shown: &ShownJob) -> Vec<FindingKind> {
    compare_job(job, shown, &Scales::default()).into_iter().map(|finding| finding.kind).collect()
}

#[test]
fn each_state_and_what_it_says_of_each_status() {
    use FindingKind::{Conflict, Parked, Status};
    let cleared = Some(Outcome::Cleared);
    let undecided = State::Parked(ParkReason::IdentityMismatch);
    let parked = State::Parked(ParkReason::AttemptsExhausted);
    let conflict = State::Conflict(ConflictKind::OtherOutcome);
    let doubt = State::Unknown(Doubt::NoReply);
    // (state, decided, what follows from reserved, cleared and released)
    for (state, decided, [reserved, at_cleared, at_released]) in [
        (State::Received, None, [None, Some(Status), Some(Status)]),
        (State::Decided, cleared, [None, None, Some(Status)]),
        (State::Sending, cleared, [None, None, Some(Status)]),
        (doubt, cleared, [None, None, Some(Status)]),
        (State::AwaitingApproval, cleared, [None, None, Some(Status)]),
        (undecided, None, [Some(Parked), Some(Status), Some(Status)]),
        (parked, cleared, [Some(Parked), Some(Parked), Some(Status)]),
        (conflict, cleared, [Some(Conflict), Some(Conflict), Some(Status)]),
        (State::Confirmed, cleared, [Some(Status), None, Some(Status)]),
        (State::Overruled, cleared, [Some(Status), Some(Status), None]),
    ] {
        let job = job(state, decided);
        for (status, expected) in
            [("reserved", reserved), ("cleared", at_cleared), ("released", at_released)]
        {
            assert_eq!(kinds(&job, &shown(status)).first().copied(), expected, "{state} {status}");
        }
    }
}

#[test]
fn a_status_that_cannot_be_is_told_with_what_was_decided() {
    let note = |decided: Option<Outcome>, status: &str| {
        let state = if decided.is_some() { State::Decided } else { State::Received };
        let findings = compare_job(&job(state, decided), &shown(status), &Scales::default());
        findings.first().map(|finding| finding.note.clone()).unwrap_or_default()
    };
    assert_eq!(note(Some(Outcome::Cleared), "released"), "OES holds what was not decided");
    assert_eq!(note(None, "released"), "OES ended it before it was decided here");
    assert_eq!(note(Some(Outcome::Cleared), "cleared"), "");
}

#[test]
fn what_only_waits_for_somebody_is_no_difference() {
    use FindingKind::{
        Absent, Adopted, Amount, Balance, Conflict, Connection, Parked, Quarantined, Status, Type,
        Unreadable, WithoutJob,
    };
    for kind in [Status, Absent, Type, Amount, Connection, WithoutJob, Balance, Unreadable] {
        assert!(kind.is_difference(), "{kind}");
    }
    for kind in [Quarantined, Adopted, Parked, Conflict] {
        assert!(!kind.is_difference(), "{kind}");
    }
}

#[test]
fn each_term_is_compared() {
    let job = job(State::Decided, Some(Outcome::Cleared));
    for (from, to, expected) in [
        ("150000", "150001", FindingKind::Amount),
        ("BTC", "ETH", FindingKind::Amount),
        ("150000", "0.0015", FindingKind::Unreadable),
        ("allocation", "deallocation", FindingKind::Type),
        ("9e8d7c6b", "9e8d7c6c", FindingKind::Connection),
    ] {
        let json = RECORD.replace("STATUS", "reserved").replace(from, to);
        let shown = ShownJob::Found(Box::new(ShownRecord::parse(&json).unwrap()));
        assert_eq!(kinds(&job, &shown), [expected], "{to}");
    }
    assert_eq!(kinds(&job, &ShownJob::Absent), [FindingKind::Absent]);
    let unreadable = ShownJob::Unreadable("no status".to_owned());
    assert_eq!(kinds(&job, &unreadable), [FindingKind::Unreadable]);
}

fn compared(before: [i64; 3], after: [i64; 3], oes: [u64; 2]) -> BalanceLine {
    let funds = |[available, held, incoming]: [i64; 3]| BookFunds {
        available: available.to_string().parse().unwrap(),
        held: held.to_string().parse().unwrap(),
        incoming: incoming.to_string().parse().unwrap(),
    };
    let total = |units: u64| units.to_string().parse().unwrap();
    compare_balance(
        "9e8d7c6b-5a49-4838-a716-0f1e2d3c4b5a".parse().unwrap(),
        "BTC".parse().unwrap(),
        (funds(before), funds(after)),
        (total(oes[0]), total(oes[1])),
    )
    .unwrap()
}

#[test]
fn what_is_on_its_way_explains_a_difference_and_no_more() {
    // (the book before and after, OES, difference, in flight, unexplained)
    for (before, after, oes, expected) in [
        ([100, 0, 0], [100, 0, 0], [100, 0], ["0", "0", "0"]),
        ([100, 0, 0], [100, 0, 0], [70, 30], ["0", "0", "0"]),
        ([100, 0, 50], [100, 0, 50], [150, 0], ["50", "50", "0"]),
        ([100, 0, 50], [100, 0, 50], [160, 0], ["60", "50", "10"]),
        ([100, 40, 0], [100, 40, 0], [100, 0], ["-40", "-40", "0"]),
        ([100, 40, 0], [100, 40, 0], [95, 0], ["-45", "-40", "-5"]),
        ([100, 0, 0], [100, 0, 0], [101, 0], ["1", "0", "1"]),
        ([100, 0, 50], [150, 0, 0], [100, 0], ["-50", "-50", "0"]),
        ([-5, 0, 0], [-5, 0, 0], [0, 0], ["5", "0", "5"]),
    ] {
        let line = compared(before, after, oes);
        let told = [line.difference, line.in_flight, line.unexplained].map(|it| it.to_string());
        assert_eq!(told, expected, "{before:?} {after:?} {oes:?}");
        assert_eq!(line.finding().is_some(), expected[2] != "0");
    }
}

proptest! {
    /// A book that follows OES, looked at while any of its jobs is at any point of its way, is never
    /// said to differ; and a quantity that appears from nowhere is found when nothing is on its way.
    #[test]
    fn no_moment_of_a_job_is_a_difference(
        start in 1_000_u64..2_000,
        jobs in proptest::collection::vec((any::<bool>(), 1_u64..100, 0_u8..4), 0..8),
        stray in 1_u64..1_000,
    ) {
        let (mut book, mut oes) = ([i64::try_from(start).unwrap(), 0, 0], [start, 0]);
        for (is_deallocation, quantity, stage) in &jobs {
            let units = i64::try_from(*quantity).unwrap();
            // Reserved, decided, cleared at OES, confirmed here.
            if *is_deallocation {
                oes = [oes[0] - quantity, oes[1] + quantity];
                if *stage >= 1 { book = [book[0] - units, book[1] + units, book[2]]; }
                if *stage >= 2 { oes[1] -= quantity; }
                if *stage >= 3 { book[1] -= units; }
            } else {
                if *stage >= 1 { book[2] += units; }
                if *stage >= 2 { oes[0] += quantity; }
                if *stage >= 3 { book = [book[0] + units, book[1], book[2] - units]; }
            }
        }
        let line = compared(book, book, oes);
        prop_assert!(line.unexplained.is_zero(), "{:?}", line);
        let sum = line.in_flight.plus(line.unexplained).unwrap();
        prop_assert_eq!(sum, line.difference);
        if book[1] == 0 && book[2] == 0 {
            let line = compared(book, book, [oes[0] + stray, oes[1]]);
            prop_assert_eq!(line.unexplained.to_string(), stray.to_string());
        }
    }
}
