//! What OES says about the token or the rate is about all records: sending stops or waits, intake
//! goes on, and nothing is lost.

use std::time::Duration;

use settled::{
    domain::{job::JobType, time::TimestampMs},
    sandbox::{Effect, Fault, On, RateLimit, RetryAfter, Rules, Times, When},
};

use crate::support::{eventually, world::World};

fn answer(status: u16) -> Effect {
    Effect::Answer { when: When::Before, status }
}

#[tokio::test]
async fn a_refused_token_stops_sending_and_a_read_that_succeeds_resumes_it() {
    // With a read before the decision nothing would be decided, and no update be refused.
    let world = World::with(&[("decide.verify_with_oes", "false")]).await;
    let daemon = world.daemon().await;
    for on in [On::Update, On::List, On::Read] {
        world.inject(Fault::new(on, answer(401)).times(Times::Always));
    }
    let first = world.submit(JobType::Allocation, "1").await;
    world.wait_for_state(&first, "unknown(unauthorized)").await;
    let later: Vec<_> = (0..20).map(|_| world.reserve(JobType::Allocation, "1")).collect();
    world.publish(later.iter().map(|record| world.job(record))).await;
    for record in &later {
        world.wait_for_state(record, "decided").await;
    }
    assert_eq!(world.exchange.ready(&world.jobs_queue).await, 0, "intake goes on");
    assert_eq!(world.oes().counts().puts, 1, "one refusal is enough");
    let (status, body) = daemon.get("/readyz").await;
    assert!(status == 503 && body.contains("token_refused"), "{body}");
    assert_eq!(daemon.count("settled_sender_stopped{cause=\"token_refused\"}").await, 1);

    world.oes().clear_faults();
    world.wait_for_final(21).await;
    daemon.wait_until_ready().await;
    world.assert_promises().await;
    daemon.stop().await;
}

#[tokio::test]
async fn records_that_were_forbidden_together_with_the_token_are_not_parked() {
    let world = World::new().await;
    let daemon = world.daemon().await;
    for on in [On::Update, On::List, On::Read] {
        world.inject(Fault::new(on, answer(403)).times(Times::Always));
    }
    let records: Vec<_> = (0..10).map(|_| world.reserve(JobType::Allocation, "1")).collect();
    world.publish(records.iter().map(|record| world.job(record))).await;
    eventually("the token to be suspected", || async {
        let cause = "settled_sender_stopped{cause=\"token_refused\"}";
        (daemon.count(cause).await == 1).then_some(())
    })
    .await;
    world.oes().clear_faults();
    world.wait_for_final(10).await;
    world.assert_promises().await;
    daemon.stop().await;
}

#[tokio::test]
async fn a_token_that_is_replaced_in_its_file_is_taken_without_a_restart() {
    let world = World::new().await;
    let token = world.path("token");
    let right = std::fs::read_to_string(&token).unwrap();
    std::fs::write(&token, "v2x-one-that-has-expired").unwrap();
    let daemon = world.daemon().await;
    let record = world.submit(JobType::Allocation, "1").await;
    eventually("the token to be refused", || async {
        let stopped = daemon.count("settled_sender_stopped{cause=\"token_refused\"}").await == 1;
        stopped.then_some(())
    })
    .await;
    world.wait_for_state(&record, "received").await;
    std::fs::write(&token, right).unwrap();
    world.wait_for_state(&record, "confirmed").await;
    daemon.wait_until_ready().await;
    world.assert_promises().await;
    daemon.stop().await;
}

#[tokio::test]
async fn one_refused_read_does_not_stop_sending_until_the_next_read_is_due() {
    let world = World::with(&[("retry.slow_read_every_s", "3600")]).await;
    let daemon = world.daemon().await;
    let parked = world.reserve(JobType::Allocation, "1");
    let refuse = Fault::new(On::Update, answer(422)).of_record(parked.id);
    world.inject(refuse);
    // Both reads after the 422: the list, and by name.
    world.inject(Fault::new(On::List, answer(401)));
    world.publish([world.job(&parked)]).await;
    world.wait_for_state(&parked, "parked(refused_by_oes)").await;
    // The job is read again in an hour only, and the refusal is found out to be over before that.
    let other = world.submit(JobType::Allocation, "1").await;
    world.wait_for_state(&other, "confirmed").await;
    world.assert_promises().await;
    daemon.stop().await;
}

#[tokio::test]
async fn one_forbidden_record_is_parked_and_the_others_go_on() {
    let world = World::new().await;
    let daemon = world.daemon().await;
    let forbidden = world.reserve(JobType::Allocation, "1");
    world.inject(Fault::new(On::Update, answer(403)).of_record(forbidden.id).times(Times::Always));
    world.publish([world.job(&forbidden)]).await;
    world.wait_for_state(&forbidden, "parked(forbidden)").await;
    let others: Vec<_> = (0..5).map(|_| world.reserve(JobType::Allocation, "1")).collect();
    world.publish(others.iter().map(|record| world.job(record))).await;
    world.wait_for_final(5).await;
    world.assert_promises().await;
    daemon.stop().await;
}

#[tokio::test]
async fn a_token_without_the_write_scope_stops_sending_and_does_not_flap() {
    let world = World::with(&[("oes.in_flight_max", "1")]).await;
    let daemon = world.daemon().await;
    world.inject(Fault::new(On::Update, answer(403)).times(Times::Always));
    let records: Vec<_> = (0..20).map(|_| world.reserve(JobType::Allocation, "1")).collect();
    world.publish(records.iter().map(|record| world.job(record))).await;
    eventually("sending to stop", || async {
        let cause = "settled_sender_stopped{cause=\"updates_forbidden\"}";
        (daemon.count(cause).await == 1).then_some(())
    })
    .await;
    let puts = world.oes().counts().puts;
    assert!((3..=5).contains(&puts), "{puts} updates before it stopped");
    let parked = daemon.count("settled_jobs{state=\"parked\",type=\"allocation\"}").await;
    assert!(parked <= 3, "{parked} jobs were parked for a fault of the token");
    world.assert_promises().await;
    daemon.stop().await;
}

#[tokio::test]
async fn a_rate_limit_pauses_everything_for_as_long_as_oes_asks() {
    let world = World::new().await;
    let daemon = world.daemon().await;
    for retry_after in [RetryAfter::Seconds, RetryAfter::HttpDate] {
        let limited = world.reserve(JobType::Allocation, "1");
        let effect = Effect::RateLimited { retry_after, retry_after_s: 2 };
        world.inject(Fault::new(On::Update, effect).of_record(limited.id));
        world.publish([world.job(&limited)]).await;
        eventually("the first attempt", || async {
            (!world.puts_of(&limited).is_empty()).then_some(())
        })
        .await;
        let other = world.submit(JobType::Allocation, "1").await;
        for record in [&limited, &other] {
            world.wait_for_state(record, "confirmed").await;
        }
        let (limited, other) = (world.puts_of(&limited), world.puts_of(&other));
        let since = |later: TimestampMs| later.since(limited[0].at);
        // A date has no fractions, so it may name a time up to a second earlier.
        let least =
            Duration::from_millis(if retry_after == RetryAfter::Seconds { 1_950 } else { 950 });
        assert!(since(limited[1].at) >= least, "{retry_after:?}: {:?}", since(limited[1].at));
        assert!(since(other[0].at) >= least, "{retry_after:?}: {:?}", since(other[0].at));
    }
    world.assert_promises().await;
    daemon.stop().await;
}

#[tokio::test]
async fn the_budget_keeps_within_the_limit_of_oes() {
    let world = World::with(&[
        ("oes.rate_limit", "40"),
        ("oes.rate_window_s", "4"),
        ("oes.rate_burst", "10"),
        ("oes.in_flight_max", "32"),
    ])
    .await;
    // A third more than the budget: what a busy machine holds up in one window arrives in the next. All
    // sixty at once would still be too many.
    let limit = RateLimit { requests: 53, window_ms: 4_000 };
    world.oes().set_rules(Rules { rate_limit: Some(limit), ..Rules::default() });
    let daemon = world.daemon().await;
    let records: Vec<_> = (0..60).map(|_| world.reserve(JobType::Allocation, "1")).collect();
    world.publish(records.iter().map(|record| world.job(record))).await;
    world.wait_for_final(60).await;
    assert_eq!(world.oes().counts().rate_limited, 0);
    // First come, first served: updates went out in the order of arrival, but for those in flight
    // together.
    let order: Vec<usize> = world
        .oes()
        .puts()
        .iter()
        .map(|put| records.iter().position(|record| Some(record.id) == put.record_id).unwrap())
        .collect();
    for (sent, arrived) in order.iter().enumerate() {
        assert!(sent.abs_diff(*arrived) <= 32, "job {arrived} was sent as number {sent}");
    }
    world.assert_promises().await;
    daemon.stop().await;
}

#[tokio::test]
async fn requests_that_are_signed_as_the_sdk_does_are_taken() {
    let world = World::with(&[("oes.auth", "hmac")]).await;
    let daemon = world.daemon().await;
    let record = world.reserve(JobType::Allocation, "1");
    world.inject(Fault::new(On::Update, Effect::Reset { when: When::Before }).of_record(record.id));
    world.publish([world.job(&record)]).await;
    world.wait_for_state(&record, "confirmed").await;
    assert_eq!(world.oes().counts().unauthorized, 0);
    world.assert_promises().await;
    daemon.stop().await;
}
