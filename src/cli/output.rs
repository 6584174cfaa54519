//! Writing answers to standard output.

use std::{
    fmt::Display,
    io::{self, IsTerminal as _, Write as _},
    time::Duration,
};

use comfy_table::{
    Cell, Color, ColumnConstraint, ContentArrangement, LineStyle, Table, TableStyle,
};
use serde::Serialize;

/// Headings with a rule under them; no other lines, so that rows can be copied and compared.
const STYLE: TableStyle =
    TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─'));
/// The same for whoever reads rows and no pictures.
const PLAIN_STYLE: TableStyle = TableStyle::new();

/// Columns of a terminal that has room for whole lists.
const WIDTH_MIN: u16 = 120;

/// How something stands out on a terminal that has colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tint {
    /// Not at all.
    Plain,
    /// Well.
    Good,
    /// Under way, and waiting for somebody else.
    Waiting,
    /// Somebody should look.
    Warning,
    /// Somebody must look.
    Bad,
}

impl Tint {
    const fn colour(self) -> Option<Color> {
        match self {
            Self::Plain => None,
            Self::Good => Some(Color::Green),
            Self::Waiting => Some(Color::Cyan),
            Self::Warning => Some(Color::Yellow),
            Self::Bad => Some(Color::Red),
        }
    }

    /// The same as a terminal is told it.
    const fn code(self) -> Option<u8> {
        match self {
            Self::Plain => None,
            Self::Good => Some(32),
            Self::Waiting => Some(36),
            Self::Warning => Some(33),
            Self::Bad => Some(31),
        }
    }
}

/// Whether standard output is a terminal that may be coloured: <https://no-color.org>.
fn has_colours() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty())
}

/// A text in its colour, where there are colours.
pub(super) fn painted(text: &str, tint: Tint) -> String {
    match tint.code().filter(|_| has_colours()) {
        Some(code) => format!("\x1b[{code}m{text}\x1b[0m"),
        None => text.to_owned(),
    }
}

/// A cell of a table.
pub(super) fn cell(text: impl ToString) -> Cell {
    Cell::new(text)
}

/// A cell in its colour, where there are colours.
pub(super) fn tinted(text: String, tint: Tint) -> Cell {
    let cell = Cell::new(text);
    match tint.colour().filter(|_| has_colours()) {
        Some(colour) => cell.fg(colour),
        None => cell,
    }
}

/// A text that others have written, on one line and without what could do things to a terminal.
pub(super) fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// Writes a text and a newline. A reader that has gone away, as `head` does, is no fault.
pub(super) fn line(text: impl Display) -> anyhow::Result<()> {
    try_line(text).map(|_| ())
}

/// The same; answers whether somebody still reads.
pub(super) fn try_line(text: impl Display) -> anyhow::Result<bool> {
    match writeln!(io::stdout().lock(), "{text}") {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        other => Ok(other.map(|()| true)?),
    }
}

/// Writes what is said about an answer and is no part of it: for people on a terminal with the answer, for
/// others on standard error.
pub(super) fn note(text: impl Display) -> anyhow::Result<()> {
    if io::stdout().is_terminal() { line(text) } else { error_line(text) }
}

/// Whether a write failed because nobody reads any more.
pub(super) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let is_broken = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
    error.chain().any(|cause| {
        let csv = cause.downcast_ref::<csv::Error>().map(csv::Error::kind);
        match csv {
            Some(csv::ErrorKind::Io(error)) => is_broken(error),
            Some(_) | None => cause.downcast_ref::<io::Error>().is_some_and(is_broken),
        }
    })
}

/// Writes a text and a newline to standard error.
pub(super) fn error_line(text: impl Display) -> anyhow::Result<()> {
    Ok(writeln!(io::stderr().lock(), "{text}")?)
}

/// Writes a value as JSON.
pub(super) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    line(serde_json::to_string_pretty(value)?)
}

/// Whether the terminal is too narrow for more than what matters most.
pub(super) fn is_narrow() -> bool {
    io::stdout().is_terminal() && Table::new().width().is_some_and(|width| width < WIDTH_MIN)
}

/// An empty table with these headings, as wide as its content needs or the terminal is.
pub(super) fn table<const N: usize>(headings: [&str; N]) -> Table {
    wide_table(&headings)
}

/// The same for any number of headings. The first column is never broken: it names the row.
pub(super) fn wide_table(headings: &[&str]) -> Table {
    let is_seen = io::stdout().is_terminal();
    let mut table = Table::new();
    table
        .load_style(if is_seen { STYLE } else { PLAIN_STYLE })
        .set_content_arrangement(if is_seen {
            ContentArrangement::Dynamic
        } else {
            ContentArrangement::Disabled
        })
        .set_header(headings.iter().copied());
    if let Some(first) = table.column_mut(0) {
        first.set_constraint(ColumnConstraint::ContentWidth);
    }
    table
}

/// A duration in its two largest units, e.g. `2 h 5 min`.
pub(super) fn duration(duration: Duration) -> String {
    let (seconds, millis) = (duration.as_secs(), duration.subsec_millis());
    let parts = |large: u64, unit: &str, small: u64, small_unit: &str| {
        format!("{large} {unit} {small} {small_unit}")
    };
    match seconds {
        0 => format!("{millis} ms"),
        1..60 => format!("{seconds}.{} s", millis.div_euclid(100)),
        60..3_600 => parts(seconds.div_euclid(60), "min", seconds.rem_euclid(60), "s"),
        3_600..86_400 => {
            parts(seconds.div_euclid(3_600), "h", seconds.rem_euclid(3_600).div_euclid(60), "min")
        }
        _ => parts(
            seconds.div_euclid(86_400),
            "d",
            seconds.rem_euclid(86_400).div_euclid(3_600),
            "h",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_two_units() {
        for (millis, text) in [
            (7, "7 ms"),
            (1_250, "1.2 s"),
            (61_000, "1 min 1 s"),
            (3_720_000, "1 h 2 min"),
            (180_000_000, "2 d 2 h"),
        ] {
            assert_eq!(duration(Duration::from_millis(millis)), text);
        }
    }
}
