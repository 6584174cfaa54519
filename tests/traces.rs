//! What an OpenTelemetry collector sees of jobs, and that it can hold nothing up.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use settled::{
    domain::{ids::RecordId, job::JobType},
    sandbox::{Effect, Fault, On, Times, When},
};

use crate::support::{
    daemon::{Process, binary},
    eventually,
    receiver::{Manner, Receiver},
    spans::{Seen, requests, spans, trace_of, wait_for_step},
    world::World,
};

/// What happens to a job with which nothing is wrong.
const STEPS: [&str; 7] =
    ["received", "verified", "decided", "signed", "sent", "confirmed", "announced"];

const QUEUE_FULL: &str = "settled_trace_spans_total{result=\"dropped_queue_full\"}";
const REFUSED: &str = "settled_trace_spans_total{result=\"dropped_refused\"}";
const EXPORTED: &str = "settled_trace_spans_total{result=\"exported\"}";

async fn traced_world(receiver: &Receiver, settings: &[(&str, &str)]) -> World {
    let endpoint = receiver.url("/v1/traces");
    let mut all = vec![("traces.endpoint", endpoint.as_str()), ("traces.every_ms", "20")];
    all.extend(settings);
    World::with(&all).await
}

fn names(steps: &[Seen]) -> Vec<&str> {
    steps.iter().map(|step| step.name.as_str()).collect()
}

#[tokio::test]
async fn every_job_is_one_trace_with_the_id_of_its_record_and_its_steps_in_order() {
    let receiver = Receiver::start().await;
    let world = traced_world(&receiver, &[]).await;
    let daemon = world.daemon().await;
    let mut records = Vec::new();
    for quantity in 1..=20 {
        records.push(world.submit(JobType::Allocation, &quantity.to_string()).await);
    }
    // More than there is.
    let released = world.submit(JobType::Deallocation, "9000000").await;
    records.push(released.clone());
    world.wait_for_final(21).await;
    // The end waits for what is told last.
    daemon.stop().await;
    for record in &records {
        let (steps, root) = trace_of(&receiver, record.id);
        assert_eq!(names(&steps), STEPS, "{steps:?}");
        let root = root.expect("the job has ended");
        for step in &steps {
            assert_eq!(step.parent, root.id, "{step:?}");
            assert_eq!(step.word("settled.record_id"), record.id.to_string());
            assert!(step.start <= step.end && !step.is_wrong, "{step:?}");
        }
        // Times of the book have milliseconds.
        assert!(root.start.abs_diff(steps[0].start) < 1_000_000_000, "{root:?} {steps:?}");
        let is_released = record.id == released.id;
        let outcome = if is_released { "released" } else { "cleared" };
        assert_eq!([root.word("settled.outcome"), steps[2].word("settled.outcome")], [outcome; 2]);
        let code = if is_released { "insufficient_available" } else { "" };
        assert_eq!(steps[2].word("settled.reject_code"), code);
        let sent = &steps[4];
        assert_eq!(sent.word("http.response.status_code"), "200");
        assert_eq!(sent.word("settled.attempt"), "1");
    }
    let traces: Vec<RecordId> = spans(&receiver).iter().map(|span| span.trace).collect();
    let ids: Vec<RecordId> = records.iter().map(|record| record.id).collect();
    assert!(traces.iter().all(|trace| ids.contains(trace)), "nothing else is a trace");
    for record in &records {
        let history = world.history(record.id).await.unwrap();
        let signature = &history.attempts[0].signature;
        for private in [signature, &world.client_id.to_string(), &world.connection_id.to_string()] {
            let is_told = receiver.arrived().iter().any(|request| request.body.contains(private));
            assert!(!is_told, "{private} is nobody's affair");
        }
    }
    let who = requests(&receiver)[0].resource_spans[0].resource.clone().unwrap();
    let who = format!("{who:?}");
    assert!(who.contains("service.name") && who.contains("settled"), "{who}");
    world.assert_promises().await;
}

#[tokio::test]
async fn an_attempt_that_failed_shows_its_status_and_the_one_after_it() {
    let receiver = Receiver::start().await;
    let world = traced_world(&receiver, &[]).await;
    let daemon = world.daemon().await;
    let unavailable = Effect::Answer { when: When::Before, status: 503 };
    world.inject(Fault::new(On::Update, unavailable).times(Times::Next(1)));
    let record = world.submit(JobType::Allocation, "5").await;
    world.wait_for_state(&record, "confirmed").await;
    daemon.stop().await;
    let (steps, root) = trace_of(&receiver, record.id);
    assert!(root.is_some());
    let steps: Vec<&Seen> = steps.iter().skip_while(|step| step.name != "signed").collect();
    let told: Vec<[&str; 4]> = steps
        .iter()
        .map(|step| {
            let status = step.word("http.response.status_code");
            [&step.name, step.word("settled.attempt"), status, step.word("settled.found")]
        })
        .collect();
    let expected = [
        ["signed", "1", "", ""],
        ["sent", "1", "503", ""],
        ["read_back", "", "", "reserved"],
        ["signed", "2", "", ""],
        ["sent", "2", "200", ""],
        ["confirmed", "", "", ""],
        ["announced", "", "", ""],
    ];
    assert_eq!(told, expected);
    assert!(steps[1].is_wrong && !steps[4].is_wrong);
    assert_eq!(steps[1].word("settled.result"), "server_error");
}

#[tokio::test]
async fn a_job_that_outlives_the_daemon_stays_one_trace() {
    let receiver = Receiver::start().await;
    let world = traced_world(&receiver, &[("oes.request_timeout_ms", "60000")]).await;
    let process = world.process().await;
    let slow = Effect::Delay { when: When::After, delay_ms: 30_000 };
    world.inject(Fault::new(On::Update, slow));
    let record = world.submit(JobType::Allocation, "5").await;
    wait_for_step(&receiver, record.id, "signed").await;
    eventually("the update to be under way", || async {
        (!world.puts_of(&record).is_empty()).then_some(())
    })
    .await;
    process.kill().await;
    let (before, root) = trace_of(&receiver, record.id);
    assert_eq!(names(&before), ["received", "verified", "decided", "signed"]);
    assert!(root.is_none(), "it has not ended");

    let daemon = world.daemon().await;
    world.wait_for_state(&record, "confirmed").await;
    daemon.stop().await;
    let (steps, root) = trace_of(&receiver, record.id);
    let root = root.expect("it has ended");
    assert_eq!(names(&steps)[..4], names(&before));
    assert_eq!(names(&steps)[4..], ["read_back", "confirmed", "announced"]);
    assert!(steps.iter().all(|step| step.parent == root.id));
}

#[tokio::test]
async fn a_collector_that_hangs_delays_no_job_and_not_the_end_and_what_does_not_fit_is_counted() {
    let receiver = Receiver::start().await;
    let settings = [
        ("traces.queue_len_max", "10"),
        ("traces.batch_len_max", "5"),
        ("traces.timeout_ms", "60000"),
    ];
    let world = traced_world(&receiver, &settings).await;
    receiver.next([Manner::Hang; 100]);
    let daemon = world.daemon().await;
    for _ in 0..30 {
        world.submit(JobType::Allocation, "5").await;
    }
    world.wait_for_final(30).await;
    // At least seven steps and the job itself; fifteen of them at most have found room.
    let dropped = daemon.count(QUEUE_FULL).await;
    assert!(dropped >= 30 * 7 - 15, "{dropped}");
    assert_eq!(daemon.count(EXPORTED).await, 0);
    assert_eq!(receiver.arrived().len(), 1, "one request at a time");
    let begun = Instant::now();
    daemon.stop().await;
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    world.assert_promises().await;
}

#[tokio::test]
async fn a_collector_that_is_not_there_delays_nothing_and_gets_what_waited_when_it_comes() {
    let receiver = Receiver::start().await;
    let world = traced_world(&receiver, &[]).await;
    // It closes every connection at first.
    receiver.next([Manner::Lose; 2]);
    let daemon = world.daemon().await;
    let record = world.submit(JobType::Allocation, "5").await;
    world.wait_for_state(&record, "confirmed").await;
    wait_for_step(&receiver, record.id, "announced").await;
    assert_eq!(names(&trace_of(&receiver, record.id).0), STEPS, "nothing was lost");
    daemon.stop().await;

    let mut world = world;
    world.set("traces.endpoint", "http://127.0.0.1:1/v1/traces");
    let daemon = world.daemon().await;
    let record = world.submit(JobType::Allocation, "5").await;
    world.wait_for_state(&record, "confirmed").await;
    let begun = Instant::now();
    daemon.stop().await;
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    world.assert_promises().await;
}

#[tokio::test]
async fn a_collector_that_refuses_is_told_of_once_and_so_is_its_recovery() {
    let receiver = Receiver::start().await;
    let world = traced_world(&receiver, &[("log.filter", "info")]).await;
    receiver.next([Manner::Answer(500); 4]);
    let log = world.path("log");
    let mut command = binary(&world.config_file());
    command.arg("run").stdout(Stdio::null()).stderr(std::fs::File::create(&log).unwrap());
    let mut process = Process::start_command(command, world.setting("http.listen")).await;
    // Each request is one more, so jobs go on coming until the collector takes them.
    eventually("a request to be taken", || async {
        let record = world.submit(JobType::Allocation, "5").await;
        world.wait_for_state(&record, "confirmed").await;
        (!requests(&receiver).is_empty()).then_some(())
    })
    .await;
    process.signal(Signal::TERM);
    assert!(process.child.wait().await.unwrap().success());
    let log = std::fs::read_to_string(log).unwrap();
    let times = |what: &str| log.matches(what).count();
    assert_eq!(times("the collector does not take spans"), 1, "{log}");
    assert_eq!(times("the collector takes spans again"), 1, "{log}");
    assert!(log.contains("answers 500"), "{log}");
    assert!(receiver.arrived().len() >= 5);
}

#[tokio::test]
async fn a_token_that_the_collector_refuses_can_be_replaced_without_a_restart() {
    let receiver = Receiver::start().await;
    let mut world = traced_world(&receiver, &[]).await;
    let headers = world.path("headers");
    world.write_secret(&headers, "authorization: Bearer old\nx-scope: partner");
    world.set("traces.headers_file", headers.to_str().unwrap());
    receiver.next([Manner::Answer(401), Manner::Answer(401)]);
    let daemon = world.daemon().await;
    let record = world.submit(JobType::Allocation, "5").await;
    let refused = receiver.wait_for("a request to be refused", |request| !request.was_answered);
    assert_eq!(refused.await.headers["authorization"], "Bearer old");
    world.write_secret(&headers, "authorization: Bearer new\nx-scope: partner");
    wait_for_step(&receiver, record.id, "announced").await;
    let taken = receiver.wait_for("a request to be taken", |request| request.was_answered).await;
    assert_eq!(taken.headers["authorization"], "Bearer new");
    assert_eq!(taken.headers["x-scope"], "partner");
    assert_eq!(daemon.count(REFUSED).await, 0, "they were kept meanwhile");
    daemon.stop().await;
}

#[tokio::test]
async fn of_a_share_of_jobs_whole_traces_are_exported_and_of_the_others_nothing() {
    let receiver = Receiver::start().await;
    let world = traced_world(&receiver, &[("traces.sample_ratio", "0.5")]).await;
    let daemon = world.daemon().await;
    let mut records = Vec::new();
    for _ in 0..40 {
        records.push(world.submit(JobType::Allocation, "5").await);
    }
    world.wait_for_final(40).await;
    daemon.stop().await;
    let traced = records.iter().filter(|record| {
        let (steps, root) = trace_of(&receiver, record.id);
        assert!(steps.is_empty() || (names(&steps) == STEPS && root.is_some()), "{steps:?}");
        root.is_some()
    });
    let traced = traced.count();
    assert!((1..40).contains(&traced), "{traced}");
}

#[tokio::test]
async fn without_an_endpoint_nothing_is_exported_whatever_the_environment_says() {
    let receiver = Receiver::start().await;
    let world = World::new().await;
    let mut command = binary(&world.config_file());
    command.arg("run").stdout(Stdio::null()).stderr(Stdio::null());
    for name in ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"] {
        command.env(name, receiver.url("/v1/traces"));
    }
    let mut process = Process::start_command(command, world.setting("http.listen")).await;
    let record = world.submit(JobType::Allocation, "5").await;
    world.wait_for_state(&record, "confirmed").await;
    process.signal(Signal::TERM);
    assert!(process.child.wait().await.unwrap().success());
    assert_eq!(receiver.arrived().len(), 0);
}

#[tokio::test]
async fn the_doctor_says_whether_the_collector_takes_spans() {
    let receiver = Receiver::start().await;
    let mut world = traced_world(&receiver, &[]).await;
    let (_, output, _) = world.run(&["doctor"]).await;
    let address = receiver.url("");
    assert!(output.contains(&format!("ok    traces     {address} takes spans\n")), "{output}");
    receiver.next([Manner::Answer(404)]);
    let (success, output, _) = world.run(&["doctor"]).await;
    assert!(!success && output.contains("answers 404. Check traces.endpoint"), "{output}");
    world.set("traces.endpoint", "http://collector.example:4318/v1/traces");
    let (success, output, _) = world.run(&["doctor"]).await;
    assert!(!success && output.contains("traces.allow_plain_http"), "{output}");
    let (success, _, error) = world.run(&["run"]).await;
    assert!(!success && error.contains("traces.allow_plain_http"), "{error}");
    world.set("traces.sample_ratio", "2");
    let (success, _, error) = world.run(&["run"]).await;
    assert!(!success && error.contains("traces.sample_ratio"), "{error}");
}
