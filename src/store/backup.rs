//! A copy of a book that is in use.

use std::path::Path;

use sqlx::{ConnectOptions as _, Connection as _};

use super::{
    Readers, StoreError,
    error::{While as _, unreadable},
    open::options,
    verify::Head,
};
use crate::domain::journal::Hash32;

impl Readers {
    /// The last link of the journal.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn last_link(&self) -> Result<Option<Head>, StoreError> {
        let row = sqlx::query!(
            r#"SELECT commit_seq AS "commit_seq!", chain FROM journal
               ORDER BY commit_seq DESC LIMIT 1"#
        )
        .fetch_optional(&self.pool)
        .await
        .while_doing("reading the last link of the journal")?;
        row.map(|row| {
            let chain = Hash32::try_from(row.chain.as_slice());
            let chain = chain.map_err(|error| unreadable("journal")(&error))?;
            Ok(Head { commit: row.commit_seq, chain })
        })
        .transpose()
    }

    /// A link of the journal by its place.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn has_link(&self, head: Head) -> Result<bool, StoreError> {
        let chain = head.chain.as_bytes().as_slice();
        let row = sqlx::query!(
            r#"SELECT EXISTS (SELECT 1 FROM journal WHERE commit_seq = ?1 AND chain = ?2)
               AS "there!: bool""#,
            head.commit,
            chain
        )
        .fetch_one(&self.pool)
        .await
        .while_doing("looking for a link of the journal")?;
        Ok(row.there)
    }
}

/// Writes the book or archive at `book` into `copy`, which must not be there, as it is at one moment. The
/// writer goes on meanwhile; the log of a book grows until this ends.
///
/// # Errors
/// [`StoreError`]; what is of the copy is not usable.
pub async fn copy_book(book: &Path, copy: &Path) -> Result<(), StoreError> {
    let doing = "copying the book";
    let name = copy
        .to_str()
        .ok_or_else(|| StoreError::Unusable(format!("{} is no name in UTF-8", copy.display())))?;
    let mut connection = options(book).read_only(true).connect().await.while_doing(doing)?;
    let copied = sqlx::query("VACUUM INTO ?1").bind(name).execute(&mut connection).await;
    let closed = connection.close().await;
    copied.while_doing(doing)?;
    closed.while_doing(doing)
}

/// What SQLite finds wrong with the copy of an archive.
///
/// # Errors
/// [`StoreError`] when it cannot be read.
pub async fn archive_faults(copy: &Path) -> Result<Vec<String>, StoreError> {
    let doing = "checking the copy of an archive";
    let mut connection = options(copy).read_only(true).connect().await.while_doing(doing)?;
    let found: Result<Vec<String>, _> =
        sqlx::query_scalar("PRAGMA integrity_check(20)").fetch_all(&mut connection).await;
    connection.close().await.while_doing(doing)?;
    Ok(found.while_doing(doing)?.into_iter().filter(|line| line != "ok").collect())
}
