//! `settled reconcile` and the sweep: what differs between the book and OES is found, and nothing else;
//! a record whose job never came is told, and taken in when that is asked for.

use serde_json::Value;
use settled::{
    domain::{decision::Outcome, job::JobType, time::TimestampMs},
    sandbox::{Effect, Fault, On, Record, ReservedPartnerId, Times, When},
};

use crate::support::{
    eventually,
    world::{AVAILABLE, World},
};

/// A world whose book and OES agree about balances, where OES shows the exchange's ids of records.
async fn world_with(settings: &[(&str, &str)]) -> World {
    let world = World::with(settings).await;
    world.set_funds(world.connection_id, "BTC", AVAILABLE);
    let mut rules = world.oes().rules();
    rules.reserved_partner_id = ReservedPartnerId::Shown;
    world.oes().set_rules(rules);
    world
}

async fn reconcile(world: &World, arguments: &[&str]) -> (Option<i32>, Value) {
    let all: Vec<&str> = ["reconcile", "--json"].iter().chain(arguments).copied().collect();
    let (code, output, error) = world.run_code(&all).await;
    let report =
        serde_json::from_str(&output).unwrap_or_else(|_| panic!("no report: {output}{error}"));
    (code, report)
}

/// What was found: kinds with the records they are about.
fn found(report: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let findings = report["findings"].as_array().unwrap().iter();
    findings.map(|it| (text(&it["kind"]), text(&it["recordId"]))).collect()
}

fn about(kind: &str, record: &Record) -> (String, String) {
    (kind.to_owned(), record.id.to_string())
}

#[tokio::test]
async fn a_book_that_agrees_is_clean_with_a_daemon_and_without() {
    let world = world_with(&[]).await;
    let daemon = world.daemon().await;
    let mut rules = world.oes().rules();
    rules.page_size_max = 4;
    world.oes().set_rules(rules);
    for number in 0..30_u32 {
        let job_type = if number % 3 == 0 { JobType::Deallocation } else { JobType::Allocation };
        world.submit(job_type, &(number + 1).to_string()).await;
    }
    world.wait_for_final(30).await;
    let (code, report) = reconcile(&world, &[]).await;
    assert_eq!(code, Some(0), "{report}");
    assert_eq!((&report["jobs"], &report["differences"]), (&30.into(), &0.into()));
    assert_eq!(report["balances"].as_array().unwrap().len(), 1);
    assert_eq!(daemon.count("settled_reconcile_runs_total{result=\"clean\"}").await, 1);
    assert!(daemon.number("settled_reconcile_last_timestamp_seconds").await > 1_700_000_000.0);
    daemon.stop().await;
    let (code, report) = reconcile(&world, &[]).await;
    assert_eq!((code, &report["jobs"]), (Some(0), &30.into()));
    let text = world.must_run(&["reconcile", "--since", "7d"]).await;
    assert!(text.contains("30 jobs from ") && text.contains(": 0 differences"), "{text}");
    let (code, report) = reconcile(&world, &["--since", "2d", "--until", "1d"]).await;
    assert_eq!((code, &report["jobs"]), (Some(0), &0.into()));
}

#[tokio::test]
async fn a_record_or_a_balance_that_was_tampered_with_is_found_and_written_down() {
    // What OES ended would be taken over; here it contradicts a decision.
    let world = world_with(&[("decide.verify_with_oes", "false")]).await;
    let daemon = world.daemon().await;
    let (amount, status, good) = (
        world.submit(JobType::Allocation, "5").await,
        world.submit(JobType::Allocation, "6").await,
        world.submit(JobType::Deallocation, "7").await,
    );
    world.wait_for_final(3).await;
    world.oes().falsify(amount.id, "50".parse().unwrap()).unwrap();
    // Reserved, released by OES, and taken in here as if it were still open.
    let ended = world.reserve(JobType::Allocation, "8");
    world.oes().finish(ended.id, Outcome::Released).unwrap();
    let refuse = Effect::Answer { when: When::Before, status: 422 };
    world.inject(Fault::new(On::Update, refuse).of_record(ended.id).times(Times::Always));
    world.publish([world.job(&ended)]).await;
    world.wait_for_state(&ended, "conflict(other_outcome)").await;
    let csv = world.path("found.csv");

    let (code, report) = reconcile(&world, &[]).await;
    assert_eq!(code, Some(1));
    assert_eq!(found(&report), [about("status", &ended), about("amount", &amount)]);
    assert!(!report.to_string().contains(&status.id.to_string()));
    assert!(!report.to_string().contains(&good.id.to_string()));

    world.set_funds(world.connection_id, "BTC", AVAILABLE);
    let (code, output, error) =
        world.run_code(&["reconcile", "--csv", csv.to_str().unwrap()]).await;
    assert_eq!(code, Some(1), "{output}");
    assert!(error.contains("differ in 3 things"), "{error}");
    assert!(output.contains("-4 unexplained"), "{output}");
    let mut rows = csv::Reader::from_path(&csv).unwrap();
    assert_eq!(&rows.headers().unwrap()[0], "kind");
    let kinds: Vec<String> = rows.records().map(|row| row.unwrap()[0].to_owned()).collect();
    assert_eq!(kinds, ["status", "amount", "balance"]);

    let finding = |kind: &str| format!("settled_reconcile_findings{{kind=\"{kind}\"}}");
    assert_eq!(daemon.count(&finding("balance")).await, 1);
    assert_eq!(daemon.count(&finding("amount")).await, 1);
    assert_eq!(daemon.count("settled_reconcile_runs_total{result=\"differences\"}").await, 2);
    daemon.stop().await;
    // What was found outlives the daemon that found it.
    let daemon = world.daemon().await;
    assert_eq!(daemon.count(&finding("balance")).await, 1);
    daemon.stop().await;
}

#[tokio::test]
async fn what_is_on_its_way_is_no_difference() {
    // Every read fails, also the one that would come before the decision.
    let world = world_with(&[("decide.verify_with_oes", "false")]).await;
    let daemon = world.daemon().await;
    // Applied at OES, and the answer and every read of it are lost.
    let lost = Effect::Reset { when: When::After };
    world.inject(Fault::new(On::Update, lost).times(Times::Always));
    let (more, less) =
        (world.reserve(JobType::Allocation, "5"), world.reserve(JobType::Deallocation, "7"));
    for record in [&more, &less] {
        let fail = Effect::Answer { when: When::Before, status: 500 };
        world.inject(Fault::new(On::List, fail.clone()).of_record(record.id).times(Times::Always));
        world.inject(Fault::new(On::Read, fail).of_record(record.id).times(Times::Always));
    }
    world.publish([world.job(&more), world.job(&less)]).await;
    world.wait_for_state(&more, "unknown(no_reply)").await;
    world.wait_for_state(&less, "unknown(no_reply)").await;
    daemon.stop().await;
    world.oes().clear_faults();
    let (code, report) = reconcile(&world, &[]).await;
    assert_eq!(code, Some(0), "{report}");
    let balance = &report["balances"][0];
    assert_eq!((&balance["difference"], &balance["unexplained"]), (&"-2".into(), &"0".into()));
    let daemon = world.daemon().await;
    world.wait_for_final(2).await;
    world.assert_promises().await;
    daemon.stop().await;
}

#[tokio::test]
async fn what_could_not_be_found_out_is_neither_clean_nor_different() {
    let mut world = world_with(&[]).await;
    let daemon = world.daemon().await;
    let fail = Effect::Answer { when: When::Before, status: 500 };
    world.inject(Fault::new(On::OtherRead, fail).times(Times::Always));
    let (code, _, error) = world.run_code(&["reconcile"]).await;
    assert_eq!(code, Some(2), "{error}");
    assert!(error.contains("the comparison could not be done") && error.contains("500"), "{error}");
    assert_eq!(daemon.count("settled_reconcile_runs_total{result=\"failed\"}").await, 1);
    daemon.stop().await;
    world.set("oes.base_url", "http://127.0.0.1:1");
    let (code, _, error) = world.run_code(&["reconcile"]).await;
    assert_eq!(code, Some(2), "{error}");
    assert!(error.contains("could not connect"), "{error}");
    let (code, _, error) = world.run_code(&["reconcile", "--since", "1h", "--until", "2h"]).await;
    assert_eq!(code, Some(2), "{error}");
}

#[tokio::test]
async fn a_job_that_never_came_is_found_taken_in_and_settled() {
    let world = world_with(&[("reconcile.sweep_age_s", "0")]).await;
    let daemon = world.daemon().await;
    let mut rules = world.oes().rules();
    rules.page_size_max = 3;
    world.oes().set_rules(rules);
    let came: Vec<Record> = (0..8).map(|_| world.reserve(JobType::Allocation, "5")).collect();
    let refuse = Effect::Answer { when: When::Before, status: 422 };
    world.inject(Fault::new(On::Update, refuse).of_record(came[0].id).times(Times::Always));
    world.publish(came.iter().map(|record| world.job(record))).await;
    world.wait_for_final(7).await;
    world.wait_for_state(&came[0], "parked(refused_by_oes)").await;
    let missing = world.reserve(JobType::Deallocation, "70");

    let (code, report) = reconcile(&world, &[]).await;
    assert_eq!(code, Some(1));
    assert_eq!(found(&report), [about("without_job", &missing), about("parked", &came[0])]);
    assert_eq!(report["atRisk"]["BTC"], "70");
    assert_eq!(daemon.count("settled_records_without_job").await, 1);
    let quantity = "settled_records_without_job_quantity{currency=\"BTC\"}";
    assert_eq!(daemon.count(quantity).await, 70);
    assert!(world.history(missing.id).await.is_none(), "nothing is taken in without being asked");

    let (code, report) = reconcile(&world, &["--adopt"]).await;
    assert_eq!((code, found(&report)[0].clone()), (Some(0), about("adopted", &missing)));
    let history = world.wait_for_state(&missing, "confirmed").await;
    assert!(world.is_final(&missing, Outcome::Cleared), "the client's record is final");
    let raw: Value = serde_json::from_str(&history.raw_message).unwrap();
    assert_eq!(raw["source"], "sweep");
    assert_eq!(daemon.count("settled_records_adopted_total").await, 1);
    assert_eq!(daemon.count("settled_records_without_job").await, 0);

    // The message comes after all: it is the same job.
    world.publish([world.job(&missing)]).await;
    eventually("the late message", || async {
        let seen = daemon.count("settled_messages_total{result=\"repeated\"}").await;
        (seen == 1).then_some(())
    })
    .await;
    assert_eq!(world.puts_of(&missing).len(), 1);
    assert_eq!(world.history(missing.id).await.unwrap().job.state.to_string(), "confirmed");
    world.assert_promises().await;
    daemon.stop().await;
}

#[tokio::test]
async fn what_cannot_be_taken_in_says_why_and_what_is_young_is_left_alone() {
    let mut world = world_with(&[("reconcile.sweep_age_s", "3600")]).await;
    let daemon = world.daemon().await;
    let unnamed = world.reserve(JobType::Allocation, "5");
    let (code, report) = reconcile(&world, &["--adopt"]).await;
    assert_eq!((code, found(&report)), (Some(0), Vec::new()), "its message may still come");
    daemon.stop().await;
    world.set("reconcile.sweep_age_s", "0");
    let daemon = world.daemon().await;
    let mut rules = world.oes().rules();
    rules.reserved_partner_id = ReservedPartnerId::Absent;
    world.oes().set_rules(rules);
    // Its message came, and was no job.
    let quarantined = world.reserve(JobType::Allocation, "6");
    let message = String::from_utf8(world.job(&quarantined)).unwrap();
    world.publish([message.replace("\"6\"", "\"0x6\"").into_bytes()]).await;
    eventually("the message to be quarantined", || async {
        (daemon.count("settled_quarantined_messages").await == 1).then_some(())
    })
    .await;
    let (code, report) = reconcile(&world, &["--adopt"]).await;
    assert_eq!(code, Some(1));
    assert_eq!(
        found(&report),
        [about("without_job", &unnamed), about("quarantined", &quarantined)]
    );
    let notes: Vec<&str> = report["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["note"].as_str().unwrap())
        .collect();
    assert!(notes[0].contains("partnerExternalId"), "{notes:?}");
    assert!(notes[1].contains("number 1: bad_field"), "{notes:?}");
    assert!(world.history(unnamed.id).await.is_none());
    daemon.stop().await;
}

#[tokio::test]
async fn schedules_sweep_adopt_and_compare() {
    let world = world_with(&[
        ("reconcile.sweep_every_s", "1"),
        ("reconcile.sweep_age_s", "0"),
        ("reconcile.adopt", "true"),
        ("reconcile.every_s", "1"),
    ])
    .await;
    let daemon = world.daemon().await;
    let missing = world.reserve(JobType::Allocation, "5");
    world.wait_for_state(&missing, "confirmed").await;
    let since = TimestampMs::from_millis(0);
    eventually("a comparison", || async {
        let runs = daemon.count("settled_reconcile_runs_total{result=\"clean\"}").await;
        (runs >= 1).then_some(())
    })
    .await;
    let readers = world.readers().await;
    let past = readers.past_runs().await.unwrap();
    readers.close().await;
    assert!(past.compared_at.is_some_and(|at| at > since));
    world.assert_promises().await;
    daemon.stop().await;
}

#[tokio::test]
async fn a_schedule_that_cannot_reach_oes_says_so_and_goes_on() {
    let world =
        world_with(&[("reconcile.sweep_every_s", "1"), ("reconcile.sweep_age_s", "0")]).await;
    let fail = Effect::Answer { when: When::Before, status: 500 };
    world.inject(Fault::new(On::List, fail).times(Times::Always));
    let daemon = world.daemon().await;
    let missing = world.reserve(JobType::Allocation, "5");
    eventually("a sweep to fail", || async {
        let failed = daemon.count("settled_comparisons_failed_total{kind=\"sweep\"}").await;
        (failed >= 1).then_some(())
    })
    .await;
    world.oes().clear_faults();
    eventually("the sweep to find the record", || async {
        (daemon.count("settled_records_without_job").await == 1).then_some(())
    })
    .await;
    assert!(world.history(missing.id).await.is_none());
    daemon.stop().await;
}
