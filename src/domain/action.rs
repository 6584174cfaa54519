//! What operators do: who and why, what is journalled, and what takes two of them.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{decision::Outcome, time::TimestampMs};

/// Longest name and reason that are kept, in bytes.
pub const WORDS_BYTES_MAX: usize = 512;

/// Who does something, and why. Kept with what they do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Operator {
    /// The person, as far as the system knows.
    pub who: String,
    /// What they say about it.
    pub reason: String,
    /// What many actions of one request have in common.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bulk_id: Option<Uuid>,
}

impl Operator {
    /// Somebody with a reason.
    ///
    /// # Errors
    /// What is wrong with it, for a reader.
    pub fn new(who: &str, reason: &str) -> Result<Self, &'static str> {
        let (who, reason) = (who.trim(), reason.trim());
        if who.is_empty() || reason.is_empty() {
            return Err("a name and a reason are needed");
        }
        if who.len() > WORDS_BYTES_MAX || reason.len() > WORDS_BYTES_MAX {
            return Err("the name or the reason is longer than 512 bytes");
        }
        if [who, reason].iter().any(|text| text.contains('\0')) {
            return Err("the name or the reason has a NUL character in it");
        }
        Ok(Self { who: who.to_owned(), reason: reason.to_owned(), bulk_id: None })
    }
}

/// Whether two names are one person's. On the control socket a name comes with the user's number, as in
/// `alice (uid 1000)`; that is the person who has a token as `alice`.
#[must_use]
pub fn is_same_person(one: &str, other: &str) -> bool {
    fn bare(name: &str) -> String {
        let name = name.trim();
        let named = name.strip_suffix(')').and_then(|rest| rest.rsplit_once(" (uid "));
        named.map_or(name, |(before, _)| before.trim_end()).to_lowercase()
    }
    bare(one) == bare(other)
}

/// What is journalled of an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActionKind {
    /// A parked job was sent on.
    Retry,
    /// A job that waited for it was approved.
    Approve,
    /// It was refused.
    Refuse,
    /// Somebody said how OES ended a record that is in conflict.
    ProposeEnd,
    /// Somebody else said the same, and the job was closed so.
    ConfirmEnd,
    /// A quarantined message was put back in.
    Requeue,
    /// Something was switched on or off.
    Switch,
    /// The book, or the last snapshot where it differs, was accepted for a connection.
    AcceptSnapshot,
}

impl ActionKind {
    /// All kinds, for listings, metrics and tests.
    pub const ALL: [Self; 8] = [
        Self::Retry,
        Self::Approve,
        Self::Refuse,
        Self::ProposeEnd,
        Self::ConfirmEnd,
        Self::Requeue,
        Self::Switch,
        Self::AcceptSnapshot,
    ];

    /// One word for rows and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Approve => "approve",
            Self::Refuse => "refuse",
            Self::ProposeEnd => "propose_end",
            Self::ConfirmEnd => "confirm_end",
            Self::Requeue => "requeue",
            Self::Switch => "switch",
            Self::AcceptSnapshot => "accept_snapshot",
        }
    }
}

/// What operators can switch off and on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Switch {
    /// Taking jobs from the broker.
    Intake,
    /// Deciding and signing.
    Signing,
    /// Sending updates to OES.
    Sending,
}

impl Switch {
    /// All switches, in the order in which a job meets them.
    pub const ALL: [Self; 3] = [Self::Intake, Self::Signing, Self::Sending];

    /// The word that rows, metrics and commands use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Intake => "intake",
            Self::Signing => "signing",
            Self::Sending => "sending",
        }
    }

    /// What goes on while it is off.
    #[must_use]
    pub const fn while_off(self) -> &'static str {
        match self {
            Self::Intake => "no job is taken from the queue",
            Self::Signing => "nothing is decided or signed",
            Self::Sending => "nothing is sent to OES",
        }
    }
}

impl fmt::Display for Switch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that names no switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there are the switches intake, signing and sending")]
pub struct UnknownSwitch;

impl FromStr for Switch {
    type Err = UnknownSwitch;

    fn from_str(word: &str) -> Result<Self, UnknownSwitch> {
        Self::ALL.into_iter().find(|switch| switch.as_str() == word).ok_or(UnknownSwitch)
    }
}

/// Which switches are on. All are, until somebody says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Switches {
    on: [bool; Switch::ALL.len()],
}

impl Default for Switches {
    fn default() -> Self {
        Self { on: [true; Switch::ALL.len()] }
    }
}

impl Switches {
    /// Whether one is on.
    #[must_use]
    pub fn is_on(self, switch: Switch) -> bool {
        Switch::ALL.iter().zip(self.on).any(|(known, on)| *known == switch && on)
    }

    /// The same with one of them set.
    #[must_use]
    pub fn with(mut self, switch: Switch, on: bool) -> Self {
        for (known, place) in Switch::ALL.iter().zip(&mut self.on) {
            if *known == switch {
                *place = on;
            }
        }
        self
    }

    /// Those that are off.
    pub fn off(self) -> impl Iterator<Item = Switch> {
        Switch::ALL.into_iter().filter(move |switch| !self.is_on(*switch))
    }
}

/// How OES ended a record, as one operator has said; another must say the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// Who said so.
    pub who: String,
    /// How it ended.
    pub outcome: Outcome,
    /// When they said so.
    pub at: TimestampMs,
    /// Until when somebody else can confirm it.
    pub expires_at: TimestampMs,
}

/// What a further word about the end of a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// The first about this end, or one that replaces what was said before.
    Proposes,
    /// The second, by somebody else, about the same end.
    Confirms,
    /// The same person's again.
    Repeats,
}

impl Proposal {
    /// What `who` does by saying at `now` that the record ended as `outcome`.
    #[must_use]
    pub fn answered(&self, who: &str, outcome: Outcome, now: TimestampMs) -> Word {
        if now > self.expires_at || outcome != self.outcome {
            Word::Proposes
        } else if is_same_person(&self.who, who) {
            Word::Repeats
        } else {
            Word::Confirms
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_person_is_known_under_both_names() {
        for (one, other) in [
            ("alice", "alice"),
            ("alice (uid 1000)", "alice"),
            ("Alice", " alice (uid 0) "),
            ("uid 0", "uid 0"),
        ] {
            assert!(is_same_person(one, other), "{one} {other}");
        }
        for (one, other) in [("alice", "bob"), ("alice (uid 0)", "bob (uid 0)"), ("", "alice")] {
            assert!(!is_same_person(one, other), "{one} {other}");
        }
    }

    #[test]
    fn an_end_takes_two_people_one_outcome_and_not_too_long() {
        let proposal = Proposal {
            who: "alice".to_owned(),
            outcome: Outcome::Cleared,
            at: TimestampMs::from_millis(1_000),
            expires_at: TimestampMs::from_millis(2_000),
        };
        let at = |who, outcome, ms| proposal.answered(who, outcome, TimestampMs::from_millis(ms));
        assert_eq!(at("bob", Outcome::Cleared, 2_000), Word::Confirms);
        assert_eq!(at("alice (uid 7)", Outcome::Cleared, 1_500), Word::Repeats);
        assert_eq!(at("bob", Outcome::Cleared, 2_001), Word::Proposes);
        assert_eq!(at("bob", Outcome::Released, 1_500), Word::Proposes);
        assert_eq!(at("alice", Outcome::Released, 1_500), Word::Proposes);
    }

    #[test]
    fn each_switch_is_set_alone() {
        for switch in Switch::ALL {
            let switches = Switches::default().with(switch, false);
            assert_eq!(switches.off().collect::<Vec<_>>(), [switch]);
            assert_eq!(switches.with(switch, true), Switches::default());
            assert_eq!(switch.as_str().parse(), Ok(switch));
        }
    }
}
