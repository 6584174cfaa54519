//! A restored book that the exchange feeds decides about a connection only once it is shown to be right
//! about it: by a snapshot that agrees, or by an operator.

use std::fs::File;

use serde_json::{Value, json};
use settled::{
    domain::{ids::ConnectionId, job::JobType},
    sandbox::{Record, Reservation},
    store::query::JobHistory,
};
use uuid::Uuid;

use crate::{
    restore::{LATER, accept, read_only},
    support::{
        daemon::{Process, binary},
        eventually,
        feed::fed_world,
        world::{AVAILABLE, World, copy_book},
    },
};

/// What must be approved.
const APPROVAL_ABOVE: u64 = 100;

/// A fed world with a mark and three connections; the first is the world's own.
async fn fed_marked_world() -> (World, [ConnectionId; 3]) {
    let mut world = fed_world(&[]).await;
    let mark = world.path("mark").to_str().unwrap().to_owned();
    world.set("store.mark_path", &mark);
    let others = [Uuid::new_v4().into(), Uuid::new_v4().into()];
    let mut facts = vec![json!({
        "eventId": "limits", "type": "currency.configured", "currency": "BTC", "enabled": true,
        "quantityMin": "1", "quantityMax": "1000000000", "approvalAbove": APPROVAL_ABOVE.to_string(),
    })];
    for id in others {
        world.add_connection(id, "BTC");
        facts.push(world.connection_event(&format!("c-{id}"), id, true));
        facts.push(about(id, world.adjustment(&format!("b-{id}"), &AVAILABLE.to_string())));
    }
    world.import(&facts).await;
    let [second, third] = others;
    let connections = [world.connection_id, second, third];
    (world, connections)
}

/// The same event about another connection.
fn about(connection: ConnectionId, mut event: Value) -> Value {
    event["connectionId"] = json!(connection);
    event
}

async fn submit(world: &World, connection_id: ConnectionId, quantity: u64) -> Record {
    let record = world.oes().reserve(Reservation {
        record_type: JobType::Allocation,
        connection_id,
        currency: "BTC".parse().unwrap(),
        quantity: quantity.to_string().parse().unwrap(),
        partners_record_id: None,
    });
    let record = record.unwrap();
    world.publish([world.job(&record)]).await;
    record
}

/// Waits until a job was looked at and left undecided, because its connection is unproven.
async fn wait_until_left(world: &World, record: &Record) -> JobHistory {
    let readers = world.readers().await;
    let history = eventually("the job to be left undecided", || async {
        let history = readers.job_history(record.id).await.unwrap()?;
        assert!(history.decision.is_none(), "{history:?}");
        (history.job.verified_at.is_some() && history.job.waits_for_book).then_some(history)
    })
    .await;
    readers.close().await;
    assert_eq!(history.job.state.to_string(), "received");
    history
}

/// The connections that are still to be proved.
async fn unproven(world: &World) -> Vec<String> {
    let listed = world.must_run(&["book", "feed", "--wrong", "--json"]).await;
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let lines = listed.as_array().unwrap().iter();
    let unproven = lines.filter(|line| line["isUnproven"] == true);
    unproven.map(|line| line["connectionId"].as_str().unwrap().to_owned()).collect()
}

/// The one that is named first.
fn id_first(connections: &[ConnectionId]) -> String {
    connections.iter().map(ToString::to_string).min().unwrap()
}

/// A daemon that runs on, and the file that it logs to.
async fn logging_process(world: &World) -> Process {
    let mut command = binary(&world.config_file());
    let log = File::create(world.path("log")).unwrap();
    command.arg("run").stdout(File::create("/dev/null").unwrap()).stderr(log);
    Process::start_command(command, world.setting("http.listen")).await
}

/// Loses everything since the backup, an event of the feed and a confirmed deallocation of 5, and puts the
/// backup back. The exchange feeds its event again before the restored book is accepted.
async fn restore_and_accept(world: &World) -> String {
    let daemon = world.daemon().await;
    let first = world.submit(JobType::Allocation, "5").await;
    world.wait_for_state(&first, "confirmed").await;
    daemon.stop().await;
    copy_book(&world.path("book.db"), &world.path("backup.db"));
    let daemon = world.daemon().await;
    world.feed(&[world.numbered(1, "-40")]).await;
    world.wait_for_available(AVAILABLE + 5 - 40).await;
    let forgotten = world.submit(JobType::Deallocation, "5").await;
    world.wait_for_state(&forgotten, "confirmed").await;
    daemon.stop().await;

    copy_book(&world.path("backup.db"), &world.path("book.db"));
    let daemon = read_only(world, "restored from a backup").await;
    let (_, said, _) = world.run(&["doctor"]).await;
    assert!(said.contains("have the exchange feed again what it sent since the backup"), "{said}");
    world.feed(&[world.numbered(1, "-40")]).await;
    world.wait_for_available(AVAILABLE + 5 - 40).await;
    daemon.stop().await;
    accept(world).await
}

#[tokio::test]
async fn each_connection_of_a_restored_book_waits_until_the_book_is_shown_to_be_right_about_it() {
    let (world, [first, second, third]) = fed_marked_world().await;
    let said = restore_and_accept(&world).await;
    let told = "since the restore nothing is decided about 3 connections";
    assert!(said.contains("start the daemon") && said.contains(told), "{said}");
    let (success, said, _) = world.run(&["doctor"]).await;
    assert!(!success && said.contains(told) && said.contains("accept-snapshot"), "{said}");
    let process = logging_process(&world).await;
    let log = std::fs::read_to_string(world.path("log")).unwrap();
    assert!(log.contains(told) && log.contains(&id_first(&[first, second, third])), "{log}");

    world.oes_clock.go_on(LATER);
    let of_first = submit(&world, first, 7).await;
    let of_second = submit(&world, second, 7).await;
    let of_third = submit(&world, third, APPROVAL_ABOVE + 1).await;
    for record in [&of_first, &of_second, &of_third] {
        wait_until_left(&world, record).await;
        let shown = world.must_run(&["jobs", "show", &record.id.to_string(), "--json"]).await;
        let shown: Value = serde_json::from_str(&shown).unwrap();
        let advice = shown["advice"].as_str().unwrap();
        assert!(advice.contains("nothing has shown since that it is right"), "{advice}");
        assert!(advice.contains(&record.connection_id.to_string()), "{advice}");
    }
    let status = world.status().await;
    assert!(status.contains("3 connections are not decided about since the restore"), "{status}");
    let mut all = [first, second, third].map(|id| id.to_string());
    all.sort();
    assert_eq!(unproven(&world).await, all);

    snapshots_prove(&world, first, &of_first, second, &of_second, third).await;
    an_operator_proves(&world, third, &of_third).await;

    assert_eq!(unproven(&world).await, [""; 0]);
    let (_, said, _) = world.run(&["doctor"]).await;
    assert!(!said.contains("since the restore"), "{said}");
    world.assert_promises().await;
    process.kill().await;
}

/// A snapshot that agrees lets the jobs of its connection go on, and one that differs does not: the restored
/// book lacks the deallocation that was confirmed after the backup.
async fn snapshots_prove(
    world: &World,
    first: ConnectionId,
    of_first: &Record,
    second: ConnectionId,
    of_second: &Record,
    third: ConnectionId,
) {
    let right = (AVAILABLE - 40).to_string();
    world.feed(&[world.snapshot("t-1", &right)]).await;
    eventually("the difference to be found", || async {
        let findings = world.feed_findings().await;
        findings.iter().any(|finding| finding.kind == "difference").then_some(())
    })
    .await;
    wait_until_left(world, of_first).await;
    let agreed = about(second, world.snapshot("t-2", &AVAILABLE.to_string()));
    world.feed(&[agreed]).await;
    world.wait_for_state(of_second, "confirmed").await;
    let mut rest = [first, third].map(|id| id.to_string());
    rest.sort();
    assert_eq!(unproven(world).await, rest);
    wait_until_left(world, of_first).await;

    world.feed(&[world.adjustment("forgotten", "-5"), world.snapshot("t-3", &right)]).await;
    world.wait_for_state(of_first, "confirmed").await;
}

/// An operator's word about a job waits for the connection too, and what proves the connection is journalled.
async fn an_operator_proves(world: &World, connection: ConnectionId, of_it: &Record) {
    let (record, id) = (of_it.id.to_string(), connection.to_string());
    let approve = ["jobs", "approve", record.as_str(), "--reason", "it is fine"];
    let (success, said, error) = world.run(&approve).await;
    assert!(!success, "{said}{error}");
    wait_until_left(world, of_it).await;
    let because = "compared by hand";
    let said = world.must_run(&["book", "accept-snapshot", &id, "--reason", because]).await;
    assert!(said.contains("accepted as the book has it"), "{said}");
    let actions = world.must_run(&["actions", "--kind", "accept-snapshot", "--json"]).await;
    let actions: Value = serde_json::from_str(&actions).unwrap();
    let action = &actions[0];
    assert!(action["connectionId"] == id.as_str() && action["reason"] == because, "{actions}");
    assert_eq!(action["detail"]["afterRestore"], true);
    world.wait_for_state(of_it, "parked(needs_approval)").await;
    world.must_run(&approve).await;
    world.wait_for_state(of_it, "confirmed").await;
}
