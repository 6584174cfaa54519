//! One decision per record, for ever, whatever the broker repeats and whoever contradicts.

use serde_json::{Value, json};
use settled::domain::{decision::Outcome, job::JobType};

use crate::support::{eventually, world::World};

#[tokio::test]
async fn a_repeated_message_is_one_job_and_one_update() {
    let world = World::new().await;
    let daemon = world.daemon().await;
    let record = world.reserve(JobType::Allocation, "5");
    let message = world.job(&record);
    world.publish(std::iter::repeat_n(message.clone(), 20)).await;
    world.wait_for_state(&record, "confirmed").await;
    // Again, when it is final, and written differently: spaces and further fields change nothing.
    let mut extended: Value = serde_json::from_slice(&message).unwrap();
    extended["resentAt"] = json!("2026-11-22T00:00:00Z");
    world.publish([message, serde_json::to_vec_pretty(&extended).unwrap()]).await;
    eventually("all repetitions to be acknowledged", || async {
        let repeated = daemon.count("settled_messages_total{result=\"repeated\"}").await;
        (repeated == 21).then_some(())
    })
    .await;
    assert_eq!(world.puts_of(&record).len(), 1);
    assert_eq!(world.hear_outcomes(1).await.len(), 1);
    assert_eq!(daemon.count("settled_messages_total{result=\"new\"}").await, 1);
    world.assert_promises().await;
    daemon.stop().await;
    assert_eq!(world.exchange.ready(&world.jobs_queue).await, 0);
}

#[tokio::test]
async fn the_same_id_with_other_content_is_quarantined_and_the_first_message_holds() {
    let world = World::new().await;
    let daemon = world.daemon().await;
    let record = world.reserve(JobType::Allocation, "5");
    let message = world.job(&record);
    let mut others = Vec::new();
    for (pointer, value) in [
        ("/amount/quantity", json!("500000")),
        ("/amount/currency", json!("ETH")),
        ("/partnersAllocationId", json!("another")),
    ] {
        let mut other: Value = serde_json::from_slice(&message).unwrap();
        *other.pointer_mut(pointer).unwrap() = value;
        others.push(other.to_string().into_bytes());
    }
    // The other type under the same id: ids of both live in one space.
    let mut other: Value = serde_json::from_slice(&message).unwrap();
    let fields = other.as_object_mut().unwrap();
    fields.insert("type".into(), json!("deallocation"));
    for (from, to) in
        [("allocationId", "deallocationId"), ("partnersAllocationId", "partnersDeallocationId")]
    {
        let value = fields.remove(from).unwrap();
        fields.insert(to.into(), value);
    }
    others.push(other.to_string().into_bytes());

    world.publish([message]).await;
    world.publish(others.clone()).await;
    let history = world.wait_for_state(&record, "confirmed").await;
    assert_eq!(history.job.terms.amount.to_string(), "5 BTC");
    let dead = world.exchange.hear(&format!("{}.dead", world.jobs_queue), 4).await;
    let mut bodies: Vec<_> = dead.iter().map(|heard| heard.body.clone()).collect();
    bodies.sort();
    others.sort();
    assert_eq!(bodies, others);
    assert!(dead.iter().all(|heard| heard.headers["x-settled-reason"] == "content_differs"));
    assert_eq!(world.puts_of(&record).len(), 1);
    assert!(world.is_final(&record, Outcome::Cleared));
    world.assert_promises().await;
    daemon.stop().await;
}

#[tokio::test]
async fn a_restart_never_decides_again() {
    // Every read fails, also the one that would come before the decision.
    let world = World::with(&[("decide.verify_with_oes", "false")]).await;
    let record = world.submit(JobType::Deallocation, "700000").await;
    // The answer is lost, so the record is open when the daemon ends.
    world.inject(settled::sandbox::Fault::new(
        settled::sandbox::On::Update,
        settled::sandbox::Effect::Reset { when: settled::sandbox::When::Before },
    ));
    for on in [settled::sandbox::On::List, settled::sandbox::On::Read] {
        world.inject(
            settled::sandbox::Fault::new(
                on,
                settled::sandbox::Effect::Answer {
                    when: settled::sandbox::When::Before,
                    status: 500,
                },
            )
            .times(settled::sandbox::Times::Always),
        );
    }
    let daemon = world.daemon().await;
    world.wait_for_state(&record, "unknown(no_reply)").await;
    daemon.stop().await;

    // Now the book would release it: what is available has been taken away meanwhile.
    world.import(&[world.adjustment("b-2", "-900000")]).await;
    world.oes().clear_faults();
    let daemon = world.daemon().await;
    world.wait_for_state(&record, "confirmed").await;
    assert!(world.is_final(&record, Outcome::Cleared), "the decision of the first run holds");
    assert_eq!(world.balances().await, ["-600000".to_owned(), "0".into(), "0".into()]);
    world.assert_promises().await;
    daemon.stop().await;
}
