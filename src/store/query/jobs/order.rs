//! In what order jobs are listed, and places in that order.

use std::{cmp::Ordering, fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Serialize, Serializer};

use super::JobLine;
use crate::domain::time::TimestampMs;

/// In what order. By quantity there is none: SQL never compares quantities.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sort {
    /// As they were taken in, the last one first.
    #[default]
    Newest,
    /// As they were taken in.
    Oldest,
    /// By when they came to their state, the last one first.
    Updated,
    /// By how long they have been in their state, the longest first; open jobs only.
    Longest,
    /// By when their next step is due, the next one first; open jobs that have one only.
    Next,
}

/// What an order goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    Number,
    Change,
    OpenSince,
    NextStep,
}

impl By {
    /// The column with the time that comes before the number; orders by number have none.
    pub(super) const fn time(self) -> Option<&'static str> {
        match self {
            Self::Number => None,
            Self::Change | Self::OpenSince => Some("state_since_ms"),
            Self::NextStep => Some("next_step_at_ms"),
        }
    }
}

/// What a list goes by, and which way it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Order {
    pub(super) by: By,
    pub(super) is_descending: bool,
}

impl Order {
    pub(super) const fn reversed(self) -> Self {
        Self { by: self.by, is_descending: !self.is_descending }
    }

    /// How two places stand to each other in this order.
    pub(super) fn compare(self, one: Place, other: Place) -> Ordering {
        let ascending = (one.at_ms, one.seq).cmp(&(other.at_ms, other.seq));
        if self.is_descending { ascending.reverse() } else { ascending }
    }

    pub(super) fn is_before(self, one: Place, other: Place) -> bool {
        self.compare(one, other) == Ordering::Less
    }

    /// Where a job stands.
    pub(super) fn place_of(self, job: &JobLine) -> Place {
        let at = match self.by {
            By::Number => None,
            By::Change | By::OpenSince => Some(job.state_since_ms),
            By::NextStep => job.next_step_at_ms,
        };
        Place { at_ms: at.map_or(0, TimestampMs::as_millis), seq: job.seq.get() }
    }

    /// The place right behind another one: between the two is no job but the one at `place`.
    pub(super) const fn behind(self, place: Place) -> Place {
        let seq = if self.is_descending {
            place.seq.saturating_sub(1)
        } else {
            place.seq.saturating_add(1)
        };
        Place { at_ms: place.at_ms, seq }
    }
}

impl Sort {
    /// All orders, for commands.
    pub const ALL: [Self; 5] =
        [Self::Newest, Self::Oldest, Self::Updated, Self::Longest, Self::Next];

    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Newest => "newest",
            Self::Oldest => "oldest",
            Self::Updated => "updated",
            Self::Longest => "longest",
            Self::Next => "next",
        }
    }

    pub(super) const fn order(self) -> Order {
        let (by, is_descending) = match self {
            Self::Newest => (By::Number, true),
            Self::Oldest => (By::Number, false),
            Self::Updated => (By::Change, true),
            Self::Longest => (By::OpenSince, false),
            Self::Next => (By::NextStep, false),
        };
        Order { by, is_descending }
    }
}

impl FromStr for Sort {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|sort| sort.as_str() == word);
        known.ok_or_else(|| {
            format!("there are the orders {}", Self::ALL.map(Self::as_str).join(", "))
        })
    }
}

/// A place in an order: that of a job, or one between two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) at_ms: i64,
    pub(super) seq: i64,
}

/// A place in a list, as it is given out and taken back. What it says inside may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    pub(super) sort: Sort,
    pub(super) place: Place,
}

impl Cursor {
    /// The place before which a list that is sorted by [`Sort::Updated`] has all that changed later.
    #[must_use]
    pub const fn changed_until(at: TimestampMs) -> Self {
        Self { sort: Sort::Updated, place: Place { at_ms: at.as_millis(), seq: i64::MAX } }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place { at_ms, seq } = self.place;
        f.write_str(&URL_SAFE_NO_PAD.encode(format!("{}.{at_ms}.{seq}", self.sort.as_str())))
    }
}

impl Serialize for Cursor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A text that no list has given out, or one of a list in another order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CursorError {
    /// Nobody gave it out.
    #[error("not a place in a list: take `next` or `previous` as a page said it")]
    Unknown,
    /// It is from a list in another order.
    #[error("a place in a list that is sorted by {}: ask for the same order", .0.as_str())]
    OtherOrder(Sort),
    /// A page can only go on from one place.
    #[error("a page goes on after one place or ends before one, not both")]
    Both,
}

impl FromStr for Cursor {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| CursorError::Unknown)?;
        let text = String::from_utf8(bytes).map_err(|_| CursorError::Unknown)?;
        let mut parts = text.splitn(3, '.');
        let mut part = || parts.next().ok_or(CursorError::Unknown);
        let sort = part()?.parse().map_err(|_| CursorError::Unknown)?;
        let at_ms = part()?.parse().map_err(|_| CursorError::Unknown)?;
        let seq = part()?.parse().map_err(|_| CursorError::Unknown)?;
        Ok(Self { sort, place: Place { at_ms, seq } })
    }
}

/// Which page of a list.
#[derive(Clone, Copy, Debug)]
pub struct PageWanted {
    pub(super) sort: Sort,
    pub(super) from: From,
    pub(super) limit: u32,
}

/// Where a page begins, or ends.
#[derive(Clone, Copy, Debug)]
pub(super) enum From {
    Start,
    After(Place),
    Before(Place),
}

impl PageWanted {
    /// The first page of a list, with at most `limit` jobs; 1 to [`super::PAGE_MAX`] are taken.
    #[must_use]
    pub fn first(sort: Sort, limit: u32) -> Self {
        Self { sort, from: From::Start, limit: limit.clamp(1, super::PAGE_MAX) }
    }

    /// The page that begins after a place.
    #[must_use]
    pub fn after(cursor: Cursor, limit: u32) -> Self {
        Self { from: From::After(cursor.place), ..Self::first(cursor.sort, limit) }
    }

    /// The page that ends before a place.
    #[must_use]
    pub fn before(cursor: Cursor, limit: u32) -> Self {
        Self { from: From::Before(cursor.place), ..Self::first(cursor.sort, limit) }
    }

    /// The order that the list has.
    #[must_use]
    pub const fn sort(&self) -> Sort {
        self.sort
    }

    /// The page that was asked for: the first, the one after a place, or the one that ends before a place.
    ///
    /// # Errors
    /// [`CursorError`] for a place of another order, or for two places.
    pub fn new(
        sort: Option<Sort>,
        after: Option<Cursor>,
        before: Option<Cursor>,
        limit: u32,
    ) -> Result<Self, CursorError> {
        let (cursor, from) = match (after, before) {
            (None, None) => return Ok(Self::first(sort.unwrap_or_default(), limit)),
            (Some(cursor), None) => (cursor, From::After(cursor.place)),
            (None, Some(cursor)) => (cursor, From::Before(cursor.place)),
            (Some(_), Some(_)) => return Err(CursorError::Both),
        };
        if sort.is_some_and(|sort| sort != cursor.sort) {
            return Err(CursorError::OtherOrder(cursor.sort));
        }
        Ok(Self { from, ..Self::first(cursor.sort, limit) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_taken_back_as_it_was_given_out_and_no_other_text_is() {
        for sort in Sort::ALL {
            for (at_ms, seq) in [(0, 0), (1_795_335_330_250, 7), (-1, i64::MAX)] {
                let cursor = Cursor { sort, place: Place { at_ms, seq } };
                let text = cursor.to_string();
                assert_eq!(text.parse(), Ok(cursor));
                assert!(text.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c)));
            }
        }
        for bad in ["", "there", "0.7", "bmV3ZXN0", "bmV3ZXN0LjAuNw=="] {
            assert_eq!(bad.parse::<Cursor>(), Err(CursorError::Unknown), "{bad}");
        }
    }

    #[test]
    fn a_place_is_good_for_its_own_order_only() {
        let cursor = Cursor { sort: Sort::Oldest, place: Place { at_ms: 0, seq: 7 } };
        assert!(PageWanted::new(Some(Sort::Oldest), Some(cursor), None, 1).is_ok());
        assert!(PageWanted::new(None, None, Some(cursor), 1).is_ok());
        let other = PageWanted::new(Some(Sort::Newest), Some(cursor), None, 1);
        assert_eq!(other.err(), Some(CursorError::OtherOrder(Sort::Oldest)));
        let both = PageWanted::new(None, Some(cursor), Some(cursor), 1);
        assert_eq!(both.err(), Some(CursorError::Both));
    }
}
