//! What operators ask to be done. The command line and the API both come here.
//!
//! Nothing here can change a decision: the writer carries an action out by the steps of the pipeline, which
//! refuse what the state of a job does not allow, and the database refuses it again.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    compare::Desk,
    domain::{
        action::{Operator, Switch},
        decision::Outcome,
        ids::{QuarantineSeq, RecordId},
        message::{JobMessage, parse_message},
        record::RecordStatus,
    },
    pipeline::record::{Intake, Recorded},
    store::{Readers, StoreError},
    writer::{ACTED_ON_MAX, Acted, JobAction, WriterGone, WriterHandle},
};

/// Most jobs that one request is about.
pub const BULK_MAX: usize = 10_000;

/// Pause between two commands of a request about many jobs, so that others get their turn.
const BULK_PAUSE: Duration = Duration::from_millis(20);

/// How long OES is waited for when somebody says how it ended a record.
const LOOK_TIMEOUT: Duration = Duration::from_secs(10);

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub enum OperationError {
    /// The book cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Nothing can be changed any more.
    #[error(transparent)]
    Gone(#[from] WriterGone),
    /// The book cannot hold it.
    #[error("the book cannot hold it: {0}")]
    Refused(String),
    /// More jobs than one request may be about.
    #[error("{0} jobs; one request is about at most {BULK_MAX}: narrow it")]
    TooMany(usize),
    /// There is nothing under that number.
    #[error("there is no message {0} in quarantine")]
    UnknownMessage(i64),
    /// OES shows the record otherwise than it is said to be.
    #[error("OES shows record {record} as {shown}, and you say {said}: nothing was changed")]
    OesSaysOtherwise {
        /// The record.
        record: RecordId,
        /// What OES shows.
        shown: &'static str,
        /// What was said.
        said: Outcome,
    },
}

/// What became of a message that was put back in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Requeueing {
    /// It is a job now, about this record.
    New(RecordId),
    /// There was such a job already, with the same content.
    Repeated(RecordId),
    /// There is a job about this record with other content, which holds: nothing was changed.
    Contradicts(RecordId),
    /// It is as bad as it was: nothing was changed; this is what is wrong with it.
    StillBad(String),
}

/// Does what operators ask, on the book whose writer this is.
#[derive(Clone)]
pub struct Operations {
    /// The book.
    pub readers: Readers,
    /// Who changes it.
    pub writer: WriterHandle,
    /// Who can ask OES; nobody, where OES is not configured.
    pub desk: Option<Arc<Desk>>,
}

impl Operations {
    /// Carries out an action on jobs, a few in a transaction, at a measured pace. Answers what became of
    /// each; those that were left alone for what OES shows come before the others of their transaction.
    ///
    /// # Errors
    /// [`OperationError`]. What was done to the jobs before the one that failed stays done.
    pub async fn act(
        &self,
        action: JobAction,
        records: &[RecordId],
        by: &Operator,
    ) -> Result<Vec<(RecordId, Acted)>, OperationError> {
        if records.len() > BULK_MAX {
            return Err(OperationError::TooMany(records.len()));
        }
        let mut by = by.clone();
        if records.len() > 1 {
            by.bulk_id.get_or_insert_with(Uuid::new_v4);
        }
        let mut acted = Vec::with_capacity(records.len());
        for chunk in records.chunks(ACTED_ON_MAX) {
            if !acted.is_empty() {
                tokio::time::sleep(BULK_PAUSE).await;
            }
            let mut kept = Vec::with_capacity(chunk.len());
            for record in chunk {
                match Box::pin(self.check_end(*record, action)).await {
                    Ok(()) => kept.push(*record),
                    // One of many does not keep the others from what is said about them.
                    Err(error @ OperationError::OesSaysOtherwise { .. }) if records.len() > 1 => {
                        acted.push((*record, Acted::Failed(error.to_string())));
                    }
                    Err(error) => return Err(error),
                }
            }
            if !kept.is_empty() {
                acted.extend(self.writer.act(action, kept, by.clone()).await?);
            }
        }
        Ok(acted)
    }

    /// Looks at OES before somebody's word about the end of a record counts. If OES cannot be asked, the
    /// word of two must do.
    async fn check_end(&self, record: RecordId, action: JobAction) -> Result<(), OperationError> {
        let (JobAction::Close(said), Some(desk)) = (action, &self.desk) else { return Ok(()) };
        let jobs = self.readers.jobs_about(&[record]).await?;
        let Some(job) = jobs.get(&record) else { return Ok(()) };
        let looked = tokio::time::timeout(LOOK_TIMEOUT, Box::pin(desk.look_at(record))).await;
        let shown = match looked {
            Ok(Ok(Some(shown))) => shown,
            Ok(Ok(None)) => return Ok(()),
            Ok(Err(error)) => {
                tracing::warn!(%record, %error, "OES could not be asked how it ended the record");
                return Ok(());
            }
            Err(_) => {
                tracing::warn!(%record, "OES did not say in time how it ended the record");
                return Ok(());
            }
        };
        // What OES shows of another record under this id says nothing about ours.
        let is_ours = shown.job_type == job.job_type && shown.connection_id == job.connection_id;
        if !is_ours || shown.status == status(said) {
            return Ok(());
        }
        Err(OperationError::OesSaysOtherwise { record, shown: shown.status.as_str(), said })
    }

    /// Puts a quarantined message back in: it is read as strictly as when it came.
    ///
    /// # Errors
    /// [`OperationError`].
    pub async fn requeue(
        &self,
        message: QuarantineSeq,
        by: &Operator,
    ) -> Result<Requeueing, OperationError> {
        let found = self.readers.quarantined(message).await?;
        let found = found.ok_or(OperationError::UnknownMessage(message.get()))?;
        let JobMessage { terms, book_sequence } = match parse_message(&found.bytes) {
            Ok(message) => message,
            Err(refusal) => return Ok(Requeueing::StillBad(refusal.to_string())),
        };
        let record = terms.record_id;
        let raw = String::from_utf8_lossy(&found.bytes).into_owned();
        let intake = Intake { terms, raw, queue: found.line.queue, book_sequence };
        let recorded = self.writer.requeue(message, intake, by.clone()).await?;
        Ok(match recorded.map_err(OperationError::Refused)? {
            Recorded::New(_) => Requeueing::New(record),
            Recorded::Repeated(_) => Requeueing::Repeated(record),
            Recorded::Contradicts(_) | Recorded::RefusedBefore => Requeueing::Contradicts(record),
        })
    }

    /// Sets a switch. Answers whether that changed anything.
    ///
    /// # Errors
    /// [`OperationError`].
    pub async fn set_switch(
        &self,
        switch: Switch,
        on: bool,
        by: &Operator,
    ) -> Result<bool, OperationError> {
        let set = self.writer.set_switch(switch, on, by.clone()).await?;
        set.map_err(OperationError::Refused)
    }
}

const fn status(outcome: Outcome) -> RecordStatus {
    match outcome {
        Outcome::Cleared => RecordStatus::Cleared,
        Outcome::Released => RecordStatus::Released,
    }
}
