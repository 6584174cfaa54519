//! What `/metrics` shows, and what the rules and the dashboard that ship with it ask for.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use settled::{
    domain::{alert::AlertKind, job::JobType},
    sandbox::{Effect, Fault, On, Times, When},
};

use crate::support::{eventually, world::World};

fn shipped(file: &str) -> String {
    std::fs::read_to_string(format!("{}/{file}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// Words that are metrics of the daemon: `settled_…` and `process_…`.
fn metrics_in(text: &str) -> BTreeSet<&str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.starts_with("settled_") || word.starts_with("process_"))
        .collect()
}

/// The sample names of an exposition, with the families that they belong to.
fn samples(exposition: &str) -> BTreeSet<&str> {
    exposition
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split(['{', ' ']).next())
        .collect()
}

/// Every `PromQL` expression of the dashboard.
fn dashboard_expressions() -> Vec<String> {
    fn walk(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                for (name, field) in fields {
                    match field {
                        Value::String(text) if name == "expr" || name == "query" => {
                            found.push(text.clone());
                        }
                        _ => walk(field, found),
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| walk(item, found)),
            _ => {}
        }
    }
    let dashboard: Value = serde_json::from_str(&shipped("config/dashboard.json")).unwrap();
    let mut found = Vec::new();
    walk(&dashboard, &mut found);
    found
}

/// A daemon that has decided in both ways, so that every family that has labels has a line.
async fn lively_world() -> (World, crate::support::daemon::Daemon) {
    let world = World::new().await;
    let daemon = world.daemon().await;
    world.submit(JobType::Allocation, "5").await;
    world.submit(JobType::Deallocation, "9000000").await;
    world.wait_for_final(2).await;
    (world, daemon)
}

#[tokio::test]
async fn every_metric_that_a_rule_or_the_dashboard_asks_for_is_there() {
    let (_world, daemon) = lively_world().await;
    let (_, exposition) = daemon.get("/metrics").await;
    let there = samples(&exposition);
    let (rules, tests) = (shipped("config/alerts.yml"), shipped("config/alerts.test.yml"));
    let expressions = dashboard_expressions().join("\n");
    for (place, text, least) in [
        ("alerts.yml", &rules, 20),
        ("alerts.test.yml", &tests, 20),
        ("dashboard", &expressions, 25),
    ] {
        let asked = metrics_in(text);
        assert!(asked.len() >= least, "{place} asks for {asked:?}");
        for metric in asked {
            assert!(
                there.contains(metric),
                "{place} asks for {metric}, which is not in\n{exposition}"
            );
        }
    }
    daemon.stop().await;
}

#[tokio::test]
async fn metrics_have_help_base_units_and_no_label_that_names_a_record() {
    let (world, daemon) = lively_world().await;
    let (_, exposition) = daemon.get("/metrics").await;
    assert!(exposition.ends_with("# EOF\n"));
    let mut types = BTreeMap::new();
    for line in exposition.lines() {
        if let Some((name, kind)) =
            line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            assert!(types.insert(name, kind).is_none(), "{name} is there twice");
            assert!(exposition.contains(&format!("# HELP {name} ")), "{name} has no help");
        }
    }
    for (name, kind) in &types {
        for word in ["_ms", "_millis", "_minutes", "_kib", "_percent"] {
            assert!(!name.ends_with(word), "{name} is not in base units");
        }
        let timed = ["_age", "_duration", "_wait"];
        assert!(!timed.iter().any(|word| name.ends_with(word)), "{name} has no unit");
        assert!(*kind != "unknown" && !name.ends_with("_total"), "{name}: {kind}");
    }
    for usual in
        ["process_resident_memory_bytes", "process_cpu_seconds", "process_start_time_seconds"]
    {
        assert!(types.contains_key(usual), "{usual} is missing");
    }
    for id in [world.connection_id.to_string(), world.client_id.to_string()] {
        assert!(!exposition.contains(&id), "a label names {id}");
    }
    let series = exposition.lines().filter(|line| !line.starts_with('#')).count();
    assert!(series < 1_000, "{series} series");
    daemon.stop().await;
}

#[test]
fn every_rule_says_where_to_read_on_and_has_a_test() {
    let (rules, tests) = (shipped("config/alerts.yml"), shipped("config/alerts.test.yml"));
    let names: Vec<&str> =
        rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(names.len() >= 20 && names.iter().collect::<BTreeSet<_>>().len() == names.len());
    for name in names {
        let url = format!("runbook_url: docs/RUNBOOK.md#{}\n", name.to_lowercase());
        assert_eq!(rules.matches(&url).count(), 1, "{name} has no runbook_url");
        assert!(tests.contains(&format!("alertname=\"{name}\"")), "{name} has no test");
    }
}

#[tokio::test]
async fn the_amount_at_risk_is_what_open_records_move_and_survives_a_restart() {
    let world = World::new().await;
    let daemon = world.daemon().await;
    let line = "settled_open_jobs_quantity{currency=\"BTC\"}";
    let refuse = Effect::Answer { when: When::Before, status: 422 };
    world.inject(Fault::new(On::Update, refuse).times(Times::Next(1)));
    let parked = world.submit(JobType::Allocation, "300").await;
    world.wait_for_state(&parked, "parked(refused_by_oes)").await;
    assert_eq!(daemon.count(line).await, 300);
    let done = world.submit(JobType::Allocation, "44").await;
    world.wait_for_state(&done, "confirmed").await;
    assert_eq!(daemon.count(line).await, 300, "what is final is not at risk");
    daemon.stop().await;

    let daemon = world.daemon().await;
    assert_eq!(daemon.count(line).await, 300);
    world.must_run(&["jobs", "retry", &parked.id.to_string(), "--reason", "put right"]).await;
    world.wait_for_state(&parked, "confirmed").await;
    assert_eq!(daemon.count(line).await, 0);
    daemon.stop().await;
    assert!(world.must_run(&["book", "verify"]).await.contains("the book holds"));
}

#[tokio::test]
async fn a_balance_below_zero_shows_until_it_is_put_right() {
    let world = World::new().await;
    let daemon = world.daemon().await;
    world.import(&[world.adjustment("b-2", "-1000005")]).await;
    assert_eq!(daemon.count("settled_overdrawn_balances").await, 1);
    assert_eq!(daemon.count("settled_balances_overdrawn_total").await, 1);
    let readers = world.readers().await;
    let found = readers.overdrawn(10).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].available.to_string(), "-5");
    readers.close().await;
    assert!(world.must_run(&["book", "verify"]).await.contains("the book holds"));
    world.import(&[world.adjustment("b-3", "5")]).await;
    assert_eq!(daemon.count("settled_overdrawn_balances").await, 0);
    daemon.stop().await;
}

#[tokio::test]
async fn requests_to_oes_and_waits_for_its_rate_limit_are_counted_by_operation() {
    // Two at once, and then one every 30 ms.
    let settings = [("oes.rate_limit", "4"), ("oes.rate_burst", "2"), ("oes.rate_window_s", "1")];
    let world = World::with(&settings).await;
    let daemon = world.daemon().await;
    world.inject(Fault::new(On::Update, Effect::Reset { when: When::After }).times(Times::Next(1)));
    for _ in 0..4 {
        world.submit(JobType::Allocation, "5").await;
    }
    world.wait_for_final(4).await;
    eventually("reads and updates to be counted", || async {
        let updates =
            daemon.count("settled_oes_requests_total{operation=\"update\",status=\"2xx\"}").await;
        (updates == 3).then_some(())
    })
    .await;
    let lost = "settled_oes_requests_total{operation=\"update\",status=\"none\"}";
    assert_eq!(daemon.count(lost).await, 1);
    let timed = "settled_oes_request_duration_seconds_count{operation=\"list\"}";
    assert!(daemon.count(timed).await >= 1, "the record was read back");
    let waited = "settled_rate_limit_wait_seconds_count{operation=\"update\"}";
    assert!(daemon.count(waited).await >= 1);
    let ended = "settled_job_duration_seconds_count{type=\"allocation\",outcome=\"cleared\"}";
    assert_eq!(daemon.count(ended).await, 4);
    daemon.stop().await;
}

#[test]
fn the_runbook_has_a_section_for_each_alert_and_no_other() {
    let (runbook, rules) = (shipped("docs/RUNBOOK.md"), shipped("config/alerts.yml"));
    let prometheus: BTreeSet<&str> =
        rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    let built_in: BTreeSet<&str> = AlertKind::ALL.into_iter().map(AlertKind::name).collect();
    let mut sections = BTreeMap::new();
    for part in runbook.split("\n## ").skip(1) {
        let (title, text) = part.split_once('\n').unwrap();
        assert!(sections.insert(title, text).is_none(), "{title} is there twice");
    }
    sections.remove("First").expect("what to do first");
    let told: BTreeSet<&str> = sections.keys().copied().collect();
    assert_eq!(told, prometheus.union(&built_in).copied().collect());
    for (title, text) in &sections {
        for part in ["**Means.**", "**Look.**", "**Do.**", "**Never**"] {
            assert!(text.contains(part), "{title} does not say {part}");
        }
        let says_so = text.trim_start().starts_with("Prometheus only");
        assert_eq!(says_so, !built_in.contains(title), "{title}: who has it");
        assert!(prometheus.contains(title), "Prometheus does not have {title}");
        for link in text.split("](#").skip(1).map(|rest| rest.split(')').next().unwrap()) {
            assert!(sections.keys().any(|name| name.to_lowercase() == link), "{title}: #{link}");
        }
    }
    for kind in AlertKind::ALL {
        let severity = format!("severity: {}", kind.severity());
        let rule =
            rules.split("- alert: ").find(|rule| rule.starts_with(&format!("{}\n", kind.name())));
        assert!(rule.unwrap().contains(&severity), "{} is not of one severity", kind.name());
    }
}

/// What the runbook tells people to type has to exist.
#[tokio::test]
async fn every_command_in_the_runbook_exists() {
    let world = World::new().await;
    let runbook = shipped("docs/RUNBOOK.md");
    let mut seen = BTreeSet::new();
    for rest in runbook.split("settled ").skip(1) {
        let words: Vec<&str> = rest
            .split([' ', '`', '\n', ')', ',', ';'])
            .take_while(|word| {
                !word.is_empty()
                    && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-')
            })
            .take_while(|word| !word.starts_with("--"))
            .take(2)
            .collect();
        let flag =
            rest.split(['`', '\n']).next().unwrap().split(' ').find(|word| word.starts_with("--"));
        let is_command = |word: &str| COMMANDS.contains(&word);
        if words.first().is_some_and(|word| is_command(word)) {
            seen.insert((words, flag.map(|flag| flag.trim_end_matches(['.', ',', ')']))));
        }
    }
    assert!(seen.len() > 15, "{seen:?}");
    for (words, flag) in seen {
        let mut arguments = words.clone();
        arguments.push("--help");
        let (success, help, error) = world.run(&arguments).await;
        assert!(success, "settled {words:?}: {error}");
        if let Some(flag) = flag {
            assert!(help.contains(flag), "settled {words:?} has no {flag}");
        }
    }
}

/// Commands of `settled` that a runbook may name.
const COMMANDS: [&str; 12] = [
    "alerts",
    "archive",
    "book",
    "doctor",
    "health",
    "jobs",
    "key",
    "reconcile",
    "status",
    "topology",
    "verify",
    "backup",
];
