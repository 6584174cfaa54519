//! Reading records back.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::{Answer, NoAnswer, OesClient, Operation, is_ok};
use crate::domain::{
    ids::RecordId,
    record::{OesRecord, Reading},
    time::TimestampMs,
};

/// Why a read tells nothing, by what to do about it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReadError {
    /// 401 or 403: stop, and try one read per back-off.
    #[error("OES refused the token for reading (status {0})")]
    TokenRefused(u16),
    /// 429: pause.
    #[error("OES limits the rate of requests")]
    RateLimited {
        /// When OES asked to be left alone until.
        retry_at: Option<TimestampMs>,
    },
    /// Try again later.
    #[error("{0}")]
    Failed(String),
}

impl From<NoAnswer> for ReadError {
    fn from(no_answer: NoAnswer) -> Self {
        Self::Failed(no_answer.to_string())
    }
}

#[derive(Deserialize)]
struct OneRecord {
    allocation: Box<RawValue>,
}

#[derive(Deserialize)]
struct OnlyId {
    id: Uuid,
}

#[derive(Deserialize)]
struct ManyRecords {
    // Each is read on its own: one that this program cannot read must not hide the others.
    allocations: Vec<Box<RawValue>>,
}

impl OesClient {
    /// Reads one record of either type.
    ///
    /// # Errors
    /// [`ReadError`] when the answer tells nothing.
    pub async fn read_record(&self, id: RecordId) -> Result<Reading, ReadError> {
        let url = self.route(&["allocations", &id.to_string()]);
        let answer = self.request(Operation::Read, url, None).await?;
        if answer.status == 404 {
            return Ok(Reading::Absent);
        }
        let OneRecord { allocation } = parse(&answer)?;
        match reading(&allocation) {
            Some((shown, reading)) if shown == id => Ok(reading),
            Some((shown, _)) => {
                Err(ReadError::Failed(format!("OES answered with record {shown} instead")))
            }
            None => Err(ReadError::Failed("OES answered with a record without an id".to_owned())),
        }
    }

    /// Reads many records with one request. Records that are missing from the answer may still
    /// exist: the default page size is not documented, so an absence is for [`Self::read_record`].
    ///
    /// # Errors
    /// [`ReadError`] when the answer tells nothing.
    pub async fn read_records(
        &self,
        ids: &[RecordId],
    ) -> Result<HashMap<RecordId, Reading>, ReadError> {
        let list = ids.iter().map(RecordId::to_string).collect::<Vec<_>>().join(",");
        let mut url = self.route(&["allocations"]);
        url.query_pairs_mut()
            .append_pair("allocationIds", &list)
            .append_pair("pageNumber", "0")
            .append_pair("pageSize", &ids.len().to_string());
        let answer = self.request(Operation::List, url, None).await?;
        let ManyRecords { allocations } = parse(&answer)?;
        Ok(allocations.iter().filter_map(|raw| reading(raw)).collect())
    }

    /// Asks for one reserved record, to see that OES answers and takes the token.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn probe(&self) -> Result<(), ReadError> {
        let mut url = self.route(&["allocations"]);
        url.query_pairs_mut()
            .append_pair("statuses", "reserved")
            .append_pair("pageNumber", "0")
            .append_pair("pageSize", "1");
        let answer = self.request(Operation::List, url, None).await?;
        parse::<ManyRecords>(&answer).map(drop)
    }
}

/// A record, or why it cannot be read; nothing if not even its id can.
fn reading(raw: &RawValue) -> Option<(RecordId, Reading)> {
    let OnlyId { id } = serde_json::from_str(raw.get()).ok()?;
    let reading = match serde_json::from_str::<OesRecord>(raw.get()) {
        Ok(record) => Reading::Found(record),
        Err(error) => Reading::Unreadable(error.to_string()),
    };
    Some((id.into(), reading))
}

pub(super) fn parse<'a, T: Deserialize<'a>>(answer: &'a Answer) -> Result<T, ReadError> {
    match answer.status {
        401 | 403 => Err(ReadError::TokenRefused(answer.status)),
        429 => Err(ReadError::RateLimited { retry_at: answer.retry_at }),
        status if !is_ok(status) => {
            Err(ReadError::Failed(format!("OES answered a read with status {status}")))
        }
        _ => {
            let body = answer.body.as_deref().ok_or_else(|| {
                ReadError::Failed("OES's answer was cut off or too large".to_owned())
            })?;
            serde_json::from_slice(body).map_err(|error| {
                ReadError::Failed(format!("OES's answer is not as documented: {error}"))
            })
        }
    }
}
