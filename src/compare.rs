//! The book compared with OES: connections and currencies ([`sync`]), records whose job never came
//! ([`sweep`]), jobs and balances ([`reconcile`]); when asked, and on a schedule.
//!
//! Rules are in `domain`; here is who is asked, in which order. Every read goes through the one budget
//! and the gate ([`ask`]), and every change through the writer. Both sides move while they are looked
//! at, so what seems to differ is looked at again before it is told.

pub mod ask;
pub mod reconcile;
pub mod schedule;
pub mod sweep;
pub mod sync;

use std::{sync::Arc, time::Duration};

use tokio::sync::Mutex;

use crate::{
    clock::Clock,
    domain::{
        decimals::{AmountForm, Scales},
        paging::PagingError,
    },
    metrics::Metrics,
    oes::ReadError,
    store::{Readers, StoreError},
    writer::{WriterGone, WriterHandle},
};
use ask::Asker;

/// Why a comparison could not be done. Nothing is said about what differs then.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// OES did not answer, or not in a way that can be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A list could not be read to its end.
    #[error("OES's list of {what} cannot be read to its end: {source}")]
    Paging {
        /// Of what.
        what: &'static str,
        /// Why.
        source: PagingError,
    },
    /// The book could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The writer has ended.
    #[error(transparent)]
    Writer(#[from] WriterGone),
    /// The book cannot hold what was to be written.
    #[error("the book cannot hold it: {0}")]
    Refused(String),
    /// OES shows no connection, and the book has some.
    #[error(
        "OES shows no connection at all, and the book has {0}: check oes.enterprise_id and the token \
         before anything is made inactive"
    )]
    NothingShown(usize),
    /// More jobs than are compared at once.
    #[error("there are more than {0} jobs in that range: narrow it with --since and --until")]
    TooManyJobs(usize),
    /// The daemon ends.
    #[error("the daemon ends")]
    Ending,
}

/// What comparisons work with. One is at work at a time.
pub struct Desk {
    /// Asks OES.
    pub asker: Asker,
    /// The book.
    pub readers: Readers,
    /// Who changes it.
    pub writer: WriterHandle,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// How old a reserved record must be before its job is missed.
    pub sweep_age: Duration,
    /// How OES's reads give amounts.
    pub amounts: AmountForm,
    /// Whether a balance that differs is a difference.
    pub compare_balances: bool,
    /// Held by whoever compares.
    pub at_work: Mutex<()>,
}

impl Desk {
    /// How OES's amounts are read, as the book has the currencies now.
    async fn scales(&self) -> Result<Scales, StoreError> {
        let currencies = self.readers.currencies().await?.into_iter();
        let decimals = currencies.filter_map(|known| Some((known.currency, known.decimals?)));
        Ok(Scales::new(self.amounts, decimals.collect()))
    }
}
