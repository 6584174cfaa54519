//! Records that OES holds as reserved and that have no job here: their messages never came. Each is
//! told, and taken in if that is asked for and possible.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{CompareError, Desk};
use crate::{
    domain::{
        adopt::{ADOPTED_QUEUE, NotAdoptable, adopt},
        amount::Total,
        decimals::Scales,
        difference::{Finding, FindingKind, ShownJob},
        ids::{ConnectionId, RecordId},
        message::RefusalCode,
        shown::{Listed, ShownRecord},
        sync::BookConnection,
        time::TimestampMs,
    },
    pipeline::record::{Intake, Recorded},
    writer::{Recording, WriterGone},
};

/// Records that are looked for in the book at a time.
const LOOKED_FOR_MAX: usize = 500;

/// What a sweep found.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Swept {
    /// Records that OES holds as reserved.
    pub reserved: usize,
    /// Records without a job that were not taken in.
    pub without_job: usize,
    /// How much they move, by currency, base units; those whose amount can be read.
    pub at_risk: BTreeMap<String, String>,
    /// Each record without a job.
    pub findings: Vec<Finding>,
}

impl Desk {
    /// Looks for records whose job never came, and takes them in if `take_in` says so.
    ///
    /// # Errors
    /// [`CompareError`].
    pub async fn sweep(&self, take_in: bool) -> Result<Swept, CompareError> {
        let _alone = self.at_work.lock().await;
        self.sweep_now(take_in).await
    }

    pub(super) async fn sweep_now(&self, take_in: bool) -> Result<Swept, CompareError> {
        let reserved = self.asker.reserved().await?;
        let count = reserved.len();
        // The book is read after OES: a job that came meanwhile is not missed.
        let now = self.clock.now();
        let old: Vec<Listed<ShownRecord>> =
            reserved.into_iter().filter(|listed| is_old(listed, now, self.sweep_age)).collect();
        let book = self.readers.connections_to_compare().await?;
        let mut swept = Swept {
            reserved: count,
            without_job: 0,
            at_risk: BTreeMap::new(),
            findings: Vec::new(),
        };
        let mut at_risk: BTreeMap<String, Total> = BTreeMap::new();
        let scales = self.scales().await?;
        for chunk in old.chunks(LOOKED_FOR_MAX) {
            let ids: Vec<RecordId> = chunk.iter().map(|listed| listed.id.into()).collect();
            let known: BTreeSet<RecordId> =
                self.readers.jobs_about(&ids).await?.into_keys().collect();
            let missing: Vec<RecordId> = ids.into_iter().filter(|id| !known.contains(id)).collect();
            if missing.is_empty() {
                continue;
            }
            let quarantined = self.readers.quarantined_about(&missing).await?;
            for listed in chunk.iter().filter(|listed| !known.contains(&listed.id.into())) {
                let id = RecordId::from(listed.id);
                let finding = match quarantined.get(&id) {
                    // What was refused because the record is another says nothing about the record.
                    Some(message) if message.code != RefusalCode::NotAsAtOes.as_str() => {
                        let note = format!(
                            "a message that names it is in quarantine as number {}: {}",
                            message.seq, message.code
                        );
                        finding(listed, FindingKind::Quarantined, note)
                    }
                    Some(_) | None => self.without_job(listed, (&book, &scales), take_in).await?,
                };
                if finding.kind == FindingKind::WithoutJob {
                    swept.without_job = swept.without_job.saturating_add(1);
                    add(&mut at_risk, listed, &scales);
                }
                swept.findings.push(finding);
            }
        }
        swept.at_risk =
            at_risk.into_iter().map(|(currency, total)| (currency, total.to_string())).collect();
        self.metrics.swept(self.clock.now(), swept.without_job, &swept.at_risk);
        Ok(swept)
    }

    async fn without_job(
        &self,
        listed: &Listed<ShownRecord>,
        (book, scales): (&[BookConnection], &Scales),
        take_in: bool,
    ) -> Result<Finding, CompareError> {
        let mut found = finding(listed, FindingKind::WithoutJob, String::new());
        let Ok(shown) = &listed.item else {
            found.note = listed.item.as_ref().err().cloned().unwrap_or_default();
            return Ok(found);
        };
        let connection = connection_of(book, shown.record.connection_id);
        found.note = match adopt(shown, connection, scales) {
            Ok(_) if !take_in => "can be taken in with --adopt".to_owned(),
            Ok(_) => match self.take_in(shown, (book, scales)).await? {
                Ok(()) => {
                    found.kind = FindingKind::Adopted;
                    "taken in".to_owned()
                }
                Err(reason) => format!("not taken in: {reason}"),
            },
            Err(reason) => format!("cannot be taken in: {reason}"),
        };
        Ok(found)
    }

    /// Takes a record in as the message that never came would have been, if OES still holds it as
    /// reserved.
    async fn take_in(
        &self,
        shown: &ShownRecord,
        (book, scales): (&[BookConnection], &Scales),
    ) -> Result<Result<(), String>, CompareError> {
        let id = shown.record.id;
        let adoption = match self.asker.record(id).await? {
            ShownJob::Found(now) => {
                adopt(&now, connection_of(book, now.record.connection_id), scales)
            }
            ShownJob::Absent => Err(NotAdoptable::NotReserved),
            ShownJob::Unreadable(reason) => Err(NotAdoptable::Unusable(reason)),
        };
        let adoption = match adoption {
            Ok(adoption) => adoption,
            Err(reason) => return Ok(Err(reason.to_string())),
        };
        let intake = Intake {
            terms: adoption.terms,
            raw: adoption.raw,
            queue: ADOPTED_QUEUE.to_owned(),
            book_sequence: None,
        };
        let recording = self.writer.record(intake).await?.await.map_err(|_| WriterGone)?;
        Ok(match recording {
            Recording::Recorded(Recorded::New(job)) => {
                tracing::warn!(record = %id, %job, "a record whose job never came was taken in");
                self.metrics.adopted();
                Ok(())
            }
            Recording::Recorded(Recorded::Repeated(_)) => Ok(()),
            Recording::Recorded(Recorded::Contradicts(job)) => {
                Err(format!("job {job} came meanwhile, and says otherwise"))
            }
            // What comes from OES's own record is not asked for that.
            Recording::Recorded(Recorded::RefusedBefore) => Err("it was refused before".to_owned()),
            Recording::Refused(reason) => Err(reason),
        })
    }
}

fn connection_of(
    book: &[BookConnection],
    id: ConnectionId,
) -> Option<&crate::domain::book::Connection> {
    book.iter().map(|known| &known.connection).find(|connection| connection.connection_id == id)
}

/// Whether a record has been reserved for so long; one that does not say since when has been.
fn is_old(listed: &Listed<ShownRecord>, now: TimestampMs, age: Duration) -> bool {
    let created_at = listed.item.as_ref().ok().and_then(|shown| shown.record.created_at);
    created_at.is_none_or(|created_at| created_at.after(age) <= now)
}

fn finding(listed: &Listed<ShownRecord>, kind: FindingKind, note: String) -> Finding {
    let shown = listed.item.as_ref().ok();
    Finding {
        kind,
        record_id: Some(listed.id.into()),
        connection_id: shown.map(|shown| shown.record.connection_id),
        currency: shown.map(|shown| shown.amount.currency.clone()),
        here: "no job".to_owned(),
        oes: shown.map_or_else(
            || "reserved".to_owned(),
            |shown| {
                let since = shown
                    .record
                    .created_at
                    .map_or_else(String::new, |created_at| format!(" since {created_at}"));
                format!(
                    "{} of {} {}, reserved{since}",
                    shown.record.job_type, shown.amount.quantity, shown.amount.currency
                )
            },
        ),
        note,
    }
}

fn add(at_risk: &mut BTreeMap<String, Total>, listed: &Listed<ShownRecord>, scales: &Scales) {
    let Ok(amount) =
        listed.item.as_ref().map_err(Clone::clone).and_then(|shown| shown.amount.read_by(scales))
    else {
        return;
    };
    let total = at_risk.entry(amount.currency().to_string()).or_default();
    // Records are too few for their sum not to fit.
    *total = total.plus(amount.quantity()).unwrap_or(*total);
}
