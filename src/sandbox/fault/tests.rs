use super::*;

fn reset() -> Effect {
    Effect::Reset { when: When::After }
}

fn id(last: u8) -> RecordId {
    RecordId::from(uuid::Uuid::from_bytes([last; 16]))
}

#[test]
fn a_fault_happens_as_often_as_it_says_and_to_whom_it_says() {
    let mut faults = Faults::new(0);
    faults.add(Fault::new(On::Update, reset()).of_record(id(1)).times(Times::Next(2))).unwrap();
    let mut strikes = |on, record| faults.strike(on, &[record]).effect;
    assert_eq!(strikes(On::Update, id(2)), None);
    assert_eq!(strikes(On::Read, id(1)), None);
    assert_eq!(strikes(On::Update, id(1)), Some(reset()));
    assert_eq!(strikes(On::Update, id(1)), Some(reset()));
    assert_eq!(strikes(On::Update, id(1)), None);
    assert!(faults.waiting().is_empty());
}

#[test]
fn delays_add_up_with_one_other_effect() {
    let mut faults = Faults::new(0);
    for effect in [
        Effect::Delay { when: When::Before, delay_ms: 3 },
        reset(),
        Effect::Delay { when: When::After, delay_ms: 5 },
        Effect::Truncate,
    ] {
        faults.add(Fault::new(On::Update, effect)).unwrap();
    }
    let first = faults.strike(On::Update, &[]);
    assert_eq!((first.delay_before_ms, first.delay_after_ms), (3, 5));
    assert_eq!(first.effect, Some(reset()));
    assert_eq!(faults.strike(On::Update, &[]).effect, Some(Effect::Truncate));
}

#[test]
fn a_probability_is_the_same_with_the_same_seed() {
    let run = |seed| -> Vec<bool> {
        let mut faults = Faults::new(seed);
        faults.add(Fault::new(On::Update, reset()).times(Times::PerMille(300))).unwrap();
        (0..1_000).map(|_| faults.strike(On::Update, &[]).effect.is_some()).collect()
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
    let happened = run(7).into_iter().filter(|happened| *happened).count();
    assert!((200..400).contains(&happened), "{happened}");
}

#[test]
fn a_fault_that_could_not_happen_is_refused() {
    let status = |status| Effect::Answer { when: When::Before, status };
    for fault in [
        Fault::new(On::Read, Effect::AwaitApproval),
        Fault::new(On::List, Effect::WrongEcho { quantity: 1.into() }),
        Fault::new(On::Update, Effect::PublishTwice),
        Fault::new(On::Job, reset()),
        Fault::new(On::Update, status(200)),
        Fault::new(On::Update, status(600)),
        Fault::new(On::Update, reset()).times(Times::PerMille(1_001)),
        Fault::new(On::Update, Effect::Oversize { bytes: usize::MAX }),
    ] {
        assert!(fault.check().is_err(), "{fault:?}");
    }
}

#[test]
fn faults_are_written_in_json_as_documented() {
    let text = r#"{"on":["update"],"matches":{"record":"0b4a3f3e-7d0a-4b5e-9a0e-3d1c5f2b7a10"},
        "times":{"next":2},"effect":{"kind":"reset","when":"after"}}"#;
    let fault: Fault = serde_json::from_str(text).unwrap();
    assert_eq!(fault.effect, reset());
    assert_eq!(fault.times, Times::Next(2));
    let short = r#"{"on":["read","list"],"effect":{"kind":"answer","when":"before","status":401}}"#;
    let fault: Fault = serde_json::from_str(short).unwrap();
    assert_eq!((fault.times, fault.matches), (Times::Next(1), Matches::Any));
    for broken in [
        r#"{"on":["update"],"effect":{"kind":"reset"}}"#,
        r#"{"on":["update"],"effect":{"kind":"rest","when":"after"}}"#,
        r#"{"on":["put"],"effect":{"kind":"truncate"}}"#,
        r#"{"on":["update"],"effect":{"kind":"truncate"},"time":1}"#,
    ] {
        assert!(serde_json::from_str::<Fault>(broken).is_err(), "{broken}");
    }
}
