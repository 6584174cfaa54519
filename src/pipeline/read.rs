//! Read: what OES shows of records, many with one request, behind the gate and within the rate.
//!
//! Two loops ask here: [`super::verify`] for records that are not decided yet, and [`super::resolve`]
//! for those whose outcome is not certain. Each has one request under way at most, and they take turns
//! at the rate limit ([`super::budget`]), so neither holds the other up.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Instant,
};

use super::{budget::Budget, wake::Wake};
use crate::{
    crash,
    domain::{
        gate::{Permission, StopCause},
        ids::RecordId,
        record::Reading,
    },
    metrics::Metrics,
    oes::{OesClient, ReadError},
    traces::{Step, Traces},
};

/// Most records that one list request asks for: their ids make 3.7 KB of a URL.
pub const READS_MAX: usize = 100;

/// Reads by name that fail in a row, after which the others wait for another time.
const READ_FAILURES_MAX: usize = 3;

/// What a read of one job's record brought.
#[derive(Clone, Debug)]
pub enum ReadResult {
    /// OES answered.
    Answered(Reading),
    /// The answer tells nothing; it is asked again later.
    Failed,
}

/// What a request is for, for the count of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A job is to be decided.
    Verify,
    /// An outcome is not certain.
    ReadBack,
    /// Whether OES takes the token again.
    Probe,
    /// The book is compared with OES.
    Compare,
}

impl Purpose {
    /// All purposes, for metrics.
    pub const ALL: [Self; 4] = [Self::Verify, Self::ReadBack, Self::Probe, Self::Compare];

    /// One word for metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Verify => "verify",
            Self::ReadBack => "read_back",
            Self::Probe => "probe",
            Self::Compare => "compare",
        }
    }
}

/// What a read is in the life of a job.
fn step(purpose: Purpose, result: &ReadResult) -> Option<Step> {
    let found = match result {
        ReadResult::Answered(reading) => reading.word(),
        ReadResult::Failed => "nothing",
    };
    match purpose {
        Purpose::Verify => Some(Step::Verified { found }),
        Purpose::ReadBack => Some(Step::ReadBack { found }),
        Purpose::Probe | Purpose::Compare => None,
    }
}

/// Asks OES for records.
#[derive(Clone)]
pub struct RecordReader {
    /// OES.
    pub oes: Arc<OesClient>,
    /// What may be asked of it.
    pub budget: Arc<Budget>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Where steps are told.
    pub traces: Traces,
    /// Whose loops they are that wait here.
    pub wake: Wake,
}

impl RecordReader {
    /// Reads records; what could not be read is asked again later. `by_name` says which of those that
    /// the list does not show are asked for one by one.
    pub async fn read(
        &self,
        purpose: Purpose,
        ids: &[RecordId],
        by_name: impl Fn(RecordId) -> bool,
    ) -> Vec<ReadResult> {
        let begun = Instant::now();
        let results = self.read_all(purpose, ids, by_name).await;
        if self.traces.is_on() {
            for (id, result) in ids.iter().zip(&results) {
                if let Some(step) = step(purpose, result) {
                    self.traces.tell(*id, step, begun);
                }
            }
        }
        results
    }

    async fn read_all(
        &self,
        purpose: Purpose,
        ids: &[RecordId],
        by_name: impl Fn(RecordId) -> bool,
    ) -> Vec<ReadResult> {
        let (mut found, list_failed) = match self.read_lists(purpose, ids).await {
            Ok(found) => (found, false),
            Err(error) => {
                tracing::warn!(
                    records = ids.len(),
                    first_record = %ids.first().map_or_else(String::new, RecordId::to_string),
                    purpose = purpose.as_str(),
                    %error,
                    "a list of records could not be read"
                );
                if !matches!(error, ReadError::Failed(_)) {
                    return vec![ReadResult::Failed; ids.len()];
                }
                (HashMap::new(), true)
            }
        };
        let mut results = Vec::with_capacity(ids.len());
        // When OES is down, a hundred reads that time out would hold everything up for an hour.
        let failures_max = if list_failed { 1 } else { READ_FAILURES_MAX };
        let mut failures = 0;
        for id in ids {
            let result = match found.remove(id) {
                Some(reading) => ReadResult::Answered(reading),
                None if failures >= failures_max => ReadResult::Failed,
                // A list may leave out what exists, so an absence that matters is asked for by name. So is
                // everything when the list route itself does not work: no record waits for that.
                None if list_failed || by_name(*id) => self.read_one(purpose, *id).await,
                None => ReadResult::Answered(Reading::Absent),
            };
            match result {
                ReadResult::Failed => failures = failures.saturating_add(1),
                ReadResult::Answered(_) if failures < failures_max => failures = 0,
                ReadResult::Answered(_) => {}
            }
            results.push(result);
        }
        results
    }

    /// Whether OES takes the token again, when nothing else is due that would show it.
    pub async fn try_token(&self) {
        self.wait_for_leave(Purpose::Probe).await;
        let outcome = self.oes.probe().await;
        self.tell_budget(outcome.as_ref().err());
    }

    /// Waits until a read may be sent. A token that was refused may have been replaced meanwhile.
    async fn wait_for_leave(&self, purpose: Purpose) {
        // It may take as long as OES likes; after it, one request is one thing.
        let resting = match purpose {
            Purpose::Verify => Some(self.wake.verify.pulse.rest()),
            Purpose::ReadBack | Purpose::Probe => Some(self.wake.resolve.pulse.rest()),
            Purpose::Compare => None,
        };
        self.budget.wait_for_read().await;
        drop(resting);
        self.metrics.read(purpose);
        if !matches!(self.budget.permission(), Permission::Stopped(StopCause::TokenRefused, _)) {
            return;
        }
        match self.oes.reread_token() {
            Ok(true) => {
                tracing::info!("oes.access_token_file has another token: it is used from now on");
            }
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(%error, "the token cannot be read again; the old one is tried");
            }
        }
    }

    /// Asks for all of them, and again for those that a page was too short for, as long as that shows
    /// more.
    async fn read_lists(
        &self,
        purpose: Purpose,
        ids: &[RecordId],
    ) -> Result<HashMap<RecordId, Reading>, ReadError> {
        let mut found = self.read_list(purpose, ids).await?;
        let mut newly = found.len();
        while newly > 0 && found.len() < ids.len() {
            let missing: Vec<RecordId> =
                ids.iter().filter(|id| !found.contains_key(id)).copied().collect();
            if missing.is_empty() {
                break;
            }
            let more = self.read_list(purpose, &missing).await?;
            newly = more.len();
            found.extend(more);
        }
        Ok(found)
    }

    async fn read_list(
        &self,
        purpose: Purpose,
        ids: &[RecordId],
    ) -> Result<HashMap<RecordId, Reading>, ReadError> {
        self.wait_for_leave(purpose).await;
        crash::point("before_read");
        let outcome = self.oes.read_records(ids).await;
        self.tell_budget(outcome.as_ref().err());
        let asked: HashSet<&RecordId> = ids.iter().collect();
        Ok(outcome?.into_iter().filter(|(id, _)| asked.contains(id)).collect())
    }

    async fn read_one(&self, purpose: Purpose, id: RecordId) -> ReadResult {
        self.wait_for_leave(purpose).await;
        let outcome = self.oes.read_record(id).await;
        self.tell_budget(outcome.as_ref().err());
        match outcome {
            Ok(reading) => ReadResult::Answered(reading),
            Err(error) => {
                tracing::warn!(record = %id, %error, "record could not be read; it is read again later");
                ReadResult::Failed
            }
        }
    }

    fn tell_budget(&self, error: Option<&ReadError>) {
        match error {
            None => self.budget.read_answered(),
            Some(ReadError::TokenRefused(_)) => self.budget.token_refused(),
            Some(ReadError::RateLimited { retry_at }) => self.budget.rate_limited(*retry_at),
            Some(ReadError::Failed(_)) => {}
        }
    }
}
