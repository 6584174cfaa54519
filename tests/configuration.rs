//! The example configuration has every key with its default, and each can be set from outside.

use std::{collections::HashMap, path::Path};

use settled::config::Config;

fn example() -> (String, toml_lines::Keys) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/settled.example.toml");
    let text = std::fs::read_to_string(path).unwrap();
    let keys = toml_lines::keys(&text);
    (text, keys)
}

/// Just enough of TOML to list the keys of our own example, those that are commented out included.
mod toml_lines {
    pub(super) type Keys = Vec<(String, String, String)>;

    pub(super) fn keys(text: &str) -> Keys {
        let mut section = String::new();
        let mut keys = Vec::new();
        for line in text.lines() {
            let line = line.strip_prefix("# ").unwrap_or(line);
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                name.clone_into(&mut section);
            } else if let Some((key, value)) = line.split_once(" = ")
                && key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
            {
                keys.push((section.clone(), key.to_owned(), value.trim_matches('"').to_owned()));
            }
        }
        keys
    }
}

fn load(text: &str, environment: &[(String, String)]) -> Result<Config, String> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    let environment: HashMap<String, String> = environment.iter().cloned().collect();
    Config::load_with(Some(file.path()), Some(environment)).map_err(|error| error.to_string())
}

#[test]
fn the_example_loads_and_differs_from_the_defaults_only_where_it_says_so() {
    let (text, _) = example();
    let mut example = load(&text, &[]).unwrap();
    let defaults = load("", &[]).unwrap();
    assert!(example.broker.declare);
    example.broker.declare = defaults.broker.declare;
    example.oes.base_url = None;
    example.oes.enterprise_id = None;
    example.oes.access_token_file = None;
    example.signer.key_file = None;
    assert_eq!(format!("{example:?}"), format!("{defaults:?}"));
}

#[test]
fn every_key_is_in_the_example() {
    let (_, keys) = example();
    let shown = format!("{:#?}", load("", &[]).unwrap());
    let fields = shown.lines().filter(|line| {
        let line = line.trim();
        line.contains(": ") && !line.ends_with('{')
    });
    let mut count = 0;
    for field in fields {
        let name = field.trim().split(':').next().unwrap();
        assert!(keys.iter().any(|(_, key, _)| key == name), "{name} is not in the example");
        count += 1;
    }
    assert_eq!(count, keys.len(), "the example has keys that do not exist");
}

#[test]
fn every_key_can_be_set_from_the_environment_and_a_bad_value_names_it() {
    let (text, keys) = example();
    for (section, key, value) in keys {
        let variable = format!("SETTLED__{}__{}", section.to_uppercase(), key.to_uppercase());
        load(&text, &[(variable.clone(), value.clone())])
            .unwrap_or_else(|error| panic!("{variable}={value}: {error}"));
        // Numbers and booleans refuse a word; strings take it.
        if value.parse::<u64>().is_ok() || value == "true" || value == "false" {
            let error = load(&text, &[(variable.clone(), "word".to_owned())]).unwrap_err();
            assert!(error.contains(&key), "{variable}: {error}");
        }
    }
}

#[test]
fn an_unknown_key_in_the_file_is_refused_and_named() {
    let (text, _) = example();
    let error = load(&text.replace("prefetch = 256", "prefetsch = 256"), &[]).unwrap_err();
    assert!(error.contains("prefetsch"), "{error}");
    let error = load(&format!("{text}\n[brokr]\nx = 1\n"), &[]).unwrap_err();
    assert!(error.contains("brokr"), "{error}");
}

#[test]
fn no_fault_of_the_configuration_repeats_a_password() {
    for line in [
        "url = \"amqp://user:hunter2@host/%2f",
        "url = [\"amqp://user:hunter2@host/%2f\"]",
        "url = \"amqp:user:hunter2@host/%2f\"",
        "url = \"http://user:hunter2@host/%2f\"",
        "url = \"amqp://user:hunter2@host/%2f\" oops",
        "url = amqp://user:hunter2@host/%2f",
    ] {
        let error = load(&format!("[broker]\n{line}\n"), &[]).unwrap_err();
        assert!(!error.contains("hunter2"), "{line}: {error}");
    }
    for url in ["amqp://user:hun/ter2@host:99999/%2f", "amqp://user:hunter2@"] {
        let config = load(&format!("[broker]\nurl = \"{url}\"\n"), &[]).unwrap();
        let shown = format!("{} {:?}", config.broker.url, config.broker);
        assert!(!shown.contains("ter2"), "{shown}");
    }
}
