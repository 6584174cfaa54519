//! The daemon: its parts put together, watched, and brought to an end in order.

mod broker_side;
mod key;
mod oes_side;
pub(crate) mod watchdog;

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use anyhow::Context as _;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use uuid::Uuid;

use crate::{
    alerts::{Alerts, Channels, Origin},
    clock::Clock,
    compare::{self, Desk, ask::Asker},
    config::Config,
    control,
    domain::lag::BookGate,
    health::{Checks, Health, Volumes},
    metrics::Metrics,
    oes::OesClient,
    operator::operations::Operations,
    pipeline::{archive::Archiver, book_gate::GateBoard, budget::Budget, wake::Wake},
    store::{
        Readers,
        lock::{BookLock, socket_path},
        open_readers, open_writer,
        work::Counters,
    },
    traces::{Exporter, Traces},
    web::{
        Web,
        api::Api,
        auth::Tokens,
        page::{Page, samples::Samples},
    },
    writer::{Writer, WriterHandle, WriterParts},
};

mod ending;

use oes_side::{may_sign, way_to_oes};
use watchdog::Watchdog;

/// How the lock says who holds the book.
const HOLDER: &str = "settled run";

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
    /// It tells of what the others did until the last.
    Tracing,
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
    /// Ends what tells of that.
    stop_traces: CancellationToken,
    writer: Option<WriterHandle>,
    readers: Readers,
    http_address: SocketAddr,
    grace: Duration,
    /// Why a part did not end well when it was asked to.
    failed_ending: Option<anyhow::Error>,
    _lock: BookLock,
}

/// What the parts are made from.
struct Material {
    config: Config,
    readers: Readers,
    writer: WriterHandle,
    wake: Wake,
    metrics: Arc<Metrics>,
    traces: Traces,
    health: Arc<Health>,
    oes: Arc<OesClient>,
    budget: Arc<Budget>,
    clock: Arc<dyn Clock>,
    /// The identity of the book.
    ledger: Uuid,
}

impl Material {
    /// What comparisons with OES work with.
    fn desk(&self) -> Desk {
        let asker =
            Asker::sharing(Arc::clone(&self.oes), Arc::clone(&self.budget), &self.config.oes)
                .counted_by(Arc::clone(&self.metrics));
        Desk {
            asker,
            readers: self.readers.clone(),
            writer: self.writer.clone(),
            metrics: Arc::clone(&self.metrics),
            clock: Arc::clone(&self.clock),
            sweep_age: Duration::from_secs(self.config.reconcile.sweep_age_s),
            compare_balances: self.config.reconcile.balances,
            amounts: self.config.oes.amounts,
            at_work: tokio::sync::Mutex::default(),
        }
    }
}

/// The gate before decisions, as the book remembers it.
fn gate_of(config: &Config, counters: &Counters) -> GateBoard {
    if config.broker.book_queue.is_none() {
        return GateBoard::without_feed();
    }
    let (open_time, heartbeat) = (counters.gate_open_time(), counters.heartbeat());
    GateBoard::new(BookGate::before_feed(config.book.lag_max(), open_time, heartbeat))
}

/// The book's readers. Says about which connections nothing will be decided, and what to do about it.
async fn readers_of(book: &Path) -> anyhow::Result<Readers> {
    let readers = open_readers(book).await?;
    if let Some(unproven) = readers.unproven().await? {
        tracing::warn!(connections = unproven.count, "{unproven}");
    }
    Ok(readers)
}

impl App {
    /// Starts every part.
    ///
    /// # Errors
    /// What is wrong, and with which key of the configuration.
    pub async fn start(config: Config, clock: Arc<dyn Clock>) -> anyhow::Result<Self> {
        let lock = BookLock::take(&config.store.path, HOLDER)?;
        let key = key::load_key(&config.signer)?;
        let http = listen(config.http.listen).await?;
        let http_address = http.local_addr()?;

        let (metrics, health) = (Arc::new(Metrics::new()), Arc::<Health>::default());
        let (oes, budget) = way_to_oes(&config.oes, &metrics, &clock)?;
        let wake = Wake::default();
        let book = open_writer(&config.store.path, clock.now()).await?;
        let ledger = book.ledger_uuid;
        let (key, mark) = key::fit_to_sign(&config, &book, key)?;
        let gate = gate_of(&config, &book.counters);
        let (traces, exporter) = Traces::new(&config.traces, ledger, &metrics, &clock)?;
        let readers = readers_of(&config.store.path).await?;
        let (signing, sending, signer_fault) = may_sign(key, &budget);
        let (writer, handle) = Writer::new(WriterParts {
            book,
            signing,
            decides_without_key: false,
            budget: Some(Arc::clone(&budget)),
            mark,
            limits: config.retry.limits(),
            conditions: config.conditions(),
            gate,
            close_within: Duration::from_secs(config.operator.confirm_within_s),
            batch_max: config.writer.batch_max,
            queue_len_max: config.writer.queue_len_max,
            lazy: Duration::from_millis(config.writer.lazy_ms),
            wake: wake.clone(),
            metrics: Arc::clone(&metrics),
            traces: traces.clone(),
            health: Arc::clone(&health),
            clock: Arc::clone(&clock),
        })
        .await?;
        let checks = Checks {
            health: Arc::clone(&health),
            readers: readers.clone(),
            budget: Arc::clone(&budget),
            signer_fault,
            switches: handle.switches(),
            gate: handle.gate(),
            stuck_after: Duration::from_secs(config.health.stuck_after_s),
            wake: wake.clone(),
            verifies: config.decide.verify_with_oes,
            volumes: Volumes::of(&config),
            clock: Arc::clone(&clock),
        };
        let grace = Duration::from_secs(config.shutdown.grace_s);
        let mut app = Self::idle(handle.clone(), readers.clone(), http_address, grace, lock);
        app.spawn_writer(writer, Arc::clone(&health));
        app.spawn_exporter(exporter);
        let material = Material {
            config,
            readers,
            writer: handle,
            wake,
            metrics,
            traces,
            health,
            oes,
            budget,
            clock,
            ledger,
        };
        app.spawn_serving(&material, http, checks)?;
        app.spawn_broker_side(&material);
        app.spawn_oes_side(&material, sending);
        Ok(app)
    }

    /// A daemon without parts.
    fn idle(
        writer: WriterHandle,
        readers: Readers,
        http_address: SocketAddr,
        grace: Duration,
        lock: BookLock,
    ) -> Self {
        Self {
            parts: Vec::new(),
            tracker: TaskTracker::new(),
            stop: CancellationToken::new(),
            stop_last: CancellationToken::new(),
            stop_traces: CancellationToken::new(),
            writer: Some(writer),
            readers,
            http_address,
            grace,
            failed_ending: None,
            _lock: lock,
        }
    }

    fn spawn(
        &mut self,
        name: &'static str,
        stage: Stage,
        task: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) {
        self.parts.push(Part { name, stage, task: self.tracker.spawn(task) });
    }

    fn spawn_writer(&mut self, writer: Writer, health: Arc<Health>) {
        self.spawn("writer", Stage::Writing, async move {
            let ended = writer.run().await;
            health.writer_ended();
            Ok(ended?)
        });
    }

    /// What sends spans to a collector, where there is one.
    fn spawn_exporter(&mut self, exporter: Option<Exporter>) {
        let Some(exporter) = exporter else { return };
        let stop = self.stop_traces.clone();
        self.spawn("traces", Stage::Tracing, async move {
            exporter.run(stop).await;
            Ok(())
        });
    }

    /// Health, metrics and the control socket.
    fn spawn_serving(
        &mut self,
        material: &Material,
        http: TcpListener,
        checks: Checks,
    ) -> anyhow::Result<()> {
        let tokens = match &material.config.http.tokens_file {
            Some(path) => Some(Arc::new(Tokens::open(path)?)),
            None => None,
        };
        let archives = material.config.archive.path.is_some() && checks.signer_fault.is_none();
        let desk = Arc::new(material.desk());
        let api = Api {
            book: material.config.store.path.clone(),
            operations: Operations {
                readers: material.readers.clone(),
                writer: material.writer.clone(),
                desk: Some(Arc::clone(&desk)),
            },
            checks: checks.clone(),
            desk: Arc::clone(&desk),
            archive: archives.then(|| Arc::clone(&material.wake.archive)),
            trusts_names: tokens.is_none(),
            stop: self.stop.clone(),
            clock: Arc::clone(&material.clock),
        };
        let served = tokens.clone().map(|tokens| (api.clone(), tokens));
        let alert_checks = checks.clone();
        let page = served.clone().and_then(|(api, tokens)| self.spawn_page(material, api, tokens));
        let web = Web { checks, metrics: Arc::clone(&material.metrics), api: served, page };
        let stop = self.stop_last.clone();
        self.spawn("web", Stage::Serving, async move { Ok(web.serve(http, stop).await?) });

        let path = socket_path(&material.config.store.path)?;
        let listener = control::listen(&path)
            .with_context(|| format!("cannot make the control socket {}", path.display()))?;
        self.spawn_alerts(material, alert_checks.clone())?;
        let watchdog = Watchdog::new(alert_checks, material.writer.clone());
        let stop = self.stop_last.clone();
        self.spawn("watchdog", Stage::Serving, async move {
            watchdog.run(stop).await;
            Ok(())
        });
        let (config, stop) = (material.config.clone(), self.stop.clone());
        self.spawn("schedule", Stage::Intake, async move {
            Ok(compare::schedule::run(desk, config, stop).await?)
        });
        // It can change the book, so it ends with what brings new work in.
        let stop = self.stop.clone();
        self.spawn("control", Stage::Intake, async move {
            Ok(control::serve(api, tokens, listener, stop).await?)
        });
        Ok(())
    }

    /// The operator page, with what looks at the backlog for its charts; nothing where it is not wanted.
    fn spawn_page(&mut self, material: &Material, api: Api, tokens: Arc<Tokens>) -> Option<Page> {
        let config = &material.config.http;
        if !config.page {
            return None;
        }
        let samples = Arc::<Samples>::default();
        let page = Page::new(api, tokens, Arc::clone(&samples), config.behind_tls);
        let (readers, clock) = (material.readers.clone(), Arc::clone(&material.clock));
        let stop = self.stop.clone();
        self.spawn("charts", Stage::Intake, async move {
            samples.run(&readers, clock.as_ref(), stop).await;
            Ok(())
        });
        Some(page)
    }

    /// What looks at the daemon, and tells people.
    fn spawn_alerts(&mut self, material: &Material, checks: Checks) -> anyhow::Result<()> {
        let config = material.config.alerts.clone();
        let alerts = Alerts {
            channels: Arc::new(Channels::new(&config)?),
            origin: Origin::new(&config, Some(material.ledger)),
            config,
            checks,
            metrics: Arc::clone(&material.metrics),
            readers: material.readers.clone(),
            writer: material.writer.clone(),
            clock: Arc::clone(&material.clock),
        };
        let stop = self.stop.clone();
        self.spawn("alerts", Stage::Intake, async move { Ok(alerts.run(stop).await?) });
        Ok(())
    }

    /// What moves old history into the archive. Not started where nothing may be signed: a book that may
    /// have been restored from a backup keeps what it has.
    fn spawn_archiver(&mut self, material: &Material) {
        let Material { config, readers, writer, wake, metrics, clock, .. } = material;
        let archiver = Archiver::new(
            &config.archive,
            config.store.path.clone(),
            readers.clone(),
            writer.clone(),
            Arc::clone(metrics),
            Arc::clone(clock),
        );
        let Some(archiver) = archiver else { return };
        let (wake, stop) = (wake.clone(), self.stop.clone());
        let every = Duration::from_secs(config.archive.every_s);
        self.spawn(
            "archiver",
            Stage::Intake,
            async move { Ok(archiver.run(every, wake, stop).await?) },
        );
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
}

async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on http.listen = {address}; is another daemon there?")
    })
}
