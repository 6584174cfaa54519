//! The daemon with the shim of `tests/shim/disk.c` under it, and the record that the shim writes.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use super::{
    daemon::{Process, binary},
    world::World,
};

/// A file of the book, or the folder that it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    Book,
    Wal,
    Journal,
    Folder,
}

/// Something that happened between the daemon and the C library, in the order of happening.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A process began, with no descriptor open.
    Started,
    Created(Name),
    Opened(i32, Name),
    Closed(i32),
    Written(i32, usize, Vec<u8>),
    Cut(i32, usize),
    SyncBegun(i32),
    Synced(i32),
    SyncFailed(i32),
    Removed(Name),
    /// These bytes left, from this moment on.
    Left(i32, Vec<u8>),
    Arrived(i32, Vec<u8>),
}

/// How the disk is to fail, once the trigger is pulled.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Failing {
    /// One of the shim's faults.
    pub(crate) fault: &'static str,
    /// `book` or `wal`.
    pub(crate) file: &'static str,
    /// How many calls still succeed.
    pub(crate) skip: u32,
}

/// A world whose daemon is recorded.
pub(crate) struct Recorder<'w> {
    world: &'w World,
    shim: PathBuf,
    /// How many processes were recorded, each in a file of its own.
    recorded: AtomicU32,
    /// The database as it was before the first recorded process, when it had no log.
    pub(crate) before: Vec<u8>,
}

impl<'w> Recorder<'w> {
    pub(crate) fn new(world: &'w World) -> Self {
        let shim = world.path("disk.so");
        build_shim(&shim);
        assert!(!world.path("book.db-wal").exists(), "the book is in two files already");
        let before = fs::read(world.path("book.db")).unwrap();
        Self { world, shim, recorded: AtomicU32::new(0), before }
    }

    /// Starts `settled run` on the recorded disk and waits until it is ready.
    pub(crate) async fn start(&self, failing: Option<Failing>) -> Process {
        let command = self.command(failing);
        Process::start_command(command, self.world.setting("http.listen")).await
    }

    /// `settled run` on the recorded disk; what it says goes to a file.
    pub(crate) fn command(&self, failing: Option<Failing>) -> tokio::process::Command {
        let said = File::create(self.said_path()).unwrap();
        let number = self.recorded.fetch_add(1, Ordering::Relaxed);
        let mut command = binary(&self.world.config_file());
        command
            .arg("run")
            .env("LD_PRELOAD", &self.shim)
            .env("DISK_SHIM_BOOK", fs::canonicalize(self.world.path("book.db")).unwrap())
            .env("DISK_SHIM_LOG", self.log_path(number))
            .stdout(said.try_clone().unwrap())
            .stderr(said);
        if let Some(failing) = failing {
            command
                .env("DISK_SHIM_FAULT", failing.fault)
                .env("DISK_SHIM_FILE", failing.file)
                .env("DISK_SHIM_SKIP", failing.skip.to_string())
                .env("DISK_SHIM_TRIGGER", self.trigger_path());
        }
        command
    }

    /// From now on the disk fails, if it was told to.
    pub(crate) fn pull_the_trigger(&self) {
        File::create(self.trigger_path()).unwrap();
    }

    /// What the last process said.
    pub(crate) fn said(&self) -> String {
        fs::read_to_string(self.said_path()).unwrap()
    }

    /// Whether a call was made to fail.
    pub(crate) fn has_failed(&self) -> bool {
        self.world.path("disk.trigger.met").exists()
    }

    /// What happened, from the first process to the last.
    pub(crate) fn events(&self) -> Vec<Event> {
        (0..self.recorded.load(Ordering::Relaxed))
            .flat_map(|number| events(&fs::read(self.log_path(number)).unwrap()))
            .collect()
    }

    fn said_path(&self) -> PathBuf {
        self.world.path("said.log")
    }

    fn log_path(&self, number: u32) -> PathBuf {
        self.world.path(&format!("disk.record.{number}"))
    }

    fn trigger_path(&self) -> PathBuf {
        self.world.path("disk.trigger")
    }
}

fn build_shim(shim: &Path) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/shim/disk.c");
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-o"])
        .args([shim, &source])
        .args(["-ldl", "-pthread"])
        .output()
        .unwrap_or_else(|error| {
            panic!("`cc` cannot be run ({error}): install a C compiler, e.g. the package gcc")
        });
    let said = String::from_utf8_lossy(&built.stderr);
    assert!(
        built.status.success(),
        "tests/shim/disk.c cannot be built (are the headers of the C library there, e.g. the \
         package libc6-dev?): {said}"
    );
}

/// Reads a record; see `enum kind` in the shim. The end of a process may cut off its last event.
fn events(mut record: &[u8]) -> Vec<Event> {
    let mut events = Vec::new();
    // Where the bytes are whose leaving has not been reported on yet.
    let mut leaving = std::collections::HashMap::new();
    while let Some((header, rest)) = record.split_first_chunk::<24>() {
        let kind = header[0];
        let fd = i32::from_le_bytes(header[4..8].try_into().unwrap());
        let number = u64::from_le_bytes(header[8..16].try_into().unwrap()) as usize;
        let length = u64::from_le_bytes(header[16..24].try_into().unwrap()) as usize;
        let Some((bytes, rest)) = rest.split_at_checked(length) else { break };
        let bytes = bytes.to_vec();
        record = rest;
        events.push(match kind {
            b'P' => Event::Started,
            b'C' => Event::Created(name(number)),
            b'O' => Event::Opened(fd, name(number)),
            b'X' => Event::Closed(fd),
            b'W' => Event::Written(fd, number, bytes),
            b'T' => Event::Cut(fd, number),
            b'B' => Event::SyncBegun(fd),
            b'S' => Event::Synced(fd),
            b'E' => Event::SyncFailed(fd),
            b'U' => Event::Removed(name(number)),
            b'N' => {
                leaving.insert(fd, events.len());
                Event::Left(fd, bytes)
            }
            b'n' => {
                let place: usize = leaving.remove(&fd).expect("it was about to leave");
                let Event::Left(_, bytes) = &mut events[place] else { unreachable!() };
                bytes.truncate(number);
                continue;
            }
            b'R' => Event::Arrived(fd, bytes),
            other => panic!("the record has an event of kind {other}"),
        });
    }
    events
}

fn name(number: usize) -> Name {
    [Name::Book, Name::Wal, Name::Journal, Name::Folder][number]
}
