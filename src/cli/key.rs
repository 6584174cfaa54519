//! `settled key`.

use std::{
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use clap::Subcommand;

use super::output;
use crate::{
    config::{Config, ConfigError},
    secret_file,
    signer::SigningKey,
};

/// Largest payload that is signed from standard input, in bytes.
const PAYLOAD_BYTES_MAX: u64 = 16 * 1_024 * 1_024;

#[derive(Debug, Subcommand)]
pub(super) enum KeyCommand {
    /// Show the public key, its address and its fingerprint.
    Show {
        /// The key's file, instead of `signer.key_file`.
        #[arg(long, value_name = "FILE")]
        key_file: Option<PathBuf>,
    },
    /// Sign the exact bytes of standard input; prints 130 hexadecimal characters.
    ///
    /// For comparing with other implementations. Never sign an update by hand: the book would not know
    /// of it, and nothing would keep it from contradicting what was decided.
    Sign {
        /// The key's file, instead of `signer.key_file`.
        #[arg(long, value_name = "FILE")]
        key_file: Option<PathBuf>,
    },
}

pub(super) fn run(
    config: impl FnOnce() -> Result<Config, ConfigError>,
    command: KeyCommand,
) -> anyhow::Result<()> {
    match command {
        KeyCommand::Show { key_file } => {
            let key = load(config, key_file)?;
            output::line(format_args!("public key   {}", key.public_key()))?;
            output::line(format_args!("address      {}", key.address()))?;
            output::line(format_args!("fingerprint  {}", key.fingerprint()))
        }
        KeyCommand::Sign { key_file } => {
            let key = load(config, key_file)?;
            let mut payload = Vec::new();
            io::stdin()
                .lock()
                .take(PAYLOAD_BYTES_MAX.saturating_add(1))
                .read_to_end(&mut payload)?;
            if u64::try_from(payload.len()).is_ok_and(|length| length > PAYLOAD_BYTES_MAX) {
                bail!("the payload is larger than {PAYLOAD_BYTES_MAX} bytes");
            }
            let signature =
                key.sign(&payload).context("the signature does not verify: nothing is printed")?;
            output::line(signature)
        }
    }
}

fn load(
    config: impl FnOnce() -> Result<Config, ConfigError>,
    key_file: Option<PathBuf>,
) -> anyhow::Result<SigningKey> {
    let file = match key_file {
        Some(file) => file,
        None => config()?
            .signer
            .key_file
            .context("name a file with --key-file, or set signer.key_file")?,
    };
    from_file(&file)
}

fn from_file(file: &Path) -> anyhow::Result<SigningKey> {
    let text = secret_file::read(file)?;
    SigningKey::from_text(&text).with_context(|| format!("{}", file.display()))
}
