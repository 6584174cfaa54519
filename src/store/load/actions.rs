//! What operators said before.

use sqlx::SqliteConnection;

use super::{LOADING, keys};
use crate::{
    domain::{action::Proposal, ids::JobSeq, time::TimestampMs},
    store::{
        error::{StoreError, While as _, unreadable},
        rows::outcome_of,
        work::{Needs, Work},
    },
};

/// The last proposal about the end of each of these records.
pub(super) async fn load_proposals(
    connection: &mut SqliteConnection,
    work: &mut Work,
    needs: &Needs,
) -> Result<(), StoreError> {
    if needs.proposals.is_empty() {
        return Ok(());
    }
    let wanted = keys(&needs.proposals)?;
    let rows = sqlx::query!(
        r#"SELECT actions.job_seq AS "job_seq!: i64", who, actions.outcome AS "outcome: String", at_ms,
            expires_at_ms
           FROM json_each(?1) AS wanted CROSS JOIN jobs ON record_id = wanted.value
           CROSS JOIN actions ON actions.job_seq = jobs.job_seq
           WHERE actions.kind = 'propose_end' ORDER BY action_seq"#,
        wanted
    )
    .fetch_all(connection)
    .await
    .while_doing(LOADING)?;
    for row in rows {
        let (Some(outcome), Some(expires_at_ms)) = (row.outcome, row.expires_at_ms) else {
            return Err(unreadable("actions")(&"a proposal without an outcome or an end"));
        };
        let proposal = Proposal {
            who: row.who,
            outcome: outcome_of(&outcome)?,
            at: TimestampMs::from_millis(row.at_ms),
            expires_at: TimestampMs::from_millis(expires_at_ms),
        };
        // In their order, so that the last one stays.
        work.proposals.insert(JobSeq::from(row.job_seq), proposal);
    }
    Ok(())
}
