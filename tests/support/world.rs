//! One test's own world: a sandbox, queues of its own names, a folder with keys and a book.

use std::{
    collections::HashMap,
    net::TcpListener,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use settled::{
    clock::{Clock, SystemClock},
    config::Config,
    domain::{
        amount::Quantity,
        decision::Outcome,
        ids::{ClientId, ConnectionId, RecordId},
        job::JobType,
        time::TimestampMs,
    },
    sandbox::{
        AccessToken, ClientSeed, ConnectionSeed, CurrencySeed, Fault, Put, Record, Reservation,
        Sandbox, SandboxConfig, SandboxState, Side, Standing,
    },
    signer::SigningKey,
    store::{Readers, open_readers, query::JobHistory},
};
use uuid::Uuid;

use super::{
    broker::{Exchange, Heard, url},
    daemon::{Daemon, Process, binary, run, text},
    eventually,
};

/// A key that signs nothing but tests: the first of the vectors.
pub(crate) const KEY_HEX: &str = "88c4670be22d23e10e6914266f622500564ee1c1c4b31af25eaccb86eedd6d74";
pub(crate) const TOKEN: &str = "v2x-a-token-that-opens-nothing";
const ENTERPRISE: &str = "partner-enterprise";

/// What each connection has available at the start, in both books.
pub(crate) const AVAILABLE: u64 = 1_000_000;

/// The time at OES: ours, unless it is told to go on.
#[derive(Debug, Default)]
pub(crate) struct OesClock(AtomicU64);

impl OesClock {
    pub(crate) fn go_on(&self, by: Duration) {
        self.0.fetch_add(by.as_secs(), Ordering::Relaxed);
    }
}

impl Clock for OesClock {
    fn now(&self) -> TimestampMs {
        SystemClock.now().after(Duration::from_secs(self.0.load(Ordering::Relaxed)))
    }
}

/// Copies the database of a book that nobody has open, whole.
pub(crate) fn copy_book(from: &Path, to: &Path) {
    for suffix in ["-wal", "-shm"] {
        let mut beside = to.as_os_str().to_owned();
        beside.push(suffix);
        let _gone = std::fs::remove_file(beside);
    }
    std::fs::copy(from, to).unwrap();
}

pub(crate) struct World {
    pub(crate) sandbox: Sandbox,
    pub(crate) oes_clock: Arc<OesClock>,
    pub(crate) exchange: Exchange,
    pub(crate) client_id: ClientId,
    pub(crate) connection_id: ConnectionId,
    pub(crate) jobs_queue: String,
    pub(crate) outcomes_exchange: String,
    pub(crate) outcomes: String,
    settings: HashMap<String, String>,
    folder: tempfile::TempDir,
}

impl World {
    /// A world with one client, one connection and one currency, the same in the sandbox and in the
    /// book, and the topology declared. Nothing runs yet but the sandbox.
    pub(crate) async fn new() -> Self {
        Self::with(&[]).await
    }

    /// The same with further settings, e.g. `("retry.base_ms", "1")`.
    pub(crate) async fn with(settings: &[(&str, &str)]) -> Self {
        Self::on(&url(), settings).await
    }

    /// The same on another broker.
    pub(crate) async fn on(broker: &str, settings: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let name = format!("t{}", Uuid::new_v4().simple());
        let key = SigningKey::from_text(KEY_HEX).unwrap();
        let oes_clock = Arc::new(OesClock::default());
        let mut sandbox = SandboxConfig::empty(Arc::clone(&oes_clock) as Arc<dyn Clock>);
        sandbox.tokens = vec![AccessToken::new(Side::Partner, TOKEN)];
        sandbox.seed.partner.enterprise_id = Some(ENTERPRISE.to_owned());
        sandbox.seed.partner.public_keys = vec![key.public_key()];
        let sandbox = Sandbox::start(sandbox).await.unwrap();

        let mut world = Self {
            settings: HashMap::new(),
            exchange: Exchange::connect(broker).await,
            client_id: Uuid::new_v4().into(),
            connection_id: Uuid::new_v4().into(),
            jobs_queue: format!("{name}.jobs"),
            outcomes_exchange: format!("{name}.outcomes"),
            outcomes: String::new(),
            sandbox,
            oes_clock,
            folder,
        };
        world.configure(&name, broker);
        for (key, value) in settings {
            world.set(key, value);
        }
        world.must_run(&["topology"]).await;
        world.outcomes = world.exchange.bind(&world.outcomes_exchange, "#").await;
        world.add_currency("BTC");
        world.add_connection(world.connection_id, "BTC");
        world.import(&world.book_lines()).await;
        world
    }

    fn configure(&mut self, name: &str, broker: &str) {
        let (key, token) = (self.path("key"), self.path("token"));
        write_secret(&key, KEY_HEX);
        write_secret(&token, TOKEN);
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        for (setting, value) in [
            ("store.path", self.path("book.db").to_str().unwrap()),
            ("broker.url", broker),
            ("broker.declare", "true"),
            ("broker.jobs_queue", &self.jobs_queue.clone()),
            ("broker.outcomes_exchange", &self.outcomes_exchange.clone()),
            ("broker.dead_letter_exchange", &format!("{name}.dead")),
            ("oes.base_url", &self.sandbox.base_url()),
            ("oes.enterprise_id", ENTERPRISE),
            ("oes.access_token_file", token.to_str().unwrap()),
            ("oes.rate_limit", "1000000"),
            ("oes.rate_burst", "10000"),
            ("oes.request_timeout_ms", "5000"),
            ("signer.key_file", key.to_str().unwrap()),
            // Quick, so that tests are; the schedule itself has its own tests.
            ("retry.base_ms", "20"),
            ("retry.max_ms", "200"),
            ("retry.approval_read_every_s", "1"),
            ("retry.slow_read_every_s", "1"),
            // Tests that count reads or inject faults are not to meet a sweep.
            ("reconcile.sweep_every_s", "0"),
            ("http.listen", &format!("127.0.0.1:{port}")),
        ] {
            self.set(setting, value);
        }
    }

    pub(crate) fn set(&mut self, key: &str, value: &str) {
        self.settings.insert(key.to_owned(), value.to_owned());
    }

    pub(crate) fn setting(&self, key: &str) -> &str {
        &self.settings[key]
    }

    pub(crate) fn write_secret(&self, path: &Path, secret: &str) {
        assert!(path.starts_with(self.folder.path()));
        write_secret(path, secret);
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The configuration as a file, for the real binary.
    pub(crate) fn config_file(&self) -> PathBuf {
        let mut sections: HashMap<&str, Vec<String>> = HashMap::new();
        for (key, value) in &self.settings {
            let (section, name) = key.split_once('.').unwrap();
            let plain = value.parse::<u64>().is_ok() || value == "true" || value == "false";
            let value = if plain { value.clone() } else { json!(value).to_string() };
            sections.entry(section).or_default().push(format!("{name} = {value}"));
        }
        let sections: Vec<String> = sections
            .into_iter()
            .map(|(section, lines)| format!("[{section}]\n{}\n", lines.join("\n")))
            .collect();
        let text = sections.concat();
        let path = self.path("settled.toml");
        std::fs::write(&path, text).unwrap();
        path
    }

    pub(crate) fn config(&self) -> Config {
        Config::load_with(Some(&self.config_file()), Some(HashMap::new())).unwrap()
    }

    pub(crate) async fn daemon(&self) -> Daemon {
        let mut config = self.config();
        // In this process any free port will do, and none can be taken in between.
        config.http.listen.set_port(0);
        let daemon = Daemon::start(config).await;
        daemon.wait_until_ready().await;
        daemon
    }

    pub(crate) async fn process(&self) -> Process {
        Process::start(&self.config_file(), self.setting("http.listen")).await
    }

    /// Runs the real binary with these arguments; answers exit code, standard output and error.
    pub(crate) async fn run_code(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let output = run(binary(&self.config_file()), arguments).await;
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    }

    /// Runs the real binary with these arguments; answers success, standard output and error.
    pub(crate) async fn run(&self, arguments: &[&str]) -> (bool, String, String) {
        let output = run(binary(&self.config_file()), arguments).await;
        (output.status.success(), text(&output.stdout), text(&output.stderr))
    }

    pub(crate) async fn must_run(&self, arguments: &[&str]) -> String {
        let (success, output, error) = self.run(arguments).await;
        assert!(success, "settled {arguments:?}: {output}{error}");
        output
    }

    /// The status as people read it, whether or not something needs attention.
    pub(crate) async fn status(&self) -> String {
        let (code, output, error) = self.run_code(&["status"]).await;
        assert!([Some(0), Some(1)].contains(&code), "settled status: {output}{error}");
        output
    }

    pub(crate) fn oes(&self) -> SandboxState {
        self.sandbox.state()
    }

    pub(crate) fn add_currency(&self, name: &str) {
        let name = name.parse().unwrap();
        let currency = CurrencySeed { partner_name: Clone::clone(&name), name, decimals: 8 };
        self.oes().add_currency(currency).unwrap();
    }

    /// A connection of the client, with funds on both sides.
    pub(crate) fn add_connection(&self, id: ConnectionId, currency: &str) {
        let plenty = [(currency.parse().unwrap(), Quantity::MAX.to_string().parse().unwrap())];
        self.oes()
            .add_client(ClientSeed {
                id: self.client_id,
                enterprise_id: format!("client-{}", self.client_id),
                public_keys: Vec::new(),
                balances: plenty.clone().into(),
            })
            .unwrap();
        self.oes()
            .add_connection(ConnectionSeed {
                id,
                client_id: self.client_id,
                name: "connection".to_owned(),
                partners_client_id: Some(PARTNERS_CLIENT.to_owned()),
                partners_connection_id: Some(format!("{PARTNERS_CONNECTION}-{id}")),
                active: true,
                balances: plenty.into(),
            })
            .unwrap();
    }

    /// Gives a connection exactly so much at OES.
    pub(crate) fn set_funds(&self, id: ConnectionId, currency: &str, quantity: u64) {
        let known = self.oes().connection(id).unwrap();
        self.oes()
            .add_connection(ConnectionSeed {
                id,
                client_id: known.client_id,
                name: known.name,
                partners_client_id: known.partners_client_id,
                partners_connection_id: known.partners_connection_id,
                active: known.active,
                balances: [(currency.parse().unwrap(), quantity.to_string().parse().unwrap())]
                    .into(),
            })
            .unwrap();
    }

    /// The book events of the world as it begins.
    pub(crate) fn book_lines(&self) -> Vec<Value> {
        vec![
            self.connection_event("c-1", self.connection_id, true),
            json!({
                "eventId": "k-1", "type": "currency.configured", "currency": "BTC",
                "enabled": true, "quantityMin": "1", "quantityMax": format!("1{}", "0".repeat(77)),
            }),
            self.adjustment("b-1", &AVAILABLE.to_string()),
        ]
    }

    pub(crate) fn connection_event(&self, event: &str, id: ConnectionId, active: bool) -> Value {
        json!({
            "eventId": event, "type": "connection.upserted", "connectionId": id,
            "clientId": self.client_id, "partnersClientId": PARTNERS_CLIENT,
            "partnersConnectionId": format!("{PARTNERS_CONNECTION}-{id}"), "active": active,
        })
    }

    pub(crate) fn adjustment(&self, event: &str, delta: &str) -> Value {
        json!({
            "eventId": event, "type": "balance.adjusted", "connectionId": self.connection_id,
            "currency": "BTC", "delta": delta,
        })
    }

    /// Imports events with the command line, into the book or through the daemon that holds it.
    pub(crate) async fn import(&self, lines: &[Value]) -> String {
        let path = self.path("import.jsonl");
        let text: Vec<String> = lines.iter().map(Value::to_string).collect();
        std::fs::write(&path, text.join("\n")).unwrap();
        self.must_run(&["book", "import", path.to_str().unwrap()]).await
    }

    /// A reserved record at OES, as after a client's request.
    pub(crate) fn reserve(&self, record_type: JobType, quantity: &str) -> Record {
        self.reserve_in(record_type, "BTC", quantity)
    }

    pub(crate) fn reserve_in(
        &self,
        record_type: JobType,
        currency: &str,
        quantity: &str,
    ) -> Record {
        self.oes()
            .reserve(Reservation {
                record_type,
                connection_id: self.connection_id,
                currency: currency.parse().unwrap(),
                quantity: quantity.parse().unwrap(),
                partners_record_id: None,
            })
            .unwrap()
    }

    /// The job message about a record, as the partner's edge would publish it.
    pub(crate) fn job(&self, record: &Record) -> Vec<u8> {
        self.oes().job_message(record.id).unwrap().into_bytes()
    }

    pub(crate) async fn publish(&self, messages: impl IntoIterator<Item = Vec<u8>>) {
        self.exchange.publish(&self.jobs_queue, messages).await;
    }

    /// Reserves a record and publishes its job.
    pub(crate) async fn submit(&self, record_type: JobType, quantity: &str) -> Record {
        let record = self.reserve(record_type, quantity);
        self.publish([self.job(&record)]).await;
        record
    }

    pub(crate) fn inject(&self, fault: Fault) {
        self.oes().inject(fault).unwrap();
    }

    pub(crate) fn puts_of(&self, record: &Record) -> Vec<Put> {
        self.oes().puts_of(record.id)
    }

    pub(crate) async fn readers(&self) -> Readers {
        open_readers(&self.path("book.db")).await.unwrap()
    }

    pub(crate) async fn history(&self, id: RecordId) -> Option<JobHistory> {
        let readers = self.readers().await;
        let history = readers.job_history(id).await.unwrap();
        readers.close().await;
        history
    }

    /// Waits until a job is in a state, given by name with its reason, e.g. `parked(too_old)`.
    pub(crate) async fn wait_for_state(&self, record: &Record, state: &str) -> JobHistory {
        let readers = self.readers().await;
        let history = eventually(&format!("record {} to be {state}", record.id), || async {
            let history = readers.job_history(record.id).await.unwrap()?;
            (history.job.state.to_string() == state).then_some(history)
        })
        .await;
        readers.close().await;
        history
    }

    /// Waits until so many jobs are final.
    pub(crate) async fn wait_for_final(&self, count: u64) {
        let readers = self.readers().await;
        eventually(&format!("{count} final jobs"), || async {
            let counts = readers.job_counts().await.unwrap();
            let done: u64 = counts
                .iter()
                .filter(|line| ["confirmed", "overruled"].contains(&line.state.as_str()))
                .map(|line| line.jobs)
                .sum();
            assert!(done <= count, "{done} jobs are final");
            (done == count).then_some(())
        })
        .await;
        readers.close().await;
    }

    /// Hears so many outcomes; there are no more, apart from repetitions with the same id.
    pub(crate) async fn hear_outcomes(&self, count: usize) -> Vec<Heard> {
        self.exchange.hear(&self.outcomes, count).await
    }

    /// What the connection has available, held and incoming in the book.
    pub(crate) async fn balances(&self) -> [String; 3] {
        let readers = self.readers().await;
        let holdings = readers.holdings().await.unwrap();
        readers.close().await;
        let holding = holdings
            .into_iter()
            .find(|holding| holding.connection_id == self.connection_id)
            .expect("the connection has accounts");
        [holding.available.to_string(), holding.held.to_string(), holding.incoming.to_string()]
    }

    /// What must hold at the end of every test: one decision per record, no nonce twice, every
    /// signature ours, and a book that adds up.
    pub(crate) async fn assert_promises(&self) {
        let oes = self.oes();
        let contradictions = oes.contradictions();
        assert!(contradictions.is_empty(), "{contradictions:?}");
        let repeated = oes.repeated_nonces();
        assert!(repeated.is_empty(), "{repeated:?}");
        let unsigned = oes.bad_signatures();
        assert!(unsigned.is_empty(), "{unsigned:?}");
        let readers = self.readers().await;
        let verification = readers.verify().await.unwrap();
        readers.close().await;
        assert!(verification.holds(), "{verification:?}");
    }

    pub(crate) fn standing(&self, record: &Record) -> Standing {
        self.oes().record(record.id).unwrap().standing
    }

    pub(crate) fn is_final(&self, record: &Record, outcome: Outcome) -> bool {
        self.standing(record) == Standing::Final(outcome)
    }
}

pub(crate) const PARTNERS_CLIENT: &str = "client-001";
const PARTNERS_CONNECTION: &str = "conn";

pub(crate) fn write_secret(path: &Path, secret: &str) {
    use std::io::Write as _;
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .unwrap();
    writeln!(file, "{secret}").unwrap();
}
