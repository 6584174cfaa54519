//! People are told of what is wrong: once, also when an answer is lost, the daemon dies, or the disk
//! hangs; and told when it is over.

use std::process::Stdio;

use lapin::options::{BasicGetOptions, BasicNackOptions, QueuePurgeOptions};
use serde_json::Value;
use settled::{
    clock::{Clock as _, SystemClock},
    crash::ALERT_POINTS,
    domain::job::JobType,
    sandbox::{Effect, Fault, On, Record, Times, When},
};
use sqlx::Connection as _;

use crate::support::{
    daemon::binary,
    eventually,
    receiver::{Manner, Receiver},
    world::{World, write_secret},
};

const SECRET: &str = "a secret of the webhook, and long";

/// A world whose daemon looks every second, and tells at once.
async fn world_told(receiver: &Receiver) -> World {
    let mut world = World::with(&[
        ("alerts.every_s", "1"),
        ("alerts.hold_s", "0"),
        ("alerts.calm_s", "0"),
        ("alerts.timeout_ms", "1000"),
        ("alerts.heartbeat_url", &receiver.url("/alive")),
        ("alerts.heartbeat_every_s", "1"),
    ])
    .await;
    let secret = world.path("webhook-secret");
    write_secret(&secret, SECRET);
    world.set("alerts.webhook_secret_file", secret.to_str().unwrap());
    world.set("alerts.webhook_url", &receiver.url("/hook"));
    world
}

/// What was told and answered, in short. On a machine that is busy the daemon may be seen before it has
/// connected, which is another matter.
fn told(receiver: &Receiver) -> Vec<(String, String)> {
    let all = receiver.told("/hook").into_iter();
    all.filter(|(alert, _)| alert != "SettledBrokerDisconnected").collect()
}

/// A record whose update OES refuses: its job is parked.
async fn park(world: &World, job_type: JobType, quantity: &str) -> Record {
    let refuse = Effect::Answer { when: When::Before, status: 422 };
    world.inject(Fault::new(On::Update, refuse).times(Times::Next(1)));
    let record = world.submit(job_type, quantity).await;
    world.wait_for_state(&record, "parked(refused_by_oes)").await;
    record
}

async fn put_right(world: &World, record: &Record) {
    world.must_run(&["jobs", "retry", &record.id.to_string(), "--reason", "put right"]).await;
    world.wait_for_state(record, "confirmed").await;
}

/// Waits until the daemon has looked twice more: what it was to tell by then, it has.
async fn looked_twice(receiver: &Receiver) {
    let beats = || receiver.told("/alive").len();
    let before = beats();
    eventually("two signs of life", || async { (beats() >= before + 2).then_some(()) }).await;
}

#[tokio::test]
async fn a_notice_whose_answer_is_lost_comes_again_with_its_id_and_is_signed() {
    let receiver = Receiver::start().await;
    let world = world_told(&receiver).await;
    let daemon = world.daemon().await;
    looked_twice(&receiver).await;
    assert_eq!(told(&receiver), []);

    // A sign of life may be among those that are treated so; it is not sent again.
    receiver.next([Manner::Lose, Manner::Answer(500), Manner::Hang, Manner::Lose]);
    let record = park(&world, JobType::Allocation, "5").await;
    let notice = receiver.wait_for_notice("SettledParked", "firing").await;
    let tries: Vec<_> =
        receiver.arrived().into_iter().filter(|request| request.id() == notice.id()).collect();
    assert!(tries.iter().all(|request| request.body == notice.body));
    assert!(tries.len() <= 5, "{tries:?}");
    for request in receiver.arrived() {
        assert!(request.is_signed_with(SECRET.as_bytes()), "{request:?}");
        assert!(!request.is_signed_with(b"another secret of that webhook"));
        let sent: i64 = request.headers["webhook-timestamp"].parse().unwrap();
        let age_s = SystemClock.now().as_millis() / 1_000 - sent;
        assert!((0..300).contains(&age_s), "signed {age_s} s ago");
    }
    let body = notice.json();
    assert_eq!(body["id"], notice.id());
    assert_eq!(body["severity"], "warning");
    assert_eq!(body["count"], 1);
    assert_eq!(body["records"][0], record.id.to_string());
    assert_eq!(body["runbook"], "docs/RUNBOOK.md#settledparked");
    assert!(body["summary"].as_str().unwrap().contains("1 jobs are parked"), "{body}");

    put_right(&world, &record).await;
    let over = receiver.wait_for_notice("SettledParked", "resolved").await;
    assert_eq!(over.json()["firedAt"], body["firedAt"]);
    looked_twice(&receiver).await;
    let events: Vec<_> = told(&receiver).into_iter().map(|(_, event)| event).collect();
    assert_eq!(events, ["firing", "resolved"], "once, although it was sent more often");
    let delivered = "settled_alert_notices_total{channel=\"webhook\",result=\"delivered\"}";
    assert!(daemon.count(delivered).await >= 2);
    assert_eq!(daemon.count("settled_alert_notices_waiting").await, 0);
    daemon.stop().await;
}

#[tokio::test]
async fn a_restart_neither_repeats_nor_forgets() {
    let receiver = Receiver::start().await;
    let mut world = world_told(&receiver).await;
    let daemon = world.daemon().await;
    let record = park(&world, JobType::Deallocation, "9000000").await;
    receiver.wait_for_notice("SettledParked", "firing").await;
    receiver.wait_for_notice("SettledReleasedUnconfirmed", "firing").await;
    daemon.stop().await;
    let before = told(&receiver);
    assert_eq!(before.len(), 2, "{before:?}");

    let daemon = world.daemon().await;
    looked_twice(&receiver).await;
    assert_eq!(told(&receiver), before, "nothing is told again");
    assert_eq!(daemon.count("settled_alert_firing{alert=\"SettledParked\"}").await, 1);
    daemon.stop().await;

    // Nobody listens when the alert is over, and the daemon ends with the notice undelivered.
    let address = receiver.url("/hook");
    world.set("alerts.webhook_url", "http://127.0.0.1:1/hook");
    let daemon = world.daemon().await;
    put_right(&world, &record).await;
    eventually("two notices to wait", || async {
        (daemon.count("settled_alert_notices_waiting").await >= 2).then_some(())
    })
    .await;
    daemon.stop().await;
    world.set("alerts.webhook_url", &address);
    let daemon = world.daemon().await;
    receiver.wait_for_notice("SettledReleasedUnconfirmed", "resolved").await;
    receiver.wait_for_notice("SettledParked", "resolved").await;
    daemon.stop().await;
}

#[tokio::test]
async fn a_crash_around_a_notice_loses_none() {
    for point in ALERT_POINTS {
        let receiver = Receiver::start().await;
        let world = world_told(&receiver).await;
        let mut command = binary(&world.config_file());
        command.arg("run").env("SETTLED_CRASH_AT", point);
        let mut crashed = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        eventually("the book to be there", || async {
            world.path("book.db").exists().then_some(())
        })
        .await;
        park(&world, JobType::Allocation, "5").await;
        let ended = tokio::time::timeout(crate::support::PATIENCE, crashed.wait()).await;
        assert!(!ended.expect("it crashes").unwrap().success(), "{point}");
        let before = told(&receiver).len();
        assert_eq!(before, usize::from(point == "after_notice"));

        let process = world.process().await;
        receiver.wait_for_notice("SettledParked", "firing").await;
        looked_twice(&receiver).await;
        process.kill().await;
        let hooked = receiver
            .arrived()
            .into_iter()
            .filter(|request| request.json()["alert"] == "SettledParked");
        let ids: Vec<String> = hooked.map(|request| request.id().to_owned()).collect();
        assert_eq!(ids.len(), before + 1, "{point}");
        assert!(ids.iter().all(|id| *id == ids[0]), "{point}: the same notice");
    }
}

#[tokio::test]
async fn a_stuck_writer_is_told_without_it_and_the_sign_of_life_stops() {
    let receiver = Receiver::start().await;
    let world = world_told(&receiver).await;
    let daemon = world.daemon().await;
    looked_twice(&receiver).await;

    let url = format!("sqlite:{}", world.path("book.db").display());
    let mut other = sqlx::SqliteConnection::connect(&url).await.unwrap();
    let lock = other.begin_with("BEGIN IMMEDIATE").await.unwrap();
    let stuck = receiver.wait_for_notice("SettledWriterStuck", "firing").await;
    assert_eq!(stuck.json()["severity"], "critical");
    let beats = receiver.told("/alive").len();
    let looks = || async { daemon.number("settled_writer_batch_age_seconds").await };
    let before = looks().await;
    eventually("some more seconds", || async { (looks().await > before + 3.0).then_some(()) })
        .await;
    assert_eq!(receiver.told("/alive").len(), beats, "it looks, but it does not work");

    lock.rollback().await.unwrap();
    receiver.wait_for_notice("SettledWriterStuck", "resolved").await;
    looked_twice(&receiver).await;
    let told = receiver.arrived().into_iter().filter(|request| {
        let body = request.json();
        body["alert"] == "SettledWriterStuck" && body["event"] == "firing"
    });
    let ids: Vec<String> = told.map(|request| request.id().to_owned()).collect();
    assert!(ids.iter().all(|id| id == stuck.id()), "what is told twice has one id: {ids:?}");
    daemon.stop().await;
}

#[tokio::test]
async fn a_program_is_told_too_and_a_way_that_fails_does_not_hold_up_the_other() {
    let receiver = Receiver::start().await;
    let mut world = world_told(&receiver).await;
    let (heard, failed) = (world.path("heard"), world.path("failed-once"));
    let script = format!(
        "if [ ! -e {failed} ]; then touch {failed}; echo not now >&2; exit 9; fi; cat >> {heard}",
        failed = failed.display(),
        heard = heard.display()
    );
    let command = serde_json::json!(["/bin/sh", "-c", script]).to_string();
    world.set("alerts.command", &command);
    receiver.next(std::iter::repeat_n(Manner::Hang, 3));
    let daemon = world.daemon().await;
    park(&world, JobType::Allocation, "5").await;
    let notice: Value = eventually("the program to be told", || async {
        let text = std::fs::read_to_string(&heard).ok()?;
        let mut notices = serde_json::Deserializer::from_str(&text).into_iter().flatten();
        notices.find(|notice: &Value| notice["alert"] == "SettledParked")
    })
    .await;
    assert_eq!(notice["event"], "firing");
    let once = "settled_alert_notices_total{channel=\"command\",result=\"failed\"}";
    assert_eq!(daemon.count(once).await, 1);
    receiver.wait_for_notice("SettledParked", "firing").await;

    let listed = world.must_run(&["alerts", "list"]).await;
    for part in ["SettledParked", "warning", "firing", "1 jobs are parked", "webhook", "delivered"]
    {
        assert!(listed.contains(part), "{part} is missing in\n{listed}");
    }
    assert!(listed.contains("ended with exit status: 9: not now"), "{listed}");
    let json: Value =
        serde_json::from_str(&world.must_run(&["alerts", "list", "--json"]).await).unwrap();
    assert_eq!(json["alerts"][0]["alert"], "SettledParked");
    assert_eq!(json["alerts"][0]["stage"], "firing");
    daemon.stop().await;
}

#[tokio::test]
async fn what_the_broker_gives_up_is_told_until_somebody_has_taken_it() {
    let receiver = Receiver::start().await;
    let mut world = world_told(&receiver).await;
    world.set("broker.watchdog_s", "1");
    let record = world.reserve(JobType::Allocation, "5");
    world.publish([world.job(&record)]).await;
    // Another consumer rejects it; the daemon never does.
    let channel = world.exchange.channel().await;
    let queue = world.jobs_queue.as_str();
    let message = eventually("the message", || async {
        channel.basic_get(queue.into(), BasicGetOptions::default()).await.unwrap()
    })
    .await;
    let reject = BasicNackOptions { requeue: false, ..BasicNackOptions::default() };
    message.delivery.acker.nack(reject).await.unwrap();

    let daemon = world.daemon().await;
    let notice = receiver.wait_for_notice("SettledDroppedByBroker", "firing").await;
    assert_eq!(notice.json()["count"], 1);
    assert_eq!(daemon.count("settled_dropped_messages").await, 1);
    assert_eq!(world.exchange.ready(&format!("{queue}.dead")).await, 0);
    // A message that the daemon itself refuses is another matter.
    world.publish([b"no job".to_vec()]).await;
    receiver.wait_for_notice("SettledQuarantine", "firing").await;
    assert_eq!(daemon.count("settled_dropped_messages").await, 1);

    let dropped = format!("{queue}.dropped");
    channel.queue_purge(dropped.as_str().into(), QueuePurgeOptions::default()).await.unwrap();
    receiver.wait_for_notice("SettledDroppedByBroker", "resolved").await;
    daemon.stop().await;
}

#[tokio::test]
async fn each_way_can_be_tried_and_the_doctor_says_what_is_wrong_with_one() {
    let receiver = Receiver::start().await;
    let mut world = world_told(&receiver).await;
    let tried = world.must_run(&["alerts", "test"]).await;
    assert!(tried.contains("webhook: delivered"), "{tried}");
    let told = receiver.arrived();
    assert_eq!(told.len(), 1, "a sign of life would hide a daemon that does not run");
    assert!(told[0].is_signed_with(SECRET.as_bytes()) && told[0].json()["event"] == "test");
    let (_, output, _) = world.run(&["doctor"]).await;
    assert!(output.contains("webhook, heartbeat can be used"), "{output}");

    receiver.next([Manner::Answer(403)]);
    world.set("alerts.command", "[\"/bin/false\"]");
    let (success, output, _) = world.run(&["alerts", "test"]).await;
    assert!(!success);
    assert!(output.contains("webhook: FAILED") && output.contains("answers 403"), "{output}");
    assert!(output.contains("command: FAILED: /bin/false ended with exit status: 1"), "{output}");

    world.set("alerts.command", "[\"/no/such/program\"]");
    for command in [&["doctor"][..], &["run"], &["alerts", "test"]] {
        let (success, output, error) = world.run(command).await;
        assert!(!success && (output + &error).contains("/no/such/program cannot be run"));
    }
    world.set("alerts.webhook_url", "https://hooks.example/a-path-that-is-secret bad");
    let (success, output, error) = world.run(&["alerts", "test"]).await;
    assert!(!success && !(output + &error).contains("a-path-that-is-secret"));
}
