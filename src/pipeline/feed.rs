//! Feed: an event of the exchange becomes a fact of the book, at most once, whatever the broker repeats.

use super::record::bad_message;
use crate::{
    domain::{
        book::{BookEvent, BookEventError},
        message::{Refusal, RefusalCode},
        object::ObjectError,
    },
    store::work::{BookEventOutcome, Work, WorkError},
};

/// A message of the feed that reads as an event.
#[derive(Clone, Debug)]
pub struct FedEvent {
    /// What it says.
    pub event: BookEvent,
    /// The message as it came.
    pub raw: String,
    /// The queue it came from.
    pub queue: String,
}

/// Reads one message of the feed.
///
/// # Errors
/// A [`Refusal`] that says what is wrong with it.
pub fn read(bytes: &[u8]) -> Result<(BookEvent, &str), Refusal> {
    let text = std::str::from_utf8(bytes)
        .map_err(|error| Refusal::new(RefusalCode::NotUtf8, error.to_string()))?;
    let event = BookEvent::parse(text).map_err(|error| {
        let code = match &error {
            BookEventError::TooLarge { .. } => RefusalCode::TooLarge,
            BookEventError::Object(ObjectError::NotJson(_)) => RefusalCode::NotJson,
            BookEventError::Object(ObjectError::BadField(_))
            | BookEventError::LimitsCross(_)
            | BookEventError::TotalRepeated(_) => RefusalCode::BadField,
        };
        Refusal::new(code, error.to_string())
    })?;
    Ok((event, text))
}

/// Takes an event in. One that contradicts what is known under its id, or that is about a connection that
/// the book does not have, goes into quarantine in the same transaction.
///
/// # Errors
/// [`WorkError`] when it cannot be represented.
pub fn take(work: &mut Work, fed: &FedEvent) -> Result<BookEventOutcome, WorkError> {
    let outcome = work.apply_book_event(&fed.event, &format!("feed:{}", fed.queue))?;
    let refusal = match outcome {
        BookEventOutcome::Contradicts => Refusal::new(
            RefusalCode::ContentDiffers,
            format!("event {} is known with other content; the first one holds", fed.event.id()),
        ),
        BookEventOutcome::UnknownConnection => Refusal::new(
            RefusalCode::UnknownConnection,
            format!(
                "event {} is a {} of a connection that the book does not have: state the connection first, \
                 and send the event again",
                fed.event.id(),
                fed.event.fact().kind()
            ),
        ),
        BookEventOutcome::Applied
        | BookEventOutcome::AlreadyApplied
        | BookEventOutcome::Superseded
        | BookEventOutcome::Differs => return Ok(outcome),
    };
    work.quarantine(bad_message(&fed.queue, fed.raw.clone().into_bytes(), refusal));
    Ok(outcome)
}
