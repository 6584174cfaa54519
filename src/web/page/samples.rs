//! What the charts show: a look at the backlog now and then, kept in memory, so many at most.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio_util::sync::CancellationToken;

use crate::{
    clock::Clock,
    domain::{state::State, time::TimestampMs},
    store::{
        Readers, StoreError,
        query::{OldestJob, StateCount},
    },
};

/// How often is looked.
const EVERY: Duration = Duration::from_secs(10);
/// Most looks that are kept: three hours of them.
const KEPT_MAX: usize = 1_080;

/// One look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sample {
    /// When.
    pub(super) at: TimestampMs,
    /// Jobs that are not final.
    pub(super) open: u64,
    /// Jobs that are.
    pub(super) done: u64,
    /// Age of the oldest open job, in seconds.
    pub(super) oldest_s: u64,
}

impl Sample {
    /// What a look at the book shows.
    pub(super) fn of(counts: &[StateCount], oldest: &[OldestJob], now: TimestampMs) -> Self {
        let mut sample = Self { at: now, open: 0, done: 0, oldest_s: 0 };
        for line in counts {
            let sum = if is_final(&line.state) { &mut sample.done } else { &mut sample.open };
            *sum = sum.saturating_add(line.jobs);
        }
        let first = oldest.iter().map(|line| line.received_at_ms).min();
        sample.oldest_s = first.map_or(0, |first| now.since(first).as_secs());
        sample
    }
}

fn is_final(name: &str) -> bool {
    State::all().any(|state| state.name() == name && state.is_final())
}

/// The looks that are kept.
#[derive(Debug, Default)]
pub struct Samples {
    kept: Mutex<VecDeque<Sample>>,
}

impl Samples {
    fn add(&self, sample: Sample) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= KEPT_MAX {
            kept.pop_front();
        }
        kept.push_back(sample);
    }

    /// Those that are kept, the oldest first.
    pub(super) fn all(&self) -> Vec<Sample> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }

    /// Looks until the daemon ends.
    pub async fn run(&self, readers: &Readers, clock: &dyn Clock, stop: CancellationToken) {
        let mut fails = false;
        loop {
            match look(readers, clock).await {
                Ok(sample) => {
                    fails = false;
                    self.add(sample);
                }
                Err(error) if !fails => {
                    fails = true;
                    tracing::warn!(%error, "the page's charts have a gap until the book can be read");
                }
                Err(_) => {}
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(EVERY) => {}
            }
        }
    }
}

async fn look(readers: &Readers, clock: &dyn Clock) -> Result<Sample, StoreError> {
    let (counts, oldest) = (readers.job_counts().await?, readers.oldest_open().await?);
    Ok(Sample::of(&counts, &oldest, clock.now()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::job::JobType;

    #[test]
    fn what_is_kept_is_bounded_and_the_oldest_goes_first() {
        let samples = Samples::default();
        for second in 0..2_000 {
            let at = TimestampMs::from_millis(second);
            samples.add(Sample { at, open: 0, done: 0, oldest_s: 0 });
        }
        let kept = samples.all();
        assert_eq!((kept.len(), kept[0].at.as_millis()), (KEPT_MAX, 2_000 - 1_080));
    }

    #[test]
    fn a_look_tells_open_jobs_from_those_that_are_over() {
        let count = |state: &str, jobs| StateCount {
            state: state.to_owned(),
            job_type: JobType::Allocation,
            jobs,
        };
        let counts =
            [count("received", 1), count("parked", 2), count("confirmed", 40), count("refused", 5)];
        let now = TimestampMs::from_millis(60_000);
        let oldest = [OldestJob {
            state: "parked".to_owned(),
            received_at_ms: TimestampMs::from_millis(1_000),
        }];
        let sample = Sample::of(&counts, &oldest, now);
        assert_eq!((sample.open, sample.done, sample.oldest_s), (3, 45, 59));
    }
}
