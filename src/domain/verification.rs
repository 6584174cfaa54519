//! Whether a job's message is what OES's own record says. Pure: a read and the job's terms in, what
//! follows out.
//!
//! A message comes over a broker that others may write to; the record is OES's word. So a job is decided
//! only after the two agree. What cannot be compared is waited for and never taken for a forgery.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    decimals::{AmountForm, Scale},
    decision::Outcome,
    job::JobTerms,
    record::{OesRecord, Reading, is_younger_than},
    time::TimestampMs,
};

/// Longest reason of OES's that is kept, in bytes.
const REASON_BYTES_MAX: usize = 512;

/// How long the next read leaves others to gather, for each job that the last one was about.
const GATHER_PER_JOB: Duration = Duration::from_millis(5);
/// How long it leaves them at most.
const GATHER_MAX: Duration = Duration::from_millis(100);

/// Whether and how messages are compared with OES's records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verification {
    /// Whether nothing is decided before that.
    pub is_required: bool,
    /// How OES's reads give amounts.
    pub amounts: AmountForm,
}

impl Verification {
    /// Whether a job is read at OES before it is decided: because messages are not trusted, or because
    /// the book was restored and may have forgotten what it decided.
    #[must_use]
    pub const fn is_needed(self, restored_at: Option<TimestampMs>) -> bool {
        self.is_required || restored_at.is_some()
    }
}

/// How OES has ended a record that was not decided here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ended {
    /// Cleared or released.
    pub outcome: Outcome,
    /// Why, where OES says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What a read says about an undecided job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Agreement {
    /// The record is reserved and is what the message says.
    Agrees,
    /// It is what the message says, and OES has ended it.
    Ended(Ended),
    /// It is something else: in what, for a reader.
    Differs(String),
    /// OES does not show it.
    NotShown,
    /// It cannot be compared: why, for a reader.
    Unreadable(String),
    /// OES has had it since before a restore, so what was decided about it may be lost.
    Predates,
}

/// By what a read is judged.
#[derive(Clone, Copy, Debug)]
pub struct Measure {
    /// Whether the message is compared with the record.
    pub is_required: bool,
    /// How amounts in the message's currency are read.
    pub scale: Scale,
    /// When the last restore was accepted.
    pub restored_at: Option<TimestampMs>,
}

/// Compares a job's message with a read of its record.
#[must_use]
pub fn compare(terms: &JobTerms, reading: &Reading, measure: &Measure) -> Agreement {
    let record = match reading {
        Reading::Found(record) => record,
        Reading::Absent => return Agreement::NotShown,
        Reading::Unreadable(why) => return Agreement::Unreadable(why.clone()),
    };
    let amount = if measure.is_required {
        match differs(terms, record, measure.scale) {
            Ok(Some(what)) => return Agreement::Differs(what),
            Ok(None) => Ok(()),
            Err(why) => Err(why),
        }
    } else {
        Ok(())
    };
    if measure.restored_at.is_some_and(|restored_at| !is_younger_than(record, restored_at)) {
        return Agreement::Predates;
    }
    match (amount, record.status.outcome()) {
        (Err(why), _) => Agreement::Unreadable(why),
        // Nothing is taken over where messages are trusted: the update and its answer settle it.
        (Ok(()), Some(outcome)) if measure.is_required => {
            let reason = record.reason.as_deref().map(cut).filter(|reason| !reason.is_empty());
            Agreement::Ended(Ended { outcome, reason })
        }
        (Ok(()), Some(_) | None) => Agreement::Agrees,
    }
}

/// In what a record is not what the message says, if it can be told.
fn differs(terms: &JobTerms, record: &OesRecord, scale: Scale) -> Result<Option<String>, String> {
    if record.job_type != terms.job_type {
        return Ok(Some(format!(
            "OES has it as a {}, and the message as a {}",
            record.job_type, terms.job_type
        )));
    }
    if record.connection_id != terms.connection_id {
        return Ok(Some(format!(
            "OES has it on connection {}, and the message on {}",
            record.connection_id, terms.connection_id
        )));
    }
    let shown = record.amount.as_ref().ok_or("OES shows no amount that can be read")?;
    let is_same = |scale: Scale| shown.read(scale).map(|amount| amount == terms.amount);
    if is_same(scale)? {
        return Ok(None);
    }
    // The same digits mean two amounts; which, a setting says, and a wrong one must not condemn every
    // message. A currency without decimals in the book has no other form.
    if is_same(scale.otherwise()).unwrap_or(false) {
        return Err(format!(
            "OES shows {} {}, which is {} if it is read in the other form: check oes.amounts",
            shown.quantity, shown.currency, terms.amount
        ));
    }
    Ok(Some(format!(
        "OES has it with {} {}, and the message with {}",
        shown.quantity, shown.currency, terms.amount
    )))
}

/// Whether a record is plainly what a message says, so that nothing else needs to be looked at. Where
/// it is not, [`compare`] says what it is.
#[must_use]
pub fn agrees_at_sight(terms: &JobTerms, reading: &Reading) -> bool {
    match reading {
        Reading::Found(record) => {
            differs(terms, record, Scale::new(AmountForm::BaseUnits, None)) == Ok(None)
        }
        Reading::Absent | Reading::Unreadable(_) => true,
    }
}

fn cut(reason: &str) -> String {
    // NUL would end the text for SQLite's own tools.
    let reason = reason.replace('\0', "\u{fffd}");
    let kept = reason.get(..reason.floor_char_boundary(REASON_BYTES_MAX));
    kept.unwrap_or_default().trim().to_owned()
}

/// How long after a read about so many jobs the next one begins at the earliest. A job that comes alone
/// is read at once; the more come, the more share a read.
#[must_use]
pub fn gathers_for(jobs_in_last_read: usize) -> Duration {
    let jobs = u32::try_from(jobs_in_last_read).unwrap_or(u32::MAX).max(1);
    GATHER_PER_JOB.saturating_mul(jobs).min(GATHER_MAX)
}

#[cfg(test)]
mod tests;
