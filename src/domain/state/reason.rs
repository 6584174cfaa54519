//! The reasons that go with states.

/// Why the outcome of an attempt is not known. It decides what a read-back that finds the record
/// still reserved means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Doubt {
    /// No answer: time-out, reset, refused connection, answer cut off.
    NoReply,
    /// 5xx.
    ServerError,
    /// An answer that the reference does not have here: an unreadable 200, another 2xx, 3xx, 408.
    OddAnswer,
    /// 200, but it echoes other values than were sent.
    WrongEcho,
    /// 200 with `policyResult: rejected`.
    PolicyRejected,
    /// 409.
    ConflictAnswer,
    /// 400 or 422.
    RefusedAnswer,
    /// 404.
    NotFound,
    /// 401: the sender is stopped as well.
    Unauthorized,
    /// 403.
    Forbidden,
    /// The daemon ended before it recorded an answer; the attempt may have left.
    Restarted,
    /// An operator has sent the parked job on.
    SentOn,
}

impl Doubt {
    /// All doubts, for metrics and tests.
    pub const ALL: [Self; 12] = [
        Self::NoReply,
        Self::ServerError,
        Self::OddAnswer,
        Self::WrongEcho,
        Self::PolicyRejected,
        Self::ConflictAnswer,
        Self::RefusedAnswer,
        Self::NotFound,
        Self::Unauthorized,
        Self::Forbidden,
        Self::Restarted,
        Self::SentOn,
    ];

    /// One word for rows and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoReply => "no_reply",
            Self::ServerError => "server_error",
            Self::OddAnswer => "odd_answer",
            Self::WrongEcho => "wrong_echo",
            Self::PolicyRejected => "policy_rejected",
            Self::ConflictAnswer => "conflict_answer",
            Self::RefusedAnswer => "refused_answer",
            Self::NotFound => "not_found",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::Restarted => "restarted",
            Self::SentOn => "sent_on",
        }
    }
}

/// Why an operator must look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ParkReason {
    /// The job's identifiers disagree with its connection in the book; nothing is decided.
    IdentityMismatch,
    /// The decision could not be stored; nothing is decided.
    DecideFailed,
    /// OES has had the record since before a restore, and what was decided about it then may be lost.
    PredatesRestore,
    /// The quantity is above the threshold, and an operator has not said yet whether it may be cleared.
    NeedsApproval,
    /// OES does not show the record, so that nothing is decided about it.
    NotShown,
    /// OES shows the record in a way that cannot be compared with the message; nothing is decided.
    Unreadable,
    /// OES ended the record before it was decided here, and the book cannot follow it.
    EndedAtOes,
    /// The book has not come as far as the job asks for, in the time that it may wait; nothing is decided.
    BookBehind,
    /// A later step could not be stored; the decision stands.
    StepFailed,
    /// OES answered 400 or 422 and still has the record reserved.
    RefusedByOes,
    /// OES does not show the record.
    NotFoundAtOes,
    /// OES's policy rejected the update and still has the record reserved.
    PolicyRejected,
    /// OES answered 403 to the update, although it lets the record be read.
    Forbidden,
    /// The bound on attempts is reached.
    AttemptsExhausted,
    /// The bound on age is reached.
    TooOld,
    /// An approval is pending at OES, and it is not clear whether our update caused it.
    ApprovalUnclear,
}

impl ParkReason {
    /// All reasons, for metrics and tests.
    pub const ALL: [Self; 16] = [
        Self::IdentityMismatch,
        Self::DecideFailed,
        Self::PredatesRestore,
        Self::NeedsApproval,
        Self::NotShown,
        Self::Unreadable,
        Self::EndedAtOes,
        Self::BookBehind,
        Self::StepFailed,
        Self::RefusedByOes,
        Self::NotFoundAtOes,
        Self::PolicyRejected,
        Self::Forbidden,
        Self::AttemptsExhausted,
        Self::TooOld,
        Self::ApprovalUnclear,
    ];

    /// One word for rows and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::IdentityMismatch => "identity_mismatch",
            Self::DecideFailed => "decide_failed",
            Self::PredatesRestore => "predates_restore",
            Self::NeedsApproval => "needs_approval",
            Self::NotShown => "not_shown",
            Self::Unreadable => "unreadable",
            Self::EndedAtOes => "ended_at_oes",
            Self::BookBehind => "book_behind",
            Self::StepFailed => "step_failed",
            Self::RefusedByOes => "refused_by_oes",
            Self::NotFoundAtOes => "not_found_at_oes",
            Self::PolicyRejected => "policy_rejected",
            Self::Forbidden => "forbidden",
            Self::AttemptsExhausted => "attempts_exhausted",
            Self::TooOld => "too_old",
            Self::ApprovalUnclear => "approval_unclear",
        }
    }

    /// Whether the job was parked before anything was decided.
    #[must_use]
    pub const fn is_undecided(self) -> bool {
        match self {
            Self::IdentityMismatch
            | Self::DecideFailed
            | Self::PredatesRestore
            | Self::NeedsApproval
            | Self::NotShown
            | Self::Unreadable
            | Self::EndedAtOes
            | Self::BookBehind => true,
            Self::StepFailed
            | Self::RefusedByOes
            | Self::NotFoundAtOes
            | Self::PolicyRejected
            | Self::Forbidden
            | Self::AttemptsExhausted
            | Self::TooOld
            | Self::ApprovalUnclear => false,
        }
    }

    /// Whether an undecided job that is parked for this goes on by itself once a read of its record
    /// says so.
    #[must_use]
    pub const fn waits_for_oes(self) -> bool {
        matches!(self, Self::NotShown | Self::Unreadable | Self::EndedAtOes)
    }
}

/// In which way OES contradicts us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConflictKind {
    /// OES holds the other outcome.
    OtherOutcome,
    /// OES echoed other values than we sent and still has the record reserved.
    WrongEcho,
    /// OES has a record of another type or connection under this id.
    OtherTerms,
}

impl ConflictKind {
    /// All kinds, for metrics and tests.
    pub const ALL: [Self; 3] = [Self::OtherOutcome, Self::WrongEcho, Self::OtherTerms];

    /// One word for rows and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OtherOutcome => "other_outcome",
            Self::WrongEcho => "wrong_echo",
            Self::OtherTerms => "other_terms",
        }
    }
}
