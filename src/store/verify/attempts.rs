//! Attempts as they were signed, for whoever checks the signatures.

use crate::{
    domain::{decision::Outcome, ids::RecordId, job::JobType},
    store::{
        Readers, StoreError,
        error::While as _,
        rows::{outcome_of, parse},
    },
};

const READING: &str = "reading the signed attempts";

/// A signed attempt with the decision that it must carry.
#[derive(Clone, Debug)]
pub struct SignedAttempt {
    /// Its number.
    pub seq: i64,
    /// About which record.
    pub record_id: RecordId,
    /// Of which type.
    pub job_type: JobType,
    /// What was decided.
    pub outcome: Outcome,
    /// The reason for the client, if released.
    pub reject_reason: Option<String>,
    /// Its own nonce.
    pub nonce: String,
    /// The exact body.
    pub body: String,
    /// The signature that is kept beside it.
    pub signature: String,
    /// The key that it was made with.
    pub public_key: String,
}

impl Readers {
    /// The next attempts after number `after`, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn signed_attempts(
        &self,
        after: i64,
        limit: i64,
    ) -> Result<Vec<SignedAttempt>, StoreError> {
        let rows = sqlx::query!(
            r#"SELECT attempt_seq AS "attempt_seq!", record_id, type AS job_type,
                decisions.outcome, reject_reason, nonce, body, signature, public_key
               FROM attempts JOIN jobs USING (job_seq) JOIN decisions USING (job_seq)
               JOIN signing_keys USING (key_id)
               WHERE attempt_seq > ?1 ORDER BY attempt_seq LIMIT ?2"#,
            after,
            limit
        )
        .fetch_all(&self.pool)
        .await
        .while_doing(READING)?;
        rows.into_iter()
            .map(|row| {
                Ok(SignedAttempt {
                    seq: row.attempt_seq,
                    record_id: parse("jobs", &row.record_id)?,
                    job_type: parse("jobs", &row.job_type)?,
                    outcome: outcome_of(&row.outcome)?,
                    reject_reason: row.reject_reason,
                    nonce: row.nonce,
                    body: row.body,
                    signature: row.signature,
                    public_key: row.public_key,
                })
            })
            .collect()
    }

    /// Whether SQLite finds the file in order: what it finds wrong, for a reader.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn integrity_faults(&self) -> Result<Vec<String>, StoreError> {
        let found: Vec<String> = sqlx::query_scalar("PRAGMA integrity_check(20)")
            .fetch_all(&self.pool)
            .await
            .while_doing("checking the file")?;
        Ok(found.into_iter().filter(|line| line != "ok").collect())
    }
}
