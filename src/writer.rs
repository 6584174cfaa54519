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
mod news;
mod refuse;

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use crate::{
    clock::Clock,
    crash,
    domain::{
        action::{Operator, Switch},
        book::BookEvent,
        ids::{ConnectionId, JobSeq, OutboxSeq, QuarantineSeq, RecordId},
        schedule::RetryLimits,
    },
    health::Health,
    metrics::Metrics,
    pipeline::{
        accept::SnapshotAcceptance,
        book_gate::GateBoard,
        budget::{Budget, SendPermit},
        confirm::Reply,
        decide::Conditions,
        feed::FedEvent,
        read::ReadResult,
        record::{Intake, Recorded},
        send::Permitted,
        switches::SwitchBoard,
        verify::FirstRead,
        wake::Wake,
    },
    signer::SigningKey,
    store::{
        Mark, OpenedBook, StoreError,
        alerts::AlertUpdate,
        archive::Removal,
        runs::FinishedRun,
        work::{BadMessage, BookEventOutcome, Counters},
    },
};
use command::{Acts, Command};
use uuid::Uuid;

pub use action::{ACTED_ON_MAX, Acted, JobAction};
pub use batch::WriterError;

/// The writer has ended: nothing more is committed by this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the writer has ended")]
pub struct WriterGone;

/// What became of a message that was to be recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recording {
    /// It is committed.
    Recorded(Recorded),
    /// The book cannot hold it; this is why.
    Refused(String),
}

/// What became of an event of the feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Feeding {
    /// It is committed, or its message is in quarantine.
    Taken(BookEventOutcome),
    /// The book cannot hold it; this is why.
    Refused(String),
}

/// Sends commands to the writer.
#[derive(Clone, Debug)]
pub struct WriterHandle {
    commands: mpsc::Sender<Command>,
    switches: SwitchBoard,
    gate: GateBoard,
}

impl WriterHandle {
    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, WriterGone> {
        let (answer, answered) = oneshot::channel();
        self.commands.send(command(answer)).await.map_err(|_| WriterGone)?;
        answered.await.map_err(|_| WriterGone)
    }

    /// Records a message; the answer comes once it is committed. Waiting for the place in the queue
    /// and waiting for the answer are two things, so that many messages share a commit.
    ///
    /// # Errors
    /// [`WriterGone`].
    pub async fn record(&self, intake: Intake) -> Result<oneshot::Receiver<Recording>, WriterGone> {
        let (answer, answered) = oneshot::channel();
        self.commands
            .send(Command::Record { intake: Box::new(intake), record_only: false, answer })
            .await
            .map_err(|_| WriterGone)?;
        Ok(answered)
    }

    /// Puts a bad message away; the answer comes once it is committed.
    ///
    /// # Errors
    /// [`WriterGone`].
    pub async fn quarantine(
        &self,
        message: BadMessage,
    ) -> Result<oneshot::Receiver<()>, WriterGone> {
        let (answer, answered) = oneshot::channel();
        self.commands
            .send(Command::Quarantine { message: Box::new(message), answer })
            .await
            .map_err(|_| WriterGone)?;
        Ok(answered)
    }

    /// Decides jobs that waited, at most `limit`.
    ///
    /// # Errors
    /// [`WriterGone`].
    pub async fn decide_due(&self, limit: usize) -> Result<(), WriterGone> {
        self.ask(|answer| Command::DecideDue { limit, answer }).await
    }

    /// Prepares attempts that are due, at most one a permit, and has them sent.
    ///
    /// # Errors
    /// [`WriterGone`].
    pub async fn prepare(&self, permits: Vec<SendPermit>) -> Result<(), WriterGone> {
        self.ask(|answer| Command::Prepare { permits, answer }).await
    }

    /// Stores the answer to an attempt and carries out what it means.
    ///
    /// # Errors
    /// [`WriterGone`].
    pub async fn finish(&self, reply: Reply) -> Result<(), WriterGone> {
        self.ask(|answer| Command::Finish { reply: Box::new(reply), answer }).await
    }

    /// Carries out what reads mean.
    ///
    /// # Errors
    /// [`WriterGone`].
    pub async fn settle_reads(&self, results: Vec<(JobSeq, ReadResult)>) -> Result<(), WriterGone> {
        self.ask(|answer| Command::SettleReads { results, answer }).await
    }

    /// Carries out what reads of undecided jobs' records mean; `queue` is where their messages came from.
    ///
    /// # Errors
    /// [`WriterGone`].
    pub async fn settle_first_reads(
        &self,
        reads: Vec<FirstRead>,
        queue: String,
    ) -> Result<(), WriterGone> {
        self.ask(|answer| Command::SettleFirstReads { reads, queue, answer }).await
    }

    /// Notes messages that the broker has confirmed. Nobody waits for it: it is committed with the
    /// next batch, or alone after a while, and a crash before that repeats messages with their ids.
    ///
    /// # Errors
    /// [`WriterGone`].
    pub async fn published(&self, messages: Vec<OutboxSeq>) -> Result<(), WriterGone> {
        self.commands.send(Command::Published { messages }).await.map_err(|_| WriterGone)
    }

    /// Takes facts of the exchange into the book, all of them or, if one cannot be held, none.
    ///
    /// # Errors
    /// [`WriterGone`].
    pub async fn apply_book_events(
        &self,
        events: Vec<BookEvent>,
        source: String,
    ) -> Result<Result<Vec<BookEventOutcome>, String>, WriterGone> {
        self.ask(|answer| Command::ApplyBook { events, source, answer }).await
    }

    /// Carries out an operator's action on jobs, at most [`ACTED_ON_MAX`] of them, in one transaction.
    /// Answers what became of each, in their order.
    ///
    /// # Errors
    /// [`WriterGone`].
    pub async fn act(
        &self,
        action: JobAction,
        records: Vec<RecordId>,
        by: Operator,
    ) -> Result<Vec<(RecordId, Acted)>, WriterGone> {
        let acts = Acts { action, records, by };
        self.ask(|answer| Command::Act { acts, answer }).await
    }

    /// Puts a quarantined message back in; if the book cannot hold it, it stays where it is, and the answer
    /// says why.
    ///
    /// # Errors
    /// [`WriterGone`].
    pub async fn requeue(
        &self,
        message: QuarantineSeq,
        intake: Intake,
        by: Operator,
    ) -> Result<Result<Recorded, String>, WriterGone> {
        let intake = Box::new(intake);
        self.ask(|answer| Command::Requeue { message, intake, by, record_only: false, answer })
            .await
    }

    /// Sets a switch. Answers whether that changed anything.
    ///
    /// # Errors
    /// [`WriterGone`].
    pub async fn set_switch(
        &self,
        switch: Switch,
        on: bool,
        by: Operator,
    ) -> Result<Result<bool, String>, WriterGone> {
        self.ask(|answer| Command::SetSwitch { switch, on, by, answer }).await
    }

    /// Takes one event of the feed into the book; the answer comes once it is committed. As with
    /// [`Self::record`], many events share a commit.
    ///
    /// # Errors
    /// [`WriterGone`].
    pub async fn feed(&self, fed: FedEvent) -> Result<oneshot::Receiver<Feeding>, WriterGone> {
        let (answer, answered) = oneshot::channel();
        self.commands
            .send(Command::Feed { fed: Box::new(fed), answer })
            .await
            .map_err(|_| WriterGone)?;
        Ok(answered)
    }

    /// Accepts the book of some connections as the exchange states it, in one transaction.
    ///
    /// # Errors
    /// [`WriterGone`].
    pub async fn accept_snapshots(
        &self,
        connections: Vec<ConnectionId>,
        by: Operator,
    ) -> Result<Result<Vec<SnapshotAcceptance>, String>, WriterGone> {
        self.ask(|answer| Command::AcceptSnapshots { connections, by, answer }).await
    }

    /// The gate before decisions.
    #[must_use]
    pub fn gate(&self) -> GateBoard {
        self.gate.clone()
    }

    /// What operators have switched off, as committed.
    #[must_use]
    pub fn switches(&self) -> SwitchBoard {
        self.switches.clone()
    }

    /// Removes rows that are in an archive, all of them or, if anything is not as it was copied, none.
    ///
    /// # Errors
    /// [`WriterGone`].
    pub async fn archive(&self, removal: Removal) -> Result<Result<(), String>, WriterGone> {
        self.ask(|answer| Command::Archive { removal: Box::new(removal), answer }).await
    }

    /// Writes a comparison with OES down.
    ///
    /// # Errors
    /// [`WriterGone`].
    pub async fn note_run(&self, run: FinishedRun) -> Result<Result<(), String>, WriterGone> {
        self.ask(|answer| Command::NoteRun { run: Box::new(run), answer }).await
    }

    /// Writes down what has become of alerts. With nothing to write, the answer tells that the writer has
    /// the database and works.
    ///
    /// # Errors
    /// [`WriterGone`].
    pub async fn note_alerts(&self, update: AlertUpdate) -> Result<Result<(), String>, WriterGone> {
        self.ask(|answer| Command::NoteAlerts { update: Box::new(update), answer }).await
    }

    /// Prepares nothing any more, so that the sender can come to its end.
    ///
    /// # Errors
    /// [`WriterGone`].
    pub async fn stop_preparing(&self) -> Result<(), WriterGone> {
        self.ask(|answer| Command::StopPreparing { answer }).await
    }
}

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
    /// Where it is said how long a batch has been at it.
    pub health: Arc<Health>,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

/// The key, and where signed attempts go.
pub struct Signing {
    /// The key.
    pub key: SigningKey,
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
    health: Arc<Health>,
    clock: Arc<dyn Clock>,
    commands: mpsc::Receiver<Command>,
    switches: SwitchBoard,
    close_within: Duration,
    /// Whether decided jobs wait for their first attempt: later ones then wait behind them.
    first_attempts_wait: bool,
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
            health: parts.health,
            clock: parts.clock,
            commands,
            switches,
            close_within: parts.close_within,
            first_attempts_wait,
        };
        let (switches, gate) = (writer.switches.clone(), writer.gate.clone());
        let handle = WriterHandle { commands: handle, switches, gate };
        Ok((writer, handle))
    }

    /// Works until every handle is gone, then closes the book.
    ///
    /// # Errors
    /// [`WriterError`] when the book cannot be changed any more; the process must end.
    pub async fn run(mut self) -> Result<(), WriterError> {
        let mut lazy: Vec<Command> = Vec::new();
        let mut lazy_since: Option<Instant> = None;
        loop {
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
            let mut batch = vec![first];
            while batch.len() < self.batch_max {
                let Ok(command) = self.commands.try_recv() else {
                    break;
                };
                batch.push(command);
            }
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
