//! The order of a feed, and what a snapshot says.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::domain::book::BookEvent;

fn adjusted(sequence: u64) -> BookEvent {
    BookEvent::parse(&format!(
        r#"{{"type":"balance.adjusted","eventId":"a-{sequence}","sequence":{sequence},"delta":"1",
            "connectionId":"9e8d7c6b-5a49-4838-a716-0f1e2d3c4b5a","currency":"BTC"}}"#
    ))
    .unwrap()
}

fn suspended(sequence: u64) -> BookEvent {
    BookEvent::parse(&format!(
        r#"{{"type":"connection.suspended","eventId":"s-{sequence}","sequence":{sequence},
            "connectionId":"9e8d7c6b-5a49-4838-a716-0f1e2d3c4b5a"}}"#
    ))
    .unwrap()
}

fn limited(sequence: u64) -> BookEvent {
    BookEvent::parse(&format!(
        r#"{{"type":"connection.limited","eventId":"l-{sequence}","sequence":{sequence},"currency":"BTC",
            "connectionId":"9e8d7c6b-5a49-4838-a716-0f1e2d3c4b5a","exposureMaxPerConnection":"5"}}"#
    ))
    .unwrap()
}

fn snapshot(text: &str) -> BalanceSnapshot {
    let text = format!(
        r#"{{"type":"balance.snapshot","eventId":"x","totals":{text},
            "connectionId":"9e8d7c6b-5a49-4838-a716-0f1e2d3c4b5a"}}"#
    );
    match BookEvent::parse(&text).unwrap().fact() {
        BookFact::BalanceSnapshot(snapshot) => snapshot.clone(),
        other => panic!("{other:?}"),
    }
}

fn sequence(number: u64) -> BookSequence {
    number.try_into().unwrap()
}

fn take(order: &mut FeedOrder, event: &BookEvent) -> Place {
    let place = order.place(event.sequence(), event.fact());
    order.take(event.sequence(), event.fact());
    place
}

#[test]
fn a_feed_may_begin_anywhere_and_goes_on_one_by_one() {
    let mut order = FeedOrder::default();
    assert_eq!(take(&mut order, &adjusted(41)), Place::InOrder);
    assert_eq!(take(&mut order, &adjusted(42)), Place::InOrder);
    assert_eq!(take(&mut order, &adjusted(42)), Place::Old);
    assert_eq!(take(&mut order, &adjusted(7)), Place::Old);
    assert!(order.has_reached(sequence(42)) && !order.has_reached(sequence(43)));
}

#[test]
fn a_gap_is_told_and_filled_by_what_comes_late() {
    let mut order = FeedOrder::default();
    take(&mut order, &adjusted(1));
    let gap = Gap(sequence(2), sequence(5));
    assert_eq!(take(&mut order, &adjusted(6)), Place::AfterGap(gap));
    assert!(!order.has_reached(sequence(6)) && order.has_reached(sequence(1)));
    assert!(!order.has_reached(sequence(2)), "it is missing itself");
    assert_eq!(take(&mut order, &adjusted(3)), Place::FillsGap);
    assert_eq!(order.missing, [Gap(sequence(2), sequence(2)), Gap(sequence(4), sequence(5))]);
    assert_eq!(take(&mut order, &adjusted(3)), Place::Old);
    for late in [2, 5, 4] {
        assert_eq!(take(&mut order, &adjusted(late)), Place::FillsGap);
    }
    assert!(order.missing.is_empty() && order.has_reached(sequence(6)));
}

#[test]
fn a_late_statement_is_taken_unless_a_later_one_has_overtaken_it() {
    let mut order = FeedOrder::default();
    take(&mut order, &suspended(1));
    take(&mut order, &adjusted(4));
    assert_eq!(take(&mut order, &suspended(3)), Place::FillsGap);
    assert_eq!(take(&mut order, &suspended(2)), Place::Overtaken);
    assert!(order.missing.is_empty());
}

#[test]
fn late_limits_are_taken_unless_later_ones_have_overtaken_them() {
    let mut order = FeedOrder::default();
    take(&mut order, &limited(1));
    take(&mut order, &suspended(5));
    assert_eq!(take(&mut order, &limited(3)), Place::FillsGap, "a later state is no later limit");
    assert_eq!(take(&mut order, &limited(4)), Place::FillsGap);
    assert_eq!(take(&mut order, &limited(2)), Place::Overtaken);
    assert!(order.missing.is_empty());
}

#[test]
fn a_gap_of_one_is_one_number() {
    assert_eq!(Gap(sequence(2), sequence(2)).to_string(), "2");
    assert_eq!(Gap(sequence(2), sequence(5)).to_string(), "2 to 5");
}

#[test]
fn what_comes_late_is_taken_off_the_difference_that_it_explains_and_off_no_other() {
    let adjustment = |text: &str| {
        let text = format!(
            r#"{{"type":"balance.adjusted","eventId":"a",{text},
                "connectionId":"9e8d7c6b-5a49-4838-a716-0f1e2d3c4b5a"}}"#
        );
        match BookEvent::parse(&text).unwrap().fact() {
            BookFact::BalanceAdjusted(adjustment) => adjustment.clone(),
            other => panic!("{other:?}"),
        }
    };
    let differs = |currency: &str, expected: &str, found: &str| TotalDiffers {
        currency: currency.parse().unwrap(),
        expected: expected.parse().unwrap(),
        found: found.parse().unwrap(),
    };
    let mut feed = ConnectionFeed {
        compared_at: Some(sequence(9)),
        differs: vec![differs("BTC", "10", "5"), differs("ETH", "10", "5")],
        ..ConnectionFeed::default()
    };
    let btc = adjustment(r#""currency":"BTC","delta":"5""#);
    feed.take_late(sequence(10), &btc).unwrap();
    assert_eq!(feed.differs[0], differs("BTC", "10", "5"), "the snapshot did not know of it");
    feed.take_late(sequence(8), &adjustment(r#""currency":"BTC","delta":"-2""#)).unwrap();
    assert_eq!(feed.differs, [differs("BTC", "10", "3"), differs("ETH", "10", "5")]);
    feed.take_late(sequence(7), &adjustment(r#""currency":"BTC","delta":"7""#)).unwrap();
    assert_eq!(feed.differs, [differs("ETH", "10", "5")], "nothing is left of the first");
    feed.take_late(sequence(9), &adjustment(r#""currency":"ETH","delta":"5""#)).unwrap();
    assert_eq!(feed.differs, [], "the last one that was missing may be the snapshot's own number");
    let mut never_compared = ConnectionFeed { compared_at: None, ..feed };
    never_compared.differs.push(differs("BTC", "10", "5"));
    never_compared.take_late(sequence(1), &btc).unwrap();
    assert_eq!(never_compared.differs.len(), 1);
}

#[test]
fn of_too_many_gaps_the_oldest_is_given_up() {
    let mut order = FeedOrder::default();
    for number in 0..=GAPS_MAX as u64 + 1 {
        take(&mut order, &adjusted(2 * number + 1));
    }
    assert_eq!(order.missing.len(), GAPS_MAX);
    assert_eq!(take(&mut order, &adjusted(2)), Place::Old);
    assert_eq!(take(&mut order, &adjusted(4)), Place::FillsGap);
}

#[test]
fn a_number_is_a_positive_whole_number() {
    for broken in ["0", "-1", "1.0", "1e3", "\"1\"", "9007199254740992"] {
        let text = format!(
            r#"{{"type":"connection.suspended","eventId":"s","sequence":{broken},
                "connectionId":"9e8d7c6b-5a49-4838-a716-0f1e2d3c4b5a"}}"#
        );
        assert!(BookEvent::parse(&text).is_err(), "{broken}");
    }
    assert_eq!(BookSequence::try_from(SEQUENCE_MAX).map(BookSequence::get), Ok(SEQUENCE_MAX));
}

#[test]
fn what_a_snapshot_leaves_out_is_nothing() {
    let found = BTreeMap::from([
        ("BTC".parse().unwrap(), "5".parse().unwrap()),
        ("ETH".parse().unwrap(), "0".parse().unwrap()),
        ("SOL".parse().unwrap(), "-3".parse().unwrap()),
    ]);
    let stated = |text: &str| compare(&snapshot(text), &found);
    let agreed = r#"[{"currency":"SOL","total":"-3"},{"currency":"BTC","total":"5"}]"#;
    assert_eq!(stated(agreed), []);
    let [btc, sol] = &stated("[]")[..] else { panic!("two differ") };
    assert_eq!((btc.currency.as_str(), btc.missing().unwrap().to_string()), ("BTC", "-5".into()));
    assert_eq!((sol.currency.as_str(), sol.missing().unwrap().to_string()), ("SOL", "3".into()));
    let more = r#"[{"currency":"SOL","total":"-3"},{"currency":"BTC","total":"5"},{"currency":"DOT","total":"1"}]"#;
    assert_eq!(stated(more).len(), 1);
    let twice = r#"{"type":"balance.snapshot","eventId":"x",
        "totals":[{"currency":"BTC","total":"5"},{"currency":"ETH","total":"1"},{"currency":"BTC","total":"5"}],
        "connectionId":"9e8d7c6b-5a49-4838-a716-0f1e2d3c4b5a"}"#;
    assert!(BookEvent::parse(twice).is_err(), "one currency has one total");
}

proptest! {
    #[test]
    fn in_whatever_order_numbers_come_each_is_taken_once(
        numbers in prop::collection::vec(1_u64..30, 1..80),
    ) {
        let mut order = FeedOrder::default();
        let mut taken = BTreeSet::new();
        let first = numbers[0];
        for number in numbers {
            let place = take(&mut order, &adjusted(number));
            if place == Place::Old {
                prop_assert!(taken.contains(&number) || number < first, "{number}");
            } else {
                prop_assert!(taken.insert(number), "{number} is taken twice");
            }
        }
        let last = order.last.unwrap();
        let missing: u64 = order.missing.iter().map(|gap| gap.1.get() - gap.0.get() + 1).sum();
        prop_assert_eq!(missing + taken.len() as u64, last.get() - first + 1);
    }
}
