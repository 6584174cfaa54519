//! The command line as an operator uses it at night: from an alert to its cause and the fix, lists for people
//! and programs, and actions on many jobs, shown before they are done.

use std::{collections::BTreeSet, process::Stdio};

use serde_json::Value;
use settled::{
    domain::job::JobType,
    sandbox::{Effect, Fault, On, Record, Times, When},
};
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::support::{
    daemon::{binary, text},
    world::World,
};

/// OES answers 422 to every update of these records, so that their jobs are parked.
async fn parked(world: &World, job_type: JobType, quantities: &[&str]) -> Vec<Record> {
    let mut records = Vec::new();
    for quantity in quantities {
        let record = world.reserve(job_type, quantity);
        let refuse = Effect::Answer { when: When::Before, status: 422 };
        world.inject(Fault::new(On::Update, refuse).of_record(record.id).times(Times::Always));
        world.publish([world.job(&record)]).await;
        records.push(record);
    }
    for record in &records {
        world.wait_for_state(record, "parked(refused_by_oes)").await;
    }
    records
}

/// What the command line prints as the command that shows more of something.
fn command_in<'t>(said: &'t str, begin: &str) -> Vec<&'t str> {
    let at = said.find(begin).unwrap_or_else(|| panic!("{begin} is missing in\n{said}"));
    let line = said[at..].split(['\n', '`']).next().unwrap();
    line.split_whitespace().skip(1).collect()
}

#[tokio::test]
async fn from_an_alert_to_the_cause_and_the_fix_with_nothing_but_what_the_commands_say() {
    let world = World::new().await;
    let daemon = world.daemon().await;
    let good = world.submit(JobType::Allocation, "5").await;
    world.wait_for_state(&good, "confirmed").await;
    let (code, status, error) = world.run_code(&["status"]).await;
    assert_eq!(code, Some(0), "{status}{error}");
    assert!(status.contains("all is well") && status.contains("at risk in open records: none"));

    let record = parked(&world, JobType::Deallocation, &["9000000"]).await.remove(0);
    let id = record.id.to_string();
    let (code, status, error) = world.run_code(&["status"]).await;
    assert_eq!(code, Some(1), "{status}{error}");
    assert!(status.contains("NEEDS ATTENTION") && error.contains("need"), "{status}{error}");
    for part in [
        "1 job is released and parked or in conflict: their clients' funds are stuck",
        "1 job is parked",
        "at risk in open records: 9000000 BTC",
        "switched off: none",
        &format!("{id} attempt 1: refused_answer (status 422)"),
    ] {
        assert!(status.contains(part), "{part} is missing in\n{status}");
    }
    let listed = world.must_run(&command_in(&status, "settled jobs list")).await;
    assert!(listed.contains(&id) && !listed.contains(&good.id.to_string()), "{listed}");
    let shown = world.must_run(&["jobs", "show", &id]).await;
    assert!(shown.contains("refused_answer (status 422)"), "{shown}");
    assert!(shown.contains("what to do: OES answered 400 or 422 and still holds"), "{shown}");
    let retry = command_in(&shown, "settled jobs retry");
    assert_eq!(retry[..4], ["jobs", "retry", &id, "--reason"]);

    world.oes().clear_faults();
    let said = world.must_run(&["jobs", "retry", &id, "--reason", "BitGo put it right"]).await;
    assert!(said.contains("goes on as unknown(sent_on)"), "{said}");
    let history = world.wait_for_state(&record, "confirmed").await;
    assert_eq!(history.decision.unwrap().outcome, "released", "the decision is what it was");
    let (code, status, _) = world.run_code(&["status"]).await;
    assert_eq!(code, Some(0), "{status}");
    let log = world.must_run(&["actions"]).await;
    assert!(log.contains("BitGo put it right") && log.contains(&id), "{log}");
    daemon.stop().await;
    let (code, status, _) = world.run_code(&["status", "--json"]).await;
    assert_eq!(code, Some(1), "no daemon runs");
    let status: Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["attention"][0]["what"], "no daemon runs on this book");
    std::fs::remove_file(world.path("book.db")).unwrap();
    assert_eq!(world.run_code(&["status"]).await.0, Some(2), "nothing can be said of no book");
}

#[tokio::test]
async fn lists_have_columns_for_a_pipe_and_json_and_csv_for_programs() {
    let world = World::new().await;
    let daemon = world.daemon().await;
    for quantity in ["1", "2", "3", "4"] {
        let record = world.submit(JobType::Allocation, quantity).await;
        world.wait_for_state(&record, "confirmed").await;
    }
    let stuck = parked(&world, JobType::Allocation, &["5"]).await.remove(0);

    let (_, listed, notes) = world.run(&["jobs", "list"]).await;
    assert_eq!(listed.lines().count(), 6, "headings and five jobs: {listed}");
    assert!(listed.starts_with(" record ") && !listed.contains(['─', '\u{1b}']), "{listed}");
    assert!(notes.contains("5 jobs"), "{notes}");
    let csv = world.must_run(&["jobs", "list", "--csv", "--sort", "oldest"]).await;
    let mut reader = csv::Reader::from_reader(csv.as_bytes());
    let headings = reader.headers().unwrap().clone();
    let column = |name: &str| headings.iter().position(|heading| heading == name).unwrap();
    let rows: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
    let quantities: Vec<&str> = rows.iter().map(|row| &row[column("quantity")]).collect();
    assert_eq!(quantities, ["1", "2", "3", "4", "5"]);
    assert_eq!(&rows[4][column("recordId")], stuck.id.to_string());
    assert_eq!(&rows[4][column("stateReason")], "refused_by_oes");
    assert!(rows[0][column("receivedAt")].ends_with('Z'));

    let (mut read, mut after) = (Vec::new(), None::<String>);
    loop {
        let mut arguments = vec!["jobs", "list", "--json", "--limit", "2", "--count"];
        arguments.extend(after.iter().flat_map(|place| ["--after", place.as_str()]));
        let page: Value = serde_json::from_str(&world.must_run(&arguments).await).unwrap();
        assert_eq!(page["count"]["jobs"], 5);
        let ids = page["jobs"].as_array().unwrap().iter().map(|job| job["recordId"].to_string());
        read.extend(ids);
        match page["next"].as_str() {
            Some(next) => after = Some(next.to_owned()),
            None => break,
        }
    }
    assert_eq!((read.len(), read.iter().collect::<BTreeSet<_>>().len()), (5, 5));
    let text = stuck.id.to_string()[..13].to_uppercase();
    for (arguments, jobs) in [
        (&["--reason", "refused_by_oes"][..], 1),
        (&["--text", &text], 1),
        (&["--sort", "next"], 1),
        (&["--sort", "longest"], 1),
        (&["--sort", "updated", "--decided", "cleared"], 5),
        (&["--younger-than", "1h", "--currency", "BTC"], 5),
        (&["--older-than", "1h"], 0),
        (&["--state", "open"], 1),
        (&["--client", &world.client_id.to_string(), "--type", "deallocation"], 0),
        (&["--connection", &world.connection_id.to_string()], 5),
    ] {
        let arguments = [&["jobs", "list", "--json"][..], arguments].concat();
        let page: Value = serde_json::from_str(&world.must_run(&arguments).await).unwrap();
        assert_eq!(page["jobs"].as_array().unwrap().len(), jobs, "{arguments:?}");
    }
    for (arguments, said) in [
        (&["--state", "gone"][..], "there are open, received"),
        (&["--reason", "weather"], "refused_by_oes"),
        (&["--after", "there"], "not a place in a list"),
        (&["--sort", "mood"], "longest"),
        (&["--json", "--csv"], "cannot be used with"),
    ] {
        let arguments = [&["jobs", "list"][..], arguments].concat();
        let (success, _, error) = world.run(&arguments).await;
        assert!(!success && error.contains(said), "{arguments:?}: {error}");
    }
    daemon.stop().await;
}

#[tokio::test]
async fn an_action_on_many_is_shown_first_and_that_changes_nothing() {
    let world = World::new().await;
    let daemon = world.daemon().await;
    let done = world.submit(JobType::Allocation, "1").await;
    world.wait_for_state(&done, "confirmed").await;
    let records = parked(&world, JobType::Allocation, &["10", "20", "30"]).await;

    let which = ["jobs", "retry", "--state", "open,confirmed", "--type", "allocation"];
    let shown = world.must_run(&which).await;
    for part in [
        "3 jobs would be sent on",
        "1 job is confirmed: over, and never touched again",
        "nothing was done yet: to do it, add --yes --expect 3",
        &records[0].id.to_string(),
    ] {
        assert!(shown.contains(part), "{part} is missing in\n{shown}");
    }
    let words: Vec<&str> = shown.split_whitespace().collect();
    assert!(words.windows(3).any(|sum| sum == ["BTC", "3", "60"]), "{shown}");
    let json = world.must_run(&[&which[..], &["--json"]].concat()).await;
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["jobs"], &json["sums"][0]["quantity"]), (&3.into(), &"60".into()));
    for (more, said) in [
        (&["--yes"][..], "say why with --reason"),
        (&["--yes", "--expect", "2", "--reason", "all"], "3 jobs would be acted on now, and not 2"),
    ] {
        let (success, _, error) = world.run(&[&which[..], more].concat()).await;
        assert!(!success && error.contains(said), "{error}");
    }
    let (success, _, error) = world.run(&["jobs", "retry", "--yes", "--reason", "all"]).await;
    assert!(
        !success && error.contains("say which jobs are meant"),
        "never all by mistake: {error}"
    );
    assert_eq!(world.must_run(&["actions", "--json"]).await.trim(), "[]", "nothing was done");
    for record in &records {
        world.wait_for_state(record, "parked(refused_by_oes)").await;
    }

    world.oes().clear_faults();
    let yes = ["--yes", "--expect", "3", "--reason", "put right, ticket 12"];
    let said = world.must_run(&[&which[..], &yes].concat()).await;
    assert_eq!(said.matches("goes on as unknown(sent_on)").count(), 3, "{said}");
    for record in &records {
        world.wait_for_state(record, "confirmed").await;
    }
    let actions: Vec<Value> =
        serde_json::from_str(&world.must_run(&["actions", "--json"]).await).unwrap();
    let bulks: BTreeSet<&str> = actions.iter().filter_map(|line| line["bulkId"].as_str()).collect();
    assert_eq!((actions.len(), bulks.len()), (3, 1), "one request: {actions:?}");
    world.assert_promises().await;
    daemon.stop().await;
}

#[tokio::test]
async fn no_action_on_many_touches_a_decision_that_was_signed() {
    let world = World::new().await;
    let daemon = world.daemon().await;
    let records = parked(&world, JobType::Allocation, &["10", "20"]).await;
    for action in ["refuse", "approve"] {
        let shown = world.must_run(&["jobs", action, "--state", "parked"]).await;
        assert!(shown.contains("nothing would be done"), "{shown}");
        assert!(shown.contains("decided, and no decision is ever changed"), "{shown}");
        let yes = ["jobs", action, "--state", "parked", "--yes", "--reason", "away with them"];
        let said = world.must_run(&yes).await;
        assert!(said.contains("nothing was done"), "{said}");
        let ids: Vec<String> = records.iter().map(|record| record.id.to_string()).collect();
        let by_name = ["jobs", action, &ids[0], &ids[1], "--reason", "away with them"];
        let (success, said, error) = world.run(&by_name).await;
        assert!(!success && error.contains("2 of 2 jobs were not decided"), "{said}{error}");
        assert_eq!(said.matches("was decided before: cleared").count(), 2, "{said}");
    }
    let conflict = ["jobs", "resolve", "--outcome", "released", "--state", "parked"];
    let shown = world.must_run(&conflict).await;
    assert!(
        shown.contains("nothing would be done") && shown.contains("not in conflict"),
        "{shown}"
    );
    for record in &records {
        let history = world.wait_for_state(record, "parked(refused_by_oes)").await;
        assert_eq!(history.decision.unwrap().outcome, "cleared");
        assert!(history.attempts.iter().all(|attempt| attempt.body.contains("\"cleared\"")));
    }
    assert_eq!(world.must_run(&["actions", "--json"]).await.trim(), "[]");
    world.assert_promises().await;
    daemon.stop().await;
}

#[tokio::test]
async fn jobs_are_watched_as_they_change_until_nobody_reads() {
    let world = World::new().await;
    let daemon = world.daemon().await;
    let before = world.submit(JobType::Allocation, "1").await;
    world.wait_for_state(&before, "confirmed").await;
    for (arguments, wanted) in [(&["--json"][..], "\"confirmed\""), (&[], " confirmed, cleared")] {
        let mut command = binary(&world.config_file());
        command.args(["jobs", "watch", "--every", "1s"]).args(arguments);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = lines.next_line().await.unwrap().unwrap();
        assert!(first.contains(&before.id.to_string()), "what changed last comes first: {first}");
        let record = world.submit(JobType::Allocation, "2").await;
        let mut told = Vec::new();
        while !told.last().is_some_and(|line: &String| {
            line.contains(&record.id.to_string()) && line.contains(wanted)
        }) {
            told.push(lines.next_line().await.unwrap().expect("it goes on"));
        }
        let distinct: BTreeSet<&String> = told.iter().collect();
        assert_eq!(distinct.len(), told.len(), "no change is told twice: {told:?}");
        drop(lines);
        world.submit(JobType::Allocation, "3").await;
        assert!(child.wait().await.unwrap().success(), "it ends once nobody reads");
    }
    daemon.stop().await;
}

#[tokio::test]
async fn a_terminal_shows_a_table_with_a_rule_and_colours_unless_they_are_not_wanted() {
    let world = World::new().await;
    let daemon = world.daemon().await;
    let record = parked(&world, JobType::Allocation, &["5"]).await.remove(0);
    let config = world.config_file();
    for (no_colour, arguments) in
        [("", "jobs list"), ("1", "jobs list"), ("", "status"), ("1", "status")]
    {
        let line = format!(
            "stty cols 160 rows 40; {} --config {} {arguments}",
            env!("CARGO_BIN_EXE_settled"),
            config.display()
        );
        let mut command = tokio::process::Command::new("script");
        command.args(["-qec", &line, "/dev/null"]).env("NO_COLOR", no_colour);
        let seen = text(&command.stdin(Stdio::null()).output().await.unwrap().stdout);
        assert!(seen.contains('─') && seen.contains("parked"), "{seen}");
        assert!(seen.contains(&record.id.to_string()), "{seen}");
        assert_eq!(seen.contains("\u{1b}["), no_colour.is_empty(), "{arguments}: {seen}");
    }
    daemon.stop().await;
}
