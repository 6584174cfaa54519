//! What the exchange says: facts, their order, and what it expects the book to have.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};

use super::{
    BookEventOutcome, NewBookEvent, NewFinding, Owner, TrackedFeed, Work, WorkError, next,
};
use crate::domain::{
    amount::{AmountError, Balance},
    book::{Adjustment, BalanceSnapshot, BookEvent, BookFact, Suspension, body_hash},
    feed::{self, BookSequence, ConnectionFeed, Place},
    ids::{BookEventSeq, ConnectionId, CurrencyCode},
    job::Job,
    lag::GateView,
    ledger::AccountKind,
    news::News,
    time::TimestampMs,
};

impl Work {
    /// Takes a fact of the exchange into the book, at most once.
    ///
    /// # Errors
    /// [`WorkError`] when it cannot be represented.
    pub fn apply_book_event(
        &mut self,
        event: &BookEvent,
        source: &str,
    ) -> Result<BookEventOutcome, WorkError> {
        if let BookFact::Heartbeat(heartbeat) = event.fact() {
            self.note_heartbeat(heartbeat.sent_at_ms);
            return Ok(BookEventOutcome::Applied);
        }
        let body = event.canonical_body()?;
        let hash = body_hash(&body);
        match self.book_events.get(event.id()) {
            Some(known) if *known == hash => return Ok(BookEventOutcome::AlreadyApplied),
            Some(_) => return Ok(BookEventOutcome::Contradicts),
            None => {}
        }
        // What is about a connection that is not there would bind nobody, and nobody would notice.
        let about = event.fact().connection_id();
        let makes_it = matches!(event.fact(), BookFact::ConnectionUpserted(_));
        if about.is_some_and(|id| !makes_it && !self.connections.contains_key(&id)) {
            return Ok(BookEventOutcome::UnknownConnection);
        }
        let place = self.take_place(event);
        if let (Place::Old | Place::Overtaken, Some(connection), Some(sequence)) =
            (place, about, event.sequence())
        {
            self.tell(News::FeedOld { connection, sequence });
            return Ok(BookEventOutcome::Superseded);
        }
        let seq = BookEventSeq::from(next(&mut self.counters.book_event));
        self.book_events.insert(event.id().clone(), hash);
        self.changes.book_events.push(NewBookEvent {
            seq,
            event: event.clone(),
            body,
            source: source.to_owned(),
        });
        if let (Place::AfterGap(gap), Some(connection)) = (place, about) {
            self.note_finding(connection, seq, "gap", json!({"first": gap.0, "last": gap.1}));
            self.tell(News::FeedGap { connection, gap });
        }
        if let (Place::FillsGap, BookFact::BalanceAdjusted(adjustment), Some(sequence)) =
            (place, event.fact(), event.sequence())
        {
            self.take_late(sequence, adjustment)?;
        }
        self.show_fact(seq, event.fact())
    }

    /// What comes late may be what a snapshot has differed by.
    fn take_late(
        &mut self,
        sequence: BookSequence,
        adjustment: &Adjustment,
    ) -> Result<(), WorkError> {
        let connection = adjustment.connection_id;
        let feed = self.feed_mut(connection);
        let differed = !feed.differs.is_empty();
        feed.take_late(sequence, adjustment).map_err(|source| WorkError::Amount {
            record: format!("of event {sequence} of connection {connection}"),
            source,
        })?;
        if differed && feed.differs.is_empty() {
            self.tell(News::SnapshotAgrees { connection, proves: false });
        }
        Ok(())
    }

    fn show_fact(
        &mut self,
        seq: BookEventSeq,
        fact: &BookFact,
    ) -> Result<BookEventOutcome, WorkError> {
        match fact {
            BookFact::ConnectionUpserted(connection) => {
                self.connections.insert(connection.connection_id, connection.clone());
                self.changes.connections.insert(connection.connection_id, seq);
            }
            BookFact::ConnectionSuspended(Suspension { connection_id }) => {
                if let Some(known) = self.connections.get_mut(connection_id) {
                    known.active = false;
                }
                self.changes.connections.insert(*connection_id, seq);
            }
            BookFact::CurrencyConfigured(currency) => {
                self.currencies.insert(currency.currency.clone(), currency.clone());
                self.changes.currencies.insert(currency.currency.clone(), seq);
            }
            BookFact::ConnectionLimited(limits) => {
                let key = (limits.connection_id, limits.currency.clone());
                self.connection_caps.insert(key.clone(), limits.caps);
                self.changes.connection_caps.insert(key, seq);
            }
            BookFact::BalanceAdjusted(adjustment) => self.show_adjustment(seq, adjustment)?,
            BookFact::BalanceSnapshot(snapshot) => return self.compare(seq, snapshot),
            BookFact::Heartbeat(_) => {}
        }
        Ok(BookEventOutcome::Applied)
    }

    /// A fed fact is always applied, even if it takes the balance below zero; that is told.
    fn show_adjustment(
        &mut self,
        seq: BookEventSeq,
        adjustment: &Adjustment,
    ) -> Result<(), WorkError> {
        let (connection, currency) = (adjustment.connection_id, &adjustment.currency);
        let before = self.balance(connection, currency, AccountKind::Available);
        self.book(Owner::BookEvent(seq), connection, currency, adjustment.movement())?;
        let available = self.balance(connection, currency, AccountKind::Available);
        if available.is_negative() && !before.is_negative() {
            self.tell(News::Overdrawn { connection, currency: currency.clone(), available });
        }
        Ok(())
    }

    fn note_heartbeat(&mut self, sent_at: TimestampMs) {
        let sent_at = sent_at.min(self.now);
        self.counters.heartbeat =
            Some(self.counters.heartbeat.map_or(sent_at, |known| known.max(sent_at)));
        self.changes.heartbeat = true;
    }

    /// Notes the number of an event, and answers what it means.
    fn take_place(&mut self, event: &BookEvent) -> Place {
        let (Some(sequence), Some(connection)) = (event.sequence(), event.fact().connection_id())
        else {
            return Place::InOrder;
        };
        let place = self.feed(connection).order.place(Some(sequence), event.fact());
        if place != Place::Old {
            self.feed_mut(connection).order.take(Some(sequence), event.fact());
        }
        place
    }

    /// Compares a snapshot with the book. A difference is told and never taken over; if there is none, what
    /// a restore has put in doubt about the connection is proved.
    fn compare(
        &mut self,
        seq: BookEventSeq,
        snapshot: &BalanceSnapshot,
    ) -> Result<BookEventOutcome, WorkError> {
        let connection = snapshot.connection_id;
        let found = self.totals_of(connection, seq)?;
        let differs = feed::compare(snapshot, &found);
        let feed = self.feed_mut(connection);
        feed.compared_at = feed.order.last;
        if differs.is_empty() {
            let was_unproven = std::mem::take(&mut feed.is_unproven);
            let differed = !std::mem::take(&mut feed.differs).is_empty();
            if was_unproven || differed {
                self.tell(News::SnapshotAgrees { connection, proves: was_unproven });
            }
            return Ok(BookEventOutcome::Applied);
        }
        feed.differs.clone_from(&differs);
        self.note_finding(connection, seq, "difference", json!(differs));
        self.tell(News::SnapshotDiffers { connection, differs });
        Ok(BookEventOutcome::Differs)
    }

    /// What the book has of each currency for a connection: available and held together.
    fn totals_of(
        &self,
        connection: ConnectionId,
        seq: BookEventSeq,
    ) -> Result<BTreeMap<CurrencyCode, Balance>, WorkError> {
        let mut totals: BTreeMap<CurrencyCode, Balance> = BTreeMap::new();
        let failed = |source: AmountError| WorkError::Amount {
            record: format!("of book event {seq}"),
            source,
        };
        for (key, account) in &self.accounts {
            let counts = matches!(key.kind, AccountKind::Available | AccountKind::Held);
            if key.connection_id == connection && counts {
                let total = totals.entry(key.currency.clone()).or_insert(Balance::ZERO);
                *total = total.plus(account.totals.balance()).map_err(failed)?;
            }
        }
        Ok(totals)
    }

    /// Writes down what is wrong with a feed.
    fn note_finding(
        &mut self,
        connection: ConnectionId,
        event: BookEventSeq,
        kind: &'static str,
        detail: Value,
    ) {
        let seq = next(&mut self.counters.finding);
        self.changes.feed_findings.push(NewFinding { seq, kind, connection, event, detail });
    }

    /// What is known of a connection's feed.
    #[must_use]
    pub fn feed(&self, connection: ConnectionId) -> ConnectionFeed {
        self.feeds.get(&connection).map(|tracked| tracked.feed.clone()).unwrap_or_default()
    }

    pub(super) fn feed_mut(&mut self, connection: ConnectionId) -> &mut ConnectionFeed {
        let tracked = self.feeds.entry(connection).or_insert_with(TrackedFeed::new);
        tracked.changed = true;
        &mut tracked.feed
    }

    /// Sets how the gate before decisions stands.
    pub fn set_gate(&mut self, gate: GateView) {
        self.gate = gate;
        if gate.is_fed {
            let open_ms = i64::try_from(gate.open_time.as_millis()).unwrap_or(i64::MAX);
            self.counters.gate_open_ms = self.counters.gate_open_ms.max(open_ms);
        }
    }

    /// How the gate before decisions stands.
    #[must_use]
    pub fn gate(&self) -> GateView {
        self.gate
    }

    /// How long a job has waited, as far as that counts: where there is a feed, the time for which the book
    /// was far enough.
    #[must_use]
    pub fn has_waited(&self, job: &Job) -> Duration {
        if !self.gate.is_fed {
            return self.now.since(job.received_at);
        }
        let since = job.waits_since.unwrap_or(self.gate.open_time);
        self.gate.open_time.saturating_sub(since)
    }

    /// Whatever was in doubt about a connection is so no more: an operator accepts the book as it is.
    pub fn accept_feed(&mut self, connection: ConnectionId) {
        let feed = self.feed_mut(connection);
        feed.is_unproven = false;
        feed.order.missing.clear();
        feed.differs.clear();
    }
}
