//! Limits hold at their edge whatever comes together, and what is above the threshold is decided by an
//! operator's word, once.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use settled::{
    clock::{Clock, SystemClock},
    domain::{decision::Outcome, job::JobType, time::TimestampMs},
    sandbox::{AfterRejection, Effect, Fault, On, Record},
    store::query::JobHistory,
};

use crate::support::{
    daemon::{Daemon, binary, run, text},
    world::{World, copy_book},
};

const DAY: Duration = Duration::from_secs(86_400);

/// The currency as the world has it, with limits.
fn limited(event: &str, limits: &[(&str, &str)]) -> Value {
    let mut fact = json!({
        "eventId": event, "type": "currency.configured", "currency": "BTC", "enabled": true,
        "quantityMin": "1", "quantityMax": "1000000000",
    });
    for (name, limit) in limits {
        fact[*name] = json!(limit);
    }
    fact
}

/// The connection's own limits.
fn own_limits(world: &World, event: &str, limits: &[(&str, &str)]) -> Value {
    let mut fact = json!({
        "eventId": event, "type": "connection.limited", "connectionId": world.connection_id,
        "currency": "BTC",
    });
    for (name, limit) in limits {
        fact[*name] = json!(limit);
    }
    fact
}

/// A world with limits, and its daemon.
async fn world_with(limits: &[(&str, &str)]) -> (World, Daemon) {
    let world = World::new().await;
    world.import(&[limited("limits", limits)]).await;
    let daemon = world.daemon().await;
    (world, daemon)
}

/// Submits a record and answers the rule that released it, once it is final; nothing if it is cleared.
async fn released_by(world: &World, job_type: JobType, quantity: &str) -> Option<String> {
    let record = world.submit(job_type, quantity).await;
    reject_code(&world.wait_for_state(&record, "confirmed").await)
}

fn reject_code(history: &JobHistory) -> Option<String> {
    history.decision.as_ref().unwrap().reject_code.clone()
}

/// A record that OES accepts, and keeps its own approval pending for.
async fn pending(world: &World, job_type: JobType, quantity: &str) -> Record {
    let record = world.reserve(job_type, quantity);
    world.inject(Fault::new(On::Update, Effect::AwaitApproval).of_record(record.id));
    world.publish([world.job(&record)]).await;
    world.wait_for_state(&record, "awaiting_approval").await;
    record
}

/// A record above the threshold.
async fn waiting(world: &World, job_type: JobType, quantity: &str) -> Record {
    let record = world.submit(job_type, quantity).await;
    world.wait_for_state(&record, "parked(needs_approval)").await;
    record
}

async fn say(world: &World, what: &str, record: &Record) -> (bool, String) {
    let id = record.id.to_string();
    let (success, output, _) =
        world.run(&["jobs", what, &id, "--reason", "the desk was asked"]).await;
    (success, output)
}

#[tokio::test]
async fn exposure_is_capped_for_a_connection_and_for_all() {
    let caps = [("exposureMaxPerConnection", "100"), ("exposureMaxTotal", "130")];
    let (world, daemon) = world_with(&caps).await;
    let (allocation, deallocation) = (JobType::Allocation, JobType::Deallocation);
    assert_eq!(released_by(&world, allocation, "100").await, None);
    let too_much = released_by(&world, allocation, "1").await;
    assert_eq!(too_much.as_deref(), Some("exposure_of_connection"));
    // Its own cap goes before the currency's; then all together are at theirs.
    world.import(&[own_limits(&world, "own", &[("exposureMaxPerConnection", "1000")])]).await;
    assert_eq!(released_by(&world, allocation, "30").await, None);
    assert_eq!(released_by(&world, allocation, "1").await.as_deref(), Some("exposure_total"));
    // What is on its way back counts until it is there.
    let back = pending(&world, deallocation, "50").await;
    assert_eq!(released_by(&world, allocation, "1").await.as_deref(), Some("exposure_total"));
    world.oes().approve(back.id).unwrap();
    world.wait_for_state(&back, "confirmed").await;
    assert_eq!(released_by(&world, allocation, "51").await.as_deref(), Some("exposure_total"));
    assert_eq!(released_by(&world, allocation, "50").await, None);
    world.assert_promises().await;
    daemon.stop().await;
}

#[tokio::test]
async fn exactly_as_many_jobs_are_cleared_as_fit_under_a_cap() {
    let (world, daemon) = world_with(&[("exposureMaxTotal", "1000")]).await;
    let records: Vec<Record> = (0..300).map(|_| world.reserve(JobType::Allocation, "7")).collect();
    world.publish(records.iter().map(|record| world.job(record))).await;
    world.wait_for_final(300).await;
    let cleared = records.iter().filter(|record| world.is_final(record, Outcome::Cleared)).count();
    assert_eq!(cleared, 1_000 / 7);
    world.assert_promises().await;
    daemon.stop().await;
}

#[tokio::test]
async fn what_is_pending_takes_room_and_what_oes_rejects_gives_it_back() {
    let caps = [("exposureMaxPerConnection", "100"), ("dailyAllocationMaxPerConnection", "150")];
    let (world, daemon) = world_with(&caps).await;
    let first = pending(&world, JobType::Allocation, "60").await;
    let second = pending(&world, JobType::Allocation, "40").await;
    let full = released_by(&world, JobType::Allocation, "1").await;
    assert_eq!(full.as_deref(), Some("exposure_of_connection"));
    world.oes().reject(first.id, AfterRejection::OtherOutcome).unwrap();
    world.wait_for_state(&first, "overruled").await;
    world.oes().approve(second.id).unwrap();
    world.wait_for_state(&second, "confirmed").await;
    // 40 are there, and 40 of the day are used up: without what was given back, 60 would not fit.
    assert_eq!(released_by(&world, JobType::Allocation, "60").await, None);
    world.import(&[own_limits(&world, "own", &[("exposureMaxPerConnection", "1000")])]).await;
    let day = released_by(&world, JobType::Allocation, "51").await;
    assert_eq!(day.as_deref(), Some("daily_limit"));
    assert_eq!(released_by(&world, JobType::Allocation, "50").await, None);
    world.assert_promises().await;
    daemon.stop().await;
}

/// A daemon whose clock is the sandbox's, some hours before midnight.
async fn daemon_in_the_morning(world: &World) -> Daemon {
    let since_midnight = SystemClock.now().as_millis().rem_euclid(86_400_000) / 1_000;
    let since_midnight = Duration::from_secs(u64::try_from(since_midnight).unwrap());
    world.oes_clock.go_on(DAY.checked_sub(since_midnight).unwrap());
    world.oes_clock.go_on(Duration::from_secs(8 * 3_600));
    let mut config = world.config();
    config.http.listen.set_port(0);
    let clock = Arc::clone(&world.oes_clock) as Arc<dyn Clock>;
    let daemon = Daemon::try_start_at(config, clock).await.unwrap();
    daemon.wait_until_ready().await;
    daemon
}

#[tokio::test]
async fn a_day_has_its_own_caps_and_what_was_voided_is_given_back_to_the_day_of_its_decision() {
    let world = World::new().await;
    let caps =
        [("dailyAllocationMaxPerConnection", "100"), ("dailyDeallocationMaxPerConnection", "50")];
    world.import(&[limited("limits", &caps)]).await;
    let daemon = daemon_in_the_morning(&world).await;
    let today = world.oes_clock.now().day();
    let (allocation, deallocation) = (JobType::Allocation, JobType::Deallocation);
    let undone = pending(&world, allocation, "100").await;
    assert_eq!(released_by(&world, allocation, "1").await.as_deref(), Some("daily_limit"));
    // Each type has its own.
    assert_eq!(released_by(&world, deallocation, "50").await, None);
    assert_eq!(released_by(&world, deallocation, "1").await.as_deref(), Some("daily_limit"));

    world.oes_clock.go_on(DAY);
    assert_eq!(released_by(&world, deallocation, "50").await, None);
    assert_eq!(released_by(&world, allocation, "90").await, None);
    world.oes().reject(undone.id, AfterRejection::OtherOutcome).unwrap();
    world.wait_for_state(&undone, "overruled").await;
    // It was yesterday's, so today has no more room for it.
    assert_eq!(released_by(&world, allocation, "11").await.as_deref(), Some("daily_limit"));
    assert_eq!(released_by(&world, allocation, "10").await, None);
    let readers = world.readers().await;
    for (day, sums) in [(today, ["0", "50"]), (world.oes_clock.now().day(), ["100", "50"])] {
        let cleared = readers.cleared_on(day).await.unwrap();
        let sums_found: Vec<String> = cleared.values().map(ToString::to_string).collect();
        assert_eq!(sums_found, sums, "{day}");
    }
    readers.close().await;
    world.assert_promises().await;
    daemon.stop().await;
}

#[tokio::test]
async fn an_operator_s_word_decides_once_and_is_kept() {
    let (world, daemon) = world_with(&[("approvalAbove", "100")]).await;
    assert_eq!(released_by(&world, JobType::Allocation, "100").await, None);
    let approved = waiting(&world, JobType::Allocation, "101").await;
    let refused = waiting(&world, JobType::Deallocation, "101").await;
    assert_eq!(world.balances().await, ["1000100".to_owned(), "0".into(), "0".into()]);
    assert_eq!(daemon.count("settled_approvals_waiting_jobs").await, 2);
    assert!(daemon.number("settled_approvals_waiting_oldest_age_seconds").await > 0.0);
    let status = world.status().await;
    assert!(status.contains("waiting for an operator's approval: 2 (oldest"), "{status}");
    let (success, said) = say(&world, "retry", &approved).await;
    assert!(!success && said.contains("waits for `settled jobs approve`"), "{said}");
    world.wait_for_state(&approved, "parked(needs_approval)").await;

    let (success, said) = say(&world, "approve", &approved).await;
    assert!(success && said.contains("is decided: cleared"), "{said}");
    let (success, said) = say(&world, "refuse", &refused).await;
    assert!(success && said.contains("is decided: released (operator_refused)"), "{said}");
    let history = world.wait_for_state(&approved, "confirmed").await;
    assert!(world.is_final(&approved, Outcome::Cleared));
    let decision = history.decision.unwrap();
    assert_eq!((decision.source.as_str(), decision.reject_code), ("operator", None));
    assert!(decision.decided_by.unwrap().contains("uid "));
    assert_eq!(decision.decided_because.as_deref(), Some("the desk was asked"));
    assert!(decision.seen.get().contains(r#""operator":"approved""#), "{}", decision.seen);
    let kinds: Vec<&str> = history.notes.iter().map(|note| note.kind.as_str()).collect();
    assert_eq!(kinds, ["parked", "approved"]);
    world.wait_for_state(&refused, "confirmed").await;
    assert!(world.is_final(&refused, Outcome::Released));

    // Said again, or otherwise, it changes nothing.
    for (what, record, decided) in [
        ("approve", &approved, "was decided before: cleared"),
        ("refuse", &approved, "was decided before: cleared"),
        ("approve", &refused, "was decided before: released (operator_refused)"),
    ] {
        let (success, said) = say(&world, what, record).await;
        assert!(!success && said.contains(decided), "{said}");
        assert_eq!(world.puts_of(record).len(), 1);
    }
    let shown = world.must_run(&["jobs", "show", &refused.id.to_string()]).await;
    assert!(shown.contains("parked(needs_approval)") || shown.contains("needs_approval"));
    assert!(shown.contains("refused") && shown.contains("the desk was asked"), "{shown}");
    let heard = world.hear_outcomes(3).await;
    let reason = heard.iter().find_map(|heard| {
        (heard.json()["recordId"] == json!(refused.id))
            .then(|| heard.json()["rejectReason"].clone())
    });
    assert_eq!(reason, Some(json!("The exchange has declined the request.")));
    assert_eq!(daemon.count("settled_approvals_waiting_jobs").await, 0);
    world.assert_promises().await;
    daemon.stop().await;
}

#[tokio::test]
async fn of_two_operators_at_once_one_decides() {
    let (world, daemon) = world_with(&[("approvalAbove", "0")]).await;
    // Written once: whoever starts second must not find it half written.
    let config = world.config_file();
    let said = async |what: &str, record: &Record| {
        let id = record.id.to_string();
        let output = run(binary(&config), &["jobs", what, &id, "--reason", "at once"]).await;
        (output.status.success(), text(&output.stdout) + &text(&output.stderr))
    };
    for _ in 0..4 {
        let record = waiting(&world, JobType::Allocation, "5").await;
        let (yes, no) = tokio::join!(said("approve", &record), said("refuse", &record));
        assert!(yes.0 != no.0, "{yes:?} {no:?}");
        let (loser, outcome) =
            if yes.0 { (no.1, Outcome::Cleared) } else { (yes.1, Outcome::Released) };
        assert!(loser.contains(&format!("was decided before: {outcome}")), "{loser}");
        world.wait_for_state(&record, "confirmed").await;
        assert!(world.is_final(&record, outcome));
    }
    world.assert_promises().await;
    daemon.stop().await;
}

#[tokio::test]
async fn a_restart_keeps_it_waiting_and_a_word_without_a_daemon_is_carried_out_by_the_next_one() {
    let (world, daemon) = world_with(&[("approvalAbove", "100")]).await;
    let record = waiting(&world, JobType::Allocation, "101").await;
    daemon.stop().await;
    let daemon = world.daemon().await;
    world.publish([world.job(&record)]).await;
    assert_eq!(released_by(&world, JobType::Allocation, "1").await, None);
    world.wait_for_state(&record, "parked(needs_approval)").await;
    daemon.stop().await;
    let (success, said) = say(&world, "approve", &record).await;
    assert!(success && said.contains("is decided: cleared"), "{said}");
    world.wait_for_state(&record, "decided").await;
    assert!(world.puts_of(&record).is_empty(), "nothing is signed without the daemon");
    let (success, said) = say(&world, "refuse", &record).await;
    assert!(!success && said.contains("was decided before: cleared"), "{said}");
    let daemon = world.daemon().await;
    world.wait_for_state(&record, "confirmed").await;
    assert!(world.is_final(&record, Outcome::Cleared));
    world.assert_promises().await;
    daemon.stop().await;
}

#[tokio::test]
async fn an_approval_waives_the_threshold_and_nothing_else() {
    let (world, daemon) = world_with(&[("approvalAbove", "100")]).await;
    let uncovered = waiting(&world, JobType::Deallocation, "500000").await;
    let over_the_cap = waiting(&world, JobType::Allocation, "300").await;
    let mismatched = waiting(&world, JobType::Allocation, "101").await;
    world
        .import(&[
            world.adjustment("traded", "-600000"),
            limited("less", &[("approvalAbove", "100"), ("exposureMaxTotal", "299")]),
        ])
        .await;
    for (record, code) in [
        (&uncovered, "released (insufficient_available)"),
        (&over_the_cap, "released (exposure_total)"),
    ] {
        let (success, said) = say(&world, "approve", record).await;
        assert!(success && said.contains(code), "{said}");
        world.wait_for_state(record, "confirmed").await;
        assert!(world.is_final(record, Outcome::Released));
    }
    let mut wrong = world.connection_event("typo", world.connection_id, true);
    wrong["partnersConnectionId"] = json!("a-typo");
    world.import(&[wrong]).await;
    let (success, said) = say(&world, "approve", &mismatched).await;
    assert!(!success && said.contains("is parked(identity_mismatch) now"), "{said}");
    // Put right and sent on, it needs an approval like any other.
    world.import(&[world.connection_event("right", world.connection_id, true)]).await;
    say(&world, "retry", &mismatched).await;
    world.wait_for_state(&mismatched, "parked(needs_approval)").await;
    let (success, said) = say(&world, "approve", &mismatched).await;
    assert!(success && said.contains("is decided: cleared"), "{said}");
    world.wait_for_state(&mismatched, "confirmed").await;
    world.assert_promises().await;
    daemon.stop().await;
}

#[tokio::test]
async fn nothing_is_approved_in_a_restored_book() {
    let mut world = World::new().await;
    let mark = world.path("mark").to_str().unwrap().to_owned();
    world.set("store.mark_path", &mark);
    world.import(&[limited("limits", &[("approvalAbove", "100")])]).await;
    let daemon = world.daemon().await;
    let record = waiting(&world, JobType::Allocation, "101").await;
    daemon.stop().await;
    copy_book(&world.path("book.db"), &world.path("backup.db"));
    let daemon = world.daemon().await;
    say(&world, "refuse", &record).await;
    world.wait_for_state(&record, "confirmed").await;
    daemon.stop().await;

    copy_book(&world.path("backup.db"), &world.path("book.db"));
    let (success, said) = say(&world, "approve", &record).await;
    assert!(!success && said.contains("nothing is decided at present"), "{said}");
    let mut config = world.config();
    config.http.listen.set_port(0);
    let daemon = Daemon::start(config).await;
    let (success, said) = say(&world, "approve", &record).await;
    assert!(!success && said.contains("nothing is decided at present"), "{said}");
    world.wait_for_state(&record, "parked(needs_approval)").await;
    daemon.stop().await;
    world.must_run(&["book", "accept-restore", "--reason", "compared"]).await;
    world.wait_for_state(&record, "parked(predates_restore)").await;
    let daemon = world.daemon().await;
    let (success, said) = say(&world, "approve", &record).await;
    assert!(!success && said.contains("does not wait for approval"), "{said}");
    assert_eq!(world.puts_of(&record).len(), 1, "the forgotten refusal is the only one");
    world.assert_promises().await;
    daemon.stop().await;
}

#[tokio::test]
async fn the_book_shows_its_limits_and_how_they_came_to_be() {
    let world = World::new().await;
    let daemon = world.daemon().await;
    world.import(&[limited("l-1", &[("exposureMaxTotal", "900"), ("approvalAbove", "500")])]).await;
    world.import(&[limited("l-2", &[("exposureMaxTotal", "700")])]).await;
    world.import(&[own_limits(&world, "l-3", &[("approvalAbove", "40")])]).await;
    assert_eq!(released_by(&world, JobType::Allocation, "30").await, None);
    let shown: Value =
        serde_json::from_str(&world.must_run(&["book", "show", "--json"]).await).unwrap();
    assert_eq!(shown["currencies"][0]["exposureMaxTotal"], "700");
    assert_eq!(shown["currencies"][0]["approvalAbove"], Value::Null);
    assert_eq!(shown["limits"]["exposureTotals"]["BTC"], "30");
    assert_eq!(shown["limits"]["limited"][0]["approvalAbove"], "40");
    assert_eq!(shown["limits"]["limited"][0]["allocatedToday"], "30");
    let shown = world.must_run(&["book", "show"]).await;
    assert!(shown.contains("30 of 700") && shown.contains("40 (own)"), "{shown}");

    let before = SystemClock.now().as_millis() - 60_000;
    let history = ["book", "history", "--currency", "BTC", "--json"];
    let history: Vec<Value> = serde_json::from_str(&world.must_run(&history).await).unwrap();
    let ids: Vec<&str> = history.iter().map(|line| line["eventId"].as_str().unwrap()).collect();
    assert_eq!(ids, ["k-1", "l-1", "l-2", "l-3"]);
    assert_eq!(
        history[2]["changes"],
        json!([
            {"field": "exposureMaxTotal", "from": "900", "to": "700"},
            {"field": "approvalAbove", "from": "500", "to": null},
        ])
    );
    for line in &history {
        let source = line["source"].as_str().unwrap();
        assert!(
            source.starts_with("import:import.jsonl by ") && source.contains("uid "),
            "{source}"
        );
        let at: TimestampMs = serde_json::from_value(line["atMs"].clone()).unwrap();
        assert!(at.as_millis() > before);
    }
    let text = world.must_run(&["book", "history", "--limit", "2"]).await;
    assert!(text.contains("exposureMaxTotal: 900 → 700"), "{text}");
    assert!(text.contains("approvalAbove: 500 → –") && !text.contains("k-1"), "{text}");
    daemon.stop().await;
}

#[tokio::test]
async fn limits_that_bind_nobody_or_cross_are_refused() {
    let world = World::new().await;
    let path = world.path("bad.jsonl");
    let mut nobody = own_limits(&world, "l-1", &[("approvalAbove", "40")]);
    nobody["connectionId"] = json!(uuid::Uuid::new_v4());
    std::fs::write(&path, nobody.to_string()).unwrap();
    let (success, _, error) = world.run(&["book", "import", path.to_str().unwrap()]).await;
    assert!(
        !success
            && error.contains("connection.limited of a connection that the book does not have"),
        "{error}"
    );
    let crossed = [("exposureMaxPerConnection", "8"), ("exposureMaxTotal", "7")];
    std::fs::write(&path, limited("l-2", &crossed).to_string()).unwrap();
    let (success, _, error) = world.run(&["book", "import", path.to_str().unwrap()]).await;
    let why = "exposureMaxPerConnection 8 is above exposureMaxTotal 7";
    assert!(!success && error.contains(why), "{error}");
}

#[tokio::test]
async fn sums_that_were_tampered_with_are_found() {
    use sqlx::{Connection as _, Executor as _};
    let (world, daemon) = world_with(&[]).await;
    assert_eq!(released_by(&world, JobType::Allocation, "30").await, None);
    daemon.stop().await;
    let url = format!("sqlite:{}", world.path("book.db").display());
    let mut connection = sqlx::SqliteConnection::connect(&url).await.unwrap();
    for change in
        ["UPDATE currency_totals SET from_oes = '29'", "UPDATE daily_cleared SET cleared = '31'"]
    {
        connection.execute(change).await.unwrap();
    }
    connection.close().await.unwrap();
    let (success, output, _) = world.run(&["book", "verify"]).await;
    assert!(!success);
    assert!(output.contains("exposure in BTC: the book says 29 less 0"), "{output}");
    assert!(output.contains("its entries sum to 30 less 0"), "{output}");
}
