//! Why a job may rest or end where it does: each such state needs something that really happened.

use super::{Due, Known, Money, Violation, holds};
use crate::{
    domain::{
        decision::Outcome,
        record::PolicyResult,
        state::{ConflictKind, Doubt, ParkReason, State},
        time::TimestampMs,
    },
    simulation::{oes::Entry, operation::PutFate, world::LIMITS},
};

/// What OES has answered about a record.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is one thing that has happened or not")]
pub(super) struct Evidence {
    refused: bool,
    not_found: bool,
    forbidden: bool,
    policy_rejected: bool,
    wrong_echo: bool,
    pub(super) absent: bool,
    /// A read before the decision has shown the record reserved, and as the message says.
    pub(super) has_agreed: bool,
    /// Whether an approval was pending then.
    approval_before: Option<bool>,
    /// Reads before the decision that OES answered and that showed nothing to compare.
    pub(super) lacks: u32,
    /// Attempts since an operator last sent the job on.
    attempts: u32,
    first_attempt_at: Option<TimestampMs>,
    has_restarted: bool,
}

impl Evidence {
    pub(super) fn attempted(&mut self, now: TimestampMs) {
        self.attempts += 1;
        self.first_attempt_at = Some(self.first_attempt_at.map_or(now, |at| at.min(now)));
    }

    pub(super) fn answered(&mut self, fate: PutFate, status: Option<u16>) {
        match status {
            Some(400 | 422) => self.refused = true,
            Some(403) => self.forbidden = true,
            Some(404) => self.not_found = true,
            _ => {}
        }
        match fate {
            PutFate::WrongEcho { .. } if status == Some(200) => self.wrong_echo = true,
            PutFate::PolicyRejects { .. } if status == Some(200) => self.policy_rejected = true,
            _ => {}
        }
    }

    pub(super) fn restarted(&mut self) {
        self.has_restarted = true;
    }

    /// A read before the decision has shown what the message says.
    pub(super) fn agreed(&mut self, approval_is_pending: bool) {
        self.has_agreed = true;
        self.approval_before = Some(approval_is_pending);
        self.lacks = 0;
    }

    /// An operator has sent the job on: the bounds begin anew, and so does what was read about it as long
    /// as it is not decided.
    pub(super) fn begin_anew(&mut self, moved: bool, decided: Option<Outcome>) {
        if moved {
            self.attempts = 0;
            self.first_attempt_at = None;
            self.lacks = 0;
        }
        if moved && decided.is_none() {
            self.has_agreed = false;
            self.approval_before = None;
        }
    }
}

/// Whether a job may come to rest, or to its end, in this state now.
pub(super) fn check(
    known: &Known,
    state: State,
    entry: Option<&Entry>,
    now: TimestampMs,
    money: &Money,
) -> Result<(), Violation> {
    let evidence = &known.evidence;
    let status = entry.and_then(Entry::outcome);
    let policy = entry.and_then(|entry| entry.policy);
    let is_other = entry.is_none_or(|entry| !entry.is_about(&known.terms));
    let is_contrary = status.is_some() && status != known.decided;
    let may = match state {
        State::Received | State::Decided | State::Sending => true,
        State::Unknown(doubt) => may_doubt(known, doubt),
        State::Confirmed => status.is_some() && status == known.decided,
        State::Refused => is_other && known.decided.is_none(),
        State::Overruled => is_contrary && policy == Some(PolicyResult::Rejected),
        State::AwaitingApproval => {
            let is_asked = entry.is_some_and(|entry| entry.has_approval);
            // One that was pending before our first send is nobody's answer to it.
            let may_be_ours =
                known.state == State::Sending || evidence.approval_before == Some(false);
            is_asked && may_be_ours
        }
        State::Conflict(ConflictKind::OtherOutcome) => {
            is_contrary && policy != Some(PolicyResult::Rejected)
        }
        State::Conflict(ConflictKind::WrongEcho) => evidence.wrong_echo,
        State::Conflict(ConflictKind::OtherTerms) => is_other,
        State::Parked(reason) => may_park(known, reason, entry, now, money),
    };
    holds("a job rests for a reason", may, || {
        let (record, decided) = (known.terms.record_id, known.decided);
        format!("{record} is {state}, decided {decided:?}, with {evidence:?} and {entry:?}")
    })
}

fn may_doubt(known: &Known, doubt: Doubt) -> bool {
    let evidence = &known.evidence;
    match doubt {
        Doubt::WrongEcho => evidence.wrong_echo,
        Doubt::PolicyRejected => evidence.policy_rejected,
        Doubt::RefusedAnswer => evidence.refused,
        Doubt::NotFound => evidence.not_found,
        Doubt::Forbidden => evidence.forbidden,
        Doubt::Restarted => evidence.has_restarted,
        Doubt::NoReply
        | Doubt::ServerError
        | Doubt::OddAnswer
        | Doubt::ConflictAnswer
        | Doubt::Unauthorized
        | Doubt::SentOn => true,
    }
}

fn may_park(
    known: &Known,
    reason: ParkReason,
    entry: Option<&Entry>,
    now: TimestampMs,
    money: &Money,
) -> bool {
    let evidence = &known.evidence;
    match reason {
        ParkReason::IdentityMismatch => money.identity_agrees(&known.terms) == Some(false),
        ParkReason::NeedsApproval => {
            money.ruling(&known.terms, known.received_at, now, None) == Due::Word
        }
        // Nothing refuses a row here, and no book is restored.
        ParkReason::DecideFailed
        | ParkReason::PredatesRestore
        | ParkReason::StepFailed
        | ParkReason::BookBehind => false,
        ParkReason::NotShown | ParkReason::Unreadable => {
            known.decided.is_none() && evidence.lacks >= LIMITS.absent_reads_max
        }
        ParkReason::EndedAtOes => {
            known.decided.is_none() && entry.is_some_and(|entry| entry.outcome().is_some())
        }
        ParkReason::RefusedByOes => evidence.refused,
        ParkReason::NotFoundAtOes => evidence.not_found || evidence.absent,
        ParkReason::PolicyRejected => {
            evidence.policy_rejected
                || entry.is_some_and(|entry| entry.policy == Some(PolicyResult::Rejected))
        }
        ParkReason::Forbidden => evidence.forbidden,
        ParkReason::AttemptsExhausted => evidence.attempts >= LIMITS.attempts_max,
        ParkReason::TooOld => {
            // An operator's word counts from then on, whether or not an attempt followed.
            evidence.first_attempt_at.is_none_or(|at| now.since(at) >= LIMITS.age_max)
        }
        ParkReason::ApprovalUnclear => {
            let is_asked = entry.is_some_and(|entry| entry.has_approval);
            let is_unclear = evidence.approval_before != Some(false);
            is_asked && (is_unclear || known.state == State::AwaitingApproval)
        }
    }
}
