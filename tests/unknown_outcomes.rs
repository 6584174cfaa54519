//! Unknown is a state, not a failure: whatever OES answers, the record is read back before anything
//! is sent again, with a fresh nonce, and always the same decision.

use std::collections::BTreeSet;

use settled::{
    domain::{decision::Outcome, job::JobType},
    sandbox::{
        AfterRejection, Effect, Fault, FinalRefusal, On, Record, Rules, Stance, Times, When,
    },
};

use crate::support::{eventually, world::World};

fn once(effect: Effect) -> Fault {
    Fault::new(On::Update, effect)
}

/// One record goes wrong once with each effect; all end as decided.
async fn converges(world: &World, effects: Vec<(Effect, usize)>) {
    let daemon = world.daemon().await;
    for (effect, updates) in effects {
        let name = format!("{effect:?}");
        let record = world.reserve(JobType::Allocation, "5");
        world.inject(once(effect).of_record(record.id));
        world.publish([world.job(&record)]).await;
        let history = world.wait_for_state(&record, "confirmed").await;
        assert!(world.is_final(&record, Outcome::Cleared), "{name}");
        let puts = world.puts_of(&record);
        assert_eq!(puts.len(), updates, "{name}");
        let nonces: BTreeSet<_> = puts.iter().map(|put| put.nonce.clone()).collect();
        assert_eq!(nonces.len(), updates, "{name}");
        assert_eq!(history.attempts.len(), updates, "{name}");
        // Between two attempts there is a read that found the record reserved.
        let reads = history.notes.iter().filter(|note| note.kind == "read_back").count();
        assert!(reads >= 1, "{name}: {:?}", history.notes);
    }
    world.assert_promises().await;
    daemon.stop().await;
}

/// What may have been applied although no good answer came: the read settles it, nothing is re-sent.
fn applied_without_an_answer() -> Vec<(Effect, usize)> {
    let after = When::After;
    vec![
        (Effect::Reset { when: after }, 1),
        (Effect::Answer { when: after, status: 500 }, 1),
        (Effect::Answer { when: after, status: 503 }, 1),
        (Effect::Answer { when: after, status: 409 }, 1),
        (Effect::Answer { when: after, status: 400 }, 1),
        (Effect::Answer { when: after, status: 422 }, 1),
        (Effect::Answer { when: after, status: 404 }, 1),
        (Effect::Answer { when: after, status: 408 }, 1),
        (Effect::Html { when: after, status: 202 }, 1),
        (Effect::Html { when: after, status: 502 }, 1),
        (Effect::Html { when: after, status: 200 }, 1),
        (Effect::Truncate, 1),
        (Effect::Oversize { bytes: 2 * 1_024 * 1_024 }, 1),
        (Effect::WrongEcho { quantity: "6".parse().unwrap() }, 1),
    ]
}

/// What was certainly not applied, but only a read tells: one more attempt.
fn not_applied() -> Vec<(Effect, usize)> {
    let before = When::Before;
    vec![
        (Effect::Reset { when: before }, 2),
        (Effect::Answer { when: before, status: 500 }, 2),
        (Effect::Answer { when: before, status: 409 }, 2),
        (Effect::Answer { when: before, status: 404 }, 2),
        (Effect::Answer { when: before, status: 413 }, 2),
        (Effect::Html { when: before, status: 502 }, 2),
        (Effect::Redirect { location: "http://127.0.0.1:1/elsewhere".to_owned() }, 2),
    ]
}

#[tokio::test]
async fn an_update_that_was_applied_is_found_and_never_sent_again() {
    let world = World::new().await;
    converges(&world, applied_without_an_answer()).await;
}

#[tokio::test]
async fn an_update_that_was_not_applied_is_sent_again_with_a_fresh_nonce() {
    let world = World::new().await;
    converges(&world, not_applied()).await;
}

#[tokio::test]
async fn both_answers_to_everything_that_the_reference_leaves_open_are_survived() {
    for (final_repeat, final_refusal) in
        [(Stance::Accept, FinalRefusal::Conflict), (Stance::Refuse, FinalRefusal::Unprocessable)]
    {
        let world = World::new().await;
        let rules = Rules {
            final_repeat,
            identical_repeat: final_repeat,
            final_refusal,
            rate_limit: None,
            ..Rules::default()
        };
        world.oes().set_rules(rules);
        let mut effects = applied_without_an_answer();
        effects.extend(not_applied());
        converges(&world, effects).await;
    }
}

#[tokio::test]
async fn a_slow_answer_is_given_up_and_the_late_update_is_found() {
    let world = World::with(&[("oes.request_timeout_ms", "300")]).await;
    let daemon = world.daemon().await;
    let record = world.reserve(JobType::Allocation, "5");
    world.inject(once(Effect::Delay { when: When::After, delay_ms: 2_000 }).of_record(record.id));
    world.publish([world.job(&record)]).await;
    let history = world.wait_for_state(&record, "confirmed").await;
    assert_eq!(history.attempts[0].result.as_deref(), Some("no_reply"));
    assert!(history.attempts[0].detail.as_deref().unwrap().contains("timed out"));
    world.assert_promises().await;
    daemon.stop().await;
}

async fn parks(effect: Effect, reason: &str) {
    let world = World::new().await;
    let daemon = world.daemon().await;
    let record = world.reserve(JobType::Deallocation, "5");
    world.inject(once(effect).of_record(record.id).times(Times::Always));
    world.publish([world.job(&record)]).await;
    let history = world.wait_for_state(&record, &format!("parked({reason})")).await;
    // The hold stays, because the decision stands.
    assert_eq!(world.balances().await[1], "5");
    assert_eq!(history.transfers.len(), 1);
    // A parked record is read on, slowly; when OES ends it as decided, so does the book.
    world.oes().clear_faults();
    world.oes().finish(record.id, Outcome::Cleared).unwrap();
    world.wait_for_state(&record, "confirmed").await;
    assert_eq!(world.balances().await[1], "0");
    assert_eq!(world.hear_outcomes(1).await[0].json()["knownBy"], "read_back");
    world.assert_promises().await;
    daemon.stop().await;
}

#[tokio::test]
async fn what_oes_refuses_for_its_content_is_parked_and_not_sent_again() {
    parks(Effect::Answer { when: When::Before, status: 400 }, "refused_by_oes").await;
    parks(Effect::Answer { when: When::Before, status: 422 }, "refused_by_oes").await;
}

#[tokio::test]
async fn a_record_that_oes_keeps_answering_404_for_is_parked_after_a_few_attempts() {
    parks(Effect::Answer { when: When::Before, status: 404 }, "not_found_at_oes").await;
}

#[tokio::test]
async fn attempts_are_bounded() {
    let world = World::with(&[("retry.attempts_max", "3")]).await;
    let daemon = world.daemon().await;
    let record = world.reserve(JobType::Allocation, "5");
    let fault = once(Effect::Answer { when: When::Before, status: 500 }).times(Times::Always);
    world.inject(fault);
    world.publish([world.job(&record)]).await;
    let history = world.wait_for_state(&record, "parked(attempts_exhausted)").await;
    assert_eq!(history.attempts.len(), 3);
    world.assert_promises().await;
    daemon.stop().await;
}

#[tokio::test]
async fn the_other_outcome_at_oes_freezes_the_record_and_nothing_is_sent_any_more() {
    let world = World::new().await;
    let daemon = world.daemon().await;
    let mut frozen: Vec<Record> = Vec::new();
    for status in [500, 409] {
        let record = world.reserve(JobType::Allocation, "5");
        world.inject(once(Effect::DecideOtherwise { status }).of_record(record.id));
        world.publish([world.job(&record)]).await;
        frozen.push(record);
    }
    for record in &frozen {
        let history = world.wait_for_state(record, "conflict(other_outcome)").await;
        assert_eq!(history.attempts.len(), 1);
        assert!(history.announcement.is_none());
    }
    let reads = world.oes().counts().partner_reads;
    eventually("two more slow reads", || async {
        (world.oes().counts().partner_reads >= reads + 2).then_some(())
    })
    .await;
    for record in &frozen {
        assert_eq!(world.puts_of(record).len(), 1);
        world.wait_for_state(record, "conflict(other_outcome)").await;
    }
    assert_eq!(daemon.count("settled_jobs{state=\"conflict\",type=\"allocation\"}").await, 2);
    world.assert_promises().await;
    daemon.stop().await;
}

#[tokio::test]
async fn a_policy_that_rejects_and_keeps_the_record_reserved_parks_it() {
    let world = World::new().await;
    let daemon = world.daemon().await;
    let record = world.reserve(JobType::Allocation, "5");
    let effect = Effect::PolicyRejects { record: AfterRejection::StaysReserved };
    world.inject(once(effect).of_record(record.id));
    world.publish([world.job(&record)]).await;
    world.wait_for_state(&record, "parked(policy_rejected)").await;
    assert_eq!(world.puts_of(&record).len(), 1);
    world.assert_promises().await;
    daemon.stop().await;
}

#[tokio::test]
async fn a_policy_that_rejects_and_ends_the_record_overrules() {
    let world = World::new().await;
    let daemon = world.daemon().await;
    let record = world.reserve(JobType::Deallocation, "5");
    let effect = Effect::PolicyRejects { record: AfterRejection::OtherOutcome };
    world.inject(once(effect).of_record(record.id));
    world.publish([world.job(&record)]).await;
    world.wait_for_state(&record, "overruled").await;
    assert_eq!(world.balances().await, ["1000000".to_owned(), "0".into(), "0".into()]);
    assert_eq!(world.puts_of(&record).len(), 1);
    world.assert_promises().await;
    daemon.stop().await;
}

#[tokio::test]
async fn a_pending_approval_is_followed_until_it_is_final() {
    let world = World::new().await;
    let daemon = world.daemon().await;
    let approved = world.reserve(JobType::Deallocation, "5");
    let rejected = world.reserve(JobType::Deallocation, "7");
    for record in [&approved, &rejected] {
        world.inject(once(Effect::AwaitApproval).of_record(record.id));
        world.publish([world.job(record)]).await;
        world.wait_for_state(record, "awaiting_approval").await;
    }
    assert_eq!(world.balances().await[1], "12");
    world.oes().approve(approved.id).unwrap();
    world.wait_for_state(&approved, "confirmed").await;
    world.oes().reject(rejected.id, AfterRejection::OtherOutcome).unwrap();
    world.wait_for_state(&rejected, "overruled").await;
    // The approved one has left, the rejected one is available again.
    assert_eq!(world.balances().await, ["999995".to_owned(), "0".into(), "0".into()]);
    let heard = world.hear_outcomes(2).await;
    let of_rejected = heard
        .iter()
        .find(|heard| heard.json()["recordId"] == serde_json::json!(rejected.id))
        .unwrap();
    assert_eq!(of_rejected.routing_key, "deallocation.released");
    assert_eq!(of_rejected.json()["overruledDecision"], "cleared");
    for record in [&approved, &rejected] {
        assert_eq!(world.puts_of(record).len(), 1, "an approval is never answered for again");
    }
    world.assert_promises().await;
    daemon.stop().await;
}

#[tokio::test]
async fn reads_that_fail_are_repeated_and_nothing_is_sent_meanwhile() {
    let world = World::new().await;
    let daemon = world.daemon().await;
    let record = world.reserve(JobType::Allocation, "5");
    world.inject(once(Effect::Reset { when: When::After }).of_record(record.id));
    let failing_reads = Fault::new(On::List, Effect::Html { when: When::Before, status: 503 });
    world.inject(failing_reads.times(Times::Next(3)));
    world.publish([world.job(&record)]).await;
    world.wait_for_state(&record, "confirmed").await;
    assert_eq!(world.puts_of(&record).len(), 1);
    world.assert_promises().await;
    daemon.stop().await;
}

#[tokio::test]
async fn a_record_that_a_list_leaves_out_is_asked_for_by_name() {
    let world = World::new().await;
    world.oes().set_rules(Rules { page_size_max: 1, rate_limit: None, ..Rules::default() });
    let daemon = world.daemon().await;
    let records: Vec<_> = (0..5).map(|_| world.reserve(JobType::Allocation, "5")).collect();
    let fault = once(Effect::Reset { when: When::After });
    world.inject(fault.times(Times::Next(5)));
    world.publish(records.iter().map(|record| world.job(record))).await;
    world.wait_for_final(5).await;
    for record in &records {
        assert_eq!(world.puts_of(record).len(), 1);
    }
    world.assert_promises().await;
    daemon.stop().await;
}

#[tokio::test]
async fn without_a_list_route_that_works_every_record_is_asked_for_by_name() {
    let world = World::new().await;
    let daemon = world.daemon().await;
    for list_answer in [
        Effect::Answer { when: When::Before, status: 400 },
        Effect::Answer { when: When::Before, status: 404 },
        Effect::Html { when: When::Before, status: 200 },
        Effect::Html { when: When::Before, status: 500 },
    ] {
        let records: Vec<_> = (0..3).map(|_| world.reserve(JobType::Allocation, "5")).collect();
        for record in &records {
            world.inject(once(Effect::Reset { when: When::After }).of_record(record.id));
        }
        world.inject(Fault::new(On::List, list_answer).times(Times::Always));
        world.publish(records.iter().map(|record| world.job(record))).await;
        for record in &records {
            world.wait_for_state(record, "confirmed").await;
            assert_eq!(world.puts_of(record).len(), 1);
        }
        world.oes().clear_faults();
    }
    world.assert_promises().await;
    daemon.stop().await;
}
