//! The book without a disk: what loading and flushing do to SQLite, done to maps.
//!
//! The simulation drives the steps of the pipeline on it, a thousand runs a second. It is as lenient
//! as it can be: of all that the schema forbids it knows only that rows which change must be there, so
//! that a fault in a step is found by the simulation's own checks and not by a constraint.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::work::{
    Account, AttemptEnd, Contender, ContentHashKey, Counters, Needs, NewAttempt, NewTransfer, Sum,
    TrackedJob, Work, daily_key,
};
use crate::domain::{
    action::Proposal,
    book::{Connection, Currency, body_hash},
    ids::{
        AttemptSeq, BookEventId, ConnectionId, CurrencyCode, JobSeq, OutboxSeq, QuarantineSeq,
        RecordId,
    },
    job::{ContentHash, Job, JobType},
    ledger::{AccountKey, AccountKind, AccountTotals},
    limits::{ConnectionCaps, DailyKey},
    message::{RefusalCode, parse_job},
    state::{Doubt, Event, State},
    time::TimestampMs,
    turns::Turns,
};

/// A row of `attempts`.
#[derive(Debug)]
pub(crate) struct AttemptRow {
    pub(crate) attempt: NewAttempt,
    pub(crate) result: Option<&'static str>,
}

/// A row of `outbox`.
#[derive(Debug)]
pub(crate) struct OutboxRow {
    /// The job whose outcome it is; `None` for a dead letter.
    pub(crate) job: Option<JobSeq>,
    pub(crate) event_id: Uuid,
    pub(crate) routing_key: String,
    pub(crate) is_published: bool,
}

/// A row of `quarantine`.
#[derive(Debug)]
pub(crate) struct QuarantineRow {
    pub(crate) bytes: Vec<u8>,
    queue: String,
    code: RefusalCode,
    record: Option<RecordId>,
    pub(crate) has_dead_letter: bool,
}

/// The tables.
pub(crate) struct MemoryBook {
    counters: Counters,
    pub(crate) jobs: BTreeMap<JobSeq, Job>,
    pub(crate) attempts: BTreeMap<AttemptSeq, AttemptRow>,
    pub(crate) outbox: BTreeMap<OutboxSeq, OutboxRow>,
    pub(crate) quarantine: BTreeMap<QuarantineSeq, QuarantineRow>,
    proposals: HashMap<JobSeq, Proposal>,
    transfers: Vec<NewTransfer>,
    by_record: HashMap<RecordId, JobSeq>,
    raw_messages: HashMap<JobSeq, String>,
    quarantined: HashMap<(String, ContentHashKey), QuarantineSeq>,
    connections: HashMap<ConnectionId, Connection>,
    currencies: HashMap<CurrencyCode, Currency>,
    connection_caps: HashMap<(ConnectionId, CurrencyCode), ConnectionCaps>,
    currency_totals: BTreeMap<CurrencyCode, AccountTotals>,
    daily: BTreeMap<DailyKey, AccountTotals>,
    accounts: BTreeMap<AccountKey, (i64, AccountTotals)>,
    book_events: HashMap<BookEventId, ContentHash>,
}

impl MemoryBook {
    /// An empty book.
    pub(crate) fn new() -> Self {
        let counters = Counters {
            job: 0,
            attempt: 0,
            account: 0,
            transfer: 0,
            book_event: 0,
            job_event: 0,
            quarantine: 0,
            outbox: 0,
            action: 0,
            turns: Turns::default(),
            finding: 0,
            restored_at: None,
            gate_open_ms: 0,
            heartbeat: None,
        };
        Self {
            counters,
            jobs: BTreeMap::new(),
            attempts: BTreeMap::new(),
            outbox: BTreeMap::new(),
            quarantine: BTreeMap::new(),
            proposals: HashMap::new(),
            transfers: Vec::new(),
            by_record: HashMap::new(),
            raw_messages: HashMap::new(),
            quarantined: HashMap::new(),
            connections: HashMap::new(),
            currencies: HashMap::new(),
            connection_caps: HashMap::new(),
            currency_totals: BTreeMap::new(),
            daily: BTreeMap::new(),
            accounts: BTreeMap::new(),
            book_events: HashMap::new(),
        }
    }

    /// The job about a record that was not refused.
    pub(crate) fn find(&self, record: RecordId) -> Option<&Job> {
        self.by_record.get(&record).and_then(|seq| self.jobs.get(seq))
    }

    /// Every account with its lifetime sums.
    pub(crate) fn accounts(&self) -> impl Iterator<Item = (&AccountKey, &AccountTotals)> {
        self.accounts.iter().map(|(key, (_, totals))| (key, totals))
    }

    /// What came from OES and what went back, in each currency.
    pub(crate) fn currency_totals(&self) -> &BTreeMap<CurrencyCode, AccountTotals> {
        &self.currency_totals
    }

    /// What each day has cleared.
    pub(crate) fn daily(&self) -> &BTreeMap<DailyKey, AccountTotals> {
        &self.daily
    }

    /// Lifetime sums as the movements alone tell them, in the order of [`Self::accounts`].
    pub(crate) fn totals_from_transfers(&self) -> Vec<AccountTotals> {
        let mut totals: HashMap<i64, AccountTotals> = HashMap::new();
        for transfer in &self.transfers {
            let quantity = transfer.movement.quantity;
            totals.entry(transfer.debit).or_default().debit(quantity).unwrap();
            totals.entry(transfer.credit).or_default().credit(quantity).unwrap();
        }
        let total = |(seq, _): &(i64, _)| totals.get(seq).copied().unwrap_or_default();
        self.accounts.values().map(total).collect()
    }

    /// The jobs that fit, those due first first.
    pub(crate) fn due(
        &self,
        now: TimestampMs,
        limit: usize,
        fits: impl Fn(&Job) -> bool,
    ) -> Vec<JobSeq> {
        let mut due: Vec<_> = self
            .jobs
            .values()
            .filter(|job| job.final_outcome.is_none() && fits(job))
            .filter_map(|job| Some((job.next_step_at.filter(|at| *at <= now)?, job.seq)))
            .collect();
        due.sort_unstable();
        due.into_iter().take(limit).map(|(_, seq)| seq).collect()
    }

    /// Records whose read is due; those whose outcome is unknown come first.
    pub(crate) fn due_reads(&self, now: TimestampMs, limit: usize) -> Vec<JobSeq> {
        let mut due = self.due(now, limit, |job| matches!(job.state, State::Unknown(_)));
        let left = limit.saturating_sub(due.len());
        due.extend(self.due(now, left, |job| {
            let is_read = matches!(
                job.state,
                State::AwaitingApproval | State::Parked(_) | State::Conflict(_)
            );
            is_read && job.decision.is_some()
        }));
        due
    }

    /// Undecided jobs whose record is due to be read: a few that are parked, and then those that wait for
    /// their decision.
    pub(crate) fn due_verifications(
        &self,
        now: TimestampMs,
        (parked_max, limit): (usize, usize),
    ) -> Vec<JobSeq> {
        let is_parked = |job: &Job| matches!(job.state, State::Parked(_)) && job.decision.is_none();
        let mut due = self.due(now, parked_max.min(limit), is_parked);
        let left = limit.saturating_sub(due.len());
        due.extend(
            self.due(now, left, |job| job.state == State::Received && job.verified_at.is_none()),
        );
        due
    }

    /// What a transaction that needs all this sees.
    pub(crate) fn begin(&self, now: TimestampMs, needs: &Needs) -> Work {
        let mut work = Work::new(now, self.counters);
        self.find_due(&mut work, needs);
        let named = needs.records.iter().filter_map(|record| self.by_record.get(record));
        let jobs: BTreeSet<JobSeq> = (needs.jobs.iter())
            .chain(&work.due_attempts)
            .chain(&work.due_decisions)
            .chain(named)
            .copied()
            .collect();
        let (mut connections, mut accounts) = (needs.connections.clone(), needs.accounts.clone());
        for job in jobs.iter().filter_map(|seq| self.jobs.get(seq)) {
            connections.insert(job.terms.connection_id);
            accounts.insert((job.terms.connection_id, job.terms.amount.currency().clone()));
            if job.state != State::Refused {
                work.by_record.insert(job.terms.record_id, job.seq);
            }
            let before = Some(job.state.name());
            let tracked = TrackedJob { job: job.clone(), before, changed: false };
            work.jobs.insert(job.seq, tracked);
        }
        for id in connections {
            work.connections.extend(self.connections.get(&id).map(|known| (id, known.clone())));
        }
        // Currencies are few, and a transaction that sees one more decides no differently.
        work.currencies.clone_from(&self.currencies);
        self.find_sums(&mut work, needs, &accounts);
        for (connection_id, currency) in accounts {
            let key = |kind| AccountKey { connection_id, currency: currency.clone(), kind };
            let five = key(AccountKind::Available)..=key(AccountKind::Exchange);
            work.accounts.extend(self.accounts.range(five).map(|(key, (seq, totals))| {
                let account = Account { seq: *seq, totals: *totals, before: Some(*totals) };
                (key.clone(), account)
            }));
        }
        let proposed = needs.proposals.iter().filter_map(|record| self.by_record.get(record));
        work.proposals
            .extend(proposed.filter_map(|seq| Some((*seq, self.proposals.get(seq)?.clone()))));
        for id in &needs.book_events {
            work.book_events.extend(self.book_events.get(id).map(|hash| (id.clone(), *hash)));
        }
        for key in &self.find_accused(&mut work, needs) {
            work.quarantined.extend(self.quarantined.get(key).map(|seq| (key.clone(), *seq)));
        }
        work
    }

    /// What was refused before, the messages of jobs that may be refused now, and those that came after
    /// them. Answers what must be looked for in the quarantine.
    fn find_accused(&self, work: &mut Work, needs: &Needs) -> BTreeSet<(String, ContentHashKey)> {
        let mut quarantined = needs.quarantined.clone();
        let mut records = needs.records.clone();
        for (seq, queue) in &needs.accused {
            let (Some(job), Some(raw)) = (self.jobs.get(seq), self.raw_messages.get(seq)) else {
                continue;
            };
            let record = job.terms.record_id;
            records.insert(record);
            quarantined.insert((queue.clone(), hash_of(raw.as_bytes())));
            work.raw_messages.insert(*seq, raw.clone());
            let rows = self.quarantine.values().filter(|row| {
                row.record == Some(record) && row.code == RefusalCode::ContentDiffers
            });
            for row in rows {
                quarantined.insert((row.queue.clone(), hash_of(&row.bytes)));
                let terms = parse_job(&row.bytes).unwrap();
                let raw = String::from_utf8(row.bytes.clone()).unwrap();
                let contender = Contender { terms, raw, queue: row.queue.clone() };
                work.contenders.entry(record).or_default().push(contender);
            }
        }
        let refused = self.jobs.values().filter(|job| job.state == State::Refused);
        let refused = refused.map(|job| (job.terms.record_id, job.content_hash));
        work.refused.extend(refused.filter(|(record, _)| records.contains(record)));
        quarantined.extend(work.known_otherwise(needs));
        quarantined
    }

    /// The limits and sums that decisions about these connections and currencies look at.
    fn find_sums(
        &self,
        work: &mut Work,
        needs: &Needs,
        accounts: &BTreeSet<(ConnectionId, CurrencyCode)>,
    ) {
        let mut days: BTreeSet<DailyKey> =
            (work.jobs.values()).map(|tracked| daily_key(&tracked.job, work.now)).collect();
        for key in accounts {
            work.connection_caps
                .extend(self.connection_caps.get(key).map(|caps| (key.clone(), *caps)));
            let totals = self.currency_totals.get(&key.1);
            let sum = totals.map(|totals| (key.1.clone(), Sum::loaded(*totals)));
            work.currency_totals.extend(sum);
        }
        for (connection_id, currency) in &needs.accounts {
            days.extend(JobType::ALL.map(|job_type| DailyKey {
                connection_id: *connection_id,
                currency: currency.clone(),
                day: work.now.day(),
                job_type,
            }));
        }
        for key in days {
            work.daily.extend(self.daily.get(&key).map(|totals| (key, Sum::loaded(*totals))));
        }
    }

    fn find_due(&self, work: &mut Work, needs: &Needs) {
        let (now, wanted) = (work.now, needs.due_attempts);
        let decided = |job: &Job| job.state == State::Decided;
        work.due_attempts = self.due(now, wanted, |job| decided(job) && job.attempts_made == 0);
        let left = wanted.saturating_sub(work.due_attempts.len());
        work.due_attempts.extend(self.due(now, left, |job| decided(job) && job.attempts_made > 0));
        let may_decide = |job: &&Job| {
            let is_due = job.next_step_at.is_some_and(|at| at <= now);
            let is_known =
                !job.waits_for_book && self.connections.contains_key(&job.terms.connection_id);
            let is_read = job.verified_at.is_some() || !needs.verifies;
            job.state == State::Received && (is_due || is_known) && is_read
        };
        let received = self.jobs.values().filter(may_decide).take(needs.due_decisions);
        work.due_decisions = received.map(|job| job.seq).collect();
    }

    /// Makes everything that the steps did true. Nothing is changed where the answer is an error: a
    /// row that was to change was not there, or had changed.
    pub(crate) fn commit(&mut self, work: Work) -> Result<(), String> {
        self.guard(&work)?;
        self.counters = work.counters;
        for (seq, tracked) in work.jobs {
            if tracked.changed {
                self.jobs.insert(seq, tracked.job);
            }
        }
        // Of the jobs about a record, one at most was not refused.
        let live = self.jobs.values().filter(|job| job.state != State::Refused);
        self.by_record = live.map(|job| (job.terms.record_id, job.seq)).collect();
        for (key, account) in work.accounts {
            if account.before != Some(account.totals) {
                self.accounts.insert(key, (account.seq, account.totals));
            }
        }
        let sums = work.currency_totals.into_iter().map(|(key, sum)| (key, sum.totals));
        self.currency_totals.extend(sums);
        self.daily.extend(work.daily.into_iter().map(|(key, sum)| (key, sum.totals)));
        if !work.changes.actions.is_empty() {
            self.proposals.extend(work.proposals);
        }
        let changes = work.changes;
        self.raw_messages.extend(changes.raw_messages);
        self.transfers.extend(changes.transfers);
        for (seq, AttemptEnd { result, .. }) in changes.attempt_ends {
            self.attempts.entry(seq).and_modify(|row| row.result = Some(result));
        }
        for attempt in changes.attempts {
            self.attempts.insert(attempt.seq, AttemptRow { attempt, result: None });
        }
        for event in changes.book_events {
            self.book_events.insert(event.event.id().clone(), body_hash(&event.body));
        }
        if !changes.connections.is_empty() || !changes.currencies.is_empty() {
            self.connections.extend(work.connections);
            self.currencies.extend(work.currencies);
        }
        if !changes.connection_caps.is_empty() {
            self.connection_caps.extend(work.connection_caps);
        }
        if !changes.quarantined.is_empty() {
            self.quarantined.extend(work.quarantined);
        }
        for (seq, message) in changes.quarantined {
            let row = QuarantineRow {
                bytes: message.bytes,
                queue: message.queue,
                code: message.refusal.code,
                record: message.record_id,
                has_dead_letter: false,
            };
            self.quarantine.insert(seq, row);
        }
        for (seq, message) in changes.outcomes {
            let (job, event_id) = (Some(message.job), message.event_id);
            let routing_key = message.routing_key;
            self.outbox.insert(seq, OutboxRow { job, event_id, routing_key, is_published: false });
        }
        for (seq, quarantined, event_id, routing_key) in changes.dead_letters {
            self.quarantine.entry(quarantined).and_modify(|row| row.has_dead_letter = true);
            let row = OutboxRow { job: None, event_id, routing_key, is_published: false };
            self.outbox.insert(seq, row);
        }
        for seq in changes.published {
            self.outbox.entry(seq).and_modify(|row| row.is_published = true);
        }
        Ok(())
    }

    /// The guards of flushing: each update finds the row as it was read.
    fn guard(&self, work: &Work) -> Result<(), String> {
        for (seq, tracked) in work.jobs.iter().filter(|(_, tracked)| tracked.changed) {
            let stored = self.jobs.get(seq).map(|job| job.state.name());
            if stored != tracked.before {
                return Err(format!("job {seq} was {:?} and is {stored:?}", tracked.before));
            }
        }
        for (key, sum) in &work.currency_totals {
            let stored = self.currency_totals.get(key).copied();
            if stored != sum.before {
                return Err(format!("the total of {key} was {:?} and is {stored:?}", sum.before));
            }
        }
        for (key, sum) in &work.daily {
            let stored = self.daily.get(key).copied();
            if stored != sum.before {
                return Err(format!("the day {key:?} was {:?} and is {stored:?}", sum.before));
            }
        }
        for (seq, _) in &work.changes.attempt_ends {
            match self.attempts.get(seq) {
                Some(row) if row.result.is_none() => {}
                other => return Err(format!("attempt {seq} cannot end: {other:?}")),
            }
        }
        for seq in &work.changes.published {
            match self.outbox.get(seq) {
                Some(row) if !row.is_published => {}
                other => return Err(format!("message {seq} cannot be published: {other:?}")),
            }
        }
        for (seq, message) in &work.changes.quarantined {
            let key = (message.queue.clone(), hash_of(&message.bytes));
            if let Some(stored) = self.quarantined.get(&key) {
                return Err(format!("bad message {seq} is in quarantine as {stored} already"));
            }
        }
        Ok(())
    }

    /// What a start does: every attempt that was under way may have left.
    pub(crate) fn doubt_open_attempts(&mut self, now: TimestampMs) {
        for row in self.attempts.values_mut().filter(|row| row.result.is_none()) {
            row.result = Some(Doubt::Restarted.as_str());
        }
        for job in self.jobs.values_mut().filter(|job| job.state == State::Sending) {
            job.state = job.state.apply(Event::Doubt(Doubt::Restarted)).unwrap();
            (job.state_since, job.next_step_at) = (now, Some(now));
            job.attempts_counted = job.attempts_counted.saturating_add(1);
        }
    }
}

fn hash_of(bytes: &[u8]) -> ContentHashKey {
    ContentHashKey(Sha256::digest(bytes).into())
}
