//! Wake-ups between the loops. They carry no data: whoever is woken looks into the database, and
//! would find the same work a little later without being woken.

use std::{sync::Arc, time::Duration};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{clock::Clock, domain::time::TimestampMs, health::pulse::Pulse};

/// Longest time that a loop rests without looking for work.
const REST_MAX: Duration = Duration::from_secs(5);

/// The bell of a loop, and the loop's pulse: ringing and resting belong together.
#[derive(Debug, Default)]
pub struct Bell {
    notify: Notify,
    /// Whether the loop comes back from what it does.
    pub pulse: Pulse,
}

impl Bell {
    /// Wakes the loop, or has it look again before it rests.
    pub fn notify_one(&self) {
        self.notify.notify_one();
    }
}

/// The bells of the loops that have one.
#[derive(Clone, Debug, Default)]
pub struct Wake {
    /// A job may be decidable.
    pub decide: Arc<Bell>,
    /// A job waits for the read before its decision.
    pub verify: Arc<Bell>,
    /// A decided job waits for an attempt.
    pub send: Arc<Bell>,
    /// A record is to be read back.
    pub resolve: Arc<Bell>,
    /// A message waits in the outbox.
    pub announce: Arc<Bell>,
    /// Old history is to go into the archive now.
    pub archive: Arc<Notify>,
}

impl Wake {
    /// Rings the bells of all loops that carry jobs on.
    pub fn all(&self) {
        for bell in [&self.decide, &self.verify, &self.send, &self.resolve, &self.announce] {
            bell.notify_one();
        }
    }

    /// The pulses of the loops that have a bell, with their names.
    #[must_use]
    pub fn pulses(&self) -> [(&'static str, &Pulse); 5] {
        [
            ("verifier", &self.verify.pulse),
            ("decider", &self.decide.pulse),
            ("feeder", &self.send.pulse),
            ("resolver", &self.resolve.pulse),
            ("announcer", &self.announce.pulse),
        ]
    }
}

/// Why a rest ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rested {
    /// There may be work.
    Work,
    /// The daemon ends.
    Stop,
}

/// Rests until the bell rings, `due` has come, [`REST_MAX`] has passed, or the daemon ends.
pub async fn rest(
    bell: &Bell,
    due: Option<TimestampMs>,
    clock: &dyn Clock,
    stop: &CancellationToken,
) -> Rested {
    let wait = due.map_or(REST_MAX, |due| due.since(clock.now()).min(REST_MAX));
    let _resting = bell.pulse.rest();
    tokio::select! {
        () = stop.cancelled() => Rested::Stop,
        () = bell.notify.notified() => Rested::Work,
        () = tokio::time::sleep(wait) => Rested::Work,
    }
}
