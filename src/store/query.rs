//! Reading the book: short reads on the read-only connections.

use serde::Serialize;
use uuid::Uuid;

use super::{
    error::{StoreError, While as _},
    open::Readers,
    rows::{outcome_of, parse},
};
use crate::domain::{decision::Outcome, ids::OutboxSeq, job::JobType, time::TimestampMs};

mod actions;
mod archive;
mod book;
mod compare;
mod due;
mod feeds;
mod jobs;
mod quarantine;
mod runs;
mod settings;
mod timeline;
mod troubles;
mod watch;

pub use actions::{ActionFilter, ActionLine, SwitchLine};
pub use archive::Archivable;
pub use book::Holding;
pub use compare::QuarantinedMessage;
pub use due::ReadTarget;
pub use feeds::{FeedFinding, FeedLine, FeedsAtWork, UnprovenConnections};
pub use jobs::{
    COUNTED_MAX, Cursor, CursorError, JobCount, JobFilter, JobLine, JobPage, PAGE_MAX, PageWanted,
    Sort,
};
pub use quarantine::{QuarantineFilter, QuarantineLine, QuarantinedBytes, Requeued};
pub use runs::{FindingLine, RunLine};
pub use settings::{FieldChange, SettingLine, SettingsFilter};
pub use timeline::{AttemptLine, DecisionLine, JobHistory, NoteLine, OutboxLine, TransferLine};
pub use troubles::TroubleLine;
pub use watch::{Examples, OutboxWaiting, Overdrawn};

/// A message that waits to be published.
#[derive(Clone, Debug)]
pub struct OutboxMessage {
    /// Its number.
    pub seq: OutboxSeq,
    /// Its id, which stays the same for ever.
    pub event_id: Uuid,
    /// Where to.
    pub routing_key: String,
    /// What.
    pub content: OutboxContent,
}

/// What a message of the outbox carries.
#[derive(Clone, Debug)]
pub enum OutboxContent {
    /// An outcome event as JSON.
    Outcome {
        /// The event.
        body: String,
    },
    /// A bad message with the reason why it is bad.
    DeadLetter {
        /// The message as it came.
        bytes: Vec<u8>,
        /// The kind of fault.
        code: String,
        /// What exactly is wrong.
        detail: String,
    },
}

/// How many jobs there are in a state.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct StateCount {
    /// The state's name.
    pub state: String,
    /// Allocation or deallocation.
    #[serde(rename = "type")]
    pub job_type: JobType,
    /// How many.
    pub jobs: u64,
}

/// The oldest job that rests in a state.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OldestJob {
    /// The state's name.
    pub state: String,
    /// When it was taken in.
    pub received_at_ms: TimestampMs,
}

/// Released records that OES has not confirmed.
#[derive(Clone, Copy, Debug, Default, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReleasedUnconfirmed {
    /// How many.
    pub jobs: u64,
    /// Those of them that are parked or in conflict, and wait for a person.
    pub stuck: u64,
    /// When the oldest was taken in.
    pub oldest_received_at_ms: Option<TimestampMs>,
}

/// Jobs that wait for an operator's approval.
#[derive(Clone, Copy, Debug, Default, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApprovalsWaiting {
    /// How many.
    pub jobs: u64,
    /// Since when the oldest waits.
    pub oldest_since_ms: Option<TimestampMs>,
}

/// How many records were decided in one way.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OutcomeCount {
    /// Allocation or deallocation.
    #[serde(rename = "type")]
    pub job_type: JobType,
    /// How.
    pub outcome: Outcome,
    /// The rule that released them.
    pub reject_code: Option<String>,
    /// How many.
    pub jobs: u64,
}

const READING: &str = "reading the book";

fn count(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

impl Readers {
    /// The identity of the ledger and its last attempt, as its mark should have them.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn last_signed(&self) -> Result<(Uuid, i64), StoreError> {
        let row = sqlx::query!(
            r#"SELECT ledger_uuid,
                max((SELECT coalesce(max(attempt_seq), 0) FROM attempts),
                    (SELECT coalesce(max(attempt_seq), 0) FROM archives),
                    (SELECT coalesce(max(mark_attempt), 0) FROM restores)) AS "attempt!: i64"
               FROM ledger"#
        )
        .fetch_one(&self.pool)
        .await
        .while_doing(READING)?;
        Ok((parse("ledger", &row.ledger_uuid)?, row.attempt))
    }

    /// Messages of the outbox after `after` that the broker has not confirmed.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn unpublished(
        &self,
        after: OutboxSeq,
        limit: usize,
    ) -> Result<Vec<OutboxMessage>, StoreError> {
        let (after, limit) = (after.get(), i64::try_from(limit).unwrap_or(i64::MAX));
        let rows = sqlx::query!(
            r#"SELECT outbox_seq AS "outbox_seq!", outbox.event_id, routing_key, body,
                bytes AS "bytes?", code AS "code?", detail AS "detail?"
               FROM outbox LEFT JOIN quarantine USING (quarantine_seq)
               WHERE published_at_ms IS NULL AND outbox_seq > ?1
               ORDER BY outbox_seq LIMIT ?2"#,
            after,
            limit
        )
        .fetch_all(&self.pool)
        .await
        .while_doing(READING)?;
        rows.into_iter()
            .map(|row| {
                let content = match (row.body, row.bytes, row.code, row.detail) {
                    (Some(body), ..) => OutboxContent::Outcome { body },
                    (None, Some(bytes), Some(code), Some(detail)) => {
                        OutboxContent::DeadLetter { bytes, code, detail }
                    }
                    (None, ..) => {
                        return Err(StoreError::Unreadable {
                            table: "outbox",
                            reason: format!("message {} has no content", row.outbox_seq),
                        });
                    }
                };
                Ok(OutboxMessage {
                    seq: OutboxSeq::from(row.outbox_seq),
                    event_id: parse("outbox", &row.event_id)?,
                    routing_key: row.routing_key,
                    content,
                })
            })
            .collect()
    }

    /// How many messages wait to be published.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn unpublished_count(&self) -> Result<u64, StoreError> {
        let row = sqlx::query!(
            r#"SELECT count(*) AS "count!: i64" FROM outbox WHERE published_at_ms IS NULL"#
        )
        .fetch_one(&self.pool)
        .await
        .while_doing(READING)?;
        Ok(count(row.count))
    }

    /// How many messages are in quarantine.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn quarantined_count(&self) -> Result<u64, StoreError> {
        // Row numbers have no gaps and rows are never removed.
        let row = sqlx::query!(
            r#"SELECT coalesce(max(quarantine_seq), 0) AS "count!: i64" FROM quarantine"#
        )
        .fetch_one(&self.pool)
        .await
        .while_doing(READING)?;
        Ok(count(row.count))
    }

    /// How many jobs there are in each state, by type, in the order of a job's life.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn job_counts(&self) -> Result<Vec<StateCount>, StoreError> {
        let rows = sqlx::query!("SELECT state, type AS job_type, jobs FROM job_counts")
            .fetch_all(&self.pool)
            .await
            .while_doing(READING)?;
        let mut counts = rows
            .into_iter()
            .map(|row| {
                Ok(StateCount {
                    state: row.state,
                    job_type: parse("job_counts", &row.job_type)?,
                    jobs: count(row.jobs),
                })
            })
            .collect::<Result<Vec<_>, StoreError>>()?;
        let rank =
            |state: &str| crate::domain::state::State::NAMES.iter().position(|name| *name == state);
        counts.sort_by_key(|line| (rank(&line.state), line.job_type));
        Ok(counts)
    }

    /// How many records were decided in each way. Looks at every decision.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn outcome_counts(&self) -> Result<Vec<OutcomeCount>, StoreError> {
        let rows = sqlx::query!(
            r#"SELECT type AS "job_type!", decisions.outcome AS "outcome!", reject_code,
                count(*) AS "jobs!: i64"
               FROM decisions JOIN jobs USING (job_seq)
               GROUP BY type, decisions.outcome, reject_code
               ORDER BY type, decisions.outcome, count(*) DESC"#
        )
        .fetch_all(&self.pool)
        .await
        .while_doing(READING)?;
        rows.into_iter()
            .map(|row| {
                Ok(OutcomeCount {
                    job_type: parse("jobs", &row.job_type)?,
                    outcome: outcome_of(&row.outcome)?,
                    reject_code: row.reject_code,
                    jobs: count(row.jobs),
                })
            })
            .collect()
    }

    /// The oldest open job of each state that has one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn oldest_open(&self) -> Result<Vec<OldestJob>, StoreError> {
        // Jobs are numbered as they arrive, so the lowest number is the oldest; finding it touches the
        // index of open jobs and nothing else, however many there are and have been.
        let rows = sqlx::query!(
            r#"SELECT oldest.state AS "state!", received_at_ms AS "received_at_ms!: i64"
               FROM (SELECT state, min(job_seq) AS job_seq FROM jobs
                     WHERE final_outcome IS NULL AND state <> 'refused' GROUP BY state) AS oldest
               JOIN jobs USING (job_seq)"#
        )
        .fetch_all(&self.pool)
        .await
        .while_doing(READING)?;
        Ok(rows
            .into_iter()
            .map(|row| OldestJob {
                state: row.state,
                received_at_ms: TimestampMs::from_millis(row.received_at_ms),
            })
            .collect())
    }

    /// Released records that OES has not confirmed: their clients' funds are stuck.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn released_unconfirmed(&self) -> Result<ReleasedUnconfirmed, StoreError> {
        let row = sqlx::query!(
            r#"SELECT count(*) AS "jobs!: i64", min(received_at_ms) AS "oldest: i64",
                count(*) FILTER (WHERE state IN ('parked', 'conflict')) AS "stuck!: i64" FROM jobs
               WHERE final_outcome IS NULL AND outcome = 'released'"#
        )
        .fetch_one(&self.pool)
        .await
        .while_doing(READING)?;
        Ok(ReleasedUnconfirmed {
            jobs: count(row.jobs),
            stuck: count(row.stuck),
            oldest_received_at_ms: row.oldest.map(TimestampMs::from_millis),
        })
    }

    /// Jobs that wait for an operator's approval.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn approvals_waiting(&self) -> Result<ApprovalsWaiting, StoreError> {
        let row = sqlx::query!(
            r#"SELECT count(*) AS "jobs!: i64", min(state_since_ms) AS "oldest: i64" FROM jobs
               WHERE final_outcome IS NULL AND state = 'parked' AND state_reason = 'needs_approval'"#
        )
        .fetch_one(&self.pool)
        .await
        .while_doing(READING)?;
        Ok(ApprovalsWaiting {
            jobs: count(row.jobs),
            oldest_since_ms: row.oldest.map(TimestampMs::from_millis),
        })
    }
}

fn optional_outcome(word: Option<&str>) -> Result<Option<Outcome>, StoreError> {
    word.map(outcome_of).transpose()
}
