//! The database: the only room with SQL in it.
//!
//! One connection writes, inside the writer's transactions ([`batch`]); a small read-only pool
//! serves everyone else ([`query`]). No SQL and no SQLite type leaves this room, so that another
//! engine can take its place.
//!
//! What must never happen here: a rule about money that is not in `domain`; a sum or comparison of
//! quantities in SQL; a commit that is dropped or raced against a time limit.

pub mod alerts;
pub mod archive;
pub mod backup;
pub mod batch;
pub mod error;
pub mod evidence;
mod flush;
mod journal;
mod kept;
mod load;
pub mod lock;
mod log;
pub mod mark;
#[cfg(test)]
pub(crate) mod memory;
mod open;
pub mod query;
pub mod restore;
mod rows;
pub mod runs;
pub mod verify;
pub mod work;

pub use error::StoreError;
pub use mark::{Mark, MarkError};
pub use open::{OpenedBook, Readers, WriteConnection, open_readers, open_writer};
