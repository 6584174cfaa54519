//! The sums that limits are compared with: exposure over all connections, and what a day has cleared.

use std::collections::BTreeMap;

use super::{Sum, Work, WorkError};
use crate::domain::{
    amount::{AmountError, Balance, Quantity},
    decision::{Decision, Outcome},
    ids::{ConnectionId, CurrencyCode, JobSeq},
    job::Job,
    ledger::{AccountKind, AccountTotals, Movement},
    limits::{ConnectionCaps, DailyKey},
    time::TimestampMs,
};

/// The day on which a job belongs, once it is decided, or on which it would be decided now.
pub(in crate::store) fn daily_key(job: &Job, now: TimestampMs) -> DailyKey {
    DailyKey {
        connection_id: job.terms.connection_id,
        currency: job.terms.amount.currency().clone(),
        day: job.decided_at.unwrap_or(now).day(),
        job_type: job.terms.job_type,
    }
}

impl Work {
    /// The connection's own caps in a currency.
    #[must_use]
    pub fn connection_caps(&self, id: ConnectionId, currency: &CurrencyCode) -> ConnectionCaps {
        self.connection_caps.get(&(id, currency.clone())).copied().unwrap_or_default()
    }

    /// What a connection is exposed to in a currency, movements of this batch included.
    #[must_use]
    pub fn exposure(&self, id: ConnectionId, currency: &CurrencyCode) -> Balance {
        let totals = self.totals(id, currency, AccountKind::Oes);
        // The contra account has it the other way round.
        Balance::of(totals.debits, totals.credits)
    }

    /// What all connections together are exposed to in a currency, movements of this batch included.
    #[must_use]
    pub fn exposure_total(&self, currency: &CurrencyCode) -> Balance {
        self.currency_totals.get(currency).map_or(Balance::ZERO, |sum| sum.totals.balance())
    }

    /// What was cleared on the day that a job belongs to, for its connection, in its currency and of
    /// its type, decisions of this batch included.
    ///
    /// # Errors
    /// [`WorkError::UnknownJob`].
    pub fn cleared_that_day(&self, seq: JobSeq) -> Result<Balance, WorkError> {
        let key = daily_key(self.job(seq)?, self.now);
        Ok(self.daily.get(&key).map_or(Balance::ZERO, |sum| sum.totals.balance()))
    }

    /// What came from OES or went there changes what the exchange is exposed to.
    pub(super) fn sum_up_exposure(
        &mut self,
        currency: &CurrencyCode,
        movement: &Movement,
    ) -> Result<(), AmountError> {
        if movement.debit != AccountKind::Oes && movement.credit != AccountKind::Oes {
            return Ok(());
        }
        let sum = self.currency_totals.entry(currency.clone()).or_default();
        if movement.debit == AccountKind::Oes {
            sum.totals.credit(movement.quantity)
        } else {
            sum.totals.debit(movement.quantity)
        }
    }

    /// What the jobs of each currency move that were taken in, and those that are final, as it will be
    /// with this batch.
    pub(in crate::store) fn jobs_after(
        &self,
    ) -> Result<BTreeMap<CurrencyCode, AccountTotals>, AmountError> {
        let mut sums = self.jobs_before.clone();
        for tracked in self.jobs.values() {
            let amount = &tracked.job.terms.amount;
            let ends = tracked.job.state.is_final() && !tracked.was_final();
            if tracked.before.is_none() || ends {
                let sum = sums.entry(amount.currency().clone()).or_default();
                if tracked.before.is_none() {
                    sum.credit(amount.quantity())?;
                }
                if ends {
                    sum.debit(amount.quantity())?;
                }
            }
        }
        Ok(sums)
    }

    /// A record that is cleared counts in its day.
    pub(super) fn sum_up_day(&mut self, seq: JobSeq) -> Result<(), WorkError> {
        let (sum, quantity) = self.day_mut(seq)?;
        sum.totals.credit(quantity).map_err(|source| WorkError::of_job(seq, source))
    }

    /// A record that was decided as cleared and that OES ended as released is taken back from the day
    /// of its decision.
    ///
    /// # Errors
    /// [`WorkError`] when the job is not in the batch, or the sum cannot be represented.
    pub fn end_day(&mut self, seq: JobSeq, actual: Outcome) -> Result<(), WorkError> {
        let decided = self.job(seq)?.decision.as_ref().map(Decision::outcome);
        if (decided, actual) != (Some(Outcome::Cleared), Outcome::Released) {
            return Ok(());
        }
        let (sum, quantity) = self.day_mut(seq)?;
        sum.totals.debit(quantity).map_err(|source| WorkError::of_job(seq, source))
    }

    fn day_mut(&mut self, seq: JobSeq) -> Result<(&mut Sum, Quantity), WorkError> {
        let job = self.job(seq)?;
        let (key, quantity) = (daily_key(job, self.now), job.terms.amount.quantity());
        Ok((self.daily.entry(key).or_default(), quantity))
    }
}
