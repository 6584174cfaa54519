//! Nothing makes or destroys money, whatever happens to records.

use proptest::prelude::*;

use super::*;
use crate::sandbox::{
    seed::Seed,
    world::{NewRecord, World},
};

/// Something that happens.
#[derive(Clone, Debug)]
enum Step {
    Place(JobType, u64),
    Settle(usize, Outcome),
    Await(usize, Outcome),
    Approve(usize),
    Reject(usize, AfterRejection),
}

fn step() -> impl Strategy<Value = Step> {
    let outcome = || prop::sample::select(Outcome::ALL.to_vec());
    let then =
        prop::sample::select(vec![AfterRejection::OtherOutcome, AfterRejection::StaysReserved]);
    let record_type = prop::sample::select(JobType::ALL.to_vec());
    prop_oneof![
        (record_type, 1..400_u64).prop_map(|(record_type, units)| Step::Place(record_type, units)),
        (0..20_usize, outcome()).prop_map(|(record, outcome)| Step::Settle(record, outcome)),
        (0..20_usize, outcome()).prop_map(|(record, outcome)| Step::Await(record, outcome)),
        (0..20_usize).prop_map(Step::Approve),
        (0..20_usize, then).prop_map(|(record, then)| Step::Reject(record, then)),
    ]
}

fn world() -> World {
    let mut seed = Seed::example(&key('1').public_key(), &key('2').public_key());
    for balances in [&mut seed.clients[0].balances, &mut seed.connections[0].balances] {
        balances.insert(btc(), Units::from(1_000));
    }
    let mut world = World::new(DEFAULT_PARTNER_ID);
    world.apply(&seed, crate::domain::time::TimestampMs::default()).unwrap();
    world
}

proptest! {
    #[test]
    fn the_sum_stays_and_what_is_held_is_what_is_reserved(
        steps in prop::collection::vec(step(), 0..120),
    ) {
        let mut world = world();
        let total = world.total(&btc());
        let connection_id = *world.connections.keys().next().unwrap();
        let client_id = *world.clients.keys().next().unwrap();
        let now = crate::domain::time::TimestampMs::default();
        let mut ids: Vec<RecordId> = Vec::new();
        for (number, step) in steps.into_iter().enumerate() {
            let id_of = |index: usize| ids.get(index).copied();
            match step {
                Step::Place(record_type, units) => {
                    let new = NewRecord {
                        record_type,
                        connection_id,
                        currency: btc(),
                        quantity: Units::from(units),
                        client_external_id: number.to_string(),
                        notes: None,
                        partners_record_id: None,
                        initiated_by: "test".to_owned(),
                    };
                    ids.push(world.place(new, Settlement::Async, now).unwrap());
                }
                Step::Settle(index, outcome) => {
                    let _: Option<Result<_, _>> = id_of(index).map(|id| world.finish(id, outcome, now));
                }
                Step::Await(index, outcome) => {
                    let reserved = id_of(index)
                        .and_then(|id| world.record(id))
                        .filter(|record| record.standing == Standing::Reserved);
                    if let Some(id) = reserved.map(|record| record.id) {
                        let asked = Asked {
                            outcome,
                            reject_reason: None,
                            partners_record_id: "p".to_owned(),
                        };
                        world.await_approval(id, asked, now).unwrap();
                    }
                }
                Step::Approve(index) => {
                    let _: Option<Result<_, _>> = id_of(index).map(|id| world.approve(id, now));
                }
                Step::Reject(index, then) => {
                    let _: Option<Result<_, _>> = id_of(index).map(|id| world.reject(id, then, now));
                }
            }
            prop_assert_eq!(world.total(&btc()), total);
        }
        let held = |record_type| {
            world
                .records()
                .filter(|record| record.record_type == record_type)
                .filter(|record| record.standing.outcome().is_none())
                .fold(Units::ZERO, |sum, record| sum.plus(record.quantity))
        };
        let client = world.clients[&client_id].purse[&btc()].held;
        let connection = world.connections[&connection_id].purse[&btc()].held;
        prop_assert_eq!(client, held(JobType::Allocation));
        prop_assert_eq!(connection, held(JobType::Deallocation));
    }
}
