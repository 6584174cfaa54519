//! What operators ask of the writer.

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    act::Act,
    command::{Acts, Done},
};
use crate::{
    domain::{
        action::{ActionKind, Operator, Switch},
        decision::Outcome,
        ids::{QuarantineSeq, RecordId},
        news::News,
        policy::OperatorWord,
    },
    pipeline::{
        approve::{self, Approval},
        close::{self, Closing},
        record::{Intake, Recorded, put_back_in},
        send_on::{self, SentOn},
    },
    store::work::{NewAction, Subject, WorkError},
};

/// Most jobs that one command of an operator is about: they share a transaction.
pub const ACTED_ON_MAX: usize = 100;

/// What an operator does to a job. None of it changes a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobAction {
    /// Sends it on, if it is parked.
    Retry,
    /// Approves or refuses it, if it waits for that.
    Say(OperatorWord),
    /// Says how OES ended its record, if it is in conflict.
    Close(Outcome),
}

/// What became of an action on one job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Acted {
    /// It was to be sent on.
    Retry(SentOn),
    /// It was to be approved or refused.
    Word(Approval),
    /// Its end was said.
    Close(Closing),
    /// The book cannot hold what follows, so nothing was changed; this is why.
    Failed(String),
}

impl Act<'_> {
    pub(super) fn act(&mut self, acts: &Acts) -> Result<Done, WorkError> {
        let Acts { action, records, by } = acts;
        let mut acted = Vec::with_capacity(records.len());
        for record in records {
            acted.push((*record, self.act_on(*action, *record, by)?));
        }
        Ok(Done::Acted(acted))
    }

    fn act_on(
        &mut self,
        action: JobAction,
        record: RecordId,
        by: &Operator,
    ) -> Result<Acted, WorkError> {
        Ok(match action {
            JobAction::Retry => Acted::Retry(send_on::send_on(self.work, record, by)?),
            JobAction::Say(word) => Acted::Word(self.take_word(record, word, by)?),
            JobAction::Close(outcome) => {
                Acted::Close(close::close(self.work, record, outcome, by, self.close_within)?)
            }
        })
    }

    /// Carries out an operator's word, unless decisions are off.
    fn take_word(
        &mut self,
        record: RecordId,
        word: OperatorWord,
        by: &Operator,
    ) -> Result<Approval, WorkError> {
        let may_decide = self.signing.is_some() || self.decides_without_key;
        if !may_decide || !self.switches.is_on(Switch::Signing) {
            return Ok(Approval::DecisionsAreOff);
        }
        let approval = approve::approve(self.work, record, word, by, self.conditions)?;
        if matches!(approval, Approval::Decided(_))
            && let Some(job) = self.work.find(record)
        {
            // It waits for its turn like any other.
            let seq = job.seq;
            self.defer(seq);
        }
        Ok(approval)
    }

    /// Puts a quarantined message back in: it is recorded and decided like one that has just arrived.
    pub(super) fn requeue(
        &mut self,
        message: QuarantineSeq,
        intake: &Intake,
        by: &Operator,
        record_only: bool,
    ) -> Result<Done, WorkError> {
        let recorded = put_back_in(self.work, intake);
        let (word, send) = match recorded {
            Recorded::New(seq) if !record_only => ("new", self.decide_and_prepare(seq)?),
            Recorded::New(_) => ("new", None),
            Recorded::Repeated(_) => ("repeated", None),
            // Nothing has changed, so there is nothing to journal.
            Recorded::Contradicts(_) | Recorded::RefusedBefore => {
                return Ok(Done::Recorded { recorded, send: None });
            }
        };
        let detail = json!({"recordId": intake.terms.record_id, "became": word});
        let subject = Subject::Message(message);
        let kind = ActionKind::Requeue;
        self.work.act(NewAction { kind, by: by.clone(), subject, detail });
        Ok(Done::Recorded { recorded, send })
    }

    /// Sets a switch; what comes later in the batch finds it set. Answers whether that changed anything.
    pub(super) fn set_switch(&mut self, switch: Switch, on: bool, by: &Operator) -> bool {
        if self.switches.is_on(switch) == on {
            return false;
        }
        self.switches = self.switches.with(switch, on);
        let (subject, detail) = (Subject::Switch(switch, on), json!({"on": on}));
        self.work.act(NewAction { kind: ActionKind::Switch, by: by.clone(), subject, detail });
        self.work.tell(News::Switched {
            switch,
            on,
            who: by.who.clone(),
            reason: by.reason.clone(),
        });
        true
    }
}
