//! The evidence for one record, taken from the book.

use serde_json::json;

use crate::{
    domain::{
        evidence::{Evidence, FORMAT},
        ids::RecordId,
        time::TimestampMs,
    },
    store::{Readers, StoreError},
};

/// Collects the evidence for one record; `None` if there is no job about it.
///
/// # Errors
/// [`StoreError`].
pub async fn evidence(
    readers: &Readers,
    id: RecordId,
    now: TimestampMs,
) -> Result<Option<Evidence>, StoreError> {
    let Some(sealed) = readers.sealed_record(id).await? else { return Ok(None) };
    let timeline = super::job(readers, id).await?.map_or_else(Default::default, |job| job.timeline);
    Ok(Some(Evidence {
        format: FORMAT.to_owned(),
        ledger: sealed.ledger,
        record_id: id,
        exported_at_ms: now,
        columns: sealed.columns,
        accounts: sealed.accounts,
        timeline: json!(timeline),
        seals: sealed.seals,
    }))
}
