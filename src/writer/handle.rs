//! How others reach the writer: a question each, answered once it is committed.

use std::time::Instant;

use tokio::sync::{mpsc, oneshot};

use super::{
    action::{Acted, JobAction},
    command::{Acts, Command},
};
use crate::{
    domain::{
        action::{Operator, Switch},
        book::BookEvent,
        ids::{ConnectionId, JobSeq, OutboxSeq, QuarantineSeq, RecordId},
    },
    pipeline::{
        accept::SnapshotAcceptance,
        book_gate::GateBoard,
        budget::SendPermit,
        confirm::Reply,
        feed::FedEvent,
        read::ReadResult,
        record::{Intake, Recorded},
        switches::SwitchBoard,
        verify::FirstRead,
    },
    store::{
        alerts::AlertUpdate,
        archive::Removal,
        runs::FinishedRun,
        work::{BadMessage, BookEventOutcome},
    },
};

/// The writer has ended: nothing more is committed by this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the writer has ended")]
pub struct WriterGone;

/// What became of a message that was to be recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recording {
    /// It is committed.
    Recorded(Recorded),
    /// The book cannot hold it; this is why.
    Refused(String),
}

/// What became of an event of the feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Feeding {
    /// It is committed, or its message is in quarantine.
    Taken(BookEventOutcome),
    /// The book cannot hold it; this is why.
    Refused(String),
}

/// Sends commands to the writer.
#[derive(Clone, Debug)]
pub struct WriterHandle {
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) switches: SwitchBoard,
    pub(super) gate: GateBoard,
}

impl WriterHandle {
    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, WriterGone> {
        let (answer, answered) = oneshot::channel();
        self.commands.send(command(answer)).await.map_err(|_| WriterGone)?;
        answered.await.map_err(|_| WriterGone)
    }

    /// Records a message; the answer comes once it is committed. Waiting for the place in the queue
    /// and waiting for the answer are two things, so that many messages share a commit.
    ///
    /// # Errors
    /// [`WriterGone`].
    pub async fn record(&self, intake: Intake) -> Result<oneshot::Receiver<Recording>, WriterGone> {
        let (answer, answered) = oneshot::channel();
        self.commands
            .send(Command::Record {
                intake: Box::new(intake),
                arrived: Instant::now(),
                record_only: false,
                answer,
            })
            .await
            .map_err(|_| WriterGone)?;
        Ok(answered)
    }

    /// Puts a bad message away; the answer comes once it is committed.
    ///
    /// # Errors
    /// [`WriterGone`].
    pub async fn quarantine(
        &self,
        message: BadMessage,
    ) -> Result<oneshot::Receiver<()>, WriterGone> {
        let (answer, answered) = oneshot::channel();
        self.commands
            .send(Command::Quarantine { message: Box::new(message), answer })
            .await
            .map_err(|_| WriterGone)?;
        Ok(answered)
    }

    /// Decides jobs that waited, at most `limit`.
    ///
    /// # Errors
    /// [`WriterGone`].
    pub async fn decide_due(&self, limit: usize) -> Result<(), WriterGone> {
        self.ask(|answer| Command::DecideDue { limit, answer }).await
    }

    /// Prepares attempts that are due, and has them sent: one a permit. `due` is how many there were when the
    /// permits were asked for; the writer adds permits for the others, as many as it finds when it comes to it.
    ///
    /// # Errors
    /// [`WriterGone`].
    pub async fn prepare(&self, permits: Vec<SendPermit>, due: usize) -> Result<(), WriterGone> {
        self.ask(|answer| Command::Prepare { permits, due: Some(due), answer }).await
    }

    /// Stores the answer to an attempt and carries out what it means.
    ///
    /// # Errors
    /// [`WriterGone`].
    pub async fn finish(&self, reply: Reply) -> Result<(), WriterGone> {
        self.ask(|answer| Command::Finish { reply: Box::new(reply), answer }).await
    }

    /// Carries out what reads mean.
    ///
    /// # Errors
    /// [`WriterGone`].
    pub async fn settle_reads(&self, results: Vec<(JobSeq, ReadResult)>) -> Result<(), WriterGone> {
        self.ask(|answer| Command::SettleReads { results, answer }).await
    }

    /// Carries out what reads of undecided jobs' records mean; `queue` is where their messages came from.
    ///
    /// # Errors
    /// [`WriterGone`].
    pub async fn settle_first_reads(
        &self,
        reads: Vec<FirstRead>,
        queue: String,
    ) -> Result<(), WriterGone> {
        self.ask(|answer| Command::SettleFirstReads { reads, queue, answer }).await
    }

    /// Notes messages that the broker has confirmed. Nobody waits for it: it is committed with the
    /// next batch, or alone after a while, and a crash before that repeats messages with their ids.
    ///
    /// # Errors
    /// [`WriterGone`].
    pub async fn published(&self, messages: Vec<OutboxSeq>) -> Result<(), WriterGone> {
        self.commands.send(Command::Published { messages }).await.map_err(|_| WriterGone)
    }

    /// Takes facts of the exchange into the book, all of them or, if one cannot be held, none.
    ///
    /// # Errors
    /// [`WriterGone`].
    pub async fn apply_book_events(
        &self,
        events: Vec<BookEvent>,
        source: String,
    ) -> Result<Result<Vec<BookEventOutcome>, String>, WriterGone> {
        self.ask(|answer| Command::ApplyBook { events, source, answer }).await
    }

    /// Carries out an operator's action on jobs, at most [`super::ACTED_ON_MAX`] of them, in one transaction.
    /// Answers what became of each, in their order.
    ///
    /// # Errors
    /// [`WriterGone`].
    pub async fn act(
        &self,
        action: JobAction,
        records: Vec<RecordId>,
        by: Operator,
    ) -> Result<Vec<(RecordId, Acted)>, WriterGone> {
        let acts = Acts { action, records, by };
        self.ask(|answer| Command::Act { acts, answer }).await
    }

    /// Puts a quarantined message back in; if the book cannot hold it, it stays where it is, and the answer
    /// says why.
    ///
    /// # Errors
    /// [`WriterGone`].
    pub async fn requeue(
        &self,
        message: QuarantineSeq,
        intake: Intake,
        by: Operator,
    ) -> Result<Result<Recorded, String>, WriterGone> {
        let intake = Box::new(intake);
        self.ask(|answer| Command::Requeue { message, intake, by, record_only: false, answer })
            .await
    }

    /// Sets a switch. Answers whether that changed anything.
    ///
    /// # Errors
    /// [`WriterGone`].
    pub async fn set_switch(
        &self,
        switch: Switch,
        on: bool,
        by: Operator,
    ) -> Result<Result<bool, String>, WriterGone> {
        self.ask(|answer| Command::SetSwitch { switch, on, by, answer }).await
    }

    /// Takes one event of the feed into the book; the answer comes once it is committed. As with
    /// [`Self::record`], many events share a commit.
    ///
    /// # Errors
    /// [`WriterGone`].
    pub async fn feed(&self, fed: FedEvent) -> Result<oneshot::Receiver<Feeding>, WriterGone> {
        let (answer, answered) = oneshot::channel();
        self.commands
            .send(Command::Feed { fed: Box::new(fed), answer })
            .await
            .map_err(|_| WriterGone)?;
        Ok(answered)
    }

    /// Accepts the book of some connections as the exchange states it, in one transaction.
    ///
    /// # Errors
    /// [`WriterGone`].
    pub async fn accept_snapshots(
        &self,
        connections: Vec<ConnectionId>,
        by: Operator,
    ) -> Result<Result<Vec<SnapshotAcceptance>, String>, WriterGone> {
        self.ask(|answer| Command::AcceptSnapshots { connections, by, answer }).await
    }

    /// The gate before decisions.
    #[must_use]
    pub fn gate(&self) -> GateBoard {
        self.gate.clone()
    }

    /// What operators have switched off, as committed.
    #[must_use]
    pub fn switches(&self) -> SwitchBoard {
        self.switches.clone()
    }

    /// Removes rows that are in an archive, all of them or, if anything is not as it was copied, none.
    ///
    /// # Errors
    /// [`WriterGone`].
    pub async fn archive(&self, removal: Removal) -> Result<Result<(), String>, WriterGone> {
        self.ask(|answer| Command::Archive { removal: Box::new(removal), answer }).await
    }

    /// Writes a comparison with OES down.
    ///
    /// # Errors
    /// [`WriterGone`].
    pub async fn note_run(&self, run: FinishedRun) -> Result<Result<(), String>, WriterGone> {
        self.ask(|answer| Command::NoteRun { run: Box::new(run), answer }).await
    }

    /// Writes down what has become of alerts. With nothing to write, the answer tells that the writer has
    /// the database and works.
    ///
    /// # Errors
    /// [`WriterGone`].
    pub async fn note_alerts(&self, update: AlertUpdate) -> Result<Result<(), String>, WriterGone> {
        self.ask(|answer| Command::NoteAlerts { update: Box::new(update), answer }).await
    }

    /// Prepares nothing any more, so that the sender can come to its end.
    ///
    /// # Errors
    /// [`WriterGone`].
    pub async fn stop_preparing(&self) -> Result<(), WriterGone> {
        self.ask(|answer| Command::StopPreparing { answer }).await
    }
}
