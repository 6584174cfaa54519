//! Sign: payload, nonce and signature become an attempt on disk. Nothing leaves before that commit.

use super::about;
use crate::{
    domain::{
        decision::Outcome,
        ids::{AttemptSeq, JobSeq},
        job::JobTerms,
        payload::{NONCE_BYTES, Nonce, Signature, Update},
        state::Event,
    },
    store::work::{NewAttempt, Work, WorkError},
};

/// An attempt that may be sent once the batch is committed, and once only.
#[derive(Clone, Debug)]
pub struct PreparedAttempt {
    /// For which job.
    pub job: JobSeq,
    /// Its number in the book.
    pub seq: AttemptSeq,
    /// Its number for the job.
    pub number: u32,
    /// What it is about.
    pub terms: JobTerms,
    /// The exact request body.
    pub body: String,
}

/// An attempt that lacks its signature only.
#[derive(Debug)]
pub struct Draft {
    job: JobSeq,
    terms: JobTerms,
    outcome: Outcome,
    nonce: Nonce,
    update: Update,
}

/// Drafts the next attempt of a decided job: its payload, with a fresh nonce.
///
/// # Errors
/// [`WorkError`] when the job is not to be sent.
pub fn draft(work: &mut Work, seq: JobSeq) -> Result<Draft, WorkError> {
    let _span = tracing::debug_span!("sign", record = about(work, seq)).entered();
    work.advance(seq, Event::Prepare, None)?;
    let job = work.job(seq)?;
    let terms = job.terms.clone();
    let decision = job.decision.clone().ok_or(WorkError::Undecided(seq))?;
    let nonce = Nonce::from_random_bytes(rand::random::<[u8; NONCE_BYTES]>());
    let update = Update::new(&terms, &decision, &nonce)?;
    Ok(Draft { job: seq, terms, outcome: decision.outcome(), nonce, update })
}

impl Draft {
    /// What is to be signed.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        self.update.payload().as_bytes()
    }

    /// Makes the draft an attempt; `signature` is `None` if the one that was made does not verify.
    ///
    /// # Errors
    /// [`WorkError`] when the signature does not verify.
    pub fn sign(
        self,
        work: &mut Work,
        signature: Option<Signature>,
    ) -> Result<PreparedAttempt, WorkError> {
        let Self { job, terms, outcome, nonce, update } = self;
        let signature = signature.ok_or(WorkError::BadSignature(job))?;
        let body = update.into_body(&signature)?;
        let attempt = NewAttempt { job, outcome, nonce, body: body.clone(), signature };
        let seq = work.insert_attempt(attempt)?;
        let number = work.job(job)?.attempts_made;
        Ok(PreparedAttempt { job, seq, number, terms, body })
    }
}
