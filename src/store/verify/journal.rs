//! The chain of seals, checked link by link against the rows.
//!
//! Sealed rows never change, so no long read is needed: a page of seals is read, then what they seal.

use std::collections::BTreeMap;

use serde::Serialize;
use sqlx::SqliteConnection;

use super::FAULTS_LISTED_MAX;
use crate::{
    domain::{
        journal::{FORM, Hash32, Kind, Seal, SealedRows},
        time::TimestampMs,
    },
    store::{
        Readers, StoreError,
        error::While as _,
        journal::{leaves, rows_there},
    },
    tally::Tally,
};

const CHECKING: &str = "checking the journal";

/// Seals that are read at a time.
const PAGE: i64 = 1_000;

/// A link of the chain that somebody noted elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Head {
    /// Its place.
    pub commit: i64,
    /// Its hash.
    pub chain: Hash32,
}

/// What a check of the journal found.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct JournalCheck {
    /// Seals that were checked.
    pub seals: u64,
    /// Rows that they seal.
    pub rows: u64,
    /// The last link, to be noted elsewhere.
    pub head: Option<Head>,
    /// How many faults there are.
    pub faults_count: u64,
    /// The first of them, for a reader.
    pub faults: Vec<String>,
}

impl JournalCheck {
    fn fault(&mut self, text: String) {
        self.faults_count = self.faults_count.saturating_add(1);
        if self.faults.len() < FAULTS_LISTED_MAX {
            self.faults.push(text);
        }
    }
}

struct SealRow {
    commit_seq: i64,
    sealed_at_ms: i64,
    form: i64,
    sealed_rows: String,
    digest: Vec<u8>,
    chain: Vec<u8>,
}

impl SealRow {
    fn parse(&self) -> Result<Seal, String> {
        let rows: SealedRows = serde_json::from_str(&self.sealed_rows)
            .map_err(|error| format!("its list of rows cannot be read: {error}"))?;
        Ok(Seal {
            commit: self.commit_seq,
            sealed_at_ms: TimestampMs::from_millis(self.sealed_at_ms),
            form: u32::try_from(self.form).map_err(|error| error.to_string())?,
            rows,
            digest: self.digest.as_slice().try_into().map_err(|_| "its digest is no hash")?,
            chain: self.chain.as_slice().try_into().map_err(|_| "its link is no hash")?,
        })
    }
}

/// Where the check has come to.
struct Walk {
    previous: Hash32,
    last: i64,
    sealed: BTreeMap<Kind, u64>,
    known: Option<Head>,
    found: JournalCheck,
}

impl Readers {
    /// Checks every seal: its link to the one before it, and the rows that it names. With `known`, that
    /// link must be among them: nothing that was sealed up to it can have been replaced. Sealed rows are
    /// counted as they are checked.
    ///
    /// # Errors
    /// [`StoreError`] when the book cannot be read; faults are in the answer.
    pub async fn check_journal(
        &self,
        known: Option<Head>,
        tally: &Tally,
    ) -> Result<JournalCheck, StoreError> {
        let found = JournalCheck::default();
        let mut walk =
            Walk { previous: Hash32::ZERO, last: 0, sealed: BTreeMap::new(), known, found };
        loop {
            let mut connection = self.pool.acquire().await.while_doing(CHECKING)?;
            if !walk.page(&mut connection, tally).await? {
                break;
            }
        }
        // Rows are counted when no more seals come between: in one read with the last of them.
        let mut transaction = self.pool.begin().await.while_doing(CHECKING)?;
        while walk.page(&mut transaction, tally).await? {}
        for kind in Kind::ALL {
            let there = rows_there(&mut transaction, kind).await?;
            let sealed = walk.sealed.get(&kind).copied().unwrap_or(0);
            if there != sealed {
                walk.found.fault(format!(
                    "{}: {sealed} rows are sealed, and {there} are there",
                    kind.as_str()
                ));
            }
        }
        if let Some(known) = walk.known {
            walk.found.fault(format!(
                "the journal does not reach seal {}, which you know: its end is missing",
                known.commit
            ));
        }
        Ok(walk.found)
    }
}

impl Walk {
    /// Checks the next seals. Answers whether there were any.
    async fn page(
        &mut self,
        connection: &mut SqliteConnection,
        tally: &Tally,
    ) -> Result<bool, StoreError> {
        let seals = sqlx::query_as!(
            SealRow,
            "SELECT commit_seq, sealed_at_ms, form, sealed_rows, digest, chain
             FROM journal WHERE commit_seq > ?1 ORDER BY commit_seq LIMIT ?2",
            self.last,
            PAGE
        )
        .fetch_all(&mut *connection)
        .await
        .while_doing(CHECKING)?;
        for row in &seals {
            let expected = self.last.saturating_add(1);
            self.last = row.commit_seq;
            self.found.seals = self.found.seals.saturating_add(1);
            if row.commit_seq != expected {
                let last = row.commit_seq.saturating_sub(1);
                self.found.fault(format!("seals {expected} to {last} are missing"));
            }
            let rows_before = self.found.rows;
            match row.parse() {
                Ok(seal) => self.seal(connection, &seal, &row.sealed_rows).await?,
                Err(fault) => self.found.fault(format!("seal {}: {fault}", row.commit_seq)),
            }
            tally.add(self.found.rows.saturating_sub(rows_before));
        }
        Ok(!seals.is_empty())
    }

    async fn seal(
        &mut self,
        connection: &mut SqliteConnection,
        seal: &Seal,
        rows_text: &str,
    ) -> Result<(), StoreError> {
        let commit = seal.commit;
        if !seal.follows(self.previous, rows_text) {
            self.found.fault(format!("seal {commit}: it does not follow from the one before it"));
        }
        if seal.form != FORM {
            self.found.fault(format!("seal {commit}: its form {} is not known", seal.form));
        }
        self.previous = seal.chain;
        self.found.head = Some(Head { commit, chain: seal.chain });
        if self.known.is_some_and(|known| known.commit == commit) {
            if self.known.is_some_and(|known| known.chain != seal.chain) {
                self.found.fault(format!("seal {commit}: it is not the one that you know"));
            }
            self.known = None;
        }
        for kind in seal.rows.kinds() {
            let count = seal.rows.count(kind);
            let sealed = self.sealed.entry(kind).or_default();
            *sealed = sealed.saturating_add(count);
            self.found.rows = self.found.rows.saturating_add(count);
        }
        match leaves(connection, &seal.rows).await {
            Ok(leaves) if leaves.digest() == seal.digest => {}
            Ok(_) => self.found.fault(format!("seal {commit}: {} were changed", names(&seal.rows))),
            Err(StoreError::Fatal { error, .. }) if is_about_a_value(&error) => {
                self.found.fault(format!("seal {commit}: its rows cannot be read: {error}"));
            }
            Err(error) if error.is_refusal() => {
                self.found.fault(format!("seal {commit}: {error}"));
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// Whether the database works, and only what a column holds is not what belongs there.
fn is_about_a_value(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_))
}

/// Which rows a seal is about, for a reader.
fn names(rows: &SealedRows) -> String {
    let kind =
        |kind: Kind| {
            let ranges: Vec<String> =
                rows.ranges(kind)
                    .iter()
                    .map(|(first, last)| {
                        if first == last { first.to_string() } else { format!("{first} to {last}") }
                    })
                    .collect();
            format!("{} {}", kind.as_str(), ranges.join(", "))
        };
    let kinds: Vec<String> = rows.kinds().map(kind).collect();
    format!("some of {}", kinds.join("; "))
}
