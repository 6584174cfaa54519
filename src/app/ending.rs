//! The end of the daemon: every part in the order in which work flows, within the grace.

use std::time::Duration;

use anyhow::anyhow;
use tokio::task::JoinError;

use super::{App, Stage};

/// Share of the grace in which parts may end by themselves; the rest is the writer's.
const GENTLE_SHARE: f64 = 0.8;

/// How long the writer's own failure is waited for when another part has noticed it first.
const REASON_WAIT: Duration = Duration::from_secs(2);

/// How a part's task ended.
type Ended = Result<anyhow::Result<()>, JoinError>;

impl App {
    /// Runs until [`App::stop_token`] is cancelled or a part fails, then ends every part in order,
    /// within the grace.
    ///
    /// # Errors
    /// The failure of the part that brought the daemon down.
    pub async fn run(mut self) -> anyhow::Result<()> {
        let stop = self.stop.clone();
        // Asked to end, every part ends: that none ended unasked is only known if the asking is looked at
        // first. Nothing is taken out of the list of parts in here, because what is not chosen is dropped.
        let ended = tokio::select! {
            biased;
            () = stop.cancelled() => None,
            ended = self.first_end() => Some(ended),
        };
        let failed = match ended {
            Some((index, result)) => Some(self.failure(index, result).await),
            None => None,
        };
        if let Some(failure) = &failed {
            tracing::error!(error = format!("{failure:#}"), "a part of the daemon failed: it ends");
        }
        self.stop.cancel();
        let gentle = self.grace.mul_f64(GENTLE_SHARE);
        let hard = self.grace.saturating_sub(gentle);
        if tokio::time::timeout(gentle, self.end()).await.is_err() {
            tracing::warn!(
                "the grace is nearly over: what is in flight is left to the next start, which reads \
                 it back"
            );
            self.abandon(hard).await;
        }
        // Whoever started the daemon must see that its last commit or copy failed.
        failed.or(self.failed_ending.take()).map_or(Ok(()), Err)
    }

    /// Waits until any part ends, which none does by itself. Answers which, and how.
    async fn first_end(&mut self) -> (usize, Ended) {
        let tasks = self.parts.iter_mut().map(|part| &mut part.task);
        let (ended, index, _others) = futures_util::future::select_all(tasks).await;
        (index, ended)
    }

    /// Why a part ended that was not asked to. It is no longer waited for.
    async fn failure(&mut self, index: usize, ended: Ended) -> anyhow::Error {
        let part = self.parts.swap_remove(index);
        match ended {
            Ok(Ok(())) => self.why_ended(part.name).await,
            Ok(Err(error)) => error.context(format!("the {} failed", part.name)),
            Err(panic) => anyhow!("the {} panicked: {panic}", part.name),
        }
    }

    /// A part that ends by itself has lost the writer, whose own failure is then the reason.
    async fn why_ended(&mut self, name: &'static str) -> anyhow::Error {
        let unasked = anyhow!("the {name} ended without being asked");
        let writer = self.parts.iter().position(|part| part.stage == Stage::Writing);
        let Some(index) = writer else { return unasked };
        let mut part = self.parts.swap_remove(index);
        match tokio::time::timeout(REASON_WAIT, &mut part.task).await {
            Ok(Ok(Err(error))) => error.context("the writer failed"),
            Ok(Err(panic)) => anyhow!("the writer panicked: {panic}"),
            Ok(Ok(Ok(()))) => unasked,
            Err(_) => {
                self.parts.push(part);
                unasked
            }
        }
    }

    /// Ends the parts in the order in which work flows through them.
    async fn end(&mut self) {
        tracing::info!("ending: no new work is taken");
        self.join(Stage::Intake).await;
        // Nothing can be prepared any more, so the sender ends with what is in flight.
        if let Some(writer) = &self.writer
            && writer.stop_preparing().await.is_ok()
        {
            self.join(Stage::Sending).await;
        }
        self.stop_last.cancel();
        self.join(Stage::Serving).await;
        // Readers go first, so that the writer's close copies the whole log into the database.
        self.readers.close().await;
        // The last handle is ours: without it the writer commits what is left and ends.
        self.writer = None;
        self.join(Stage::Writing).await;
        self.stop_traces.cancel();
        self.join(Stage::Tracing).await;
        tracing::info!("ended");
    }

    /// Ends at once what has not ended yet, and lets the writer finish its commit.
    async fn abandon(&mut self, limit: Duration) {
        self.stop_last.cancel();
        self.writer = None;
        for part in self.parts.iter().filter(|part| part.stage != Stage::Writing) {
            part.task.abort();
        }
        // A commit is never interrupted by us; if it takes longer than this, the process ends in it,
        // as in a crash, and the next start finds it done or undone.
        if tokio::time::timeout(limit, self.join(Stage::Writing)).await.is_err() {
            tracing::warn!("the writer has not ended in time");
        }
    }

    async fn join(&mut self, stage: Stage) {
        while let Some(index) = self.parts.iter().position(|part| part.stage == stage) {
            let Some(part) = self.parts.get_mut(index) else {
                return;
            };
            let name = part.name;
            let failure = match (&mut part.task).await {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.context(format!("the {name} failed while ending"))),
                Err(error) if error.is_cancelled() => None,
                Err(panic) => Some(anyhow!("the {name} panicked while ending: {panic}")),
            };
            if let Some(error) = failure {
                tracing::error!(
                    error = format!("{error:#}"),
                    "a part of the daemon did not end well"
                );
                self.failed_ending.get_or_insert(error);
            }
            self.parts.swap_remove(index);
        }
    }
}
