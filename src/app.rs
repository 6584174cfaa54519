//! The daemon: its parts put together, watched, and brought to an end in order.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context as _, anyhow};
use tokio::{net::TcpListener, sync::mpsc, task::JoinHandle};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    broker,
    clock::Clock,
    config::{BrokerConfig, Config, SignerConfig},
    control::{self, Control},
    health::{Checks, Health},
    metrics::Metrics,
    oes::OesClient,
    pipeline::{
        announce::Announcer,
        budget::Budget,
        decide,
        receive::Receiver,
        resolve::Resolver,
        send::{Feeder, Permitted, Sender},
        wake::Wake,
    },
    signer::SigningKey,
    store::{
        Mark, OpenedBook, Readers,
        lock::{BookLock, socket_path},
        mark::Standing,
        open_readers, open_writer,
    },
    web::Web,
    writer::{Signing, Writer, WriterHandle, WriterParts},
};

/// How the lock says who holds the book.
const HOLDER: &str = "settled run";

/// Share of the grace in which parts may end by themselves; the rest is the writer's.
const GENTLE_SHARE: f64 = 0.8;

/// How long the writer's own failure is waited for when another part has noticed it first.
const REASON_WAIT: Duration = Duration::from_secs(2);

/// When a part ends, in the order in which work flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// It brings new work in, or looks for it.
    Intake,
    /// It ends with the last answer.
    Sending,
    /// It serves until the last outcome.
    Serving,
    /// It ends when nobody can ask for anything any more.
    Writing,
}

struct Part {
    name: &'static str,
    stage: Stage,
    task: JoinHandle<anyhow::Result<()>>,
}

/// A running daemon.
pub struct App {
    parts: Vec<Part>,
    tracker: TaskTracker,
    /// Ends what brings new work in.
    stop: CancellationToken,
    /// Ends what serves until the last.
    stop_last: CancellationToken,
    writer: Option<WriterHandle>,
    readers: Readers,
    http_address: SocketAddr,
    grace: Duration,
    _lock: BookLock,
}

/// What the parts are made from.
struct Material {
    config: Config,
    readers: Readers,
    writer: WriterHandle,
    wake: Wake,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    oes: Arc<OesClient>,
    budget: Arc<Budget>,
    clock: Arc<dyn Clock>,
}

/// Signed attempts on their way to the sender; absent when nothing may be signed.
type Sending = Option<mpsc::UnboundedReceiver<Permitted>>;

impl App {
    /// Starts every part.
    ///
    /// # Errors
    /// What is wrong, and with which key of the configuration.
    pub async fn start(config: Config, clock: Arc<dyn Clock>) -> anyhow::Result<Self> {
        let lock = BookLock::take(&config.store.path, HOLDER)?;
        let key = load_key(&config.signer)?;
        let oes = Arc::new(OesClient::new(&config.oes, Arc::clone(&clock))?);
        let http = listen(config.http.listen).await?;
        let http_address = http.local_addr()?;

        let (metrics, health) = (Arc::new(Metrics::new()), Arc::<Health>::default());
        let wake = Wake::default();
        let book = open_writer(&config.store.path, clock.now()).await?;
        let (key, mark) = fit_to_sign(&config, &book, key)?;
        let readers = open_readers(&config.store.path).await?;
        let budget = Arc::new(Budget::new(&config.oes, Arc::clone(&clock)));
        let (signing, sending, signer_fault) = match key {
            Ok(key) => {
                let (sends, prepared) = mpsc::unbounded_channel();
                (Some(Signing { key, budget: Arc::clone(&budget), sends }), Some(prepared), None)
            }
            Err(fault) => (None, None, Some(fault)),
        };
        let (writer, handle) = Writer::new(WriterParts {
            book,
            signing,
            decides_without_key: false,
            budget: Some(Arc::clone(&budget)),
            mark,
            limits: config.retry.limits(),
            connection_grace: Duration::from_secs(config.decide.unknown_connection_grace_s),
            batch_max: config.writer.batch_max,
            queue_len_max: config.writer.queue_len_max,
            lazy: Duration::from_millis(config.writer.lazy_ms),
            wake: wake.clone(),
            metrics: Arc::clone(&metrics),
            health: Arc::clone(&health),
            clock: Arc::clone(&clock),
        })
        .await?;
        let checks = Checks {
            health: Arc::clone(&health),
            readers: readers.clone(),
            budget: Arc::clone(&budget),
            signer_fault,
            clock: Arc::clone(&clock),
        };
        let mut app = Self {
            parts: Vec::new(),
            tracker: TaskTracker::new(),
            stop: CancellationToken::new(),
            stop_last: CancellationToken::new(),
            writer: Some(handle.clone()),
            readers: readers.clone(),
            http_address,
            grace: Duration::from_secs(config.shutdown.grace_s),
            _lock: lock,
        };
        app.spawn("writer", Stage::Writing, {
            let health = Arc::clone(&health);
            async move {
                let ended = writer.run().await;
                health.writer_ended();
                Ok(ended?)
            }
        });
        let material =
            Material { config, readers, writer: handle, wake, metrics, health, oes, budget, clock };
        app.spawn_serving(&material, http, checks)?;
        app.spawn_broker_side(&material);
        app.spawn_oes_side(&material, sending);
        Ok(app)
    }

    fn spawn(
        &mut self,
        name: &'static str,
        stage: Stage,
        task: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) {
        self.parts.push(Part { name, stage, task: self.tracker.spawn(task) });
    }

    /// Health, metrics and the control socket.
    fn spawn_serving(
        &mut self,
        material: &Material,
        http: TcpListener,
        checks: Checks,
    ) -> anyhow::Result<()> {
        let web = Web { checks: checks.clone(), metrics: Arc::clone(&material.metrics) };
        let stop = self.stop_last.clone();
        self.spawn("web", Stage::Serving, async move { Ok(web.serve(http, stop).await?) });

        let path = socket_path(&material.config.store.path)?;
        let listener = control::listen(&path)
            .with_context(|| format!("cannot make the control socket {}", path.display()))?;
        let control = Control { writer: material.writer.clone(), checks };
        // It can change the book, so it ends with what brings new work in.
        let stop = self.stop.clone();
        self.spawn(
            "control",
            Stage::Intake,
            async move { Ok(control.serve(listener, stop).await?) },
        );
        Ok(())
    }

    /// What takes jobs from the broker and gives outcomes to it.
    fn spawn_broker_side(&mut self, material: &Material) {
        let config = &material.config.broker;
        let announcer = Announcer {
            config: config.clone(),
            readers: material.readers.clone(),
            writer: material.writer.clone(),
            wake: material.wake.clone(),
            metrics: Arc::clone(&material.metrics),
            health: Arc::clone(&material.health),
            clock: Arc::clone(&material.clock),
        };
        let receiver = Receiver {
            config: config.clone(),
            writer: material.writer.clone(),
            metrics: Arc::clone(&material.metrics),
            health: Arc::clone(&material.health),
        };
        // Cancelled once the topology is as it must be.
        let declared = CancellationToken::new();
        let (stop, stop_last) = (self.stop.clone(), self.stop_last.clone());
        self.spawn("topology", Stage::Intake, {
            let (config, declared, stop) = (config.clone(), declared.clone(), stop.clone());
            async move {
                declare_topology(&config, &stop).await?;
                declared.cancel();
                // Its work is done; ending now would look like a failure.
                stop.cancelled().await;
                Ok(())
            }
        });
        self.spawn("receiver", Stage::Intake, {
            let declared = declared.clone();
            async move {
                first_of(&declared, &stop).await;
                receiver.run(stop).await;
                Ok(())
            }
        });
        self.spawn("announcer", Stage::Serving, async move {
            first_of(&declared, &stop_last).await;
            Ok(announcer.run(stop_last).await?)
        });
    }

    /// What reads back and, if something may be signed, decides and sends.
    fn spawn_oes_side(&mut self, material: &Material, sending: Sending) {
        let Material { readers, writer, wake, metrics, oes, budget, clock, .. } = material;
        // What has been sent is read back even without a key.
        let resolver = Resolver {
            readers: readers.clone(),
            writer: writer.clone(),
            oes: Arc::clone(oes),
            budget: Arc::clone(budget),
            wake: wake.clone(),
            clock: Arc::clone(clock),
        };
        let stop = self.stop.clone();
        self.spawn("resolver", Stage::Intake, async move { Ok(resolver.run(stop).await?) });
        let Some(prepared) = sending else {
            return;
        };
        let sender = Sender {
            writer: writer.clone(),
            oes: Arc::clone(oes),
            budget: Arc::clone(budget),
            metrics: Arc::clone(metrics),
        };
        self.spawn("sender", Stage::Sending, async move { Ok(sender.run(prepared).await?) });
        let feeder = Feeder {
            readers: readers.clone(),
            writer: writer.clone(),
            budget: Arc::clone(budget),
            wake: wake.clone(),
            clock: Arc::clone(clock),
        };
        let stop = self.stop.clone();
        self.spawn("feeder", Stage::Intake, async move { Ok(feeder.run(stop).await?) });
        let decider = decide::run(
            readers.clone(),
            writer.clone(),
            wake.clone(),
            Arc::clone(clock),
            self.stop.clone(),
        );
        self.spawn("decider", Stage::Intake, async move { Ok(decider.await?) });
    }

    /// Where the HTTP listener is.
    #[must_use]
    pub fn http_address(&self) -> SocketAddr {
        self.http_address
    }

    /// A token that asks the daemon to end.
    #[must_use]
    pub fn stop_token(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Runs until [`App::stop_token`] is cancelled or a part fails, then ends every part in order,
    /// within the grace.
    ///
    /// # Errors
    /// The failure of the part that brought the daemon down.
    pub async fn run(mut self) -> anyhow::Result<()> {
        let stop = self.stop.clone();
        let failed = tokio::select! {
            () = stop.cancelled() => None,
            failure = self.first_end() => Some(failure),
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
        failed.map_or(Ok(()), Err)
    }

    /// Waits until any part ends, which none does by itself.
    async fn first_end(&mut self) -> anyhow::Error {
        let tasks = self.parts.iter_mut().map(|part| &mut part.task);
        let (ended, index, _others) = futures_util::future::select_all(tasks).await;
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
            match (&mut part.task).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::error!(
                        part = name,
                        error = format!("{error:#}"),
                        "a part failed while ending"
                    );
                }
                Err(error) if error.is_cancelled() => {}
                Err(panic) => tracing::error!(part = name, %panic, "a part panicked while ending"),
            }
            self.parts.swap_remove(index);
        }
    }
}

async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on http.listen = {address}; is another daemon there?")
    })
}

/// Waits for either.
async fn first_of(one: &CancellationToken, other: &CancellationToken) {
    tokio::select! {
        () = one.cancelled() => {}
        () = other.cancelled() => {}
    }
}

/// The key, or why nothing may be signed, and the mark of what is signed. A book that does not fit its
/// mark signs nothing, and the mark stays as it is.
fn fit_to_sign(
    config: &Config,
    book: &OpenedBook,
    key: Result<SigningKey, String>,
) -> anyhow::Result<(Result<SigningKey, String>, Option<Mark>)> {
    let Some(path) = &config.store.mark_path else { return Ok((key, None)) };
    let mark = Mark::open(path)?;
    Ok(match mark.standing(book.ledger_uuid, book.counters.last_attempt()) {
        Standing::Fits => (key, Some(mark)),
        standing @ (Standing::Behind(_) | Standing::Foreign(_)) => {
            let fault = format!("{standing}. See `settled book accept-restore --help`");
            tracing::error!(fault, "nothing is decided or signed");
            (Err(fault), None)
        }
    })
}

/// The signing key, or why nothing may be signed with it. A key that cannot be read is no key at all
/// and stops the start; a wrong one leaves the daemon taking jobs in, and not ready.
fn load_key(config: &SignerConfig) -> anyhow::Result<Result<SigningKey, String>> {
    let file = config.key_file.as_deref().context("signer.key_file is not set")?;
    let text = crate::secret_file::read(file).context("signer.key_file")?;
    let key = SigningKey::from_text(&text)
        .with_context(|| format!("signer.key_file {}", file.display()))?;
    if !key.self_test() {
        return Ok(Err(
            "the signer's self-test failed: the machine or the library is faulty".into()
        ));
    }
    match &config.expected_public_key {
        Some(expected) if !expected.eq_ignore_ascii_case(&key.public_key()) => Ok(Err(format!(
            "the key in signer.key_file has the public key {}, and signer.expected_public_key is \
             {expected}: nothing is decided or signed",
            key.public_key()
        ))),
        Some(_) | None => Ok(Ok(key)),
    }
}

/// Declares the topology if that is configured, trying again while the broker is away.
async fn declare_topology(config: &BrokerConfig, stop: &CancellationToken) -> anyhow::Result<()> {
    let schedule = config.reconnect_schedule();
    let mut failures: u32 = 0;
    while config.declare && !stop.is_cancelled() {
        let error = match broker::connect_and_declare(config).await {
            Ok(lines) => {
                tracing::info!(
                    declared = lines.len(),
                    "the broker's queues and exchanges are as needed"
                );
                return Ok(());
            }
            Err(error) if !error.is_lost() => return Err(error.into()),
            Err(error) => error,
        };
        failures = failures.saturating_add(1);
        let delay = schedule.delay(failures);
        tracing::warn!(%error, ?delay, "the broker cannot be asked for its queues; it is asked again");
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(delay) => {}
        }
    }
    Ok(())
}
