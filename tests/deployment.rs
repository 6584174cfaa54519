//! What ships for running it: a systemd unit, a compose file, a manifest for Kubernetes, a Dockerfile. No
//! engine for them is here; that they can be read, name keys that exist, and agree with the daemon is.

use std::{collections::HashMap, path::Path, process::Command};

use settled::config::Config;
use yaml_rust2::{Yaml, YamlLoader};

fn shipped(file: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap()
}

fn documents(file: &str) -> Vec<Yaml> {
    YamlLoader::load_from_str(&shipped(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// The daemon's configuration with these variables, which must exist.
fn config_with(variables: impl IntoIterator<Item = (String, String)>) -> Config {
    let environment: HashMap<String, String> =
        variables.into_iter().filter(|(name, _)| name.starts_with("SETTLED__")).collect();
    assert!(!environment.is_empty());
    let empty = tempfile::NamedTempFile::new().unwrap();
    Config::load_with(Some(empty.path()), Some(environment)).unwrap()
}

fn grace_s() -> u64 {
    Config::default().shutdown.grace_s
}

/// A duration such as `30s` or `5min`.
fn seconds(text: &str) -> u64 {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap());
    let number: u64 = number.parse().unwrap();
    match unit {
        "s" => number,
        "m" | "min" => number * 60,
        _ => panic!("{text}"),
    }
}

/// The settings of the unit, commented ones left out.
fn unit() -> Vec<(String, String)> {
    shipped("config/settled.service")
        .lines()
        .filter(|line| !line.starts_with(['#', '[']) && !line.is_empty())
        .map(|line| {
            let (key, value) = line.split_once('=').unwrap_or_else(|| panic!("{line}"));
            (key.to_owned(), value.to_owned())
        })
        .collect()
}

#[test]
fn the_systemd_unit_fits_the_daemon() {
    let unit = unit();
    let all = |key: &str| -> Vec<&str> {
        unit.iter().filter(|(name, _)| name == key).map(|(_, value)| value.as_str()).collect()
    };
    let one = |key: &str| {
        let values = all(key);
        assert_eq!(values.len(), 1, "{key}: {values:?}");
        values[0]
    };
    assert_eq!((one("Type"), one("Restart"), one("LimitCORE")), ("notify", "always", "0"));
    assert!(seconds(one("TimeoutStopSec")) > grace_s());
    assert!(seconds(one("WatchdogSec")) >= 30);
    assert!(one("ExecStart").ends_with(" run"));

    let pair = |text: &str| {
        let (name, value) = text.split_once('=').unwrap();
        (name.to_owned(), value.to_owned())
    };
    let variables: Vec<_> = all("Environment").into_iter().map(pair).collect();
    let config = config_with(variables.clone());
    assert!(config.signer.key_file.is_some() && config.oes.access_token_file.is_some());
    let mut credentials: Vec<&str> =
        variables.iter().filter_map(|(_, value)| value.strip_prefix("credential:")).collect();
    let mut loaded: Vec<&str> =
        all("LoadCredential").into_iter().map(|line| line.split(':').next().unwrap()).collect();
    credentials.sort_unstable();
    loaded.sort_unstable();
    assert_eq!(credentials, loaded, "each credential is loaded, and each one loaded is used");
    assert!(config.store.path.starts_with("/var/lib/settled"));
}

/// systemd's own opinion, where its tool is installed.
#[test]
fn systemd_takes_the_unit_and_finds_little_exposed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("settled.service");
    let text = shipped("config/settled.service")
        .replace("/usr/bin/settled", env!("CARGO_BIN_EXE_settled"))
        .replace("User=settled", "User=root")
        .replace("Group=settled", "Group=root");
    std::fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap();
    // Exposure up to 2.5 of 10; a user of its own, which is not there in a test, takes off more.
    let questions: [&[&str]; 2] =
        [&["verify", path], &["security", "--offline=true", "--threshold=25", path]];
    for arguments in questions {
        let asked = Command::new("systemd-analyze").args(arguments).output();
        let Ok(output) = asked else {
            eprintln!("systemd-analyze is not installed: its opinion was not asked");
            return;
        };
        let said =
            String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "systemd-analyze {arguments:?}: {said}");
    }
}

fn variables_of(map: &Yaml) -> Vec<(String, String)> {
    let pairs = map.as_hash().expect("a map of variables").iter();
    pairs
        .map(|(name, value)| {
            (name.as_str().unwrap().to_owned(), value.as_str().unwrap().to_owned())
        })
        .collect()
}

#[test]
fn the_compose_file_fits_the_daemon() {
    let compose = &documents("config/compose.yml")[0];
    let settled = &compose["services"]["settled"];
    let config = config_with(variables_of(&settled["environment"]));
    for file in [config.signer.key_file, config.oes.access_token_file, config.broker.password_file]
    {
        let file = file.unwrap();
        let name = file.strip_prefix("/run/secrets").unwrap().to_str().unwrap();
        let used = settled["secrets"].as_vec().unwrap();
        assert!(used.iter().any(|secret| secret.as_str() == Some(name)), "{name}");
        assert!(!compose["secrets"][name]["file"].is_badvalue(), "{name}");
    }
    assert!(seconds(settled["stop_grace_period"].as_str().unwrap()) > grace_s());
    assert_eq!(settled["ulimits"]["core"].as_i64(), Some(0));
    assert_eq!(settled["read_only"].as_bool(), Some(true));
    let check: Vec<&str> = settled["healthcheck"]["test"]
        .as_vec()
        .unwrap()
        .iter()
        .map(|word| word.as_str().unwrap())
        .collect();
    assert_eq!(check, ["CMD", "/usr/bin/settled", "health"]);
    let volumes = settled["volumes"].as_vec().unwrap();
    assert!(volumes.iter().any(|volume| volume.as_str() == Some("book:/var/lib/settled")));
}

fn named<'y>(list: &'y Yaml, name: &str) -> &'y Yaml {
    let items = list.as_vec().unwrap_or_else(|| panic!("no list with {name}"));
    items
        .iter()
        .find(|item| item["name"].as_str() == Some(name))
        .unwrap_or_else(|| panic!("no {name}"))
}

#[test]
fn the_kubernetes_manifest_fits_the_daemon() {
    let documents = documents("config/kubernetes.yml");
    let kinds: Vec<&str> =
        documents.iter().map(|document| document["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["Secret", "ConfigMap", "Service", "StatefulSet"]);
    assert_eq!(documents[3]["spec"]["replicas"].as_i64(), Some(1), "a book has one daemon");
    let pod = &documents[3]["spec"]["template"]["spec"];
    let grace = pod["terminationGracePeriodSeconds"].as_i64().unwrap();
    assert!(u64::try_from(grace).unwrap() > grace_s());
    let settled = named(&pod["containers"], "settled");

    let variables: Vec<(String, String)> = settled["env"]
        .as_vec()
        .unwrap()
        .iter()
        .map(|pair| {
            let word = |key: &str| pair[key].as_str().unwrap().to_owned();
            (word("name"), word("value"))
        })
        .collect();
    let secrets = documents[0]["stringData"].as_hash().unwrap();
    let files = variables.iter().filter(|(name, _)| name.ends_with("_FILE"));
    let names: Vec<&str> = files.map(|(_, path)| path.strip_prefix("/secrets/").unwrap()).collect();
    assert_eq!(names.len(), secrets.len());
    assert!(names.iter().all(|name| secrets.contains_key(&Yaml::String((*name).to_owned()))));
    let config = config_with(variables);
    assert!(config.signer.key_file.is_some());
    let toml = tempfile::NamedTempFile::new().unwrap();
    let text = documents[1]["data"]["settled.toml"].as_str().unwrap();
    std::fs::write(toml.path(), text).unwrap();
    let shown = Config::load_with(Some(toml.path()), Some(HashMap::new())).unwrap();
    assert!(shown.broker.declare);

    for (probe, path) in
        [("startupProbe", "/healthz"), ("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")]
    {
        assert_eq!(settled[probe]["httpGet"]["path"].as_str(), Some(path), "{probe}");
        assert_eq!(settled[probe]["httpGet"]["port"].as_str(), Some("metrics"), "{probe}");
    }
    let port = named(&settled["ports"], "metrics")["containerPort"].as_i64().unwrap();
    assert_eq!(u16::try_from(port).unwrap(), config.http.listen.port());
    for mount in settled["volumeMounts"].as_vec().unwrap() {
        let name = mount["name"].as_str().unwrap();
        let claims = documents[3]["spec"]["volumeClaimTemplates"].as_vec().unwrap();
        let is_claimed =
            claims.iter().any(|claim| claim["metadata"]["name"].as_str() == Some(name));
        assert!(is_claimed || !named(&pod["volumes"], name).is_badvalue(), "{name}");
    }
}

#[test]
fn the_dockerfile_copies_what_there_is_and_builds_with_our_toolchain() {
    let (text, root) = (shipped("Dockerfile"), Path::new(env!("CARGO_MANIFEST_DIR")));
    let mut variables = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("COPY") if !line.contains("--from") => {
                let paths: Vec<&str> = words.collect();
                for path in &paths[..paths.len() - 1] {
                    assert!(root.join(path).exists(), "{line}: {path} is not there");
                }
            }
            Some("ENV") => variables.extend(words.filter_map(|pair| {
                pair.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()))
            })),
            Some("FROM") if line.contains("rust:") => {
                let toolchain = shipped("rust-toolchain.toml");
                let version = line.split("rust:").nth(1).unwrap().split('-').next().unwrap();
                assert!(toolchain.contains(&format!("\"{version}")), "{line}\n{toolchain}");
            }
            _ => {}
        }
    }
    let config = config_with(variables);
    assert_eq!(config.http.listen.port(), 9_464);
    assert!(text.contains("USER") || text.contains(":nonroot"), "it must not run as root");
}
