//! A parked job has an exit: an operator who has removed its cause sends it on. No decision changes,
//! and nothing is sent before the record was read.

use serde_json::{Value, json};
use settled::{
    domain::{decision::Outcome, job::JobType},
    sandbox::{Effect, Fault, On, Record, Times, When},
};

use crate::support::world::World;

async fn send_on(world: &World, record: &Record) -> String {
    let id = record.id.to_string();
    world.must_run(&["jobs", "retry", &id, "--reason", "the cause is gone"]).await
}

/// A deallocation that OES refused with 422 and that is parked for it.
async fn parked(world: &World) -> Record {
    let record = world.reserve(JobType::Deallocation, "5");
    let refuse = Effect::Answer { when: When::Before, status: 422 };
    world.inject(Fault::new(On::Update, refuse).of_record(record.id).times(Times::Always));
    world.publish([world.job(&record)]).await;
    world.wait_for_state(&record, "parked(refused_by_oes)").await;
    world.oes().clear_faults();
    record
}

#[tokio::test]
async fn a_decided_job_keeps_its_decision_and_is_read_before_it_is_sent_again() {
    let world = World::new().await;
    let daemon = world.daemon().await;
    let record = parked(&world).await;
    // By now the policy would release it, but it has been decided.
    world.import(&[world.adjustment("gone", "-1000000")]).await;
    let said = send_on(&world, &record).await;
    assert!(said.contains("goes on as unknown(sent_on)"), "{said}");
    let history = world.wait_for_state(&record, "confirmed").await;
    assert!(world.is_final(&record, Outcome::Cleared));
    assert_eq!(history.attempts.len(), 2);
    let kinds: Vec<&str> = history.notes.iter().map(|note| note.kind.as_str()).collect();
    assert_eq!(kinds, ["read_back", "sent_on", "read_back"]);
    let note: Value = serde_json::from_str(history.notes[1].detail.get()).unwrap();
    assert_eq!(note["why"], "the cause is gone");
    assert!(note["who"].as_str().unwrap().contains("uid "), "{note}");
    world.assert_promises().await;
    daemon.stop().await;
}

#[tokio::test]
async fn what_oes_has_ended_meanwhile_is_found_and_not_sent_again() {
    let world = World::with(&[("retry.slow_read_every_s", "3600")]).await;
    let daemon = world.daemon().await;
    let record = parked(&world).await;
    world.oes().finish(record.id, Outcome::Cleared).unwrap();
    send_on(&world, &record).await;
    world.wait_for_state(&record, "confirmed").await;
    assert_eq!(world.puts_of(&record).len(), 1);
    world.assert_promises().await;
    daemon.stop().await;
}

#[tokio::test]
async fn a_job_that_was_parked_undecided_is_decided_once_its_connection_is_put_right() {
    let world = World::new().await;
    let daemon = world.daemon().await;
    let mut wrong = world.connection_event("typo", world.connection_id, true);
    wrong["partnersConnectionId"] = json!("a-typo");
    world.import(&[wrong]).await;
    let record = world.submit(JobType::Allocation, "5").await;
    world.wait_for_state(&record, "parked(identity_mismatch)").await;
    world.import(&[world.connection_event("right", world.connection_id, true)]).await;
    let said = send_on(&world, &record).await;
    assert!(said.contains("goes on as received"), "{said}");
    world.wait_for_state(&record, "confirmed").await;
    world.assert_promises().await;
    daemon.stop().await;
}

#[tokio::test]
async fn it_works_without_a_daemon_and_leaves_alone_what_is_not_parked() {
    let world = World::new().await;
    let daemon = world.daemon().await;
    let record = parked(&world).await;
    daemon.stop().await;
    let said = send_on(&world, &record).await;
    assert!(said.contains("goes on as unknown(sent_on)"), "{said}");
    let id = record.id.to_string();
    let other = "0b4a3f3e-7d0a-4b5e-9a0e-3d1c5f2b7a10";
    let (success, said, error) =
        world.run(&["jobs", "retry", &id, other, "--reason", "again"]).await;
    assert!(!success && error.contains("2 of 2 jobs were left alone"), "{error}");
    assert!(said.contains("is unknown(sent_on) and not parked"), "{said}");
    assert!(said.contains(&format!("{other} is not in the book")), "{said}");
    let (success, _, error) = world.run(&["jobs", "retry", &id, "--reason", " "]).await;
    assert!(!success && error.contains("a name and a reason are needed"), "{error}");
    assert_eq!(world.puts_of(&record).len(), 1, "nothing is sent without the daemon");
    let daemon = world.daemon().await;
    world.wait_for_state(&record, "confirmed").await;
    world.assert_promises().await;
    daemon.stop().await;
}
