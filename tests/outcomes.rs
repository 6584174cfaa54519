//! Outcomes are announced, with one id for ever, however often.

use settled::{
    broker::{Outgoing, PublishOutcome, PublisherSession},
    domain::{announcement::event_id, decision::Outcome, job::JobType, time::TimestampMs},
};

use crate::support::{eventually, world::World};

#[tokio::test]
async fn an_outcome_that_no_queue_takes_is_kept_until_one_does() {
    let world = World::new().await;
    let channel = world.exchange.channel().await;
    let options = lapin::options::QueueDeleteOptions::default();
    channel.queue_delete(world.outcomes.as_str().into(), options).await.unwrap();
    let daemon = world.daemon().await;
    let record = world.submit(JobType::Allocation, "5").await;
    world.wait_for_state(&record, "confirmed").await;
    eventually("the broker to send it back", || async {
        (daemon.count("settled_publish_refused_total").await >= 1).then_some(())
    })
    .await;
    assert_eq!(daemon.count("settled_outbox_waiting").await, 1);
    // Sooner than the next try of this process: a restart looks at once.
    daemon.stop().await;
    let queue = world.exchange.bind(&world.outcomes_exchange, "allocation.*").await;
    let daemon = world.daemon().await;
    let [heard] = world.exchange.hear(&queue, 1).await.try_into().unwrap();
    assert_eq!(heard.message_id, event_id(record.id, Outcome::Cleared).to_string());
    eventually("the outbox to be empty", || async {
        (daemon.count("settled_outbox_waiting").await == 0).then_some(())
    })
    .await;
    daemon.stop().await;
}

#[tokio::test]
async fn outcomes_go_out_in_the_order_in_which_they_became_final() {
    let world = World::with(&[("oes.in_flight_max", "1")]).await;
    let daemon = world.daemon().await;
    let records: Vec<_> = (0..30).map(|_| world.reserve(JobType::Allocation, "1")).collect();
    world.publish(records.iter().map(|record| world.job(record))).await;
    let heard = world.hear_outcomes(30).await;
    let order: Vec<String> =
        heard.iter().map(|heard| heard.json()["recordId"].as_str().unwrap().to_owned()).collect();
    let sent: Vec<String> =
        world.oes().puts().iter().map(|put| put.record_id.unwrap().to_string()).collect();
    assert_eq!(order, sent);
    daemon.stop().await;
}

#[tokio::test]
async fn messages_that_are_published_together_arrive_in_their_order() {
    const MESSAGES: usize = 200;
    let world = World::new().await;
    let session = PublisherSession::open(&world.config().broker).await.unwrap();
    let ids: Vec<String> = (0..MESSAGES).map(|number| number.to_string()).collect();
    let messages = ids.iter().map(|id| Outgoing {
        exchange: world.outcomes_exchange.clone(),
        routing_key: "allocation.cleared".to_owned(),
        message_id: id.clone(),
        content_type: "application/json",
        headers: Vec::new(),
        body: b"{}".to_vec(),
        published_at: TimestampMs::from_millis(0),
    });
    let outcomes = session.publish(messages.collect()).await.unwrap();
    assert_eq!(outcomes, vec![PublishOutcome::Confirmed; MESSAGES]);
    let heard = world.hear_outcomes(MESSAGES).await;
    let order: Vec<String> = heard.into_iter().map(|heard| heard.message_id).collect();
    assert_eq!(order, ids);
    session.close().await;
}

#[tokio::test]
async fn a_daemon_that_was_killed_announces_with_the_same_id() {
    let world = World::new().await;
    let process = world.process().await;
    let record = world.submit(JobType::Allocation, "5").await;
    // Killed right after the broker has it; the mark in the book may or may not be committed.
    let [first] = world.hear_outcomes(1).await.try_into().unwrap();
    process.kill().await;
    let process = world.process().await;
    let readers = world.readers().await;
    eventually("the outbox to be empty", || async {
        (readers.unpublished_count().await.unwrap() == 0).then_some(())
    })
    .await;
    readers.close().await;
    process.kill().await;
    let again = world.exchange.ready(&world.outcomes).await;
    assert!(again <= 1, "{again} repetitions");
    if again == 1 {
        let [second] = world.hear_outcomes(1).await.try_into().unwrap();
        assert_eq!((first.message_id, first.body), (second.message_id, second.body));
    }
    assert!(world.is_final(&record, Outcome::Cleared));
    world.assert_promises().await;
}

#[tokio::test]
async fn an_exchange_that_is_missing_does_not_hold_up_the_other_one() {
    let mut world = World::new().await;
    let channel = world.exchange.channel().await;
    let dead = world.setting("broker.dead_letter_exchange").to_owned();
    let options = lapin::options::ExchangeDeleteOptions::default();
    channel.exchange_delete(dead.as_str().into(), options).await.unwrap();
    world.set("broker.declare", "false");
    world.set("broker.reconnect_max_ms", "300");
    // Taken in together, so that dead letters and outcomes wait together.
    let records: Vec<_> = (0..3).map(|_| world.reserve(JobType::Allocation, "5")).collect();
    for record in &records {
        world.publish([b"not a job".to_vec(), world.job(record)]).await;
    }
    let daemon = world.daemon().await;
    let heard = world.hear_outcomes(3).await;
    assert!(heard.iter().all(|heard| heard.routing_key == "allocation.cleared"));
    eventually("only the dead letter to wait", || async {
        (daemon.count("settled_outbox_waiting").await == 1).then_some(())
    })
    .await;
    daemon.stop().await;
}

#[tokio::test]
async fn an_end_in_good_order_leaves_no_outcome_behind() {
    let world = World::new().await;
    let daemon = world.daemon().await;
    let records: Vec<_> = (0..50).map(|_| world.reserve(JobType::Allocation, "1")).collect();
    world.publish(records.iter().map(|record| world.job(record))).await;
    eventually("some to be final", || async {
        let confirmed = "settled_jobs{state=\"confirmed\",type=\"allocation\"}";
        (daemon.count(confirmed).await >= 5).then_some(())
    })
    .await;
    daemon.stop().await;
    let readers = world.readers().await;
    assert_eq!(readers.unpublished_count().await.unwrap(), 0);
    readers.close().await;
    world.assert_promises().await;
}
