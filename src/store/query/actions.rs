//! What operators did, and what they have switched off.

use serde::Serialize;
use serde_json::value::RawValue;

use super::{READING, optional_outcome};
use crate::{
    domain::{
        action::{ActionKind, Switch, Switches},
        decision::Outcome,
        ids::{ConnectionId, RecordId},
        time::TimestampMs,
    },
    store::{
        Readers, StoreError, WriteConnection,
        error::{While as _, unreadable},
        rows::{parse, parse_optional},
    },
};

/// Which actions, the latest first.
#[derive(Clone, Debug, Default)]
pub struct ActionFilter {
    /// Only those of this kind.
    pub kind: Option<ActionKind>,
    /// Only those on the job about this record.
    pub record_id: Option<RecordId>,
    /// Only those by this name, as it was given.
    pub who: Option<String>,
    /// Only those before this one.
    pub before: Option<i64>,
    /// At most this many.
    pub limit: u32,
}

/// An operator's action.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ActionLine {
    /// Its number.
    pub seq: i64,
    /// When.
    pub at_ms: TimestampMs,
    /// What was done.
    pub kind: String,
    /// By whom.
    pub who: String,
    /// What they said about it.
    pub reason: String,
    /// The record, if it was done to a job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub record_id: Option<RecordId>,
    /// The number of the quarantined message, if it was done to one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quarantine_seq: Option<i64>,
    /// The switch, if one was set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub switch: Option<Switch>,
    /// The connection, if it was done to one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection_id: Option<ConnectionId>,
    /// How OES is said to have ended the record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// Until when another operator may confirm it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at_ms: Option<TimestampMs>,
    /// What many actions of one request have in common.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bulk_id: Option<String>,
    /// What became of it.
    #[schema(value_type = Object)]
    pub detail: Box<RawValue>,
}

/// A switch, and who set it.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SwitchLine {
    /// Which.
    pub switch: Switch,
    /// Whether what it stands for goes on.
    pub on: bool,
    /// When it was last set; nothing if nobody ever has.
    pub since_ms: Option<TimestampMs>,
    /// Who set it.
    pub who: Option<String>,
    /// Why.
    pub reason: Option<String>,
}

impl Readers {
    /// Operators' actions, the latest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn actions(&self, filter: &ActionFilter) -> Result<Vec<ActionLine>, StoreError> {
        let kind = filter.kind.map(ActionKind::as_str);
        let record = filter.record_id.map(|id| id.to_string());
        let before = filter.before.unwrap_or(i64::MAX);
        let limit = i64::from(filter.limit);
        // They are few: people make them.
        let rows = sqlx::query!(
            r#"SELECT action_seq AS "action_seq!", at_ms, kind, who, reason,
                record_id AS "record_id?: String", quarantine_seq, switch,
                actions.connection_id AS "on_connection?: String", actions.outcome,
                expires_at_ms, bulk_id, detail
               FROM actions LEFT JOIN jobs USING (job_seq)
               WHERE action_seq < ?1 AND (?2 IS NULL OR kind = ?2) AND (?3 IS NULL OR who = ?3)
                 AND (?4 IS NULL OR record_id = ?4)
               ORDER BY action_seq DESC LIMIT ?5"#,
            before,
            kind,
            filter.who,
            record,
            limit
        )
        .fetch_all(&self.pool)
        .await
        .while_doing(READING)?;
        rows.into_iter()
            .map(|row| {
                Ok(ActionLine {
                    seq: row.action_seq,
                    at_ms: TimestampMs::from_millis(row.at_ms),
                    kind: row.kind,
                    who: row.who,
                    reason: row.reason,
                    record_id: parse_optional("jobs", row.record_id.as_deref())?,
                    quarantine_seq: row.quarantine_seq,
                    switch: parse_optional("actions", row.switch.as_deref())?,
                    connection_id: parse_optional("actions", row.on_connection.as_deref())?,
                    outcome: optional_outcome(row.outcome.as_deref())?,
                    expires_at_ms: row.expires_at_ms.map(TimestampMs::from_millis),
                    bulk_id: row.bulk_id,
                    detail: RawValue::from_string(row.detail)
                        .map_err(|error| unreadable("actions")(&error))?,
                })
            })
            .collect()
    }

    /// The switches, in the order in which a job meets them.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn switches(&self) -> Result<Vec<SwitchLine>, StoreError> {
        let rows = sqlx::query!(
            r#"SELECT switches.switch, is_on AS "on: bool", at_ms AS "at_ms?", who AS "who?",
                reason AS "reason?"
               FROM switches LEFT JOIN actions USING (action_seq)"#
        )
        .fetch_all(&self.pool)
        .await
        .while_doing(READING)?;
        let mut lines = rows
            .into_iter()
            .map(|row| {
                Ok(SwitchLine {
                    switch: parse("switches", &row.switch)?,
                    on: row.on,
                    since_ms: row.at_ms.map(TimestampMs::from_millis),
                    who: row.who,
                    reason: row.reason,
                })
            })
            .collect::<Result<Vec<_>, StoreError>>()?;
        lines.sort_by_key(|line| line.switch);
        Ok(lines)
    }
}

impl WriteConnection {
    /// The switches as the book has them.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn switches(&mut self) -> Result<Switches, StoreError> {
        let rows = sqlx::query!(r#"SELECT switch, is_on AS "on: bool" FROM switches"#)
            .fetch_all(&mut self.connection)
            .await
            .while_doing(READING)?;
        rows.into_iter().try_fold(Switches::default(), |switches, row| {
            Ok(switches.with(parse("switches", &row.switch)?, row.on))
        })
    }
}
