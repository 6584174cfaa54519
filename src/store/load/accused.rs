//! What is needed where a read shows that a record is not what a job's message says.

use std::collections::BTreeSet;

use sha2::{Digest as _, Sha256};
use sqlx::SqliteConnection;

use super::{LOADING, keys};
use crate::{
    domain::{ids::RecordId, message::parse_job},
    store::{
        error::{StoreError, While as _},
        rows::{hash_of, parse},
        work::{Contender, ContentHashKey, Needs, Work},
    },
};

/// Most messages that get their turn when the one that had their record's id is refused.
const CONTENDERS_MAX: i64 = 16;

/// What was refused about these records before: the same message again is known.
pub(super) async fn load_refused(
    connection: &mut SqliteConnection,
    work: &mut Work,
    records: &BTreeSet<RecordId>,
) -> Result<(), StoreError> {
    if records.is_empty() {
        return Ok(());
    }
    let wanted = keys(records)?;
    let rows = sqlx::query!(
        "SELECT record_id, content_sha256 FROM jobs
         WHERE state = 'refused' AND record_id IN (SELECT value FROM json_each(?1))",
        wanted
    )
    .fetch_all(connection)
    .await
    .while_doing(LOADING)?;
    for row in rows {
        let hash = hash_of("jobs", &row.content_sha256)?;
        work.refused.insert((parse("jobs", &row.record_id)?, hash));
    }
    Ok(())
}

/// The messages of jobs that may be refused, and those that came after them about the same records.
/// Answers what must be looked for in the quarantine, for all of the batch.
pub(super) async fn load_accused(
    connection: &mut SqliteConnection,
    work: &mut Work,
    needs: &Needs,
) -> Result<BTreeSet<(String, ContentHashKey)>, StoreError> {
    let mut quarantined = needs.quarantined.clone();
    quarantined.extend(work.known_otherwise(needs));
    if needs.accused.is_empty() {
        return Ok(quarantined);
    }
    let wanted = keys(needs.accused.keys())?;
    let rows = sqlx::query!(
        r#"SELECT job_seq AS "job_seq!", raw FROM messages
           WHERE job_seq IN (SELECT value FROM json_each(?1))"#,
        wanted
    )
    .fetch_all(&mut *connection)
    .await
    .while_doing(LOADING)?;
    for row in rows {
        let seq = row.job_seq.into();
        if let Some(queue) = needs.accused.get(&seq) {
            let hash = ContentHashKey(Sha256::digest(row.raw.as_bytes()).into());
            quarantined.insert((queue.clone(), hash));
        }
        work.raw_messages.insert(seq, row.raw);
    }
    let records: Vec<RecordId> =
        (work.jobs.iter().filter(|(seq, _)| needs.accused.contains_key(seq)))
            .map(|(_, tracked)| tracked.job.terms.record_id)
            .collect();
    let wanted = keys(&records)?;
    load_refused(connection, work, &records.into_iter().collect()).await?;
    let rows = sqlx::query!(
        r#"SELECT record_id AS "record_id!", queue, sha256, bytes FROM quarantine
           WHERE record_id IN (SELECT value FROM json_each(?1)) AND code = 'content_differs'
           ORDER BY quarantine_seq LIMIT ?2"#,
        wanted,
        CONTENDERS_MAX
    )
    .fetch_all(connection)
    .await
    .while_doing(LOADING)?;
    for row in rows {
        let key = ContentHashKey::from(hash_of("quarantine", &row.sha256)?);
        quarantined.insert((row.queue.clone(), key));
        let record: RecordId = parse("quarantine", &row.record_id)?;
        let terms = parse_job(&row.bytes).ok().filter(|terms| terms.record_id == record);
        if let (Some(terms), Ok(raw)) = (terms, String::from_utf8(row.bytes)) {
            let contender = Contender { terms, raw, queue: row.queue };
            work.contenders.entry(record).or_default().push(contender);
        }
    }
    Ok(quarantined)
}
