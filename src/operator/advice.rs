//! What a person can do about a job, by its state. docs/RUNBOOK.md has more of it.

use crate::domain::{
    ids::{ConnectionId, RecordId},
    state::{ConflictKind, ParkReason, State},
};

/// What to do about a job; nothing where it goes on by itself or is over.
#[must_use]
pub fn advice(state: State, record: RecordId) -> Option<String> {
    let (cause, command) = match state {
        State::Parked(reason) => (parked(reason), command(reason)),
        State::Conflict(kind) => (
            conflict(kind),
            "two operators say how OES ended it: `settled jobs resolve ID --outcome OUTCOME --reason \"…\"`",
        ),
        State::AwaitingApproval => (
            "OES has the update, and a policy approval there is pending",
            "ask the approvers at BitGo; the record is read until it is final",
        ),
        State::Received
        | State::Decided
        | State::Sending
        | State::Unknown(_)
        | State::Confirmed
        | State::Overruled
        | State::Refused => return None,
    };
    Some(format!("{cause}; {}", command.replace("ID", &record.to_string())))
}

/// What to do about a job that waits until the book is shown to be right about its connection.
#[must_use]
pub fn unproven(connection: ConnectionId) -> String {
    format!(
        "the book was restored, and nothing has shown since that it is right about connection {connection}, so \
         nothing is decided: have the exchange send a balance.snapshot of it, and the job goes on once one \
         agrees; or compare by hand, then `settled book accept-snapshot {connection} --reason \"…\"`"
    )
}

/// The command that lets a parked job go on.
const fn command(reason: ParkReason) -> &'static str {
    match reason {
        ParkReason::NeedsApproval => {
            "`settled jobs approve ID --reason \"…\"`, or `settled jobs refuse ID --reason \"…\"`"
        }
        ParkReason::IdentityMismatch
        | ParkReason::DecideFailed
        | ParkReason::PredatesRestore
        | ParkReason::NotShown
        | ParkReason::Unreadable
        | ParkReason::EndedAtOes
        | ParkReason::BookBehind => {
            "then `settled jobs retry ID --reason \"…\"`: nothing is decided yet, and it is decided as if it \
             had just arrived"
        }
        ParkReason::StepFailed
        | ParkReason::RefusedByOes
        | ParkReason::NotFoundAtOes
        | ParkReason::PolicyRejected
        | ParkReason::Forbidden
        | ParkReason::AttemptsExhausted
        | ParkReason::TooOld
        | ParkReason::ApprovalUnclear => {
            "then `settled jobs retry ID --reason \"…\"`: the record is read first, and what was decided is \
             sent again"
        }
    }
}

const fn parked(reason: ParkReason) -> &'static str {
    match reason {
        ParkReason::IdentityMismatch => {
            "its ids are not those of its connection in the book: feed the right connection, or have the \
             edge put right"
        }
        ParkReason::DecideFailed | ParkReason::StepFailed => {
            "the book could not hold what follows: the log says why"
        }
        ParkReason::PredatesRestore => {
            "OES has had the record since before the book was restored, and what was decided then is not \
             known here: ask BitGo"
        }
        ParkReason::NeedsApproval => "its quantity is above the threshold, and a person must say",
        ParkReason::NotShown => {
            "OES does not show the record, so nothing is decided: it goes on by itself once OES does"
        }
        ParkReason::Unreadable => {
            "OES shows the record in a way that cannot be compared with the message: it goes on by itself \
             once it can"
        }
        ParkReason::EndedAtOes => {
            "OES ended the record before it was decided here, and the book cannot follow it: bring the book \
             up to date"
        }
        ParkReason::BookBehind => {
            "the feed of its connection has not come to the event that it names: `settled book feed --wrong` \
             shows what is missing"
        }
        ParkReason::RefusedByOes => {
            "OES answered 400 or 422 and still holds the record: its answer, above, says why. Put that right"
        }
        ParkReason::NotFoundAtOes => {
            "OES does not know the record: check oes.enterprise_id and the environment"
        }
        ParkReason::PolicyRejected => {
            "OES's policy rejected the update and holds the record: ask who may change that policy"
        }
        ParkReason::Forbidden => {
            "OES answered 403 for this record alone: ask BitGo about its connection"
        }
        ParkReason::AttemptsExhausted | ParkReason::TooOld => {
            "it was tried for long: the attempts above say what stood in the way. Put that right"
        }
        ParkReason::ApprovalUnclear => {
            "OES shows a pending approval that may be older than the update: ask BitGo's approvers"
        }
    }
}

const fn conflict(kind: ConflictKind) -> &'static str {
    match kind {
        ConflictKind::OtherOutcome => {
            "OES holds the other outcome: call BitGo, and never send anything"
        }
        ConflictKind::WrongEcho => {
            "OES echoed other values than were sent and still has the record reserved: call BitGo"
        }
        ConflictKind::OtherTerms => {
            "OES has another record under this id: call BitGo; the message may be forged"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_waits_for_a_person_says_what_to_do() {
        let record: RecordId = "0b4a3f3e-7d0a-4b5e-9a0e-3d1c5f2b7a10".parse().unwrap();
        for state in State::all() {
            let waits =
                matches!(state, State::Parked(_) | State::Conflict(_) | State::AwaitingApproval);
            let advice = advice(state, record);
            assert_eq!(advice.is_some(), waits, "{state}");
            let names = advice.is_none_or(|text| {
                text.contains(&record.to_string()) || state == State::AwaitingApproval
            });
            assert!(names, "{state}");
        }
    }
}
