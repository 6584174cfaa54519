//! Sign: payload, nonce and signature become an attempt on disk. Nothing leaves before that commit.

use super::about;
use crate::{
    domain::{
        decision::Outcome,
        ids::{AttemptSeq, JobSeq},
        job::JobTerms,
        payload::{Nonce, Signature, Update},
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
    seq: AttemptSeq,
    number: u32,
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
    let (attempt, number) = work.begin_attempt(seq)?;
    let job = work.job(seq)?;
    let terms = job.terms.clone();
    let decision = job.decision.clone().ok_or(WorkError::Undecided(seq))?;
    let nonce = Nonce::new(work.now(), rand::random());
    let update = Update::new(&terms, &decision, &nonce)?;
    let outcome = decision.outcome();
    Ok(Draft { job: seq, seq: attempt, number, terms, outcome, nonce, update })
}

impl Draft {
    /// For which job.
    #[must_use]
    pub const fn job(&self) -> JobSeq {
        self.job
    }

    /// What is to be signed.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        self.update.payload().as_bytes()
    }

    /// Makes the draft an attempt: its row, and what is sent once the row is committed. `signature` is `None` if
    /// the one that was made does not verify.
    ///
    /// # Errors
    /// [`WorkError`] when the signature does not verify.
    pub fn sign(
        self,
        signature: Option<Signature>,
    ) -> Result<(NewAttempt, PreparedAttempt), WorkError> {
        let Self { job, seq, number, terms, outcome, nonce, update } = self;
        let signature = signature.ok_or(WorkError::BadSignature(job))?;
        let body = update.into_body(&signature)?;
        let prepared = PreparedAttempt { job, seq, number, terms, body: body.clone() };
        Ok((NewAttempt { seq, number, job, outcome, nonce, body, signature }, prepared))
    }
}
