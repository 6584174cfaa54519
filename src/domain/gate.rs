//! Whether the sender may send: one switch for all records, driven by what OES answers.
//!
//! Source: the answers 401, 403 and 429 of the OES reference. A refused token must not be hammered
//! with, a token without the write scope reads well for ever and so cannot be found out by reading,
//! and a rate limit is about the user, not about a record.

use std::{collections::BTreeSet, time::Duration};

use super::{ids::RecordId, schedule::Schedule, time::TimestampMs};

/// Different records that OES must refuse with 403, one after the other, before the token is
/// suspected instead of the records.
pub const FORBIDDEN_RECORDS_MAX: usize = 3;

/// How long before a refusal of the token a 403 to an update is taken to be about the token too:
/// both were under way together.
const REFUSAL_REACH: Duration = Duration::from_secs(60);

/// Whether 403s are about the token rather than about their records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Suspicion {
    stopped: bool,
    refused_at: Option<TimestampMs>,
}

impl Suspicion {
    /// Whether a 403 that was noted at `since` says nothing about its record: updates as such are
    /// refused, or the token was refused about then or later.
    #[must_use]
    pub fn covers(&self, since: TimestampMs) -> bool {
        self.stopped || self.refused_at.is_some_and(|at| at.after(REFUSAL_REACH) >= since)
    }
}

/// Why nothing is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopCause {
    /// 401, or 403 to a read: the token is refused. A read that succeeds opens the gate.
    TokenRefused,
    /// 403 to the updates of several records that can be read: the token may lack the write scope.
    /// An update that is answered otherwise opens the gate.
    UpdatesForbidden,
}

impl StopCause {
    /// One word for logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TokenRefused => "token_refused",
            Self::UpdatesForbidden => "updates_forbidden",
        }
    }
}

/// What the sender may do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    /// Send.
    Open,
    /// Send nothing, reads included, before this time.
    PausedUntil(TimestampMs),
    /// Nothing may be sent; after this time one trial is due: a read for a refused token, an
    /// update for forbidden updates.
    Stopped(StopCause, TimestampMs),
}

#[derive(Clone, Copy, Debug)]
struct Stop {
    cause: StopCause,
    trials: u32,
    next_trial_at: TimestampMs,
}

/// The gate. Time and answers come in; permissions come out.
#[derive(Debug)]
pub struct Gate {
    schedule: Schedule,
    paused_until: Option<TimestampMs>,
    pauses: u32,
    stop: Option<Stop>,
    refused_at: Option<TimestampMs>,
    forbidden: BTreeSet<RecordId>,
}

impl Gate {
    /// An open gate. `schedule` paces trials, and pauses that OES gives no time for.
    #[must_use]
    pub fn new(schedule: Schedule) -> Self {
        Self {
            schedule,
            paused_until: None,
            pauses: 0,
            stop: None,
            refused_at: None,
            forbidden: BTreeSet::new(),
        }
    }

    /// What may be done at `now`.
    #[must_use]
    pub fn permission(&self, now: TimestampMs) -> Permission {
        if let Some(until) = self.paused_until.filter(|until| now < *until) {
            return Permission::PausedUntil(until);
        }
        match self.stop {
            Some(stop) => Permission::Stopped(stop.cause, stop.next_trial_at),
            None => Permission::Open,
        }
    }

    /// Whether 403s say nothing about their records.
    #[must_use]
    pub fn suspicion(&self) -> Suspicion {
        Suspicion { stopped: self.stop.is_some(), refused_at: self.refused_at }
    }

    /// Takes the one trial that is due, so that no second one starts beside it.
    #[must_use]
    pub fn take_trial(&mut self, now: TimestampMs, cause: StopCause) -> bool {
        match &mut self.stop {
            Some(stop) if stop.cause == cause && now >= stop.next_trial_at => {
                stop.trials = stop.trials.saturating_add(1);
                stop.next_trial_at = now.after(self.schedule.delay(stop.trials));
                true
            }
            Some(_) | None => false,
        }
    }

    /// An update was answered with something other than 401, 403 or 429: updates are taken.
    /// Answers whether that opened the gate.
    pub fn update_answered(&mut self) -> bool {
        self.forbidden.clear();
        self.pauses = 0;
        self.stop.take().is_some()
    }

    /// A read succeeded. Answers whether that opened the gate.
    pub fn read_answered(&mut self) -> bool {
        self.pauses = 0;
        let Some(stop @ Stop { cause: StopCause::TokenRefused, .. }) = self.stop else {
            return false;
        };
        // A token that may not write reads well for ever: what was found out before still holds.
        let may_not_write = self.forbidden.len() >= FORBIDDEN_RECORDS_MAX;
        self.stop = may_not_write.then_some(Stop { cause: StopCause::UpdatesForbidden, ..stop });
        !may_not_write
    }

    /// 401 to anything, or 403 to a read. Answers whether that closed the gate.
    pub fn token_refused(&mut self, now: TimestampMs) -> bool {
        self.refused_at = Some(now);
        self.close(now, StopCause::TokenRefused)
    }

    /// 403 to an update. Answers whether that closed the gate.
    pub fn update_forbidden(&mut self, now: TimestampMs, record: RecordId) -> bool {
        self.forbidden.insert(record);
        self.forbidden.len() >= FORBIDDEN_RECORDS_MAX
            && self.close(now, StopCause::UpdatesForbidden)
    }

    fn close(&mut self, now: TimestampMs, cause: StopCause) -> bool {
        match self.stop {
            Some(stop) if stop.cause == cause => false,
            Some(_) | None => {
                let next_trial_at = now.after(self.schedule.delay(1));
                self.stop = Some(Stop { cause, trials: 0, next_trial_at });
                true
            }
        }
    }

    /// OES answered 429. `retry_at` is what it asked for, and is never gone below; without it, or with
    /// one that is over already, the pause is ours. Answers until when nothing may be sent.
    pub fn rate_limited(&mut self, now: TimestampMs, retry_at: Option<TimestampMs>) -> TimestampMs {
        // Answers to requests that were under way together are one pause, not several.
        let under_way = self.paused_until.filter(|until| now < *until);
        let ours = under_way.unwrap_or_else(|| {
            self.pauses = self.pauses.saturating_add(1);
            now.after(self.schedule.delay(self.pauses))
        });
        let until = retry_at.map_or(ours, |retry_at| ours.max(retry_at));
        self.paused_until = Some(until);
        until
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOW: TimestampMs = TimestampMs::from_millis(1_000_000);

    fn gate() -> Gate {
        Gate::new(Schedule::new(Duration::from_secs(1), Duration::from_secs(60)))
    }

    fn record(number: u8) -> RecordId {
        uuid::Uuid::from_bytes([number; 16]).into()
    }

    fn later(seconds: u64) -> TimestampMs {
        NOW.after(Duration::from_secs(seconds))
    }

    #[test]
    fn a_refused_token_stops_everything_until_a_read_succeeds() {
        let mut gate = gate();
        assert!(gate.token_refused(NOW));
        assert!(!gate.token_refused(NOW), "paged once");
        assert!(matches!(
            gate.permission(later(1_000)),
            Permission::Stopped(StopCause::TokenRefused, _)
        ));
        assert!(gate.take_trial(later(61), StopCause::TokenRefused));
        assert!(gate.read_answered());
        assert_eq!(gate.permission(NOW), Permission::Open);
    }

    #[test]
    fn one_refused_record_does_not_stop_the_others() {
        let mut gate = gate();
        for _ in 0..10 {
            assert!(!gate.update_forbidden(NOW, record(1)));
        }
        assert!(!gate.update_forbidden(NOW, record(2)));
        gate.update_answered();
        assert!(!gate.update_forbidden(NOW, record(3)));
        assert_eq!(gate.permission(NOW), Permission::Open);
    }

    #[test]
    fn a_token_without_the_write_scope_does_not_flap() {
        let mut gate = gate();
        let closed: Vec<bool> =
            (1..=4).map(|number| gate.update_forbidden(NOW, record(number))).collect();
        assert_eq!(closed, [false, false, true, false]);
        assert!(!gate.read_answered(), "reading well does not open it");
        assert!(gate.suspicion().covers(NOW));
        assert!(!gate.take_trial(NOW, StopCause::TokenRefused));
        assert!(gate.take_trial(later(61), StopCause::UpdatesForbidden));
        assert!(!gate.take_trial(later(61), StopCause::UpdatesForbidden), "one trial per back-off");
        assert!(!gate.update_forbidden(later(62), record(5)));
        // A refused token in between does not make it forget.
        assert!(gate.token_refused(later(63)));
        assert!(!gate.read_answered(), "reading well does not open it now either");
        assert!(matches!(
            gate.permission(later(64)),
            Permission::Stopped(StopCause::UpdatesForbidden, _)
        ));
        assert!(gate.update_answered());
        assert_eq!(gate.permission(later(65)), Permission::Open);
    }

    #[test]
    fn a_403_beside_a_refused_token_is_not_about_its_record_and_a_later_one_is() {
        let mut gate = gate();
        assert!(!gate.suspicion().covers(NOW));
        assert!(gate.token_refused(later(5)));
        assert!(gate.read_answered());
        assert!(gate.suspicion().covers(NOW) && gate.suspicion().covers(later(6)));
        assert!(!gate.suspicion().covers(later(600)));
    }

    #[test]
    fn a_retry_after_that_is_over_already_is_no_leave_to_hammer() {
        let mut gate = gate();
        let mut pauses = Vec::new();
        for minute in 0..20 {
            let now = later(minute * 60);
            pauses.push(gate.rate_limited(now, Some(now)).since(now));
        }
        assert!(pauses.iter().any(|pause| *pause > Duration::from_secs(5)), "{pauses:?}");
    }

    #[test]
    fn a_pause_that_is_just_over_is_followed_by_a_new_one() {
        let mut gate = gate();
        let until = gate.rate_limited(NOW, Some(later(10)));
        assert!(gate.rate_limited(until, Some(until)) > until);
    }

    #[test]
    fn a_rate_limit_is_never_left_early() {
        let mut gate = gate();
        assert_eq!(gate.rate_limited(NOW, Some(later(10))), later(10));
        assert_eq!(gate.rate_limited(NOW, Some(later(5))), later(10), "the longer one holds");
        assert_eq!(gate.rate_limited(NOW, None), later(10));
        assert_eq!(gate.permission(later(9)), Permission::PausedUntil(later(10)));
        assert_eq!(gate.permission(later(10)), Permission::Open);
    }
}
