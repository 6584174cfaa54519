//! The exact bytes that are signed and sent.
//!
//! Source: OES reference, "Update Partner Allocations" and "Update Partner Deallocations". The
//! payload is the compact JSON of the request's other properties in the documented order. It is
//! built once; the signature covers those very bytes, and the body carries them as a string.

use std::fmt;

use serde::Serialize;

use super::{
    amount::Amount,
    decision::{Decision, Outcome},
    ids::{
        ClientId, ConnectionId, PartnersClientId, PartnersConnectionId, PartnersRecordId, RecordId,
    },
    job::{JobTerms, JobType},
    time::TimestampMs,
};

/// Bytes of randomness in a nonce. BitGo's own SDK uses 32 and no time; 26 are as far beyond guessing.
pub const NONCE_RANDOM_BYTES: usize = 26;

/// Bytes of a nonce that tell when it was made.
const NONCE_TIME_BYTES: usize = 6;

/// A value that belongs to one request and to no other.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct Nonce(String);

impl Nonce {
    /// A nonce from the time and strong randomness, as 64 lower-case hexadecimal characters. It is unique by its
    /// randomness; with the time before it, nonces that are made together stand together in the index that
    /// refuses a second one, which would otherwise touch a page of its own for each.
    #[must_use]
    pub fn new(at: TimestampMs, random: [u8; NONCE_RANDOM_BYTES]) -> Self {
        let [_, _, time @ ..] = at.as_millis().to_be_bytes();
        let time: [u8; NONCE_TIME_BYTES] = time;
        Self(hex::encode([time.as_slice(), random.as_slice()].concat()))
    }

    /// The nonce as sent.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A signature as OES takes it: 130 lower-case hexadecimal characters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Signature(String);

impl Signature {
    /// From the 65 bytes `[31 + recovery id] ‖ r ‖ s`.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 65]) -> Self {
        Self(hex::encode(bytes))
    }

    /// The signature as sent.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The fields of an update in the documented order: serde writes them as they stand here.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct UpdateFields<'a> {
    status: Outcome,
    #[serde(skip_serializing_if = "Option::is_none")]
    reject_reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    allocation_id: Option<RecordId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deallocation_id: Option<RecordId>,
    amount: &'a Amount,
    client_id: ClientId,
    connection_id: ConnectionId,
    partners_client_id: &'a PartnersClientId,
    partners_connection_id: &'a PartnersConnectionId,
    #[serde(skip_serializing_if = "Option::is_none")]
    partners_allocation_id: Option<&'a PartnersRecordId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    partners_deallocation_id: Option<&'a PartnersRecordId>,
    nonce: &'a Nonce,
}

/// One update of one record with one nonce, ready to be signed.
#[derive(Debug)]
pub struct Update {
    payload: String,
}

impl Update {
    /// Writes the payload that carries `decision` about `terms`.
    ///
    /// # Errors
    /// Never for these types; serde's signature has an error.
    pub fn new(
        terms: &JobTerms,
        decision: &Decision,
        nonce: &Nonce,
    ) -> Result<Self, serde_json::Error> {
        let (allocation, deallocation) = match terms.job_type {
            JobType::Allocation => (Some((terms.record_id, &terms.partners_record_id)), None),
            JobType::Deallocation => (None, Some((terms.record_id, &terms.partners_record_id))),
        };
        let fields = UpdateFields {
            status: decision.outcome(),
            reject_reason: decision.reject_reason(),
            allocation_id: allocation.map(|(id, _)| id),
            deallocation_id: deallocation.map(|(id, _)| id),
            amount: &terms.amount,
            client_id: terms.client_id,
            connection_id: terms.connection_id,
            partners_client_id: &terms.partners_client_id,
            partners_connection_id: &terms.partners_connection_id,
            partners_allocation_id: allocation.map(|(_, id)| id),
            partners_deallocation_id: deallocation.map(|(_, id)| id),
            nonce,
        };
        Ok(Self { payload: serde_json::to_string(&fields)? })
    }

    /// The text to sign.
    #[must_use]
    pub fn payload(&self) -> &str {
        &self.payload
    }

    /// The request body: the same properties, the payload and its signature.
    ///
    /// # Errors
    /// Never for these types; serde's signature has an error.
    pub fn into_body(self, signature: &Signature) -> Result<String, serde_json::Error> {
        // The properties are the payload's own bytes, so that the two cannot differ.
        let properties = self.payload.strip_suffix('}').unwrap_or(&self.payload);
        let payload = serde_json::to_string(&self.payload)?;
        let signature = serde_json::to_string(signature)?;
        Ok(format!(r#"{properties},"payload":{payload},"signature":{signature}}}"#))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::domain::{amount::Quantity, decision::RejectCode};

    fn terms(job_type: JobType) -> JobTerms {
        JobTerms {
            job_type,
            record_id: "0b4a3f3e-7d0a-4b5e-9a0e-3d1c5f2b7a10".parse().unwrap(),
            amount: Amount::positive("BTC".parse().unwrap(), Quantity::from(10_000_000)).unwrap(),
            client_id: "5d1f0e3a-2b6c-4f0d-8a37-1f0a3c9b2d11".parse().unwrap(),
            connection_id: "9e8d7c6b-5a49-4838-a716-0f1e2d3c4b5a".parse().unwrap(),
            partners_client_id: "client-001".parse().unwrap(),
            partners_connection_id: "conn-001".parse().unwrap(),
            partners_record_id: "alloc-001".parse().unwrap(),
        }
    }

    fn nonce() -> Nonce {
        Nonce::new(TimestampMs::from_millis(0xabab_abab_abab), [0xab; NONCE_RANDOM_BYTES])
    }

    #[test]
    fn a_cleared_allocation_is_written_in_the_documented_order() {
        let (terms, nonce) = (terms(JobType::Allocation), nonce());
        let update = Update::new(&terms, &Decision::Cleared, &nonce).unwrap();
        let expected = format!(
            concat!(
                r#"{{"status":"cleared","allocationId":"0b4a3f3e-7d0a-4b5e-9a0e-3d1c5f2b7a10","#,
                r#""amount":{{"currency":"BTC","quantity":"10000000"}},"#,
                r#""clientId":"5d1f0e3a-2b6c-4f0d-8a37-1f0a3c9b2d11","#,
                r#""connectionId":"9e8d7c6b-5a49-4838-a716-0f1e2d3c4b5a","#,
                r#""partnersClientId":"client-001","partnersConnectionId":"conn-001","#,
                r#""partnersAllocationId":"alloc-001","nonce":"{}"}}"#
            ),
            "ab".repeat(32)
        );
        assert_eq!(update.payload(), expected);
    }

    #[test]
    fn a_released_deallocation_has_its_reason_after_the_status() {
        let (terms, nonce) = (terms(JobType::Deallocation), nonce());
        let decision = Decision::released(RejectCode::InsufficientAvailable);
        let update = Update::new(&terms, &decision, &nonce).unwrap();
        assert!(update.payload().starts_with(concat!(
            r#"{"status":"released","#,
            r#""rejectReason":"The available balance does not cover the quantity.","#,
            r#""deallocationId":"0b4a3f3e-7d0a-4b5e-9a0e-3d1c5f2b7a10","amount""#
        )));
        assert!(update.payload().contains(r#""partnersDeallocationId":"alloc-001","nonce""#));
        assert!(!update.payload().contains("llocationId\":null"));
    }

    #[test]
    fn the_body_is_the_payload_s_properties_with_payload_and_signature() {
        let (mut terms, nonce) = (terms(JobType::Allocation), nonce());
        terms.partners_client_id = "客户 \"1\" \\ \u{2028}\u{1f511}\t/".parse().unwrap();
        let update = Update::new(&terms, &Decision::Cleared, &nonce).unwrap();
        let payload = update.payload().to_owned();
        let signature = Signature::from_bytes([0x1f; 65]);
        let mut body: Value = serde_json::from_str(&update.into_body(&signature).unwrap()).unwrap();
        let object = body.as_object_mut().unwrap();
        assert_eq!(object.remove("payload").unwrap(), Value::String(payload.clone()));
        assert_eq!(object.remove("signature").unwrap(), "1f".repeat(65));
        assert_eq!(serde_json::from_str::<Value>(&payload).unwrap(), body);
    }

    #[test]
    fn text_is_escaped_as_javascript_s_json_stringify_does() {
        let (mut terms, nonce) = (terms(JobType::Allocation), nonce());
        terms.partners_client_id =
            "\u{1}\u{8}\t\n\u{b}\u{c}\r\u{1f}\"\\/\u{7f}\u{2028}é".parse().unwrap();
        let update = Update::new(&terms, &Decision::Cleared, &nonce).unwrap();
        let escaped =
            "\"partnersClientId\":\"\\u0001\\b\\t\\n\\u000b\\f\\r\\u001f\\\"\\\\/\u{7f}\u{2028}é\"";
        assert!(update.payload().contains(escaped), "{}", update.payload());
    }
}
