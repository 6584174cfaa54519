//! The writer: the only task that changes the book.
//!
//! SQLite has one writer, so there is one here. It takes what is waiting, lets the steps of the
//! pipeline act on the rows in memory, writes everything in one transaction, commits once, and only
//! then answers. One fsync serves many jobs. A batch that fails is rolled back and run again one
//! command at a time, so that only the culprit suffers.
//!
//! What must never happen here: an answer before the commit; a commit under a time limit or in a
//! `select!`; going on after the disk failed.

mod act;
mod action;
mod batch;
mod command;
mod handle;
mod news;
mod refuse;
mod steps;
#[cfg(test)]
mod tests;

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tokio::{sync::mpsc, time::Instant};
use uuid::Uuid;

use crate::{
    clock::Clock,
    crash,
    domain::schedule::RetryLimits,
    health::Health,
    metrics::Metrics,
    pipeline::{
        book_gate::GateBoard, budget::Budget, decide::Conditions, send::Permitted,
        switches::SwitchBoard, wake::Wake,
    },
    signer::SigningKey,
    store::{Mark, OpenedBook, StoreError, work::Counters},
    traces::Traces,
};
use command::Command;

pub use action::{ACTED_ON_MAX, Acted, JobAction};
pub use batch::WriterError;
pub use handle::{Feeding, Recording, WriterGone, WriterHandle};

/// Commands of a batch from which on the next one waits for company.
const COMPANY_FROM: usize = 8;

/// How long it waits at most.
const COMPANY_WAIT: Duration = Duration::from_millis(3);

/// While decided jobs wait for their first attempt, new jobs have one in so many places of a batch. With more of
/// them, more would come in than leaves, and each that waits costs a commit more; with none, a large backlog
/// would keep them out until it is gone.
const PLACES_PER_NEW_JOB: usize = 4;

/// What the writer works with.
pub struct WriterParts {
    /// The book, open for changes.
    pub book: OpenedBook,
    /// The key that signs; without one nothing is decided, prepared or signed.
    pub signing: Option<Signing>,
    /// Whether an operator's word may decide without a key: a command that holds the book itself, and
    /// has seen that the book is not behind what was signed, leaves the signing to the daemon.
    pub decides_without_key: bool,
    /// What may be asked of OES, where something is.
    pub budget: Option<Arc<Budget>>,
    /// Where it is noted how far the book has signed.
    pub mark: Option<Mark>,
    /// The bounds of retrying.
    pub limits: RetryLimits,
    /// When a job may be decided.
    pub conditions: Conditions,
    /// Whether the book is far enough for that.
    pub gate: GateBoard,
    /// How long an operator's word about the end of a record can be confirmed by another one.
    pub close_within: Duration,
    /// Most commands that share a commit.
    pub batch_max: usize,
    /// Most commands that wait.
    pub queue_len_max: usize,
    /// How long a change that nobody waits for may wait for company.
    pub lazy: Duration,
    /// The bells of the loops.
    pub wake: Wake,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Where steps are told.
    pub traces: Traces,
    /// Where it is said how long a batch has been at it.
    pub health: Arc<Health>,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

/// The key, and where signed attempts go.
pub struct Signing {
    /// The key.
    pub key: Arc<SigningKey>,
    /// What may be sent at once.
    pub budget: Arc<Budget>,
    /// To the sender.
    pub sends: mpsc::UnboundedSender<Permitted>,
}

/// The writer's state.
pub struct Writer {
    book: crate::store::WriteConnection,
    counters: Counters,
    key_id: i64,
    signing: Option<Signing>,
    budget: Option<Arc<Budget>>,
    ledger: Uuid,
    mark: Option<Mark>,
    limits: RetryLimits,
    conditions: Conditions,
    gate: GateBoard,
    decides_without_key: bool,
    batch_max: usize,
    lazy: Duration,
    wake: Wake,
    metrics: Arc<Metrics>,
    traces: Traces,
    health: Arc<Health>,
    clock: Arc<dyn Clock>,
    commands: mpsc::Receiver<Command>,
    switches: SwitchBoard,
    close_within: Duration,
    /// Whether decided jobs wait for their first attempt: later ones then wait behind them.
    first_attempts_wait: bool,
    /// How many were left to wait for it since attempts were prepared last.
    deferred_since: usize,
    /// New jobs that later batches take in, in the order of their coming. Whoever brought one waits for it, so
    /// they are as few as messages may be under way.
    held_back: VecDeque<Command>,
    /// Commands of the last batch.
    last_batch_len: usize,
}

impl Writer {
    /// A writer, and the handle that reaches it. Attempts that were under way when the last writer
    /// ended are marked: they may have left.
    ///
    /// # Errors
    /// [`StoreError`] when the book cannot be prepared.
    pub async fn new(parts: WriterParts) -> Result<(Self, WriterHandle), StoreError> {
        let OpenedBook { mut writer, counters, ledger_uuid } = parts.book;
        let now = parts.clock.now();
        crash::point("book_opened");
        let mut key_id = 0;
        if let Some(signing) = &parts.signing {
            key_id = writer.signing_key(&signing.key.public_key(), now).await?;
        }
        // Whoever opens the book next finds them; a command that only brings facts leaves them alone.
        if parts.budget.is_some() {
            let doubted = writer.doubt_open_attempts(now).await?;
            if doubted > 0 {
                tracing::warn!(
                    attempts = doubted,
                    "attempts were under way when the daemon last ended: their records are read back"
                );
            }
        }
        let latest = now.after(parts.limits.longest_delay());
        let brought = writer.bring_forward(latest).await?;
        if brought > 0 {
            tracing::warn!(
                jobs = brought,
                "steps were scheduled by a clock that was ahead of this one: they are due sooner now"
            );
        }
        crash::point("attempts_doubted");
        let first_attempts_wait = writer.has_first_attempts_waiting().await?;
        let switches = SwitchBoard::new(writer.switches().await?);
        let journal = writer.journal_head().await?;
        tracing::info!(ledger = %ledger_uuid, %journal, "the book is open");
        let (handle, commands) = mpsc::channel(parts.queue_len_max);
        let writer = Self {
            book: writer,
            counters,
            key_id,
            signing: parts.signing,
            budget: parts.budget,
            ledger: ledger_uuid,
            mark: parts.mark,
            limits: parts.limits,
            conditions: parts.conditions,
            gate: parts.gate,
            decides_without_key: parts.decides_without_key,
            batch_max: parts.batch_max,
            lazy: parts.lazy,
            wake: parts.wake,
            metrics: parts.metrics,
            traces: parts.traces,
            health: parts.health,
            clock: parts.clock,
            commands,
            switches,
            close_within: parts.close_within,
            first_attempts_wait,
            deferred_since: 0,
            held_back: VecDeque::new(),
            last_batch_len: 0,
        };
        let (switches, gate) = (writer.switches.clone(), writer.gate.clone());
        let handle = WriterHandle { commands: handle, switches, gate };
        Ok((writer, handle))
    }

    /// Under load, waits a little for more commands, because a commit costs the same for one and for many.
    /// The last batch tells of the load: where it was small, nobody waits, and neither does a batch that has
    /// half as many commands already.
    async fn wait_for_company(&mut self, batch: &mut Vec<Command>) {
        let enough = self.last_batch_len.min(self.batch_max);
        self.last_batch_len = batch.len();
        let here = batch.len().saturating_add(self.held_back.len());
        if enough < COMPANY_FROM || here >= enough.div_euclid(2) {
            return;
        }
        let over = tokio::time::sleep(COMPANY_WAIT);
        tokio::pin!(over);
        let most = self.most_taken();
        while batch.len() < most {
            tokio::select! {
                biased;
                command = self.commands.recv() => match command {
                    Some(command) => batch.push(command),
                    None => break,
                },
                () = &mut over => break,
            }
        }
        self.last_batch_len = batch.len();
    }

    /// The places of a batch that new jobs have, and no others, while jobs wait for their first attempt; none in
    /// a batch that is too small to be shared.
    fn places_for_new_jobs(&self) -> usize {
        if self.first_attempts_wait { self.batch_max.div_euclid(PLACES_PER_NEW_JOB) } else { 0 }
    }

    /// Most commands that are taken from the queue for a batch.
    fn most_taken(&self) -> usize {
        self.batch_max.saturating_sub(self.places_for_new_jobs())
    }

    /// Leaves new jobs to later batches while others wait for their first attempt; once none does, brings those
    /// that were left, before all that came after them.
    fn hold_back(&mut self, batch: &mut Vec<Command>) {
        let places = self.places_for_new_jobs();
        if places == 0 && self.held_back.is_empty() {
            return;
        }
        let (new_jobs, others): (Vec<_>, Vec<_>) =
            batch.drain(..).partition(|command| matches!(command, Command::Record { .. }));
        self.held_back.extend(new_jobs);
        batch.extend(others);
        let room = self.batch_max.saturating_sub(batch.len());
        let most = if places == 0 { room } else { places };
        let taken = self.held_back.len().min(room).min(most);
        batch.extend(self.held_back.drain(..taken));
    }

    /// Works until every handle is gone, then closes the book.
    ///
    /// # Errors
    /// [`WriterError`] when the book cannot be changed any more; the process must end.
    pub async fn run(mut self) -> Result<(), WriterError> {
        let mut lazy: Vec<Command> = Vec::new();
        let mut lazy_since: Option<Instant> = None;
        loop {
            let mut batch = Vec::new();
            if self.held_back.is_empty() {
                let next = match lazy_since {
                    None => self.commands.recv().await,
                    Some(since) => {
                        let until = since.checked_add(self.lazy).unwrap_or(since);
                        let Ok(next) = tokio::time::timeout_at(until, self.commands.recv()).await
                        else {
                            // They waited long enough for company.
                            lazy_since = None;
                            self.execute(std::mem::take(&mut lazy)).await?;
                            continue;
                        };
                        next
                    }
                };
                let Some(first) = next else { break };
                batch.push(first);
            }
            while batch.len() < self.most_taken() {
                let Ok(command) = self.commands.try_recv() else {
                    break;
                };
                batch.push(command);
            }
            self.wait_for_company(&mut batch).await;
            self.hold_back(&mut batch);
            let someone_waits = batch.iter().any(|command| !command.is_lazy());
            lazy.append(&mut batch);
            if someone_waits || lazy.len() >= self.batch_max {
                lazy_since = None;
                self.execute(std::mem::take(&mut lazy)).await?;
            } else if lazy_since.is_none() {
                lazy_since = Some(Instant::now());
            }
        }
        if !lazy.is_empty() {
            self.execute(lazy).await?;
        }
        let journal = self.book.journal_head().await.map_err(WriterError::Store)?;
        self.book.close().await.map_err(WriterError::Store)?;
        tracing::info!(ledger = %self.ledger, %journal, "the book is closed");
        Ok(())
    }
}
