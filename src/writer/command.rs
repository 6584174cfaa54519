//! What can be asked of the writer, and what each request needs to see.

use std::time::Instant;

use tokio::sync::oneshot;

use super::{
    Feeding, Recording,
    action::{Acted, JobAction},
};
use crate::{
    domain::{
        action::{Operator, Switch},
        book::{BookEvent, BookFact},
        ids::{ConnectionId, JobSeq, OutboxSeq, QuarantineSeq, RecordId},
        state::ParkReason,
    },
    pipeline::{
        accept::SnapshotAcceptance,
        budget::SendPermit,
        confirm::Reply,
        feed::FedEvent,
        read::ReadResult,
        record::{Intake, Recorded},
        verify::FirstRead,
    },
    store::alerts::AlertUpdate,
    store::archive::Removal,
    store::runs::FinishedRun,
    store::work::{BadMessage, BookEventOutcome, ContentHashKey, Needs},
};

/// A request to the writer. Each is carried out whole or not at all.
#[derive(Debug)]
pub(super) enum Command {
    /// One message that reads as a job.
    Record {
        intake: Box<Intake>,
        /// When it was handed over.
        arrived: Instant,
        /// Leave the decision to later: set by the writer when deciding at once has failed.
        record_only: bool,
        answer: oneshot::Sender<Recording>,
    },
    /// One message that does not.
    Quarantine { message: Box<BadMessage>, answer: oneshot::Sender<()> },
    /// Jobs that waited for their decision.
    DecideDue { limit: usize, answer: oneshot::Sender<()> },
    /// Attempts that are due.
    Prepare {
        permits: Vec<SendPermit>,
        /// How many were due when the permits were asked for: the writer adds those that are free by then.
        /// `None`: no more than these permits.
        due: Option<usize>,
        answer: oneshot::Sender<()>,
    },
    /// The answer to an attempt.
    Finish { reply: Box<Reply>, answer: oneshot::Sender<()> },
    /// What reads brought.
    SettleReads { results: Vec<(JobSeq, ReadResult)>, answer: oneshot::Sender<()> },
    /// What reads of undecided jobs' records brought; the queue that their messages came from.
    SettleFirstReads { reads: Vec<FirstRead>, queue: String, answer: oneshot::Sender<()> },
    /// Messages that the broker has confirmed.
    Published { messages: Vec<OutboxSeq> },
    /// Facts of the exchange.
    ApplyBook {
        events: Vec<BookEvent>,
        source: String,
        answer: oneshot::Sender<Result<Vec<BookEventOutcome>, String>>,
    },
    /// One event of the feed.
    Feed { fed: Box<FedEvent>, answer: oneshot::Sender<Feeding> },
    /// Connections whose book an operator accepts as the exchange states it.
    AcceptSnapshots {
        connections: Vec<ConnectionId>,
        by: Operator,
        answer: oneshot::Sender<Result<Vec<SnapshotAcceptance>, String>>,
    },
    /// What an operator does to jobs.
    Act { acts: Acts, answer: oneshot::Sender<Vec<(RecordId, Acted)>> },
    /// A quarantined message that an operator puts back in.
    Requeue {
        message: QuarantineSeq,
        intake: Box<Intake>,
        by: Operator,
        /// Leave the decision to later, as with a message that has just arrived.
        record_only: bool,
        answer: oneshot::Sender<Result<Recorded, String>>,
    },
    /// A switch that an operator sets; answers whether that changes anything.
    SetSwitch {
        switch: Switch,
        on: bool,
        by: Operator,
        answer: oneshot::Sender<Result<bool, String>>,
    },
    /// Rows that are in an archive now, to be removed from the book.
    Archive { removal: Box<Removal>, answer: oneshot::Sender<Result<(), String>> },
    /// A comparison with OES that has ended.
    NoteRun { run: Box<FinishedRun>, answer: oneshot::Sender<Result<(), String>> },
    /// What has become of alerts; with nothing in it, a sign that the writer works.
    NoteAlerts { update: Box<AlertUpdate>, answer: oneshot::Sender<Result<(), String>> },
    /// Prepare nothing any more.
    StopPreparing { answer: oneshot::Sender<()> },
    /// A job that could not be carried on; asked for by the writer itself.
    Park { job: JobSeq, reason: ParkReason, why: String },
}

/// What an operator does to jobs.
#[derive(Clone, Debug)]
pub(super) struct Acts {
    pub(super) action: JobAction,
    pub(super) records: Vec<RecordId>,
    pub(super) by: Operator,
}

/// The place of an attempt among those that the batch drafted, with the permit to send it.
pub(super) type Drafted = (usize, SendPermit);

/// What a command did, to be told once it is committed.
#[derive(Debug)]
pub(super) enum Done {
    /// A message was recorded; a new job may have an attempt to send at once.
    Recorded { recorded: Recorded, send: Option<Drafted> },
    /// Attempts were prepared, each with its own permit.
    Sends(Vec<Drafted>),
    /// Attempts were prepared: drafts for the permits that came with the command, and more with their own.
    Prepared { drafts: Vec<usize>, more: Vec<Drafted> },
    /// Facts were taken in or not.
    Book(Vec<BookEventOutcome>),
    /// An event of the feed was taken in or not.
    Fed(BookEventOutcome),
    /// Connections were accepted.
    Accepted(Vec<SnapshotAcceptance>),
    /// An operator's action was carried out on jobs, or not.
    Acted(Vec<(RecordId, Acted)>),
    /// A switch was set, or was so already.
    Switched(bool),
    /// Rows were removed, or not, because another command of the batch removed some.
    Archived(Result<(), String>),
    /// Nothing that needs telling.
    Nothing,
}

impl Command {
    /// Whether nobody waits for it.
    pub(super) fn is_lazy(&self) -> bool {
        matches!(self, Self::Published { .. })
    }

    /// One word for logs.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Record { .. } => "record",
            Self::Quarantine { .. } => "quarantine",
            Self::DecideDue { .. } => "decide",
            Self::Prepare { .. } => "prepare",
            Self::Finish { .. } => "finish",
            Self::SettleReads { .. } => "settle_reads",
            Self::SettleFirstReads { .. } => "settle_first_reads",
            Self::Published { .. } => "published",
            Self::ApplyBook { .. } => "apply_book",
            Self::Feed { .. } => "feed",
            Self::AcceptSnapshots { .. } => "accept_snapshots",
            Self::Act { .. } => "act",
            Self::Requeue { .. } => "requeue",
            Self::SetSwitch { .. } => "set_switch",
            Self::Archive { .. } => "archive",
            Self::NoteRun { .. } => "note_run",
            Self::NoteAlerts { .. } => "note_alerts",
            Self::StopPreparing { .. } => "stop_preparing",
            Self::Park { .. } => "park",
        }
    }

    /// The place right after the commit of this command.
    pub(super) fn crash_point(&self) -> &'static str {
        match self {
            Self::Record { .. } | Self::Requeue { .. } => "after_commit_of_record",
            Self::Quarantine { .. } => "after_commit_of_quarantine",
            Self::DecideDue { .. } | Self::Prepare { .. } => "after_commit_of_prepare",
            Self::Finish { .. } => "after_commit_of_finish",
            Self::SettleReads { .. } => "after_commit_of_settle_reads",
            Self::SettleFirstReads { .. } => "after_commit_of_settle_first_reads",
            Self::Published { .. } => "after_commit_of_published",
            Self::Archive { .. } => "after_commit_of_archive",
            Self::Feed { .. } => "after_commit_of_feed",
            Self::ApplyBook { .. }
            | Self::AcceptSnapshots { .. }
            | Self::Act { .. }
            | Self::SetSwitch { .. }
            | Self::NoteRun { .. }
            | Self::NoteAlerts { .. }
            | Self::StopPreparing { .. }
            | Self::Park { .. } => "",
        }
    }

    /// Adds what the command needs to see.
    pub(super) fn add_needs(&self, needs: &mut Needs) {
        match self {
            Self::Record { intake, .. } | Self::Requeue { intake, .. } => {
                let (connection, currency) =
                    (intake.terms.connection_id, intake.terms.amount.currency());
                needs.records.insert(intake.terms.record_id);
                needs.connections.insert(connection);
                needs.currencies.insert(currency.clone());
                needs.accounts.insert((connection, currency.clone()));
                let key = quarantine_key(&intake.queue, intake.raw.as_bytes());
                needs.doubtful.push((intake.terms.record_id, key));
            }
            Self::Quarantine { message, .. } => {
                needs.quarantined.insert((message.queue.clone(), ContentHashKey(message.sha256)));
            }
            Self::DecideDue { limit, .. } => {
                needs.due_decisions = needs.due_decisions.max(*limit);
            }
            Self::Prepare { permits, .. } => {
                needs.due_attempts = needs.due_attempts.saturating_add(permits.len());
            }
            Self::Finish { reply, .. } => {
                needs.jobs.insert(reply.job);
            }
            Self::SettleReads { results, .. } => {
                needs.jobs.extend(results.iter().map(|(job, _)| *job));
            }
            Self::SettleFirstReads { reads, queue, .. } => {
                needs.jobs.extend(reads.iter().map(|read| read.job));
                let accused = reads.iter().filter(|read| !read.is_plain);
                needs.accused.extend(accused.map(|read| (read.job, queue.clone())));
            }
            Self::Park { job, .. } => {
                needs.jobs.insert(*job);
            }
            Self::Act { acts, .. } => {
                needs.records.extend(&acts.records);
                if matches!(acts.action, JobAction::Close(_)) {
                    needs.proposals.extend(&acts.records);
                }
            }
            Self::ApplyBook { events, .. } => {
                for event in events {
                    add_book_needs(event, needs);
                }
            }
            Self::Feed { fed, .. } => {
                add_book_needs(&fed.event, needs);
                needs.quarantined.insert(quarantine_key(&fed.queue, fed.raw.as_bytes()));
            }
            Self::AcceptSnapshots { connections, .. } => {
                needs.connections.extend(connections);
                needs.whole_connections.extend(connections);
            }
            // Jobs that are over are removed as they were copied.
            Self::Published { .. }
            | Self::Archive { .. }
            | Self::NoteRun { .. }
            | Self::SetSwitch { .. }
            | Self::NoteAlerts { .. }
            | Self::StopPreparing { .. } => {}
        }
    }
}

fn quarantine_key(queue: &str, bytes: &[u8]) -> (String, ContentHashKey) {
    use sha2::Digest as _;
    (queue.to_owned(), ContentHashKey(sha2::Sha256::digest(bytes).into()))
}

fn add_book_needs(event: &BookEvent, needs: &mut Needs) {
    if matches!(event.fact(), BookFact::Heartbeat(_)) {
        return;
    }
    needs.book_events.insert(event.id().clone());
    needs.connections.extend(event.fact().connection_id());
    match event.fact() {
        BookFact::CurrencyConfigured(currency) => {
            needs.currencies.insert(currency.currency.clone());
        }
        BookFact::BalanceAdjusted(adjustment) => {
            needs.accounts.insert((adjustment.connection_id, adjustment.currency.clone()));
        }
        BookFact::BalanceSnapshot(snapshot) => {
            needs.whole_connections.insert(snapshot.connection_id);
        }
        BookFact::ConnectionUpserted(_)
        | BookFact::ConnectionSuspended(_)
        | BookFact::ConnectionLimited(_)
        | BookFact::Heartbeat(_) => {}
    }
}
