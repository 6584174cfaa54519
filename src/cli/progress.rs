//! How far long work has come: a bar on a terminal, now and then a line elsewhere. On standard error, so
//! that answers stay clean.

use std::{
    cell::Cell,
    fs,
    future::{Future, pending},
    io::{self, IsTerminal as _},
    path::Path,
    pin::pin,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::MissedTickBehavior;

use crate::tally::Tally;

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

/// Waits for work that counts what it does. The bar begins when it is known how much there is.
pub(super) async fn counting<T>(
    what: &'static str,
    tally: &Tally,
    work: impl Future<Output = T>,
) -> T {
    let bar = is_shown().then(|| {
        let bar = styled(ProgressBar::new_spinner(), SPINNER);
        bar.set_prefix(what);
        bar
    });
    let begun = Instant::now();
    let draw = |bar: &ProgressBar| {
        let (done, total) = tally.so_far();
        if bar.length().is_none()
            && let Some(total) = total
        {
            bar.set_style(style(BAR));
            bar.set_length(total);
            bar.reset_eta();
        }
        bar.set_position(done);
        bar.tick();
    };
    let say = || match tally.so_far() {
        (done, Some(total)) => eprintln!("{what}: {done} of {total}"),
        (_, None) => eprintln!("{}", at_it(what, begun)),
    };
    let news = || tally.expected();
    let done = ticking(work, news, bar.as_ref().map(|bar| || draw(bar)), say).await;
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    done
}

fn at_it(what: &str, begun: Instant) -> String {
    format!("{what}: at it for {} s", begun.elapsed().as_secs())
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
    let draw = |bar: &ProgressBar| bar.set_position(size());
    let say = || eprintln!("{what}: {} of {bytes} bytes", size());
    let done = ticking(work, pending, bar.as_ref().map(|bar| || draw(bar)), say).await;
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    done
}

/// Draws the picture again and again, and whenever there is news, until the work is done. Where there is
/// no picture, says something now and then.
async fn ticking<T, N: Future<Output = ()>>(
    work: impl Future<Output = T>,
    news: impl Fn() -> N,
    picture: Option<impl Fn()>,
    say: impl Fn(),
) -> T {
    let mut work = pin!(work);
    let every = if picture.is_some() { TICK } else { LINE_EVERY };
    let tell = || picture.as_ref().map_or_else(&say, |draw| draw());
    let mut tick = tokio::time::interval(every);
    // What keeps this thread busy for long is told once behind that, and not once for each time missed.
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first tick is now: a picture appears at once, and a line only if the work lasts.
    tick.tick().await;
    if picture.is_some() {
        tell();
    }
    loop {
        tokio::select! {
            biased;
            done = work.as_mut() => return done,
            () = news(), if picture.is_some() => tell(),
            _ = tick.tick() => tell(),
        }
    }
}

fn is_shown() -> bool {
    io::stderr().is_terminal()
}

fn styled(bar: ProgressBar, template: &str) -> ProgressBar {
    bar.with_style(style(template))
}

/// A template that cannot be read shows the default bar, which is no harm.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
