//! Sign: payload, nonce and signature become an attempt on disk. Nothing leaves before that commit.

use crate::{
    domain::{
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
    /// What it is about.
    pub terms: JobTerms,
    /// The exact request body.
    pub body: String,
}

/// Prepares the next attempt of a decided job. `sign` makes the signature over a payload, and answers
/// `None` if it does not verify.
///
/// # Errors
/// [`WorkError`] when the job is not to be sent, or the signature does not verify.
pub fn prepare(
    work: &mut Work,
    seq: JobSeq,
    sign: impl FnOnce(&[u8]) -> Option<Signature>,
) -> Result<PreparedAttempt, WorkError> {
    work.advance(seq, Event::Prepare, None)?;
    let job = work.job(seq)?;
    let terms = job.terms.clone();
    let decision = job.decision.clone().ok_or(WorkError::Undecided(seq))?;
    let nonce = Nonce::from_random_bytes(rand::random::<[u8; NONCE_BYTES]>());
    let update = Update::new(&terms, &decision, &nonce)?;
    let signature = sign(update.payload().as_bytes()).ok_or(WorkError::BadSignature(seq))?;
    let body = update.into_body(&signature)?;
    let attempt =
        NewAttempt { job: seq, outcome: decision.outcome(), nonce, body: body.clone(), signature };
    let attempt_seq = work.insert_attempt(attempt)?;
    Ok(PreparedAttempt { job: seq, seq: attempt_seq, terms, body })
}
