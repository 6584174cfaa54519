//! Alerts that hold or fire, and the notices about them: an outbox of its own.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};
use sqlx::SqliteConnection;
use uuid::Uuid;

use super::{
    Readers, StoreError,
    error::While as _,
    flush::{array, expect},
    rows::parse,
    work::Work,
};
use crate::domain::{
    alert::{
        AlertKey, AlertKind, NoticeEvent,
        life::{Known, Stage},
    },
    time::TimestampMs,
};

/// Notices that have ended and are kept, for whoever asks what was told; older ones are removed.
pub const NOTICES_KEPT_MAX: i64 = 10_000;

/// Longest detail of a try that is kept, in characters.
const DETAIL_CHARS_MAX: usize = 300;

const READING: &str = "reading the alerts";

/// By which way a notice goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Channel {
    /// An HTTP request.
    Webhook,
    /// A program on this machine.
    Command,
}

impl Channel {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Webhook, Self::Command];

    /// The word that rows, metrics and listings use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Webhook => "webhook",
            Self::Command => "command",
        }
    }
}

/// A notice that is to be sent.
#[derive(Clone, Debug)]
pub struct NewNotice {
    /// Stays the same however often it is sent.
    pub id: Uuid,
    /// By which way.
    pub channel: Channel,
    /// About which alert.
    pub key: AlertKey,
    /// What about it.
    pub event: NoticeEvent,
    /// The exact text, JSON.
    pub body: String,
}

/// What a try to send a notice came to.
#[derive(Clone, Debug)]
pub enum Tried {
    /// It was taken.
    Delivered,
    /// It was not; it is sent again at that time.
    Again(TimestampMs, String),
    /// It is not sent any more.
    GivenUp(String),
}

/// What is to be written down about alerts, all of it or nothing.
#[derive(Clone, Debug, Default)]
pub struct AlertUpdate {
    /// Alerts as they are now.
    pub put: Vec<(AlertKey, Known)>,
    /// Alerts that are over.
    pub over: Vec<AlertKey>,
    /// What is to be sent.
    pub notices: Vec<NewNotice>,
    /// What tries came to.
    pub tried: Vec<(i64, Tried)>,
}

impl AlertUpdate {
    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.put.is_empty()
            && self.over.is_empty()
            && self.notices.is_empty()
            && self.tried.is_empty()
    }

    /// Adds what came later.
    pub fn extend(&mut self, later: Self) {
        // An alert that is over and comes back is put again, and the other way round.
        self.over.retain(|key| !later.put.iter().any(|(put, _)| put == key));
        self.put.retain(|(key, _)| !later.over.contains(key));
        self.put.extend(later.put);
        self.over.extend(later.over);
        self.notices.extend(later.notices);
        self.tried.extend(later.tried);
    }
}

/// A notice that waits to be sent.
#[derive(Clone, Debug)]
pub struct WaitingNotice {
    /// Its number.
    pub seq: i64,
    /// Its id.
    pub id: Uuid,
    /// By which way.
    pub channel: Channel,
    /// The exact text.
    pub body: String,
    /// How often sending it has failed.
    pub tries: u32,
    /// When it became true.
    pub created_at: TimestampMs,
}

/// Notices that wait.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NoticesWaiting {
    /// How many.
    pub notices: u64,
    /// Since when the first does.
    pub oldest_since_ms: Option<TimestampMs>,
}

/// A notice for a list.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NoticeLine {
    /// When it became true.
    pub created_at_ms: TimestampMs,
    /// About which alert.
    pub alert: String,
    /// Which of several.
    pub subject: String,
    /// What about it.
    pub event: String,
    /// By which way.
    pub channel: String,
    /// How often sending it has failed.
    pub tries: i64,
    /// When it was taken or given up.
    pub ended_at_ms: Option<TimestampMs>,
    /// Which of the two.
    pub result: Option<String>,
    /// What the last try came to.
    pub detail: Option<String>,
}

fn alert_row((key, known): &(AlertKey, Known)) -> Value {
    let (fired_at, told_at, told_things, clear_since) = match known.stage {
        Stage::Pending => (None, None, None, None),
        Stage::Firing { fired_at, told_at, told_things, clear_since } => {
            (Some(fired_at), Some(told_at), Some(told_things), clear_since)
        }
    };
    json!({
        "name": key.kind.name(), "subject": key.subject,
        "stage": if known.is_firing() { "firing" } else { "pending" },
        "held_since": known.held_since, "things": known.things, "summary": known.summary,
        "fired_at": fired_at, "told_at": told_at, "told_things": told_things,
        "clear_since": clear_since,
    })
}

pub(super) async fn flush(
    connection: &mut SqliteConnection,
    work: &Work,
) -> Result<(), StoreError> {
    for update in &work.changes.alerts {
        over(connection, &update.over).await?;
        put(connection, &update.put).await?;
        notices(connection, &update.notices, work.now).await?;
        for (seq, tried) in &update.tried {
            note_try(connection, *seq, tried, work.now).await?;
        }
        if !update.notices.is_empty() {
            forget_old_notices(connection).await?;
        }
    }
    Ok(())
}

async fn put(
    connection: &mut SqliteConnection,
    alerts: &[(AlertKey, Known)],
) -> Result<(), StoreError> {
    let (expected, rows) = array(alerts.iter().map(alert_row))?;
    if expected == 0 {
        return Ok(());
    }
    let written = sqlx::query!(
        "INSERT INTO alerts (name, subject, stage, held_since_ms, things, summary, fired_at_ms,
             told_at_ms, told_things, clear_since_ms)
         SELECT value ->> 'name', value ->> 'subject', value ->> 'stage', value ->> 'held_since',
                value ->> 'things', value ->> 'summary', value ->> 'fired_at', value ->> 'told_at',
                value ->> 'told_things', value ->> 'clear_since'
         FROM json_each(?1) WHERE true
         ON CONFLICT (name, subject) DO UPDATE SET stage = excluded.stage,
             held_since_ms = excluded.held_since_ms, things = excluded.things,
             summary = excluded.summary, fired_at_ms = excluded.fired_at_ms,
             told_at_ms = excluded.told_at_ms, told_things = excluded.told_things,
             clear_since_ms = excluded.clear_since_ms",
        rows
    )
    .execute(connection)
    .await;
    expect(written, "the alerts", expected)
}

async fn over(connection: &mut SqliteConnection, keys: &[AlertKey]) -> Result<(), StoreError> {
    for key in keys {
        let name = key.kind.name();
        // One that was never written down is over all the same.
        sqlx::query!("DELETE FROM alerts WHERE name = ?1 AND subject = ?2", name, key.subject)
            .execute(&mut *connection)
            .await
            .while_doing("the alerts that are over")?;
    }
    Ok(())
}

async fn notices(
    connection: &mut SqliteConnection,
    notices: &[NewNotice],
    now: TimestampMs,
) -> Result<(), StoreError> {
    let row = |notice: &NewNotice| {
        json!({
            "id": notice.id, "channel": notice.channel, "name": notice.key.kind.name(),
            "subject": notice.key.subject, "event": notice.event, "body": notice.body,
        })
    };
    let (expected, rows) = array(notices.iter().map(row))?;
    if expected == 0 {
        return Ok(());
    }
    let now_ms = now.as_millis();
    let written = sqlx::query!(
        "INSERT INTO alert_notices (notice_seq, notice_id, channel, name, subject, event, body,
             created_at_ms, tries_made, next_try_at_ms)
         SELECT (SELECT coalesce(max(notice_seq), 0) FROM alert_notices) + key + 1,
                value ->> 'id', value ->> 'channel', value ->> 'name', value ->> 'subject',
                value ->> 'event', value ->> 'body', ?2, 0, ?2
         FROM json_each(?1)",
        rows,
        now_ms
    )
    .execute(connection)
    .await;
    expect(written, "the notices", expected)
}

async fn note_try(
    connection: &mut SqliteConnection,
    seq: i64,
    tried: &Tried,
    now: TimestampMs,
) -> Result<(), StoreError> {
    let now_ms = now.as_millis();
    let short = |text: &str| text.chars().take(DETAIL_CHARS_MAX).collect::<String>();
    let (failed, next_ms, ended, result, detail) = match tried {
        Tried::Delivered => (0, None, Some(now_ms), Some("delivered"), None),
        Tried::Again(at, why) => (1, Some(at.as_millis()), None, None, Some(short(why))),
        Tried::GivenUp(why) => (1, None, Some(now_ms), Some("given_up"), Some(short(why))),
    };
    let written = sqlx::query!(
        "UPDATE alert_notices SET tries_made = tries_made + ?2,
             next_try_at_ms = coalesce(?3, next_try_at_ms), ended_at_ms = ?4, result = ?5,
             detail = coalesce(?6, detail)
         WHERE notice_seq = ?1 AND ended_at_ms IS NULL",
        seq,
        failed,
        next_ms,
        ended,
        result,
        detail
    )
    .execute(connection)
    .await;
    expect(written, "a notice", 1)
}

async fn forget_old_notices(connection: &mut SqliteConnection) -> Result<(), StoreError> {
    sqlx::query!(
        "DELETE FROM alert_notices WHERE ended_at_ms IS NOT NULL
         AND notice_seq <= (SELECT max(notice_seq) FROM alert_notices) - ?1",
        NOTICES_KEPT_MAX
    )
    .execute(connection)
    .await
    .while_doing("removing old notices")?;
    Ok(())
}

impl Readers {
    /// Alerts that hold or fire. One that this version does not know is left out.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn alerts(&self) -> Result<BTreeMap<AlertKey, Known>, StoreError> {
        let rows = sqlx::query!(
            "SELECT name, subject, held_since_ms, things, summary, fired_at_ms, told_at_ms,
                told_things, clear_since_ms FROM alerts"
        )
        .fetch_all(&self.pool)
        .await
        .while_doing(READING)?;
        let count = |number: i64| u64::try_from(number).unwrap_or(0);
        Ok(rows
            .into_iter()
            .filter_map(|row| {
                let key = AlertKey { kind: AlertKind::from_name(&row.name)?, subject: row.subject };
                let stage = match (row.fired_at_ms, row.told_at_ms) {
                    (Some(fired_at), Some(told_at)) => Stage::Firing {
                        fired_at: TimestampMs::from_millis(fired_at),
                        told_at: TimestampMs::from_millis(told_at),
                        told_things: count(row.told_things.unwrap_or(0)),
                        clear_since: row.clear_since_ms.map(TimestampMs::from_millis),
                    },
                    (None, _) | (_, None) => Stage::Pending,
                };
                let known = Known {
                    stage,
                    held_since: TimestampMs::from_millis(row.held_since_ms),
                    things: count(row.things),
                    summary: row.summary,
                };
                Some((key, known))
            })
            .collect())
    }

    /// Notices that are due on a channel: of each alert the first that waits, so that it is told in order.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn due_notices(
        &self,
        channel: Channel,
        now: TimestampMs,
        limit: u32,
    ) -> Result<Vec<WaitingNotice>, StoreError> {
        let (word, now_ms) = (channel.as_str(), now.as_millis());
        let rows = sqlx::query!(
            r#"SELECT notice_seq AS "seq!", notice_id, body, tries_made, created_at_ms
               FROM alert_notices AS notice
               WHERE channel = ?1 AND ended_at_ms IS NULL AND next_try_at_ms <= ?2
                 AND NOT EXISTS (SELECT 1 FROM alert_notices AS earlier
                     WHERE earlier.channel = ?1 AND earlier.ended_at_ms IS NULL
                       AND earlier.name = notice.name AND earlier.subject = notice.subject
                       AND earlier.notice_seq < notice.notice_seq)
               ORDER BY notice_seq LIMIT ?3"#,
            word,
            now_ms,
            limit
        )
        .fetch_all(&self.pool)
        .await
        .while_doing(READING)?;
        rows.into_iter()
            .map(|row| {
                Ok(WaitingNotice {
                    seq: row.seq,
                    id: parse("alert_notices", &row.notice_id)?,
                    channel,
                    body: row.body,
                    tries: u32::try_from(row.tries_made).unwrap_or(u32::MAX),
                    created_at: TimestampMs::from_millis(row.created_at_ms),
                })
            })
            .collect()
    }

    /// When the next notice is due on a channel.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn next_notice_due(
        &self,
        channel: Channel,
    ) -> Result<Option<TimestampMs>, StoreError> {
        let word = channel.as_str();
        let due = sqlx::query_scalar!(
            r#"SELECT min(next_try_at_ms) AS "due: i64" FROM alert_notices
               WHERE channel = ?1 AND ended_at_ms IS NULL"#,
            word
        )
        .fetch_one(&self.pool)
        .await
        .while_doing(READING)?;
        Ok(due.map(TimestampMs::from_millis))
    }

    /// Notices that wait, on all channels.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn notices_waiting(&self) -> Result<NoticesWaiting, StoreError> {
        let row = sqlx::query!(
            r#"SELECT count(*) AS "notices!: i64", min(created_at_ms) AS "oldest: i64"
               FROM alert_notices WHERE ended_at_ms IS NULL"#
        )
        .fetch_one(&self.pool)
        .await
        .while_doing(READING)?;
        Ok(NoticesWaiting {
            notices: u64::try_from(row.notices).unwrap_or(0),
            oldest_since_ms: row.oldest.map(TimestampMs::from_millis),
        })
    }

    /// What was told last, and what waits, the newest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn notices(&self, limit: u32) -> Result<Vec<NoticeLine>, StoreError> {
        let rows = sqlx::query!(
            "SELECT created_at_ms, name, subject, event, channel, tries_made, ended_at_ms, result,
                detail FROM alert_notices ORDER BY notice_seq DESC LIMIT ?1",
            limit
        )
        .fetch_all(&self.pool)
        .await
        .while_doing(READING)?;
        Ok(rows
            .into_iter()
            .map(|row| NoticeLine {
                created_at_ms: TimestampMs::from_millis(row.created_at_ms),
                alert: row.name,
                subject: row.subject,
                event: row.event,
                channel: row.channel,
                tries: row.tries_made,
                ended_at_ms: row.ended_at_ms.map(TimestampMs::from_millis),
                result: row.result,
                detail: row.detail,
            })
            .collect())
    }
}
