//! Whether the book is far enough for a decision: jobs must not overtake the book.
//!
//! Where a feed is configured, nothing is decided until what was in its queue at the time of connecting
//! is applied, and, if a bound is set, the exchange's last heartbeat is younger than that. Time that jobs
//! may wait for the book counts only while this gate is open. Time comes in as an argument.

use std::{fmt, time::Duration};

use super::time::TimestampMs;

/// Why nothing is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shut {
    /// Nobody consumes the feed here: the daemon has just started, or has lost the broker.
    NotConnected,
    /// So many events that were in the queue at the time of connecting are not applied yet.
    Backlog(u64),
    /// A heartbeat is asked for, and none came yet.
    NoHeartbeat,
    /// The last heartbeat is so old.
    HeartbeatOld(Duration),
}

impl Shut {
    /// One word for each cause, for the gauge that has a line for each.
    pub const CAUSES: [&'static str; 4] =
        ["not_connected", "backlog", "no_heartbeat", "heartbeat_old"];

    /// One word for metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotConnected => "not_connected",
            Self::Backlog(_) => "backlog",
            Self::NoHeartbeat => "no_heartbeat",
            Self::HeartbeatOld(_) => "heartbeat_old",
        }
    }

    /// Whether the exchange sends no sign of life.
    #[must_use]
    pub const fn is_stale(self) -> bool {
        matches!(self, Self::NoHeartbeat | Self::HeartbeatOld(_))
    }
}

impl fmt::Display for Shut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotConnected => {
                f.write_str("the feed is not consumed: no connection to the broker yet")
            }
            Self::Backlog(left) => {
                write!(f, "{left} events of the feed's backlog are not applied yet")
            }
            Self::NoHeartbeat => f.write_str(
                "book.lag_max_s is set, and no book.heartbeat has come yet from the exchange",
            ),
            Self::HeartbeatOld(age) => write!(
                f,
                "the exchange's last book.heartbeat is {} s old, more than book.lag_max_s: its feed stands \
                 still, or its clock is wrong",
                age.as_secs()
            ),
        }
    }
}

/// The gate as it is at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GateView {
    /// Whether a feed is configured.
    pub is_fed: bool,
    /// Why nothing is decided, if so.
    pub shut: Option<Shut>,
    /// For how long it was open in this book's life.
    pub open_time: Duration,
    /// How old the last heartbeat is, if there was one.
    pub heartbeat_age: Option<Duration>,
}

impl Default for GateView {
    /// Without a feed nothing is waited for.
    fn default() -> Self {
        Self { is_fed: false, shut: None, open_time: Duration::ZERO, heartbeat_age: None }
    }
}

/// The gate.
#[derive(Clone, Debug)]
pub struct BookGate {
    is_fed: bool,
    lag_max: Option<Duration>,
    is_connected: bool,
    backlog: u64,
    heartbeat: Option<TimestampMs>,
    open_time: Duration,
    as_of: Option<TimestampMs>,
}

impl BookGate {
    /// A gate that nothing is asked of: no feed is configured.
    #[must_use]
    pub fn without_feed() -> Self {
        Self {
            is_fed: false,
            lag_max: None,
            is_connected: false,
            backlog: 0,
            heartbeat: None,
            open_time: Duration::ZERO,
            as_of: None,
        }
    }

    /// A gate before a feed that is not connected yet. `open_time` and `heartbeat` are what the book
    /// remembers.
    #[must_use]
    pub fn before_feed(
        lag_max: Option<Duration>,
        open_time: Duration,
        heartbeat: Option<TimestampMs>,
    ) -> Self {
        Self { is_fed: true, lag_max, heartbeat, open_time, ..Self::without_feed() }
    }

    /// The feed is consumed from now on, and so many events are in its queue.
    pub fn connected(&mut self, now: TimestampMs, backlog: u64) {
        self.go_on(now);
        (self.is_connected, self.backlog) = (true, backlog);
    }

    /// The feed is not consumed any more.
    pub fn disconnected(&mut self, now: TimestampMs) {
        self.go_on(now);
        (self.is_connected, self.backlog) = (false, 0);
    }

    /// So many deliveries are committed and acknowledged, or could be. Answers whether that was the last
    /// of the backlog.
    pub fn applied(&mut self, now: TimestampMs, deliveries: u64) -> bool {
        self.go_on(now);
        let before = self.backlog;
        self.backlog = before.saturating_sub(deliveries);
        before > 0 && self.backlog == 0
    }

    /// A heartbeat is committed. One from the future is as young as one from now.
    pub fn heartbeat(&mut self, now: TimestampMs, sent_at: TimestampMs) {
        self.go_on(now);
        let sent_at = sent_at.min(now);
        self.heartbeat = Some(self.heartbeat.map_or(sent_at, |known| known.max(sent_at)));
    }

    /// The gate as it is now.
    pub fn look(&mut self, now: TimestampMs) -> GateView {
        self.go_on(now);
        GateView {
            is_fed: self.is_fed,
            shut: self.shut(now),
            open_time: self.open_time,
            heartbeat_age: self.heartbeat.map(|at| now.since(at)),
        }
    }

    fn shut(&self, now: TimestampMs) -> Option<Shut> {
        if !self.is_fed {
            return None;
        }
        if !self.is_connected {
            return Some(Shut::NotConnected);
        }
        if self.backlog > 0 {
            return Some(Shut::Backlog(self.backlog));
        }
        let lag_max = self.lag_max?;
        match self.heartbeat {
            None => Some(Shut::NoHeartbeat),
            Some(at) if now.since(at) > lag_max => Some(Shut::HeartbeatOld(now.since(at))),
            Some(_) => None,
        }
    }

    /// Adds the time for which it was open since it was last looked at.
    fn go_on(&mut self, now: TimestampMs) {
        let Some(as_of) = self.as_of.replace(now) else { return };
        if !self.is_fed || !self.is_connected || self.backlog > 0 {
            return;
        }
        let until = match (self.lag_max, self.heartbeat) {
            (None, _) => now,
            (Some(_), None) => return,
            (Some(lag_max), Some(heartbeat)) => now.min(heartbeat.after(lag_max)),
        };
        self.open_time = self.open_time.saturating_add(until.since(as_of));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> TimestampMs {
        TimestampMs::from_millis(1_000_000 + seconds * 1_000)
    }

    fn gate(lag_max_s: Option<u64>) -> BookGate {
        BookGate::before_feed(lag_max_s.map(Duration::from_secs), Duration::ZERO, None)
    }

    fn open_s(gate: &mut BookGate, seconds: i64) -> u64 {
        gate.look(at(seconds)).open_time.as_secs()
    }

    #[test]
    fn without_a_feed_nothing_is_waited_for() {
        let mut gate = BookGate::without_feed();
        assert_eq!(gate.look(at(5)), GateView { is_fed: false, ..GateView::default() });
    }

    #[test]
    fn it_opens_when_the_backlog_at_connect_is_applied() {
        let mut gate = gate(None);
        assert_eq!(gate.look(at(0)).shut, Some(Shut::NotConnected));
        gate.connected(at(1), 3);
        assert!(!gate.applied(at(2), 2));
        assert_eq!(gate.look(at(3)).shut, Some(Shut::Backlog(1)));
        assert!(gate.applied(at(4), 5));
        assert!(!gate.applied(at(5), 1), "told once");
        assert_eq!(gate.look(at(6)).shut, None);
        gate.disconnected(at(7));
        assert_eq!(gate.look(at(8)).shut, Some(Shut::NotConnected));
        gate.connected(at(9), 0);
        assert_eq!(gate.look(at(10)).shut, None);
        assert_eq!(open_s(&mut gate, 12), (7 - 4) + (12 - 9));
    }

    #[test]
    fn with_a_bound_the_last_heartbeat_must_be_young() {
        let mut gate = gate(Some(10));
        gate.connected(at(0), 0);
        assert_eq!(gate.look(at(1)).shut, Some(Shut::NoHeartbeat));
        gate.heartbeat(at(5), at(3));
        assert_eq!(gate.look(at(13)).shut, None);
        let shut = gate.look(at(14)).shut.unwrap();
        assert_eq!(shut, Shut::HeartbeatOld(Duration::from_secs(11)));
        assert!(shut.is_stale() && Shut::NoHeartbeat.is_stale());
        assert!(!Shut::NotConnected.is_stale() && !Shut::Backlog(1).is_stale());
        // An older one that comes late changes nothing, and one from the future is from now.
        gate.heartbeat(at(20), at(2));
        assert!(gate.look(at(20)).shut.is_some());
        gate.heartbeat(at(30), at(1_000));
        assert_eq!(gate.look(at(40)).shut, None);
        assert!(gate.look(at(41)).shut.is_some());
        assert_eq!(open_s(&mut gate, 60), (13 - 5) + (40 - 30));
    }

    #[test]
    fn the_time_it_was_open_goes_on_after_a_restart() {
        let heartbeat = Some(at(0));
        let mut gate = BookGate::before_feed(None, Duration::from_secs(40), heartbeat);
        assert_eq!(open_s(&mut gate, 100), 40, "nobody knows what was between");
        gate.connected(at(100), 0);
        assert_eq!(open_s(&mut gate, 103), 43);
        let bound = Some(Duration::from_secs(10));
        let mut gate = BookGate::before_feed(bound, Duration::ZERO, heartbeat);
        gate.connected(at(4), 0);
        assert_eq!(gate.look(at(5)).shut, None, "the book remembers the heartbeat");
    }
}
