//! Archives: files that hold the rows of jobs that are over, so that the book stays small.
//!
//! The rows go in two steps. First they are copied into the archive, committed there and compared with
//! the book's, row by row ([`copy`]); then the writer removes exactly these rows and says in which
//! archive they are, in one transaction (`flush::archive`). Whatever ends between the two leaves a
//! second copy in the archive, which nobody looks at and which the next copying uses. Reading puts
//! book and archives together again ([`read`]).
//!
//! What must never happen here: a row that is removed and not on the disk in its archive; a row number
//! that is given twice because its row is in an archive.

mod copy;
mod file;
mod read;

use std::path::{Path, PathBuf};

pub use copy::Removal;
pub use file::ArchiveFile;
pub use read::{MissingArchive, open_history};
use uuid::Uuid;

use crate::domain::time::TimestampMs;

/// Archives of one book: SQLite opens ten files together with it, and one more is needed while a backup
/// is made.
pub const ARCHIVES_MAX: i64 = 8;

/// How long a copying waits for readers of the archive; less than they wait for it.
const ARCHIVE_WAIT: std::time::Duration = std::time::Duration::from_secs(2);

/// A table whose rows go into archives, and the column with their numbers.
pub(super) struct Table {
    pub(super) name: &'static str,
    number: &'static str,
    /// The rows of the jobs that ?1 lists, by the indexes that there are.
    of_jobs: &'static [&'static str],
}

const OF_JOBS: &str = "job_seq IN (SELECT value FROM json_each(?1))";

/// Every such table.
pub(super) const TABLES: [Table; 5] = [
    Table { name: "messages", number: "job_seq", of_jobs: &[OF_JOBS] },
    Table { name: "attempts", number: "attempt_seq", of_jobs: &[OF_JOBS] },
    Table {
        name: "transfers",
        number: "transfer_seq",
        of_jobs: &[
            "job_seq IN (SELECT value FROM json_each(?1)) AND phase = 'pending'",
            "job_seq IN (SELECT value FROM json_each(?1))
             AND phase IN ('posted', 'voided', 'overruled')",
        ],
    },
    Table { name: "job_events", number: "event_seq", of_jobs: &[OF_JOBS] },
    Table { name: "outbox", number: "outbox_seq", of_jobs: &[OF_JOBS] },
];

/// An archive as the book has it, or will have it with the first jobs that go there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its number in the book.
    pub seq: i64,
    /// The file's own identity.
    pub uuid: Uuid,
    /// When it was made.
    pub begun_at: TimestampMs,
    /// Where it is.
    pub path: String,
    /// Whether the book does not know it yet.
    pub is_new: bool,
}

/// Why nothing can be archived. The book is as it was.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The file, or the book beside it, could not be used.
    #[error("{doing} failed for the archive {}: {source}. Nothing was removed from the book", path.display())]
    File {
        /// The archive.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// What SQLite or the system said.
        source: sqlx::Error,
    },
    /// The file is not what belongs there.
    #[error("archive.path {}: {reason}", path.display())]
    Unfit {
        /// The archive.
        path: PathBuf,
        /// Why, and what to do.
        reason: String,
    },
    /// What was copied is not what the book has.
    #[error(
        "the archive {} has other rows of {table} under the same numbers than the book: it is from a \
         later time than the book, which was restored from a backup, or it was changed. Nothing was \
         removed from the book; set archive.path to a new file, and keep this one where it is",
        path.display()
    )]
    Differs {
        /// The archive.
        path: PathBuf,
        /// The table.
        table: &'static str,
    },
}

impl ArchiveError {
    fn unfit(path: &Path, reason: impl Into<String>) -> Self {
        Self::Unfit { path: path.to_owned(), reason: reason.into() }
    }
}

/// The name of a file for `ATTACH`, to be read only. SQLite reads it as a URI.
fn uri(path: &Path) -> String {
    let text = path.display().to_string();
    let text = text.replace('%', "%25").replace('?', "%3f").replace('#', "%23");
    format!("file:{text}?mode=ro")
}

/// A text as SQL writes it.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
