//! What the service manager is told: ready, ending, and, again and again, that the daemon works. The last is
//! said only if the writer has answered and no loop is stuck, so that a daemon which merely runs is
//! started anew.

use std::{future::Future, pin::Pin, thread, time::Duration};

use sd_notify::NotifyState;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    health::Checks,
    store::alerts::AlertUpdate,
    writer::{WriterGone, WriterHandle},
};

/// How often it is told within the time that the service manager gives.
const TIMES_IN_LIMIT: u32 = 3;

/// The writer's answer to a question without content.
type Answer = Pin<Box<dyn Future<Output = Result<Result<(), String>, WriterGone>> + Send>>;

/// Tells the service manager something; without one, nobody.
pub(crate) fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "the service manager cannot be told how the daemon is");
    }
}

/// Looks for stuck parts.
pub(super) struct Watchdog {
    pub(super) checks: Checks,
    pub(super) writer: WriterHandle,
    asked: Option<(Answer, Instant)>,
    telling: Option<thread::JoinHandle<()>>,
}

impl Watchdog {
    pub(super) fn new(checks: Checks, writer: WriterHandle) -> Self {
        Self { checks, writer, asked: None, telling: None }
    }

    /// Tells the service manager that the daemon works, as long as it does; without a watchdog there,
    /// waits for the end.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let Some(limit) = sd_notify::watchdog_enabled() else {
            stop.cancelled().await;
            return;
        };
        let every =
            limit.checked_div(TIMES_IN_LIMIT).unwrap_or(limit).max(Duration::from_millis(1));
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut logged, mut told) = (false, false);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            match self.stuck(every).await {
                None => {
                    self.tell_apart(|| tell(&[NotifyState::Watchdog]));
                    (logged, told) = (false, false);
                }
                Some(reason) => {
                    if logged {
                        tracing::debug!(reason, "a part is still stuck");
                    } else {
                        tracing::error!(
                            reason,
                            "a part is stuck: the service manager is not told any more that the daemon works"
                        );
                        logged = true;
                    }
                    // The last word may still be on its way; then this one is said the next time.
                    told = told || self.tell_apart(move || tell(&[NotifyState::Status(&reason)]));
                }
            }
        }
    }

    /// Tells something from a thread of its own, if that of the last time has ended: a service manager that
    /// does not listen would hold up whoever tells it. Answers whether it is told.
    fn tell_apart(&mut self, say: impl FnOnce() + Send + 'static) -> bool {
        let is_free = self.telling.as_ref().is_none_or(thread::JoinHandle::is_finished);
        if is_free {
            self.telling = Some(thread::spawn(say));
        }
        is_free
    }

    /// What is stuck, if anything is. The writer is asked, and has until next time to answer.
    async fn stuck(&mut self, wait: Duration) -> Option<String> {
        if let Some(reason) = self.checks.stuck() {
            return Some(reason);
        }
        let writer = self.writer.clone();
        let (answer, since) = self.asked.get_or_insert_with(|| {
            let ask = async move { writer.note_alerts(AlertUpdate::default()).await };
            (Box::pin(ask), Instant::now())
        });
        match tokio::time::timeout(wait, answer).await {
            Ok(_answered) => {
                self.asked = None;
                None
            }
            Err(_) if since.elapsed() < self.checks.stuck_after => None,
            Err(_) => {
                Some(format!("the writer has not answered for {} s", since.elapsed().as_secs()))
            }
        }
    }
}
