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
    control::ControlClient,
    domain::{ids::RecordId, policy::OperatorWord},
    metrics::Metrics,
    oes::OesClient,
    pipeline::{
        approve::Approval,
        budget::Budget,
        decide::Conditions,
        send_on::{Operator, SentOn},
        wake::Wake,
    },
    store::{
        Mark, OpenedBook,
        lock::{BookLock, LockError, socket_path},
        mark::Standing,
        open_readers, open_writer,
        work::BookEventOutcome,
    },
    writer::{Writer, WriterGone, WriterHandle, WriterParts},
};

pub(super) enum Target {
    Book { writer: WriterHandle, done: JoinHandle<anyhow::Result<()>>, _lock: BookLock },
    Daemon { client: ControlClient, holder: String },
}

impl Target {
    /// Takes the book's lock for `purpose`, or finds the daemon that has it.
    pub(super) async fn open(config: &Config, purpose: &str) -> anyhow::Result<Self> {
        let path = &config.store.path;
        let lock = match BookLock::take(path, purpose) {
            Ok(lock) => lock,
            Err(LockError::Held { holder, .. }) => {
                return Ok(Self::Daemon {
                    client: ControlClient::new(&socket_path(path)?)?,
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
            batch_max: config.writer.batch_max,
            queue_len_max: config.writer.queue_len_max,
            lazy: Duration::ZERO,
            wake: Wake::default(),
            metrics: Arc::new(Metrics::new()),
            health: Arc::default(),
            clock: Arc::new(SystemClock),
        })
        .await?;
        let done = TaskTracker::new().spawn(async move { Ok(writer.run().await?) });
        Ok(Self::Book { writer: handle, done, _lock: lock })
    }

    /// Whose book it is, for a sentence.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Book { .. } => "the book",
            Self::Daemon { .. } => "the daemon's book",
        }
    }

    /// Takes facts in, all together.
    pub(super) async fn apply(
        &mut self,
        source: &str,
        events: &[FileEvent],
    ) -> anyhow::Result<Vec<BookEventOutcome>> {
        match self {
            Self::Book { writer, done, .. } => {
                let events = events.iter().map(|event| event.event.clone()).collect();
                match writer.apply_book_events(events, source.to_owned()).await {
                    Ok(applied) => applied.map_err(|reason| anyhow::anyhow!(reason)),
                    Err(gone) => Err(why_gone(done, gone).await),
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
            Self::Book { writer, .. } => Ok(desk(config, writer).await?.sync(request).await?),
            Self::Daemon { client, holder } => {
                client.sync(request).await.map_err(|error| held_by(holder, error))
            }
        }
    }

    /// Compares jobs and balances with OES.
    pub(super) async fn reconcile(
        &mut self,
        config: &Config,
        request: &ReconcileRequest,
    ) -> anyhow::Result<ReconcileReport> {
        match self {
            Self::Book { writer, .. } => Ok(desk(config, writer).await?.reconcile(request).await?),
            Self::Daemon { client, holder } => {
                client.reconcile(request).await.map_err(|error| held_by(holder, error))
            }
        }
    }

    /// Sends a parked job on.
    pub(super) async fn send_on(
        &mut self,
        record: RecordId,
        by: Operator,
    ) -> anyhow::Result<SentOn> {
        match self {
            Self::Book { writer, done, .. } => match writer.send_on(record, by).await {
                Ok(sent_on) => Ok(sent_on),
                Err(gone) => Err(why_gone(done, gone).await),
            },
            Self::Daemon { client, holder } => {
                let sent_on = client.send_on(record, &by).await;
                sent_on.map_err(|error| held_by(holder, error))
            }
        }
    }

    /// Carries out an operator's word about a job that waits for one.
    pub(super) async fn approve(
        &mut self,
        record: RecordId,
        word: OperatorWord,
        by: Operator,
    ) -> anyhow::Result<Approval> {
        match self {
            Self::Book { writer, done, .. } => match writer.approve(record, word, by).await {
                Ok(approval) => approval.map_err(|reason| anyhow::anyhow!(reason)),
                Err(gone) => Err(why_gone(done, gone).await),
            },
            Self::Daemon { client, holder } => {
                let approval = client.approve(record, word, &by).await;
                approval.map_err(|error| held_by(holder, error))
            }
        }
    }

    /// Commits what is left and gives the book back.
    pub(super) async fn close(self) -> anyhow::Result<()> {
        match self {
            Self::Book { writer, done, _lock } => {
                drop(writer);
                done.await?
            }
            Self::Daemon { .. } => Ok(()),
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
async fn why_gone(done: &mut JoinHandle<anyhow::Result<()>>, gone: WriterGone) -> anyhow::Error {
    match done.await {
        Ok(Err(error)) => error,
        Ok(Ok(())) => gone.into(),
        Err(panic) => panic.into(),
    }
}

fn held_by(holder: &str, error: impl Into<anyhow::Error>) -> anyhow::Error {
    error.into().context(format!("the book is held by {holder}"))
}
