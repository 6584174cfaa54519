//! Verify: a job is decided once OES's own record has been read and is what the message says.
//!
//! One loop reads what waits, many records with one request. While a read is under way more jobs gather
//! for the next one, so a job that comes alone is read at once and a thousand share ten reads. What a
//! read means is in `domain::verification`.

use std::{collections::HashMap, sync::Arc};

use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    about, confirm,
    decide::{self, Conditions},
    read::{Purpose, READS_MAX, ReadResult, RecordReader},
    record::{self, Intake},
    wake::{Rested, Wake, rest},
};
use crate::{
    clock::Clock,
    crash,
    domain::{
        announcement::KnownBy,
        decimals::Scale,
        decision::DecidedBy,
        ids::{JobSeq, RecordId},
        job::Job,
        message::{Refusal, RefusalCode, parse_message},
        news::News,
        policy::{Ruling, rule},
        record::Reading,
        schedule::RetryLimits,
        state::{Event, ParkReason, State},
        verification::{Agreement, Ended, Measure, agrees_at_sight, compare, gathers_for},
    },
    store::{
        Readers, StoreError,
        work::{Contender, JobEventKind, Work, WorkError},
    },
    writer::{WriterGone, WriterHandle},
};

/// How many of the records of a read belong to parked jobs at most.
const PARKED_MAX: usize = 10;

/// What a read of an undecided job's record brought.
#[derive(Clone, Debug)]
pub struct FirstRead {
    /// The job.
    pub job: JobSeq,
    /// What OES showed.
    pub result: ReadResult,
    /// Whether the record plainly bears the message out. Where it does not, what a refusal takes is
    /// looked for.
    pub is_plain: bool,
}

/// Carries out what a read means for an undecided job. `queue` is where its message came from. Answers
/// whether the job can be decided now.
///
/// # Errors
/// [`WorkError`] when that is not possible from the job's state.
pub fn settle(
    work: &mut Work,
    read: &FirstRead,
    queue: &str,
    conditions: &Conditions,
    limits: &RetryLimits,
) -> Result<bool, WorkError> {
    let seq = read.job;
    let _span = tracing::debug_span!("verify", record = about(work, seq)).entered();
    let job = work.job(seq)?;
    let is_read = match job.state {
        State::Received => true,
        State::Parked(reason) => reason.waits_for_oes() || reason == ParkReason::NeedsApproval,
        State::Decided
        | State::Sending
        | State::Unknown(_)
        | State::AwaitingApproval
        | State::Conflict(_)
        | State::Confirmed
        | State::Overruled
        | State::Refused => false,
    };
    // The job may have moved while the read was under way.
    if !is_read {
        return Ok(false);
    }
    let ReadResult::Answered(reading) = &read.result else {
        return wait(work, seq, None, conditions, limits);
    };
    let decimals = work.currency(job.terms.amount.currency()).and_then(|known| known.decimals);
    let measure = Measure {
        is_required: conditions.verification.is_required,
        scale: Scale::new(conditions.verification.amounts, decimals),
        restored_at: work.restored_at(),
    };
    match compare(&job.terms, reading, &measure) {
        Agreement::Agrees => agree(work, seq, reading, limits),
        Agreement::Ended(ended) => take_over(work, seq, reading, ended, conditions, limits),
        Agreement::Differs(what) => refuse(work, seq, reading, &what, queue),
        Agreement::NotShown => wait(work, seq, Some(ParkReason::NotShown), conditions, limits),
        Agreement::Unreadable(why) => {
            let record = job.terms.record_id;
            tracing::warn!(%record, why, "record cannot be compared with its message");
            wait(work, seq, Some(ParkReason::Unreadable), conditions, limits)
        }
        Agreement::Predates => park(work, seq, reading, ParkReason::PredatesRestore, limits),
    }
}

/// The record is what the message says: the job can be decided, if it waits for nothing else.
fn agree(
    work: &mut Work,
    seq: JobSeq,
    reading: &Reading,
    limits: &RetryLimits,
) -> Result<bool, WorkError> {
    let now = work.now();
    let state = work.job(seq)?.state;
    let waits_for_word = state == State::Parked(ParkReason::NeedsApproval);
    if let State::Parked(_) = state
        && !waits_for_word
    {
        note(work, seq, reading, Event::Appear, None)?;
        work.advance(seq, Event::Appear, Some(now))?;
    }
    let job = work.job_mut(seq)?;
    (job.reads_made, job.absences) = (0, 0);
    job.verified_at = Some(now);
    job.approval_before = match reading {
        Reading::Found(record) => record.pending_approval_id.clone(),
        Reading::Absent | Reading::Unreadable(_) => None,
    };
    // A record may end while its job waits for a word, so it is read now and then.
    job.next_step_at = Some(if waits_for_word { now.after(limits.slow_read_every) } else { now });
    // One that was parked is decided in a transaction of its own.
    Ok(state == State::Received)
}

/// Nothing can be said yet. `lacks` is why, if OES answered.
fn wait(
    work: &mut Work,
    seq: JobSeq,
    lacks: Option<ParkReason>,
    conditions: &Conditions,
    limits: &RetryLimits,
) -> Result<bool, WorkError> {
    let now = work.now();
    let job = work.job_mut(seq)?;
    job.reads_made = job.reads_made.saturating_add(1);
    if lacks.is_some() {
        job.absences = job.absences.saturating_add(1);
    }
    let is_parked = job.state != State::Received;
    let is_enough = job.absences >= limits.absent_reads_max;
    job.next_step_at = Some(now.after(if is_parked {
        limits.slow_read_every
    } else {
        limits.schedule.delay(job.reads_made)
    }));
    if let Some(reason) = lacks
        && is_enough
        && !is_parked
        && conditions.verification.is_required
    {
        work.advance(seq, Event::Park(reason), Some(now.after(limits.slow_read_every)))?;
        tell_parked(work, seq, reason, None)?;
    }
    Ok(false)
}

/// OES has ended the record: that is the decision, if the book can follow it. Nothing is sent.
fn take_over(
    work: &mut Work,
    seq: JobSeq,
    reading: &Reading,
    ended: Ended,
    conditions: &Conditions,
    limits: &RetryLimits,
) -> Result<bool, WorkError> {
    let outcome = ended.outcome;
    let job = work.job(seq)?;
    // Whether the book can follow is a question to the book as it is by now.
    if decide::must_wait_for_book(work, job, conditions) {
        return wait(work, seq, None, conditions, limits);
    }
    let mut view = decide::view_of(work, job, conditions.is_grace_over(job, work), None)?;
    view.ended = Some(ended);
    match rule(&job.terms, &view) {
        Ruling::Decide(decision) => {
            note(work, seq, reading, Event::Adopt, None)?;
            decide::hold(work, seq, &decision)?;
            let seen = serde_json::to_string(&view.seen())?;
            work.store_decision(seq, decision, seen, DecidedBy::Oes)?;
            confirm::end(work, seq, Event::Adopt, outcome, KnownBy::ReadBack)?;
            Ok(false)
        }
        Ruling::WaitForConnection => wait(work, seq, None, conditions, limits),
        Ruling::Park(reason) => park(work, seq, reading, reason, limits),
    }
}

fn park(
    work: &mut Work,
    seq: JobSeq,
    reading: &Reading,
    reason: ParkReason,
    limits: &RetryLimits,
) -> Result<bool, WorkError> {
    let next = reason.waits_for_oes().then(|| work.now().after(limits.slow_read_every));
    if work.job(seq)?.state == State::Parked(reason) {
        work.job_mut(seq)?.next_step_at = next;
        return Ok(false);
    }
    note(work, seq, reading, Event::Park(reason), None)?;
    work.advance(seq, Event::Park(reason), next)?;
    tell_parked(work, seq, reason, Some(reading))?;
    Ok(false)
}

/// `reading` is what was noted already.
fn tell_parked(
    work: &mut Work,
    seq: JobSeq,
    reason: ParkReason,
    reading: Option<&Reading>,
) -> Result<(), WorkError> {
    if reading.is_none() {
        work.note(seq, JobEventKind::Parked, &json!({"reason": reason.as_str()}));
    }
    let record = work.job(seq)?.terms.record_id;
    work.tell(News::Parked { record, reason, why: None });
    Ok(())
}

/// The message is not OES's record: it goes into quarantine, and the record's id is free again. Messages
/// that came meanwhile, and were put away because this one had the id, have their turn.
fn refuse(
    work: &mut Work,
    seq: JobSeq,
    reading: &Reading,
    what: &str,
    queue: &str,
) -> Result<bool, WorkError> {
    let before = work.job(seq)?.state;
    let Some((raw, contenders)) = work.refuse(seq)? else {
        // It agreed at sight and does not now, because the book or a setting changed: it is read again.
        let now = work.now();
        work.job_mut(seq)?.next_step_at = Some(now);
        return Ok(false);
    };
    note_from(work, seq, reading, before, Some(what))?;
    let record = work.job(seq)?.terms.record_id;
    let refusal = Refusal::new(RefusalCode::NotAsAtOes, format!("record {record}: {what}"));
    let mut message = record::bad_message(queue, raw.into_bytes(), refusal);
    message.record_id = Some(record);
    work.quarantine(message);
    work.tell(News::Refused { record, what: what.to_owned() });
    give_turn(work, record, contenders);
    Ok(false)
}

/// The first message of those that was not refused has the record's id next; the others wait behind it.
fn give_turn(work: &mut Work, record: RecordId, contenders: Vec<Contender>) {
    let next = contenders
        .into_iter()
        .find(|contender| !work.was_refused(record, contender.terms.content_hash()));
    if let Some(Contender { terms, raw, queue }) = next
        && work.find(record).is_none()
    {
        let message = parse_message(raw.as_bytes());
        let book_sequence = message.ok().and_then(|message| message.book_sequence);
        record::record(work, &Intake { terms, raw, queue, book_sequence });
        work.tell(News::Reconsidered { record });
    }
}

fn note(
    work: &mut Work,
    seq: JobSeq,
    reading: &Reading,
    event: Event,
    what: Option<&str>,
) -> Result<(), WorkError> {
    let before = work.job(seq)?.state;
    let after = before.apply(event)?;
    note_step(work, seq, reading, (before, after), what);
    Ok(())
}

fn note_from(
    work: &mut Work,
    seq: JobSeq,
    reading: &Reading,
    before: State,
    what: Option<&str>,
) -> Result<(), WorkError> {
    let after = work.job(seq)?.state;
    note_step(work, seq, reading, (before, after), what);
    Ok(())
}

fn note_step(
    work: &mut Work,
    seq: JobSeq,
    reading: &Reading,
    (before, after): (State, State),
    what: Option<&str>,
) {
    let mut detail = json!({
        "found": reading.word(), "from": before.to_string(), "to": after.to_string(),
    });
    if let (Some(what), Some(fields)) = (what, detail.as_object_mut()) {
        fields.insert("differs".to_owned(), json!(what));
    }
    work.note(seq, JobEventKind::ReadBack, &detail);
}

/// Reads the records of jobs that wait for their decision.
pub struct Verifier {
    /// The book.
    pub readers: Readers,
    /// Where results go.
    pub writer: WriterHandle,
    /// Who asks OES.
    pub reader: RecordReader,
    /// The queue that messages come from, as refused ones have it.
    pub jobs_queue: String,
    /// Whether every record is read, or only those that a restore puts in doubt.
    pub is_required: bool,
    /// Reads that do not find a record after which its job is parked.
    pub absent_reads_max: u32,
    /// The bells.
    pub wake: Wake,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

impl Verifier {
    /// Reads until the daemon ends.
    ///
    /// # Errors
    /// [`StoreError`] when the book cannot be read.
    pub async fn run(self, stop: CancellationToken) -> Result<(), StoreError> {
        let mut not_before: Option<Instant> = None;
        loop {
            self.wake.verify.pulse.beat();
            let jobs = self.due().await?;
            if jobs.is_empty() {
                let due = self.readers.next_verification_due(self.is_required).await?;
                if rest(&self.wake.verify, due, self.clock.as_ref(), &stop).await == Rested::Stop {
                    return Ok(());
                }
                continue;
            }
            // A full read waits for nobody.
            if jobs.len() < READS_MAX
                && let Some(at) = not_before.take_if(|at| *at > Instant::now())
            {
                tokio::select! {
                    () = stop.cancelled() => return Ok(()),
                    () = tokio::time::sleep_until(at) => {}
                }
                continue;
            }
            crash::stall("verifier").await;
            let begun = Instant::now();
            not_before = begun.checked_add(gathers_for(jobs.len()));
            let results = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                results = self.read(&jobs) => results,
            };
            let settled = self.writer.settle_first_reads(results, self.jobs_queue.clone()).await;
            if settled == Err(WriterGone) {
                return Ok(());
            }
        }
    }

    async fn due(&self) -> Result<Vec<Job>, StoreError> {
        let most = (PARKED_MAX, READS_MAX);
        self.readers.due_verifications(self.clock.now(), self.is_required, most).await
    }

    async fn read(&self, jobs: &[Job]) -> Vec<FirstRead> {
        let ids: Vec<RecordId> = jobs.iter().map(|job| job.terms.record_id).collect();
        // An absence parks a job, so the last one before that is made sure of; until then, and as long as
        // it is parked, the list does: a flood of messages about records that do not exist must not use
        // the rate limit up.
        let sure: HashMap<RecordId, bool> = jobs
            .iter()
            .map(|job| {
                let is_last = job.absences.saturating_add(1) >= self.absent_reads_max;
                (job.terms.record_id, is_last && job.state == State::Received)
            })
            .collect();
        let by_name = |id| !self.is_required || sure.get(&id).copied().unwrap_or(false);
        let results = self.reader.read(Purpose::Verify, &ids, by_name).await;
        jobs.iter()
            .zip(results)
            .map(|(job, result)| {
                let is_plain = match &result {
                    ReadResult::Answered(reading) => agrees_at_sight(&job.terms, reading),
                    ReadResult::Failed => true,
                };
                FirstRead { job: job.seq, result, is_plain }
            })
            .collect()
    }
}
