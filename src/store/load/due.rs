//! Which jobs are due: the turns of `domain::turns`, as far as a batch has room.

use sqlx::SqliteConnection;

use super::{LOADING, keys};
use crate::{
    domain::{
        ids::{ConnectionId, JobSeq},
        time::TimestampMs,
    },
    store::{
        error::{StoreError, While as _},
        rows::parse,
        work::{Needs, Work},
    },
};

fn limit(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) async fn find_due(
    connection: &mut SqliteConnection,
    work: &mut Work,
    needs: &Needs,
) -> Result<(), StoreError> {
    if needs.due_attempts > 0 {
        find_due_attempts(connection, work, needs.due_attempts).await?;
    }
    if needs.due_decisions > 0 {
        let (now_ms, limit) = (work.now.as_millis(), limit(needs.due_decisions));
        let is_read = needs.verifies || work.counters.restored_at.is_some();
        work.due_decisions = sqlx::query_scalar!(
            "SELECT job_seq FROM jobs WHERE state = 'received' AND final_outcome IS NULL
             AND (next_step_at_ms <= ?1 OR (NOT waits_for_book
                  AND connection_id IN (SELECT connection_id FROM connections)))
             AND (verified_at_ms IS NOT NULL OR NOT ?3)
             ORDER BY job_seq LIMIT ?2",
            now_ms,
            limit,
            is_read
        )
        .fetch_all(connection)
        .await
        .while_doing(LOADING)?
        .into_iter()
        .map(JobSeq::from)
        .collect();
    }
    Ok(())
}

async fn find_due_attempts(
    connection: &mut SqliteConnection,
    work: &mut Work,
    wanted: usize,
) -> Result<(), StoreError> {
    let mut turns = work.counters.turns;
    let mut retries = due_retries(connection, work.now, wanted).await?;
    let share = turns.retries_share(wanted).min(retries.len());
    let later_retries = retries.split_off(share);
    let waiting = waiting(connection, turns.after(), wanted.saturating_sub(share)).await?;
    let first = turns.take(&waiting, wanted.saturating_sub(share));
    work.first_attempts_left = are_there_more(connection, first.len()).await?;
    let left = wanted.saturating_sub(share).saturating_sub(first.len());
    turns.retried(share.saturating_add(left.min(later_retries.len())));
    work.counters.turns = turns;
    work.due_attempts =
        retries.into_iter().chain(first).chain(later_retries.into_iter().take(left)).collect();
    Ok(())
}

async fn due_retries(
    connection: &mut SqliteConnection,
    now: TimestampMs,
    most: usize,
) -> Result<Vec<JobSeq>, StoreError> {
    let (now_ms, limit) = (now.as_millis(), limit(most));
    let found = sqlx::query_scalar!(
        "SELECT job_seq FROM jobs WHERE state = 'decided' AND attempts_made > 0
         AND next_step_at_ms <= ?1 ORDER BY next_step_at_ms, job_seq LIMIT ?2",
        now_ms,
        limit
    )
    .fetch_all(connection)
    .await
    .while_doing(LOADING)?;
    Ok(found.into_iter().map(JobSeq::from).collect())
}

/// Connections whose jobs wait for their first attempt, in the order of their turns, with as many jobs
/// of each as its turns can come to.
async fn waiting(
    connection: &mut SqliteConnection,
    after: Option<ConnectionId>,
    wanted: usize,
) -> Result<Vec<(ConnectionId, Vec<JobSeq>)>, StoreError> {
    let after = after.map_or_else(String::new, |id| id.to_string());
    let mut order = connections_in_turn(connection, &after, wanted).await?;
    if !after.is_empty() && order.len() < wanted {
        let from_the_start = connections_in_turn(connection, "", wanted).await?;
        order.extend(from_the_start.into_iter().filter(|id| *id <= after));
        order.truncate(wanted);
    }
    if order.is_empty() {
        return Ok(Vec::new());
    }
    let each = wanted.div_ceil(order.len());
    let mut waiting = first_jobs(connection, &order, each).await?;
    let found: usize = waiting.iter().map(|(_, jobs)| jobs.len()).sum();
    // Where some have too few, the turns of the others come sooner.
    let longer: Vec<String> = waiting
        .iter()
        .filter(|(_, jobs)| jobs.len() == each)
        .map(|(id, _)| id.to_string())
        .collect();
    if found < wanted && !longer.is_empty() {
        let more = each.saturating_add(wanted.saturating_sub(found));
        for (id, jobs) in first_jobs(connection, &longer, more).await? {
            if let Some(known) = waiting.iter_mut().find(|(known, _)| *known == id) {
                known.1 = jobs;
            }
        }
    }
    Ok(waiting)
}

/// Each step goes to the next connection by the index, however many jobs the one before has.
async fn connections_in_turn(
    connection: &mut SqliteConnection,
    after: &str,
    most: usize,
) -> Result<Vec<String>, StoreError> {
    let limit = limit(most);
    let rows = sqlx::query!(
        r#"WITH RECURSIVE turn (connection_id) AS (
             SELECT min(connection_id) FROM jobs
             WHERE state = 'decided' AND attempts_made = 0 AND connection_id > ?1
             UNION ALL
             SELECT (SELECT min(jobs.connection_id) FROM jobs WHERE state = 'decided'
                     AND attempts_made = 0 AND jobs.connection_id > turn.connection_id)
             FROM turn WHERE turn.connection_id IS NOT NULL LIMIT ?2)
           SELECT connection_id AS "connection_id!: String" FROM turn
           WHERE connection_id IS NOT NULL"#,
        after,
        limit
    )
    .fetch_all(connection)
    .await
    .while_doing(LOADING)?;
    Ok(rows.into_iter().map(|row| row.connection_id).collect())
}

async fn first_jobs(
    connection: &mut SqliteConnection,
    order: &[String],
    each: usize,
) -> Result<Vec<(ConnectionId, Vec<JobSeq>)>, StoreError> {
    let (wanted, each) = (keys(order)?, limit(each));
    let rows = sqlx::query!(
        r#"WITH wanted (place, connection_id) AS (
             SELECT key, CAST(value AS TEXT) FROM json_each(?1))
           SELECT wanted.connection_id AS "connection_id!: String",
            (SELECT json_group_array(job_seq) FROM (
                SELECT job_seq FROM jobs WHERE state = 'decided' AND attempts_made = 0
                  AND jobs.connection_id = wanted.connection_id ORDER BY job_seq LIMIT ?2))
                AS "jobs!: String"
           FROM wanted ORDER BY place"#,
        wanted,
        each
    )
    .fetch_all(connection)
    .await
    .while_doing(LOADING)?;
    rows.into_iter()
        .map(|row| {
            let jobs: Vec<i64> = serde_json::from_str(&row.jobs).map_err(|error| {
                StoreError::Unreadable { table: "jobs", reason: error.to_string() }
            })?;
            let id = parse("jobs", &row.connection_id)?;
            Ok((id, jobs.into_iter().map(JobSeq::from).collect()))
        })
        .collect()
}

/// Whether more first attempts wait than these.
async fn are_there_more(
    connection: &mut SqliteConnection,
    taken: usize,
) -> Result<bool, StoreError> {
    let limit = limit(taken.saturating_add(1));
    let waiting = sqlx::query_scalar!(
        r#"SELECT count(*) AS "waiting!: i64" FROM (
            SELECT 1 FROM jobs WHERE state = 'decided' AND attempts_made = 0 LIMIT ?1)"#,
        limit
    )
    .fetch_one(connection)
    .await
    .while_doing(LOADING)?;
    Ok(usize::try_from(waiting).unwrap_or(usize::MAX) > taken)
}
