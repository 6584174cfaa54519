//! JSON objects as they stand: their members in order, and whether there is white space.
//!
//! A payload is judged by its bytes, so the order of keys and repeated keys must not be lost on the
//! way in, as they are in a map.

use std::fmt;

use serde::{Deserialize, Deserializer, de};
use serde_json::{Value, value::RawValue};

/// Most members of an object that is read.
const MEMBERS_MAX: usize = 64;

/// The members of a JSON object, in the order in which they stand.
#[derive(Debug)]
pub(super) struct Members(Vec<(String, Box<RawValue>)>);

impl Members {
    /// Reads one JSON object with nothing after it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    /// The value of a member as it stands.
    pub(super) fn get(&self, name: &str) -> Option<&RawValue> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| &**value)
    }

    /// The value of a member, if it is a string.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        serde_json::from_str(self.get(name)?.get()).ok()
    }

    /// The members of a member, if it is an object.
    pub(super) fn object(&self, name: &str) -> Option<Self> {
        Self::parse(self.get(name)?.get()).ok()
    }

    /// The names, in order.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(key, _)| key.as_str())
    }
}

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

impl<'de> de::Visitor<'de> for MembersVisitor {
    type Value = Members;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
        let mut members: Vec<(String, Box<RawValue>)> = Vec::new();
        while let Some((key, value)) = map.next_entry::<String, Box<RawValue>>()? {
            if members.iter().any(|(known, _)| *known == key) {
                return Err(de::Error::custom(format_args!("{key:?} is there twice")));
            }
            if members.len() >= MEMBERS_MAX {
                return Err(de::Error::custom(format_args!("more than {MEMBERS_MAX} members")));
            }
            members.push((key, value));
        }
        Ok(Members(members))
    }
}

/// Whether two JSON texts say the same, however they are written.
pub(super) fn say_the_same(one: &RawValue, other: &RawValue) -> bool {
    let value = |raw: &RawValue| serde_json::from_str::<Value>(raw.get()).ok();
    value(one).is_some_and(|one| Some(one) == value(other))
}

/// Whether a JSON text has no white space outside its strings.
pub(super) fn is_compact(json: &str) -> bool {
    let (mut in_string, mut escaped) = (false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b' ' | b'\t' | b'\n' | b'\r' if !in_string => return false,
            _ => {}
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_kept_and_repetition_is_refused() {
        let members = Members::parse(r#"{"b":1,"a":{"x":"y"},"c":null}"#).unwrap();
        assert_eq!(members.names().collect::<Vec<_>>(), ["b", "a", "c"]);
        assert_eq!(members.object("a").unwrap().text("x").unwrap(), "y");
        assert_eq!(members.text("b"), None);
        for broken in [r#"{"a":1,"a":1}"#, r#"{"a":1,"\u0061":1}"#, "[]", "{} {}", "\"a\"", ""] {
            assert!(Members::parse(broken).is_err(), "{broken}");
        }
    }

    #[test]
    fn compact_is_about_what_is_outside_strings() {
        for compact in [r#"{"a":"b c\" d","e":1}"#, r#"{"a\\":"\\"}"#, "{}"] {
            assert!(is_compact(compact), "{compact}");
        }
        for loose in [r#"{"a": 1}"#, "{\"a\":1}\n", r#"{"a":"\\" }"#, "{\t}"] {
            assert!(!is_compact(loose), "{loose}");
        }
    }
}
