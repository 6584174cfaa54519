//! Which paths lead to the jobs that a filter means.

use std::collections::BTreeSet;

use sqlx::SqliteConnection;

use super::{
    JobFilter,
    order::By,
    path::{BEHIND_ALL, ENTRIES_LOOKED_AT_MAX, Path},
};
use crate::{
    domain::{
        decision::{Outcome, RejectCode},
        state::State,
        time::TimestampMs,
    },
    store::{StoreError, error::While as _, query::READING},
};

/// Most jobs whose ids begin with what is looked for. A longer beginning finds fewer.
const BEGINNINGS_MAX: i64 = 1_000;
/// Most connections, and most clients, whose ids begin with what is looked for.
const KEYS_MAX: i64 = 32;

/// The paths that together lead to every job that a filter means.
#[derive(Debug, Default)]
pub(super) struct Ways {
    pub(super) paths: Vec<Path>,
    /// Whether more ids begin with the text than are looked for.
    pub(super) is_cut: bool,
}

impl From<Vec<Path>> for Ways {
    fn from(paths: Vec<Path>) -> Self {
        Self { paths, is_cut: false }
    }
}

impl From<Path> for Ways {
    fn from(path: Path) -> Self {
        Self::from(vec![path])
    }
}

/// Whether OES has ended no job in this state: the index of open jobs has those that were refused, too.
fn has_no_end(state: &str) -> bool {
    ![State::Confirmed, State::Overruled].iter().any(|ended| ended.name() == state)
}

fn is_final(state: &str) -> bool {
    State::FINAL_NAMES.contains(&state)
}

/// Finds the paths for a filter, each to few other jobs.
pub(super) async fn ways(
    snapshot: &mut SqliteConnection,
    filter: &JobFilter,
    by: By,
) -> Result<Ways, StoreError> {
    let wants = |state: &str| filter.states.is_empty() || filter.states.contains(state);
    match by {
        By::OpenSince => Ok(Path::OpenByTime.into()),
        By::NextStep => {
            let open = State::NAMES.into_iter().filter(|state| !is_final(state) && wants(state));
            Ok(open.map(|state| Path::OpenByNextStep(state.to_owned())).collect::<Vec<_>>().into())
        }
        By::Change => {
            let mut paths = Vec::new();
            if State::NAMES.into_iter().any(|state| !is_final(state) && wants(state)) {
                paths.push(Path::OpenByTime);
            }
            if State::NAMES.into_iter().any(|state| !has_no_end(state) && wants(state)) {
                paths.push(Path::EndedByTime);
            }
            if wants(State::Refused.name()) {
                paths.push(Path::RefusedByTime);
            }
            Ok(paths.into())
        }
        By::Number => ways_by_number(snapshot, filter).await,
    }
}

async fn ways_by_number(
    snapshot: &mut SqliteConnection,
    filter: &JobFilter,
) -> Result<Ways, StoreError> {
    if let Some(text) = &filter.text {
        return ways_of_text(snapshot, text).await;
    }
    if filter.states.len() == 1 && filter.states.contains(State::Overruled.name()) {
        return Ok(Path::Overruled.into());
    }
    let codes = RejectCode::ALL.map(RejectCode::as_str);
    if let Some(code) = filter.reason.as_deref().filter(|reason| codes.contains(reason)) {
        return Ok(Path::Rejected(code.to_owned()).into());
    }
    let mut open = filter.states.clone();
    if filter.reason.is_some() && open.is_empty() {
        // Only open states have reasons, but for those of a release.
        open.extend(["unknown", "parked", "conflict"].map(str::to_owned));
    }
    let leads_there = !open.is_empty() && open.iter().all(|state| has_no_end(state));
    let by_state: Vec<Path> = open.iter().cloned().map(Path::OpenByState).collect();
    // Of two indexes, the one with fewer rows: a whole backlog may be open.
    if leads_there && count_in(snapshot, &open).await? <= ENTRIES_LOOKED_AT_MAX {
        return Ok(by_state.into());
    }
    if let Some(connection) = filter.connection_id {
        return Ok(Path::Connection(connection.to_string()).into());
    }
    if let Some(client) = filter.client_id {
        return Ok(Path::Client(client.to_string()).into());
    }
    if leads_there {
        return Ok(by_state.into());
    }
    if filter.outcome == Some(Outcome::Released) {
        return Ok(codes.map(|code| Path::Rejected(code.to_owned())).to_vec().into());
    }
    Ok(Path::All.into())
}

/// How many jobs there are in states.
async fn count_in(
    snapshot: &mut SqliteConnection,
    states: &BTreeSet<String>,
) -> Result<i64, StoreError> {
    let rows = sqlx::query!("SELECT state, jobs FROM job_counts")
        .fetch_all(snapshot)
        .await
        .while_doing(READING)?;
    let counted = rows.iter().filter(|row| states.contains(&row.state)).map(|row| row.jobs);
    Ok(counted.fold(0, i64::saturating_add))
}

/// Jobs of which an id begins with a text.
async fn ways_of_text(snapshot: &mut SqliteConnection, text: &str) -> Result<Ways, StoreError> {
    let end = format!("{text}{BEHIND_ALL}");
    let (low, low_end) = (text.to_lowercase(), end.to_lowercase());
    let records = sqlx::query_scalar!(
        r#"SELECT job_seq AS "job_seq!" FROM jobs
           WHERE state <> 'refused' AND record_id >= ?1 AND record_id < ?2 LIMIT ?3"#,
        low,
        low_end,
        BEGINNINGS_MAX
    )
    .fetch_all(&mut *snapshot)
    .await
    .while_doing(READING)?;
    let refused = sqlx::query_scalar!(
        r#"SELECT job_seq AS "job_seq!" FROM jobs INDEXED BY jobs_refused
           WHERE state = 'refused' AND record_id >= ?1 AND record_id < ?2 LIMIT ?3"#,
        low,
        low_end,
        BEGINNINGS_MAX
    )
    .fetch_all(&mut *snapshot)
    .await
    .while_doing(READING)?;
    let partners = sqlx::query_scalar!(
        r#"SELECT job_seq AS "job_seq!" FROM jobs INDEXED BY jobs_of_partners_record
           WHERE partners_record_id >= ?1 AND partners_record_id < ?2 LIMIT ?3"#,
        text,
        end,
        BEGINNINGS_MAX
    )
    .fetch_all(&mut *snapshot)
    .await
    .while_doing(READING)?;
    let most = usize::try_from(BEGINNINGS_MAX).unwrap_or(usize::MAX);
    let mut is_cut = [&records, &refused, &partners].iter().any(|found| found.len() >= most);
    let jobs: BTreeSet<i64> = records.into_iter().chain(refused).chain(partners).collect();
    let clients = clients_beginning(snapshot, &low).await?;
    let mut connections = connections_beginning(snapshot, &low).await?;
    connections.extend(connections_named(snapshot, text).await?);
    let most = usize::try_from(KEYS_MAX).unwrap_or(usize::MAX);
    is_cut |= clients.len() >= most || connections.len() >= most;
    let mut paths = vec![Path::Jobs(jobs.into_iter().collect())];
    paths.extend(connections.into_iter().map(Path::Connection));
    paths.extend(clients.into_iter().map(Path::Client));
    Ok(Ways { paths, is_cut })
}

/// Clients that have jobs: each is found by going on behind the one before.
async fn clients_beginning(
    snapshot: &mut SqliteConnection,
    text: &str,
) -> Result<BTreeSet<String>, StoreError> {
    let end = format!("{text}{BEHIND_ALL}");
    let found = sqlx::query_scalar!(
        r#"WITH RECURSIVE client (client_id) AS (
             SELECT min(client_id) FROM jobs WHERE client_id >= ?1 AND client_id < ?2
             UNION ALL
             SELECT (SELECT min(jobs.client_id) FROM jobs
                     WHERE jobs.client_id > client.client_id AND jobs.client_id < ?2)
             FROM client WHERE client.client_id IS NOT NULL LIMIT ?3)
           SELECT client_id AS "client_id!: String" FROM client WHERE client_id IS NOT NULL"#,
        text,
        end,
        KEYS_MAX
    )
    .fetch_all(snapshot)
    .await
    .while_doing(READING)?;
    Ok(found.into_iter().collect())
}

/// Connections that have jobs, likewise.
async fn connections_beginning(
    snapshot: &mut SqliteConnection,
    text: &str,
) -> Result<BTreeSet<String>, StoreError> {
    let end = format!("{text}{BEHIND_ALL}");
    let found = sqlx::query_scalar!(
        r#"WITH RECURSIVE link (connection_id) AS (
             SELECT min(connection_id) FROM jobs WHERE connection_id >= ?1 AND connection_id < ?2
             UNION ALL
             SELECT (SELECT min(jobs.connection_id) FROM jobs
                     WHERE jobs.connection_id > link.connection_id AND jobs.connection_id < ?2)
             FROM link WHERE link.connection_id IS NOT NULL LIMIT ?3)
           SELECT connection_id AS "connection_id!: String" FROM link WHERE connection_id IS NOT NULL"#,
        text,
        end,
        KEYS_MAX
    )
    .fetch_all(snapshot)
    .await
    .while_doing(READING)?;
    Ok(found.into_iter().collect())
}

/// Connections in the book by the exchange's name for them or for their client.
async fn connections_named(
    snapshot: &mut SqliteConnection,
    text: &str,
) -> Result<Vec<String>, StoreError> {
    let end = format!("{text}{BEHIND_ALL}");
    sqlx::query_scalar!(
        r#"SELECT connection_id AS "connection_id!" FROM connections
           WHERE partners_client_id >= ?1 AND partners_client_id < ?2
           UNION
           SELECT connection_id FROM connections
           WHERE partners_connection_id >= ?1 AND partners_connection_id < ?2 LIMIT ?3"#,
        text,
        end,
        KEYS_MAX
    )
    .fetch_all(snapshot)
    .await
    .while_doing(READING)
}

/// The numbers between which the jobs are that were taken in between two times. Numbers are given as
/// jobs arrive, by a clock that does not go back while a daemon runs, so they are found by halving.
pub(super) async fn arrived(
    snapshot: &mut SqliteConnection,
    filter: &JobFilter,
) -> Result<(i64, i64), StoreError> {
    let last = sqlx::query_scalar!(r#"SELECT coalesce(max(job_seq), 0) AS "last!: i64" FROM jobs"#)
        .fetch_one(&mut *snapshot)
        .await
        .while_doing(READING)?;
    let first = match filter.received_since {
        None => 1,
        Some(since) => first_after(snapshot, last, |at| at >= since).await?,
    };
    let last = match filter.received_until {
        None => last,
        Some(until) => first_after(snapshot, last, |at| at > until).await?.saturating_sub(1),
    };
    Ok((first, last))
}

/// The first number from which on jobs were taken in late enough.
async fn first_after(
    snapshot: &mut SqliteConnection,
    last: i64,
    is_late: impl Fn(TimestampMs) -> bool,
) -> Result<i64, StoreError> {
    let (mut early, mut late) = (0_i64, last.saturating_add(1));
    while late.saturating_sub(early) > 1 {
        let middle = early.midpoint(late);
        let at = sqlx::query_scalar!(
            "SELECT received_at_ms FROM jobs WHERE job_seq >= ?1 ORDER BY job_seq LIMIT 1",
            middle
        )
        .fetch_optional(&mut *snapshot)
        .await
        .while_doing(READING)?;
        if at.map(TimestampMs::from_millis).is_none_or(&is_late) {
            late = middle;
        } else {
            early = middle;
        }
    }
    Ok(late)
}
