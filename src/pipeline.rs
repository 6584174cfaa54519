//! The path of a job, one file a step, in this order:
//!
//! | step | does | acts in |
//! |---|---|---|
//! | [`receive`] | takes deliveries from the queue, acknowledges them once they are recorded | its own loop |
//! | [`record`] | a job, a repetition, or a message for the quarantine | the writer |
//! | [`verify`] | whether OES's record is what the message says, where that is asked for | the writer, and its own loop |
//! | [`decide`] | cleared or released, with the hold | the writer, and a loop for jobs that waited |
//! | [`sign`] | payload, nonce, signature: an attempt on disk | the writer |
//! | [`send`] | one PUT of an attempt | its own loop |
//! | [`resolve`] | reads back every record whose outcome is not certain | its own loop |
//! | [`confirm`] | what an answer or a read means for job, money and announcement | the writer |
//! | [`announce`] | publishes outcomes and dead letters from the outbox | its own loop |
//!
//! and [`send_on`], for a parked job that an operator lets go on, [`approve`], for one that waits for an
//! operator's word, [`close`], for one that two operators say the end of, and [`archive`], for what happened
//! to jobs that are over for long.
//!
//! The steps that act in the writer are plain functions on a [`crate::store::work::Work`]; what they
//! do is true once the writer has committed it. The loops share only the database and wake-ups
//! ([`wake`]); how much may be sent is kept in [`budget`], what operators have switched off in
//! [`switches`], and records are read through [`read`].
//!
//! What must never happen here: a send without a committed attempt, an acknowledgement before a
//! commit, a rule about money that is not in `domain`.

use crate::{
    domain::ids::{JobSeq, RecordId},
    store::work::Work,
};

pub mod accept;
pub mod announce;
pub mod approve;
pub mod archive;
pub mod book_gate;
pub mod budget;
pub mod close;
pub mod confirm;
pub mod decide;
pub mod feed;
pub mod read;
pub mod receive;
pub mod record;
pub mod resolve;
pub mod send;
pub mod send_on;
pub mod sign;
pub mod switches;
pub mod verify;
pub mod wake;

/// Which record a job is about, for the span of a step: whatever is logged in it then names the record.
fn about(work: &Work, seq: JobSeq) -> Option<tracing::field::DisplayValue<RecordId>> {
    work.job(seq).ok().map(|job| tracing::field::display(job.terms.record_id))
}
