//! The mark: how far this ledger has signed, kept outside the database, best on another volume.
//!
//! A database that is restored from a backup does not know what was signed after the backup. The mark
//! does: it holds the ledger's identity and the number of its last attempt, and is on disk before the
//! attempts that it counts are sent. A book that is behind its mark may not decide.
//!
//! What must never happen here: an attempt that is sent and not marked; a mark that goes back.

use std::{
    fmt,
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};
use uuid::Uuid;

/// Permissions of the file: its owner's only.
const FILE_MODE: u32 = 0o600;

/// Two slots are written in turn, so that a write that is cut off leaves the one before.
const SLOTS: u64 = 2;

/// A slot has a sector of its own, because a sector is what a disk writes whole.
const SLOT_BYTES: usize = 512;

/// What a slot begins with.
const MAGIC: &str = "settled-mark-1";

/// What is written in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marked {
    /// The identity of the ledger.
    pub ledger: Uuid,
    /// Its last attempt.
    pub attempt: i64,
}

/// How a book stands to its mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It has everything that was signed.
    Fits,
    /// It is older than what was signed: it was restored from a backup.
    Behind(Marked),
    /// The mark is another ledger's: the book is new, or belongs elsewhere.
    Foreign(Marked),
}

impl Standing {
    /// What to do before a book that does not fit its mark may decide again. `is_fed` says whether the
    /// exchange feeds it.
    #[must_use]
    pub const fn next_step(self, is_fed: bool) -> &'static str {
        match self {
            Self::Fits => "nothing is to be done",
            Self::Behind(_) | Self::Foreign(_) if is_fed => {
                "let the daemon run, which decides and signs nothing yet, and have the exchange feed again what \
                 it sent since the backup, with the same ids; then stop it and say so with `settled book \
                 accept-restore`, whose --help has each step"
            }
            Self::Behind(_) | Self::Foreign(_) => {
                "let the daemon run, which decides and signs nothing yet, and bring connections, currencies and \
                 balances up to date with `settled book import`; then stop it and say so with `settled book \
                 accept-restore`, whose --help has each step"
            }
        }
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fits => f.write_str("the book has everything that was signed"),
            Self::Behind(marked) => write!(
                f,
                "the book is older than what was signed (attempt {} is marked): it was restored from \
                 a backup",
                marked.attempt
            ),
            Self::Foreign(marked) => write!(
                f,
                "the mark belongs to another book (ledger {}, attempt {}): this one is new, or \
                 store.mark_path is wrong",
                marked.ledger, marked.attempt
            ),
        }
    }
}

/// Why a mark cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MarkError {
    /// The system would not read or write it.
    #[error("store.mark_path {path}: {source}. Nothing is signed without it; check its volume")]
    Io {
        /// The file.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
    /// Neither slot can be read.
    #[error(
        "store.mark_path {path} holds no mark of settled: it is another file, or damaged. Remove it \
         only if you know that the book has everything that was signed"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
    },
}

/// The mark of one book.
#[derive(Debug)]
pub struct Mark {
    file: File,
    path: PathBuf,
    /// How often it was written; also says which slot is newer, and which is next.
    writes: u64,
    marked: Option<Marked>,
}

impl Mark {
    /// Opens the mark, and makes the file if there is none.
    ///
    /// # Errors
    /// [`MarkError`].
    pub fn open(path: &Path) -> Result<Self, MarkError> {
        let io = |source| MarkError::Io { path: path.to_owned(), source };
        let is_new = !path.try_exists().map_err(io)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(FILE_MODE)
            .open(path)
            .map_err(io)?;
        if is_new {
            // The name must be as durable as what will be written under it.
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
            let folder = File::open(folder.unwrap_or(Path::new("."))).map_err(io)?;
            folder.sync_all().map_err(io)?;
        }
        let mut mark = Self { file, path: path.to_owned(), writes: 0, marked: None };
        mark.read().map_err(io)?;
        let length = mark.file.metadata().map_err(io)?.len();
        if mark.marked.is_none() && length > 0 {
            return Err(MarkError::Damaged { path: path.to_owned() });
        }
        Ok(mark)
    }

    fn read(&mut self) -> io::Result<()> {
        for slot in 0..SLOTS {
            let mut bytes = [0; SLOT_BYTES];
            let offset = slot.saturating_mul(SLOT_BYTES as u64);
            match self.file.read_exact_at(&mut bytes, offset) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => continue,
                Err(error) => return Err(error),
            }
            if let Some((writes, marked)) = parse(&bytes)
                && writes > self.writes
            {
                (self.writes, self.marked) = (writes, Some(marked));
            }
        }
        Ok(())
    }

    /// What is written in it; nothing, if it is new.
    #[must_use]
    pub fn marked(&self) -> Option<Marked> {
        self.marked
    }

    /// How a book with this identity and last attempt stands to it.
    #[must_use]
    pub fn standing(&self, ledger: Uuid, attempt: i64) -> Standing {
        match self.marked {
            Some(marked) if marked.ledger != ledger => Standing::Foreign(marked),
            Some(marked) if marked.attempt > attempt => Standing::Behind(marked),
            None | Some(_) => Standing::Fits,
        }
    }

    /// Writes that `ledger` has signed up to `attempt`, and returns when that is on disk.
    ///
    /// # Errors
    /// [`MarkError::Io`]: what it was to count must not be sent.
    pub fn write(&mut self, marked: Marked) -> Result<(), MarkError> {
        let writes = self.writes.saturating_add(1);
        let offset = writes.rem_euclid(SLOTS).saturating_mul(SLOT_BYTES as u64);
        self.file
            .write_all_at(&slot(writes, marked), offset)
            .and_then(|()| self.file.sync_data())
            .map_err(|source| MarkError::Io { path: self.path.clone(), source })?;
        (self.writes, self.marked) = (writes, Some(marked));
        Ok(())
    }
}

/// A slot is text, so that a person can read the file: `settled-mark-1 WRITES LEDGER ATTEMPT CHECKSUM`.
fn slot(writes: u64, marked: Marked) -> [u8; SLOT_BYTES] {
    let content = format!("{MAGIC} {writes} {} {}", marked.ledger, marked.attempt);
    let text = format!("{content} {}\n", checksum(&content));
    let mut bytes = [b' '; SLOT_BYTES];
    for (place, byte) in bytes.iter_mut().zip(text.bytes()) {
        *place = byte;
    }
    bytes
}

fn parse(bytes: &[u8; SLOT_BYTES]) -> Option<(u64, Marked)> {
    let line = std::str::from_utf8(bytes).ok()?.lines().next()?;
    let (content, sum) = line.rsplit_once(' ')?;
    if checksum(content) != sum {
        return None;
    }
    let mut words = content.split(' ');
    if words.next() != Some(MAGIC) {
        return None;
    }
    let writes = words.next()?.parse().ok()?;
    let marked =
        Marked { ledger: words.next()?.parse().ok()?, attempt: words.next()?.parse().ok()? };
    Some((writes, marked))
}

fn checksum(content: &str) -> String {
    hex::encode(Sha256::digest(content))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEDGER: Uuid = Uuid::from_u128(7);

    fn marked(attempt: i64) -> Marked {
        Marked { ledger: LEDGER, attempt }
    }

    #[test]
    fn a_mark_is_found_again_and_never_goes_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mark");
        assert_eq!(Mark::open(&path).unwrap().standing(LEDGER, 0), Standing::Fits);
        for attempt in [1, 2, 3, 9, 10] {
            Mark::open(&path).unwrap().write(marked(attempt)).unwrap();
            let again = Mark::open(&path).unwrap();
            assert_eq!(again.marked(), Some(marked(attempt)));
            assert_eq!(again.standing(LEDGER, attempt), Standing::Fits);
            assert_eq!(again.standing(LEDGER, attempt + 1), Standing::Fits);
            assert_eq!(again.standing(LEDGER, attempt - 1), Standing::Behind(marked(attempt)));
            let other = again.standing(Uuid::from_u128(8), attempt);
            assert_eq!(other, Standing::Foreign(marked(attempt)));
        }
    }

    #[test]
    fn a_write_that_was_cut_off_leaves_the_mark_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mark");
        let mut mark = Mark::open(&path).unwrap();
        mark.write(marked(4)).unwrap();
        mark.write(marked(5)).unwrap();
        for cut in [0, 3, 60, 100, SLOT_BYTES - 1] {
            // The third write goes where the first one is; only its begin arrives.
            let offset = SLOT_BYTES as u64;
            let file = OpenOptions::new().write(true).open(&path).unwrap();
            file.write_all_at(&slot(1, marked(4)), offset).unwrap();
            file.write_all_at(&slot(3, marked(6))[..cut], offset).unwrap();
            let found = Mark::open(&path).unwrap().marked().unwrap();
            assert!(found.attempt >= 5, "{cut}: {found:?}");
        }
    }

    #[test]
    fn what_is_no_mark_is_not_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mark");
        std::fs::write(&path, "something else").unwrap();
        assert!(matches!(Mark::open(&path), Err(MarkError::Damaged { .. })));
        assert!(matches!(Mark::open(folder.path()), Err(MarkError::Io { .. })));
    }
}
