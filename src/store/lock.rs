//! One process changes a book: a lock held for the life of the process, on a file of its own.
//!
//! The lock is not on the database file, because closing any other descriptor of that file would
//! drop SQLite's own locks.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Seek, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// Permissions of the files beside the database: their owner's only.
const FILE_MODE: u32 = 0o600;

/// Most bytes that are read of what the holder wrote about itself.
const HOLDER_BYTES_MAX: u64 = 256;

/// Why the lock is not ours.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error("{path} is held by {holder}: one process changes a book at a time")]
    Held {
        /// The lock file.
        path: PathBuf,
        /// What the holder wrote about itself.
        holder: String,
    },
    /// The file cannot be used.
    #[error("cannot lock {path}: {source}")]
    Io {
        /// The lock file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The lock; it is released when the process ends, however it ends.
#[derive(Debug)]
pub struct BookLock {
    _file: File,
}

/// The lock file that belongs to a database file.
fn lock_path(database: &Path) -> Result<PathBuf, LockError> {
    beside(database, ".lock")
}

/// The control socket that belongs to a database file.
///
/// # Errors
/// [`LockError::Io`] when the folder is not there.
pub fn socket_path(database: &Path) -> Result<PathBuf, LockError> {
    beside(database, ".sock")
}

/// SQLite follows symbolic links, so two names of one database must have one lock.
fn beside(database: &Path, suffix: &str) -> Result<PathBuf, LockError> {
    let io = |source| LockError::Io { path: database.to_owned(), source };
    let real = match fs::canonicalize(database) {
        Ok(real) => real,
        Err(error) if error.kind() == io::ErrorKind::NotFound && !database.is_symlink() => {
            let folder = database.parent().filter(|folder| !folder.as_os_str().is_empty());
            let folder = fs::canonicalize(folder.unwrap_or(Path::new("."))).map_err(io)?;
            folder.join(database.file_name().unwrap_or_default())
        }
        Err(error) => return Err(io(error)),
    };
    let mut path = real.into_os_string();
    path.push(suffix);
    Ok(PathBuf::from(path))
}

impl BookLock {
    /// Takes the lock of `database` for `holder`, a word about who this is.
    ///
    /// # Errors
    /// [`LockError::Held`] when another process has it.
    pub fn take(database: &Path, holder: &str) -> Result<Self, LockError> {
        let path = lock_path(database)?;
        let io = |source| LockError::Io { path: path.clone(), source };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(FILE_MODE)
            .open(&path)
            .map_err(io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // What the holder says of itself is a help, not a condition.
                if file.take(HOLDER_BYTES_MAX).read_to_string(&mut holder).is_err()
                    || holder.trim().is_empty()
                {
                    "another process".clone_into(&mut holder);
                }
                return Err(LockError::Held { path, holder: holder.trim().to_owned() });
            }
            Err(TryLockError::Error(source)) => return Err(io(source)),
        }
        file.set_len(0).map_err(io)?;
        file.rewind().map_err(io)?;
        writeln!(file, "{holder} (process {})", std::process::id()).map_err(io)?;
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_told_who_has_it() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("book.db");
        let first = BookLock::take(&database, "settled run").unwrap();
        let second = BookLock::take(&database, "settled book import").unwrap_err();
        let text = second.to_string();
        assert!(text.contains("settled run (process "), "{text}");
        drop(first);
        BookLock::take(&database, "settled book import").unwrap();
    }

    #[test]
    fn two_names_of_one_book_have_one_lock() {
        let folder = tempfile::tempdir().unwrap();
        let (database, link) = (folder.path().join("book.db"), folder.path().join("link.db"));
        let first = BookLock::take(&database, "settled run").unwrap();
        // A link to nothing would be followed by SQLite to a name that has no lock yet.
        std::os::unix::fs::symlink(&database, &link).unwrap();
        assert!(matches!(BookLock::take(&link, "x"), Err(LockError::Io { .. })));
        fs::write(&database, "").unwrap();
        assert!(matches!(BookLock::take(&link, "x"), Err(LockError::Held { .. })));
        drop(first);
        BookLock::take(&link, "x").unwrap();
    }
}
