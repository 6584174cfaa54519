//! The key at the start: whether it may sign, and whether the book fits what was signed before.

use anyhow::Context as _;

use crate::{
    config::{Config, SignerConfig},
    signer::SigningKey,
    store::{Mark, OpenedBook, mark::Standing},
};

/// The key, or why nothing may be signed, and the mark of what is signed. A book that does not fit its
/// mark signs nothing, and the mark stays as it is.
pub(super) fn fit_to_sign(
    config: &Config,
    book: &OpenedBook,
    key: Result<SigningKey, String>,
) -> anyhow::Result<(Result<SigningKey, String>, Option<Mark>)> {
    let Some(path) = &config.store.mark_path else { return Ok((key, None)) };
    let mark = Mark::open(path)?;
    Ok(match mark.standing(book.ledger_uuid, book.counters.last_attempt()) {
        Standing::Fits => (key, Some(mark)),
        standing @ (Standing::Behind(_) | Standing::Foreign(_)) => {
            let next = standing.next_step(config.broker.book_queue.is_some());
            let fault = format!("{standing}. Next: {next}");
            tracing::error!(fault, "nothing is decided or signed");
            (Err(fault), None)
        }
    })
}

/// The signing key, or why nothing may be signed with it. A key that cannot be read is no key at all
/// and stops the start; a wrong one leaves the daemon taking jobs in, and not ready.
pub(super) fn load_key(config: &SignerConfig) -> anyhow::Result<Result<SigningKey, String>> {
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
