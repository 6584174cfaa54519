//! A job is decided only after OES's own record agrees with its message.

use std::time::Duration;

use serde_json::{Value, json};
use settled::{
    domain::{decision::Outcome, ids::RecordId, job::JobType},
    sandbox::{Effect, Fault, On, ReadAmounts, Record, Rules, Times, When},
    store::query::JobHistory,
};
use sqlx::{Connection as _, SqliteConnection};
use uuid::Uuid;

use crate::support::{daemon::Daemon, eventually, world::World};

/// The job of a record, with some of its fields changed.
fn altered(world: &World, record: &Record, change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut job: Value = serde_json::from_slice(&world.job(record)).unwrap();
    change(&mut job);
    job.to_string().into_bytes()
}

fn forged(world: &World, record: &Record) -> Vec<u8> {
    altered(world, record, |job| job["amount"]["quantity"] = json!("900000"))
}

/// How many different messages are in quarantine for this reason, and how often they came.
async fn quarantined(world: &World, code: &str) -> (usize, i64) {
    let url = format!("sqlite:{}?mode=ro", world.path("book.db").display());
    let mut book = SqliteConnection::connect(&url).await.unwrap();
    let times: Vec<i64> =
        sqlx::query_scalar("SELECT times_seen FROM quarantine WHERE code = ?1 ORDER BY 1")
            .bind(code)
            .fetch_all(&mut book)
            .await
            .unwrap();
    (times.len(), times.iter().sum())
}

async fn wait_for_refusals(world: &World, daemon: &Daemon, count: u64) {
    eventually(&format!("{count} refused jobs"), || async {
        (daemon.count("settled_jobs_refused_total").await == count).then_some(())
    })
    .await;
    assert_eq!(quarantined(world, "not_as_at_oes").await.0, usize::try_from(count).unwrap());
}

#[tokio::test]
async fn a_message_that_is_not_oes_s_record_never_leads_to_an_update() {
    let world = World::new().await;
    let daemon = world.daemon().await;
    let other = world.reserve(JobType::Deallocation, "9");
    let elsewhere = Uuid::new_v4();
    let record = world.reserve(JobType::Deallocation, "5");
    let of_other = world.job(&other);
    let forgeries = [
        forged(&world, &record),
        altered(&world, &record, |job| job["amount"]["quantity"] = json!("4")),
        altered(&world, &record, |job| job["amount"]["currency"] = json!("ETH")),
        altered(&world, &record, |job| job["connectionId"] = json!(elsewhere)),
        // The other type, with every field that goes with it.
        altered(&world, &record, |job| {
            let object = job.as_object_mut().unwrap();
            let id = object.remove("deallocationId").unwrap();
            let partners_id = object.remove("partnersDeallocationId").unwrap();
            object.insert("type".to_owned(), json!("allocation"));
            object.insert("allocationId".to_owned(), id);
            object.insert("partnersAllocationId".to_owned(), partners_id);
        }),
    ];
    for (count, forgery) in (1..).zip(&forgeries) {
        world.publish([forgery.clone()]).await;
        wait_for_refusals(&world, &daemon, count).await;
    }
    assert!(world.puts_of(&record).is_empty());
    assert_eq!(world.balances().await[0], "1000000", "nothing is held for a forgery");
    let dead = format!("{}.dead", world.jobs_queue);
    eventually("each to have its dead letter", || async {
        (world.exchange.ready(&dead).await == 5).then_some(())
    })
    .await;

    // The genuine message still comes, and others are not concerned.
    world.publish([world.job(&record), of_other]).await;
    world.wait_for_state(&record, "confirmed").await;
    world.wait_for_state(&other, "confirmed").await;
    assert_eq!(world.puts_of(&record).len(), 1);
    assert_eq!(world.balances().await[0], "999986");

    // The same forgery again, whole or written differently, is known and never a job.
    let spaced = [b" ", &forgeries[0][..]].concat();
    let jobs_before = daemon.count("settled_jobs{state=\"refused\",type=\"deallocation\"}").await;
    world.publish([forgeries[0].clone(), spaced]).await;
    eventually("the repetitions to be counted", || async {
        let known = quarantined(&world, "not_as_at_oes").await == (5, 6);
        (known && quarantined(&world, "content_differs").await == (1, 1)).then_some(())
    })
    .await;
    let jobs = daemon.count("settled_jobs{state=\"refused\",type=\"deallocation\"}").await;
    assert_eq!(jobs, jobs_before);
    world.assert_promises().await;
    daemon.stop().await;
}

#[tokio::test]
async fn a_refused_message_that_comes_again_is_counted_and_costs_no_read() {
    let world = World::new().await;
    let daemon = world.daemon().await;
    let record = world.reserve(JobType::Allocation, "5");
    let forgery = forged(&world, &record);
    world.publish([forgery.clone()]).await;
    wait_for_refusals(&world, &daemon, 1).await;
    let reads = daemon.count("settled_oes_reads_total{purpose=\"verify\"}").await;
    world.publish(std::iter::repeat_n(forgery, 20)).await;
    eventually("the repetitions to be counted", || async {
        (quarantined(&world, "not_as_at_oes").await == (1, 21)).then_some(())
    })
    .await;
    assert_eq!(daemon.count("settled_oes_reads_total{purpose=\"verify\"}").await, reads);
    assert_eq!(daemon.count("settled_jobs_refused_total").await, 1);
    assert_eq!(world.oes().counts().puts, 0);
    world.publish([world.job(&record)]).await;
    world.wait_for_state(&record, "confirmed").await;
    let (code, shown, _) = world.run_code(&["jobs", "show", &record.id.to_string()]).await;
    assert_eq!(code, Some(0));
    assert!(shown.contains("refused") && shown.contains("confirmed"), "both are shown: {shown}");
    world.assert_promises().await;
    daemon.stop().await;
}

#[tokio::test]
async fn a_genuine_message_that_came_while_a_forged_one_had_its_id_has_its_turn() {
    let world = World::new().await;
    let record = world.reserve(JobType::Allocation, "5");
    // Reads fail for a while, so that both are here before the forged one is found out.
    for on in [On::List, On::Read] {
        let fail = Effect::Answer { when: When::Before, status: 500 };
        world.inject(Fault::new(on, fail).times(Times::Always));
    }
    let daemon = world.daemon().await;
    let another = altered(&world, &record, |job| job["amount"]["quantity"] = json!("7"));
    world.publish([forged(&world, &record), another, world.job(&record)]).await;
    eventually("the later ones to be put away", || async {
        (quarantined(&world, "content_differs").await.0 == 2).then_some(())
    })
    .await;
    world.wait_for_state(&record, "received").await;
    assert_eq!(world.oes().counts().puts, 0, "nothing is decided without a read");
    world.oes().clear_faults();
    let history = world.wait_for_state(&record, "confirmed").await;
    assert_eq!(history.job.terms.amount.quantity().to_string(), "5");
    assert_eq!(world.puts_of(&record).len(), 1);
    assert_eq!(daemon.count("settled_jobs_refused_total").await, 2);
    world.assert_promises().await;
    daemon.stop().await;
}

#[tokio::test]
async fn a_record_that_oes_does_not_show_yet_is_waited_for_parked_and_goes_on_by_itself() {
    let world = World::with(&[("retry.absent_reads_max", "3")]).await;
    let daemon = world.daemon().await;
    let soon = world.reserve(JobType::Allocation, "5");
    let late = world.reserve(JobType::Deallocation, "7");
    let asked = world.reserve(JobType::Allocation, "9");
    for record in [&late, &asked] {
        world.oes().hide(record.id);
        world.publish([world.job(record)]).await;
        world.wait_for_state(record, "parked(not_shown)").await;
    }
    world.oes().hide(soon.id);
    world.publish([world.job(&soon)]).await;
    eventually("a read that does not find it", || async {
        let job = world.history(soon.id).await?.job;
        (job.absences > 0).then_some(())
    })
    .await;
    world.oes().show(soon.id);
    world.wait_for_state(&soon, "confirmed").await;

    assert_eq!(world.oes().counts().puts, 1);
    assert_eq!(world.exchange.ready(&format!("{}.dead", world.jobs_queue)).await, 0);
    world.oes().show(late.id);
    world.wait_for_state(&late, "confirmed").await;
    // An operator need not wait for the slow read.
    let id = asked.id.to_string();
    world.must_run(&["jobs", "retry", &id, "--reason", "the edge says it is there"]).await;
    world.wait_for_state(&asked, "parked(not_shown)").await;
    world.oes().show(asked.id);
    world.must_run(&["jobs", "retry", &id, "--reason", "now it is"]).await;
    world.wait_for_state(&asked, "confirmed").await;
    world.assert_promises().await;
    daemon.stop().await;
}

async fn explained(world: &World, id: RecordId) -> Value {
    let output = world.must_run(&["jobs", "explain", &id.to_string(), "--json"]).await;
    serde_json::from_str(&output).unwrap()
}

#[tokio::test]
async fn what_oes_has_ended_is_taken_over_with_its_money_and_announced_and_nothing_is_sent() {
    let world = World::new().await;
    let cases = [
        (JobType::Allocation, "5", Outcome::Cleared),
        (JobType::Allocation, "6", Outcome::Released),
        (JobType::Deallocation, "7", Outcome::Cleared),
        (JobType::Deallocation, "8", Outcome::Released),
    ];
    let mut records = Vec::new();
    for (job_type, quantity, outcome) in cases {
        let record = world.reserve(job_type, quantity);
        world.oes().finish(record.id, outcome).unwrap();
        records.push((record, outcome));
    }
    let daemon = world.daemon().await;
    world.publish(records.iter().map(|(record, _)| world.job(record))).await;
    for (record, outcome) in &records {
        let history = world.wait_for_state(record, "confirmed").await;
        let JobHistory { decision, attempts, transfers, .. } = history;
        let decision = decision.unwrap();
        assert_eq!((decision.source.as_str(), attempts.len()), ("oes", 0));
        assert_eq!(decision.outcome, outcome.as_str());
        let moves = if *outcome == Outcome::Cleared { 2 } else { 0 };
        assert_eq!(transfers.len(), moves);
        let explained = explained(&world, record.id).await;
        assert_eq!(explained["agrees"], true, "{explained}");
        assert_eq!(explained["saw"]["ended"]["outcome"], outcome.as_str());
        assert_eq!(explained["decided"]["source"], "oes");
    }
    assert_eq!(world.balances().await, ["999998".to_owned(), "0".into(), "0".into()]);
    assert_eq!(world.oes().counts().puts, 0);
    let mut keys: Vec<String> =
        world.hear_outcomes(4).await.into_iter().map(|heard| heard.routing_key).collect();
    keys.sort();
    assert_eq!(
        keys,
        [
            "allocation.cleared",
            "allocation.released",
            "deallocation.cleared",
            "deallocation.released"
        ]
    );
    // Its evidence proves a decision without an attempt, and the book holds.
    let evidence = world.path("evidence.json");
    let id = records[1].0.id.to_string();
    world.must_run(&["jobs", "evidence", &id, "--out", evidence.to_str().unwrap()]).await;
    let said = world.must_run(&["verify", "--evidence", evidence.to_str().unwrap()]).await;
    assert!(said.contains("released"), "{said}");
    daemon.stop().await;
    world.must_run(&["verify"]).await;
    world.must_run(&["book", "verify"]).await;
    world.assert_promises().await;
}

#[tokio::test]
async fn what_the_book_cannot_cover_is_parked_undecided_until_it_can() {
    let world = World::new().await;
    world.import(&[world.adjustment("spent", "-999998")]).await;
    let daemon = world.daemon().await;
    let record = world.reserve(JobType::Deallocation, "5");
    world.oes().finish(record.id, Outcome::Cleared).unwrap();
    world.publish([world.job(&record)]).await;
    let history = world.wait_for_state(&record, "parked(ended_at_oes)").await;
    assert!(history.decision.is_none() && history.transfers.is_empty());
    world.import(&[world.adjustment("more", "3")]).await;
    world.wait_for_state(&record, "confirmed").await;
    assert_eq!(world.balances().await, ["0".to_owned(), "0".into(), "0".into()]);
    assert_eq!(world.oes().counts().puts, 0);
    world.assert_promises().await;
    daemon.stop().await;
}

#[tokio::test]
async fn an_approval_that_was_asked_for_by_an_update_without_an_answer_is_followed() {
    let world = World::with(&[("oes.request_timeout_ms", "300")]).await;
    let daemon = world.daemon().await;
    let (lost, before) =
        (world.reserve(JobType::Deallocation, "5"), world.reserve(JobType::Allocation, "7"));
    for record in [&lost, &before] {
        let fault = |effect| Fault::new(On::Update, effect).of_record(record.id);
        world.inject(fault(Effect::AwaitApproval));
        world.inject(fault(Effect::Delay { when: When::After, delay_ms: 2_000 }));
    }
    world.publish([world.job(&lost)]).await;
    let history = world.wait_for_state(&lost, "awaiting_approval").await;
    assert_eq!(history.attempts[0].result.as_deref(), Some("no_reply"));
    world.oes().approve(lost.id).unwrap();
    world.wait_for_state(&lost, "confirmed").await;
    assert_eq!(world.puts_of(&lost).len(), 1, "an approval is never answered for again");
    daemon.stop().await;

    // Without a read before, whose approval it is cannot be told.
    let mut config = world.config();
    config.http.listen.set_port(0);
    config.decide.verify_with_oes = false;
    let daemon = Daemon::start(config).await;
    daemon.wait_until_ready().await;
    world.publish([world.job(&before)]).await;
    world.wait_for_state(&before, "parked(approval_unclear)").await;
    world.oes().approve(before.id).unwrap();
    world.wait_for_state(&before, "confirmed").await;
    world.assert_promises().await;
    daemon.stop().await;
}

#[tokio::test]
async fn a_thousand_jobs_share_a_few_reads() {
    const JOBS: u64 = 1_000;
    let world = World::new().await;
    let records: Vec<Record> = (0..JOBS).map(|_| world.reserve(JobType::Allocation, "1")).collect();
    world.publish(records.iter().map(|record| world.job(record))).await;
    let daemon = world.daemon().await;
    world.wait_for_final(JOBS).await;
    let reads = daemon.count("settled_oes_reads_total{purpose=\"verify\"}").await;
    let all = world.oes().counts().partner_reads;
    println!("{reads} reads before decisions of {all} in all for {JOBS} jobs");
    assert!(reads * 20 <= JOBS, "{reads} reads for {JOBS} jobs");
    assert!(all * 20 <= JOBS, "{all} reads for {JOBS} jobs");
    assert_eq!(world.oes().counts().puts, JOBS);
    world.assert_promises().await;
    daemon.stop().await;
}

#[tokio::test]
async fn amounts_in_decimals_are_compared_exactly() {
    let mut world = World::with(&[("retry.absent_reads_max", "2")]).await;
    world.oes().set_rules(Rules { read_amounts: ReadAmounts::Decimals, ..world.oes().rules() });
    // Read as base units, decimals are unreadable: nothing is decided, and nothing condemned.
    let daemon = world.daemon().await;
    let record = world.submit(JobType::Allocation, "150000001").await;
    world.wait_for_state(&record, "parked(unreadable)").await;
    assert_eq!(daemon.count("settled_jobs_refused_total").await, 0);
    daemon.stop().await;

    world.set("oes.amounts", "decimals");
    let daemon = world.daemon().await;
    let whole = world.submit(JobType::Allocation, "200000000").await;
    // The book does not say yet how many decimals the currency has.
    world.wait_for_state(&whole, "parked(unreadable)").await;
    let mut currency = world.book_lines().remove(1);
    currency["eventId"] = json!("k-2");
    currency["decimals"] = json!(8);
    world.import(&[currency]).await;
    world.wait_for_state(&whole, "confirmed").await;
    world.wait_for_state(&record, "confirmed").await;
    let altered_one = world.reserve(JobType::Allocation, "5");
    world.publish([forged(&world, &altered_one)]).await;
    wait_for_refusals(&world, &daemon, 1).await;
    // The comparison of jobs and balances reads them the same way.
    world.set_funds(world.connection_id, "BTC", 1_000_000 + 150_000_001 + 200_000_000);
    let (code, output, error) = world.run_code(&["reconcile"]).await;
    assert_eq!(code, Some(0), "{output}{error}");
    world.assert_promises().await;
    daemon.stop().await;
}

#[tokio::test]
async fn without_a_read_a_job_is_recorded_decided_and_signed_in_one_commit() {
    let world = World::with(&[("decide.verify_with_oes", "false")]).await;
    let daemon = world.daemon().await;
    let record = world.submit(JobType::Allocation, "5").await;
    let history = world.wait_for_state(&record, "confirmed").await;
    let decided_at = history.decision.unwrap().decided_at_ms;
    assert_eq!(decided_at, history.job.received_at);
    assert_eq!(history.attempts[0].prepared_at_ms, history.job.received_at);
    assert_eq!(world.oes().counts().partner_reads, 0);
    assert_eq!(daemon.count("settled_oes_reads_total{purpose=\"verify\"}").await, 0);
    tokio::time::timeout(Duration::from_secs(20), daemon.stop()).await.unwrap();
}
