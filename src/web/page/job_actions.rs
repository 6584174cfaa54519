//! What an operator may do about one job, and what became of it.

use axum::{
    extract::{Path, State},
    response::Redirect,
};
use serde::Deserialize;

use super::{
    Page, failure::Failure, guard::Filled, job::parse_record, session::Said, shown::Standing,
};
use crate::{
    domain::{
        action::{ActionKind, is_same_person},
        decision::Outcome,
        policy::OperatorWord,
        state::{ParkReason, State as JobState},
        time::TimestampMs,
    },
    pipeline::{approve::Approval, close::Closing, send_on::SentOn},
    store::query::ActionLine,
    web::problem::Problem,
    writer::{Acted, JobAction},
};

/// Something that may be done about a job.
pub(super) struct Choice {
    /// The word that the form carries.
    pub(super) word: &'static str,
    /// What the button says.
    pub(super) button: &'static str,
    /// What it does, in a sentence.
    pub(super) says: &'static str,
    /// Whether another operator has proposed it, so that this confirms it.
    pub(super) confirms: bool,
    /// Why it cannot be done by whoever looks.
    pub(super) not_by_you: bool,
}

const fn choice(word: &'static str, button: &'static str, says: &'static str) -> Choice {
    Choice { word, button, says, confirms: false, not_by_you: false }
}

/// What may be done about a job in a state, by somebody.
pub(super) fn choices(
    standing: &Standing,
    actions: &[ActionLine],
    who: &str,
    now: TimestampMs,
) -> Vec<Choice> {
    let reason = (!standing.reason.is_empty()).then_some(standing.reason.as_str());
    match JobState::from_row(&standing.state, reason) {
        Ok(JobState::Parked(ParkReason::NeedsApproval)) => vec![
            choice(
                "approve",
                "Approve",
                "The policy looks again, as the book is now, with the threshold waived and nothing else.",
            ),
            choice(
                "refuse",
                "Refuse",
                "The record is released. The client does not see the reason.",
            ),
        ],
        Ok(JobState::Parked(_)) => vec![choice(
            "retry",
            "Send on",
            "The job goes on after its cause is gone. A decision that was made stays as it is; the record \
             is read at OES before anything is sent.",
        )],
        Ok(JobState::Conflict(_)) => Outcome::ALL
            .into_iter()
            .map(|outcome| close_choice(outcome, actions, who, now))
            .collect(),
        Ok(
            JobState::Received
            | JobState::Decided
            | JobState::Sending
            | JobState::Unknown(_)
            | JobState::AwaitingApproval
            | JobState::Confirmed
            | JobState::Overruled
            | JobState::Refused,
        )
        | Err(_) => Vec::new(),
    }
}

fn close_choice(outcome: Outcome, actions: &[ActionLine], who: &str, now: TimestampMs) -> Choice {
    let mut choice = match outcome {
        Outcome::Cleared => choice("close-cleared", "OES ended it as cleared", CLOSE_SAYS),
        Outcome::Released => choice("close-released", "OES ended it as released", CLOSE_SAYS),
    };
    let proposals = actions.iter().filter(|line| {
        line.kind == ActionKind::ProposeEnd.as_str()
            && line.outcome == Some(outcome)
            && line.expires_at_ms.is_some_and(|until| until > now)
    });
    for proposal in proposals {
        if is_same_person(&proposal.who, who) {
            choice.not_by_you = true;
        } else {
            choice.confirms = true;
        }
    }
    choice.not_by_you &= !choice.confirms;
    choice
}

const CLOSE_SAYS: &str = "Takes two operators. Nothing is signed and the decision stays: the book follows \
    OES. OES is read before your word counts, and must agree.";

/// What is done, and why.
#[derive(Deserialize)]
pub(super) struct Deed {
    action: String,
    #[serde(default)]
    reason: String,
}

/// The action that a form's word stands for.
pub(super) fn action_of(word: &str) -> Result<JobAction, Failure> {
    match word {
        "retry" => Ok(JobAction::Retry),
        "approve" => Ok(JobAction::Say(OperatorWord::Approved)),
        "refuse" => Ok(JobAction::Say(OperatorWord::Refused)),
        "close-cleared" => Ok(JobAction::Close(Outcome::Cleared)),
        "close-released" => Ok(JobAction::Close(Outcome::Released)),
        other => Err(Problem::bad(format!("{other:?} is no action")).into()),
    }
}

/// Carries an action out on one job.
pub(super) async fn act(
    State(page): State<Page>,
    Path(record): Path<String>,
    filled: Filled<Deed>,
) -> Result<Redirect, Failure> {
    let record = parse_record(&record)?;
    let action = action_of(&filled.form.action)?;
    let said = match filled.because(&filled.form.reason) {
        Err(failure) => Said::failed(&failure),
        Ok(by) => match Box::pin(page.api.operations.act(action, &[record], &by)).await {
            Err(error) => Said::failed(&error.into()),
            Ok(acted) => {
                let told: Vec<_> = acted.into_iter().map(|(_, acted)| told(acted)).collect();
                let good = told.iter().all(|(done, _)| *done);
                Said { good, lines: told.into_iter().map(|(_, text)| text).collect() }
            }
        },
    };
    page.sessions.say(&filled.open, said);
    Ok(Redirect::to(&format!("/page/jobs/{record}")))
}

/// Whether an action did what it is for, and what became of the job.
pub(super) fn told(acted: Acted) -> (bool, String) {
    match acted {
        Acted::Retry(sent_on) => sent_on_told(sent_on),
        Acted::Word(approval) => approval_told(approval),
        Acted::Close(closing) => closing_told(closing),
        Acted::Failed(reason) => (false, format!("Left alone: {reason}")),
    }
}

fn sent_on_told(sent_on: SentOn) -> (bool, String) {
    match sent_on {
        SentOn::GoesOn(state) => (true, format!("The job goes on as {state}.")),
        SentOn::NotParked(state) => (false, format!("Left alone: it is {state} and not parked.")),
        SentOn::NeedsApproval => {
            (false, "Left alone: it waits for approval or refusal.".to_owned())
        }
        SentOn::Unknown => (false, "There is no such job.".to_owned()),
    }
}

fn approval_told(approval: Approval) -> (bool, String) {
    match approval {
        Approval::Decided(decided) => {
            let code = decided.reject_code.map_or_else(String::new, |code| format!(" ({code})"));
            (true, format!("The job is decided: {}{code}.", decided.outcome))
        }
        Approval::Parked(state) => (false, format!("It cannot be decided and is {state} now.")),
        Approval::NotWaiting { state, .. } => {
            (false, format!("Left alone: it is {state} and does not wait for approval."))
        }
        Approval::BookIsBehind(why) => (false, format!("Left alone, because {why}.")),
        Approval::Waits => (false, "Left alone: it waits for something else first.".to_owned()),
        Approval::DecisionsAreOff => {
            (false, "Left alone: nothing is decided at present. The overview says why.".to_owned())
        }
        Approval::Unknown => (false, "There is no such job.".to_owned()),
    }
}

fn closing_told(closing: Closing) -> (bool, String) {
    match closing {
        Closing::Proposed(until) => (
            true,
            format!(
                "Proposed. The job stays in conflict until another operator says the same, until {until}."
            ),
        ),
        Closing::Closed(state) => (true, format!("The job is closed as {state}.")),
        Closing::SamePerson(until) => {
            (false, format!("You proposed it: another operator must say the same until {until}."))
        }
        Closing::NotTheOutcome(shown) => {
            (false, format!("Left alone: OES was read with {shown}, so that is what can be said."))
        }
        Closing::NotInConflict(state) => {
            (false, format!("Left alone: it is {state} and not in conflict."))
        }
        Closing::Unknown => (false, "There is no such job.".to_owned()),
    }
}
