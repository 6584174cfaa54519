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

use super::output;
use crate::{
    config::Config,
    operator::audit,
    store::{
        archive::open_history,
        backup::copy_book,
        open_readers,
        verify::Head,
    },
};

/// Where to, and how thoroughly.
#[derive(Debug, Args)]
pub(super) struct BackupArgs {
    /// Where to. It must not be there yet.
    file: PathBuf,
    /// Check the file and its place in the journal only, not every seal, balance and signature.
    #[arg(long)]
    quick: bool,
}

pub(super) async fn run(config: &Config, arguments: &BackupArgs) -> anyhow::Result<()> {
    let BackupArgs { file, quick } = arguments;
    let partial = beside(file, ".partial");
    for path in [file, &partial] {
        ensure!(
            !path.try_exists().with_context(|| format!("cannot look for {}", path.display()))?,
            "{} is there already, and nothing is replaced{}",
            path.display(),
            if path == file { "" } else { ": a backup is under way, or was cut off; remove it then" }
        );
    }
    let book = open_readers(&config.store.path).await?;
    let before = book.last_link().await?.context("the book has no journal")?;
    book.close().await;
    let begun = Instant::now();
    let made = make(&config.store.path, &partial, file, before, *quick).await;
    let (head, bytes) = match made {
        Ok(made) => made,
        Err(error) => {
            let left = remove_all(&partial);
            return Err(error.context(match left {
                Ok(()) => format!("no backup was made; {} is removed", partial.display()),
                Err(left) => format!(
                    "no backup was made; what is left of it is {}, which cannot be removed ({left})",
                    partial.display()
                ),
            }));
        }
    };
    output::line(format_args!(
        "{} has the book as of seal {}:{}, {bytes} bytes, {} after {}",
        file.display(),
        head.commit,
        head.chain,
        if *quick { "checked in part" } else { "verified" },
        output::duration(begun.elapsed()),
    ))
}

/// Copies, syncs, verifies, and gives the copy its name.
async fn make(
    book: &Path,
    partial: &Path,
    file: &Path,
    before: Head,
    quick: bool,
) -> anyhow::Result<(Head, u64)> {
    copy_book(book, partial).await?;
    let bytes = sync(partial).with_context(|| format!("cannot sync {}", partial.display()))?;
    let head = verify(partial, before, quick).await?;
    // What reading has left beside it belongs to a name that it will not have.
    for suffix in ["-wal", "-shm"] {
        remove(&beside(partial, suffix)).context("cannot clear up after verifying")?;
    }
    rename_new(partial, file).with_context(|| format!("cannot name it {}", file.display()))?;
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .with_context(|| format!("cannot sync {}", folder.display()))?;
    Ok((head, bytes))
}

/// The copy must hold in itself, and have at least what the book had when this began.
async fn verify(partial: &Path, before: Head, quick: bool) -> anyhow::Result<Head> {
    let copy = if quick { open_readers(partial).await? } else { open_history(partial).await? };
    let checked = async {
        if quick {
            let faults = copy.integrity_faults().await?;
            ensure!(faults.is_empty(), "the copy is damaged: {}", faults.join("; "));
        } else {
            let audit = audit::audit(&copy, Some(before)).await?;
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

fn sync(file: &Path) -> io::Result<u64> {
    let file = File::open(file)?;
    file.sync_all()?;
    Ok(file.metadata()?.len())
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

fn remove_all(partial: &Path) -> io::Result<()> {
    for suffix in ["", "-journal", "-wal", "-shm"] {
        remove(&beside(partial, suffix))?;
    }
    Ok(())
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}
