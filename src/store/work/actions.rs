//! What operators did.

use super::{NewAction, NumberedAction, Subject, Work, next};
use crate::domain::{action::Proposal, ids::JobSeq, news::News};

impl Work {
    /// Journals an operator's action. An end that is proposed is known to later commands of the batch.
    pub fn act(&mut self, action: NewAction) {
        if let Subject::End(job, outcome, Some(expires_at)) = action.subject {
            let (who, at) = (action.by.who.clone(), self.now);
            self.proposals.insert(job, Proposal { who, outcome, at, expires_at });
        }
        self.tell(News::Acted(action.kind));
        let seq = next(&mut self.counters.action);
        self.changes.actions.push(NumberedAction { seq, action });
    }

    /// How an operator last said that OES ended a job's record.
    #[must_use]
    pub fn proposal(&self, job: JobSeq) -> Option<&Proposal> {
        self.proposals.get(&job)
    }
}
