//! `settled sandbox init`: everything for a first run, in one folder.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::Path,
};

use anyhow::Context as _;
use serde_json::json;

use super::{DEFAULT_BASE_URL, output};
use crate::{sandbox::Seed, signer::SigningKey};

/// Bytes of randomness in a key or token.
const SECRET_BYTES: usize = 32;

/// Largest quantity that the book to begin with clears: more than any balance of the seed.
const QUANTITY_MAX: &str = "1000000000000000000000000";

/// Permissions of what is made: its owner's only.
const FOLDER_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

pub(super) fn run(folder: &Path) -> anyhow::Result<()> {
    let seed = make(folder)?;
    explain(&fs::canonicalize(folder)?, &seed)
}

/// Makes the folder and what is in it.
pub(in crate::cli) fn make(folder: &Path) -> anyhow::Result<Seed> {
    DirBuilder::new()
        .mode(FOLDER_MODE)
        .create(folder)
        .with_context(|| format!("cannot make the folder {}", folder.display()))?;
    let partner_key = secret();
    let client_key = secret();
    let public = |key: &str| SigningKey::from_text(key).map(|key| key.public_key());
    let seed = Seed::example(&public(&partner_key)?, &public(&client_key)?);
    for (name, content) in [
        ("partner.key", partner_key),
        ("client.key", client_key),
        ("partner.token", secret()),
        ("client.token", secret()),
        ("seed.json", serde_json::to_string_pretty(&seed)?),
        ("book.jsonl", book(&seed)),
    ] {
        write(&folder.join(name), &content)?;
    }
    Ok(seed)
}

/// A private key or a token: 64 hexadecimal characters. All but a vanishing share of such numbers
/// are private keys; one that is not is refused by name when its public key is computed.
fn secret() -> String {
    hex::encode(rand::random::<[u8; SECRET_BYTES]>())
}

/// Writes a new file that only its owner can read.
pub(in crate::cli) fn write(path: &Path, content: &str) -> anyhow::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(FILE_MODE)
        .open(path)
        .with_context(|| format!("cannot make {}", path.display()))?;
    writeln!(file, "{content}")?;
    Ok(())
}

/// The same world as the worker's book has it, for `settled book import`.
fn book(seed: &Seed) -> String {
    let mut lines = Vec::new();
    for currency in &seed.currencies {
        lines.push(json!({
            "eventId": format!("currency-{}", currency.partner_name),
            "type": "currency.configured",
            "currency": currency.partner_name,
            "enabled": true,
            "quantityMin": "1",
            "quantityMax": QUANTITY_MAX,
        }));
    }
    for connection in &seed.connections {
        lines.push(json!({
            "eventId": format!("connection-{}", connection.id),
            "type": "connection.upserted",
            "connectionId": connection.id,
            "clientId": connection.client_id,
            "partnersClientId": connection.partners_client_id,
            "partnersConnectionId": connection.partners_connection_id,
            "active": connection.active,
        }));
        for currency in &seed.currencies {
            let Some(units) = connection.balances.get(&currency.name) else {
                continue;
            };
            lines.push(json!({
                "eventId": format!("opening-{}-{}", connection.id, currency.partner_name),
                "type": "balance.adjusted",
                "connectionId": connection.id,
                "currency": currency.partner_name,
                "delta": units,
            }));
        }
    }
    let lines: Vec<String> = lines.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

fn explain(folder: &Path, seed: &Seed) -> anyhow::Result<()> {
    let path = |name: &str| folder.join(name).display().to_string();
    let enterprise = seed.partner.enterprise_id.as_deref().unwrap_or_default();
    let client = seed.clients.first();
    let client = client.map_or("", |client| client.enterprise_id.as_str());
    let connection = seed.connections.first();
    let connection = connection.map_or_else(String::new, |connection| connection.id.to_string());
    output::line(format_args!(
        "\
Made {folder}. To serve (job messages go to broker.url; --no-jobs leaves them out):

  settled sandbox serve --seed {seed} \\
    --partner-token-file {partner_token} --client-token-file {client_token}

The worker beside it:

  export SETTLED__OES__BASE_URL={DEFAULT_BASE_URL} SETTLED__OES__ENTERPRISE_ID={enterprise}
  export SETTLED__OES__ACCESS_TOKEN_FILE={partner_token} SETTLED__SIGNER__KEY_FILE={partner_key}
  settled book import {book} && settled run

A client:

  export SETTLED_SANDBOX_ENTERPRISE_ID={client}
  export SETTLED_SANDBOX_TOKEN_FILE={client_token} SETTLED_SANDBOX_KEY_FILE={client_key}
  settled sandbox allocate --connection-id {connection} --currency btc --quantity 150000 --wait",
        folder = folder.display(),
        seed = path("seed.json"),
        partner_token = path("partner.token"),
        client_token = path("client.token"),
        partner_key = path("partner.key"),
        client_key = path("client.key"),
        book = path("book.jsonl"),
    ))
}
