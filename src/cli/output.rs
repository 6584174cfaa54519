//! Writing answers to standard output.

use std::{
    fmt::Display,
    io::{self, Write as _},
    time::Duration,
};

use comfy_table::{ContentArrangement, LineStyle, Table, TableStyle};
use serde::Serialize;

/// Headings with a rule under them; no other lines, so that rows can be copied and compared.
const STYLE: TableStyle =
    TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─'));

/// Writes a text and a newline. A reader that has gone away, as `head` does, is no fault.
pub(super) fn line(text: impl Display) -> anyhow::Result<()> {
    match writeln!(io::stdout().lock(), "{text}") {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

/// Writes a text and a newline to standard error.
pub(super) fn error_line(text: impl Display) -> anyhow::Result<()> {
    Ok(writeln!(io::stderr().lock(), "{text}")?)
}

/// Writes a value as JSON.
pub(super) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    line(serde_json::to_string_pretty(value)?)
}

/// An empty table with these headings, as wide as its content needs or the terminal is.
pub(super) fn table<const N: usize>(headings: [&str; N]) -> Table {
    let mut table = Table::new();
    table
        .load_style(STYLE)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(headings);
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
