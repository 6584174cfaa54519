//! Archive: what happened to jobs that are over for long goes into another file, so that the book stays
//! small and fast. Nothing waits for it, and it waits for everything else.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use super::wake::Wake;
use crate::{
    clock::Clock,
    config::ArchiveConfig,
    domain::{ids::JobSeq, time::TimestampMs},
    metrics::Metrics,
    store::{
        Readers, StoreError,
        archive::{ArchiveError, ArchiveFile},
        query::Archivable,
    },
    tally::Tally,
    writer::{WriterGone, WriterHandle},
};

/// Jobs whose rows go together in the daemon. Their removal is a batch of the writer, and others wait for
/// its end.
const JOBS_AT_A_TIME: usize = 100;

/// The same where nobody else waits.
const JOBS_AT_A_TIME_ALONE: usize = 1_000;

/// Jobs that are looked at together.
const LOOKED_AT: i64 = 1_000;

/// How long the daemon rests between two such batches, so that it is busy with other things mostly.
const BREATH: Duration = Duration::from_millis(100);

const DAY: Duration = Duration::from_hours(24);

/// Why archiving stopped.
#[derive(Debug, thiserror::Error)]
pub enum ArchivingError {
    /// The book cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The archive cannot be used.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The book did not let the rows go.
    #[error("the rows could not be removed from the book, which keeps them: {0}")]
    Refused(String),
    /// The writer has ended.
    #[error(transparent)]
    WriterGone(#[from] WriterGone),
}

/// Moves old history into the archive.
pub struct Archiver {
    /// The book's file.
    pub book: PathBuf,
    /// The archive's file.
    pub file: PathBuf,
    /// How long a job has been final before its rows go.
    pub after: Duration,
    /// The book, for reading.
    pub readers: Readers,
    /// Who removes rows.
    pub writer: WriterHandle,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Every job up to here is archived.
    pub from: JobSeq,
}

impl Archiver {
    /// An archiver as it is configured; `None` if nothing is to be archived.
    #[must_use]
    pub fn new(
        config: &ArchiveConfig,
        book: PathBuf,
        readers: Readers,
        writer: WriterHandle,
        metrics: Arc<Metrics>,
        clock: Arc<dyn Clock>,
    ) -> Option<Self> {
        let file = config.path.clone()?;
        let after = DAY.saturating_mul(config.after_days);
        Some(Self { book, file, after, readers, writer, metrics, clock, from: JobSeq::from(0) })
    }

    /// Archives now and then, and when the bell rings, until the daemon ends. What fails is told and tried
    /// again: the book keeps what the archive does not take.
    ///
    /// # Errors
    /// [`StoreError`] when the book cannot be read.
    pub async fn run(
        mut self,
        every: Duration,
        wake: Wake,
        stop: CancellationToken,
    ) -> Result<(), StoreError> {
        while !stop.is_cancelled() {
            match self.archive(Some(BREATH), &stop, &Tally::default()).await {
                Ok(0) => {}
                Ok(jobs) => tracing::info!(
                    jobs, archive = %self.file.display(), "the history of old jobs went into the archive"
                ),
                Err(ArchivingError::Store(error)) => return Err(error),
                Err(ArchivingError::WriterGone(WriterGone)) => return Ok(()),
                Err(error @ (ArchivingError::Archive(_) | ArchivingError::Refused(_))) => {
                    self.metrics.archive_failed();
                    tracing::error!(
                        archive = %self.file.display(), %error,
                        "old history cannot be archived: the book keeps it, and it is tried again"
                    );
                }
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = wake.archive.notified() => {}
                () = tokio::time::sleep(every) => {}
            }
        }
        Ok(())
    }

    /// Archives everything that is old enough, with a rest of `breath` between batches if others have work
    /// to do. Answers how many jobs; they are counted as they go.
    ///
    /// # Errors
    /// [`ArchivingError`]; what was archived until then is.
    pub async fn archive(
        &mut self,
        breath: Option<Duration>,
        stop: &CancellationToken,
        tally: &Tally,
    ) -> Result<u64, ArchivingError> {
        let mut file = None;
        let archived = self.walk(&mut file, breath, stop, tally).await;
        if let Some(file) = file {
            let closed: Result<(), ArchiveError> = ArchiveFile::close(file).await;
            closed?;
        }
        if archived.is_ok() && !stop.is_cancelled() {
            self.metrics.archived_all(self.clock.now());
        }
        archived
    }

    /// How many jobs are old enough now.
    ///
    /// # Errors
    /// [`StoreError`] when the book cannot be read.
    pub async fn waiting(&self) -> Result<u64, StoreError> {
        self.readers.archivable_count(before(self.clock.now(), self.after)).await
    }

    async fn walk(
        &mut self,
        file: &mut Option<ArchiveFile>,
        breath: Option<Duration>,
        stop: &CancellationToken,
        tally: &Tally,
    ) -> Result<u64, ArchivingError> {
        let until = before(self.clock.now(), self.after);
        let (mut at, mut all_before, mut archived) = (self.from, true, 0_u64);
        while !stop.is_cancelled() {
            let looked_at = self.readers.archivable(at, until, LOOKED_AT).await?;
            let (mut ready, mut is_last) = (Vec::new(), looked_at.is_empty());
            for (job, archivable) in looked_at {
                match archivable {
                    Archivable::Done => {}
                    Archivable::Yes => ready.push(job),
                    Archivable::NotYet => all_before = false,
                    Archivable::TooYoung => is_last = true,
                }
                if is_last {
                    break;
                }
                at = job;
                if all_before && ready.is_empty() {
                    self.from = job;
                }
            }
            let together = if breath.is_some() { JOBS_AT_A_TIME } else { JOBS_AT_A_TIME_ALONE };
            for jobs in ready.chunks(together) {
                if stop.is_cancelled() {
                    break;
                }
                self.move_rows(file, jobs).await?;
                let moved = u64::try_from(jobs.len()).unwrap_or(0);
                archived = archived.saturating_add(moved);
                tally.add(moved);
                if let Some(breath) = breath {
                    tokio::time::sleep(breath).await;
                }
            }
            if is_last {
                break;
            }
        }
        Ok(archived)
    }

    /// Copies, and once that is on the disk and compared, removes.
    async fn move_rows(
        &mut self,
        file: &mut Option<ArchiveFile>,
        jobs: &[JobSeq],
    ) -> Result<(), ArchivingError> {
        let mut open = match file.take() {
            Some(open) => open,
            None => ArchiveFile::open(&self.file, &self.book, self.clock.now()).await?,
        };
        let copied = open.copy(jobs).await;
        let open = file.insert(open);
        let removed = self.writer.archive(copied?).await?;
        removed.map_err(ArchivingError::Refused)?;
        open.is_known();
        self.metrics.archived(jobs.len());
        Ok(())
    }
}

fn before(now: TimestampMs, age: Duration) -> TimestampMs {
    let age = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
    TimestampMs::from_millis(now.as_millis().saturating_sub(age))
}
