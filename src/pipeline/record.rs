//! Record: a message becomes a job once, whatever the broker repeats.

use sha2::{Digest as _, Sha256};

use crate::{
    domain::{
        adopt::ADOPTED_QUEUE,
        feed::BookSequence,
        ids::JobSeq,
        job::JobTerms,
        message::{Refusal, RefusalCode},
    },
    store::work::{BadMessage, Work},
};

/// A message that reads as a job.
#[derive(Clone, Debug)]
pub struct Intake {
    /// What it is about.
    pub terms: JobTerms,
    /// The message as it came.
    pub raw: String,
    /// The queue it came from.
    pub queue: String,
    /// How far its connection's feed must have come before it is decided.
    pub book_sequence: Option<BookSequence>,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// A new job.
    New(JobSeq),
    /// The same job again: nothing to do but to acknowledge it.
    Repeated(JobSeq),
    /// The record is known with other content: the first message keeps the id.
    Contradicts(JobSeq),
    /// OES's record was seen to be something else: it is counted in the quarantine.
    RefusedBefore,
}

/// Records a message.
pub fn record(work: &mut Work, intake: &Intake) -> Recorded {
    let _span = tracing::debug_span!("record", record = %intake.terms.record_id).entered();
    let Some(known) = work.find(intake.terms.record_id) else {
        // OES's own record, taken in by a sweep, is what it is.
        let is_refused = intake.queue != ADOPTED_QUEUE
            && work.was_refused(intake.terms.record_id, intake.terms.content_hash());
        if is_refused {
            let refusal = Refusal::new(
                RefusalCode::NotAsAtOes,
                "the same content was refused before, because OES's record is another",
            );
            let mut message = bad_message(&intake.queue, intake.raw.clone().into_bytes(), refusal);
            message.record_id = Some(intake.terms.record_id);
            work.quarantine(message);
            return Recorded::RefusedBefore;
        }
        return Recorded::New(work.insert_job(
            intake.terms.clone(),
            intake.raw.clone(),
            intake.book_sequence,
        ));
    };
    let seq = known.seq;
    if known.content_hash == intake.terms.content_hash() {
        return Recorded::Repeated(seq);
    }
    let refusal = Refusal::new(
        RefusalCode::ContentDiffers,
        format!(
            "record {} is known with other content (job {seq}); the first message holds",
            intake.terms.record_id
        ),
    );
    let mut message = bad_message(&intake.queue, intake.raw.clone().into_bytes(), refusal);
    message.record_id = Some(intake.terms.record_id);
    work.quarantine(message);
    Recorded::Contradicts(seq)
}

/// Records a message that an operator puts back in. That the same content was refused before does not count:
/// its record is read again.
pub fn put_back_in(work: &mut Work, intake: &Intake) -> Recorded {
    work.forget_refusal(intake.terms.record_id, intake.terms.content_hash());
    record(work, intake)
}

/// A message for the quarantine.
#[must_use]
pub fn bad_message(queue: &str, bytes: Vec<u8>, refusal: Refusal) -> BadMessage {
    BadMessage {
        queue: queue.to_owned(),
        sha256: Sha256::digest(&bytes).into(),
        bytes,
        refusal,
        record_id: None,
    }
}
