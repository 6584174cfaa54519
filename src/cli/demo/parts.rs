//! What the demo starts and ends: folder, queues, sandbox and daemon.

use std::{
    env,
    fs::{self, File},
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, bail};
use serde_json::json;
use tokio::process::{Child, Command};

use crate::{
    broker,
    cli::{output, sandbox::init},
    config::{BrokerConfig, Config},
    domain::ids::ConnectionId,
    sandbox::{SandboxClient, Seed},
    secret_file,
    signer::SigningKey,
    store::{Readers, open_readers},
};

/// A file by which a folder is known as a demo's.
const MARKER: &str = ".settled-demo";

/// Before the names of the demo's queues and exchanges, so that they are nobody else's.
const NAMES: &str = "settled-demo";

/// How long a process may take to be ready, or to end.
const PROCESS_LIMIT: Duration = Duration::from_secs(30);

const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(50);

/// Everything that the demo has started.
pub(super) struct Parts {
    pub(super) folder: PathBuf,
    pub(super) config: Config,
    pub(super) seed: Seed,
    pub(super) client: SandboxClient,
    pub(super) client_key: SigningKey,
    pub(super) sandbox_url: String,
    pub(super) outcomes_queue: String,
    sandbox: Child,
    daemon: Child,
}

impl Parts {
    /// Makes the folder and starts everything.
    pub(super) async fn start(config: &Config, folder: &Path) -> anyhow::Result<Self> {
        say("making the folder with keys, tokens, configuration and book")?;
        clear(folder)?;
        let seed = init::make(folder)?;
        init::write(&folder.join(MARKER), "made by settled demo; may be removed")?;
        let folder = fs::canonicalize(folder)?;
        let sandbox_at = free_address()?;
        let sandbox_url = format!("http://{sandbox_at}");
        let config_file = configure(&folder, config, &seed, &sandbox_url)?;
        let config = Config::load(Some(&config_file))?;

        say("declaring queues and exchanges")?;
        let outcomes_queue = declare(&config.broker).await?;
        say("loading a small book: connections, currencies, balances")?;
        change_book(&folder, &seed)?;
        let book = folder.join("book.jsonl");
        settled(&config_file, &["book", "import", &book.to_string_lossy()]).await?;

        say("starting the sandbox and the daemon")?;
        let listen = sandbox_at.to_string();
        let partner_token = folder.join("partner.token");
        let client_token = folder.join("client.token");
        let seed_file = folder.join("seed.json");
        let sandbox = spawn(
            &config_file,
            &folder.join("sandbox.log"),
            &[
                "sandbox",
                "serve",
                "--listen",
                &listen,
                "--seed",
                &seed_file.to_string_lossy(),
                "--partner-token-file",
                &partner_token.to_string_lossy(),
                "--client-token-file",
                &client_token.to_string_lossy(),
                "--rate-limit",
                "0",
            ],
        )?;
        let daemon = spawn(&config_file, &folder.join("daemon.log"), &["run"])?;
        let client = client(&sandbox_url, &seed, &client_token)?;
        let client_key = SigningKey::from_text(&secret_file::read(&folder.join("client.key"))?)?;
        let mut parts = Self {
            folder,
            config,
            seed,
            client,
            client_key,
            sandbox_url,
            outcomes_queue,
            sandbox,
            daemon,
        };
        if let Err(error) = parts.wait_until_ready().await {
            parts.stop().await;
            return Err(error);
        }
        Ok(parts)
    }

    async fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        let ready = async {
            loop {
                self.still_running()?;
                let sandbox = self.client.overview().await.is_ok();
                if sandbox && crate::web::probe(self.config.http.listen).await.is_ok() {
                    return Ok(());
                }
                tokio::time::sleep(LOOK_AGAIN_AFTER).await;
            }
        };
        tokio::time::timeout(PROCESS_LIMIT, ready)
            .await
            .context("the sandbox or the daemon did not become ready")?
    }

    /// Whether both processes are there; says where to look if not.
    pub(super) fn still_running(&mut self) -> anyhow::Result<()> {
        for (name, child) in [("sandbox", &mut self.sandbox), ("daemon", &mut self.daemon)] {
            if let Some(status) = child.try_wait()? {
                let log = self.folder.join(format!("{name}.log"));
                bail!("the {name} ended with {status}: see {}", log.display());
            }
        }
        Ok(())
    }

    /// Reads the daemon's book.
    pub(super) async fn readers(&self) -> anyhow::Result<Readers> {
        Ok(open_readers(&self.config.store.path).await?)
    }

    /// The connections of the seed: the first may trade, the second is switched off in the book.
    pub(super) fn connections(&self) -> Vec<ConnectionId> {
        self.seed.connections.iter().map(|connection| connection.id).collect()
    }

    /// Ends the processes, politely first, and removes the demo's queues.
    pub(super) async fn stop(&mut self) {
        for (name, child) in [("daemon", &mut self.daemon), ("sandbox", &mut self.sandbox)] {
            if let Err(error) = end(child).await {
                tracing::warn!(
                    process = name,
                    error = format!("{error:#}"),
                    "a process did not end"
                );
            }
        }
        if let Err(error) = remove(&self.config.broker, &self.outcomes_queue).await {
            tracing::warn!(error = format!("{error:#}"), "the demo's queues were not removed");
        }
    }
}

fn say(text: &str) -> anyhow::Result<()> {
    output::line(format_args!("demo: {text}"))
}

/// Removes an earlier demo; whatever else is there is left alone.
fn clear(folder: &Path) -> anyhow::Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    if !folder.join(MARKER).exists() {
        bail!("{} is there and is not a demo's: name another with --folder", folder.display());
    }
    fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))
}

/// An address that was free a moment ago.
fn free_address() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").context("no free port on loopback")?;
    Ok(listener.local_addr()?)
}

/// Writes the daemon's configuration. The broker's URL may hold a password, so the file is its
/// owner's only.
fn configure(
    folder: &Path,
    config: &Config,
    seed: &Seed,
    sandbox_url: &str,
) -> anyhow::Result<PathBuf> {
    let text = |value: &str| json!(value).to_string();
    let path = |name: &str| text(&folder.join(name).to_string_lossy());
    let enterprise = seed.partner.enterprise_id.clone().unwrap_or_default();
    let password_file = config.broker.password_file.as_ref().map_or_else(String::new, |file| {
        format!("password_file = {}\n", text(&file.to_string_lossy()))
    });
    let content = format!(
        "# Written by `settled demo`.\n\
         [store]\npath = {book}\n\n\
         [broker]\nurl = {url}\n{password_file}declare = true\n\
         jobs_queue = \"{NAMES}.jobs\"\noutcomes_exchange = \"{NAMES}.outcomes\"\n\
         dead_letter_exchange = \"{NAMES}.dead\"\n\n\
         [oes]\nbase_url = \"{sandbox_url}\"\nenterprise_id = {enterprise}\n\
         access_token_file = {token}\n\
         # The sandbox has no rate limit here, so that the demo is short.\n\
         rate_limit = 1000000\nrate_burst = 10000\n\n\
         [signer]\nkey_file = {key}\n\n\
         [http]\nlisten = \"{listen}\"\n",
        book = path("settled.db"),
        url = text(config.broker.url.expose()),
        enterprise = text(&enterprise),
        token = path("partner.token"),
        key = path("partner.key"),
        listen = free_address()?,
    );
    let file = folder.join("settled.toml");
    init::write(&file, &content)?;
    Ok(file)
}

/// Adds to the book what makes some orders end in a release: limits, a connection that is switched
/// off, and trades that took most of a balance.
fn change_book(folder: &Path, seed: &Seed) -> anyhow::Result<()> {
    let file = folder.join("book.jsonl");
    let mut lines = fs::read_to_string(&file)?;
    let [first, second] = seed.connections.as_slice() else {
        bail!("the seed has not two connections");
    };
    for event in [
        json!({"eventId": "demo-limits", "type": "currency.configured", "currency": "USDC",
               "enabled": true, "quantityMin": "1000", "quantityMax": "5000000000"}),
        json!({"eventId": "demo-off", "type": "connection.upserted", "connectionId": second.id,
               "clientId": second.client_id, "partnersClientId": second.partners_client_id,
               "partnersConnectionId": second.partners_connection_id, "active": false}),
        json!({"eventId": "demo-trades", "type": "balance.adjusted", "connectionId": first.id,
               "currency": "BTC", "delta": "-499000000"}),
    ] {
        lines.push_str(&event.to_string());
        lines.push('\n');
    }
    Ok(fs::write(&file, lines)?)
}

async fn declare(config: &BrokerConfig) -> anyhow::Result<String> {
    let connection = broker::connect(config, "demo").await.with_context(|| {
        format!("is RabbitMQ running at {}? `make demo` brings a private one", config.url)
    })?;
    let heard = format!("{}.heard", config.outcomes_exchange);
    let declared = async {
        broker::remove(&connection, config, &[&heard]).await?;
        broker::declare(&connection, config).await?;
        broker::declare_outcomes_queue(&connection, config).await
    }
    .await;
    broker::close(&connection, config.call_timeout()).await;
    Ok(declared?)
}

async fn remove(config: &BrokerConfig, outcomes_queue: &str) -> anyhow::Result<()> {
    let connection = broker::connect(config, "demo").await?;
    let removed = broker::remove(&connection, config, &[outcomes_queue]).await;
    broker::close(&connection, config.call_timeout()).await;
    Ok(removed?)
}

fn client(url: &str, seed: &Seed, token_file: &Path) -> anyhow::Result<SandboxClient> {
    let enterprise = seed.clients.first().context("the seed has no client")?;
    let token = secret_file::read(token_file)?;
    Ok(SandboxClient::new(url, &enterprise.enterprise_id, &token, false)?)
}

/// Another process of this program with the demo's configuration, and nothing of the environment's.
fn command(config_file: &Path, arguments: &[&str]) -> anyhow::Result<Command> {
    let mut command = Command::new(env::current_exe()?);
    let ours = |name: &std::ffi::OsStr| name.to_string_lossy().starts_with("SETTLED");
    for (name, _) in env::vars_os().filter(|(name, _)| ours(name)) {
        command.env_remove(name);
    }
    command.args(arguments).arg("--config").arg(config_file).stdin(Stdio::null());
    Ok(command)
}

async fn settled(config_file: &Path, arguments: &[&str]) -> anyhow::Result<()> {
    let output = command(config_file, arguments)?.output().await?;
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        bail!("settled {}: {error}", arguments.join(" "));
    }
    Ok(())
}

fn spawn(config_file: &Path, log: &Path, arguments: &[&str]) -> anyhow::Result<Child> {
    let log = File::create(log)?;
    let mut command = command(config_file, arguments)?;
    // A group of its own, so that Ctrl-C reaches the demo alone, which then ends them in order.
    command.process_group(0).kill_on_drop(true);
    Ok(command.stdout(log.try_clone()?).stderr(log).spawn()?)
}

async fn end(child: &mut Child) -> anyhow::Result<()> {
    let Some(id) = child.id() else { return Ok(()) };
    if let Some(process) = i32::try_from(id).ok().and_then(rustix::process::Pid::from_raw) {
        rustix::process::kill_process(process, rustix::process::Signal::TERM)?;
    }
    if tokio::time::timeout(PROCESS_LIMIT, child.wait()).await.is_err() {
        child.kill().await?;
    }
    Ok(())
}
