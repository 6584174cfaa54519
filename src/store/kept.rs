//! What batches have read and written, kept so that the next one need not read it again.
//!
//! Only the writer changes the book, so what it committed last is what stands there. What is kept is
//! copied into a batch and taken from it after its commit; a batch that is rolled back leaves it as it is.
//!
//! What must never happen here: something kept that is not committed. When a commit fails, nobody knows
//! what the book has, and everything is forgotten.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeSet, HashMap},
    hash::Hash,
};

use super::{
    error::StoreError,
    work::{Account, Needs, Sum, TrackedFeed, TrackedJob, Work, daily_key},
};
use crate::domain::{
    amount::AmountError,
    book::{Connection, Currency},
    feed::ConnectionFeed,
    ids::{ConnectionId, CurrencyCode, JobSeq},
    job::{Job, JobType},
    ledger::{AccountKey, AccountKind, AccountTotals},
    limits::{ConnectionCaps, DailyKey},
    state::State,
    time::Day,
};

/// Most rows of a kind that are kept. A connection and currency with their accounts take about a kibibyte.
const KEPT_MAX: usize = 4_096;

/// A connection in a currency.
type Pair = (ConnectionId, CurrencyCode);

/// A connection in a currency on a day.
type PairOnDay = (ConnectionId, CurrencyCode, Day);

/// What the rows of a batch belong to, whether the book has anything of it or not.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    pub(super) connections: BTreeSet<ConnectionId>,
    pub(super) currencies: BTreeSet<CurrencyCode>,
    pub(super) accounts: BTreeSet<Pair>,
    pub(super) days: BTreeSet<PairOnDay>,
}

impl Wanted {
    /// What the jobs of a batch and its other needs belong to.
    pub(super) fn of(work: &Work, needs: &Needs) -> Self {
        let mut wanted = Self {
            connections: needs.connections.clone(),
            currencies: needs.currencies.clone(),
            accounts: needs.accounts.clone(),
            days: BTreeSet::new(),
        };
        for TrackedJob { job, .. } in work.jobs.values() {
            let (id, currency) = (job.terms.connection_id, job.terms.amount.currency());
            wanted.connections.insert(id);
            wanted.currencies.insert(currency.clone());
            wanted.accounts.insert((id, currency.clone()));
            // The day that the job belongs to, or would belong to if it were decided now.
            let DailyKey { connection_id, currency, day, .. } = daily_key(job, work.now);
            wanted.days.insert((connection_id, currency, day));
        }
        for contender in work.contenders.values().flatten() {
            wanted.currencies.insert(contender.terms.amount.currency().clone());
        }
        // Today for whatever else may be decided.
        let today = work.now.day();
        wanted.days.extend(needs.accounts.iter().map(|(id, code)| (*id, code.clone(), today)));
        wanted
    }
}

/// What is kept of a connection.
#[derive(Debug)]
struct KeptConnection {
    connection: Option<Connection>,
    feed: Option<ConnectionFeed>,
}

/// What is kept of a currency.
#[derive(Debug)]
struct KeptCurrency {
    currency: Option<Currency>,
    /// What all connections are exposed to, and what its jobs move.
    totals: Option<(AccountTotals, AccountTotals)>,
}

/// What is kept of a connection in a currency.
#[derive(Debug)]
struct KeptPair {
    caps: Option<ConnectionCaps>,
    accounts: Vec<(AccountKind, i64, AccountTotals)>,
}

/// Rows of the book as they were committed last. What is not in here is not known; what the book has not
/// is in here as that.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// Jobs whose update is under way: its answer comes soon.
    jobs: HashMap<JobSeq, Job>,
    connections: HashMap<ConnectionId, KeptConnection>,
    currencies: HashMap<CurrencyCode, KeptCurrency>,
    pairs: HashMap<Pair, KeptPair>,
    days: HashMap<PairOnDay, Vec<(JobType, AccountTotals)>>,
}

impl Kept {
    /// Forgets everything.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    /// Shows a batch those of these jobs that are known, and answers the others.
    pub(super) fn show_jobs(&self, work: &mut Work, jobs: BTreeSet<JobSeq>) -> BTreeSet<JobSeq> {
        jobs.into_iter()
            .filter(|seq| {
                let Some(job) = self.jobs.get(seq) else { return true };
                work.by_record.insert(job.terms.record_id, *seq);
                let before = Some(job.state.name());
                let tracked = TrackedJob { job: job.clone(), before, changed: false };
                work.jobs.insert(*seq, tracked);
                false
            })
            .collect()
    }

    /// Shows a batch what is known of what it wants, and answers what is not known.
    pub(super) fn show(&self, work: &mut Work, wanted: &Wanted) -> Wanted {
        Wanted {
            connections: unknown(&wanted.connections, &self.connections, |id, kept| {
                work.connections.extend(kept.connection.clone().map(|known| (*id, known)));
                let tracked = |feed| (*id, TrackedFeed { feed, changed: false });
                work.feeds.extend(kept.feed.clone().map(tracked));
            }),
            currencies: unknown(&wanted.currencies, &self.currencies, |code, kept| {
                work.currencies.extend(kept.currency.clone().map(|known| (code.clone(), known)));
                if let Some((exposure, jobs)) = kept.totals {
                    work.currency_totals.insert(code.clone(), Sum::loaded(exposure));
                    work.jobs_before.insert(code.clone(), jobs);
                }
            }),
            accounts: unknown(&wanted.accounts, &self.pairs, |pair, kept| {
                work.connection_caps.extend(kept.caps.map(|caps| (pair.clone(), caps)));
                work.accounts.extend(kept.accounts.iter().map(|&(kind, seq, totals)| {
                    let (connection_id, currency) = pair.clone();
                    let account = Account { seq, totals, before: Some(totals) };
                    (AccountKey { connection_id, currency, kind }, account)
                }));
            }),
            days: unknown(&wanted.days, &self.days, |(id, code, day), kept| {
                work.daily.extend(kept.iter().map(|&(job_type, totals)| {
                    let (connection_id, currency, day) = (*id, code.clone(), *day);
                    (DailyKey { connection_id, currency, day, job_type }, Sum::loaded(totals))
                }));
            }),
        }
    }

    /// Keeps what a batch has read and written, once it is committed.
    ///
    /// # Errors
    /// [`AmountError`] when a sum cannot be represented; such a batch cannot have been committed.
    pub(super) fn keep(&mut self, work: Work, wanted: &Wanted) -> Result<(), AmountError> {
        let jobs_after = work.jobs_after()?;
        self.forget_unwanted(&work, wanted);
        for &id in &wanted.connections {
            let kept = KeptConnection {
                connection: work.connections.get(&id).cloned(),
                feed: work.feeds.get(&id).map(|tracked| tracked.feed.clone()),
            };
            insert(&mut self.connections, id, kept);
        }
        for code in &wanted.currencies {
            let (exposure, jobs) = (work.currency_totals.get(code), jobs_after.get(code));
            // The row has both, and is there as soon as one of them is.
            let totals = (exposure.is_some() || jobs.is_some()).then(|| {
                let exposure = exposure.map(|sum| sum.totals).unwrap_or_default();
                (exposure, jobs.copied().unwrap_or_default())
            });
            let kept = KeptCurrency { currency: work.currencies.get(code).cloned(), totals };
            insert(&mut self.currencies, code.clone(), kept);
        }
        for pair in &wanted.accounts {
            let account = |kind| {
                let key = AccountKey { connection_id: pair.0, currency: pair.1.clone(), kind };
                work.accounts.get(&key).map(|account| (kind, account.seq, account.totals))
            };
            let accounts = AccountKind::ALL.into_iter().filter_map(account).collect();
            let kept = KeptPair { caps: work.connection_caps.get(pair).copied(), accounts };
            insert(&mut self.pairs, pair.clone(), kept);
        }
        for (connection_id, currency, day) in &wanted.days {
            let sum = |job_type| {
                let (connection_id, currency, day) = (*connection_id, currency.clone(), *day);
                let key = DailyKey { connection_id, currency, day, job_type };
                work.daily.get(&key).map(|sum| (job_type, sum.totals))
            };
            let kept = JobType::ALL.into_iter().filter_map(sum).collect();
            insert(&mut self.days, (*connection_id, currency.clone(), *day), kept);
        }
        for (seq, TrackedJob { job, .. }) in work.jobs {
            if job.state == State::Sending {
                insert(&mut self.jobs, seq, job);
            } else {
                self.jobs.remove(&seq);
            }
        }
        Ok(())
    }

    /// What a batch has, without having wanted all that belongs to it, may have changed.
    fn forget_unwanted(&mut self, work: &Work, wanted: &Wanted) {
        let ids = work.connections.keys().chain(work.feeds.keys());
        for id in ids.filter(|id| !wanted.connections.contains(id)) {
            self.connections.remove(id);
        }
        let codes = work.currencies.keys().chain(work.currency_totals.keys());
        for code in codes.filter(|code| !wanted.currencies.contains(*code)) {
            self.currencies.remove(code);
        }
        let accounts = work.accounts.keys();
        let pairs = accounts.map(|key| (key.connection_id, key.currency.clone()));
        for pair in pairs.chain(work.connection_caps.keys().cloned()) {
            if !wanted.accounts.contains(&pair) {
                self.pairs.remove(&pair);
            }
        }
        for DailyKey { connection_id, currency, day, .. } in work.daily.keys() {
            let key = (*connection_id, currency.clone(), *day);
            if !wanted.days.contains(&key) {
                self.days.remove(&key);
            }
        }
    }
}

/// Shows what is known of these keys, and answers the others.
fn unknown<K: Clone + Eq + Hash + Ord, V>(
    wanted: &BTreeSet<K>,
    kept: &HashMap<K, V>,
    mut show: impl FnMut(&K, &V),
) -> BTreeSet<K> {
    let mut unknown = BTreeSet::new();
    for key in wanted {
        match kept.get(key) {
            Some(known) => show(key, known),
            None => {
                unknown.insert(key.clone());
            }
        }
    }
    unknown
}

/// Whether a batch that was shown what is kept sees the same as one for which everything was read.
///
/// # Errors
/// [`StoreError::Unreadable`] when it does not.
pub(super) fn compare(shown: &Work, read: &Work) -> Result<(), StoreError> {
    let same = [
        ("jobs", shown.jobs == read.jobs && shown.by_record == read.by_record),
        ("connections", shown.connections == read.connections),
        ("connection_feeds", shown.feeds == read.feeds),
        ("connection_limits", shown.connection_caps == read.connection_caps),
        ("currencies", shown.currencies == read.currencies),
        ("currency_totals", shown.currency_totals == read.currency_totals),
        ("currency_totals", shown.jobs_before == read.jobs_before),
        ("daily_cleared", shown.daily == read.daily),
        ("accounts", shown.accounts == read.accounts),
    ];
    match same.into_iter().find(|(_, same)| !same) {
        None => Ok(()),
        Some((table, _)) => Err(StoreError::Unreadable {
            table,
            reason: "it is not what the writer has kept of it".to_owned(),
        }),
    }
}

/// Keeps one more. Where that is too many, the others are forgotten: what is wanted often is soon known
/// again, and nothing has to be noted about what is wanted seldom.
fn insert<K: Eq + Hash, V>(kept: &mut HashMap<K, V>, key: K, value: V) {
    if kept.len() >= KEPT_MAX && !kept.contains_key(&key) {
        kept.clear();
    }
    kept.insert(key, value);
}
