//! The evidence for one record, for somebody who does not have the book: the sealed rows that concern the
//! record, as they were written down, with hashes in the place of all others.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::{
    decision::Outcome,
    ids::RecordId,
    job::JobType,
    journal::{Hash32, Kind, Leaves, Seal, SealedRows},
    proof::{self, Claim},
    time::TimestampMs,
};

/// What such a file is called inside.
pub const FORMAT: &str = "settled-evidence-1";

/// A seal, with those of its rows that concern the record.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SealEvidence {
    /// Its place in the chain.
    pub commit: i64,
    /// When the rows were committed.
    pub sealed_at_ms: TimestampMs,
    /// How the rows are written down.
    pub form: u32,
    /// Which rows it seals: the exact text.
    pub sealed_rows: String,
    /// The link before it.
    pub previous: Hash32,
    /// The hash over all leaves.
    pub digest: Hash32,
    /// The link itself.
    pub chain: Hash32,
    /// A hash for each row.
    pub leaves: Leaves,
    /// The rows that concern the record, by kind and by their place among the leaves.
    pub rows: BTreeMap<Kind, BTreeMap<usize, String>>,
}

/// Everything that proves what was said about one record.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Evidence {
    /// [`FORMAT`].
    pub format: String,
    /// The book that it is from.
    pub ledger: Uuid,
    /// The record.
    pub record_id: RecordId,
    /// When it was taken from the book.
    pub exported_at_ms: TimestampMs,
    /// What the members of a row are, in their order, by kind.
    pub columns: BTreeMap<Kind, Vec<String>>,
    /// The accounts that movements name, for a reader; the book seals them, this file does not.
    pub accounts: BTreeMap<i64, String>,
    /// What happened, for a reader. What is proved is in the seals.
    pub timeline: Value,
    /// The seals, in their order.
    pub seals: Vec<SealEvidence>,
}

/// A signature in the evidence that has still to be checked against the key that is said to have made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignatureClaim {
    /// The attempt's number in the book.
    pub attempt: i64,
    /// The bytes that were signed.
    pub payload: String,
    /// The signature.
    pub signature: String,
    /// The key.
    pub public_key: String,
}

/// What consistent evidence says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// What was decided.
    pub decided: Option<Outcome>,
    /// How OES ended it.
    pub ended: Option<Outcome>,
    /// Rows that are proved by their seals.
    pub rows: usize,
    /// The first and the last seal.
    pub seals: Option<(i64, i64)>,
    /// Signatures to check.
    pub signatures: Vec<SignatureClaim>,
}

type Row = Map<String, Value>;

impl Evidence {
    /// Checks that the rows are those that were sealed and do not contradict each other.
    ///
    /// # Errors
    /// The first thing that is wrong, for a reader.
    pub fn check(&self) -> Result<Findings, String> {
        if self.format != FORMAT {
            return Err(format!("the format is {:?}, and {FORMAT} is known", self.format));
        }
        let mut rows: BTreeMap<Kind, Vec<Row>> = BTreeMap::new();
        for seal in &self.seals {
            let at = |fault: String| format!("seal {}: {fault}", seal.commit);
            for (kind, line) in seal.proved_rows().map_err(at)? {
                rows.entry(kind).or_default().push(self.row(kind, line).map_err(at)?);
            }
        }
        let of = |kind: Kind| rows.get(&kind).map_or(&[][..], Vec::as_slice);
        let [job] = of(Kind::Jobs) else { return Err("it has not exactly one job".to_owned()) };
        if text(job, "record_id")? != self.record_id.to_string() {
            return Err("its job is about another record".to_owned());
        }
        let decisions = of(Kind::Decisions);
        if decisions.len() > 1 {
            return Err("it has two decisions".to_owned());
        }
        let decided = decisions.first().map(|row| outcome(row, "outcome")).transpose()?;
        let ended = of(Kind::Endings).first().map(ending).transpose()?.flatten();
        let signatures = of(Kind::Attempts)
            .iter()
            .map(|attempt| {
                let decision = decisions.first().ok_or("it has an attempt and no decision")?;
                self.signature(job, decision, attempt, of(Kind::SigningKeys))
            })
            .collect::<Result<Vec<_>, String>>()?;
        let commits = || self.seals.iter().map(|seal| seal.commit);
        Ok(Findings {
            decided,
            ended,
            rows: rows.values().map(Vec::len).sum(),
            seals: commits().min().zip(commits().max()),
            signatures,
        })
    }

    /// A row with the names of its members.
    fn row(&self, kind: Kind, line: &str) -> Result<Row, String> {
        let values: Vec<Value> = serde_json::from_str(line)
            .map_err(|error| format!("a row of {} cannot be read: {error}", kind.as_str()))?;
        let names = self.columns.get(&kind).map_or(&[][..], Vec::as_slice);
        if names.len() != values.len() {
            return Err(format!("the columns of {} do not fit its rows", kind.as_str()));
        }
        Ok(names.iter().cloned().zip(values).collect())
    }

    fn signature(
        &self,
        job: &Row,
        decision: &Row,
        attempt: &Row,
        keys: &[Row],
    ) -> Result<SignatureClaim, String> {
        let job_type: JobType =
            text(job, "type")?.parse().map_err(|_| "the job's type is not known".to_owned())?;
        let signature = text(attempt, "signature")?;
        let claim = Claim {
            record_id: self.record_id,
            job_type,
            outcome: outcome(decision, "outcome")?,
            reject_reason: decision.get("reject_reason").and_then(Value::as_str),
            nonce: text(attempt, "nonce")?,
            signature,
        };
        let number = attempt.get("attempt_seq").and_then(Value::as_i64).unwrap_or(0);
        let payload = proof::signed_payload(text(attempt, "body")?, &claim)
            .map_err(|fault| format!("attempt {number}: {fault}"))?;
        let key = keys
            .iter()
            .find(|key| key.get("key_id") == attempt.get("key_id"))
            .ok_or_else(|| format!("attempt {number}: its key is missing"))?;
        Ok(SignatureClaim {
            attempt: number,
            payload,
            signature: signature.to_owned(),
            public_key: text(key, "public_key")?.to_owned(),
        })
    }
}

impl SealEvidence {
    /// The rows that are shown, once they are known to be those that were sealed.
    fn proved_rows(&self) -> Result<Vec<(Kind, &str)>, String> {
        let rows: SealedRows = serde_json::from_str(&self.sealed_rows)
            .map_err(|error| format!("its list of rows cannot be read: {error}"))?;
        for kind in Kind::ALL {
            if u64::try_from(self.leaves.of(kind).len()) != Ok(rows.count(kind)) {
                return Err(format!("it has not as many leaves of {} as rows", kind.as_str()));
            }
        }
        if self.leaves.digest() != self.digest {
            return Err("its leaves do not make its digest".to_owned());
        }
        let seal = Seal {
            commit: self.commit,
            sealed_at_ms: self.sealed_at_ms,
            form: self.form,
            rows,
            digest: self.digest,
            chain: self.chain,
        };
        if !seal.follows(self.previous, &self.sealed_rows) {
            return Err("it does not follow from the link before it".to_owned());
        }
        let mut proved = Vec::new();
        for (kind, lines) in &self.rows {
            for (place, line) in lines {
                if self.leaves.of(*kind).get(*place) != Some(&Hash32::of(line.as_bytes())) {
                    return Err(format!("a row of {} is not what was sealed", kind.as_str()));
                }
                proved.push((*kind, line.as_str()));
            }
        }
        Ok(proved)
    }
}

fn text<'a>(row: &'a Row, column: &str) -> Result<&'a str, String> {
    row.get(column).and_then(Value::as_str).ok_or_else(|| format!("a row has no {column}"))
}

/// How OES ended the record; a job that was refused ended without that.
fn ending(row: &Row) -> Result<Option<Outcome>, String> {
    match row.get("final_outcome") {
        Some(Value::Null) if text(row, "state")? == "refused" => Ok(None),
        Some(_) | None => outcome(row, "final_outcome").map(Some),
    }
}

fn outcome(row: &Row, column: &str) -> Result<Outcome, String> {
    match text(row, column)? {
        "cleared" => Ok(Outcome::Cleared),
        "released" => Ok(Outcome::Released),
        other => Err(format!("{other:?} is no outcome")),
    }
}

#[cfg(test)]
mod tests;
