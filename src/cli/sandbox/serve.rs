//! `settled sandbox serve`.

use std::{
    fs::File,
    io::Read as _,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use serde_json::{Map, Value, json};
use tokio::signal::unix::{SignalKind, signal};
use uuid::Uuid;

use super::{DEFAULT_LISTEN, output};
use crate::{
    clock::SystemClock,
    config::{BrokerConfig, BrokerUrl, Config},
    sandbox::{
        AccessToken, DEFAULT_PARTNER_ID, Fault, Rules, Sandbox, SandboxConfig, Scope, Seed, Side,
    },
    secret_file, telemetry,
};

/// Largest seed file, in bytes.
const SEED_BYTES_MAX: u64 = 64 * 1_024 * 1_024;

/// The window that `--rate-limit` counts in.
const RATE_WINDOW_MS: u64 = 60_000;

#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    /// Where it listens; port 0 takes a free one. The control routes have no token: keep it on
    /// loopback.
    #[arg(long, env = "SETTLED_SANDBOX_LISTEN", value_name = "ADDRESS", default_value = DEFAULT_LISTEN)]
    listen: SocketAddr,
    /// A JSON file with partner, currencies, clients and connections; `settled sandbox init` makes
    /// one.
    #[arg(long, value_name = "FILE")]
    seed: Option<PathBuf>,
    /// The partner's enterprise, instead of the seed's.
    #[arg(long, value_name = "ID")]
    partner_enterprise_id: Option<String>,
    /// The partner's id.
    #[arg(long, value_name = "UUID", default_value_t = DEFAULT_PARTNER_ID)]
    partner_id: Uuid,
    /// A compressed public key that may sign updates, besides the seed's. Can be given more than
    /// once.
    #[arg(long, value_name = "HEX")]
    partner_public_key: Vec<String>,
    /// A file with a token of the partner, with both scopes.
    #[arg(long, value_name = "FILE")]
    partner_token_file: Option<PathBuf>,
    /// A file with a token of the partner that may only read.
    #[arg(long, value_name = "FILE")]
    partner_read_token_file: Option<PathBuf>,
    /// A file with a token of the clients, with both scopes.
    #[arg(long, value_name = "FILE")]
    client_token_file: Option<PathBuf>,
    /// Requests that each token may make a minute; 0 for as many as it likes.
    #[arg(long, value_name = "REQUESTS")]
    rate_limit: Option<u32>,
    /// Change a rule, e.g. finalRepeat=accept or keyOrder=any. Can be given more than once; GET
    /// /_sandbox/rules shows them all.
    #[arg(long, value_name = "NAME=VALUE")]
    rule: Vec<String>,
    /// Program a fault, as JSON. Can be given more than once.
    #[arg(long, value_name = "JSON")]
    fault: Vec<String>,
    /// Seed of the generator that faults with a probability use.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    random_seed: u64,
    /// The broker that job messages go to, instead of broker.url; without a password, which belongs
    /// into `broker.password_file`.
    #[arg(long, value_name = "URL", conflicts_with = "no_jobs")]
    broker_url: Option<String>,
    /// Publish no job messages.
    #[arg(long)]
    no_jobs: bool,
}

pub(super) async fn run(config: Config, arguments: ServeArgs) -> anyhow::Result<()> {
    telemetry::start(&config.log)?;
    // Taken before anything starts, so that no signal falls into a gap.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let jobs = if arguments.no_jobs {
        None
    } else {
        Some(broker(config.broker, arguments.broker_url.as_deref())?)
    };
    let faults: Result<Vec<Fault>, _> = arguments
        .fault
        .iter()
        .map(|text| serde_json::from_str(text).with_context(|| format!("--fault {text}")))
        .collect();
    let sandbox = Sandbox::start(SandboxConfig {
        listen: arguments.listen,
        partner_id: arguments.partner_id,
        tokens: tokens(&arguments)?,
        rules: rules(&arguments)?,
        seed: seed(&arguments)?,
        faults: faults?,
        random_seed: arguments.random_seed,
        jobs,
        clock: Arc::new(SystemClock),
    })
    .await?;
    output::line(format_args!("the sandbox is at {}", sandbox.base_url()))?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    sandbox.stop().await;
    Ok(())
}

fn broker(mut config: BrokerConfig, url: Option<&str>) -> anyhow::Result<BrokerConfig> {
    if let Some(url) = url {
        // Every process of the machine sees the arguments of every other.
        let user = url.split_once("://").and_then(|(_, rest)| rest.rsplit_once('@'));
        ensure!(
            !user.is_some_and(|(user, _)| user.contains(':')),
            "--broker-url holds a password: put it into a file and name that in \
             broker.password_file, or set SETTLED__BROKER__URL instead"
        );
        config.url = BrokerUrl::from(url.to_owned());
    }
    Ok(config)
}

fn tokens(arguments: &ServeArgs) -> anyhow::Result<Vec<AccessToken>> {
    let mut tokens = Vec::new();
    for (flag, file, side, scopes) in [
        (
            "--partner-token-file",
            &arguments.partner_token_file,
            Side::Partner,
            vec![Scope::Read, Scope::Write],
        ),
        (
            "--partner-read-token-file",
            &arguments.partner_read_token_file,
            Side::Partner,
            vec![Scope::Read],
        ),
        (
            "--client-token-file",
            &arguments.client_token_file,
            Side::Client,
            vec![Scope::Read, Scope::Write],
        ),
    ] {
        if let Some(file) = file {
            let secret = secret_file::read(file).context(flag)?;
            tokens.push(AccessToken::new(side, &secret).with_scopes(scopes));
        }
    }
    if tokens.is_empty() {
        bail!(
            "no token would be accepted: name files with --partner-token-file and \
             --client-token-file. `settled sandbox init FOLDER` makes them, and all else that is \
             needed"
        );
    }
    Ok(tokens)
}

fn rules(arguments: &ServeArgs) -> anyhow::Result<Rules> {
    let mut changes = Map::new();
    if let Some(requests) = arguments.rate_limit {
        let limit = match requests {
            0 => Value::Null,
            requests => json!({ "requests": requests, "windowMs": RATE_WINDOW_MS }),
        };
        changes.insert("rateLimit".to_owned(), limit);
    }
    let rules = Rules::default().changed(changes).context("--rate-limit")?;
    rules.changed_by_pairs(&arguments.rule).context("--rule")
}

fn seed(arguments: &ServeArgs) -> anyhow::Result<Seed> {
    let mut seed = match &arguments.seed {
        Some(file) => read_seed(file).with_context(|| format!("--seed {}", file.display()))?,
        None => Seed::default(),
    };
    if let Some(enterprise) = &arguments.partner_enterprise_id {
        seed.partner.enterprise_id = Some(enterprise.clone());
    }
    ensure!(
        seed.partner.enterprise_id.is_some(),
        "the partner has no enterprise: name it with --partner-enterprise-id, or in the seed"
    );
    seed.partner.public_keys.extend(arguments.partner_public_key.iter().cloned());
    if seed.partner.public_keys.is_empty() {
        tracing::warn!("no public key of the partner is registered: no update will be accepted");
    }
    Ok(seed)
}

fn read_seed(file: &Path) -> anyhow::Result<Seed> {
    let mut text = String::new();
    File::open(file)?.take(SEED_BYTES_MAX.saturating_add(1)).read_to_string(&mut text)?;
    ensure!(
        u64::try_from(text.len()).is_ok_and(|bytes| bytes <= SEED_BYTES_MAX),
        "it has more than {SEED_BYTES_MAX} bytes"
    );
    Ok(serde_json::from_str(&text)?)
}
