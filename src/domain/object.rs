//! JSON objects only.
//!
//! serde fills a struct from a JSON array as well, field by field. In a message about money that
//! would be a second way to say the same thing, so structs are read through [`Object`].

use std::{fmt, marker::PhantomData};

use serde::{Deserialize, Deserializer, de};

/// Reads `T` from a JSON object and from nothing else.
pub struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(PhantomData)).map(Object)
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> de::Visitor<'de> for ObjectVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::deserialize(de::value::MapAccessDeserializer::new(map))
    }
}

/// Why a text is not the object that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ObjectError {
    /// Not one JSON text.
    #[error("{0}")]
    NotJson(String),
    /// JSON, but a field is missing, repeated, of the wrong type or out of its range; says which.
    #[error("{0}")]
    BadField(String),
}

/// Reads one JSON object with nothing after it, and names the field that is wrong.
///
/// # Errors
/// [`ObjectError`], for a reader.
pub fn parse<'de, T: Deserialize<'de>>(text: &'de str) -> Result<T, ObjectError> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let Object(value) = serde_path_to_error::deserialize(&mut deserializer).map_err(
        |error: serde_path_to_error::Error<serde_json::Error>| {
            let path = error.path().to_string();
            let text = if path == "." {
                error.inner().to_string()
            } else {
                format!("{path}: {}", error.inner())
            };
            if error.inner().is_data() {
                ObjectError::BadField(text)
            } else {
                ObjectError::NotJson(text)
            }
        },
    )?;
    deserializer
        .end()
        .map_err(|_| ObjectError::NotJson("more text after the JSON object".to_owned()))?;
    Ok(value)
}
