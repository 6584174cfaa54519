//! Messages that never acted, and what became of their dead letters.

use serde::Serialize;

use super::READING;
use crate::{
    domain::{ids::QuarantineSeq, ids::RecordId, time::TimestampMs},
    store::{Readers, StoreError, error::While as _, rows::parse_optional},
};

/// Which messages, the latest first.
#[derive(Clone, Debug, Default)]
pub struct QuarantineFilter {
    /// Only those with this kind of fault.
    pub code: Option<String>,
    /// Only those that have not been put back in since they came.
    pub waiting: bool,
    /// Only those before this one.
    pub before: Option<i64>,
    /// At most this many.
    pub limit: u32,
}

/// A message in quarantine.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct QuarantineLine {
    /// Its number.
    pub seq: i64,
    /// The queue it came from.
    pub queue: String,
    /// SHA-256 over its bytes, hexadecimal.
    pub sha256: String,
    /// How many bytes it has.
    pub bytes: u64,
    /// The kind of fault.
    pub code: String,
    /// What exactly is wrong.
    pub detail: String,
    /// The record it names, where that could be read.
    pub record_id: Option<RecordId>,
    /// Deliveries of these bytes.
    pub times_seen: u64,
    /// The first of them.
    pub first_seen_ms: TimestampMs,
    /// The last of them.
    pub last_seen_ms: TimestampMs,
    /// When its dead letter was published; nothing if it waits for that.
    pub dead_letter_published_at_ms: Option<TimestampMs>,
    /// The last time that somebody put it back in.
    pub requeued: Option<Requeued>,
}

/// When a quarantined message was put back in, and by whom.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Requeued {
    /// When.
    pub at_ms: TimestampMs,
    /// By whom.
    pub who: String,
    /// Why.
    pub reason: String,
}

/// A message in quarantine with its bytes.
#[derive(Clone, Debug)]
pub struct QuarantinedBytes {
    /// What is known of it.
    pub line: QuarantineLine,
    /// The message as it came.
    pub bytes: Vec<u8>,
}

struct QuarantineRow {
    quarantine_seq: i64,
    queue: String,
    sha256: String,
    size: i64,
    code: String,
    detail: String,
    record_id: Option<String>,
    times_seen: i64,
    first_seen_ms: i64,
    last_seen_ms: i64,
    published_at_ms: Option<i64>,
    requeued_at_ms: Option<i64>,
    who: Option<String>,
    reason: Option<String>,
}

impl QuarantineRow {
    fn read(self) -> Result<QuarantineLine, StoreError> {
        let requeued = match (self.requeued_at_ms, self.who, self.reason) {
            (Some(at_ms), Some(who), Some(reason)) => {
                Some(Requeued { at_ms: TimestampMs::from_millis(at_ms), who, reason })
            }
            _ => None,
        };
        Ok(QuarantineLine {
            seq: self.quarantine_seq,
            queue: self.queue,
            sha256: self.sha256,
            bytes: super::count(self.size),
            code: self.code,
            detail: self.detail,
            record_id: parse_optional("quarantine", self.record_id.as_deref())?,
            times_seen: super::count(self.times_seen),
            first_seen_ms: TimestampMs::from_millis(self.first_seen_ms),
            last_seen_ms: TimestampMs::from_millis(self.last_seen_ms),
            dead_letter_published_at_ms: self.published_at_ms.map(TimestampMs::from_millis),
            requeued,
        })
    }
}

impl Readers {
    /// Messages in quarantine, the latest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn quarantine(
        &self,
        filter: &QuarantineFilter,
    ) -> Result<Vec<QuarantineLine>, StoreError> {
        let before = filter.before.unwrap_or(i64::MAX);
        let (limit, waiting) = (i64::from(filter.limit), filter.waiting);
        let rows = sqlx::query_as!(
            QuarantineRow,
            r#"SELECT quarantine.quarantine_seq AS "quarantine_seq!", queue,
                lower(hex(sha256)) AS "sha256!: String", length(bytes) AS "size!: i64", code,
                quarantine.detail AS "detail!", record_id, times_seen, first_seen_ms, last_seen_ms,
                published_at_ms AS "published_at_ms?", actions.at_ms AS "requeued_at_ms?",
                who AS "who?", reason AS "reason?"
               FROM quarantine
               LEFT JOIN outbox ON outbox.quarantine_seq = quarantine.quarantine_seq
               LEFT JOIN actions ON actions.action_seq = (
                    SELECT max(action_seq) FROM actions AS done
                    WHERE done.quarantine_seq = quarantine.quarantine_seq)
               WHERE quarantine.quarantine_seq < ?1 AND (?2 IS NULL OR code = ?2)
                 AND (NOT ?3 OR actions.at_ms IS NULL OR actions.at_ms < last_seen_ms)
               ORDER BY quarantine.quarantine_seq DESC LIMIT ?4"#,
            before,
            filter.code,
            waiting,
            limit
        )
        .fetch_all(&self.pool)
        .await
        .while_doing(READING)?;
        rows.into_iter().map(QuarantineRow::read).collect()
    }

    /// One message in quarantine with its bytes.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn quarantined(
        &self,
        seq: QuarantineSeq,
    ) -> Result<Option<QuarantinedBytes>, StoreError> {
        let before = seq.get().saturating_add(1);
        let filter = QuarantineFilter { before: Some(before), limit: 1, ..Default::default() };
        let line = self.quarantine(&filter).await?.pop();
        let Some(line) = line.filter(|line| line.seq == seq.get()) else { return Ok(None) };
        let number = seq.get();
        let bytes =
            sqlx::query_scalar!("SELECT bytes FROM quarantine WHERE quarantine_seq = ?1", number)
                .fetch_one(&self.pool)
                .await
                .while_doing(READING)?;
        Ok(Some(QuarantinedBytes { line, bytes }))
    }
}
