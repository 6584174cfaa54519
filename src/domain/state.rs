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
//! Where records are read before they are decided, a received job, or one that is parked until its
//! record can be read, has two more ways: to `refused`, because the record is not what the message
//! says, and to `confirmed`, because OES has ended it already and the book follows.
//!
//! An operator may send a parked job on: back to `received` if nothing was decided, else to `unknown`,
//! so that the record is read before anything is sent. A job that is parked because it needs approval is
//! not sent on: an operator approves or refuses it, which decides it, or shows that it must be parked for
//! another reason.
//!
//! Nothing here changes a decision; a state only says how far it has been carried out. The
//! database repeats these rules (`migrations/`), and a test compares the two.

mod reason;

use std::fmt;

pub use reason::{ConflictKind, Doubt, ParkReason};

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
    /// OES's record is not what the message says: nothing was decided, and the record's id is free for
    /// the message that it belongs to. Terminal.
    Refused,
}

impl State {
    /// The names of all states, in the order of a job's life.
    pub const NAMES: [&'static str; 10] = [
        "received",
        "decided",
        "sending",
        "unknown",
        "awaiting_approval",
        "parked",
        "conflict",
        "confirmed",
        "overruled",
        "refused",
    ];

    /// The names of those of them that nothing can follow.
    pub const FINAL_NAMES: [&'static str; 3] = ["confirmed", "overruled", "refused"];

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
            Self::Refused => "refused",
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
            | Self::Overruled
            | Self::Refused => None,
        }
    }

    /// The state that a row tells by name and reason.
    ///
    /// # Errors
    /// [`UnknownState`] for a pair that no state has.
    pub fn from_row(name: &str, reason: Option<&str>) -> Result<Self, UnknownState> {
        let unknown = || UnknownState { name: name.to_owned(), reason: reason.map(str::to_owned) };
        State::all()
            .find(|state| state.name() == name && state.reason() == reason)
            .ok_or_else(unknown)
    }

    /// Whether nothing can follow.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Confirmed | Self::Overruled | Self::Refused)
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
            Self::Refused,
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
    /// An operator has looked, and sends the job on.
    Retry,
    /// A read shows the record that a parked job waited for.
    Appear,
    /// A read finds that OES ended the record before it was decided here, and its end is the decision.
    Adopt,
    /// A read finds that the record is not what the message says.
    Refuse,
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
            Self::Parked(ParkReason::NeedsApproval) => after_needs_approval(event),
            Self::Parked(reason) if reason.waits_for_oes() => after_waiting_for_oes(reason, event),
            Self::Parked(reason) => after_parked(reason, event),
            Self::Conflict(_) => closing(event).filter(|next| next.is_final()),
            Self::Confirmed | Self::Overruled | Self::Refused => None,
        };
        next.ok_or(IllegalTransition { state: self, event })
    }
}

fn after_received(event: Event) -> Option<State> {
    match event {
        Event::Decide => Some(State::Decided),
        Event::Park(reason) if reason.is_undecided() => Some(State::Parked(reason)),
        Event::Adopt => Some(State::Confirmed),
        Event::Refuse => Some(State::Refused),
        Event::Park(_)
        | Event::Appear
        | Event::Prepare
        | Event::Confirm
        | Event::AwaitApproval
        | Event::TurnedAway
        | Event::Doubt(_)
        | Event::FoundReserved
        | Event::Overrule
        | Event::Freeze(_)
        | Event::Retry => None,
    }
}

fn after_decided(event: Event) -> Option<State> {
    match event {
        Event::Prepare => Some(State::Sending),
        Event::Park(reason) if !reason.is_undecided() => Some(State::Parked(reason)),
        Event::Park(_)
        | Event::Appear
        | Event::Adopt
        | Event::Refuse
        | Event::Decide
        | Event::Confirm
        | Event::AwaitApproval
        | Event::TurnedAway
        | Event::Doubt(_)
        | Event::FoundReserved
        | Event::Overrule
        | Event::Freeze(_)
        | Event::Retry => None,
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
        | Event::Park(_)
        | Event::Appear
        | Event::Adopt
        | Event::Refuse
        | Event::Retry => None,
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
        | Event::Doubt(_)
        | Event::Appear
        | Event::Adopt
        | Event::Refuse
        | Event::Retry => closing(event),
    }
}

fn after_needs_approval(event: Event) -> Option<State> {
    match event {
        Event::Decide => Some(State::Decided),
        Event::Park(reason) if reason.is_undecided() && reason != ParkReason::NeedsApproval => {
            Some(State::Parked(reason))
        }
        // What OES has ended needs nobody's word any more.
        Event::Adopt => Some(State::Confirmed),
        Event::Refuse => Some(State::Refused),
        // Sent on, it would be decided without anybody's word.
        Event::Retry
        | Event::Appear
        | Event::Park(_)
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

fn after_waiting_for_oes(reason: ParkReason, event: Event) -> Option<State> {
    match event {
        Event::Appear | Event::Retry => Some(State::Received),
        Event::Adopt => Some(State::Confirmed),
        Event::Refuse => Some(State::Refused),
        Event::Park(next) if next.is_undecided() && next != reason => Some(State::Parked(next)),
        Event::Park(_)
        | Event::Decide
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

fn after_parked(reason: ParkReason, event: Event) -> Option<State> {
    match event {
        Event::Retry if reason.is_undecided() => Some(State::Received),
        Event::Retry => Some(State::Unknown(Doubt::SentOn)),
        // Parked again for another reason would hide the first one.
        Event::Park(_) => None,
        Event::Confirm
        | Event::Overrule
        | Event::Freeze(_)
        | Event::Decide
        | Event::Prepare
        | Event::AwaitApproval
        | Event::TurnedAway
        | Event::Doubt(_)
        | Event::Appear
        | Event::Adopt
        | Event::Refuse
        | Event::FoundReserved => closing(event).filter(|_| !reason.is_undecided()),
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
        | Event::FoundReserved
        | Event::Appear
        | Event::Adopt
        | Event::Refuse
        | Event::Retry => None,
    }
}

#[cfg(test)]
mod tests;
