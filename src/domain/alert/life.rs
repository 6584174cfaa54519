//! The life of an alert: it holds, fires, is told again while it lasts, and is over once it has been gone
//! for a while. What is known of it is a row, so that a restart neither repeats nor forgets.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    AlertKey, Condition, NoticeEvent,
    rules::{Findings, patience},
};
use crate::domain::time::TimestampMs;

/// How far an alert has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It holds, but not for long enough.
    Pending,
    /// It was told.
    Firing {
        /// Since when.
        fired_at: TimestampMs,
        /// When it was last told.
        told_at: TimestampMs,
        /// About how many things it was then.
        told_things: u64,
        /// Since when it does not hold any more, if so.
        clear_since: Option<TimestampMs>,
    },
}

/// What is known of an alert that holds or fires.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// How far it has come.
    pub stage: Stage,
    /// Since when it holds.
    pub held_since: TimestampMs,
    /// About how many things it is.
    pub things: u64,
    /// What holds, for a person.
    pub summary: String,
}

impl Known {
    /// Whether it was told and is not over.
    #[must_use]
    pub const fn is_firing(&self) -> bool {
        matches!(self.stage, Stage::Firing { .. })
    }
}

/// The times that an alert's life goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// How long what comes and goes must hold before it is told; also the least time between two notices
    /// of one alert that lasts.
    pub hold: Duration,
    /// How long it must be gone before it is over.
    pub calm: Duration,
    /// How often it is told again while it lasts.
    pub repeat_every: Duration,
}

/// Something to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// About which alert.
    pub key: AlertKey,
    /// What about it.
    pub event: NoticeEvent,
    /// As it is known now.
    pub known: Known,
}

/// What a look has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Alerts that are to be written down as they are now.
    pub put: Vec<(AlertKey, Known)>,
    /// Alerts that are over.
    pub over: Vec<AlertKey>,
    /// What is to be told.
    pub notices: Vec<Notice>,
}

/// Carries every alert on by one look. `known` is then as it will be written down.
pub fn step(
    known: &mut BTreeMap<AlertKey, Known>,
    found: &Findings,
    pace: &Pace,
    now: TimestampMs,
) -> Changes {
    let mut changes = Changes::default();
    let held: BTreeSet<&AlertKey> = found.holding.iter().map(|condition| &condition.key).collect();
    for condition in &found.holding {
        let before = known.get(&condition.key);
        let (after, event) = holds(before, condition, pace, now);
        // A summary alone is not worth a commit: it is written with the next change.
        let is_news = before.is_none_or(|before| before.stage != after.stage);
        if is_news {
            changes.put.push((condition.key.clone(), after.clone()));
        }
        if let Some(event) = event {
            let key = condition.key.clone();
            changes.notices.push(Notice { key, event, known: after.clone() });
        }
        known.insert(condition.key.clone(), after);
    }
    let gone: Vec<AlertKey> = known
        .keys()
        .filter(|key| !held.contains(key) && !found.untold.contains(&key.kind))
        .cloned()
        .collect();
    for key in gone {
        let Some(alert) = known.get_mut(&key) else { continue };
        match cleared(alert, pace, now) {
            Cleared::NotYet(is_news) => {
                if is_news {
                    changes.put.push((key, alert.clone()));
                }
            }
            Cleared::Over => {
                if alert.is_firing() {
                    let known = alert.clone();
                    let event = NoticeEvent::Resolved;
                    changes.notices.push(Notice { key: key.clone(), event, known });
                }
                known.remove(&key);
                changes.over.push(key);
            }
        }
    }
    changes
}

/// An alert whose condition holds.
fn holds(
    before: Option<&Known>,
    condition: &Condition,
    pace: &Pace,
    now: TimestampMs,
) -> (Known, Option<NoticeEvent>) {
    let held_since = before.map_or(now, |before| before.held_since);
    let things = condition.things;
    let known = |stage| Known { stage, held_since, things, summary: condition.summary.clone() };
    let told = |fired_at| {
        known(Stage::Firing { fired_at, told_at: now, told_things: things, clear_since: None })
    };
    match before.map(|before| before.stage) {
        None | Some(Stage::Pending) => {
            if now.since(held_since) >= patience(condition.key.kind, pace.hold) {
                (told(now), Some(NoticeEvent::Firing))
            } else {
                (known(Stage::Pending), None)
            }
        }
        Some(Stage::Firing { fired_at, told_at, told_things, .. }) => {
            if things > told_things && now.since(told_at) >= pace.hold {
                (told(fired_at), Some(NoticeEvent::Worse))
            } else if now.since(told_at) >= pace.repeat_every {
                (told(fired_at), Some(NoticeEvent::Repeated))
            } else {
                (known(Stage::Firing { fired_at, told_at, told_things, clear_since: None }), None)
            }
        }
    }
}

enum Cleared {
    /// It is gone, but not for long enough; and whether that is new.
    NotYet(bool),
    Over,
}

/// An alert whose condition does not hold.
fn cleared(alert: &mut Known, pace: &Pace, now: TimestampMs) -> Cleared {
    match &mut alert.stage {
        Stage::Pending => Cleared::Over,
        Stage::Firing { clear_since, .. } => {
            let is_news = clear_since.is_none();
            let since = *clear_since.get_or_insert(now);
            if now.since(since) >= pace.calm { Cleared::Over } else { Cleared::NotYet(is_news) }
        }
    }
}

#[cfg(test)]
mod tests;
