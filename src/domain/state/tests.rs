use std::collections::BTreeSet;

use super::*;

fn events() -> impl Iterator<Item = Event> {
    [
        Event::Decide,
        Event::Prepare,
        Event::Confirm,
        Event::AwaitApproval,
        Event::TurnedAway,
        Event::FoundReserved,
        Event::Overrule,
        Event::Appear,
        Event::Adopt,
        Event::Refuse,
    ]
    .into_iter()
    .chain(Doubt::ALL.into_iter().map(Event::Doubt))
    .chain(ConflictKind::ALL.into_iter().map(Event::Freeze))
    .chain(ParkReason::ALL.into_iter().map(Event::Park))
}

fn successors(state: State) -> BTreeSet<State> {
    events().filter_map(|event| state.apply(event).ok()).collect()
}

#[test]
fn the_happy_path_is_four_states() {
    let path = [Event::Decide, Event::Prepare, Event::Confirm];
    let end = path.into_iter().try_fold(State::Received, State::apply);
    assert_eq!(end, Ok(State::Confirmed));
}

#[test]
fn a_lost_reply_is_read_back_before_the_next_attempt() {
    for doubt in Doubt::ALL {
        let unknown = State::Sending.apply(Event::Doubt(doubt)).unwrap();
        assert!(unknown.apply(Event::Prepare).is_err());
        let again = unknown.apply(Event::FoundReserved).unwrap();
        assert_eq!(again.apply(Event::Prepare), Ok(State::Sending));
    }
}

#[test]
fn nothing_follows_a_final_state() {
    for state in State::all().filter(|state| state.is_final()) {
        assert_eq!(successors(state), BTreeSet::new(), "{state}");
    }
}

#[test]
fn every_decided_state_can_end() {
    for start in State::all() {
        if matches!(start, State::Parked(reason) if reason.is_undecided()) {
            continue;
        }
        let mut reached = BTreeSet::from([start]);
        let mut frontier = vec![start];
        while let Some(state) = frontier.pop() {
            for next in successors(state) {
                if reached.insert(next) {
                    frontier.push(next);
                }
            }
        }
        assert!(reached.contains(&State::Confirmed) || start.is_final(), "{start}");
    }
}

#[test]
fn no_attempt_follows_parked_conflict_or_approval() {
    let stuck = State::all().filter(|state| {
        // A decision may follow an operator's approval here, but no attempt that has no decision.
        *state != State::Parked(ParkReason::NeedsApproval)
            && matches!(state, State::Parked(_) | State::Conflict(_) | State::AwaitingApproval)
    });
    for state in stuck {
        let reached = successors(state);
        assert!(!reached.contains(&State::Decided) && !reached.contains(&State::Sending));
    }
}

#[test]
fn what_needs_approval_is_decided_or_parked_for_another_reason_and_never_sent_on() {
    let waiting = State::Parked(ParkReason::NeedsApproval);
    assert!(waiting.apply(Event::Retry).is_err());
    let others = ParkReason::ALL
        .into_iter()
        .filter(|reason| reason.is_undecided() && *reason != ParkReason::NeedsApproval);
    // OES's end needs no word, and a record that is another can have none.
    let ends = [State::Decided, State::Confirmed, State::Refused];
    let expected: BTreeSet<State> = others.map(State::Parked).chain(ends).collect();
    assert_eq!(successors(waiting), expected);
}

#[test]
fn an_undecided_job_ends_by_what_oes_shows_only_and_a_decided_one_never_becomes_undecided() {
    for state in State::all() {
        for event in events() {
            let Ok(next) = state.apply(event) else {
                continue;
            };
            let undecided = |state| {
                matches!(state, State::Received)
                    || matches!(state, State::Parked(reason) if reason.is_undecided())
            };
            if undecided(state) {
                let ended = match event {
                    Event::Adopt => next == State::Confirmed,
                    Event::Refuse => next == State::Refused,
                    _ => false,
                };
                assert!(undecided(next) || next == State::Decided || ended, "{state} → {next}");
            } else {
                assert!(!undecided(next) && next != State::Refused, "{state} → {next}");
            }
        }
    }
}

#[test]
fn what_waits_for_its_record_goes_on_by_itself() {
    for reason in ParkReason::ALL {
        let goes_on = State::Parked(reason).apply(Event::Appear).ok();
        let expected = reason.waits_for_oes().then_some(State::Received);
        assert_eq!(goes_on, expected, "{reason:?}");
        assert!(!reason.waits_for_oes() || reason.is_undecided());
    }
    let waiting = [ParkReason::NotShown, ParkReason::Unreadable, ParkReason::EndedAtOes];
    assert!(waiting.into_iter().all(ParkReason::waits_for_oes));
}

#[test]
fn what_waits_for_its_record_is_parked_for_another_reason_only_if_it_stays_undecided() {
    for reason in ParkReason::ALL.into_iter().filter(|reason| reason.waits_for_oes()) {
        for next in ParkReason::ALL {
            let parked = State::Parked(reason).apply(Event::Park(next)).ok();
            let may = next.is_undecided() && next != reason;
            assert_eq!(parked, may.then_some(State::Parked(next)), "{reason:?} to {next:?}");
        }
    }
}

#[test]
fn each_state_survives_its_row() {
    for state in State::all() {
        assert_eq!(State::from_row(state.name(), state.reason()), Ok(state));
        assert!(State::NAMES.contains(&state.name()));
    }
    assert!(State::from_row("confirmed", Some("no_reply")).is_err());
    assert!(State::from_row("unknown", None).is_err());
}
