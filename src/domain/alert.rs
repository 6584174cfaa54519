//! What people are told about: the kinds of alert, and what a notice says.
//!
//! [`rules`] says what holds in a situation, [`life`] what follows from that for an alert: when it fires,
//! is told again, and is over. `config/alerts.yml` has the same alerts for Prometheus, under the same
//! names, and `docs/RUNBOOK.md` a section for each.

pub mod life;
pub mod rules;

use std::fmt;

use serde::{Deserialize, Serialize};

/// How soon somebody should look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Within the working day.
    Warning,
    /// At any hour: money is stuck or in doubt, or nothing moves.
    Critical,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Warning => "warning",
            Self::Critical => "critical",
        })
    }
}

/// What can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AlertKind {
    /// A record was decided as released, and OES has not confirmed it in time, or it is parked or in
    /// conflict: a client's funds are stuck.
    ReleasedUnconfirmed,
    /// OES contradicts what was decided and sent.
    Conflict,
    /// Jobs wait for an operator.
    Parked,
    /// A job has waited for an operator's approval for too long.
    ApprovalWaiting,
    /// A policy approval at OES has been pending for too long.
    ApprovalAbandoned,
    /// A job that nobody has to look at has been open for too long.
    OldestJob,
    /// Nothing is sent: the token, its scopes or the key.
    SenderStopped,
    /// OES has limited the rate of requests for long.
    SenderPaused,
    /// A connection to the broker is down.
    BrokerDisconnected,
    /// The broker takes no messages.
    PublisherBlocked,
    /// The broker has given up messages of the jobs queue by itself.
    DroppedByBroker,
    /// A job's message is not what OES's record says.
    ForgedJob,
    /// Messages were refused.
    Quarantine,
    /// Outcomes or dead letters have waited for too long to be published.
    OutcomesUnpublished,
    /// OES holds reserved records whose jobs never came.
    RecordsWithoutJob,
    /// The last comparison with OES found differences.
    ReconcileDifferences,
    /// The book cannot be compared with OES.
    ComparisonsFail,
    /// Connections or currencies are not as OES has them.
    BookOutOfStep,
    /// The exchange's feed is not consumed.
    FeedConsumerDown,
    /// The exchange sends no sign of life over its feed, so that nothing is decided.
    FeedStale,
    /// Events of the exchange's feed are missing.
    FeedGap,
    /// A snapshot of the exchange differs from the book.
    SnapshotDifference,
    /// The book was restored, and nothing has shown since that it is right about some connections.
    Unproven,
    /// An available balance is below zero.
    Overdrawn,
    /// OES cleared a deallocation that was released here, and the book could not cover it.
    Shortfall,
    /// The writer is stuck.
    WriterStuck,
    /// Little room is left on a volume.
    DiskLow,
    /// The log beside the database is long.
    LogLong,
    /// Old history cannot be archived.
    ArchiveFails,
    /// The machine's clock was set back.
    ClockSetBack,
}

impl AlertKind {
    /// All of them, the most urgent first.
    pub const ALL: [Self; 30] = [
        Self::ReleasedUnconfirmed,
        Self::Conflict,
        Self::SenderStopped,
        Self::WriterStuck,
        Self::DiskLow,
        Self::BrokerDisconnected,
        Self::FeedConsumerDown,
        Self::FeedStale,
        Self::PublisherBlocked,
        Self::OldestJob,
        Self::RecordsWithoutJob,
        Self::ReconcileDifferences,
        Self::ForgedJob,
        Self::DroppedByBroker,
        Self::Shortfall,
        Self::SnapshotDifference,
        Self::FeedGap,
        Self::Unproven,
        Self::Parked,
        Self::ApprovalWaiting,
        Self::ApprovalAbandoned,
        Self::SenderPaused,
        Self::Quarantine,
        Self::OutcomesUnpublished,
        Self::ComparisonsFail,
        Self::BookOutOfStep,
        Self::Overdrawn,
        Self::LogLong,
        Self::ArchiveFails,
        Self::ClockSetBack,
    ];

    /// The name that notices, rows, Prometheus's rules and the runbook have.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ReleasedUnconfirmed => "SettledReleasedUnconfirmed",
            Self::Conflict => "SettledConflict",
            Self::Parked => "SettledParked",
            Self::ApprovalWaiting => "SettledApprovalWaiting",
            Self::ApprovalAbandoned => "SettledApprovalAbandoned",
            Self::OldestJob => "SettledOldestJob",
            Self::SenderStopped => "SettledSenderStopped",
            Self::SenderPaused => "SettledSenderPaused",
            Self::BrokerDisconnected => "SettledBrokerDisconnected",
            Self::PublisherBlocked => "SettledPublisherBlocked",
            Self::DroppedByBroker => "SettledDroppedByBroker",
            Self::ForgedJob => "SettledForgedJob",
            Self::Quarantine => "SettledQuarantine",
            Self::OutcomesUnpublished => "SettledOutcomesUnpublished",
            Self::RecordsWithoutJob => "SettledRecordsWithoutJob",
            Self::ReconcileDifferences => "SettledReconcileDifferences",
            Self::ComparisonsFail => "SettledComparisonsFail",
            Self::BookOutOfStep => "SettledBookOutOfStep",
            Self::FeedConsumerDown => "SettledFeedConsumerDown",
            Self::FeedStale => "SettledFeedStale",
            Self::FeedGap => "SettledFeedGap",
            Self::SnapshotDifference => "SettledSnapshotDifference",
            Self::Unproven => "SettledUnproven",
            Self::Overdrawn => "SettledOverdrawn",
            Self::Shortfall => "SettledShortfall",
            Self::WriterStuck => "SettledWriterStuck",
            Self::DiskLow => "SettledDiskLow",
            Self::LogLong => "SettledLogLong",
            Self::ArchiveFails => "SettledArchiveFails",
            Self::ClockSetBack => "SettledClockSetBack",
        }
    }

    /// The kind that has this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// How soon somebody should look.
    #[must_use]
    pub const fn severity(self) -> Severity {
        match self {
            Self::ReleasedUnconfirmed
            | Self::Conflict
            | Self::OldestJob
            | Self::SenderStopped
            | Self::BrokerDisconnected
            | Self::FeedConsumerDown
            | Self::FeedStale
            | Self::FeedGap
            | Self::SnapshotDifference
            | Self::PublisherBlocked
            | Self::DroppedByBroker
            | Self::ForgedJob
            | Self::RecordsWithoutJob
            | Self::ReconcileDifferences
            | Self::Shortfall
            | Self::WriterStuck
            | Self::DiskLow => Severity::Critical,
            Self::Parked
            | Self::ApprovalWaiting
            | Self::ApprovalAbandoned
            | Self::SenderPaused
            | Self::Quarantine
            | Self::OutcomesUnpublished
            | Self::ComparisonsFail
            | Self::BookOutOfStep
            | Self::Unproven
            | Self::Overdrawn
            | Self::LogLong
            | Self::ArchiveFails
            | Self::ClockSetBack => Severity::Warning,
        }
    }

    /// Whether it must have held for a while before anybody is told: what comes and goes by itself, such
    /// as a connection that is opened again. The others have their own patience, or none.
    #[must_use]
    pub const fn must_last(self) -> bool {
        match self {
            Self::SenderStopped
            | Self::SenderPaused
            | Self::BrokerDisconnected
            | Self::FeedConsumerDown
            | Self::FeedStale
            | Self::FeedGap
            | Self::PublisherBlocked
            | Self::Parked
            | Self::RecordsWithoutJob
            | Self::BookOutOfStep
            | Self::Overdrawn
            | Self::LogLong
            | Self::DiskLow
            | Self::WriterStuck
            | Self::ClockSetBack => true,
            Self::ReleasedUnconfirmed
            | Self::Conflict
            | Self::ApprovalWaiting
            | Self::ApprovalAbandoned
            | Self::OldestJob
            | Self::DroppedByBroker
            | Self::ForgedJob
            | Self::Quarantine
            | Self::OutcomesUnpublished
            | Self::ReconcileDifferences
            | Self::SnapshotDifference
            | Self::Unproven
            | Self::ComparisonsFail
            | Self::Shortfall
            | Self::ArchiveFails => false,
        }
    }
}

/// One alert: its kind, and what it is about where a kind can fire for several things at a time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AlertKey {
    /// The kind.
    pub kind: AlertKind,
    /// Which of several, e.g. the side of the broker; empty where there is one.
    pub subject: String,
}

impl fmt::Display for AlertKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.name())?;
        if self.subject.is_empty() { Ok(()) } else { write!(f, "({})", self.subject) }
    }
}

/// Something that holds now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Which alert it is.
    pub key: AlertKey,
    /// How many things it is about, to see that it becomes worse; one where there is no number.
    pub things: u64,
    /// What holds, in one line for a person.
    pub summary: String,
}

/// What a notice is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NoticeEvent {
    /// The alert begins.
    Firing,
    /// It is about more things than when it was last told.
    Worse,
    /// It still holds.
    Repeated,
    /// It is over.
    Resolved,
    /// Somebody tries whether notices arrive.
    Test,
}

impl NoticeEvent {
    /// The word that notices and rows use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Firing => "firing",
            Self::Worse => "worse",
            Self::Repeated => "repeated",
            Self::Resolved => "resolved",
            Self::Test => "test",
        }
    }
}
