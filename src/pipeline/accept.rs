//! Accept: an operator says that the book is to be what the exchange states for a connection.
//!
//! A snapshot that differs is never taken over by itself. Accepted, its difference is booked as an
//! adjustment; since everything that has moved meanwhile has moved on both sides, the difference is still
//! the same. Without a difference the book is accepted as it is.

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    domain::{
        action::{ActionKind, Operator},
        book::BookEvent,
        feed::TotalDiffers,
        ids::ConnectionId,
    },
    store::work::{NewAction, Subject, Work, WorkError},
};

/// Most connections that are accepted together; they share a transaction.
pub const ACCEPTED_MAX: usize = 500;

/// What became of one connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotAcceptance {
    /// The connection.
    pub connection_id: ConnectionId,
    /// Whether the book has it; otherwise nothing was changed.
    pub is_known: bool,
    /// What was booked so that the book is as the snapshot stated it.
    #[schema(value_type = Vec<Object>)]
    pub booked: Vec<TotalDiffers>,
}

/// Accepts connections.
///
/// # Errors
/// [`WorkError`] when a change cannot be represented.
pub fn accept(
    work: &mut Work,
    connections: &[ConnectionId],
    by: &Operator,
) -> Result<Vec<SnapshotAcceptance>, WorkError> {
    let mut accepted = Vec::with_capacity(connections.len());
    for connection_id in connections.iter().copied() {
        let is_known = work.connection(connection_id).is_some();
        let booked = if is_known { accept_one(work, connection_id, by)? } else { Vec::new() };
        accepted.push(SnapshotAcceptance { connection_id, is_known, booked });
    }
    Ok(accepted)
}

fn accept_one(
    work: &mut Work,
    connection: ConnectionId,
    by: &Operator,
) -> Result<Vec<TotalDiffers>, WorkError> {
    let feed = work.feed(connection);
    let source = format!("accept-snapshot: {} by {}", by.reason, by.who);
    for differs in &feed.differs {
        let event = adjustment(work, connection, differs)?;
        work.apply_book_event(&event, &source)?;
    }
    work.accept_feed(connection);
    let detail = json!({
        "booked": feed.differs, "missing": feed.order.missing, "afterRestore": feed.is_unproven,
    });
    let (kind, subject) = (ActionKind::AcceptSnapshot, Subject::Connection(connection));
    work.act(NewAction { kind, by: by.clone(), subject, detail });
    Ok(feed.differs)
}

fn adjustment(
    work: &Work,
    connection: ConnectionId,
    differs: &TotalDiffers,
) -> Result<BookEvent, WorkError> {
    let unfit = |reason: String| WorkError::Unaccepted { connection, reason };
    let delta = differs.missing().map_err(|error| unfit(error.to_string()))?;
    let (now, currency) = (work.now().as_millis(), &differs.currency);
    let text = json!({
        "type": "balance.adjusted", "eventId": format!("accepted:{connection}:{currency}:{now}"),
        "connectionId": connection, "currency": currency, "delta": delta,
    });
    BookEvent::parse(&text.to_string()).map_err(|error| unfit(error.to_string()))
}
