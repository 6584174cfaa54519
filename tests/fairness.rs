//! One client's flood does not delay another's single job beyond a stated bound: connections take
//! turns, and retries have theirs.

use settled::{
    domain::{job::JobType, turns::FIRST_ATTEMPTS_PER_RETRY},
    sandbox::{Effect, Fault, On, Record, Reservation, Times, When},
};
use uuid::Uuid;

use crate::support::{eventually, world::World};

/// A sender that sends one update at a time, twenty a second, so that a backlog builds up.
const SLOW: [(&str, &str); 4] = [
    ("oes.in_flight_max", "1"),
    ("oes.rate_limit", "21"),
    ("oes.rate_window_s", "1"),
    ("oes.rate_burst", "1"),
];

fn reserve_for(world: &World, connection: settled::domain::ids::ConnectionId) -> Record {
    world
        .oes()
        .reserve(Reservation {
            record_type: JobType::Allocation,
            connection_id: connection,
            currency: "BTC".parse().unwrap(),
            quantity: "1".parse().unwrap(),
            partners_record_id: None,
        })
        .unwrap()
}

async fn publish(world: &World, records: &[Record]) {
    world.publish(records.iter().map(|record| world.job(record))).await;
}

/// How many updates were sent in all.
fn sent(world: &World) -> usize {
    world.oes().puts().len()
}

#[tokio::test]
async fn a_single_job_waits_for_one_attempt_of_each_other_connection_only() {
    let world = World::with(&SLOW).await;
    let (second, third) = (Uuid::new_v4().into(), Uuid::new_v4().into());
    for (event, connection) in [("c-2", second), ("c-3", third)] {
        world.add_connection(connection, "BTC");
        world.import(&[world.connection_event(event, connection, true)]).await;
    }
    let daemon = world.daemon().await;
    let flood: Vec<Record> = (0..300)
        .map(|number| {
            reserve_for(&world, if number % 2 == 0 { world.connection_id } else { second })
        })
        .collect();
    publish(&world, &flood).await;
    world.exchange.wait_until_taken(&world.jobs_queue).await;
    eventually("a backlog", || async {
        let decided = "settled_jobs{state=\"decided\",type=\"allocation\"}";
        (daemon.count(decided).await > 200).then_some(())
    })
    .await;
    let single = reserve_for(&world, third);
    publish(&world, std::slice::from_ref(&single)).await;
    world.wait_for_state(&single, "decided").await;
    let before = sent(&world);
    eventually("the single job's update", || async {
        (!world.puts_of(&single).is_empty()).then_some(())
    })
    .await;
    let place = world.oes().puts().iter().position(|put| put.record_id == Some(single.id)).unwrap();
    // One turn of each other connection, what was prepared already, and a retry's turn.
    assert!(
        place <= before + 4,
        "{place} updates were sent first, {before} of them before it came"
    );
    world.assert_promises().await;
    daemon.stop().await;
}

#[tokio::test]
async fn retries_have_their_turns_while_first_attempts_flood() {
    let world = World::with(&SLOW).await;
    let daemon = world.daemon().await;
    let failing = world.reserve(JobType::Allocation, "1");
    let error = Effect::Answer { when: When::Before, status: 500 };
    world.inject(Fault::new(On::Update, error).of_record(failing.id).times(Times::Next(2)));
    let flood: Vec<Record> = (0..200).map(|_| world.reserve(JobType::Allocation, "1")).collect();
    world.publish([world.job(&failing)]).await;
    publish(&world, &flood).await;
    world.wait_for_state(&failing, "confirmed").await;
    let puts = world.oes().puts();
    let turns: Vec<usize> =
        (0..puts.len()).filter(|number| puts[*number].record_id == Some(failing.id)).collect();
    assert_eq!(turns.len(), 3);
    let waited = turns[2] - turns[0];
    // Two turns of retries, and what goes out while the answer and the read are on their way.
    assert!(waited <= 2 * FIRST_ATTEMPTS_PER_RETRY + 24, "{waited} updates in between");
    world.assert_promises().await;
    daemon.stop().await;
}
