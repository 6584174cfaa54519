//! The house has rooms: what may be where.

use std::{
    fs,
    path::{Path, PathBuf},
};

const FILE_LINES_MAX: usize = 500;

fn sources() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let path = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap().to_path_buf();
                found.push((path, text));
            }
        }
    }
    assert!(found.len() > 40, "the sources were not found");
    found
}

/// Files whose code, comments left out, has one of `words`, apart from those under `allowed`.
fn files_with(words: &[&str], allowed: &[&str]) -> Vec<String> {
    sources()
        .into_iter()
        .filter(|(path, _)| {
            let path = path.to_str().unwrap();
            !allowed.iter().any(|room| {
                path == format!("src/{room}.rs") || path.starts_with(&format!("src/{room}/"))
            })
        })
        .flat_map(|(path, text)| {
            text.lines()
                .filter(|line| !line.trim_start().starts_with("//"))
                .filter(|line| words.iter().any(|word| line.contains(word)))
                .map(|line| format!("{}: {}", path.display(), line.trim()))
                .collect::<Vec<_>>()
        })
        .collect()
}

#[test]
fn the_domain_has_no_io_no_async_and_no_clock() {
    let found: Vec<String> = files_with(
        &["tokio", "sqlx", "lapin", "reqwest", "SystemTime", "Instant::now", "async fn", "std::fs"],
        &[],
    )
    .into_iter()
    .filter(|line| line.starts_with("src/domain"))
    .collect();
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn sql_is_only_in_the_store() {
    assert_eq!(files_with(&["sqlx::", "use sqlx"], &["store"]), Vec::<String>::new());
}

#[test]
fn amqp_is_only_in_the_broker() {
    assert_eq!(files_with(&["lapin::", "use lapin"], &["broker"]), Vec::<String>::new());
}

#[test]
fn requests_are_only_made_to_oes_to_who_is_told_of_alerts_or_traces_and_to_our_own_daemon() {
    let rooms = ["oes", "outbound", "alerts", "traces", "sandbox", "control", "web"];
    assert_eq!(files_with(&["reqwest::", "use reqwest"], &rooms), Vec::<String>::new());
}

#[test]
fn otlp_is_only_in_the_traces() {
    assert_eq!(files_with(&["opentelemetry_proto::"], &["traces"]), Vec::<String>::new());
}

#[test]
fn keys_are_only_in_the_signer() {
    let rooms = ["signer"];
    assert_eq!(files_with(&["secp256k1::", "SecretKey"], &rooms), Vec::<String>::new());
}

#[test]
fn files_stay_short_and_none_is_called_mod_or_utils() {
    for (path, text) in sources() {
        let lines = text.lines().count();
        assert!(lines <= FILE_LINES_MAX + 50, "{} has {lines} lines", path.display());
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(!["mod.rs", "utils.rs", "util.rs", "helpers.rs", "common.rs"].contains(&name));
    }
}
