//! The states of a job and the only ways between them.
//!
//! ```text
//! received → decided → sending → confirmed
//!     │          ↑         │
//!     │          └ unknown ┤   read back: still reserved → decided again, with a fresh nonce
//!     ↓                    ↓
//!   parked          awaiting_approval, parked, conflict → confirmed | overruled
//! ```
//!
//! Nothing here changes a decision; a state only says how far it has been carried out. The
//! database repeats these rules (`migrations/`), and a test compares the two.

use std::fmt;

/// Why the outcome of an attempt is not known. It decides what a read-back that finds the record
/// still reserved means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Doubt {
    /// No answer: time-out, reset, refused connection, answer cut off.
    NoReply,
    /// 5xx.
    ServerError,
    /// An answer that the reference does not have here: an unreadable 200, another 2xx, 3xx, 408.
    OddAnswer,
    /// 200, but it echoes other values than were sent.
    WrongEcho,
    /// 200 with `policyResult: rejected`.
    PolicyRejected,
    /// 409.
    ConflictAnswer,
    /// 400 or 422.
    RefusedAnswer,
    /// 404.
    NotFound,
    /// 401: the sender is stopped as well.
    Unauthorized,
    /// 403.
    Forbidden,
    /// The daemon ended before it recorded an answer; the attempt may have left.
    Restarted,
}

impl Doubt {
    /// All doubts, for metrics and tests.
    pub const ALL: [Self; 11] = [
        Self::NoReply,
        Self::ServerError,
        Self::OddAnswer,
        Self::WrongEcho,
        Self::PolicyRejected,
        Self::ConflictAnswer,
        Self::RefusedAnswer,
        Self::NotFound,
        Self::Unauthorized,
        Self::Forbidden,
        Self::Restarted,
    ];

    /// One word for rows and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoReply => "no_reply",
            Self::ServerError => "server_error",
            Self::OddAnswer => "odd_answer",
            Self::WrongEcho => "wrong_echo",
            Self::PolicyRejected => "policy_rejected",
            Self::ConflictAnswer => "conflict_answer",
            Self::RefusedAnswer => "refused_answer",
            Self::NotFound => "not_found",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::Restarted => "restarted",
        }
    }
}

/// Why an operator must look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ParkReason {
    /// The job's identifiers disagree with its connection in the book; nothing is decided.
    IdentityMismatch,
    /// The decision could not be stored; nothing is decided.
    DecideFailed,
    /// A later step could not be stored; the decision stands.
    StepFailed,
    /// OES answered 400 or 422 and still has the record reserved.
    RefusedByOes,
    /// OES does not show the record.
    NotFoundAtOes,
    /// OES's policy rejected the update and still has the record reserved.
    PolicyRejected,
    /// OES answered 403 to the update, although it lets the record be read.
    Forbidden,
    /// The bound on attempts is reached.
    AttemptsExhausted,
    /// The bound on age is reached.
    TooOld,
    /// An approval is pending at OES, and it is not clear whether our update caused it.
    ApprovalUnclear,
}

impl ParkReason {
    /// All reasons, for metrics and tests.
    pub const ALL: [Self; 10] = [
        Self::IdentityMismatch,
        Self::DecideFailed,
        Self::StepFailed,
        Self::RefusedByOes,
        Self::NotFoundAtOes,
        Self::PolicyRejected,
        Self::Forbidden,
        Self::AttemptsExhausted,
        Self::TooOld,
        Self::ApprovalUnclear,
    ];

    /// One word for rows and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::IdentityMismatch => "identity_mismatch",
            Self::DecideFailed => "decide_failed",
            Self::StepFailed => "step_failed",
            Self::RefusedByOes => "refused_by_oes",
            Self::NotFoundAtOes => "not_found_at_oes",
            Self::PolicyRejected => "policy_rejected",
            Self::Forbidden => "forbidden",
            Self::AttemptsExhausted => "attempts_exhausted",
            Self::TooOld => "too_old",
            Self::ApprovalUnclear => "approval_unclear",
        }
    }

    /// Whether the job was parked before anything was decided.
    #[must_use]
    pub const fn is_undecided(self) -> bool {
        match self {
            Self::IdentityMismatch | Self::DecideFailed => true,
            Self::StepFailed
            | Self::RefusedByOes
            | Self::NotFoundAtOes
            | Self::PolicyRejected
            | Self::Forbidden
            | Self::AttemptsExhausted
            | Self::TooOld
            | Self::ApprovalUnclear => false,
        }
    }
}

/// In which way OES contradicts us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConflictKind {
    /// OES holds the other outcome.
    OtherOutcome,
    /// OES echoed other values than we sent and still has the record reserved.
    WrongEcho,
    /// OES has a record of another type or connection under this id.
    OtherTerms,
}

impl ConflictKind {
    /// All kinds, for metrics and tests.
    pub const ALL: [Self; 3] = [Self::OtherOutcome, Self::WrongEcho, Self::OtherTerms];

    /// One word for rows and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OtherOutcome => "other_outcome",
            Self::WrongEcho => "wrong_echo",
            Self::OtherTerms => "other_terms",
        }
    }
}

/// How far a job has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Recorded; nothing decided.
    Received,
    /// Decided; no attempt is outstanding, one may be prepared when it is due.
    Decided,
    /// A signed attempt is on disk and may have left.
    Sending,
    /// An attempt may have been applied; the record must be read before anything is sent.
    Unknown(Doubt),
    /// OES accepted the update; its own policy approval is pending.
    AwaitingApproval,
    /// An operator must look; money and decision stay as they are.
    Parked(ParkReason),
    /// OES contradicts us; frozen.
    Conflict(ConflictKind),
    /// OES holds our outcome. Terminal.
    Confirmed,
    /// OES ended the record otherwise, and the book follows it. Terminal.
    Overruled,
}

impl State {
    /// The names of all states, in the order of a job's life.
    pub const NAMES: [&'static str; 9] = [
        "received",
        "decided",
        "sending",
        "unknown",
        "awaiting_approval",
        "parked",
        "conflict",
        "confirmed",
        "overruled",
    ];

    /// The word that rows, metrics and listings use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Received => "received",
            Self::Decided => "decided",
            Self::Sending => "sending",
            Self::Unknown(_) => "unknown",
            Self::AwaitingApproval => "awaiting_approval",
            Self::Parked(_) => "parked",
            Self::Conflict(_) => "conflict",
            Self::Confirmed => "confirmed",
            Self::Overruled => "overruled",
        }
    }

    /// The reason that goes with the state, where it has one.
    #[must_use]
    pub const fn reason(self) -> Option<&'static str> {
        match self {
            Self::Unknown(doubt) => Some(doubt.as_str()),
            Self::Parked(reason) => Some(reason.as_str()),
            Self::Conflict(kind) => Some(kind.as_str()),
            Self::Received
            | Self::Decided
            | Self::Sending
            | Self::AwaitingApproval
            | Self::Confirmed
            | Self::Overruled => None,
        }
    }

    /// The state that a row tells by name and reason.
    ///
    /// # Errors
    /// [`UnknownState`] for a pair that no state has.
    pub fn from_row(name: &str, reason: Option<&str>) -> Result<Self, UnknownState> {
        let unknown = || UnknownState {
            name: name.to_owned(),
            reason: reason.map(str::to_owned),
        };
        State::all()
            .find(|state| state.name() == name && state.reason() == reason)
            .ok_or_else(unknown)
    }

    /// Whether nothing can follow.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Confirmed | Self::Overruled)
    }

    /// Every state with every reason.
    pub fn all() -> impl Iterator<Item = Self> {
        [
            Self::Received,
            Self::Decided,
            Self::Sending,
            Self::AwaitingApproval,
            Self::Confirmed,
            Self::Overruled,
        ]
        .into_iter()
        .chain(Doubt::ALL.into_iter().map(Self::Unknown))
        .chain(ParkReason::ALL.into_iter().map(Self::Parked))
        .chain(ConflictKind::ALL.into_iter().map(Self::Conflict))
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason() {
            Some(reason) => write!(f, "{}({reason})", self.name()),
            None => f.write_str(self.name()),
        }
    }
}

/// A row with a state that this program does not know: it was written by another version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("state {name:?} with reason {reason:?} is not known to this version")]
pub struct UnknownState {
    /// The state's name.
    pub name: String,
    /// Its reason.
    pub reason: Option<String>,
}

/// Something that happened to a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Event {
    /// The policy has decided.
    Decide,
    /// A signed attempt goes to disk.
    Prepare,
    /// OES holds our outcome, by its reply or by a read.
    Confirm,
    /// OES accepted the update, and its approval is pending.
    AwaitApproval,
    /// The attempt certainly was not looked at (429).
    TurnedAway,
    /// The attempt's outcome is not known.
    Doubt(Doubt),
    /// A read found the record still reserved, and another attempt may follow.
    FoundReserved,
    /// A read found the other outcome with `policyResult: rejected`.
    Overrule,
    /// A read contradicts us.
    Freeze(ConflictKind),
    /// An operator must look.
    Park(ParkReason),
}

/// An event that cannot happen in a state: a fault of this program or of the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{event:?} cannot happen to a job that is {state}")]
pub struct IllegalTransition {
    /// The state the job is in.
    pub state: State,
    /// What was to happen.
    pub event: Event,
}

impl State {
    /// The state after `event`.
    ///
    /// # Errors
    /// [`IllegalTransition`] when the event cannot happen here.
    pub fn apply(self, event: Event) -> Result<Self, IllegalTransition> {
        let next = match self {
            Self::Received => after_received(event),
            Self::Decided => after_decided(event),
            Self::Sending => after_sending(event),
            Self::Unknown(_) => after_unknown(event),
            Self::AwaitingApproval => closing(event),
            Self::Parked(reason) if reason.is_undecided() => None,
            // Parked or frozen again for another reason would hide the first one.
            Self::Parked(_) => closing(event).filter(|next| !matches!(next, Self::Parked(_))),
            Self::Conflict(_) => closing(event).filter(|next| next.is_final()),
            Self::Confirmed | Self::Overruled => None,
        };
        next.ok_or(IllegalTransition { state: self, event })
    }
}

fn after_received(event: Event) -> Option<State> {
    match event {
        Event::Decide => Some(State::Decided),
        Event::Park(reason) if reason.is_undecided() => Some(State::Parked(reason)),
        Event::Park(_)
        | Event::Prepare
        | Event::Confirm
        | Event::AwaitApproval
        | Event::TurnedAway
        | Event::Doubt(_)
        | Event::FoundReserved
        | Event::Overrule
        | Event::Freeze(_) => None,
    }
}

fn after_decided(event: Event) -> Option<State> {
    match event {
        Event::Prepare => Some(State::Sending),
        Event::Park(reason) if !reason.is_undecided() => Some(State::Parked(reason)),
        Event::Park(_)
        | Event::Decide
        | Event::Confirm
        | Event::AwaitApproval
        | Event::TurnedAway
        | Event::Doubt(_)
        | Event::FoundReserved
        | Event::Overrule
        | Event::Freeze(_) => None,
    }
}

fn after_sending(event: Event) -> Option<State> {
    match event {
        Event::Confirm => Some(State::Confirmed),
        Event::AwaitApproval => Some(State::AwaitingApproval),
        Event::TurnedAway => Some(State::Decided),
        Event::Doubt(doubt) => Some(State::Unknown(doubt)),
        // An attempt may have been applied, so everything else needs a read first.
        Event::Decide
        | Event::Prepare
        | Event::FoundReserved
        | Event::Overrule
        | Event::Freeze(_)
        | Event::Park(_) => None,
    }
}

fn after_unknown(event: Event) -> Option<State> {
    match event {
        Event::FoundReserved => Some(State::Decided),
        Event::AwaitApproval => Some(State::AwaitingApproval),
        Event::Confirm
        | Event::Overrule
        | Event::Freeze(_)
        | Event::Park(_)
        | Event::Decide
        | Event::Prepare
        | Event::TurnedAway
        | Event::Doubt(_) => closing(event),
    }
}

/// The exits that every decided record without an outstanding attempt has.
fn closing(event: Event) -> Option<State> {
    match event {
        Event::Confirm => Some(State::Confirmed),
        Event::Overrule => Some(State::Overruled),
        Event::Freeze(kind) => Some(State::Conflict(kind)),
        Event::Park(reason) if !reason.is_undecided() => Some(State::Parked(reason)),
        Event::Park(_)
        | Event::Decide
        | Event::Prepare
        | Event::AwaitApproval
        | Event::TurnedAway
        | Event::Doubt(_)
        | Event::FoundReserved => None,
    }
}

#[cfg(test)]
mod tests {
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
        ]
        .into_iter()
        .chain(Doubt::ALL.into_iter().map(Event::Doubt))
        .chain(ConflictKind::ALL.into_iter().map(Event::Freeze))
        .chain(ParkReason::ALL.into_iter().map(Event::Park))
    }

    fn successors(state: State) -> BTreeSet<State> {
        events()
            .filter_map(|event| state.apply(event).ok())
            .collect()
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
            assert!(
                reached.contains(&State::Confirmed) || start.is_final(),
                "{start}"
            );
        }
    }

    #[test]
    fn no_attempt_follows_parked_conflict_or_approval() {
        let stuck = State::all().filter(|state| {
            matches!(
                state,
                State::Parked(_) | State::Conflict(_) | State::AwaitingApproval
            )
        });
        for state in stuck {
            let reached = successors(state);
            assert!(!reached.contains(&State::Decided) && !reached.contains(&State::Sending));
        }
    }

    #[test]
    fn an_undecided_job_never_ends_and_a_decided_one_never_becomes_undecided() {
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
                    assert!(
                        undecided(next) || next == State::Decided,
                        "{state} → {next}"
                    );
                } else {
                    assert!(!undecided(next), "{state} → {next}");
                }
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
}
