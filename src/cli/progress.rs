//! How far long work has come: a bar on a terminal, now and then a line elsewhere. On standard error, so
//! that answers stay clean.

use std::{
    cell::Cell,
    fs,
    future::Future,
    io::{self, IsTerminal as _},
    path::Path,
    pin::pin,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

/// Time between two lines where there is no terminal. Work that ends sooner says nothing.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Time between two pictures of something of which nobody knows how long it takes.
const TICK: Duration = Duration::from_millis(100);

const BAR: &str = "{prefix} {wide_bar} {human_pos} of {human_len}, {eta} left";
const BYTES: &str = "{prefix} {wide_bar} {binary_bytes} of {binary_total_bytes}, {eta} left";
const SPINNER: &str = "{spinner} {prefix}, for {elapsed}";

/// Work that goes on.
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    what: &'static str,
    total: usize,
    said: Cell<Instant>,
}

impl Progress {
    /// Work on so many things. One alone is not worth a bar.
    pub(super) fn new(what: &'static str, total: usize) -> Self {
        let bar = (is_shown() && total > 1).then(|| {
            let bar = ProgressBar::new(u64::try_from(total).unwrap_or(u64::MAX));
            styled(bar, BAR)
        });
        if let Some(bar) = &bar {
            bar.set_prefix(what);
        }
        Self { bar, what, total, said: Cell::new(Instant::now()) }
    }

    /// So many are done.
    pub(super) fn at(&self, done: usize) {
        if let Some(bar) = &self.bar {
            bar.set_position(u64::try_from(done).unwrap_or(u64::MAX));
        } else if self.said.get().elapsed() >= LINE_EVERY {
            self.said.set(Instant::now());
            eprintln!("{}: {done} of {}", self.what, self.total);
        }
    }

    /// Writes something between two pictures of the bar.
    pub(super) fn around<T>(&self, write: impl FnOnce() -> T) -> T {
        match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    /// Takes the bar away.
    pub(super) fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.end();
    }
}

/// Waits for work of which nobody knows how long it takes.
pub(super) async fn during<T>(what: &'static str, work: impl Future<Output = T>) -> T {
    let spinner = is_shown().then(|| {
        let spinner = styled(ProgressBar::new_spinner(), SPINNER);
        spinner.set_prefix(what);
        spinner
    });
    let begun = Instant::now();
    let said = || format!("{what}: at it for {} s", begun.elapsed().as_secs());
    let done = ticking(work, spinner.as_ref(), ProgressBar::tick, said).await;
    if let Some(spinner) = spinner {
        spinner.finish_and_clear();
    }
    done
}

/// Waits for a file that grows until it has so many bytes.
pub(super) async fn growing<T>(
    what: &'static str,
    file: &Path,
    bytes: u64,
    work: impl Future<Output = T>,
) -> T {
    let size = || fs::metadata(file).map_or(0, |metadata| metadata.len());
    let bar = is_shown().then(|| {
        let bar = styled(ProgressBar::new(bytes), BYTES);
        bar.set_prefix(what);
        bar
    });
    let said = || format!("{what}: {} of {bytes} bytes", size());
    let done = ticking(work, bar.as_ref(), |bar| bar.set_position(size()), said).await;
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    done
}

/// Draws the bar again and again, or now and then says a line, until the work is done.
async fn ticking<T>(
    work: impl Future<Output = T>,
    bar: Option<&ProgressBar>,
    draw: impl Fn(&ProgressBar),
    said: impl Fn() -> String,
) -> T {
    let mut work = pin!(work);
    let every = if bar.is_some() { TICK } else { LINE_EVERY };
    loop {
        match tokio::time::timeout(every, work.as_mut()).await {
            Ok(done) => return done,
            Err(_) => match bar {
                Some(bar) => draw(bar),
                None => eprintln!("{}", said()),
            },
        }
    }
}

fn is_shown() -> bool {
    io::stderr().is_terminal()
}

fn styled(bar: ProgressBar, template: &str) -> ProgressBar {
    // A template that cannot be read shows the default bar, which is no harm.
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
