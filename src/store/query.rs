//! Reading the book: short reads on the read-only connections.

use serde::Serialize;
use uuid::Uuid;

use super::{
    error::{StoreError, While as _},
    load::account_kind,
    open::Readers,
    rows::{outcome_of, parse},
};
use crate::domain::{
    amount::Balance,
    book::{Connection, Currency},
    decision::Outcome,
    ids::{ConnectionId, CurrencyCode, JobSeq, OutboxSeq, RecordId},
    job::JobType,
    ledger::{AccountKind, AccountTotals},
    time::TimestampMs,
};

mod jobs;
mod timeline;

pub use jobs::{JobFilter, JobLine};
pub use timeline::{AttemptLine, DecisionLine, JobHistory, NoteLine, OutboxLine, TransferLine};

/// A record that is to be read back.
#[derive(Clone, Copy, Debug)]
pub struct ReadTarget {
    /// The job.
    pub job: JobSeq,
    /// Its record.
    pub record_id: RecordId,
}

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
#[derive(Clone, Debug, Serialize)]
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
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OldestJob {
    /// The state's name.
    pub state: String,
    /// When it was taken in.
    pub received_at_ms: TimestampMs,
}

/// Released records that OES has not confirmed.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReleasedUnconfirmed {
    /// How many.
    pub jobs: u64,
    /// When the oldest was taken in.
    pub oldest_received_at_ms: Option<TimestampMs>,
}

/// What a connection holds in a currency.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Holding {
    /// The connection.
    pub connection_id: ConnectionId,
    /// The currency.
    pub currency: CurrencyCode,
    /// What may be traded or taken back.
    pub available: Balance,
    /// Decided deallocations that OES has not confirmed.
    pub held: Balance,
    /// Decided allocations that OES has not confirmed.
    pub incoming: Balance,
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
    /// When the next attempt of a decided job is due.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn next_attempt_due(&self) -> Result<Option<TimestampMs>, StoreError> {
        let row = sqlx::query!(
            r#"SELECT min(next_step_at_ms) AS "due: i64" FROM jobs
               WHERE state = 'decided' AND final_outcome IS NULL"#
        )
        .fetch_one(&self.pool)
        .await
        .while_doing(READING)?;
        Ok(row.due.map(TimestampMs::from_millis))
    }

    /// The identity of the ledger and its last attempt, as its mark should have them.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn last_signed(&self) -> Result<(Uuid, i64), StoreError> {
        let row = sqlx::query!(
            r#"SELECT ledger_uuid,
                max((SELECT coalesce(max(attempt_seq), 0) FROM attempts),
                    (SELECT coalesce(max(mark_attempt), 0) FROM restores)) AS "attempt!: i64"
               FROM ledger"#
        )
        .fetch_one(&self.pool)
        .await
        .while_doing(READING)?;
        Ok((parse("ledger", &row.ledger_uuid)?, row.attempt))
    }

    /// How many attempts are due, counted up to `most`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn due_attempts_count(
        &self,
        now: TimestampMs,
        most: usize,
    ) -> Result<usize, StoreError> {
        let (now_ms, limit) = (now.as_millis(), i64::try_from(most).unwrap_or(i64::MAX));
        let due = sqlx::query_scalar!(
            r#"SELECT count(*) AS "due!: i64" FROM (
                SELECT 1 FROM jobs WHERE state = 'decided' AND final_outcome IS NULL
                  AND next_step_at_ms <= ?1 LIMIT ?2)"#,
            now_ms,
            limit
        )
        .fetch_one(&self.pool)
        .await
        .while_doing(READING)?;
        Ok(usize::try_from(due).unwrap_or(most))
    }

    /// When the next job can be decided; now, if a job's connection has become known.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn next_decision_due(
        &self,
        now: TimestampMs,
    ) -> Result<Option<TimestampMs>, StoreError> {
        let row = sqlx::query!(
            r#"SELECT
                (SELECT min(next_step_at_ms) FROM jobs
                 WHERE state = 'received' AND final_outcome IS NULL
                   AND (verified_at_ms IS NOT NULL OR NOT EXISTS (SELECT 1 FROM restores)))
                    AS "due: i64",
                EXISTS (SELECT 1 FROM jobs JOIN connections USING (connection_id)
                        WHERE state = 'received' AND final_outcome IS NULL
                          AND (verified_at_ms IS NOT NULL OR NOT EXISTS (SELECT 1 FROM restores)))
                    AS "known!: bool""#
        )
        .fetch_one(&self.pool)
        .await
        .while_doing(READING)?;
        Ok(if row.known { Some(now) } else { row.due.map(TimestampMs::from_millis) })
    }

    /// When the next record is due to be read back.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn next_read_due(&self) -> Result<Option<TimestampMs>, StoreError> {
        let row = sqlx::query!(
            r#"SELECT min(next_step_at_ms) AS "due: i64" FROM jobs
               WHERE final_outcome IS NULL AND next_step_at_ms IS NOT NULL
                 AND (state IN ('unknown', 'awaiting_approval', 'parked', 'conflict')
                   OR (state = 'received' AND verified_at_ms IS NULL
                       AND EXISTS (SELECT 1 FROM restores)))"#
        )
        .fetch_one(&self.pool)
        .await
        .while_doing(READING)?;
        Ok(row.due.map(TimestampMs::from_millis))
    }

    /// Records whose read is due; those whose outcome is unknown come first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn due_reads(
        &self,
        now: TimestampMs,
        limit: usize,
    ) -> Result<Vec<ReadTarget>, StoreError> {
        let (now_ms, limit) = (now.as_millis(), i64::try_from(limit).unwrap_or(i64::MAX));
        let rows = sqlx::query!(
            r#"SELECT job_seq AS "job_seq!", record_id FROM jobs
               WHERE final_outcome IS NULL AND next_step_at_ms <= ?1
                 AND (state IN ('unknown', 'awaiting_approval', 'parked', 'conflict')
                   OR (state = 'received' AND verified_at_ms IS NULL
                       AND EXISTS (SELECT 1 FROM restores)))
               ORDER BY state <> 'unknown', next_step_at_ms, job_seq LIMIT ?2"#,
            now_ms,
            limit
        )
        .fetch_all(&self.pool)
        .await
        .while_doing(READING)?;
        rows.into_iter()
            .map(|row| {
                Ok(ReadTarget {
                    job: JobSeq::from(row.job_seq),
                    record_id: parse("jobs", &row.record_id)?,
                })
            })
            .collect()
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
        let rows = sqlx::query!(
            r#"SELECT state AS "state!", min(received_at_ms) AS "received_at_ms!: i64" FROM jobs
               WHERE final_outcome IS NULL GROUP BY state"#
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
            r#"SELECT count(*) AS "jobs!: i64", min(received_at_ms) AS "oldest: i64" FROM jobs
               WHERE final_outcome IS NULL AND outcome = 'released'"#
        )
        .fetch_one(&self.pool)
        .await
        .while_doing(READING)?;
        Ok(ReleasedUnconfirmed {
            jobs: count(row.jobs),
            oldest_received_at_ms: row.oldest.map(TimestampMs::from_millis),
        })
    }

    /// Every connection in the book.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn connections(&self) -> Result<Vec<Connection>, StoreError> {
        let rows = sqlx::query!(
            r#"SELECT connection_id, client_id, partners_client_id, partners_connection_id,
                active AS "active: bool" FROM connections ORDER BY connection_id"#
        )
        .fetch_all(&self.pool)
        .await
        .while_doing(READING)?;
        rows.into_iter()
            .map(|row| {
                Ok(Connection {
                    connection_id: parse("connections", &row.connection_id)?,
                    client_id: parse("connections", &row.client_id)?,
                    partners_client_id: parse("connections", &row.partners_client_id)?,
                    partners_connection_id: parse("connections", &row.partners_connection_id)?,
                    active: row.active,
                })
            })
            .collect()
    }

    /// Every currency in the book.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn currencies(&self) -> Result<Vec<Currency>, StoreError> {
        let rows = sqlx::query!(
            r#"SELECT currency, enabled AS "enabled: bool", quantity_min, quantity_max
               FROM currencies ORDER BY currency"#
        )
        .fetch_all(&self.pool)
        .await
        .while_doing(READING)?;
        rows.into_iter()
            .map(|row| {
                Ok(Currency {
                    currency: parse("currencies", &row.currency)?,
                    enabled: row.enabled,
                    quantity_min: parse("currencies", &row.quantity_min)?,
                    quantity_max: parse("currencies", &row.quantity_max)?,
                })
            })
            .collect()
    }

    /// What each connection holds in each currency.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn holdings(&self) -> Result<Vec<Holding>, StoreError> {
        let rows = sqlx::query!(
            "SELECT connection_id, currency, kind, debits, credits FROM accounts
             ORDER BY connection_id, currency, kind"
        )
        .fetch_all(&self.pool)
        .await
        .while_doing(READING)?;
        let mut holdings: Vec<Holding> = Vec::new();
        for row in rows {
            let connection_id: ConnectionId = parse("accounts", &row.connection_id)?;
            let currency: CurrencyCode = parse("accounts", &row.currency)?;
            let totals = AccountTotals {
                debits: parse("accounts", &row.debits)?,
                credits: parse("accounts", &row.credits)?,
            };
            let same = |holding: &&mut Holding| {
                holding.connection_id == connection_id && holding.currency == currency
            };
            if holdings.last_mut().is_none_or(|last| !same(&last)) {
                holdings.push(Holding {
                    connection_id,
                    currency: currency.clone(),
                    available: Balance::ZERO,
                    held: Balance::ZERO,
                    incoming: Balance::ZERO,
                });
            }
            let Some(holding) = holdings.last_mut() else {
                continue;
            };
            match account_kind(&row.kind)? {
                AccountKind::Available => holding.available = totals.balance(),
                AccountKind::Held => holding.held = totals.balance(),
                AccountKind::Incoming => holding.incoming = totals.balance(),
                AccountKind::Oes | AccountKind::Exchange => {}
            }
        }
        Ok(holdings)
    }
}

fn optional_outcome(word: Option<&str>) -> Result<Option<Outcome>, StoreError> {
    word.map(outcome_of).transpose()
}
