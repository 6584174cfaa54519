//! What can be switched: everything that the reference leaves open, and the size of things.
//!
//! A worker must be right whichever way these turn out, so its tests run both. The defaults are the
//! strict side.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What is done with a request that may be harmless.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Stance {
    /// It is refused.
    Refuse,
    /// It is answered as the first one was.
    Accept,
}

/// The status that refuses an update of a record that is final already, with the same outcome. One
/// with the other outcome is always refused with 409.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FinalRefusal {
    /// 409.
    Conflict,
    /// 422.
    Unprocessable,
}

/// The status that refuses a nonce that was seen before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum NonceRefusal {
    /// 409.
    Conflict,
    /// 400.
    BadRequest,
}

/// What becomes of the nonce of a request that ended in a 5xx.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum NonceAfterError {
    /// It is used up.
    Consumed,
    /// It can be used again.
    Free,
}

/// Whether the order of keys in a payload matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum KeyOrder {
    /// They must stand in the documented order.
    Documented,
    /// Any order will do.
    Any,
}

/// Whether it matters who has signed an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Signatures {
    /// It must be a registered key, over these very bytes.
    Checked,
    /// Nobody looks: for load tests, where checking would cost more than everything else here.
    Unchecked,
}

/// How amounts are written in what the partner reads; the reference has both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ReadAmounts {
    /// Whole base units.
    BaseUnits,
    /// Decimals.
    Decimals,
}

/// Whether a reserved record shows its id in the partner's system. The partner's edge gave that id with
/// its answer, and the reference only says that it may be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ReservedPartnerId {
    /// It does.
    Shown,
    /// It shows it once an update was applied.
    Absent,
}

/// How the partner of the sandbox settles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Settlement {
    /// Records are reserved until the partner sends an update.
    Async,
    /// Records are cleared at once, without the partner.
    Sync,
}

/// Whether and how an answer says when to try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RetryAfter {
    /// It does not.
    Absent,
    /// As a number of seconds.
    Seconds,
    /// As an HTTP date.
    HttpDate,
}

/// How many requests each token may make.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RateLimit {
    /// Requests in any window.
    pub requests: u32,
    /// The length of a window.
    pub window_ms: u64,
}

/// All switches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Rules {
    /// An update that repeats an earlier, applied one byte for byte.
    pub identical_repeat: Stance,
    /// An update with a fresh nonce that repeats the outcome of a record that is final already.
    pub final_repeat: Stance,
    /// With which status such an update is refused.
    pub final_refusal: FinalRefusal,
    /// With which status a repeated nonce is refused.
    pub nonce_refusal: NonceRefusal,
    /// What becomes of the nonce of an update that ended in a 5xx.
    pub nonce_after_error: NonceAfterError,
    /// Whether the order of keys in a payload matters.
    pub key_order: KeyOrder,
    /// Whether it matters who has signed an update.
    pub signatures: Signatures,
    /// How amounts are written in what the partner reads.
    pub read_amounts: ReadAmounts,
    /// Whether the partner sees its own id of a reserved record.
    pub reserved_partner_id: ReservedPartnerId,
    /// How the partner settles.
    pub settlement: Settlement,
    /// How many requests each token may make; `null` for as many as it likes.
    pub rate_limit: Option<RateLimit>,
    /// Whether a 429 of the rate limit says when to try again.
    pub retry_after: RetryAfter,
    /// Records in a page when the request does not say. Small, so that clients that rely on it are
    /// caught.
    pub page_size_default: usize,
    /// Most records in a page, whatever the request says.
    pub page_size_max: usize,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            identical_repeat: Stance::Refuse,
            final_repeat: Stance::Refuse,
            final_refusal: FinalRefusal::Conflict,
            nonce_refusal: NonceRefusal::Conflict,
            nonce_after_error: NonceAfterError::Consumed,
            key_order: KeyOrder::Documented,
            signatures: Signatures::Checked,
            read_amounts: ReadAmounts::BaseUnits,
            reserved_partner_id: ReservedPartnerId::Absent,
            settlement: Settlement::Async,
            // The platform's default, as documented.
            rate_limit: Some(RateLimit { requests: 360, window_ms: 60_000 }),
            retry_after: RetryAfter::Absent,
            page_size_default: 25,
            page_size_max: 500,
        }
    }
}

/// Why rules cannot be set.
#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    /// Not `name=value`.
    #[error("{0:?} is not of the form name=value, e.g. finalRepeat=accept")]
    NoPair(String),
    /// A name or value that no rule has.
    #[error("the rules cannot be set: {0}")]
    Unknown(#[from] serde_json::Error),
}

impl Rules {
    /// These rules with some of them changed, by the names that they have in JSON.
    ///
    /// # Errors
    /// [`RulesError::Unknown`].
    pub fn changed(self, changes: Map<String, Value>) -> Result<Self, RulesError> {
        let mut rules = serde_json::to_value(self)?;
        if let Some(fields) = rules.as_object_mut() {
            fields.extend(changes);
        }
        Ok(serde_json::from_value(rules)?)
    }

    /// These rules with some changed by pairs `name=value` from a command line.
    ///
    /// # Errors
    /// [`RulesError`].
    pub fn changed_by_pairs(self, pairs: &[String]) -> Result<Self, RulesError> {
        let mut changes = Map::new();
        for pair in pairs {
            let (name, value) =
                pair.split_once('=').ok_or_else(|| RulesError::NoPair(pair.clone()))?;
            // Words stand for themselves; numbers, null and objects are JSON.
            let value = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
            changes.insert(name.to_owned(), value);
        }
        self.changed(changes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_change_the_rules_they_name_and_no_others() {
        let pairs = ["finalRepeat=accept", "pageSizeDefault=3", "rateLimit=null", "keyOrder=any"];
        let changed = Rules::default().changed_by_pairs(&pairs.map(str::to_owned)).unwrap();
        let expected = Rules {
            final_repeat: Stance::Accept,
            page_size_default: 3,
            rate_limit: None,
            key_order: KeyOrder::Any,
            ..Rules::default()
        };
        assert_eq!(changed, expected);
    }

    #[test]
    fn a_rule_that_is_not_there_is_refused() {
        for pair in ["finalRepeet=accept", "finalRepeat=perhaps", "finalRepeat"] {
            assert!(Rules::default().changed_by_pairs(&[pair.to_owned()]).is_err());
        }
    }
}
