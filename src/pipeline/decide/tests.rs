//! Jobs do not overtake the book: what a job waits for, for how long, and what becomes of it then.

use serde_json::json;

use super::*;
use crate::{
    domain::{
        book::BookEvent, decimals::AmountForm, lag::GateView, message::parse_job, time::TimestampMs,
    },
    pipeline::record::{Intake, Recorded, record},
    store::{memory::MemoryBook, work::Needs},
};

const CONDITIONS: Conditions = Conditions {
    grace: Duration::from_secs(60),
    verification: Verification { is_required: false, amounts: AmountForm::BaseUnits },
    slow_read_every: Duration::from_secs(900),
    sequence_wait_max: Duration::from_secs(300),
};

const CONNECTION: &str = "9e8d7c6b-5a49-4838-a716-0f1e2d3c4b5a";

fn at(seconds: i64) -> TimestampMs {
    TimestampMs::from_millis(1_000_000_000 + seconds * 1_000)
}

/// A gate that has been open for so long.
fn open(seconds: u64) -> GateView {
    GateView { is_fed: true, open_time: Duration::from_secs(seconds), ..GateView::default() }
}

fn shut() -> GateView {
    GateView { shut: Some(Shut::NotConnected), ..open(0) }
}

fn needs() -> Needs {
    Needs { connections: [CONNECTION.parse().unwrap()].into(), ..Needs::default() }
}

/// Takes a job in that names an event of its connection's feed.
fn take_in(work: &mut Work, sequence: Option<u64>) -> JobSeq {
    let message = json!({
        "type": "allocation",
        "allocationId": "0b4a3f3e-7d0a-4b5e-9a0e-3d1c5f2b7a10",
        "amount": {"currency": "BTC", "quantity": "5"},
        "clientId": "5d1f0e3a-2b6c-4f0d-8a37-1f0a3c9b2d11",
        "connectionId": CONNECTION,
        "partnersClientId": "client-001",
        "partnersConnectionId": "conn-001",
        "partnersAllocationId": "alloc-001",
    });
    let raw = message.to_string();
    let intake = Intake {
        terms: parse_job(raw.as_bytes()).unwrap(),
        raw,
        queue: "jobs".to_owned(),
        book_sequence: sequence.map(|number| number.try_into().unwrap()),
    };
    match record(work, &intake) {
        Recorded::New(seq) => seq,
        other => panic!("{other:?}"),
    }
}

/// The exchange states the connection, as the event with that number.
fn feed(work: &mut Work, sequence: u64) {
    let event = json!({
        "type": "connection.upserted",
        "eventId": format!("c-{sequence}"),
        "connectionId": CONNECTION,
        "clientId": "5d1f0e3a-2b6c-4f0d-8a37-1f0a3c9b2d11",
        "partnersClientId": "client-001",
        "partnersConnectionId": "conn-001",
        "active": true,
        "sequence": sequence,
    });
    work.apply_book_event(&BookEvent::parse(&event.to_string()).unwrap(), "feed").unwrap();
}

#[test]
fn nothing_is_decided_while_the_gate_is_shut() {
    let mut work = MemoryBook::new().begin(at(0), &needs());
    feed(&mut work, 1);
    work.set_gate(shut());
    let seq = take_in(&mut work, None);
    assert_eq!(decide(&mut work, seq, &CONDITIONS).unwrap(), Decided::Waits);
    let job = work.job(seq).unwrap();
    assert_eq!(behind(&work, job), Some(Behind::Gate(Shut::NotConnected)));
    assert!(must_wait_for_book(&work, job, &CONDITIONS));
    work.set_gate(open(0));
    let job = work.job(seq).unwrap();
    assert!(behind(&work, job).is_none() && !must_wait_for_book(&work, job, &CONDITIONS));
    assert_eq!(decide(&mut work, seq, &CONDITIONS).unwrap(), Decided::Decided);
}

#[test]
fn a_job_waits_for_the_event_that_it_names_and_is_decided_when_that_has_come() {
    let mut work = MemoryBook::new().begin(at(0), &needs());
    feed(&mut work, 4);
    work.set_gate(open(100));
    let seq = take_in(&mut work, Some(5));
    assert_eq!(decide(&mut work, seq, &CONDITIONS).unwrap(), Decided::Waits);
    let job = work.job(seq).unwrap();
    assert!(job.waits_for_book && must_wait_for_book(&work, job, &CONDITIONS));
    assert_eq!(job.next_step_at, Some(at(300)), "looked at when its wait is over");
    feed(&mut work, 5);
    assert!(!must_wait_for_book(&work, work.job(seq).unwrap(), &CONDITIONS));
    assert_eq!(decide(&mut work, seq, &CONDITIONS).unwrap(), Decided::Decided);
}

#[test]
fn a_job_is_parked_when_the_event_that_it_names_does_not_come_in_time_that_counts() {
    let mut book = MemoryBook::new();
    let mut work = book.begin(at(0), &needs());
    work.set_gate(open(100));
    let seq = take_in(&mut work, Some(5));
    assert_eq!(decide(&mut work, seq, &CONDITIONS).unwrap(), Decided::Waits);
    book.commit(work).unwrap();
    let needs = Needs { jobs: [seq].into(), ..needs() };

    let mut work = book.begin(at(10_000), &needs);
    work.set_gate(open(100 + 299));
    assert_eq!(decide(&mut work, seq, &CONDITIONS).unwrap(), Decided::Waits, "the gate was shut");
    let next = work.job(seq).unwrap().next_step_at;
    assert_eq!(next, Some(at(10_001)), "one second is left");
    assert!(must_wait_for_book(&work, work.job(seq).unwrap(), &CONDITIONS));
    work.set_gate(open(100 + 300));
    assert!(!must_wait_for_book(&work, work.job(seq).unwrap(), &CONDITIONS));
    let parked = Decided::Parked(ParkReason::BookBehind);
    assert_eq!(decide(&mut work, seq, &CONDITIONS).unwrap(), parked);
    let job = work.job(seq).unwrap();
    assert_eq!(job.state, State::Parked(ParkReason::BookBehind));
    assert!(!job.waits_for_book && job.waits_since.is_none(), "sent on, it waits anew");
}

#[test]
fn a_job_that_came_before_there_was_a_feed_waits_from_then_on() {
    let mut work = MemoryBook::new().begin(at(0), &needs());
    let seq = take_in(&mut work, Some(5));
    assert_eq!(work.job(seq).unwrap().waits_since, None);
    work.set_gate(open(7));
    assert_eq!(decide(&mut work, seq, &CONDITIONS).unwrap(), Decided::Waits);
    assert_eq!(work.job(seq).unwrap().waits_since, Some(Duration::from_secs(7)));
    work.set_gate(open(9));
    assert_eq!(decide(&mut work, seq, &CONDITIONS).unwrap(), Decided::Waits);
    assert_eq!(work.job(seq).unwrap().waits_since, Some(Duration::from_secs(7)), "not anew");
}

#[test]
fn without_a_feed_only_the_grace_is_waited_for() {
    let mut book = MemoryBook::new();
    let mut work = book.begin(at(0), &needs());
    let seq = take_in(&mut work, None);
    assert_eq!(decide(&mut work, seq, &CONDITIONS).unwrap(), Decided::Waits);
    let job = work.job(seq).unwrap();
    assert_eq!((job.next_step_at, job.waits_since), (Some(at(60)), None));
    book.commit(work).unwrap();
    let mut work = book.begin(at(60), &Needs { jobs: [seq].into(), ..needs() });
    assert_eq!(decide(&mut work, seq, &CONDITIONS).unwrap(), Decided::Decided);
}
