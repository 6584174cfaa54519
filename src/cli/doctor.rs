//! `settled doctor`: what is wrong, and what to do.

use std::{path::Path, sync::Arc};

use anyhow::bail;

use super::output;
use crate::{
    alerts::Channels,
    broker::{self, BrokerError},
    clock::{Clock as _, SystemClock},
    config::Config,
    control::ControlClient,
    domain::message::MESSAGE_BYTES_MAX,
    oes::{OesClient, ReadError},
    secret_file,
    signer::SigningKey,
    store::{
        Mark,
        alerts::Channel,
        archive::open_history,
        lock::{BookLock, LockError, socket_path},
        mark::Standing,
        open_readers,
    },
    traces::Collector,
};

/// What one check found.
enum Finding {
    Good(String),
    /// Not wrong, but could not be seen or is not there yet.
    Note(String),
    Bad(String),
}

struct Report {
    bad: usize,
}

impl Report {
    fn tell(&mut self, part: &str, finding: Finding) -> anyhow::Result<()> {
        let (mark, text) = match finding {
            Finding::Good(text) => ("ok  ", text),
            Finding::Note(text) => ("note", text),
            Finding::Bad(text) => {
                self.bad = self.bad.saturating_add(1);
                ("BAD ", text)
            }
        };
        let text = text.replace('\n', "\n                 ");
        output::line(format_args!("{mark}  {part:<10} {text}"))
    }
}

pub(super) async fn run(file: Option<&Path>) -> anyhow::Result<()> {
    let mut report = Report { bad: 0 };
    let config = match Config::load(file) {
        Ok(config) => {
            report.tell("config", Finding::Good("read, and every key is known".to_owned()))?;
            config
        }
        Err(error) => {
            report.tell("config", Finding::Bad(error.to_string()))?;
            bail!("nothing else can be checked without a configuration");
        }
    };
    report.tell("limits", Finding::Note(limits(&config)))?;
    report.tell("key", key(&config))?;
    for finding in book(&config).await {
        report.tell("book", finding)?;
    }
    for finding in broker(&config).await {
        report.tell("broker", finding)?;
    }
    report.tell("oes", oes(&config).await)?;
    report.tell("alerts", alerts(&config))?;
    if let Some(finding) = traces(&config).await {
        report.tell("traces", finding)?;
    }
    if report.bad == 0 { Ok(()) } else { bail!("{} things need attention", report.bad) }
}

/// The limits that hold, a line for each room.
fn limits(config: &Config) -> String {
    let Config { broker, oes, retry, writer, shutdown, .. } = config;
    [
        format!(
            "messages up to {MESSAGE_BYTES_MAX} bytes, {} unacknowledged; {} ms to connect to the \
             broker, {} ms for a call",
            broker.prefetch, broker.connect_timeout_ms, broker.call_timeout_ms
        ),
        format!(
            "{} requests to OES in {} s, {} at once, {} updates in flight; {} ms for a request, {} \
             bytes of an answer",
            oes.rate_limit,
            oes.rate_window_s,
            oes.rate_burst,
            oes.in_flight_max,
            oes.request_timeout_ms,
            oes.response_bytes_max
        ),
        format!(
            "parked after {} attempts or {} s; delays from {} to {} ms",
            retry.attempts_max, retry.age_max_s, retry.base_ms, retry.max_ms
        ),
        format!(
            "{} changes in a commit, {} waiting; {} s to end",
            writer.batch_max, writer.queue_len_max, shutdown.grace_s
        ),
    ]
    .join("\n")
}

/// Whether anybody is told of alerts. Nothing is sent: that is for `settled alerts test`.
fn alerts(config: &Config) -> Finding {
    let channels = match Channels::new(&config.alerts) {
        Ok(channels) => channels,
        Err(error) => return Finding::Bad(error.to_string()),
    };
    let mut ways: Vec<&str> = channels.configured().into_iter().map(Channel::as_str).collect();
    if channels.has_heartbeat() {
        ways.push("heartbeat");
    }
    if ways.is_empty() {
        return Finding::Note(
            "nobody is told by the daemon itself: set alerts.webhook_url or alerts.command, or have \
             Prometheus watch /metrics with the rules in config/alerts.yml"
                .to_owned(),
        );
    }
    Finding::Good(format!("{} can be used; `settled alerts test` sends a notice", ways.join(", ")))
}

/// Whether the collector takes spans, where one is configured: it is sent a request without any.
async fn traces(config: &Config) -> Option<Finding> {
    let collector = match Collector::new(&config.traces) {
        Ok(collector) => collector?,
        Err(error) => return Some(Finding::Bad(error.to_string())),
    };
    Some(match collector.probe().await {
        Ok(()) => Finding::Good(format!("{collector} takes spans")),
        Err(error) => Finding::Bad(format!(
            "{error}. Check traces.endpoint, its path (mostly /v1/traces), and traces.headers_file"
        )),
    })
}

fn key(config: &Config) -> Finding {
    let Some(file) = &config.signer.key_file else {
        return Finding::Bad("signer.key_file is not set: name a file with the xprv".to_owned());
    };
    let text = match secret_file::read(file) {
        Ok(text) => text,
        Err(error) => return Finding::Bad(format!("signer.key_file: {error}")),
    };
    let key = match SigningKey::from_text(&text) {
        Ok(key) => key,
        Err(error) => return Finding::Bad(format!("signer.key_file: {error}")),
    };
    if !key.self_test() {
        return Finding::Bad(
            "the signer's self-test failed: do not sign on this machine".to_owned(),
        );
    }
    match &config.signer.expected_public_key {
        Some(expected) if !expected.eq_ignore_ascii_case(&key.public_key()) => {
            Finding::Bad(format!(
                "the key has the public key {}, and signer.expected_public_key is {expected}: one of \
             them belongs to another environment",
                key.public_key()
            ))
        }
        Some(_) => Finding::Good(format!("public key {}, as expected", key.public_key())),
        None => Finding::Note(format!(
            "public key {}; set signer.expected_public_key to it, so that a wrong file is noticed",
            key.public_key()
        )),
    }
}

async fn book(config: &Config) -> Vec<Finding> {
    let path = &config.store.path;
    if !path.exists() {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        return vec![match folder {
            Some(folder) if !folder.is_dir() => {
                Finding::Bad(format!("there is no folder {}: make it", folder.display()))
            }
            Some(_) | None => Finding::Note(format!(
                "{} does not exist yet: the first start makes it",
                path.display()
            )),
        }];
    }
    let mut findings = vec![match BookLock::take(path, "settled doctor") {
        Ok(_lock) => Finding::Note("no daemon is running on the book".to_owned()),
        Err(LockError::Held { holder, .. }) => daemon(path, &holder).await,
        Err(error) => Finding::Bad(error.to_string()),
    }];
    findings.extend(mark(config).await);
    findings.extend(unproven(config).await);
    let verified = match open_history(path).await {
        Ok(readers) => match readers.has_all_archives() {
            Ok(()) => readers.verify().await,
            Err(error) => Err(error),
        },
        Err(error) => Err(error),
    };
    findings.push(match verified {
        Ok(found) if found.holds() => Finding::Good(format!(
            "{} jobs, {} movements, {} accounts: the book holds",
            found.jobs, found.transfers, found.accounts
        )),
        Ok(found) => Finding::Bad(format!(
            "{} differences; `settled book verify` lists them. Stop the daemon and ask for help",
            found.faults_count
        )),
        Err(error) => Finding::Bad(error.to_string()),
    });
    findings
}

/// How the book stands to its mark.
async fn mark(config: &Config) -> Option<Finding> {
    let Some(mark_path) = &config.store.mark_path else {
        return Some(Finding::Note(
            "store.mark_path is not set: a database that is restored from a backup is not recognised, \
             and could decide again what was decided after the backup"
                .to_owned(),
        ));
    };
    let standing = async {
        let readers = open_readers(&config.store.path).await?;
        let (ledger, attempt) = readers.last_signed().await?;
        Ok::<_, anyhow::Error>(Mark::open(mark_path)?.standing(ledger, attempt))
    };
    Some(match standing.await {
        Ok(Standing::Fits) => Finding::Good(format!("{} (mark)", Standing::Fits)),
        Ok(standing) => {
            let next = standing.next_step(config.broker.book_queue.is_some());
            Finding::Bad(format!("{standing}. Next: {next}"))
        }
        Err(error) => Finding::Bad(error.to_string()),
    })
}

/// The connections about which nothing is decided since the book was restored.
async fn unproven(config: &Config) -> Option<Finding> {
    let unproven = async { open_readers(&config.store.path).await?.unproven().await };
    match unproven.await {
        Ok(unproven) => unproven.map(|unproven| Finding::Bad(unproven.to_string())),
        Err(error) => Some(Finding::Bad(error.to_string())),
    }
}

async fn daemon(path: &Path, holder: &str) -> Finding {
    let asked = async {
        let caller = super::caller(None)?;
        Ok::<_, anyhow::Error>(ControlClient::new(&socket_path(path)?, caller)?.status().await?)
    };
    match asked.await {
        Ok(readiness) if readiness.get("ready") == Some(&true.into()) => {
            Finding::Good(format!("{holder} holds it and is ready"))
        }
        Ok(_) => Finding::Bad(format!(
            "{holder} holds it and is not ready: `settled status` says which part"
        )),
        Err(error) => Finding::Bad(format!("{holder} holds it, but {error}")),
    }
}

async fn broker(config: &Config) -> Vec<Finding> {
    let connection = match broker::connect(&config.broker, "doctor").await {
        Ok(connection) => connection,
        Err(error) => {
            return vec![Finding::Bad(format!(
                "{error}. Check broker.url ({}) and that RabbitMQ runs there",
                config.broker.url
            ))];
        }
    };
    let mut findings = vec![Finding::Good(format!("RabbitMQ answers at {}", config.broker.url))];
    match broker::check(&connection, &config.broker).await {
        Ok(lines) => findings.extend(lines.into_iter().map(|line| match line {
            Ok(text) => Finding::Good(text),
            Err(error @ BrokerError::Missing { .. }) if config.broker.declare => {
                Finding::Note(format!("{error}; `settled run` will declare it"))
            }
            Err(error) => Finding::Bad(error.to_string()),
        })),
        Err(error) => findings.push(Finding::Bad(error.to_string())),
    }
    findings.push(Finding::Note(
        "what arguments the queues have cannot be seen without declaring them: `settled topology` \
         compares them"
            .to_owned(),
    ));
    broker::close(&connection, config.broker.call_timeout()).await;
    findings
}

async fn oes(config: &Config) -> Finding {
    let client = match OesClient::new(&config.oes, Arc::new(SystemClock)) {
        Ok(client) => client,
        Err(error) => return Finding::Bad(error.to_string()),
    };
    let begun = SystemClock.now();
    match client.probe().await {
        Ok(()) => Finding::Good(format!(
            "a read succeeded in {}; whether the token may write shows with the first update",
            output::duration(SystemClock.now().since(begun))
        )),
        Err(ReadError::TokenRefused(status)) => Finding::Bad(format!(
            "OES answered {status}: check the token in oes.access_token_file, its scope \
             settlement_network_read, its IP addresses, and oes.enterprise_id"
        )),
        Err(error @ ReadError::RateLimited { .. }) => Finding::Note(error.to_string()),
        Err(error) => Finding::Bad(format!("{error}. Check oes.base_url and the way there")),
    }
}
