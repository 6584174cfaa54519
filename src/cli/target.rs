//! Where changes go that a command asks for: into the book, or to the daemon that holds it.

use std::{sync::Arc, time::Duration};

use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

use crate::{
    book_file::FileEvent,
    clock::{Clock, SystemClock},
    compare::{
        Desk,
        ask::Asker,
        reconcile::{ReconcileReport, ReconcileRequest},
        sync::{SyncReport, SyncRequest},
    },
    config::Config,
    control::{Caller, ControlClient},
    domain::{
        action::{Operator, Switch},
        ids::{ConnectionId, QuarantineSeq, RecordId},
        lag::BookGate,
    },
    metrics::Metrics,
    oes::OesClient,
    operator::operations::{OperationError, Operations, Requeueing},
    pipeline::{
        accept::SnapshotAcceptance, book_gate::GateBoard, budget::Budget, decide::Conditions,
        wake::Wake,
    },
    store::{
        Mark, OpenedBook,
        lock::{BookLock, LockError, socket_path},
        mark::Standing,
        open_readers, open_writer,
        work::BookEventOutcome,
    },
    tally::Tally,
    traces::Traces,
    writer::{Acted, JobAction, Writer, WriterHandle, WriterParts},
};

/// Why a comparison is made that a command asks for, where the command says no more.
const ASKED_FOR: &str = "asked for on the command line";

pub(super) enum Target {
    Book {
        operations: Operations,
        caller: Caller,
        done: JoinHandle<anyhow::Result<()>>,
        _lock: BookLock,
    },
    Daemon {
        client: ControlClient,
        holder: String,
    },
}

impl Target {
    /// Takes the book's lock for `purpose`, or finds the daemon that has it.
    pub(super) async fn open(
        config: &Config,
        purpose: &str,
        caller: &Caller,
    ) -> anyhow::Result<Self> {
        let path = &config.store.path;
        let lock = match BookLock::take(path, purpose) {
            Ok(lock) => lock,
            Err(LockError::Held { holder, .. }) => {
                let caller = caller.clone();
                return Ok(Self::Daemon {
                    client: ControlClient::new(&socket_path(path)?, caller)?,
                    holder,
                });
            }
            Err(error) => return Err(error.into()),
        };
        let book = open_writer(path, SystemClock.now()).await?;
        let decides_without_key = is_up_to_date(config, &book);
        let (writer, handle) = Writer::new(WriterParts {
            book,
            signing: None,
            decides_without_key,
            budget: None,
            mark: None,
            limits: config.retry.limits(),
            conditions: Conditions { grace: Duration::ZERO, ..config.conditions() },
            gate: gate_of(config),
            close_within: Duration::from_secs(config.operator.confirm_within_s),
            batch_max: config.writer.batch_max,
            queue_len_max: config.writer.queue_len_max,
            lazy: Duration::ZERO,
            wake: Wake::default(),
            metrics: Arc::new(Metrics::new()),
            traces: Traces::default(),
            health: Arc::default(),
            clock: Arc::new(SystemClock),
        })
        .await?;
        let done = TaskTracker::new().spawn(async move { Ok(writer.run().await?) });
        let readers = open_readers(path).await?;
        let operations = Operations { readers, writer: handle, desk: None };
        Ok(Self::Book { operations, caller: caller.clone(), done, _lock: lock })
    }

    /// Whose book it is, for a sentence.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Book { .. } => "the book",
            Self::Daemon { .. } => "the daemon's book",
        }
    }

    /// Takes facts in, all together. `source` says where they come from.
    pub(super) async fn apply(
        &mut self,
        source: &str,
        events: &[FileEvent],
    ) -> anyhow::Result<Vec<BookEventOutcome>> {
        match self {
            Self::Book { operations, done, caller, .. } => {
                let events = events.iter().map(|event| event.event.clone()).collect();
                let source = format!("{source} by {}", caller.who);
                match operations.writer.apply_book_events(events, source).await {
                    Ok(applied) => applied.map_err(|reason| anyhow::anyhow!(reason)),
                    Err(gone) => Err(why_gone(done, gone.into()).await),
                }
            }
            Self::Daemon { client, holder } => {
                let events: Vec<String> = events.iter().map(|event| event.text.clone()).collect();
                let applied = client.apply_book_events(source, &events).await;
                applied.map_err(|error| held_by(holder, error))
            }
        }
    }

    /// Compares connections and currencies with OES.
    pub(super) async fn sync(
        &mut self,
        config: &Config,
        request: &SyncRequest,
    ) -> anyhow::Result<SyncReport> {
        match self {
            Self::Book { operations, .. } => {
                Ok(desk(config, &operations.writer).await?.sync(request).await?)
            }
            Self::Daemon { client, holder } => {
                let compared = client.sync(request, ASKED_FOR).await;
                compared.map_err(|error| held_by(holder, error))
            }
        }
    }

    /// Compares jobs and balances with OES. What a daemon does is not counted here.
    pub(super) async fn reconcile(
        &mut self,
        config: &Config,
        request: &ReconcileRequest,
        tally: &Tally,
    ) -> anyhow::Result<ReconcileReport> {
        match self {
            Self::Book { operations, .. } => {
                Ok(desk(config, &operations.writer).await?.reconcile(request, tally).await?)
            }
            Self::Daemon { client, holder } => {
                let compared = client.reconcile(request, ASKED_FOR).await;
                compared.map_err(|error| held_by(holder, error))
            }
        }
    }

    /// Carries an action out on jobs, no more than go together in one request.
    pub(super) async fn act(
        &mut self,
        action: JobAction,
        records: &[RecordId],
        by: &Operator,
    ) -> anyhow::Result<Vec<(RecordId, Acted)>> {
        match self {
            Self::Book { operations, done, .. } => {
                match operations.act(action, records, by).await {
                    Ok(acted) => Ok(acted),
                    Err(error) => Err(why_gone(done, error).await),
                }
            }
            Self::Daemon { client, holder } => {
                let acted = client.act(action, records, by).await;
                acted.map_err(|error| held_by(holder, error))
            }
        }
    }

    /// Puts a quarantined message back in.
    pub(super) async fn requeue(
        &mut self,
        message: QuarantineSeq,
        by: &Operator,
    ) -> anyhow::Result<Requeueing> {
        match self {
            Self::Book { operations, done, .. } => match operations.requeue(message, by).await {
                Ok(requeued) => Ok(requeued),
                Err(error) => Err(why_gone(done, error).await),
            },
            Self::Daemon { client, holder } => {
                let requeued = client.requeue(message, &by.reason).await;
                requeued.map_err(|error| held_by(holder, error))
            }
        }
    }

    /// Sets a switch. Answers whether that changed anything.
    pub(super) async fn set_switch(
        &mut self,
        switch: Switch,
        on: bool,
        by: &Operator,
    ) -> anyhow::Result<bool> {
        match self {
            Self::Book { operations, done, .. } => {
                match operations.set_switch(switch, on, by).await {
                    Ok(changed) => Ok(changed),
                    Err(error) => Err(why_gone(done, error).await),
                }
            }
            Self::Daemon { client, holder } => {
                let set = client.set_switch(switch, on, &by.reason).await;
                set.map_err(|error| held_by(holder, error))
            }
        }
    }

    /// Accepts connections as the exchange states them.
    pub(super) async fn accept_snapshots(
        &mut self,
        connections: &[ConnectionId],
        by: &Operator,
    ) -> anyhow::Result<Vec<SnapshotAcceptance>> {
        match self {
            Self::Book { operations, done, .. } => {
                let asked = operations.writer.accept_snapshots(connections.to_vec(), by.clone());
                match asked.await {
                    Ok(accepted) => accepted.map_err(|reason| anyhow::anyhow!(reason)),
                    Err(gone) => Err(why_gone(done, gone.into()).await),
                }
            }
            Self::Daemon { client, holder } => {
                let accepted = client.accept_snapshots(connections, &by.reason).await;
                accepted.map_err(|error| held_by(holder, error))
            }
        }
    }

    /// Commits what is left and gives the book back.
    pub(super) async fn close(self) -> anyhow::Result<()> {
        match self {
            Self::Book { operations, done, _lock, .. } => {
                // Readers go first, so that the writer's close copies the whole log into the database.
                operations.readers.close().await;
                drop(operations);
                done.await?
            }
            Self::Daemon { .. } => Ok(()),
        }
    }
}

/// The gate before decisions where nobody consumes the feed: how far the book is cannot be told.
fn gate_of(config: &Config) -> GateBoard {
    match config.broker.book_queue {
        None => GateBoard::without_feed(),
        Some(_) => {
            GateBoard::new(BookGate::before_feed(config.book.lag_max(), Duration::ZERO, None))
        }
    }
}

/// Whether the book has everything that was signed, as far as a mark can tell. Nothing may be decided in
/// one that was restored from a backup and is not accepted.
fn is_up_to_date(config: &Config, book: &OpenedBook) -> bool {
    // A mark that is not there is not made here: that is for the daemon.
    let Some(path) = config.store.mark_path.as_deref().filter(|path| path.exists()) else {
        return true;
    };
    // Whoever only brings facts has no need of a mark that can be read; `settled doctor` says what is
    // wrong with it.
    Mark::open(path).is_ok_and(|mark| {
        let standing = mark.standing(book.ledger_uuid, book.counters.last_attempt());
        standing == Standing::Fits
    })
}

/// What comparisons work with when there is no daemon.
async fn desk(config: &Config, writer: &WriterHandle) -> anyhow::Result<Desk> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let oes = Arc::new(OesClient::new(&config.oes, Arc::clone(&clock))?);
    let budget = Arc::new(Budget::new(&config.oes, Arc::clone(&clock)));
    Ok(Desk {
        asker: Asker::alone(oes, budget),
        readers: open_readers(&config.store.path).await?,
        writer: writer.clone(),
        metrics: Arc::new(Metrics::new()),
        clock,
        sweep_age: Duration::from_secs(config.reconcile.sweep_age_s),
        compare_balances: config.reconcile.balances,
        amounts: config.oes.amounts,
        at_work: tokio::sync::Mutex::default(),
    })
}

/// What ended the writer, rather than that it has ended.
async fn why_gone(
    done: &mut JoinHandle<anyhow::Result<()>>,
    error: OperationError,
) -> anyhow::Error {
    if !matches!(error, OperationError::Gone(_)) {
        return error.into();
    }
    match done.await {
        Ok(Err(error)) => error,
        Ok(Ok(())) => error.into(),
        Err(panic) => panic.into(),
    }
}

fn held_by(holder: &str, error: impl Into<anyhow::Error>) -> anyhow::Error {
    error.into().context(format!("the book is held by {holder}"))
}
