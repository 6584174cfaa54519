//! The worker's side of verifying: records are read before anything is decided about them.

use super::{
    model::{Touched, Violation},
    operation::{Fate, ReadFate},
    worker::{QUEUE, READS_MAX, works},
    world::{LIMITS, World},
};
use crate::{
    domain::{ids::RecordId, record::Reading, verification::agrees_at_sight},
    pipeline::{
        read::ReadResult,
        verify::{self, FirstRead},
    },
    store::work::Needs,
};

/// How many of the records of a read belong to parked jobs at most.
const PARKED_MAX: usize = 2;

impl World {
    /// Reads the records of undecided jobs; there is one reader of them, and it waits until the last
    /// reads are in the book.
    pub(super) fn verify(&mut self, fate: ReadFate) {
        let is_idle =
            self.conditions.verification.is_required && self.process.first_reads.is_empty();
        let due = self.book.due_verifications(self.now, (PARKED_MAX, READS_MAX));
        if !is_idle || due.is_empty() || !self.ask_for_records(fate) {
            return;
        }
        for seq in due {
            let terms = &self.book.jobs[&seq].terms;
            let result = self.first_read(terms.record_id, fate);
            let is_plain = match &result {
                ReadResult::Answered(reading) => agrees_at_sight(terms, reading),
                ReadResult::Failed => true,
            };
            self.process.first_reads.push(FirstRead { job: seq, result, is_plain });
        }
    }

    fn first_read(&self, id: RecordId, fate: ReadFate) -> ReadResult {
        ReadResult::Answered(match fate {
            ReadFate::Works => self.oes.read(id),
            ReadFate::ShowsNothing => Reading::Absent,
            ReadFate::Garbled => Reading::Unreadable("simulated".to_owned()),
            ReadFate::Fails | ReadFate::Unauthorized | ReadFate::RateLimited { .. } => {
                return ReadResult::Failed;
            }
        })
    }

    pub(super) fn settle_verified(&mut self, fate: Fate) -> Result<(), Violation> {
        let reads = std::mem::take(&mut self.process.first_reads);
        if reads.is_empty() {
            return Ok(());
        }
        let accused = reads.iter().filter(|read| !read.is_plain);
        let needs = Needs {
            jobs: reads.iter().map(|read| read.job).collect(),
            accused: accused.map(|read| (read.job, QUEUE.to_owned())).collect(),
            ..Needs::default()
        };
        let mut work = self.book.begin(self.now, &needs);
        let mut prepared = Vec::new();
        for read in &reads {
            if works(verify::settle(&mut work, read, QUEUE, &self.conditions, &LIMITS))? {
                let attempt = self.decide_and_prepare(&mut work, read.job, prepared.len());
                prepared.extend(works(attempt)?);
            }
        }
        let touched: Vec<Touched> = reads.into_iter().map(Touched::FirstRead).collect();
        if self.end(work, fate, &touched)? {
            self.process.prepared.append(&mut prepared);
        }
        Ok(())
    }
}
