//! The promises that are looked at after every step.

use std::{collections::BTreeMap, rc::Rc};

use super::{Known, Model, Violation, holds};
use crate::{
    domain::{
        decision::{Decision, Outcome},
        ids::JobSeq,
        news::News,
        state::State,
    },
    simulation::{
        edge::Message,
        oes::{Entry, Oes, Update},
    },
    store::memory::{MemoryBook, OutboxRow, QuarantineRow},
};

/// The bytes carry the record's one decision, with its reason.
pub(super) fn carries_decision(known: &Known, body: &str) -> Result<(), Violation> {
    let update = Update::read(body);
    let reason = update.reject_reason();
    let is_ours = update.record == known.terms.record_id
        && Some(update.outcome) == known.decided
        && reason == known.reject_reason.as_deref();
    holds("every update carries the decision", is_ours, || {
        format!("decided {:?}, and the update says {body}", known.decided)
    })
}

impl Model {
    /// Messages are acknowledged.
    pub(in crate::simulation) fn acknowledged(
        &mut self,
        book: &MemoryBook,
        messages: Vec<Message>,
    ) -> Result<(), Violation> {
        messages.iter().try_for_each(|message| self.is_kept(book, message))?;
        self.acked.extend(messages);
        Ok(())
    }

    /// What a transaction has to tell people: every end, as it was, and nothing else.
    pub(in crate::simulation) fn told(&mut self, news: &[News]) -> Result<(), Violation> {
        let mut told = BTreeMap::new();
        for item in news {
            match item {
                News::Final { record, outcome, overruled, .. } => {
                    told.entry(*record).or_insert((None, 0)).0 = Some((*outcome, *overruled));
                }
                News::Shortfall { record, shortfall } => {
                    let units: i64 = shortfall.to_string().parse().unwrap();
                    told.entry(*record).or_insert((None, 0)).1 = units;
                }
                _ => {}
            }
        }
        let due: BTreeMap<_, _> = (std::mem::take(&mut self.untold).into_iter())
            .map(|(record, (outcome, overruled, short))| {
                (record, (Some((outcome, overruled)), short))
            })
            .collect();
        holds("every end is told as it was", told == due, || format!("{told:?} instead of {due:?}"))
    }

    /// The exchange hears an announcement.
    pub(in crate::simulation) fn heard(
        &mut self,
        book: &MemoryBook,
        row: &OutboxRow,
    ) -> Result<(), Violation> {
        let Some(seq) = row.job else { return Ok(()) };
        let record = book.jobs[&seq].terms.record_id;
        let Some(known) = self.jobs.get_mut(&seq) else {
            return Err(Violation::new("an outcome has its record", record.to_string()));
        };
        let event_id = *known.event_id.get_or_insert(row.event_id);
        holds("a record has one event id", event_id == row.event_id, || {
            format!("{record}: {event_id} and {}", row.event_id)
        })?;
        let kind = known.terms.job_type.as_str();
        let said = known.ended.map(|outcome| format!("{kind}.{}", outcome.as_str()));
        holds(
            "an announcement says how the record ended",
            said.as_deref() == Some(&row.routing_key),
            || format!("{record}: {} and {said:?}", row.routing_key),
        )
    }

    /// Everything that must be true whatever has just happened.
    pub(in crate::simulation) fn check(
        &self,
        book: &MemoryBook,
        oes: &Oes,
    ) -> Result<(), Violation> {
        // Outcomes and open attempts of each job.
        let mut counts: BTreeMap<JobSeq, (usize, usize)> = BTreeMap::new();
        for seq in book.outbox.values().filter_map(|row| row.job) {
            counts.entry(seq).or_default().0 += 1;
        }
        for row in book.attempts.values().filter(|row| row.result.is_none()) {
            counts.entry(row.attempt.job).or_default().1 += 1;
        }
        holds("a job comes from a message", book.jobs.len() == self.jobs.len(), || {
            format!("{} jobs, and the model has {}", book.jobs.len(), self.jobs.len())
        })?;
        for (seq, job) in &book.jobs {
            let record = job.terms.record_id;
            let Some(known) = self.jobs.get(seq) else {
                return Err(Violation::new("a job comes from a message", record.to_string()));
            };
            let decided = job.decision.as_ref().map(Decision::outcome);
            holds("one decision, for ever", decided == known.decided, || {
                format!("{record}: {:?} became {decided:?}", known.decided)
            })?;
            holds("a job moves in its own transaction", job.state == known.state, || {
                format!("{record}: {} became {}", known.state, job.state)
            })?;
            let (outcomes, open) = counts.get(seq).copied().unwrap_or_default();
            let expected = usize::from(job.state == State::Sending);
            holds("one attempt is open while sending, and none else", open == expected, || {
                format!("{record} is {} with {open} open attempts", job.state)
            })?;
            is_ended_well(known, job.state, oes)?;
            let expected = usize::from(job.state.is_final() && job.state != State::Refused);
            holds("an end is announced once", outcomes == expected, || {
                format!("{record} is {} with {outcomes} outcomes", job.state)
            })?;
        }
        self.acked.iter().try_for_each(|message| self.is_kept(book, message))
    }

    /// A message is never forgotten: it is a job, or it is in the quarantine with a dead letter.
    fn is_kept(&self, book: &MemoryBook, message: &Message) -> Result<(), Violation> {
        let is_job = message.terms.as_ref().is_some_and(|terms| {
            let live = self.live.get(&terms.record_id).map(|seq| &self.jobs[seq]);
            // The terms of known jobs are those of the book's. What was refused is none any more.
            live.is_some_and(|known| Rc::ptr_eq(&known.terms, terms) || known.terms == *terms)
        });
        let is_there = |row: &QuarantineRow| row.has_dead_letter && row.bytes == *message.bytes;
        let is_kept = is_job || book.quarantine.values().any(is_there);
        holds("an acknowledged message is in the book", is_kept, || {
            String::from_utf8_lossy(&message.bytes).into_owned()
        })
    }
}

/// A final job ended as OES ended the record.
fn is_ended_well(known: &Known, state: State, oes: &Oes) -> Result<(), Violation> {
    let record = known.terms.record_id;
    let at_oes: Option<Outcome> = oes.records.get(&record).and_then(Entry::outcome);
    let is_well = if state.is_final() && state != State::Refused {
        known.ended.is_some() && known.ended == at_oes
    } else {
        known.ended.is_none()
    };
    holds("the book ends a record as OES does", is_well, || {
        format!("{record} is {state}, ended {:?}, and OES says {at_oes:?}", known.ended)
    })
}
