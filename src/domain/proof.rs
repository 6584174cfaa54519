//! Whether what was sent is what was signed, and what was signed is what was decided.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{decision::Outcome, ids::RecordId, job::JobType};

/// What an attempt is said to be.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// About which record.
    pub record_id: RecordId,
    /// Of which type.
    pub job_type: JobType,
    /// What was decided.
    pub outcome: Outcome,
    /// The reason for the client, if released.
    pub reject_reason: Option<&'a str>,
    /// Its own nonce.
    pub nonce: &'a str,
    /// The signature that is kept beside the body.
    pub signature: &'a str,
}

/// A body as it was sent.
#[derive(Deserialize)]
struct SentBody {
    payload: String,
    signature: String,
    #[serde(flatten)]
    others: Map<String, Value>,
}

/// Compares a body with what is claimed about it, and answers what was signed: the payload's bytes.
///
/// # Errors
/// What does not agree, for a reader.
pub fn signed_payload(body: &str, claim: &Claim<'_>) -> Result<String, String> {
    let sent: SentBody =
        serde_json::from_str(body).map_err(|error| format!("its body is no update: {error}"))?;
    let signed: Map<String, Value> = serde_json::from_str(&sent.payload)
        .map_err(|error| format!("its payload is no JSON object: {error}"))?;
    if signed != sent.others {
        return Err("its body says something else than what is signed in it".to_owned());
    }
    if sent.signature != claim.signature {
        return Err("the signature in its body is another one".to_owned());
    }
    let id_field = match claim.job_type {
        JobType::Allocation => "allocationId",
        JobType::Deallocation => "deallocationId",
    };
    let record_id = claim.record_id.to_string();
    let expected = [
        ("status", Some(claim.outcome.as_str())),
        ("rejectReason", claim.reject_reason),
        (id_field, Some(record_id.as_str())),
        ("nonce", Some(claim.nonce)),
    ];
    for (field, value) in expected {
        if signed.get(field).and_then(Value::as_str) != value {
            return Err(format!("what is signed has another {field} than the book"));
        }
    }
    Ok(sent.payload)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ID: &str = "0b4a3f3e-7d0a-4b5e-9a0e-3d1c5f2b7a10";

    fn claim() -> Claim<'static> {
        Claim {
            record_id: ID.parse().unwrap(),
            job_type: JobType::Allocation,
            outcome: Outcome::Cleared,
            reject_reason: None,
            nonce: "n",
            signature: "s",
        }
    }

    fn body() -> Value {
        let payload = json!({"status": "cleared", "allocationId": ID, "nonce": "n"});
        let mut body = payload.clone();
        body["payload"] = payload.to_string().into();
        body["signature"] = "s".into();
        body
    }

    #[test]
    fn what_was_sent_is_what_was_signed_and_decided() {
        let payload = signed_payload(&body().to_string(), &claim()).unwrap();
        assert_eq!(body()["payload"], payload);
        let released = Claim { outcome: Outcome::Released, ..claim() };
        let with_reason = Claim { reject_reason: Some("no"), ..claim() };
        let other_type = Claim { job_type: JobType::Deallocation, ..claim() };
        let other_nonce = Claim { nonce: "m", ..claim() };
        let other_signature = Claim { signature: "t", ..claim() };
        for wrong in [released, with_reason, other_type, other_nonce, other_signature] {
            assert!(signed_payload(&body().to_string(), &wrong).is_err(), "{wrong:?}");
        }
        let mut beside = body();
        beside["status"] = "released".into();
        let mut extra = body();
        extra["amount"] = "5".into();
        for tampered in [beside.to_string(), extra.to_string(), "{}".into(), "x".into()] {
            assert!(signed_payload(&tampered, &claim()).is_err(), "{tampered}");
        }
    }
}
