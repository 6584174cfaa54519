//! What must follow when the record of an undecided job is read: exactly that, and nothing else.

use std::rc::Rc;

use super::{By, Due, Known, Model, Money, Violation, holds, is_waiting_for_oes};
use crate::{
    domain::{
        decision::Outcome,
        ids::JobSeq,
        job::{JobTerms, JobType},
        record::{OesRecord, Reading},
        state::{ParkReason, State},
        time::TimestampMs,
    },
    pipeline::{read::ReadResult, verify::FirstRead},
    simulation::{
        oes::Oes,
        world::{GRACE, LIMITS},
    },
    store::memory::MemoryBook,
};

/// What a read says about a message.
enum Said {
    Nothing,
    /// OES does not show the record.
    Absent,
    /// It cannot be compared with the message.
    Unclear,
    /// It is not what the message says.
    Other,
    /// It is, and is reserved; an approval may be pending.
    Reserved {
        approval: bool,
    },
    /// It is, and has ended.
    Ended(Outcome),
}

fn said(terms: &JobTerms, result: &ReadResult) -> Said {
    let record = match result {
        ReadResult::Failed => return Said::Nothing,
        ReadResult::Answered(Reading::Absent) => return Said::Absent,
        ReadResult::Answered(Reading::Unreadable(_)) => return Said::Unclear,
        ReadResult::Answered(Reading::Found(record)) => record,
    };
    if (record.job_type, record.connection_id) != (terms.job_type, terms.connection_id) {
        return Said::Other;
    }
    let Some(amount) = &record.amount else { return Said::Unclear };
    let own = (terms.amount.currency().to_string(), terms.amount.quantity().to_string());
    if (&amount.currency, &amount.quantity) != (&own.0, &own.1) {
        return Said::Other;
    }
    let OesRecord { status, pending_approval_id, .. } = record;
    match status.outcome() {
        Some(outcome) => Said::Ended(outcome),
        None => Said::Reserved { approval: pending_approval_id.is_some() },
    }
}

/// The state that a job must have after a read, and who has decided it if it is decided.
fn expected(known: &Known, said: &Said, money: &Money, now: TimestampMs) -> (State, By) {
    let before = known.state;
    let stays = (before, By::Policy);
    let parked = |reason| (State::Parked(reason), By::Policy);
    let is_read = before == State::Received
        || before == State::Parked(ParkReason::NeedsApproval)
        || is_waiting_for_oes(before);
    if !is_read {
        return stays;
    }
    let lacks = |reason| {
        // This read is counted already.
        let is_enough = known.evidence.lacks >= LIMITS.absent_reads_max;
        if before == State::Received && is_enough { parked(reason) } else { stays }
    };
    match said {
        Said::Nothing => stays,
        Said::Absent => lacks(ParkReason::NotShown),
        Said::Unclear => lacks(ParkReason::Unreadable),
        Said::Other => (State::Refused, By::Policy),
        Said::Ended(outcome) => match money.identity_agrees(&known.terms) {
            None if now < known.received_at.after(GRACE) => stays,
            None => parked(ParkReason::EndedAtOes),
            Some(false) => parked(ParkReason::IdentityMismatch),
            Some(true) if takes_too_much(&known.terms, *outcome, money) => {
                parked(ParkReason::EndedAtOes)
            }
            Some(true) => (State::Confirmed, By::Oes(*outcome)),
        },
        Said::Reserved { .. } if before == State::Parked(ParkReason::NeedsApproval) => stays,
        Said::Reserved { .. } if before != State::Received => (State::Received, By::Policy),
        Said::Reserved { .. } => match money.ruling(&known.terms, known.received_at, now, None) {
            // Whether its attempt is prepared at once is not looked at.
            Due::Outcome(_) => (State::Decided, By::Policy),
            Due::Word => parked(ParkReason::NeedsApproval),
            Due::Nothing if money.identity_agrees(&known.terms).is_none() => stays,
            Due::Nothing => parked(ParkReason::IdentityMismatch),
        },
    }
}

fn takes_too_much(terms: &JobTerms, outcome: Outcome, money: &Money) -> bool {
    (terms.job_type, outcome) == (JobType::Deallocation, Outcome::Cleared) && !money.covers(terms)
}

impl Model {
    /// Follows a read of an undecided job's record into the book.
    pub(super) fn first_read(
        &mut self,
        read: &FirstRead,
        book: &MemoryBook,
        oes: &Oes,
        now: TimestampMs,
    ) -> Result<(), Violation> {
        let (job, known) = (&book.jobs[&read.job], self.jobs.get_mut(&read.job).unwrap());
        let (record, before) = (known.terms.record_id, known.state);
        let said = said(&known.terms, &read.result);
        match said {
            Said::Absent | Said::Unclear if before == State::Received => known.evidence.lacks += 1,
            Said::Reserved { approval } if known.decided.is_none() => {
                known.evidence.agreed(approval);
            }
            Said::Nothing
            | Said::Absent
            | Said::Unclear
            | Said::Other
            | Said::Reserved { .. }
            | Said::Ended(_) => {}
        }
        let (expected, by) = expected(known, &said, &self.money, now);
        let is_as_expected = job.state == expected
            || (expected == State::Decided && before != expected && job.state == State::Sending);
        holds("a read of an undecided record means what it says", is_as_expected, || {
            format!("{record}: {before} → {} instead of {expected}, after {read:?}", job.state)
        })?;
        self.look_at(job, by, oes, now)?;
        if job.state == State::Refused { self.give_turn(job.seq, book, oes, now) } else { Ok(()) }
    }

    /// A refused job gives up its record's id, to the first message that came meanwhile and was not
    /// refused.
    fn give_turn(
        &mut self,
        refused: JobSeq,
        book: &MemoryBook,
        oes: &Oes,
        now: TimestampMs,
    ) -> Result<(), Violation> {
        let terms = Rc::clone(&self.jobs[&refused].terms);
        let record = terms.record_id;
        self.live.remove(&record);
        self.refused.push(terms);
        let next = (self.put_away.iter())
            .find(|terms| terms.record_id == record && !self.refused.contains(terms))
            .cloned();
        match next {
            Some(next) => self.take_in(&next, book, oes, now),
            None => holds("a refused job gives up its id", book.find(record).is_none(), || {
                format!("{record}: {:?}", book.find(record))
            }),
        }
    }

    /// Whether a job may go on waiting although OES has ended its record.
    pub(in crate::simulation) fn cannot_follow(&self, terms: &JobTerms, outcome: Outcome) -> bool {
        self.money.identity_agrees(terms).is_none() || takes_too_much(terms, outcome, &self.money)
    }
}
