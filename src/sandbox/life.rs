//! What can happen to a record, by the partner's word, an approval, or OES itself.

use uuid::Uuid;

use super::{
    fault::AfterRejection,
    record::{Asked, PolicyResult, Standing, other},
    world::{Account, World, WorldError},
};
use crate::domain::{decision::Outcome, ids::RecordId, time::TimestampMs};

/// What OES says when it releases a record by itself.
const RELEASED_BY_OES: &str = "Released by OES.";

/// What a rejecting policy says.
const REJECTED_BY_POLICY: &str = "The policy rejected the update.";

impl World {
    /// Ends a record and moves its funds.
    pub(super) fn settle(
        &mut self,
        id: RecordId,
        outcome: Outcome,
        reason: Option<String>,
        now: TimestampMs,
    ) -> Result<(), WorldError> {
        let record = self.record(id).ok_or(WorldError::NoRecord(id))?;
        if record.standing.outcome().is_some() {
            return Err(WorldError::Final(id));
        }
        let (connection_id, quantity) = (record.connection_id, record.quantity);
        let (currency, record_type) = (record.currency.clone(), record.record_type);
        let paying = self.funds(connection_id, Account::paying(record_type), &currency)?;
        match outcome {
            Outcome::Released => paying.unhold(quantity)?,
            Outcome::Cleared => {
                paying.take_held(quantity)?;
                self.funds(connection_id, Account::receiving(record_type), &currency)?
                    .add(quantity);
            }
        }
        let record = self.record_mut(id)?;
        record.standing = Standing::Final(outcome);
        record.updated_at = now;
        record.reason = match outcome {
            Outcome::Cleared => None,
            Outcome::Released => reason.or_else(|| Some("Released.".to_owned())),
        };
        Ok(())
    }

    /// Does what the partner asks for.
    pub(super) fn obey(
        &mut self,
        id: RecordId,
        asked: &Asked,
        now: TimestampMs,
    ) -> Result<(), WorldError> {
        self.settle(id, asked.outcome, asked.reject_reason.clone(), now)?;
        self.record_mut(id)?.partner_external_id = Some(asked.partners_record_id.clone());
        Ok(())
    }

    /// Keeps what the partner asks for until it is approved or rejected.
    pub(super) fn await_approval(
        &mut self,
        id: RecordId,
        asked: Asked,
        now: TimestampMs,
    ) -> Result<(), WorldError> {
        let record = self.record_mut(id)?;
        record.standing = Standing::AwaitingApproval(asked);
        record.pending_approval_id = Some(Uuid::new_v4().to_string());
        record.policy_result = None;
        record.updated_at = now;
        Ok(())
    }

    /// Approves what the partner asked for: it happens.
    pub(super) fn approve(&mut self, id: RecordId, now: TimestampMs) -> Result<(), WorldError> {
        let asked = self.awaited(id)?;
        self.obey(id, &asked, now)?;
        self.record_mut(id)?.policy_result = Some(PolicyResult::Approved);
        Ok(())
    }

    /// Rejects what the partner asked for.
    pub(super) fn reject(
        &mut self,
        id: RecordId,
        then: AfterRejection,
        now: TimestampMs,
    ) -> Result<(), WorldError> {
        let asked = self.awaited(id)?;
        self.policy_rejects(id, asked.outcome, then, now)
    }

    /// What the policy does with an update that it rejects.
    pub(super) fn policy_rejects(
        &mut self,
        id: RecordId,
        asked: Outcome,
        then: AfterRejection,
        now: TimestampMs,
    ) -> Result<(), WorldError> {
        match then {
            AfterRejection::OtherOutcome => {
                let reason = Some(REJECTED_BY_POLICY.to_owned());
                self.settle(id, other(asked), reason, now)?;
            }
            AfterRejection::StaysReserved => {
                let record = self.record_mut(id)?;
                record.standing = Standing::Reserved;
                record.reason = Some(REJECTED_BY_POLICY.to_owned());
                record.updated_at = now;
            }
        }
        self.record_mut(id)?.policy_result = Some(PolicyResult::Rejected);
        Ok(())
    }

    /// OES ends a record by itself.
    pub(super) fn finish(
        &mut self,
        id: RecordId,
        outcome: Outcome,
        now: TimestampMs,
    ) -> Result<(), WorldError> {
        self.settle(id, outcome, Some(RELEASED_BY_OES.to_owned()), now)
    }

    fn awaited(&self, id: RecordId) -> Result<Asked, WorldError> {
        let record = self.record(id).ok_or(WorldError::NoRecord(id))?;
        match &record.standing {
            Standing::AwaitingApproval(asked) => Ok(asked.clone()),
            Standing::Reserved | Standing::Final(_) => Err(WorldError::NotWaiting(id)),
        }
    }
}
