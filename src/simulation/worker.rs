//! The worker's side of a run: each step in a transaction that may be lost.

use std::time::Duration;

use super::{
    edge::{self, Message},
    model::{Touched, Violation},
    operation::{Fact, Fate, PutFate, ReadFate},
    world::{LIMITS, World},
};
use crate::{
    domain::{
        action::Operator,
        book::BookEvent,
        gate::{Permission, StopCause},
        ids::{JobSeq, RecordId},
        message::parse_job,
        payload::Signature,
        policy::OperatorWord,
        record::Reading,
        reply::{Verdict, classify},
        state::{Doubt, State},
    },
    pipeline::{
        approve::approve,
        confirm::{self, Reply},
        decide::{self, Decided},
        read::ReadResult,
        record::{Intake, Recorded, bad_message, record},
        resolve, send_on,
        sign::{self, PreparedAttempt},
    },
    store::work::{AttemptEnd, ContentHashKey, Needs, Work, WorkError},
};

pub(super) const QUEUE: &str = "settled.jobs";

/// Most updates that are under way at a time.
const IN_FLIGHT_MAX: usize = 4;

/// Most records that one read asks for.
pub(super) const READS_MAX: usize = 4;

/// A step must never fail: what the states forbid is not asked for.
pub(super) fn works<T>(result: Result<T, WorkError>) -> Result<T, Violation> {
    result.map_err(|error| Violation::new("a step never fails", error.to_string()))
}

impl World {
    /// Ends a transaction. True if the process goes on to tell what it did.
    pub(super) fn end(
        &mut self,
        mut work: Work,
        fate: Fate,
        touched: &[Touched],
    ) -> Result<bool, Violation> {
        if fate != Fate::CrashBefore {
            let news = work.take_news();
            self.book
                .commit(work)
                .map_err(|reason| Violation::new("a step finds its rows", reason))?;
            self.model.observe(&self.book, &self.oes, touched, self.now)?;
            self.model.told(&news)?;
        }
        if fate != Fate::Commits {
            self.crash()?;
        }
        Ok(fate == Fate::Commits)
    }

    pub(super) fn deliver(&mut self, count: u8, fate: Fate, acked: bool) -> Result<(), Violation> {
        let count = usize::from(count).min(self.queue.len());
        let messages: Vec<Message> = self.queue.drain(..count).collect();
        let mut needs = Needs::default();
        for message in &messages {
            add_needs(message, &mut needs);
        }
        let mut work = self.book.begin(self.now, &needs);
        let mut prepared = Vec::new();
        for message in &messages {
            let attempt = works(self.take_in(&mut work, message, prepared.len()))?;
            prepared.extend(attempt);
        }
        let touched: Vec<Touched> = messages.iter().cloned().map(Touched::Message).collect();
        let told = self.end(work, fate, &touched)?;
        if told {
            self.process.prepared.append(&mut prepared);
        }
        if told && acked {
            self.model.acknowledged(&self.book, messages)
        } else {
            // What the broker did not hear an acknowledgement for comes again, first.
            for message in messages.into_iter().rev() {
                self.queue.push_front(message);
            }
            Ok(())
        }
    }

    fn take_in(
        &self,
        work: &mut Work,
        message: &Message,
        in_batch: usize,
    ) -> Result<Option<PreparedAttempt>, WorkError> {
        let terms = match parse_job(&message.bytes) {
            Ok(terms) => terms,
            Err(refusal) => {
                work.quarantine(bad_message(QUEUE, message.bytes.to_vec(), refusal));
                return Ok(None);
            }
        };
        let raw = String::from_utf8_lossy(&message.bytes).into_owned();
        match record(work, &Intake { terms, raw, queue: QUEUE.to_owned(), book_sequence: None }) {
            Recorded::New(seq) => self.decide_and_prepare(work, seq, in_batch),
            Recorded::Repeated(_) | Recorded::Contradicts(_) | Recorded::RefusedBefore => Ok(None),
        }
    }

    pub(super) fn decide_and_prepare(
        &self,
        work: &mut Work,
        seq: JobSeq,
        in_batch: usize,
    ) -> Result<Option<PreparedAttempt>, WorkError> {
        let decided = decide::decide(work, seq, &self.conditions)?;
        let is_open = self.process.gate.permission(self.now) == Permission::Open;
        let has_room = self.process.prepared.len() + in_batch < IN_FLIGHT_MAX;
        if decided == Decided::Decided && is_open && has_room {
            self.sign(work, seq).map(Some)
        } else {
            Ok(None)
        }
    }

    fn sign(&self, work: &mut Work, seq: JobSeq) -> Result<PreparedAttempt, WorkError> {
        let draft = sign::draft(work, seq)?;
        let signature = match &self.key {
            Some(key) => key.sign(draft.payload()),
            None => Some(Signature::from_bytes([31; 65])),
        };
        let (attempt, prepared) = draft.sign(signature)?;
        work.add_attempts([attempt]);
        Ok(prepared)
    }

    pub(super) fn decide(&mut self, fate: Fate) -> Result<(), Violation> {
        let verifies = self.conditions.verification.is_required;
        let needs = Needs { due_decisions: 8, verifies, ..Needs::default() };
        let mut work = self.book.begin(self.now, &needs);
        let due = work.due_decisions().to_vec();
        if due.is_empty() {
            return Ok(());
        }
        let mut prepared = Vec::new();
        for seq in &due {
            if works(decide::is_undecided(&work, *seq))? {
                let attempt = works(self.decide_and_prepare(&mut work, *seq, prepared.len()))?;
                prepared.extend(attempt);
            }
        }
        let touched: Vec<Touched> = due.into_iter().map(Touched::Job).collect();
        if self.end(work, fate, &touched)? {
            self.process.prepared.append(&mut prepared);
        }
        Ok(())
    }

    pub(super) fn prepare(&mut self, count: u8, fate: Fate) -> Result<(), Violation> {
        let room = IN_FLIGHT_MAX.saturating_sub(self.process.prepared.len());
        let due_now = self.book.due(self.now, 1, |job| job.state == State::Decided);
        if due_now.is_empty() || room == 0 {
            return Ok(());
        }
        let permits = match self.process.gate.permission(self.now) {
            Permission::Open => room.min(usize::from(count)),
            Permission::Stopped(StopCause::UpdatesForbidden, _) => {
                usize::from(self.process.gate.take_trial(self.now, StopCause::UpdatesForbidden))
            }
            Permission::Stopped(StopCause::TokenRefused, _) | Permission::PausedUntil(_) => 0,
        };
        let needs = Needs { due_attempts: permits, ..Needs::default() };
        let mut work = self.book.begin(self.now, &needs);
        let due = work.due_attempts().to_vec();
        let mut prepared = Vec::new();
        for seq in &due {
            prepared.push(works(self.sign(&mut work, *seq))?);
        }
        let touched: Vec<Touched> = due.into_iter().map(Touched::Job).collect();
        if self.end(work, fate, &touched)? {
            self.process.prepared.append(&mut prepared);
        }
        Ok(())
    }

    pub(super) fn put(&mut self, which: u8, fate: PutFate) -> Result<(), Violation> {
        let Some(index) = usize::from(which).checked_rem(self.process.prepared.len()) else {
            return Ok(());
        };
        let PreparedAttempt { job, seq, terms, body, .. } = self.process.prepared.remove(index);
        self.model.sent(&self.book, seq, &body)?;
        let answer = self.oes.put(&body, fate);
        let retry_at = (answer.as_ref())
            .and_then(|answer| answer.retry_after_s)
            .map(|seconds| self.now.after(Duration::from_secs(seconds.into())));
        let verdict = match &answer {
            Some(answer) => classify(&terms, answer.status, Some(answer.body.as_bytes())),
            None => Verdict::Doubtful(Doubt::NoReply),
        };
        let status = answer.as_ref().map(|answer| answer.status);
        self.model.answered(terms.record_id, fate, status, retry_at);
        let gate = &mut self.process.gate;
        match verdict {
            Verdict::TurnedAway => {
                gate.rate_limited(self.now, retry_at);
            }
            Verdict::Doubtful(Doubt::Unauthorized) => {
                gate.token_refused(self.now);
            }
            Verdict::Doubtful(Doubt::Forbidden) => {
                gate.update_forbidden(self.now, terms.record_id);
            }
            Verdict::Doubtful(Doubt::NoReply | Doubt::ServerError) => {}
            Verdict::Accepted | Verdict::ApprovalPending | Verdict::Doubtful(_) => {
                gate.update_answered();
            }
        }
        let end = AttemptEnd { result: verdict.as_str(), ..AttemptEnd::default() };
        self.process.replies.push(Reply { job, attempt: seq, verdict, end });
        Ok(())
    }

    pub(super) fn finish(&mut self, which: u8, fate: Fate) -> Result<(), Violation> {
        let Some(index) = usize::from(which).checked_rem(self.process.replies.len()) else {
            return Ok(());
        };
        let reply = self.process.replies.remove(index);
        let needs = Needs { jobs: [reply.job].into(), ..Needs::default() };
        let mut work = self.book.begin(self.now, &needs);
        works(confirm::settle(&mut work, &reply, &LIMITS))?;
        self.end(work, fate, &[Touched::Job(reply.job)])?;
        Ok(())
    }

    /// Reads what is due; there is one reader, and it waits until the last reads are in the book.
    pub(super) fn read(&mut self, fate: ReadFate) {
        if !self.process.reads.is_empty() || !self.ask_for_records(fate) {
            return;
        }
        for seq in self.book.due_reads(self.now, READS_MAX) {
            let id = self.book.jobs[&seq].terms.record_id;
            let result = self.read_one(id, fate);
            self.process.reads.push((seq, result));
        }
    }

    /// Whether a request for records may leave; if so, it is answered with this.
    pub(super) fn ask_for_records(&mut self, fate: ReadFate) -> bool {
        let may_read = match self.process.gate.permission(self.now) {
            Permission::Open | Permission::Stopped(StopCause::UpdatesForbidden, _) => true,
            Permission::Stopped(StopCause::TokenRefused, _) => {
                self.process.gate.take_trial(self.now, StopCause::TokenRefused)
            }
            Permission::PausedUntil(_) => false,
        };
        if !may_read {
            return false;
        }
        let retry_at = match fate {
            ReadFate::RateLimited { retry_after_s: Some(seconds) } => {
                Some(self.now.after(Duration::from_secs(seconds.into())))
            }
            _ => None,
        };
        self.model.read_answered(fate, retry_at);
        let gate = &mut self.process.gate;
        match fate {
            ReadFate::Works | ReadFate::ShowsNothing | ReadFate::Garbled => {
                gate.read_answered();
            }
            ReadFate::Unauthorized => {
                gate.token_refused(self.now);
            }
            ReadFate::RateLimited { .. } => {
                gate.rate_limited(self.now, retry_at);
            }
            ReadFate::Fails => {}
        }
        true
    }

    fn read_one(&mut self, id: RecordId, fate: ReadFate) -> ReadResult {
        match fate {
            ReadFate::Works => {
                let reading = self.oes.read(id);
                self.model.was_read(&self.book, id, &reading);
                ReadResult::Answered(reading)
            }
            ReadFate::ShowsNothing => {
                self.model.was_not_shown(id);
                ReadResult::Answered(Reading::Absent)
            }
            ReadFate::Garbled => ReadResult::Answered(Reading::Unreadable("simulated".to_owned())),
            ReadFate::Fails | ReadFate::Unauthorized | ReadFate::RateLimited { .. } => {
                ReadResult::Failed
            }
        }
    }

    pub(super) fn settle_reads(&mut self, fate: Fate) -> Result<(), Violation> {
        if self.process.reads.is_empty() {
            return Ok(());
        }
        let reads = std::mem::take(&mut self.process.reads);
        let jobs = reads.iter().map(|(seq, _)| *seq);
        let needs = Needs { jobs: jobs.clone().collect(), ..Needs::default() };
        let touched: Vec<Touched> = jobs.map(Touched::Job).collect();
        let mut work = self.book.begin(self.now, &needs);
        let suspicion = self.process.gate.suspicion();
        for (seq, result) in &reads {
            works(resolve::settle(&mut work, *seq, result, &LIMITS, suspicion))?;
        }
        self.end(work, fate, &touched)?;
        Ok(())
    }

    /// Publishes what is in the outbox; the exchange hears it whether or not the broker's word that it
    /// does comes back.
    pub(super) fn announce(&mut self, confirmed: bool, fate: Fate) -> Result<(), Violation> {
        let unpublished = self.book.outbox.iter().filter(|(_, row)| !row.is_published);
        let unpublished: Vec<_> = unpublished.map(|(seq, _)| *seq).collect();
        if unpublished.is_empty() {
            return Ok(());
        }
        for seq in &unpublished {
            self.model.heard(&self.book, &self.book.outbox[seq])?;
        }
        if !confirmed {
            return Ok(());
        }
        let mut work = self.book.begin(self.now, &Needs::default());
        work.published(unpublished);
        self.end(work, fate, &[])?;
        Ok(())
    }

    pub(super) fn feed(&mut self, fact: Fact, fate: Fate) -> Result<(), Violation> {
        let text = edge::fact_text(self.fed.len(), fact);
        self.fed.push(text.clone());
        self.feed_text(&text, fate)
    }

    pub(super) fn feed_text(&mut self, text: &str, fate: Fate) -> Result<(), Violation> {
        let event = BookEvent::parse(text).unwrap();
        let mut needs = Needs::default();
        needs.book_events.insert(event.id().clone());
        for which in 0..edge::CONNECTIONS {
            needs.connections.insert(edge::connection_id(which));
            needs.accounts.insert((edge::connection_id(which), edge::currency(0)));
            needs.accounts.insert((edge::connection_id(which), edge::currency(1)));
        }
        let mut work = self.book.begin(self.now, &needs);
        works(work.apply_book_event(&event, "simulated"))?;
        self.end(work, fate, &[Touched::Fact(Box::new(event))])?;
        Ok(())
    }

    pub(super) fn send_on(&mut self, which: u8, fate: Fate) -> Result<(), Violation> {
        let Some(terms) = self.record(which) else { return Ok(()) };
        let record = terms.record_id;
        let needs = Needs { records: [record].into(), ..Needs::default() };
        let mut work = self.book.begin(self.now, &needs);
        works(send_on::send_on(&mut work, record, &somebody()))?;
        let touched = self.book.find(record).map(|job| Touched::SentOn(job.seq));
        self.end(work, fate, touched.as_slice())?;
        Ok(())
    }

    pub(super) fn say_word(
        &mut self,
        which: u8,
        said: OperatorWord,
        fate: Fate,
    ) -> Result<(), Violation> {
        let Some(terms) = self.record(which) else { return Ok(()) };
        let record = terms.record_id;
        let needs = Needs { records: [record].into(), ..Needs::default() };
        let mut work = self.book.begin(self.now, &needs);
        works(approve(&mut work, record, said, &somebody(), &self.conditions))?;
        let touched = self.book.find(record).map(|job| Touched::Word(job.seq, said));
        self.end(work, fate, touched.as_slice())?;
        Ok(())
    }
}

fn somebody() -> Operator {
    Operator::new("somebody", "looked").unwrap()
}

fn add_needs(message: &Message, needs: &mut Needs) {
    use sha2::{Digest as _, Sha256};
    let hash = ContentHashKey(Sha256::digest(&message.bytes).into());
    let key = (QUEUE.to_owned(), hash);
    let Some(terms) = &message.terms else {
        needs.quarantined.insert(key);
        return;
    };
    needs.doubtful.push((terms.record_id, key));
    needs.records.insert(terms.record_id);
    needs.connections.insert(terms.connection_id);
    needs.accounts.insert((terms.connection_id, terms.amount.currency().clone()));
}
