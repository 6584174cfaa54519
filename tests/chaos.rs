//! Everything at once: the daemon is killed, the broker crashes and is restarted, OES does to answers
//! whatever it can, messages come twice, contradict each other or are no jobs. In the end the sets are
//! equal: what was published is final, parked or in quarantine, and nothing else is.

use std::collections::BTreeSet;

use settled::{
    domain::job::JobType,
    sandbox::{AfterRejection, Effect, Fault, On, Record, Times, When},
};

use crate::support::{
    broker::Exchange,
    eventually,
    node::{PrivateNode, private_node},
    world::World,
};

const ROUNDS: usize = 6;
const RECORDS_PER_ROUND: usize = 60;

/// Of a thousand answers, how many each effect spoils.
const PER_MILLE: u16 = 25;

fn spoil_answers(world: &World) {
    let (before, after) = (When::Before, When::After);
    for effect in [
        Effect::Reset { when: before },
        Effect::Reset { when: after },
        Effect::Answer { when: before, status: 500 },
        Effect::Answer { when: after, status: 500 },
        Effect::Answer { when: after, status: 409 },
        Effect::Answer { when: after, status: 422 },
        Effect::Html { when: after, status: 502 },
        Effect::Truncate,
        Effect::Delay { when: after, delay_ms: 40 },
        Effect::PolicyRejects { record: AfterRejection::OtherOutcome },
    ] {
        world.inject(Fault::new(On::Update, effect).times(Times::PerMille(PER_MILLE)));
    }
    for on in [On::List, On::Read] {
        let effect = Effect::Answer { when: before, status: 503 };
        world.inject(Fault::new(on, effect).times(Times::PerMille(100)));
    }
}

/// The messages of a round: each record's job, one in three twice, one in ten with other content as
/// well, and as many that are no jobs at all.
fn messages(world: &World, records: &[Record], round: usize) -> (Vec<Vec<u8>>, usize) {
    let mut bad = 0;
    let mut messages = Vec::new();
    for (number, record) in records.iter().enumerate() {
        let job = world.job(record);
        messages.push(job.clone());
        if number % 3 == 0 {
            messages.push(job.clone());
        }
        if number % 10 == 0 {
            let text = String::from_utf8(job).unwrap();
            messages.push(text.replace("\"BTC\"", "\"ETH\"").into_bytes());
            messages.push(format!("no job {round} {number}").into_bytes());
            bad += 2;
        }
    }
    (messages, bad)
}

/// What happens while a round's jobs are on their way.
async fn disturb(world: &mut World, node: &mut PrivateNode, round: usize) {
    match round % 3 {
        0 => node.crash().await,
        1 => {}
        _ => node.restart().await,
    }
    world.exchange = Exchange::connect(&node.url).await;
}

#[tokio::test]
async fn what_was_published_is_final_parked_or_in_quarantine_and_nothing_else_is() {
    let mut node = private_node().await;
    let mut world = World::on(&node.url, &[("retry.attempts_max", "50")]).await;
    spoil_answers(&world);
    let (mut records, mut bad) = (Vec::new(), 0);
    for round in 0..ROUNDS {
        let process = world.process().await;
        let share: Vec<Record> = (0..RECORDS_PER_ROUND)
            .map(|number| {
                let job_type =
                    if number % 4 == 0 { JobType::Deallocation } else { JobType::Allocation };
                world.reserve(job_type, &(1 + number % 9).to_string())
            })
            .collect();
        let (published, refused) = messages(&world, &share, round);
        world.publish(published).await;
        records.extend(share);
        bad += refused;
        let readers = world.readers().await;
        eventually("some progress", || async {
            let counts = readers.job_counts().await.unwrap();
            let taken: u64 = counts.iter().map(|line| line.jobs).sum();
            (taken as usize >= records.len() - RECORDS_PER_ROUND / 2).then_some(())
        })
        .await;
        readers.close().await;
        disturb(&mut world, &mut node, round).await;
        process.kill().await;
    }
    let process = world.process().await;
    assert_equal_sets(&world, &records, bad as u64).await;
    process.kill().await;
    world.assert_promises().await;
}

async fn assert_equal_sets(world: &World, records: &[Record], bad: u64) {
    let readers = world.readers().await;
    eventually("everything to come to rest", || async {
        let counts = readers.job_counts().await.unwrap();
        let jobs_in = |states: &[&str]| -> u64 {
            counts
                .iter()
                .filter(|line| states.contains(&line.state.as_str()))
                .map(|line| line.jobs)
                .sum()
        };
        let at_rest = jobs_in(&["confirmed", "overruled", "parked"]);
        let all: u64 = counts.iter().map(|line| line.jobs).sum();
        assert!(all <= records.len() as u64, "{all} jobs of {} records", records.len());
        let quarantined = readers.quarantined_count().await.unwrap();
        assert!(quarantined <= bad, "{quarantined} of {bad} bad messages");
        let unpublished = readers.unpublished_count().await.unwrap();
        (at_rest == records.len() as u64 && quarantined == bad && unpublished == 0).then_some(())
    })
    .await;
    let mut expected = BTreeSet::new();
    for record in records {
        let history = readers.job_history(record.id).await.unwrap().expect("no job is lost");
        let announced = history.announcement.is_some();
        assert_eq!(history.job.state.is_final(), announced, "{}", record.id);
        expected.extend(history.announcement.map(|announcement| announcement.event_id));
    }
    readers.close().await;
    let waiting = world.exchange.ready(&world.outcomes).await as usize;
    let heard = world.hear_outcomes(waiting).await;
    let announced: BTreeSet<String> = heard.into_iter().map(|heard| heard.message_id).collect();
    assert_eq!(announced, expected, "each outcome has one id, and all were heard");
    assert_eq!(world.exchange.ready(&world.jobs_queue).await, 0);
}
