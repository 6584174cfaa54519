//! What was refused because OES's record is another.

use super::{Contender, Work, WorkError};
use crate::domain::{
    ids::{JobSeq, RecordId},
    job::ContentHash,
    state::Event,
};

impl Work {
    /// Whether a message with this content was refused about this record.
    #[must_use]
    pub fn was_refused(&self, record: RecordId, content: ContentHash) -> bool {
        self.refused.contains(&(record, content))
    }

    /// Refuses a job: its record's id is free for the message that it belongs to. Answers the message as
    /// it came, and those that came about the record since; `None` if they were not looked for.
    ///
    /// # Errors
    /// [`WorkError`] when the state machine forbids it.
    pub fn refuse(&mut self, seq: JobSeq) -> Result<Option<(String, Vec<Contender>)>, WorkError> {
        let Some(raw) = self.raw_messages.get(&seq).cloned() else { return Ok(None) };
        self.advance(seq, Event::Refuse, None)?;
        let job = self.job(seq)?;
        let (record, content) = (job.terms.record_id, job.content_hash);
        self.by_record.remove(&record);
        self.refused.insert((record, content));
        Ok(Some((raw, self.contenders.remove(&record).unwrap_or_default())))
    }

    /// Has a record's content read once more, although it was refused before.
    pub fn forget_refusal(&mut self, record: RecordId, content: ContentHash) {
        self.refused.remove(&(record, content));
    }
}
