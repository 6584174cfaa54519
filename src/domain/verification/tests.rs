use super::*;
use crate::domain::{
    amount::{Amount, Quantity},
    decimals::Decimals,
    job::JobType,
    record::RecordStatus,
    shown::ShownAmount,
};

const UNITS: Scale = Scale::new(AmountForm::BaseUnits, None);
const RESTORED_AT: TimestampMs = TimestampMs::from_millis(1_000_000_000);

fn with_decimals(form: AmountForm) -> Scale {
    Scale::new(form, Some(Decimals::try_from(8).unwrap()))
}

fn terms() -> JobTerms {
    JobTerms {
        job_type: JobType::Allocation,
        record_id: "0b4a3f3e-7d0a-4b5e-9a0e-3d1c5f2b7a10".parse().unwrap(),
        amount: Amount::positive("BTC".parse().unwrap(), Quantity::from(150_000_000)).unwrap(),
        client_id: "5d1f0e3a-2b6c-4f0d-8a37-1f0a3c9b2d11".parse().unwrap(),
        connection_id: "9e8d7c6b-5a49-4838-a716-0f1e2d3c4b5a".parse().unwrap(),
        partners_client_id: "client-001".parse().unwrap(),
        partners_connection_id: "conn-001".parse().unwrap(),
        partners_record_id: "a-1".parse().unwrap(),
    }
}

fn record(quantity: &str) -> OesRecord {
    let terms = terms();
    OesRecord {
        id: terms.record_id,
        job_type: terms.job_type,
        status: RecordStatus::Reserved,
        connection_id: terms.connection_id,
        amount: Some(ShownAmount { currency: "BTC".to_owned(), quantity: quantity.to_owned() }),
        reason: None,
        created_at: None,
        pending_approval_id: None,
        policy_result: None,
    }
}

fn genuine() -> OesRecord {
    record("150000000")
}

fn compared(record: OesRecord, scale: Scale) -> Agreement {
    let measure = Measure { is_required: true, scale, restored_at: None };
    compare(&terms(), &Reading::Found(record), &measure)
}

fn forgeries() -> [OesRecord; 5] {
    let other_currency = ShownAmount { currency: "ETH".into(), quantity: "150000000".into() };
    [
        OesRecord { job_type: JobType::Deallocation, ..genuine() },
        OesRecord { connection_id: uuid::Uuid::nil().into(), ..genuine() },
        OesRecord { amount: Some(other_currency), ..genuine() },
        record("150000001"),
        record("1500000000"),
    ]
}

#[test]
fn the_record_decides_what_the_message_is_worth() {
    assert_eq!(compared(genuine(), UNITS), Agreement::Agrees);
    for record in forgeries() {
        for status in [RecordStatus::Reserved, RecordStatus::Cleared, RecordStatus::Released] {
            let record = OesRecord { status, ..record.clone() };
            let found = compared(record.clone(), UNITS);
            assert!(matches!(found, Agreement::Differs(_)), "{record:?}: {found:?}");
            assert!(!agrees_at_sight(&terms(), &Reading::Found(record)));
        }
    }
    assert!(agrees_at_sight(&terms(), &Reading::Found(genuine())));
    let measure = Measure { is_required: true, scale: UNITS, restored_at: None };
    assert_eq!(compare(&terms(), &Reading::Absent, &measure), Agreement::NotShown);
}

#[test]
fn what_cannot_be_compared_is_never_a_forgery() {
    let unreadable = |found: Agreement| matches!(found, Agreement::Unreadable(_));
    for quantity in ["1.5", "", "1e8", "-1", "0150000000", "0"] {
        assert!(unreadable(compared(record(quantity), UNITS)), "{quantity:?}");
    }
    let decimals = with_decimals(AmountForm::Decimals);
    for quantity in ["1.500000000", "1.5e0", "01.5", ".5", "15e-1", ""] {
        assert!(unreadable(compared(record(quantity), decimals)), "{quantity:?}");
    }
    let without = Scale::new(AmountForm::Decimals, None);
    assert!(unreadable(compared(record("1.5"), without)));
    assert!(unreadable(compared(OesRecord { amount: None, ..genuine() }, UNITS)));
    // The type is told apart whatever the amount is.
    let other = OesRecord { job_type: JobType::Deallocation, amount: None, ..genuine() };
    assert!(matches!(compared(other, UNITS), Agreement::Differs(_)));
    let measure = Measure { is_required: true, scale: UNITS, restored_at: None };
    let odd = Reading::Unreadable("no status".to_owned());
    assert!(unreadable(compare(&terms(), &odd, &measure)));
}

#[test]
fn decimals_are_compared_exactly() {
    let scale = with_decimals(AmountForm::Decimals);
    for quantity in ["1.5", "1.50", "1.50000000"] {
        assert_eq!(compared(record(quantity), scale), Agreement::Agrees, "{quantity}");
    }
    for quantity in ["1.49999999", "1.50000001", "15", "2"] {
        assert!(matches!(compared(record(quantity), scale), Agreement::Differs(_)), "{quantity}");
    }
}

#[test]
fn a_wrong_setting_of_the_form_condemns_no_message() {
    // The whole number of bitcoin, read as satoshi, and the other way round.
    let mut whole = terms();
    whole.amount = Amount::positive("BTC".parse().unwrap(), Quantity::from(200_000_000)).unwrap();
    for (form, shown) in [(AmountForm::BaseUnits, "2"), (AmountForm::Decimals, "200000000")] {
        let measure = Measure { is_required: true, scale: with_decimals(form), restored_at: None };
        let found = compare(&whole, &Reading::Found(record(shown)), &measure);
        let Agreement::Unreadable(why) = found else { panic!("{form:?}: {found:?}") };
        assert!(why.contains("oes.amounts"), "{why}");
    }
}

#[test]
fn what_oes_has_ended_is_told_with_its_reason() {
    for (reason, kept) in [
        (None, None),
        (Some(""), None),
        (Some("  "), None),
        (Some("expired"), Some("expired")),
        (Some("a\0b"), Some("a\u{fffd}b")),
    ] {
        let released = OesRecord {
            status: RecordStatus::Released,
            reason: reason.map(str::to_owned),
            ..genuine()
        };
        let ended = Ended { outcome: Outcome::Released, reason: kept.map(str::to_owned) };
        assert_eq!(compared(released, UNITS), Agreement::Ended(ended));
    }
    let long =
        OesRecord { status: RecordStatus::Cleared, reason: Some("é".repeat(900)), ..genuine() };
    let Agreement::Ended(ended) = compared(long, UNITS) else { panic!("not ended") };
    assert_eq!(ended.outcome, Outcome::Cleared);
    assert!(ended.reason.is_some_and(|reason| reason.len() == REASON_BYTES_MAX));
}

#[test]
fn one_read_serves_both_reasons() {
    let young = |record: OesRecord| OesRecord {
        created_at: Some(RESTORED_AT.after(Duration::from_secs(61))),
        ..record
    };
    let cases = [
        // What the read shows, and what follows with and without comparing.
        (young(genuine()), Agreement::Agrees, Agreement::Agrees),
        (genuine(), Agreement::Predates, Agreement::Predates),
    ];
    for (record, compared, trusted) in cases {
        for (is_required, expected) in [(true, compared), (false, trusted)] {
            let measure = Measure { is_required, scale: UNITS, restored_at: Some(RESTORED_AT) };
            assert_eq!(compare(&terms(), &Reading::Found(record.clone()), &measure), expected);
        }
    }
    for record in forgeries() {
        let measure =
            |is_required| Measure { is_required, scale: UNITS, restored_at: Some(RESTORED_AT) };
        let found = compare(&terms(), &Reading::Found(record.clone()), &measure(true));
        assert!(matches!(found, Agreement::Differs(_)), "a forgery is one whatever its age");
        let reading = Reading::Found(young(record));
        assert_eq!(compare(&terms(), &reading, &measure(false)), Agreement::Agrees);
    }
    // After a restore, a record that has ended since is not taken over where messages are trusted.
    let ended = young(OesRecord { status: RecordStatus::Cleared, ..genuine() });
    let measure = Measure { is_required: false, scale: UNITS, restored_at: Some(RESTORED_AT) };
    assert_eq!(compare(&terms(), &Reading::Found(ended), &measure), Agreement::Agrees);
    let old = OesRecord { status: RecordStatus::Cleared, ..genuine() };
    let measure = Measure { is_required: true, ..measure };
    assert_eq!(compare(&terms(), &Reading::Found(old), &measure), Agreement::Predates);
}

#[test]
fn the_more_come_the_more_share_a_read() {
    assert_eq!(gathers_for(0), GATHER_PER_JOB);
    assert_eq!(gathers_for(1), GATHER_PER_JOB);
    assert!(gathers_for(4) < gathers_for(5));
    assert_eq!(gathers_for(1_000_000), GATHER_MAX);
    // At any pace that makes a backlog of a thousand in seconds, reads stay few: each takes as many jobs
    // as came while the last one lasted.
    for jobs_a_second in [300_u64, 1_000, 5_000] {
        let (mut reads, mut done, mut last) = (0_u64, 0_u64, 1_u64);
        while done < 1_000 {
            let lasted = gathers_for(usize::try_from(last).unwrap()) + Duration::from_millis(3);
            let came = jobs_a_second * u64::try_from(lasted.as_micros()).unwrap() / 1_000_000;
            last = came.clamp(1, 100);
            (reads, done) = (reads + 1, done + last);
        }
        assert!(reads <= 50, "{reads} reads at {jobs_a_second}/s");
    }
}
