//! What a loss of power leaves: the recorded steps are repeated on a model of the disk, and at many
//! moments the files that could be found afterwards are opened as a book.
//!
//! The model is stricter than most disks. Only what a successful sync covered, from its beginning, is
//! sure to be there. Of the rest nothing may be there, or any pieces of 4 KiB of any writes in any
//! order. A name is there only after a sync of the folder. What a failed sync was to write is lost for
//! good, although the page cache goes on to show it to everyone and a later sync succeeds, which is what
//! Linux does.

use std::{
    collections::{HashMap, HashSet},
    fs,
    path::Path,
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};
use settled::store::open_readers;
use sqlx::{
    ConnectOptions as _, Connection as _,
    sqlite::{SqliteConnectOptions, SqliteSynchronous},
};

use super::{
    recording::{Event, Name},
    wire::{Promise, Wire},
};

/// What a disk writes whole, at best.
const PIECE_BYTES: usize = 4_096;

/// The files that make up a book, in the order of [`Name`].
const FILES: [&str; 3] = ["book.db", "book.db-wal", "book.db-journal"];

/// A file's contents, also after its name has gone.
#[derive(Default)]
struct Contents {
    kept: Vec<u8>,
    /// What is not sure to be on the disk, with the number of the event.
    loose: Vec<(usize, Change)>,
}

#[derive(Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Cut(usize),
}

#[derive(Clone, Copy)]
enum Target {
    Contents(usize),
    Folder,
}

/// The disk, as the processes see it and as a loss of power would leave it.
struct Disk {
    contents: Vec<Contents>,
    names: [Option<usize>; FILES.len()],
    kept_names: [Option<usize>; FILES.len()],
    /// Names that were made or removed and are not sure to be so on the disk.
    loose_names: Vec<(usize, Name, Option<usize>)>,
    targets: HashMap<i32, Target>,
    /// When the sync of a descriptor began.
    syncs: HashMap<i32, usize>,
    events: usize,
    /// Changes when what is sure changes.
    version: usize,
}

impl Disk {
    fn new(book: Vec<u8>) -> Self {
        Self {
            contents: vec![Contents { kept: book, loose: Vec::new() }],
            names: [Some(0), None, None],
            kept_names: [Some(0), None, None],
            loose_names: Vec::new(),
            targets: HashMap::new(),
            syncs: HashMap::new(),
            events: 0,
            version: 0,
        }
    }

    fn apply(&mut self, event: &Event) {
        self.events += 1;
        match event {
            Event::Started => self.targets.clear(),
            Event::Created(name) => {
                self.contents.push(Contents::default());
                self.rename(*name, Some(self.contents.len() - 1));
            }
            Event::Removed(name) => self.rename(*name, None),
            Event::Opened(fd, Name::Folder) => {
                self.targets.insert(*fd, Target::Folder);
            }
            Event::Opened(fd, name) => {
                let contents = self.names[*name as usize].expect("an opened file is there");
                self.targets.insert(*fd, Target::Contents(contents));
            }
            Event::Closed(fd) => {
                self.targets.remove(fd);
            }
            Event::Written(fd, offset, bytes) => {
                self.change(*fd, Change::Write(*offset, bytes.clone()));
            }
            Event::Cut(fd, size) => self.change(*fd, Change::Cut(*size)),
            Event::SyncBegun(fd) => {
                self.syncs.insert(*fd, self.events);
            }
            Event::Synced(fd) => self.sync(*fd, true),
            Event::SyncFailed(fd) => self.sync(*fd, false),
            Event::Left(..) | Event::Arrived(..) => {}
        }
    }

    fn rename(&mut self, name: Name, contents: Option<usize>) {
        self.names[name as usize] = contents;
        self.loose_names.push((self.events, name, contents));
    }

    fn change(&mut self, fd: i32, change: Change) {
        let Target::Contents(contents) = self.targets[&fd] else {
            panic!("the folder is written to");
        };
        self.contents[contents].loose.push((self.events, change));
    }

    fn sync(&mut self, fd: i32, succeeded: bool) {
        let begun = self.syncs.remove(&fd).expect("a sync that ends has begun");
        self.version += 1;
        match self.targets[&fd] {
            Target::Folder => {
                let covered = self.loose_names.extract_if(.., |(at, ..)| *at < begun);
                for (_, name, contents) in covered.filter(|_| succeeded) {
                    self.kept_names[name as usize] = contents;
                }
            }
            Target::Contents(contents) => {
                let Contents { kept, loose } = &mut self.contents[contents];
                let covered = loose.extract_if(.., |(at, _)| *at < begun);
                for (_, change) in covered.filter(|_| succeeded) {
                    make(kept, &change);
                }
            }
        }
    }

    fn has_loose_ends(&self) -> bool {
        !self.loose_names.is_empty() || self.contents.iter().any(|file| !file.loose.is_empty())
    }

    /// The files that a loss of power leaves, at the least.
    fn at_the_least(&self) -> [Option<Vec<u8>>; FILES.len()] {
        self.kept_names.map(|file| file.map(|file| self.contents[file].kept.clone()))
    }

    /// The files with some of what was not synced.
    fn by_chance(&self, chance: &mut StdRng) -> [Option<Vec<u8>>; FILES.len()] {
        let mut names = self.kept_names;
        let renamed = chance.random_range(0..=self.loose_names.len());
        for (_, name, contents) in &self.loose_names[..renamed] {
            names[*name as usize] = *contents;
        }
        names.map(|file| file.map(|file| self.contents[file].by_chance(chance)))
    }
}

impl Contents {
    fn by_chance(&self, chance: &mut StdRng) -> Vec<u8> {
        let mut pieces: Vec<Change> =
            self.loose.iter().flat_map(|(_, change)| change.pieces()).collect();
        // What came early came whole, or anything came, in any order.
        if chance.random_bool(0.5) {
            pieces.truncate(chance.random_range(0..=pieces.len()));
        } else {
            let share = chance.random_range(0.0..=1.0);
            pieces.retain(|_| chance.random_bool(share));
            pieces.shuffle(chance);
        }
        let mut bytes = self.kept.clone();
        for piece in &pieces {
            make(&mut bytes, piece);
        }
        bytes
    }
}

impl Change {
    /// The change in pieces that a disk writes whole.
    fn pieces(&self) -> Vec<Self> {
        let Self::Write(offset, bytes) = self else { return vec![self.clone()] };
        let first = PIECE_BYTES - offset % PIECE_BYTES;
        let mut pieces = Vec::new();
        let (mut at, mut rest, mut length) = (*offset, bytes.as_slice(), first);
        while !rest.is_empty() {
            let (piece, others) = rest.split_at(length.min(rest.len()));
            pieces.push(Self::Write(at, piece.to_vec()));
            (at, rest, length) = (at + piece.len(), others, PIECE_BYTES);
        }
        pieces
    }
}

fn make(bytes: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Cut(size) => bytes.resize(*size, 0),
        Change::Write(offset, new) => {
            let end = offset + new.len();
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[*offset..end].copy_from_slice(new);
        }
    }
}

/// What was found after many losses of power.
#[derive(Debug, Default)]
pub(crate) struct Losses {
    /// How many images were opened.
    pub(crate) images: usize,
    /// Messages that were acknowledged, one for each acknowledgement.
    pub(crate) acknowledged: usize,
    /// Moments at which acknowledgements left: one may be for many messages.
    pub(crate) acknowledgements: usize,
    /// Updates that left.
    pub(crate) sent: usize,
    /// Acknowledged messages without a job, at the first moment at which that was found.
    pub(crate) jobs_missing: Vec<String>,
    /// Updates that left without their attempt.
    pub(crate) attempts_missing: Vec<String>,
    /// Images that are no sound book.
    pub(crate) unsound: Vec<String>,
}

impl Losses {
    pub(crate) fn assert_none(&self) {
        assert_eq!(self.jobs_missing, Vec::<String>::new(), "acknowledged, and not on the disk");
        assert_eq!(self.attempts_missing, Vec::<String>::new(), "sent, and not on the disk");
        assert_eq!(self.unsound, Vec::<String>::new(), "no sound book");
    }
}

/// Loses the power at every moment at which something was promised, when only what was synced is left,
/// and at about `samples` further moments, when anything else may be left too.
pub(crate) async fn lose(
    before: Vec<u8>,
    events: &[Event],
    folder: &Path,
    samples: usize,
    seed: u64,
) -> Losses {
    let mut chance = StdRng::seed_from_u64(seed);
    let mut disk = Disk::new(before);
    let mut wire = Wire::default();
    let mut promised = Promised::default();
    let mut losses = Losses::default();
    let mut known: Option<(usize, Found)> = None;
    let share = (samples as f64 / events.len() as f64).min(1.0);
    for (number, event) in events.iter().enumerate() {
        disk.apply(event);
        let fresh = wire.apply(event);
        if !fresh.is_empty() {
            promised.add(fresh, &mut losses);
            if known.as_ref().is_none_or(|(version, _)| *version != disk.version) {
                let found = find(&disk.at_the_least(), folder, &mut losses, number).await;
                known = Some((disk.version, found));
            }
            if let Some((_, found)) = &known {
                promised.compare(found, &mut losses, number);
            }
        }
        if disk.has_loose_ends() && chance.random_bool(share) {
            let found = find(&disk.by_chance(&mut chance), folder, &mut losses, number).await;
            promised.compare(&found, &mut losses, number);
        }
    }
    // The last of all: nothing more was promised after this, and nothing may be lost of it.
    let found = find(&disk.at_the_least(), folder, &mut losses, events.len()).await;
    promised.compare(&found, &mut losses, events.len());
    losses
}

/// What others rely on.
#[derive(Default)]
struct Promised {
    messages: HashSet<String>,
    bodies: HashSet<String>,
}

impl Promised {
    fn add(&mut self, promises: Vec<Promise>, losses: &mut Losses) {
        let has_acknowledged = promises.iter().any(|it| matches!(it, Promise::Acknowledged(_)));
        losses.acknowledgements += usize::from(has_acknowledged);
        for promise in promises {
            match promise {
                Promise::Acknowledged(message) => {
                    losses.acknowledged += 1;
                    self.messages.insert(String::from_utf8(message).unwrap());
                }
                Promise::Sent(body) => {
                    losses.sent += 1;
                    self.bodies.insert(String::from_utf8(body).unwrap());
                }
            }
        }
    }

    fn compare(&self, found: &Found, losses: &mut Losses, number: usize) {
        for message in self.messages.difference(&found.messages) {
            losses.jobs_missing.push(format!("event {number}: {message}"));
        }
        for body in self.bodies.difference(&found.bodies) {
            losses.attempts_missing.push(format!("event {number}: {body}"));
        }
    }
}

/// What is in an image.
#[derive(Default)]
struct Found {
    messages: HashSet<String>,
    bodies: HashSet<String>,
}

/// Opens an image as the next start would, and reads it. One that cannot be read has nothing in it.
async fn find(
    image: &[Option<Vec<u8>>; FILES.len()],
    folder: &Path,
    losses: &mut Losses,
    number: usize,
) -> Found {
    losses.images += 1;
    let folder = folder.join(format!("image-{}", losses.images));
    fs::create_dir(&folder).unwrap();
    for (name, bytes) in FILES.iter().zip(image) {
        if let Some(bytes) = bytes {
            fs::write(folder.join(name), bytes).unwrap();
        }
    }
    let found = match read(&folder.join(FILES[0])).await {
        Ok((found, faults)) => {
            losses.unsound.extend(faults.iter().map(|fault| format!("event {number}: {fault}")));
            found
        }
        Err(error) => {
            losses.unsound.push(format!("event {number}: {error}"));
            Found::default()
        }
    };
    fs::remove_dir_all(&folder).unwrap();
    found
}

async fn read(book: &Path) -> anyhow::Result<(Found, Vec<String>)> {
    // It is thrown away at once; its own syncs would only take time.
    let options = SqliteConnectOptions::new().filename(book).synchronous(SqliteSynchronous::Off);
    let mut connection = options.connect().await?;
    let mut faults: Vec<String> =
        sqlx::query_scalar("PRAGMA integrity_check").fetch_all(&mut connection).await?;
    faults.retain(|line| line != "ok");
    let messages = sqlx::query_scalar("SELECT raw FROM jobs JOIN messages USING (job_seq)")
        .fetch_all(&mut connection)
        .await?;
    let bodies = sqlx::query_scalar("SELECT body FROM attempts").fetch_all(&mut connection).await?;
    let readers = open_readers(book).await?;
    let verification = readers.verify().await?;
    readers.close().await;
    if !verification.holds() {
        faults.push(format!("{verification:?}"));
    }
    connection.close().await?;
    let found =
        Found { messages: messages.into_iter().collect(), bodies: bodies.into_iter().collect() };
    Ok((found, faults))
}
