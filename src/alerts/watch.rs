//! Watching: a look now and then, what follows from it for each alert, and the sign of life.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Alerts, look::look, notice};
use crate::{
    domain::{
        alert::{
            AlertKey, AlertKind, NoticeEvent, Severity,
            life::{Known, Notice, step},
            rules::find,
        },
        ids::RecordId,
        time::TimestampMs,
    },
    pipeline::wake::Bell,
    store::{
        StoreError,
        alerts::{AlertUpdate, NewNotice},
        query::Examples,
    },
    writer::WriterGone,
};

/// How long the writer may take to write notices down, before they are sent without that.
const WRITER_PATIENCE: Duration = Duration::from_secs(5);

/// How long the daemon has to connect before it is looked at.
const FIRST_LOOK_AFTER: Duration = Duration::from_secs(3);

/// Most records that a notice names.
const RECORDS_NAMED_MAX: u32 = 5;

/// The writer's answer to what was to be written down.
type Writing = Pin<Box<dyn Future<Output = Result<Result<(), String>, WriterGone>> + Send + Sync>>;

/// What became of writing down.
enum Written {
    /// Everything is on disk.
    Done,
    /// The writer is at it.
    NotYet,
    /// There is no writer any more.
    Gone,
}

/// Looks and writes down.
pub(super) struct Watcher {
    parts: Alerts,
    /// One for each channel.
    bells: [Arc<Bell>; 2],
    /// Alerts as they are, and as they are written down or will be.
    known: BTreeMap<AlertKey, Known>,
    /// What the writer is at.
    writing: Option<Writing>,
    /// What waits for that.
    next: AlertUpdate,
    beat_due: TimestampMs,
    beat_failed: bool,
}

impl Watcher {
    pub(super) async fn new(parts: Alerts, bells: [Arc<Bell>; 2]) -> Result<Self, StoreError> {
        let known = parts.readers.alerts().await?;
        let beat_due = parts.clock.now();
        Ok(Self {
            parts,
            bells,
            known,
            writing: None,
            next: AlertUpdate::default(),
            beat_due,
            beat_failed: false,
        })
    }

    /// Watches until the daemon ends.
    pub(super) async fn run(mut self, stop: CancellationToken) -> Result<(), StoreError> {
        let every = Duration::from_secs(self.parts.config.every_s);
        let begin = tokio::time::Instant::now();
        let first = begin.checked_add(FIRST_LOOK_AFTER.min(every)).unwrap_or(begin);
        let mut ticks = tokio::time::interval_at(first, every);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                _ = ticks.tick() => {}
            }
            let told = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                told = self.round() => told,
            };
            if matches!(told, Written::Gone) {
                return Ok(());
            }
        }
    }

    /// One look, and what follows.
    async fn round(&mut self) -> Written {
        let now = self.parts.clock.now();
        let situation = match look(&self.parts.checks, &self.parts.metrics).await {
            Ok(situation) => situation,
            Err(error) => {
                // Nothing is known, so nothing begins or ends; and no sign of life is sent.
                tracing::error!(%error, "the book cannot be looked at for alerts");
                return Written::NotYet;
            }
        };
        let firing: BTreeSet<AlertKey> = self.firing().cloned().collect();
        let found = find(&situation, &self.parts.config.thresholds(), &firing, now);
        let changes = step(&mut self.known, &found, &self.parts.config.pace(), now);
        self.parts.metrics.alerts_firing(self.firing());
        let mut notices = Vec::new();
        for notice in &changes.notices {
            tell_log(notice);
            notices.extend(self.compose(notice, now).await);
        }
        let urgent = notices.clone();
        self.next.extend(AlertUpdate {
            put: changes.put,
            over: changes.over,
            notices,
            tried: Vec::new(),
        });
        let written = self.write_down().await;
        match written {
            Written::Done => {
                for bell in &self.bells {
                    bell.notify_one();
                }
                self.beat(now).await;
            }
            // Whoever is told of a stuck disk must not wait for it. They are told again, with the same
            // ids, once it is written down.
            Written::NotYet => self.send_unwritten(&urgent, now).await,
            Written::Gone => {}
        }
        written
    }

    fn firing(&self) -> impl Iterator<Item = &AlertKey> {
        self.known.iter().filter(|(_, known)| known.is_firing()).map(|(key, _)| key)
    }

    /// A notice for each channel that is configured.
    async fn compose(&self, notice: &Notice, now: TimestampMs) -> Vec<NewNotice> {
        let channels = self.parts.channels.configured();
        if channels.is_empty() {
            return Vec::new();
        }
        let records = self.examples(notice).await;
        channels
            .into_iter()
            .map(|channel| {
                let id = Uuid::new_v4();
                let body = notice::body(&self.parts.origin, id, notice, &records, now);
                NewNotice { id, channel, key: notice.key.clone(), event: notice.event, body }
            })
            .collect()
    }

    /// Some of the records that a notice is about.
    async fn examples(&self, notice: &Notice) -> Vec<RecordId> {
        let of_records = [
            (AlertKind::ReleasedUnconfirmed, Examples::Released),
            (AlertKind::Conflict, Examples::Conflict),
            (AlertKind::Parked, Examples::Parked),
        ];
        let which = of_records.into_iter().find(|(kind, _)| *kind == notice.key.kind);
        let Some((_, which)) = which.filter(|_| notice.event != NoticeEvent::Resolved) else {
            return Vec::new();
        };
        // A notice without them is better than none.
        self.parts.readers.examples(which, RECORDS_NAMED_MAX).await.unwrap_or_default()
    }

    /// Has everything that is new written down, and waits a while for it. With nothing new the writer is
    /// asked all the same: its answer is the sign that it works.
    async fn write_down(&mut self) -> Written {
        // A writer that was waited for already is only asked whether it is done.
        let patience = if self.writing.is_some() { Duration::ZERO } else { WRITER_PATIENCE };
        let begun = tokio::time::Instant::now();
        let deadline = begun.checked_add(patience).unwrap_or(begun);
        loop {
            if self.writing.is_none() {
                let (writer, update) = (self.parts.writer.clone(), std::mem::take(&mut self.next));
                self.writing = Some(Box::pin(async move { writer.note_alerts(update).await }));
            }
            let Some(writing) = &mut self.writing else { return Written::NotYet };
            let Ok(answer) = tokio::time::timeout_at(deadline, writing).await else {
                return Written::NotYet;
            };
            self.writing = None;
            match answer {
                Err(WriterGone) => return Written::Gone,
                // The rows are as this process knows them when they change next.
                Ok(Err(reason)) => tracing::error!(reason, "alerts could not be written down"),
                Ok(Ok(())) if self.next.is_empty() => return Written::Done,
                Ok(Ok(())) => {}
            }
            if self.next.is_empty() {
                return Written::NotYet;
            }
        }
    }

    async fn send_unwritten(&self, notices: &[NewNotice], now: TimestampMs) {
        for notice in notices {
            let id = notice.id.to_string();
            let sent = self.parts.channels.send(notice.channel, &id, &notice.body, now).await;
            if let Err(error) = sent {
                tracing::warn!(notice = id, %error, "a notice could not be sent before it is written");
            }
        }
    }

    async fn beat(&mut self, now: TimestampMs) {
        if !self.parts.channels.has_heartbeat() || now < self.beat_due {
            return;
        }
        let every = Duration::from_secs(self.parts.config.heartbeat_every_s);
        self.beat_due = now.after(every);
        let id = Uuid::new_v4();
        let body = notice::heartbeat(&self.parts.origin, id, self.firing().count(), now);
        let sent = self.parts.channels.beat(&id.to_string(), &body, now).await;
        self.parts.metrics.heartbeat(sent.is_ok());
        match sent {
            Ok(()) if self.beat_failed => {
                self.beat_failed = false;
                tracing::info!("the sign of life arrives again");
            }
            Ok(()) => {}
            Err(error) if self.beat_failed => {
                tracing::debug!(%error, "the sign of life still does not arrive");
            }
            Err(error) => {
                self.beat_failed = true;
                tracing::warn!(%error, "the sign of life did not arrive; it is sent again when it is due");
            }
        }
    }
}

/// What is told is in the log as well, for those who have nothing else.
fn tell_log(notice: &Notice) {
    let (alert, event, summary) = (&notice.key, notice.event.as_str(), &notice.known.summary);
    match (notice.event, notice.key.kind.severity()) {
        (NoticeEvent::Resolved, _) => tracing::info!(%alert, summary, "alert is over"),
        (_, Severity::Critical) => tracing::error!(%alert, event, summary, "alert"),
        (_, Severity::Warning) => tracing::warn!(%alert, event, summary, "alert"),
    }
}
