//! The end of a run: faults stop, time passes, and everything must come to where it belongs.

use std::{rc::Rc, time::Duration};

use super::{
    model::{Model, Violation},
    oes::{Entry, Shown},
    operation::{Fate, Operation, PutFate, ReadFate},
    world::World,
};
use crate::domain::{
    gate::Permission,
    job::{Job, JobTerms},
    policy::OperatorWord,
    record::PolicyResult,
    state::{ConflictKind, ParkReason, State},
};

/// Longer than any rest of a job: the next read of a parked one is due.
const ROUND: Duration = Duration::from_secs(400);

/// Rounds after which whatever still moves never stops.
const ROUNDS_MAX: usize = 40;

const COMMITS: Fate = Fate::Commits;

impl World {
    /// Lets the worker go on without faults; then an operator sends on what is parked. After each of
    /// the two every job must rest where OES and its own history put it.
    pub(super) fn come_to_rest(&mut self) -> Result<(), Violation> {
        Model::check_movements(&self.book)?;
        self.put_clock_right();
        while !self.oes.lingering.is_empty() {
            self.step(Operation::Arrive { which: 0 })?;
        }
        self.go_on()?;
        self.look_round(false)?;
        if !self.book.jobs.values().any(|job| matches!(job.state, State::Parked(_))) {
            return Ok(());
        }
        for which in 0..self.records.len() {
            let record = u8::try_from(which).unwrap();
            self.step(Operation::SendOn { record, fate: COMMITS })?;
            let word = [OperatorWord::Approved, OperatorWord::Refused][which % 2];
            self.step(Operation::SayWord { record, word, fate: COMMITS })?;
        }
        self.go_on()?;
        self.look_round(true)?;
        Model::check_movements(&self.book)
    }

    fn go_on(&mut self) -> Result<(), Violation> {
        for _ in 0..ROUNDS_MAX {
            self.round()?;
            let moves = |job: &Job| {
                matches!(
                    job.state,
                    State::Received | State::Decided | State::Sending | State::Unknown(_)
                )
            };
            if !self.book.jobs.values().any(moves) {
                // Whatever is read slowly is read again, until that moves nothing.
                let before = self.states();
                if before.iter().all(|state| state.is_final()) {
                    return Ok(());
                }
                self.round()?;
                if self.states() == before {
                    return Ok(());
                }
            }
        }
        Err(self.stuck("everything comes to rest"))
    }

    fn states(&self) -> Vec<State> {
        self.book.jobs.values().map(|job| job.state).collect()
    }

    fn stuck(&self, promise: &'static str) -> Violation {
        let states = self.book.jobs.values();
        let states: Vec<String> =
            states.map(|job| format!("{} {}", job.terms.record_id, job.state)).collect();
        Violation::new(promise, format!("at {}: {}", self.now, states.join(", ")))
    }

    fn round(&mut self) -> Result<(), Violation> {
        self.wait(ROUND);
        while !self.queue.is_empty() {
            self.step(Operation::Deliver { count: 4, fate: COMMITS, acked: true })?;
        }
        for _ in 0..3 {
            self.step(Operation::SettleVerified { fate: COMMITS })?;
            self.step(Operation::Verify { fate: ReadFate::Works })?;
            self.step(Operation::SettleVerified { fate: COMMITS })?;
        }
        self.step(Operation::Decide { fate: COMMITS })?;
        // Each takes a few, so some rounds take all.
        for _ in 0..3 {
            if !self.book.due(self.now, 1, |job| job.state == State::Decided).is_empty() {
                self.step(Operation::Prepare { count: 4, fate: COMMITS })?;
            }
            while !self.process.prepared.is_empty() {
                self.step(Operation::Put { which: 0, fate: PutFate::Works })?;
            }
            while !self.process.replies.is_empty() {
                self.step(Operation::Finish { which: 0, fate: COMMITS })?;
            }
            // A refused token is tried with a read, also when no record is due.
            let is_open = self.process.gate.permission(self.now) == Permission::Open;
            let is_due = !self.book.due_reads(self.now, 1).is_empty();
            if !is_open || is_due || !self.process.reads.is_empty() {
                self.step(Operation::SettleReads { fate: COMMITS })?;
                self.step(Operation::Read { fate: ReadFate::Works })?;
                self.step(Operation::SettleReads { fate: COMMITS })?;
            }
        }
        self.step(Operation::Announce { confirmed: true, fate: COMMITS })
    }

    fn look_round(&self, sent_on: bool) -> Result<(), Violation> {
        if self.book.outbox.values().any(|row| !row.is_published) || !self.queue.is_empty() {
            return Err(self.stuck("everything is taken in and announced"));
        }
        for terms in &self.records {
            let (record, entry) = (terms.record_id, &self.oes.records[&terms.record_id]);
            // A message that a contradicting one came before is in the quarantine.
            match self.book.find(record) {
                Some(job) if self.may_rest(job, entry, sent_on) => {}
                Some(job) => {
                    let detail = format!("{record} rests as {}, and OES has {entry:?}", job.state);
                    return Err(Violation::new("a job rests where it belongs", detail));
                }
                None => self.all_are_forged(entry)?,
            }
        }
        Ok(())
    }

    /// A record without a job: nothing that was ever published about it is what OES has.
    fn all_are_forged(&self, entry: &Entry) -> Result<(), Violation> {
        let is_genuine = |terms: &&Rc<JobTerms>| {
            terms.record_id == entry.terms.record_id && entry.is_about(terms)
        };
        match self.published.iter().find(is_genuine) {
            None if self.conditions.verification.is_required => Ok(()),
            None => Err(Violation::new("no job is lost", entry.terms.record_id.to_string())),
            Some(terms) => {
                Err(Violation::new("a genuine message has its turn", format!("{terms:?}")))
            }
        }
    }

    fn may_rest(&self, job: &Job, entry: &Entry, sent_on: bool) -> bool {
        match job.state {
            // OES may have ended it, and the book cannot follow.
            State::Parked(ParkReason::EndedAtOes) => (entry.outcome())
                .is_some_and(|outcome| self.model.cannot_follow(&job.terms, outcome)),
            State::Parked(ParkReason::NeedsApproval)
                if self.conditions.verification.is_required =>
            {
                !sent_on && entry.outcome().is_none()
            }
            _ => may_rest(job, entry, sent_on),
        }
    }
}

/// Whether nothing more is to be expected of a job. After an operator has sent it on, only what OES
/// itself holds up may keep it from its end.
fn may_rest(job: &Job, entry: &Entry, sent_on: bool) -> bool {
    let is_rejected = entry.policy == Some(PolicyResult::Rejected);
    let is_open = entry.outcome().is_none();
    match job.state {
        State::Received | State::Decided | State::Sending | State::Unknown(_) => false,
        // That a final job is as OES has the record is looked at after every step.
        State::Confirmed
        | State::Overruled
        | State::Refused
        | State::Parked(ParkReason::IdentityMismatch) => true,
        State::AwaitingApproval => entry.is_pending(),
        State::Conflict(ConflictKind::OtherOutcome) => !is_open && !is_rejected,
        State::Conflict(ConflictKind::WrongEcho) => is_open,
        State::Conflict(ConflictKind::OtherTerms) => !entry.is_about(&job.terms),
        // The reason is what the last read before it showed.
        State::Parked(ParkReason::NotShown | ParkReason::Unreadable) => {
            entry.shown != Shown::InFull
        }
        State::Parked(ParkReason::NeedsApproval) => !sent_on,
        State::Parked(ParkReason::NotFoundAtOes) if sent_on => entry.shown == Shown::Not,
        State::Parked(ParkReason::PolicyRejected) if sent_on => is_open && is_rejected,
        State::Parked(ParkReason::ApprovalUnclear) if sent_on => entry.is_pending(),
        State::Parked(_) => is_open && !sent_on,
    }
}
