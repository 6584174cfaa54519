//! Signed request bodies: their shape, their payload, and who signed it.
//!
//! This is written from the reference alone and shares nothing with what the worker builds its
//! payloads with, so that a fault there is found here and not mirrored.

use super::{
    answer::Refusal,
    members::{Members, is_compact, say_the_same},
    rules::KeyOrder,
    units::Units,
};
use crate::{domain::ids::RecordId, signer};

/// Hexadecimal characters of a signature.
const SIGNATURE_CHARS: usize = 130;

/// Longest text in a field, in bytes.
const TEXT_BYTES_MAX: usize = 4_096;

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A UUID, lower-case and hyphenated.
    Uuid,
    /// Text that is not empty.
    Text,
    /// `{currency, quantity}`.
    Amount,
    /// `cleared` or `released`.
    Outcome,
    /// The text that was signed; only the body's limit bounds it.
    Payload,
}

/// A field of a body.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) required: bool,
}

impl Field {
    pub(super) const fn required(name: &'static str, kind: Kind) -> Self {
        Self { name, kind, required: true }
    }

    pub(super) const fn optional(name: &'static str, kind: Kind) -> Self {
        Self { name, kind, required: false }
    }
}

/// The fields that say what was signed; every signed body ends with them.
const PROOF: [Field; 2] =
    [Field::required("payload", Kind::Payload), Field::required("signature", Kind::Text)];

/// A body whose fields are there and of their kinds.
#[derive(Debug)]
pub(super) struct Body {
    members: Members,
    payload: String,
    signature: String,
}

fn bad_field(text: String) -> Refusal {
    Refusal::new(400, "InvalidRequest", text)
}

impl Body {
    /// Reads a body: JSON, no other fields than these, those that are required, each of its kind.
    pub(super) fn read(bytes: &[u8], fields: &[Field]) -> Result<Self, Refusal> {
        let text = std::str::from_utf8(bytes)
            .map_err(|_| bad_field("the body is not UTF-8".to_owned()))?;
        let members = Members::parse(text)
            .map_err(|error| bad_field(format!("the body is not a JSON object: {error}")))?;
        let known: Vec<&Field> = fields.iter().chain(&PROOF).collect();
        for name in members.names() {
            if !known.iter().any(|field| field.name == name) {
                return Err(bad_field(format!("{name} is not a field of this request")));
            }
        }
        for field in known {
            match members.get(field.name) {
                Some(_) => check_kind(&members, *field)?,
                None if field.required => {
                    return Err(bad_field(format!("{} is missing", field.name)));
                }
                None => {}
            }
        }
        let proof =
            |name| members.text(name).ok_or_else(|| bad_field(format!("{name} is missing")));
        Ok(Self { payload: proof("payload")?, signature: proof("signature")?, members })
    }

    /// A text field; empty if it is not there.
    pub(super) fn text(&self, name: &str) -> String {
        self.members.text(name).unwrap_or_default()
    }

    /// A text field that may be absent.
    pub(super) fn optional(&self, name: &str) -> Option<String> {
        self.members.text(name)
    }

    /// Currency and quantity of the amount.
    pub(super) fn amount(&self) -> (String, String) {
        let part = |name| self.members.object("amount")?.text(name);
        (part("currency").unwrap_or_default(), part("quantity").unwrap_or_default())
    }

    /// Checks that the payload says what the body and the path say, and nothing else: compact JSON
    /// with exactly the documented keys. `documented` are the names in their order; those that the
    /// body leaves out are left out. `path` are the members whose values come from the path.
    pub(super) fn check_payload(
        &self,
        documented: &[&str],
        path: &[(&str, &str)],
        order: KeyOrder,
    ) -> Result<(), Refusal> {
        let bad = |text: String| Refusal::new(400, "InvalidPayload", text);
        let payload = Members::parse(&self.payload)
            .map_err(|error| bad(format!("payload is not a JSON object: {error}")))?;
        if !is_compact(&self.payload) {
            return Err(bad("payload is not compact: it has white space".to_owned()));
        }
        let in_path = |name: &str| path.iter().any(|(key, _)| *key == name);
        let expected: Vec<&str> = documented
            .iter()
            .copied()
            .filter(|name| in_path(name) || self.members.get(name).is_some())
            .collect();
        check_names(&payload, &expected, order)
            .map_err(|text| bad(format!("payload has {text}")))?;
        for name in expected {
            let stands = payload.get(name);
            let same = match path.iter().find(|(key, _)| *key == name) {
                Some((_, value)) => payload.text(name).as_deref() == Some(*value),
                None => stands
                    .zip(self.members.get(name))
                    .is_some_and(|(payload, body)| say_the_same(payload, body)),
            };
            if !same {
                return Err(bad(format!("payload and request differ in {name}")));
            }
        }
        if let Some(amount) = payload.object("amount") {
            check_names(&amount, &["currency", "quantity"], order)
                .map_err(|text| bad(format!("payload's amount has {text}")))?;
        }
        Ok(())
    }

    /// The public key that signed the payload. A signature that is malformed, or by nobody, is
    /// refused with 400.
    pub(super) fn signer(&self) -> Result<String, Refusal> {
        let is_well_formed = self.signature.len() == SIGNATURE_CHARS
            && self.signature.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if !is_well_formed {
            return Err(Refusal::new(
                400,
                "InvalidSignature",
                format!("signature is not {SIGNATURE_CHARS} lower-case hexadecimal characters"),
            ));
        }
        signer::recover(self.payload.as_bytes(), &self.signature).ok_or_else(|| {
            Refusal::new(400, "InvalidSignature", "signature is not one over payload".to_owned())
        })
    }
}

/// The refusal of a signature by a key that is not registered: 400, as for a malformed one, because
/// over a payload that was changed on the way a signature is by a key that nobody has.
pub(super) fn unknown_signer() -> Refusal {
    Refusal::new(
        400,
        "InvalidSignature",
        "signature is not by a registered key over payload".to_owned(),
    )
}

fn check_names(members: &Members, expected: &[&str], order: KeyOrder) -> Result<(), String> {
    let mut found: Vec<&str> = members.names().collect();
    let mut wanted = expected.to_vec();
    match order {
        KeyOrder::Documented => {}
        KeyOrder::Any => {
            found.sort_unstable();
            wanted.sort_unstable();
        }
    }
    if found == wanted {
        Ok(())
    } else {
        Err(format!("the keys {}, and needs {}", found.join(", "), wanted.join(", ")))
    }
}

fn check_kind(members: &Members, field: Field) -> Result<(), Refusal> {
    let name = field.name;
    if field.kind == Kind::Amount {
        return check_amount(members, name);
    }
    let text = members.text(name).ok_or_else(|| bad_field(format!("{name} is not a string")))?;
    if text.is_empty() {
        return Err(bad_field(format!("{name} is empty")));
    }
    if field.kind != Kind::Payload && text.len() > TEXT_BYTES_MAX {
        return Err(bad_field(format!(
            "{name} has {} bytes, and at most {TEXT_BYTES_MAX} are accepted",
            text.len()
        )));
    }
    match field.kind {
        Kind::Uuid if text.parse::<RecordId>().is_err() => {
            Err(bad_field(format!("{name} is not a lower-case hyphenated UUID")))
        }
        Kind::Outcome if !matches!(text.as_str(), "cleared" | "released") => {
            Err(bad_field(format!("{name} is neither \"cleared\" nor \"released\"")))
        }
        Kind::Uuid | Kind::Outcome | Kind::Text | Kind::Amount | Kind::Payload => Ok(()),
    }
}

fn check_amount(members: &Members, name: &str) -> Result<(), Refusal> {
    let amount =
        members.object(name).ok_or_else(|| bad_field(format!("{name} is not an object")))?;
    let names: Vec<&str> = amount.names().collect();
    if names.len() != 2 {
        return Err(bad_field(format!(
            "{name} has {}, and needs currency and quantity",
            names.join(", ")
        )));
    }
    let currency = amount
        .text("currency")
        .ok_or_else(|| bad_field(format!("{name}.currency is not a string")))?;
    if currency.is_empty() {
        return Err(bad_field(format!("{name}.currency is empty")));
    }
    let quantity = amount
        .text("quantity")
        .ok_or_else(|| bad_field(format!("{name}.quantity is not a string")))?;
    match quantity.parse::<Units>() {
        Ok(units) if units.is_zero() => Err(bad_field(format!("{name}.quantity is zero"))),
        Ok(_) => Ok(()),
        Err(error) => Err(bad_field(format!("{name}.quantity is {error}"))),
    }
}
