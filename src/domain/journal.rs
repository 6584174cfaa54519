//! The journal: a chain of hashes over everything in the book that is never changed.
//!
//! Each commit that adds such rows seals them. A seal names the rows, holds a hash over what they say,
//! and is itself hashed together with the seal before it. Whoever knows one link of the chain can tell
//! whether anything that was sealed before it has been edited, removed, added or put in another order.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::time::TimestampMs;

/// How rows are written down to be hashed. A later form gets a later number, and old seals keep theirs.
pub const FORM: u32 = 1;

/// SHA-256, shown as 64 lower-case hexadecimal characters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hash32([u8; 32]);

/// Not 64 hexadecimal characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a hash is 64 hexadecimal characters")]
pub struct Hash32Error;

impl Hash32 {
    /// Before the first seal.
    pub const ZERO: Self = Self([0; 32]);

    /// The hash of some bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl TryFrom<&[u8]> for Hash32 {
    type Error = Hash32Error;

    fn try_from(bytes: &[u8]) -> Result<Self, Hash32Error> {
        bytes.try_into().map(Self).map_err(|_| Hash32Error)
    }
}

impl FromStr for Hash32 {
    type Err = Hash32Error;

    fn from_str(text: &str) -> Result<Self, Hash32Error> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| Hash32Error)?;
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for Hash32 {
    type Error = Hash32Error;

    fn try_from(text: String) -> Result<Self, Hash32Error> {
        text.parse()
    }
}

impl From<Hash32> for String {
    fn from(hash: Hash32) -> Self {
        hash.to_string()
    }
}

impl fmt::Display for Hash32 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Hash32 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// What is sealed: rows of a table, or the part of them that a commit wrote once and for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The identity of the book.
    Ledger,
    /// Keys that sign.
    SigningKeys,
    /// Acceptances of a restored database.
    Restores,
    /// Facts of the exchange.
    BookEvents,
    /// Terms of jobs, with their messages.
    Jobs,
    /// Decisions, with what they saw.
    Decisions,
    /// Whose account is which, in what.
    Accounts,
    /// Movements.
    Transfers,
    /// Signed attempts.
    Attempts,
    /// How attempts ended.
    AttemptEnds,
    /// What else happened to jobs.
    JobEvents,
    /// How jobs ended.
    Endings,
    /// Messages that never act.
    Quarantine,
    /// What is published.
    Outbox,
    /// Which archives there are.
    Archives,
    /// Which jobs stand in which archive.
    ArchivedJobs,
    /// What operators did.
    Actions,
    /// What was found to be wrong with the feed.
    FeedFindings,
}

impl Kind {
    /// Every kind, in the order in which they are hashed.
    pub const ALL: [Self; 18] = [
        Self::Ledger,
        Self::SigningKeys,
        Self::Restores,
        Self::BookEvents,
        Self::Jobs,
        Self::Decisions,
        Self::Accounts,
        Self::Transfers,
        Self::Attempts,
        Self::AttemptEnds,
        Self::JobEvents,
        Self::Endings,
        Self::Quarantine,
        Self::Outbox,
        Self::Archives,
        Self::ArchivedJobs,
        Self::Actions,
        Self::FeedFindings,
    ];

    /// One word for rows and hashes.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ledger => "ledger",
            Self::SigningKeys => "signing_keys",
            Self::Restores => "restores",
            Self::BookEvents => "book_events",
            Self::Jobs => "jobs",
            Self::Decisions => "decisions",
            Self::Accounts => "accounts",
            Self::Transfers => "transfers",
            Self::Attempts => "attempts",
            Self::AttemptEnds => "attempt_ends",
            Self::JobEvents => "job_events",
            Self::Endings => "endings",
            Self::Quarantine => "quarantine",
            Self::Outbox => "outbox",
            Self::Archives => "archives",
            Self::ArchivedJobs => "archived_jobs",
            Self::Actions => "actions",
            Self::FeedFindings => "feed_findings",
        }
    }
}

/// The rows that a commit seals, by kind: row numbers as ranges, both ends included.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SealedRows(BTreeMap<Kind, Vec<(i64, i64)>>);

impl SealedRows {
    /// Adds rows of a kind.
    pub fn add(&mut self, kind: Kind, numbers: impl IntoIterator<Item = i64>) {
        let sorted: BTreeSet<i64> = numbers.into_iter().collect();
        if sorted.is_empty() {
            return;
        }
        let ranges = self.0.entry(kind).or_default();
        for number in sorted {
            match ranges.last_mut() {
                Some((_, last)) if last.checked_add(1) == Some(number) => *last = number,
                Some(_) | None => ranges.push((number, number)),
            }
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many rows of a kind there are.
    #[must_use]
    pub fn count(&self, kind: Kind) -> u64 {
        let lengths = self.ranges(kind).iter().map(|(first, last)| {
            u64::try_from(last.saturating_sub(*first).saturating_add(1)).unwrap_or(0)
        });
        lengths.fold(0, u64::saturating_add)
    }

    /// The ranges of a kind.
    #[must_use]
    pub fn ranges(&self, kind: Kind) -> &[(i64, i64)] {
        self.0.get(&kind).map_or(&[], Vec::as_slice)
    }

    /// The numbers of a kind, in their order.
    pub fn numbers(&self, kind: Kind) -> impl Iterator<Item = i64> {
        self.ranges(kind).iter().flat_map(|(first, last)| *first..=*last)
    }

    /// The kinds that there are.
    pub fn kinds(&self) -> impl Iterator<Item = Kind> {
        self.0.keys().copied()
    }

    /// Whether a row is among them.
    #[must_use]
    pub fn contains(&self, kind: Kind, number: i64) -> bool {
        self.ranges(kind).iter().any(|(first, last)| (*first..=*last).contains(&number))
    }
}

/// What the rows of a commit say, as hashes: a leaf for each row, in the order of their numbers.
///
/// With the leaves of others and the rows of one job, whoever has that job's evidence can recompute the
/// digest without seeing what does not concern them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Leaves(BTreeMap<Kind, Vec<Hash32>>);

impl Leaves {
    /// Adds the next row of a kind as it is written down: one line without a line break.
    pub fn add(&mut self, kind: Kind, line: &str) {
        self.0.entry(kind).or_default().push(Hash32::of(line.as_bytes()));
    }

    /// The leaves of a kind.
    #[must_use]
    pub fn of(&self, kind: Kind) -> &[Hash32] {
        self.0.get(&kind).map_or(&[], Vec::as_slice)
    }

    /// The hash over all of them.
    #[must_use]
    pub fn digest(&self) -> Hash32 {
        let mut hasher = Sha256::new();
        for (kind, leaves) in &self.0 {
            // Fixed lengths and counts keep one list from reading as another.
            hasher.update(Sha256::digest(kind.as_str()));
            hasher.update(u64::try_from(leaves.len()).unwrap_or(u64::MAX).to_be_bytes());
            for leaf in leaves {
                hasher.update(leaf.0);
            }
        }
        Hash32(hasher.finalize().into())
    }
}

/// One link of the chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Seal {
    /// Its place in the chain, from one on, without gaps.
    pub commit: i64,
    /// When the rows were committed.
    pub sealed_at_ms: TimestampMs,
    /// How the rows are written down.
    pub form: u32,
    /// Which rows.
    pub rows: SealedRows,
    /// The hash over what they say.
    pub digest: Hash32,
    /// The hash over this seal and the one before it.
    pub chain: Hash32,
}

impl Seal {
    /// The next seal of a chain. `rows_text` is how the rows are kept: what is hashed is that text.
    #[must_use]
    pub fn next(
        previous: (i64, Hash32),
        at: TimestampMs,
        rows: SealedRows,
        rows_text: &str,
        digest: Hash32,
    ) -> Self {
        let commit = previous.0.saturating_add(1);
        let chain = link(previous.1, commit, at, FORM, rows_text, digest);
        Self { commit, sealed_at_ms: at, form: FORM, rows, digest, chain }
    }

    /// Whether its own hash is right, given the link before it.
    #[must_use]
    pub fn follows(&self, previous: Hash32, rows_text: &str) -> bool {
        let (commit, at) = (self.commit, self.sealed_at_ms);
        link(previous, commit, at, self.form, rows_text, self.digest) == self.chain
    }
}

fn link(
    previous: Hash32,
    commit: i64,
    at: TimestampMs,
    form: u32,
    rows_text: &str,
    digest: Hash32,
) -> Hash32 {
    let mut hasher = Sha256::new();
    hasher.update(previous.0);
    hasher.update(commit.to_be_bytes());
    hasher.update(at.as_millis().to_be_bytes());
    hasher.update(form.to_be_bytes());
    // The text's length is fixed by its hash, so that no byte of it can pass for the digest's.
    hasher.update(Sha256::digest(rows_text));
    hasher.update(digest.0);
    Hash32(hasher.finalize().into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rows(numbers: &[i64]) -> SealedRows {
        let mut rows = SealedRows::default();
        rows.add(Kind::Transfers, numbers.iter().copied());
        rows
    }

    #[test]
    fn rows_are_named_by_ranges() {
        let mut rows = rows(&[7, 1, 2, 3, 9]);
        rows.add(Kind::Outbox, []);
        rows.add(Kind::Jobs, [4]);
        assert_eq!(
            serde_json::to_string(&rows).unwrap(),
            r#"{"jobs":[[4,4]],"transfers":[[1,3],[7,7],[9,9]]}"#
        );
        assert_eq!((rows.count(Kind::Transfers), rows.count(Kind::Outbox)), (5, 0));
        assert!(rows.contains(Kind::Transfers, 2) && !rows.contains(Kind::Transfers, 8));
        assert_eq!(rows.kinds().collect::<Vec<_>>(), [Kind::Jobs, Kind::Transfers]);
        assert_eq!(rows.numbers(Kind::Transfers).collect::<Vec<_>>(), [1, 2, 3, 7, 9]);
        assert!(!rows.is_empty() && SealedRows::default().is_empty());
    }

    #[test]
    fn a_hash_reads_back_and_nothing_else_is_one() {
        let hash = Hash32::of(b"x");
        assert_eq!(hash.to_string().parse(), Ok(hash));
        let bytes: Hash32 = hash.as_bytes().as_slice().try_into().unwrap();
        assert_eq!((bytes, String::from(hash)), (hash, hash.to_string()));
        for text in ["", "00", &"z".repeat(64), &"0".repeat(63), &"0".repeat(65)] {
            assert_eq!(text.parse::<Hash32>(), Err(Hash32Error), "{text}");
        }
    }

    #[test]
    fn kinds_are_hashed_in_the_order_of_their_list() {
        assert!(Kind::ALL.is_sorted());
        for kind in Kind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
        }
    }

    proptest! {
        #[test]
        fn every_change_of_what_is_sealed_breaks_the_chain(
            lines in prop::collection::vec("[a-z]{1,4}", 1..6),
            at in 0_usize..6,
            changed in "[a-z]{1,4}",
        ) {
            let seal = |lines: &[String]| {
                let mut leaves = Leaves::default();
                for line in lines {
                    leaves.add(Kind::Transfers, line);
                }
                let rows = rows(&(1..=i64::try_from(lines.len()).unwrap()).collect::<Vec<_>>());
                let text = serde_json::to_string(&rows).unwrap();
                Seal::next((3, Hash32::of(b"before")), TimestampMs::from_millis(5), rows, &text, leaves.digest())
            };
            let sealed = seal(&lines);
            let text = serde_json::to_string(&sealed.rows).unwrap();
            prop_assert!(sealed.follows(Hash32::of(b"before"), &text));
            prop_assert!(!sealed.follows(Hash32::of(b"another"), &text));
            let at = at % lines.len();
            let mut edited = lines.clone();
            edited[at].clone_from(&changed);
            prop_assert_eq!(edited == lines, seal(&edited).chain == sealed.chain);
            let mut removed = lines.clone();
            removed.remove(at);
            prop_assert_ne!(seal(&removed).chain, sealed.chain);
            let mut turned = lines.clone();
            turned.rotate_left(at);
            prop_assert_eq!(turned == lines, seal(&turned).chain == sealed.chain);
            for tampered in [
                Seal { commit: 5, ..sealed.clone() },
                Seal { sealed_at_ms: TimestampMs::from_millis(6), ..sealed.clone() },
                Seal { form: 2, ..sealed.clone() },
                Seal { digest: Hash32::ZERO, ..sealed.clone() },
            ] {
                prop_assert!(!tampered.follows(Hash32::of(b"before"), &text));
            }
        }
    }
}
