//! `settled sandbox`.

pub(super) mod init;
mod serve;

use std::{path::PathBuf, time::Duration};

use anyhow::Context as _;
use clap::{Args, Subcommand};

use super::output;
use crate::{
    config::{Config, ConfigError},
    domain::{
        ids::{ConnectionId, RecordId},
        job::JobType,
    },
    sandbox::{ClientAnswer, ClientOrder, Fault, SandboxClient},
    secret_file,
    signer::SigningKey,
};

/// Where a sandbox listens unless it is told otherwise.
const DEFAULT_LISTEN: &str = "127.0.0.1:9460";

/// Where a client looks for one.
const DEFAULT_BASE_URL: &str = "http://127.0.0.1:9460";

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct SandboxArgs {
    #[command(subcommand)]
    command: Option<SandboxCommand>,
    #[command(flatten)]
    serve: serve::ServeArgs,
}

#[derive(Debug, Subcommand)]
enum SandboxCommand {
    /// Serve; what `settled sandbox` does without a command.
    Serve(Box<serve::ServeArgs>),
    /// Make a folder with keys, tokens, a seed and a book to begin with, and say what to run next.
    Init {
        /// The folder; it is made, and must not be there yet.
        folder: PathBuf,
    },
    /// Play the client: allocate to a connection.
    Allocate(OrderArgs),
    /// Play the client: deallocate from a connection.
    Deallocate(OrderArgs),
    /// Play the client: show a record.
    Get {
        /// The record.
        id: RecordId,
        #[command(flatten)]
        access: AccessArgs,
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// Play the client: show what the client and its connections have.
    Balances {
        #[command(flatten)]
        access: AccessArgs,
    },
    /// Show what a sandbox has seen: counts, contradictions, repeated nonces, waiting faults.
    State {
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// Program a fault of a sandbox, e.g.
    /// `{"on":["update"],"times":{"next":2},"effect":{"kind":"reset","when":"after"}}`.
    Fault {
        /// The fault, as JSON.
        fault: String,
        #[command(flatten)]
        place: PlaceArgs,
    },
}

/// Where the sandbox is.
#[derive(Debug, Args)]
struct PlaceArgs {
    /// Scheme and host of the sandbox (or of another OES).
    #[arg(long, env = "SETTLED_SANDBOX_BASE_URL", default_value = DEFAULT_BASE_URL)]
    base_url: String,
    /// Allow http:// to another machine.
    #[arg(long)]
    allow_plain_http: bool,
}

/// Who the client is.
#[derive(Debug, Args)]
struct AccessArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// The client's enterprise.
    #[arg(long, env = "SETTLED_SANDBOX_ENTERPRISE_ID", value_name = "ID")]
    enterprise_id: String,
    /// A file with the client's access token.
    #[arg(long, env = "SETTLED_SANDBOX_TOKEN_FILE", value_name = "FILE")]
    token_file: PathBuf,
}

/// Whether and how long to wait.
#[derive(Debug, Args)]
struct WaitArgs {
    /// Wait until the record is final, and show it then.
    #[arg(long)]
    wait: bool,
    /// For how long at most.
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    wait_limit_s: u64,
}

/// What the client wants.
#[derive(Debug, Args)]
struct OrderArgs {
    #[command(flatten)]
    access: AccessArgs,
    /// The connection.
    #[arg(long, value_name = "ID")]
    connection_id: ConnectionId,
    /// The currency as clients name it.
    #[arg(long, value_name = "NAME")]
    currency: String,
    /// How much, in base units.
    #[arg(long)]
    quantity: String,
    /// The client's own id of it; the same again is the same order. A new one if it is not given.
    #[arg(long, value_name = "ID")]
    client_external_id: Option<String>,
    /// Notes, which are signed and kept with the record.
    #[arg(long)]
    notes: Option<String>,
    /// A file with the client's signing key.
    #[arg(long, env = "SETTLED_SANDBOX_KEY_FILE", value_name = "FILE")]
    key_file: PathBuf,
    #[command(flatten)]
    wait: WaitArgs,
}

pub(super) async fn run(
    config: impl FnOnce() -> Result<Config, ConfigError>,
    arguments: SandboxArgs,
) -> anyhow::Result<()> {
    match arguments.command {
        None => serve::run(config()?, arguments.serve).await,
        Some(SandboxCommand::Serve(serve)) => serve::run(config()?, *serve).await,
        Some(SandboxCommand::Init { folder }) => init::run(&folder),
        Some(SandboxCommand::Allocate(order)) => place(JobType::Allocation, order).await,
        Some(SandboxCommand::Deallocate(order)) => place(JobType::Deallocation, order).await,
        Some(SandboxCommand::Get { id, access, wait }) => {
            let client = client(&access)?;
            let answer = client.get(id).await?;
            show(&client, answer, &wait).await
        }
        Some(SandboxCommand::Balances { access }) => {
            output::json(&client(&access)?.balances().await?)
        }
        Some(SandboxCommand::State { place }) => output::json(&visitor(&place)?.overview().await?),
        Some(SandboxCommand::Fault { fault, place }) => {
            let fault: Fault = serde_json::from_str(&fault).context("this is not a fault")?;
            Ok(visitor(&place)?.inject(&fault).await?)
        }
    }
}

fn client(access: &AccessArgs) -> anyhow::Result<SandboxClient> {
    let token = secret_file::read(&access.token_file).context("--token-file")?;
    let place = &access.place;
    Ok(SandboxClient::new(&place.base_url, &access.enterprise_id, &token, place.allow_plain_http)?)
}

/// Somebody who only uses control routes, which need no token.
fn visitor(place: &PlaceArgs) -> anyhow::Result<SandboxClient> {
    Ok(SandboxClient::new(&place.base_url, "", "", place.allow_plain_http)?)
}

async fn place(record_type: JobType, order: OrderArgs) -> anyhow::Result<()> {
    let client = client(&order.access)?;
    let text = secret_file::read(&order.key_file).context("--key-file")?;
    let key = SigningKey::from_text(&text)
        .with_context(|| format!("--key-file {}", order.key_file.display()))?;
    let answer = client
        .order(
            &key,
            &ClientOrder {
                record_type,
                connection_id: order.connection_id,
                currency: order.currency,
                quantity: order.quantity,
                client_external_id: order
                    .client_external_id
                    .unwrap_or_else(|| uuid::Uuid::new_v4().to_string()),
                notes: order.notes,
            },
        )
        .await?;
    show(&client, answer, &order.wait).await
}

/// Shows a record, and how it ends if that is wanted.
async fn show(client: &SandboxClient, answer: ClientAnswer, wait: &WaitArgs) -> anyhow::Result<()> {
    output::json(&answer.raw)?;
    if !wait.wait {
        return Ok(());
    }
    let ended = if answer.record.is_final() {
        answer
    } else {
        let limit = Duration::from_secs(wait.wait_limit_s);
        client.wait_until_final(answer.record.id, limit).await?
    };
    let record = ended.record;
    match record.reason {
        Some(reason) => output::line(format_args!("{}: {reason}", record.status)),
        None => output::line(record.status),
    }
}
