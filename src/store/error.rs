//! What can go wrong with the database, by what to do about it.

use std::io::ErrorKind;

/// A failure of the database.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk or the file failed, or SQLite cannot go on. Exit: restart is the recovery, because
    /// after a failed write nobody knows what the page cache holds.
    #[error("{} while {doing}: {error}. {}", fault.what, fault.advice)]
    Fatal {
        /// What was being done.
        doing: &'static str,
        /// What failed, and what to do about it.
        fault: &'static Fault,
        /// What SQLite said; told above, so that it is not told again as a cause.
        error: sqlx::Error,
    },
    /// Another process holds the write lock. Retry.
    #[error(
        "the database is locked by another process while {doing}; end that process's transaction"
    )]
    Busy {
        /// What was being done.
        doing: &'static str,
    },
    /// A rule of the database refused this change. Refuse the command that asked for it.
    #[error("the database refused {doing}: {reason}")]
    Refused {
        /// What was being done.
        doing: &'static str,
        /// Which rule.
        reason: String,
    },
    /// A guarded change met other rows than it expected. Refuse the command that asked for it.
    #[error("{doing} changed {changed} rows, not {expected}: the book is not as it was read")]
    Moved {
        /// What was being done.
        doing: &'static str,
        /// Rows that were to change.
        expected: usize,
        /// Rows that changed.
        changed: u64,
    },
    /// A row does not read as what it should be: it was written by another version or damaged.
    #[error("a row of {table} cannot be read: {reason}")]
    Unreadable {
        /// The table.
        table: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The mark cannot be written. Exit: nothing may be sent that is not marked.
    #[error(transparent)]
    Mark(#[from] super::mark::MarkError),
    /// The file cannot be opened as a book.
    #[error("{0}")]
    Unusable(String),
}

/// What makes it impossible to go on, in words for whoever has to look after it.
#[derive(Debug, PartialEq, Eq)]
pub struct Fault {
    what: &'static str,
    advice: &'static str,
}

const FULL: Fault = Fault {
    what: "the disk is full",
    advice: "Nothing that is not on the disk was acknowledged or sent: make room on the disk of the \
             database, or raise its quota, and start again",
};
const READ: Fault = Fault { what: "reading from the disk failed", advice: CHECK };
const WRITE: Fault = Fault { what: "writing to the disk failed", advice: CHECK };
const SYNC: Fault = Fault { what: "syncing to the disk failed", advice: CHECK };
const INPUT_OUTPUT: Fault = Fault { what: "the disk failed", advice: CHECK };
const CHECK: &str = "Nothing that is not on the disk was acknowledged or sent: check the disk and its \
                     file system (the kernel's log may say more), and start again";
const READ_ONLY: Fault = Fault {
    what: "the database cannot be written to",
    advice: "Check who may write to the file and its folder, and whether the file system is mounted \
             read-only, and start again",
};
const CANNOT_OPEN: Fault = Fault {
    what: "a file of the database cannot be opened",
    advice: "Check who may use its folder, and the limit on open files, and start again",
};
const DAMAGED: Fault = Fault {
    what: "the database is damaged",
    advice: "Keep the file with its -wal as they are, check the disk, and do not start again before \
             the file is repaired or replaced",
};
const NO_DATABASE: Fault = Fault {
    what: "the file is not a database",
    advice: "Check store.path; if it is right, the file is damaged: keep it as it is, and check the \
             disk",
};
const OTHER: Fault =
    Fault { what: "the database failed", advice: "Check the disk and the file, and start again" };

/// The fault that a result code of SQLite stands for.
fn fault(code: i32) -> &'static Fault {
    match code {
        // The extended codes of IOERR: READ, SHORT_READ; WRITE; FSYNC, DIR_FSYNC.
        266 | 522 => &READ,
        778 => &WRITE,
        1034 | 1290 => &SYNC,
        _ => match code & 0xff {
            8 => &READ_ONLY,
            10 => &INPUT_OUTPUT,
            11 => &DAMAGED,
            13 => &FULL,
            14 => &CANNOT_OPEN,
            26 => &NO_DATABASE,
            _ => &OTHER,
        },
    }
}

/// The fault of an error that does not come from SQLite.
fn fault_without_code(error: &sqlx::Error) -> &'static Fault {
    let sqlx::Error::Io(error) = error else { return &OTHER };
    if error.kind() == ErrorKind::StorageFull {
        &FULL
    } else if [ErrorKind::PermissionDenied, ErrorKind::ReadOnlyFilesystem].contains(&error.kind()) {
        &READ_ONLY
    } else {
        &INPUT_OUTPUT
    }
}

impl StoreError {
    /// Whether the same change can be tried again after a while.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        matches!(self, Self::Busy { .. })
    }

    /// Whether only the change that was asked for is at fault, and others may go on.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused { .. } | Self::Moved { .. } | Self::Unreadable { .. })
    }
}

/// Primary result codes of SQLite that are about one statement's data.
const DATA_CODES: [i32; 4] =
    [18 /* TOOBIG */, 19 /* CONSTRAINT */, 20 /* MISMATCH */, 25 /* RANGE */];
/// Primary result codes of SQLite that mean that somebody else holds a lock.
const LOCK_CODES: [i32; 2] = [5 /* BUSY */, 6 /* LOCKED */];

/// Says what was being done when SQLite failed.
pub(crate) trait While<T> {
    fn while_doing(self, doing: &'static str) -> Result<T, StoreError>;
}

impl<T> While<T> for Result<T, sqlx::Error> {
    fn while_doing(self, doing: &'static str) -> Result<T, StoreError> {
        self.map_err(|source| classify(source, doing))
    }
}

pub(super) fn classify(source: sqlx::Error, doing: &'static str) -> StoreError {
    let code = source
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code)
        .and_then(|code| code.parse::<i32>().ok());
    // The extended code has the primary one in its low byte.
    match code {
        Some(code) if DATA_CODES.contains(&(code & 0xff)) => {
            StoreError::Refused { doing, reason: source.to_string() }
        }
        Some(code) if LOCK_CODES.contains(&(code & 0xff)) => StoreError::Busy { doing },
        Some(code) => StoreError::Fatal { doing, fault: fault(code), error: source },
        None => StoreError::Fatal { doing, fault: fault_without_code(&source), error: source },
    }
}

/// The error of a row that does not read.
pub(crate) fn unreadable(
    table: &'static str,
) -> impl Fn(&dyn std::fmt::Display) -> StoreError + Copy {
    move |reason| StoreError::Unreadable { table, reason: reason.to_string() }
}
