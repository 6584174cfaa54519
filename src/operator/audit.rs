//! Everything about a book, read with its archives, that can be proved without asking anybody: that the file is whole, that its
//! balances follow from its movements, that nothing sealed was touched, and that what was sent is what
//! was signed and decided.

use serde::Serialize;

use crate::{
    domain::proof::{self, Claim},
    signer,
    store::{
        Readers, StoreError,
        verify::{
            ArchivesCheck, FAULTS_LISTED_MAX, Head, JournalCheck, SignedAttempt, Verification,
        },
    },
    tally::Tally,
};

/// Attempts that are checked at a time.
const PAGE: i64 = 500;

/// What was checked, and what is wrong.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Audit {
    /// What SQLite finds wrong with the file.
    pub file: Vec<String>,
    /// Balances and jobs against movements.
    pub balances: Verification,
    /// The chain of seals.
    pub journal: JournalCheck,
    /// Signatures.
    pub signatures: SignatureCheck,
    /// The archives that were read with the book.
    pub archives: ArchivesCheck,
}

/// What a check of the signatures found.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SignatureCheck {
    /// Attempts that were checked.
    pub attempts: u64,
    /// How many faults there are.
    pub faults_count: u64,
    /// The first of them, for a reader.
    pub faults: Vec<String>,
}

impl Audit {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.file.is_empty()
            && self.balances.holds()
            && self.journal.faults_count == 0
            && self.signatures.faults_count == 0
            && self.archives.faults_count == 0
    }

    /// What is wrong, a line for each.
    pub fn faults(&self) -> impl Iterator<Item = String> {
        let named = |part: &'static str, faults: &[String]| {
            faults.iter().map(move |fault| format!("{part}: {fault}")).collect::<Vec<_>>()
        };
        [
            named("file", &self.file),
            named("balances", &self.balances.faults),
            named("journal", &self.journal.faults),
            named("signatures", &self.signatures.faults),
            named("archives", &self.archives.faults),
        ]
        .into_iter()
        .flatten()
    }
}

/// Checks a book. `known` is a link of its journal that was noted elsewhere.
///
/// # Errors
/// [`StoreError`] when the book or one of its archives cannot be read.
pub async fn audit(readers: &Readers, known: Option<Head>) -> Result<Audit, StoreError> {
    audit_counting(readers, known, &Tally::default()).await
}

/// The same, counting rows as they are checked.
///
/// # Errors
/// [`StoreError`] when the book or one of its archives cannot be read.
pub async fn audit_counting(
    readers: &Readers,
    known: Option<Head>,
    tally: &Tally,
) -> Result<Audit, StoreError> {
    readers.has_all_archives()?;
    let archives = readers.check_archives().await?;
    // How long SQLite needs for the file nobody knows, so the count begins behind it.
    let file = readers.integrity_faults().await?;
    tally.expect(readers.rows_to_verify().await?);
    Ok(Audit {
        archives,
        file,
        journal: readers.check_journal(known, tally).await?,
        balances: readers.verify_counting(tally).await?,
        signatures: signatures(readers, tally).await?,
    })
}

async fn signatures(readers: &Readers, tally: &Tally) -> Result<SignatureCheck, StoreError> {
    let mut found = SignatureCheck::default();
    let mut after = 0;
    loop {
        let page = readers.signed_attempts(after, PAGE).await?;
        let Some(last) = page.last() else { return Ok(found) };
        after = last.seq;
        for attempt in &page {
            found.attempts = found.attempts.saturating_add(1);
            tally.add(1);
            if let Err(fault) = check(attempt) {
                found.faults_count = found.faults_count.saturating_add(1);
                if found.faults.len() < FAULTS_LISTED_MAX {
                    let (seq, record) = (attempt.seq, attempt.record_id);
                    found.faults.push(format!("attempt {seq} for record {record}: {fault}"));
                }
            }
        }
        // Recovering keys is work for the processor; others have work on this thread too.
        tokio::task::yield_now().await;
    }
}

fn check(attempt: &SignedAttempt) -> Result<(), String> {
    let claim = Claim {
        record_id: attempt.record_id,
        job_type: attempt.job_type,
        outcome: attempt.outcome,
        reject_reason: attempt.reject_reason.as_deref(),
        nonce: &attempt.nonce,
        signature: &attempt.signature,
    };
    let payload = proof::signed_payload(&attempt.body, &claim)?;
    let signed_by = signer::recover(payload.as_bytes(), &attempt.signature);
    if signed_by.as_ref() == Some(&attempt.public_key) {
        Ok(())
    } else {
        Err(format!("its signature is not by the key {}", attempt.public_key))
    }
}
