//! `settled backup`.

use std::{
    ffi::OsString,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context as _, bail, ensure};
use clap::Args;

use super::{output, progress};
use crate::{
    config::Config,
    operator::audit,
    store::{
        archive::open_history,
        backup::{archive_faults, copy_book},
        open_readers,
        verify::Head,
    },
    tally::Tally,
};

/// Where to, and how thoroughly.
#[derive(Debug, Args)]
pub(super) struct BackupArgs {
    /// Where to. It must not be there yet.
    file: PathBuf,
    /// Copy the book's archives too, into the same folder and under their own names.
    #[arg(long)]
    archives: bool,
    /// Check the file and its place in the journal only, not every seal, balance and signature.
    #[arg(long)]
    quick: bool,
}

/// A file that is being copied. It has its name only once everything is as it must be.
struct Copy {
    from: PathBuf,
    to: PathBuf,
}

impl Copy {
    fn new(from: &Path, to: PathBuf) -> anyhow::Result<Self> {
        let copy = Self { from: from.to_owned(), to };
        for path in [&copy.to, &copy.partial()] {
            let is_there = path.try_exists();
            ensure!(
                !is_there.with_context(|| format!("cannot look for {}", path.display()))?,
                "{} is there already, and nothing is replaced{}",
                path.display(),
                if *path == copy.to {
                    ""
                } else {
                    ": a backup is under way, or was cut off; remove it then"
                }
            );
        }
        Ok(copy)
    }

    fn partial(&self) -> PathBuf {
        beside(&self.to, ".partial")
    }

    /// Copies and syncs. Answers the number of bytes.
    async fn make(&self) -> anyhow::Result<u64> {
        let partial = self.partial();
        let bytes = fs::metadata(&self.from).map_or(0, |metadata| metadata.len());
        progress::growing("copying", &partial, bytes, copy_book(&self.from, &partial)).await?;
        let sync = || {
            let file = File::open(&partial)?;
            file.sync_all()?;
            Ok::<_, io::Error>(file.metadata()?.len())
        };
        sync().with_context(|| format!("cannot sync {}", partial.display()))
    }

    /// Gives the copy its name, which is on the disk when this returns.
    fn name(&self) -> anyhow::Result<()> {
        // What reading has left beside it belongs to a name that it will not have.
        for suffix in ["-wal", "-shm"] {
            remove(&beside(&self.partial(), suffix)).context("cannot clear up after verifying")?;
        }
        rename_new(&self.partial(), &self.to)
            .with_context(|| format!("cannot name it {}", self.to.display()))?;
        let folder = self.to.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        File::open(folder)
            .and_then(|folder| folder.sync_all())
            .with_context(|| format!("cannot sync {}", folder.display()))
    }
}

pub(super) async fn run(config: &Config, arguments: &BackupArgs) -> anyhow::Result<()> {
    let begun = Instant::now();
    let mut copies = vec![Copy::new(&config.store.path, arguments.file.clone())?];
    let (head, bytes) = match make(config, arguments, &mut copies).await {
        Ok(made) => made,
        Err(error) => {
            let left: Vec<String> =
                copies.iter().filter_map(|copy| left_of(&copy.partial())).collect();
            return Err(error.context(if left.is_empty() {
                "no backup was made, and nothing is left of it".to_owned()
            } else {
                format!("no backup was made; remove what is left of it: {}", left.join(", "))
            }));
        }
    };
    let archives = copies.len().saturating_sub(1);
    output::line(format_args!(
        "{} has the book as of seal {}:{}, {bytes} bytes, {} after {}{}",
        arguments.file.display(),
        head.commit,
        head.chain,
        if arguments.quick { "checked in part" } else { "verified" },
        output::duration(begun.elapsed()),
        if archives == 0 {
            String::new()
        } else {
            format!("; {archives} archives stand beside it")
        },
    ))
}

/// Copies, syncs, verifies, and gives the copies their names, the book's last.
async fn make(
    config: &Config,
    arguments: &BackupArgs,
    copies: &mut Vec<Copy>,
) -> anyhow::Result<(Head, u64)> {
    let book = open_readers(&config.store.path).await?;
    let before = book.last_link().await;
    book.close().await;
    let before = before?.context("the book has no journal")?;
    let [copy] = copies.as_slice() else { bail!("one book is copied") };
    let bytes = copy.make().await?;
    let partial = copy.partial();
    if arguments.archives {
        // After the book: what the book says is in an archive must be in the archive's copy.
        let read = open_history(&partial).await?;
        let files: Vec<PathBuf> = read.archive_files().map(Path::to_owned).collect();
        let all = read.has_all_archives();
        read.close().await;
        all?;
        for file in files {
            let name = file.file_name().context("an archive has no name")?;
            let archive = Copy::new(&file, arguments.file.with_file_name(name))?;
            copies.push(archive);
            let archive = copies.last().context("it was just added")?;
            archive.make().await?;
            let faults = archive_faults(&archive.partial()).await?;
            ensure!(faults.is_empty(), "{}: {}", archive.partial().display(), faults.join("; "));
        }
    }
    let tally = Tally::default();
    let verified = verify(&partial, before, arguments.quick, &tally);
    let head = progress::counting("verifying the copy", &tally, verified).await?;
    for copy in copies.iter().rev() {
        copy.name()?;
    }
    Ok((head, bytes))
}

/// The copy must hold in itself, and have at least what the book had when this began.
async fn verify(partial: &Path, before: Head, quick: bool, tally: &Tally) -> anyhow::Result<Head> {
    let copy = if quick { open_readers(partial).await? } else { open_history(partial).await? };
    let checked = async {
        if quick {
            let faults = copy.integrity_faults().await?;
            ensure!(faults.is_empty(), "the copy is damaged: {}", faults.join("; "));
        } else {
            let audit = audit::audit_counting(&copy, Some(before), tally).await?;
            let faults: Vec<String> = audit.faults().collect();
            ensure!(audit.holds(), "the copy does not hold: {}", faults.join("; "));
        }
        if !copy.has_link(before).await? {
            bail!("the copy does not have seal {}, which the book had before", before.commit);
        }
        copy.last_link().await?.context("the copy has no journal")
    }
    .await;
    copy.close().await;
    checked
}

/// Renames, but never over another file, where the file system can promise that.
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) if !to.try_exists()? => {
            fs::rename(from, to)
        }
        other => Ok(other?),
    }
}

fn beside(file: &Path, suffix: &str) -> PathBuf {
    let mut name: OsString = file.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Removes what is left of a copy. Answers its name if that was not possible.
fn left_of(partial: &Path) -> Option<String> {
    let removed = ["", "-journal", "-wal", "-shm"].map(|suffix| remove(&beside(partial, suffix)));
    removed.into_iter().any(|removed| removed.is_err()).then(|| partial.display().to_string())
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}
