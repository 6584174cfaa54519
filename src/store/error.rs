//! What can go wrong with the database, by what to do about it.

/// A failure of the database.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk or the file failed, or SQLite cannot go on. Exit: restart is the recovery, because
    /// after a failed write nobody knows what the page cache holds.
    #[error(
        "the database failed while {doing}: {source}. Stop, check the disk and the file, start again"
    )]
    Fatal {
        /// What was being done.
        doing: &'static str,
        /// What SQLite said.
        source: sqlx::Error,
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

fn classify(source: sqlx::Error, doing: &'static str) -> StoreError {
    let code = source
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code)
        .and_then(|code| code.parse::<i32>().ok())
        // The extended code has the primary one in its low byte.
        .map(|code| code & 0xff);
    match code {
        Some(code) if DATA_CODES.contains(&code) => {
            StoreError::Refused { doing, reason: source.to_string() }
        }
        Some(code) if LOCK_CODES.contains(&code) => StoreError::Busy { doing },
        Some(_) | None => StoreError::Fatal { doing, source },
    }
}

/// The error of a row that does not read.
pub(crate) fn unreadable(
    table: &'static str,
) -> impl Fn(&dyn std::fmt::Display) -> StoreError + Copy {
    move |reason| StoreError::Unreadable { table, reason: reason.to_string() }
}
