//! Reading book events from a file: JSON lines, or CSV with the same names as columns.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use serde_json::{Map, Value};

use crate::domain::book::{BookEvent, EVENT_BYTES_MAX};

/// Largest file, in bytes.
pub const FILE_BYTES_MAX: u64 = 256 * 1_024 * 1_024;

/// Most faults that are listed; more are only counted.
const FAULTS_LISTED_MAX: usize = 20;

/// What stands for standard input instead of a file's name.
const STANDARD_INPUT: &str = "-";

/// Columns whose cells are `true` or `false`.
const BOOLEAN_COLUMNS: [&str; 2] = ["active", "enabled"];

/// Columns whose cells are numbers.
const NUMBER_COLUMNS: [&str; 2] = ["sequence", "sentAtMs"];

/// Why a file is not a list of book events.
#[derive(Debug, thiserror::Error)]
pub enum BookFileError {
    /// The system would not open or read it.
    #[error("cannot read {path}: {reason}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What happened.
        reason: String,
    },
    /// Lines that are no events; nothing was imported.
    #[error("{path}: {count} lines are not book events, and nothing was imported:\n  {}", .faults.join("\n  "))]
    BadLines {
        /// The file.
        path: PathBuf,
        /// How many.
        count: usize,
        /// The first of them.
        faults: Vec<String>,
    },
}

/// An event with the line it stands on.
#[derive(Debug)]
pub struct FileEvent {
    /// The line, counted from one.
    pub line: u64,
    /// The event as JSON.
    pub text: String,
    /// The event.
    pub event: BookEvent,
}

/// Reads all events of a file, or of standard input if it is named `-`; `.csv` is CSV, everything else
/// JSON lines.
///
/// # Errors
/// [`BookFileError`]; the whole file is read before anything is done with it.
pub fn read(path: &Path) -> Result<Vec<FileEvent>, BookFileError> {
    let unreadable = |reason: String| BookFileError::Unreadable { path: path.to_owned(), reason };
    let source: Box<dyn io::Read> = if path.as_os_str() == STANDARD_INPUT {
        Box::new(io::stdin().lock())
    } else {
        let file = File::open(path).map_err(|error| unreadable(error.to_string()))?;
        let bytes = file.metadata().map_err(|error| unreadable(error.to_string()))?.len();
        if bytes > FILE_BYTES_MAX {
            return Err(unreadable(format!("{bytes} bytes; at most {FILE_BYTES_MAX} are read")));
        }
        Box::new(file)
    };
    // A pipe has no length to ask for, so what is read is counted as well.
    let mut content = Vec::new();
    let mut limited = source.take(FILE_BYTES_MAX.saturating_add(1));
    limited.read_to_end(&mut content).map_err(|error| unreadable(error.to_string()))?;
    if u64::try_from(content.len()).is_ok_and(|length| length > FILE_BYTES_MAX) {
        return Err(unreadable(format!("at most {FILE_BYTES_MAX} bytes are read")));
    }
    let is_csv = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("csv"));
    let lines = if is_csv {
        // A row that was cut off can still be a row, with a number that is too short.
        if content.last().is_some_and(|last| *last != b'\n') {
            return Err(unreadable("the last line has no end: the file is cut off".to_owned()));
        }
        csv_lines(csv::Reader::from_reader(content.as_slice())).map_err(unreadable)?
    } else {
        json_lines(content.as_slice()).map_err(|error| unreadable(error.to_string()))?
    };
    let mut events = Vec::with_capacity(lines.len());
    let (mut faults, mut count) = (Vec::new(), 0_usize);
    for (line, text) in lines {
        match BookEvent::parse(&text) {
            Ok(event) => events.push(FileEvent { line, text, event }),
            Err(error) => {
                count = count.saturating_add(1);
                if faults.len() < FAULTS_LISTED_MAX {
                    faults.push(format!("line {line}: {error}"));
                }
            }
        }
    }
    if count == 0 {
        Ok(events)
    } else {
        Err(BookFileError::BadLines { path: path.to_owned(), count, faults })
    }
}

fn json_lines(reader: impl io::BufRead) -> io::Result<Vec<(u64, String)>> {
    let mut lines = Vec::new();
    for (number, line) in (1_u64..).zip(reader.lines()) {
        let line = line?;
        if !line.trim().is_empty() {
            lines.push((number, line));
        }
    }
    Ok(lines)
}

/// Each row as the JSON object that the same event is on a JSON line; empty cells are left out.
fn csv_lines(mut reader: csv::Reader<impl io::Read>) -> Result<Vec<(u64, String)>, String> {
    let headers = reader.headers().map_err(|error| error.to_string())?.clone();
    let mut lines = Vec::new();
    for record in reader.records() {
        let record = record.map_err(|error| error.to_string())?;
        let line = record.position().map_or(0, csv::Position::line);
        if record.as_slice().len() > EVENT_BYTES_MAX {
            return Err(format!("line {line} is longer than {EVENT_BYTES_MAX} bytes"));
        }
        let mut fields = Map::new();
        for (name, cell) in headers.iter().zip(&record).filter(|(_, cell)| !cell.is_empty()) {
            let value = match cell {
                _ if NUMBER_COLUMNS.contains(&name) => {
                    let number: u64 =
                        cell.parse().map_err(|_| format!("line {line}: {name} is no number"))?;
                    number.into()
                }
                "true" | "false" if BOOLEAN_COLUMNS.contains(&name) => Value::Bool(cell == "true"),
                _ => Value::String(cell.to_owned()),
            };
            if fields.insert(name.to_owned(), value).is_some() {
                return Err(format!("column {name} is there twice"));
            }
        }
        lines.push((line, Value::Object(fields).to_string()));
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CSV: &str = "\
eventId,type,connectionId,clientId,partnersClientId,partnersConnectionId,active,currency,enabled,quantityMin,quantityMax,delta
c-1,connection.upserted,9e8d7c6b-5a49-4838-a716-0f1e2d3c4b5a,5d1f0e3a-2b6c-4f0d-8a37-1f0a3c9b2d11,\"client, one\",conn-001,true,,,,,
k-1,currency.configured,,,,,,BTC,true,1,1000000000000000000000000000000,
b-1,balance.adjusted,9e8d7c6b-5a49-4838-a716-0f1e2d3c4b5a,,,,,BTC,,,,-250
";

    fn file(name: &str, content: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        (folder, path)
    }

    #[test]
    fn csv_and_json_lines_say_the_same() {
        let (_folder, csv) = file("book.csv", CSV);
        let from_csv = read(&csv).unwrap();
        let lines: Vec<&str> = from_csv.iter().map(|event| event.text.as_str()).collect();
        let (_folder, json) = file("book.jsonl", &lines.join("\n\n"));
        let from_json = read(&json).unwrap();
        let events = |list: &[FileEvent]| -> Vec<BookEvent> {
            list.iter().map(|event| event.event.clone()).collect()
        };
        assert_eq!(events(&from_csv), events(&from_json));
        assert_eq!(from_csv.iter().map(|event| event.line).collect::<Vec<_>>(), [2, 3, 4]);
        assert_eq!(from_json.iter().map(|event| event.line).collect::<Vec<_>>(), [1, 3, 5]);
    }

    #[test]
    fn a_csv_file_that_is_cut_off_is_refused() {
        let (_folder, path) = file("book.csv", CSV.trim_end_matches("50\n"));
        let error = read(&path).unwrap_err().to_string();
        assert!(error.contains("cut off"), "{error}");
    }

    #[test]
    fn every_bad_line_is_named_and_nothing_is_read() {
        let (_folder, path) = file("book.csv", &CSV.replace("true", "yes").replace("-250", "0"));
        let error = read(&path).unwrap_err().to_string();
        for line in ["line 2: active", "line 3: enabled", "line 4: delta"] {
            assert!(error.contains(line), "{error}");
        }
    }
}
