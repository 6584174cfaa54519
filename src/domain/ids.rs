//! Identifiers, each its own type, checked where it is made.
//!
//! UUIDs are lower-case and hyphenated or refused: two spellings of one id must never become two
//! jobs. Partner identifiers are opaque text; only emptiness, length and NUL are checked.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use uuid::Uuid;

/// Longest partner-side identifier, in bytes of UTF-8. The reference sets no bound; this one keeps
/// rows and payloads of a sane size.
pub const PARTNER_ID_BYTES_MAX: usize = 1_024;

/// Longest currency name, in bytes of UTF-8.
pub const CURRENCY_BYTES_MAX: usize = 64;

/// Longest id of a book event, in bytes of UTF-8.
pub const BOOK_EVENT_ID_BYTES_MAX: usize = 256;

/// Why a text is not an identifier.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Not a UUID in the one accepted spelling.
    #[error("not a lower-case hyphenated UUID")]
    NotCanonicalUuid,
    /// Empty text.
    #[error("empty")]
    Empty,
    /// Longer than allowed.
    #[error("longer than {max} bytes")]
    TooLong {
        /// The limit, in bytes.
        max: usize,
    },
    /// Contains U+0000, which neither SQLite's text functions nor most databases carry.
    #[error("contains a NUL character")]
    Nul,
}

/// Parses the one accepted spelling of a UUID.
fn canonical_uuid(text: &str) -> Result<Uuid, IdError> {
    let uuid = Uuid::try_parse(text).map_err(|_| IdError::NotCanonicalUuid)?;
    let mut buffer = Uuid::encode_buffer();
    if uuid.hyphenated().encode_lower(&mut buffer) == text {
        Ok(uuid)
    } else {
        Err(IdError::NotCanonicalUuid)
    }
}

fn checked_text(text: &str, bytes_max: usize) -> Result<(), IdError> {
    if text.is_empty() {
        Err(IdError::Empty)
    } else if text.len() > bytes_max {
        Err(IdError::TooLong { max: bytes_max })
    } else if text.contains('\0') {
        Err(IdError::Nul)
    } else {
        Ok(())
    }
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// The identifier as a UUID.
            #[must_use]
            pub const fn as_uuid(&self) -> Uuid {
                self.0
            }
        }

        impl From<Uuid> for $name {
            fn from(uuid: Uuid) -> Self {
                Self(uuid)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            /// Accepts lower-case hyphenated UUIDs only.
            fn from_str(text: &str) -> Result<Self, IdError> {
                canonical_uuid(text).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str(FromStrVisitor::<Self>::new())
            }
        }
    };
}

/// Text that is shared and not copied: a job's terms are cloned wherever it is carried.
macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $max:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The identifier as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            /// Accepts non-empty text without NUL up to the limit.
            fn from_str(text: &str) -> Result<Self, IdError> {
                checked_text(text, $max)?;
                Ok(Self(text.into()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str(FromStrVisitor::<Self>::new())
            }
        }
    };
}

/// Deserialises any `FromStr` type from a JSON string, borrowed or owned, and from nothing else.
pub(crate) struct FromStrVisitor<T>(std::marker::PhantomData<T>);

impl<T> FromStrVisitor<T> {
    pub(crate) const fn new() -> Self {
        Self(std::marker::PhantomData)
    }
}

impl<T> de::Visitor<'_> for FromStrVisitor<T>
where
    T: FromStr,
    T::Err: fmt::Display,
{
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
}

uuid_id!(
    /// `allocationId` or `deallocationId`: both live in one space at OES.
    RecordId
);
uuid_id!(
    /// The client at BitGo.
    ClientId
);
uuid_id!(
    /// The link between a client and this partner.
    ConnectionId
);

text_id!(
    /// The client's identifier on the exchange (`partnersClientId`).
    PartnersClientId,
    PARTNER_ID_BYTES_MAX
);
text_id!(
    /// The connection's identifier on the exchange (`partnersConnectionId`).
    PartnersConnectionId,
    PARTNER_ID_BYTES_MAX
);
text_id!(
    /// The record's identifier on the exchange (`partnersAllocationId`, `partnersDeallocationId`).
    PartnersRecordId,
    PARTNER_ID_BYTES_MAX
);

text_id!(
    /// A currency as the partner's mapped name, e.g. `BTC` or `eth:usdc`.
    CurrencyCode,
    CURRENCY_BYTES_MAX
);
text_id!(
    /// The exchange's own id of an event: it makes the event happen at most once.
    BookEventId,
    BOOK_EVENT_ID_BYTES_MAX
);

macro_rules! row_number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(i64);

        impl $name {
            /// The number as stored.
            #[must_use]
            pub const fn get(self) -> i64 {
                self.0
            }
        }

        impl From<i64> for $name {
            fn from(number: i64) -> Self {
                Self(number)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

row_number!(
    /// Position of a job in the order in which this book took jobs in.
    JobSeq
);
row_number!(
    /// Position of a signed attempt in the order in which this book signed.
    AttemptSeq
);
row_number!(
    /// Position of a message in the outbox.
    OutboxSeq
);
row_number!(
    /// Position of a bad message in the quarantine.
    QuarantineSeq
);
row_number!(
    /// Position of an event in the history of the book.
    BookEventSeq
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_uuid_has_one_spelling() {
        let canonical = "0b4a3f3e-7d0a-4b5e-9a0e-3d1c5f2b7a10";
        assert_eq!(canonical.parse::<RecordId>().unwrap().to_string(), canonical);
        for other in [
            "0B4A3F3E-7D0A-4B5E-9A0E-3D1C5F2B7A10",
            "0b4a3f3e7d0a4b5e9a0e3d1c5f2b7a10",
            "{0b4a3f3e-7d0a-4b5e-9a0e-3d1c5f2b7a10}",
            "urn:uuid:0b4a3f3e-7d0a-4b5e-9a0e-3d1c5f2b7a10",
            " 0b4a3f3e-7d0a-4b5e-9a0e-3d1c5f2b7a10",
            "0b4a3f3e-7d0a-4b5e-9a0e-3d1c5f2b7a1",
            "",
        ] {
            assert_eq!(other.parse::<RecordId>(), Err(IdError::NotCanonicalUuid), "{other}");
        }
    }

    #[test]
    fn partner_ids_are_opaque_but_bounded() {
        for text in ["a", " ", "交易所-🔑", "\u{2028}\"\\\n"] {
            assert_eq!(text.parse::<PartnersClientId>().unwrap().as_str(), text);
        }
        assert_eq!("".parse::<PartnersClientId>(), Err(IdError::Empty));
        assert_eq!("a\0b".parse::<PartnersClientId>(), Err(IdError::Nul));
        let longest = "é".repeat(PARTNER_ID_BYTES_MAX / 2);
        assert!(longest.parse::<PartnersClientId>().is_ok());
        assert!(format!("{longest}x").parse::<PartnersClientId>().is_err());
    }
}
