//! `settled jobs evidence` and `settled verify --evidence`.

use std::{
    fs::OpenOptions,
    io::{Read as _, Write as _},
    path::Path,
};

use anyhow::{Context as _, bail, ensure};

use super::output;
use crate::{
    clock::{Clock as _, SystemClock},
    config::Config,
    domain::{
        decision::Outcome,
        evidence::{Evidence, Findings},
        ids::RecordId,
    },
    operator, signer,
    store::archive::open_history,
};

/// Largest evidence that is read, in bytes.
const EVIDENCE_BYTES_MAX: u64 = 64 * 1_024 * 1_024;

/// Writes the evidence for one record to a file, or to standard output.
pub(super) async fn export(
    config: &Config,
    id: RecordId,
    file: Option<&Path>,
) -> anyhow::Result<()> {
    let readers = open_history(&config.store.path).await?;
    let evidence = operator::evidence::evidence(&readers, id, SystemClock.now())
        .await?
        .with_context(|| format!("there is no job about record {id}"))?;
    // What is handed out is what whoever gets it will check.
    check(&evidence).map_err(anyhow::Error::msg).context("the book contradicts itself")?;
    let Some(file) = file else { return output::json(&evidence) };
    let mut made = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(file)
        .with_context(|| format!("cannot make {}", file.display()))?;
    serde_json::to_writer_pretty(&mut made, &evidence)?;
    made.write_all(b"\n")?;
    made.sync_all().with_context(|| format!("cannot write {}", file.display()))?;
    output::line(format_args!("written to {}", file.display()))
}

/// Checks evidence that somebody handed over. Needs nothing else.
pub(super) fn verify(file: &Path) -> anyhow::Result<()> {
    let mut text = String::new();
    std::fs::File::open(file)
        .and_then(|opened| {
            opened.take(EVIDENCE_BYTES_MAX.saturating_add(1)).read_to_string(&mut text)
        })
        .with_context(|| format!("cannot read {}", file.display()))?;
    ensure!(
        u64::try_from(text.len()).is_ok_and(|length| length <= EVIDENCE_BYTES_MAX),
        "{} is larger than any evidence",
        file.display()
    );
    let evidence: Evidence = serde_json::from_str(&text)
        .with_context(|| format!("{} is no evidence", file.display()))?;
    let found = match check(&evidence) {
        Ok(found) => found,
        Err(fault) => bail!("{} does not hold: {fault}", file.display()),
    };
    let word = |outcome: Option<Outcome>, none| outcome.map_or(none, Outcome::as_str);
    output::line(format_args!(
        "record {} of ledger {}: decided {}, ended {}",
        evidence.record_id,
        evidence.ledger,
        word(found.decided, "not yet"),
        word(found.ended, "not yet")
    ))?;
    for signature in &found.signatures {
        output::line(format_args!(
            "attempt {}: signed by {}",
            signature.attempt, signature.public_key
        ))?;
    }
    let (first, last) = found.seals.unwrap_or_default();
    output::line(format_args!(
        "{} rows are as they were sealed, in seals {first} to {last}; `settled verify --known \
         SEAL:HASH` on the book says whether a seal is in its chain",
        found.rows
    ))?;
    for seal in &evidence.seals {
        output::line(format_args!("  {}:{}", seal.commit, seal.chain))?;
    }
    Ok(())
}

/// The rows against their seals, and the signatures against their keys.
fn check(evidence: &Evidence) -> Result<Findings, String> {
    let found = evidence.check()?;
    for claim in &found.signatures {
        let signed_by = signer::recover(claim.payload.as_bytes(), &claim.signature);
        if signed_by.as_ref() != Some(&claim.public_key) {
            return Err(format!("attempt {}: not signed by {}", claim.attempt, claim.public_key));
        }
    }
    Ok(found)
}
