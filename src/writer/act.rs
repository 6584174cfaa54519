//! The steps at work on one batch: what each command does to the rows in memory.

use std::time::Duration;

use serde_json::json;

use super::{
    Signing,
    command::{Command, Done, Drafted},
};
use crate::{
    domain::{
        action::{Switch, Switches},
        ids::JobSeq,
        news::News,
        schedule::RetryLimits,
        state::{Event, ParkReason, State},
    },
    pipeline::{
        accept,
        budget::{Budget, SendPermit},
        confirm,
        decide::{self, Conditions},
        feed,
        record::{Recorded, record},
        resolve,
        sign::{self, Draft},
        verify::{self, FirstRead},
    },
    store::{
        alerts::AlertUpdate,
        archive::Removal,
        work::{JobEventKind, Work, WorkError},
    },
};

/// The steps at work on one batch.
pub(super) struct Act<'a> {
    pub(super) work: &'a mut Work,
    pub(super) signing: Option<&'a Signing>,
    pub(super) budget: Option<&'a Budget>,
    pub(super) limits: &'a RetryLimits,
    pub(super) conditions: &'a Conditions,
    /// Whether an operator's word decides although there is no key here.
    pub(super) decides_without_key: bool,
    /// What operators have switched off, settings of this batch included.
    pub(super) switches: Switches,
    /// How long an operator's word about the end of a record can be confirmed.
    pub(super) close_within: Duration,
    pub(super) first_attempts_wait: bool,
    /// Due attempts that commands of this batch have taken.
    pub(super) due_taken: usize,
    /// Jobs of this batch that were left to wait for their first attempt, in the order in which that happened.
    pub(super) deferred: Vec<JobSeq>,
    /// Attempts that are to be signed while the rest of the batch is written.
    pub(super) drafts: Vec<Draft>,
}

impl Act<'_> {
    pub(super) fn carry_out(&mut self, command: &mut Command) -> Result<Done, WorkError> {
        match command {
            Command::Record { intake, record_only, .. } => {
                let recorded = record(self.work, intake);
                let send = self.after_recording(recorded, *record_only)?;
                Ok(Done::Recorded { recorded, send })
            }
            Command::Quarantine { message, .. } => {
                self.work.quarantine(message.as_ref().clone());
                Ok(Done::Nothing)
            }
            Command::DecideDue { limit, .. } => self.decide_due(*limit).map(Done::Sends),
            Command::Prepare { permits, .. } => self.prepare_due(permits),
            Command::Finish { reply, .. } => {
                confirm::settle(self.work, reply, self.limits)?;
                Ok(Done::Nothing)
            }
            Command::SettleReads { results, .. } => {
                let suspicion = self.budget.map(Budget::suspicion).unwrap_or_default();
                for (job, result) in results {
                    resolve::settle(self.work, *job, result, self.limits, suspicion)?;
                }
                Ok(Done::Nothing)
            }
            Command::SettleFirstReads { reads, queue, .. } => {
                self.settle_first_reads(reads, queue).map(Done::Sends)
            }
            Command::Published { messages } => {
                self.work.published(messages.iter().copied());
                Ok(Done::Nothing)
            }
            Command::ApplyBook { events, source, .. } => {
                let outcomes = events
                    .iter()
                    .map(|event| self.work.apply_book_event(event, source))
                    .collect::<Result<_, _>>()?;
                Ok(Done::Book(outcomes))
            }
            Command::Feed { fed, .. } => feed::take(self.work, fed).map(Done::Fed),
            Command::AcceptSnapshots { connections, by, .. } => {
                accept::accept(self.work, connections, by).map(Done::Accepted)
            }
            Command::Park { job, reason, why } => {
                park(self.work, *job, *reason, why, self.limits)?;
                Ok(Done::Nothing)
            }
            Command::Act { acts, .. } => self.act(acts),
            Command::Requeue { message, intake, by, record_only, .. } => {
                self.requeue(*message, intake, by, *record_only)
            }
            Command::SetSwitch { switch, on, by, .. } => {
                Ok(Done::Switched(self.set_switch(*switch, *on, by)))
            }
            Command::Archive { removal, .. } => {
                Ok(Done::Archived(self.archive(removal.as_ref().clone())))
            }
            Command::NoteRun { run, .. } => {
                self.work.note_run(run.as_ref().clone());
                Ok(Done::Nothing)
            }
            Command::NoteAlerts { update, .. } => Ok(self.note_alerts(update)),
            Command::StopPreparing { .. } => Ok(Done::Nothing),
        }
    }

    /// Decides what waited, in the order of arrival.
    fn decide_due(&mut self, limit: usize) -> Result<Vec<Drafted>, WorkError> {
        let due: Vec<JobSeq> = self.work.due_decisions().iter().take(limit).copied().collect();
        let mut sends = Vec::new();
        for seq in due {
            if decide::is_undecided(self.work, seq)? {
                sends.extend(self.decide_and_prepare(seq)?);
            }
        }
        Ok(sends)
    }

    fn after_recording(
        &mut self,
        recorded: Recorded,
        record_only: bool,
    ) -> Result<Option<Drafted>, WorkError> {
        match recorded {
            Recorded::New(seq) if !record_only => self.decide_and_prepare(seq),
            Recorded::New(_)
            | Recorded::Repeated(_)
            | Recorded::Contradicts(_)
            | Recorded::RefusedBefore => Ok(None),
        }
    }

    /// Decides a job and, if it may be sent at once, prepares its attempt: one transaction from the
    /// message to the bytes that leave.
    pub(super) fn decide_and_prepare(&mut self, seq: JobSeq) -> Result<Option<Drafted>, WorkError> {
        // Without a key nothing is decided: a decision is made to be signed.
        let Some(signing) = self.signing.filter(|_| self.switches.is_on(Switch::Signing)) else {
            return Ok(None);
        };
        match decide::decide(self.work, seq, self.conditions)? {
            decide::Decided::Decided => {}
            decide::Decided::Waits | decide::Decided::Parked(_) => return Ok(None),
        }
        let permit = if self.first_attempts_wait || !self.switches.is_on(Switch::Sending) {
            None
        } else {
            signing.budget.try_send_permit()
        };
        let Some(permit) = permit else {
            self.defer(seq);
            return Ok(None);
        };
        Ok(Some((self.draft(seq)?, permit)))
    }

    /// Leaves a decided job to wait for its first attempt; later ones wait behind it.
    pub(super) fn defer(&mut self, seq: JobSeq) {
        self.first_attempts_wait = true;
        self.deferred.push(seq);
    }

    /// Drafts the next attempt of a job. Answers its place among the drafts.
    fn draft(&mut self, seq: JobSeq) -> Result<usize, WorkError> {
        self.drafts.push(sign::draft(self.work, seq)?);
        Ok(self.drafts.len().saturating_sub(1))
    }

    /// Removes archived rows, once a batch.
    fn archive(&mut self, removal: Removal) -> Result<(), String> {
        let fits = self.work.archive(removal);
        fits.then_some(()).ok_or_else(|| "one at a time".to_owned())
    }

    fn note_alerts(&mut self, update: &AlertUpdate) -> Done {
        self.work.note_alerts(update.clone());
        Done::Nothing
    }

    /// What reads mean, and the decisions that follow: they share one commit.
    fn settle_first_reads(
        &mut self,
        reads: &[FirstRead],
        queue: &str,
    ) -> Result<Vec<Drafted>, WorkError> {
        let mut sends = Vec::new();
        for read in reads {
            let may_decide = verify::settle(self.work, read, queue, self.conditions, self.limits)?;
            if may_decide {
                sends.extend(self.decide_and_prepare(read.job)?);
            }
        }
        Ok(sends)
    }

    fn prepare_due(&mut self, permits: &[SendPermit]) -> Result<Done, WorkError> {
        let may_send = self.switches.is_on(Switch::Signing) && self.switches.is_on(Switch::Sending);
        let Some(signing) = self.signing.filter(|_| may_send) else {
            return Ok(Done::Prepared { drafts: Vec::new(), more: Vec::new() });
        };
        let due: Vec<JobSeq> = self
            .work
            .due_attempts()
            .iter()
            .skip(self.due_taken)
            .take(permits.len())
            .copied()
            .collect();
        self.due_taken = self.due_taken.saturating_add(due.len());
        let all_taken = due.len() < permits.len() || !self.work.first_attempts_left();
        let mut drafts = Vec::with_capacity(due.len());
        for seq in due {
            if self.work.job(seq)?.state == State::Decided {
                drafts.push(self.draft(seq)?);
            }
        }
        let more = if all_taken { self.prepare_deferred(&signing.budget)? } else { Vec::new() };
        Ok(Done::Prepared { drafts, more })
    }

    /// None is left that waited before this batch, so those that it left to wait have their turns. Were they left
    /// to the next batch, the jobs of that one would wait behind them, and so on for as long as jobs come.
    fn prepare_deferred(&mut self, budget: &Budget) -> Result<Vec<Drafted>, WorkError> {
        let waiting: Vec<JobSeq> = std::mem::take(&mut self.deferred)
            .into_iter()
            .filter(|seq| self.work.job(*seq).is_ok_and(|job| job.state == State::Decided))
            .collect();
        let permits: Vec<SendPermit> =
            waiting.iter().map_while(|_| budget.try_send_permit()).collect();
        let chosen = self.work.take_turns(&waiting, permits.len());
        self.first_attempts_wait = chosen.len() < waiting.len();
        self.deferred = waiting.into_iter().filter(|seq| !chosen.contains(seq)).collect();
        chosen
            .into_iter()
            .zip(permits)
            .map(|(seq, permit)| Ok((self.draft(seq)?, permit)))
            .collect()
    }
}

fn park(
    work: &mut Work,
    job: JobSeq,
    reason: ParkReason,
    why: &str,
    limits: &RetryLimits,
) -> Result<(), WorkError> {
    let next = (!reason.is_undecided()).then(|| work.now().after(limits.slow_read_every));
    match work.job(job)?.state {
        // An operator looks already; a final job needs none.
        State::Parked(_) | State::Conflict(_) => work.job_mut(job)?.next_step_at = next,
        State::Confirmed | State::Overruled | State::Refused => return Ok(()),
        State::Received
        | State::Decided
        | State::Sending
        | State::Unknown(_)
        | State::AwaitingApproval => work.advance(job, Event::Park(reason), next)?,
    }
    work.note(job, JobEventKind::Parked, &json!({"reason": reason.as_str(), "why": why}));
    let record = work.job(job)?.terms.record_id;
    work.tell(News::Parked { record, reason, why: Some(why.to_owned()) });
    Ok(())
}
