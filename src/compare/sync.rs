//! Bringing the book's connections and currencies in step with OES: shown first, applied when asked.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{CompareError, Desk};
use crate::{
    domain::{
        book::{BOOK_EVENTS_MAX, BookEvent, BookFact, body_hash},
        ids::{ConnectionId, CurrencyCode},
        shown::{Listed, ShownConnection},
        sync::{BookConnection, SYNC_SOURCE, SyncKind, SyncLine, SyncView, differences},
        time::TimestampMs,
    },
    store::work::BookEventOutcome,
};

/// Times that the book is brought in step by one sync. The exchange may feed facts meanwhile, and what
/// it says of a suspension holds, so the book is compared again after it was changed.
const ROUNDS_MAX: usize = 3;

/// Characters of a fact's hash in its event's id.
const HASH_CHARS: usize = 16;

/// What is asked for.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SyncRequest {
    /// Whether the book is to be changed.
    pub apply: bool,
    /// Suspended connections that are given back.
    pub activate: Vec<ConnectionId>,
    /// Who asks.
    pub who: String,
}

/// What was found, and done about it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SyncReport {
    /// When OES was asked.
    pub at_ms: TimestampMs,
    /// Connections that OES shows.
    pub connections: usize,
    /// Currencies that OES supports; nothing if there is no connection to tell of which partner.
    pub currencies: Option<usize>,
    /// Everything that differed.
    pub lines: Vec<SyncLine>,
    /// Facts that were taken into the book; nothing if that was not asked for.
    pub applied: Option<usize>,
}

/// What OES shows.
struct AtOes {
    connections: Vec<Listed<ShownConnection>>,
    gone: BTreeSet<ConnectionId>,
    supported: Option<BTreeSet<CurrencyCode>>,
}

impl Desk {
    /// Compares connections and currencies, and brings the book in step if that is asked for.
    ///
    /// # Errors
    /// [`CompareError`]; what was applied before it stays applied, each fact at most once.
    pub async fn sync(&self, request: &SyncRequest) -> Result<SyncReport, CompareError> {
        let _alone = self.at_work.lock().await;
        let at = self.clock.now();
        let book = self.readers.connections_to_compare().await?;
        let oes = self.ask_for_connections(&book).await?;
        let activate: BTreeSet<ConnectionId> = request.activate.iter().copied().collect();
        let lines = self.compare_connections(&oes, &activate).await?;
        let (connections, currencies) =
            (oes.connections.len(), oes.supported.as_ref().map(BTreeSet::len));
        let mut applied = None;
        let mut left = lines.clone();
        if request.apply {
            let mut count: usize = 0;
            for _ in 0..ROUNDS_MAX {
                let taken = self.apply(at, &request.who, &left).await?;
                count = count.saturating_add(taken);
                left = self.compare_connections(&oes, &activate).await?;
                if taken == 0 || !left.iter().any(|line| line.kind.is_applied()) {
                    break;
                }
            }
            applied = Some(count);
        }
        self.metrics.synced(at, left.iter().map(|line| line.kind));
        Ok(SyncReport { at_ms: at, connections, currencies, lines, applied })
    }

    async fn ask_for_connections(&self, book: &[BookConnection]) -> Result<AtOes, CompareError> {
        let mut connections = self.asker.connections().await?;
        if connections.is_empty() && !book.is_empty() {
            return Err(CompareError::NothingShown(book.len()));
        }
        let shown: BTreeSet<ConnectionId> =
            connections.iter().map(|listed| listed.id.into()).collect();
        let mut gone = BTreeSet::new();
        // A list may leave out what exists while it changes, so an absence is asked for by name.
        for known in book.iter().filter(|known| known.connection.active) {
            let id = known.connection.connection_id;
            if shown.contains(&id) {
                continue;
            }
            match self.asker.connection(id).await? {
                Some(listed) => connections.push(listed),
                None => {
                    gone.insert(id);
                }
            }
        }
        let partners: BTreeSet<_> = connections
            .iter()
            .filter_map(|listed| listed.item.as_ref().ok())
            .map(|connection| connection.partner_id)
            .collect();
        let supported =
            if partners.is_empty() { None } else { Some(self.asker.currencies(&partners).await?) };
        Ok(AtOes { connections, gone, supported })
    }

    async fn compare_connections(
        &self,
        oes: &AtOes,
        activate: &BTreeSet<ConnectionId>,
    ) -> Result<Vec<SyncLine>, CompareError> {
        let book = self.readers.connections_to_compare().await?;
        let currencies = self.readers.currencies().await?;
        Ok(differences(&SyncView {
            shown: &oes.connections,
            gone: &oes.gone,
            book: &book,
            supported: oes.supported.as_ref(),
            currencies: &currencies,
            activate,
        }))
    }

    /// Takes the facts of these lines into the book. Answers how many were new to it.
    async fn apply(
        &self,
        at: TimestampMs,
        who: &str,
        lines: &[SyncLine],
    ) -> Result<usize, CompareError> {
        // What an operator gives back is the exchange's word, and everything else is OES's.
        let (given_back, read): (Vec<&SyncLine>, Vec<&SyncLine>) =
            lines.iter().partition(|line| line.kind == SyncKind::Activated);
        let mut applied: usize = 0;
        for (lines, source) in
            [(read, SYNC_SOURCE.to_owned()), (given_back, format!("activate:{who}"))]
        {
            let events = lines
                .iter()
                .filter_map(|line| line.fact.as_ref())
                .map(|fact| event(at, fact))
                .collect::<Result<Vec<BookEvent>, _>>()?;
            for chunk in events.chunks(BOOK_EVENTS_MAX) {
                let outcomes = self
                    .writer
                    .apply_book_events(chunk.to_vec(), source.clone())
                    .await?
                    .map_err(CompareError::Refused)?;
                let is_new = |outcome: &&BookEventOutcome| **outcome == BookEventOutcome::Applied;
                applied = applied.saturating_add(outcomes.iter().filter(is_new).count());
            }
        }
        Ok(applied)
    }
}

/// A fact with an id that is the same whenever the same run applies the same fact.
fn event(at: TimestampMs, fact: &BookFact) -> Result<BookEvent, CompareError> {
    let refused = |error: &dyn std::fmt::Display| CompareError::Refused(error.to_string());
    let body = serde_json::to_string(fact).map_err(|error| refused(&error))?;
    let hash = body_hash(&body).to_string();
    let id = format!("sync:{}:{}", at.as_millis(), hash.get(..HASH_CHARS).unwrap_or(&hash));
    let mut fields = serde_json::to_value(fact).map_err(|error| refused(&error))?;
    if let Some(fields) = fields.as_object_mut() {
        fields.insert("eventId".to_owned(), id.into());
    }
    BookEvent::parse(&fields.to_string()).map_err(|error| refused(&error))
}
