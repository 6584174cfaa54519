//! The broker may do anything: the daemon consumes again by itself, no job is lost, nothing is decided
//! twice, and every outcome is announced under its own id.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use lapin::{
    options::{QueueDeclareOptions, QueueDeleteOptions},
    types::FieldTable,
};
use settled::{
    domain::{announcement::event_id, decision::Outcome, job::JobType},
    sandbox::Record,
};

use crate::{
    no_job_lost::{lock, unlock},
    support::{
        broker::{Exchange, through_proxy, url},
        daemon::Daemon,
        eventually, eventually_or,
        node::{PrivateNode, private_node},
        proxy::{Mode, Proxy},
        world::World,
    },
};

/// What is promised for the time between the broker's return and the next job that is taken.
const BACK_WITHIN: Duration = Duration::from_secs(30);

/// So many connections to the broker does a daemon hold.
const CONNECTIONS: usize = 2;

/// A world whose daemon reaches the broker through a proxy.
async fn world_behind_proxy(settings: &[(&str, &str)]) -> (World, Proxy) {
    let (proxy, through) = through_proxy(&url()).await;
    let settings: Vec<_> =
        settings.iter().copied().chain([("broker.url", through.as_str())]).collect();
    (World::with(&settings).await, proxy)
}

fn reserve_many(world: &World, count: usize) -> Vec<Record> {
    (0..count).map(|_| world.reserve(JobType::Allocation, "1")).collect()
}

async fn publish(world: &World, records: &[Record]) {
    world.publish(records.iter().map(|record| world.job(record))).await;
}

/// Every record was decided once, ended once, and is announced under its own id and no other.
async fn assert_each_ended_once(world: &World, records: &[Record]) {
    world.wait_for_final(records.len() as u64).await;
    let readers = world.readers().await;
    eventually_or(
        "the outbox to be empty",
        || world.status(),
        || async { (readers.unpublished_count().await.unwrap() == 0).then_some(()) },
    )
    .await;
    readers.close().await;
    let waiting = world.exchange.ready(&world.outcomes).await as usize;
    let heard = world.hear_outcomes(waiting.max(records.len())).await;
    let announced: BTreeSet<String> = heard.into_iter().map(|heard| heard.message_id).collect();
    let expected: BTreeSet<String> =
        records.iter().map(|record| event_id(record.id, Outcome::Cleared).to_string()).collect();
    assert_eq!(announced, expected);
    world.assert_promises().await;
}

/// Waits until a job that is published now is settled, which must not take longer than promised.
async fn assert_back(world: &World, records: &mut Vec<Record>, fault: &str) {
    let returned = Instant::now();
    let record = world.submit(JobType::Allocation, "1").await;
    world.wait_for_state(&record, "confirmed").await;
    records.push(record);
    let took = returned.elapsed();
    println!("{fault}: settling jobs again after {took:?}");
    assert!(took < BACK_WITHIN, "{fault}: {took:?}");
}

#[tokio::test]
async fn connections_are_cut_under_load() {
    let (world, proxy) = world_behind_proxy(&[]).await;
    let daemon = world.daemon().await;
    let mut records = Vec::new();
    for _ in 0..6 {
        let share = reserve_many(&world, 40);
        publish(&world, &share).await;
        records.extend(share);
        // Cut while jobs are taken and outcomes published.
        let readers = world.readers().await;
        eventually("some progress", || async {
            let counts = readers.job_counts().await.unwrap();
            let taken: u64 = counts.iter().map(|line| line.jobs).sum();
            (taken as usize >= records.len() - 20).then_some(())
        })
        .await;
        readers.close().await;
        proxy.cut();
    }
    assert_back(&world, &mut records, "cut").await;
    assert_each_ended_once(&world, &records).await;
    daemon.wait_until_ready().await;
    assert!(proxy.accepted() > CONNECTIONS + 2 && proxy.open() <= CONNECTIONS);
    daemon.stop().await;
}

#[tokio::test]
async fn the_network_is_away_for_a_while_and_says_so() {
    let (world, proxy) = world_behind_proxy(&[("broker.reconnect_max_ms", "500")]).await;
    let daemon = world.daemon().await;
    let mut records = reserve_many(&world, 1);
    publish(&world, &records).await;
    world.wait_for_state(&records[0], "confirmed").await;
    proxy.set(Mode::Refuse);
    proxy.cut();
    for side in ["consumer", "publisher"] {
        eventually("the daemon to see it", || async {
            let line = format!("settled_broker_connected{{kind=\"{side}\"}}");
            (daemon.count(&line).await == 0).then_some(())
        })
        .await;
    }
    assert_eq!(daemon.get("/readyz").await.0, 503);
    assert_eq!(daemon.get("/healthz").await.0, 200, "a restart would not help");
    let tried = proxy.accepted();
    eventually("it to be tried again", || async { (proxy.accepted() > tried + 3).then_some(()) })
        .await;
    let waiting = reserve_many(&world, 20);
    publish(&world, &waiting).await;
    records.extend(waiting);
    proxy.set(Mode::Pass);
    assert_back(&world, &mut records, "refused").await;
    assert_each_ended_once(&world, &records).await;
    daemon.stop().await;
}

/// The peer has gone without a word; the connection stays open and silent.
async fn half_open(settings: &[(&str, &str)], found_by: &str) {
    let (world, proxy) = world_behind_proxy(settings).await;
    let process = world.process().await;
    let mut records = reserve_many(&world, 1);
    publish(&world, &records).await;
    world.wait_for_state(&records[0], "confirmed").await;
    eventually("the sessions to be all there is", || async {
        (proxy.open() == CONNECTIONS).then_some(())
    })
    .await;
    let (descriptors, threads) = process.descriptors_and_threads();
    let before = proxy.accepted();
    proxy.stall();
    assert_back(&world, &mut records, found_by).await;
    assert!(proxy.accepted() > before);
    assert_each_ended_once(&world, &records).await;
    // What was dropped is gone, though its peer never answered.
    eventually("the silent connections to be let go", || async {
        let now = process.descriptors_and_threads();
        (proxy.open() == CONNECTIONS && now.0 <= descriptors + 2 && now.1 <= threads + 4)
            .then_some(())
    })
    .await;
    process.kill().await;
}

#[tokio::test]
async fn a_half_open_connection_is_found_by_the_heartbeat() {
    let settings = [("broker.heartbeat_s", "2"), ("broker.watchdog_s", "600")];
    half_open(&settings, "half-open, heartbeat 2 s").await;
}

#[tokio::test]
async fn a_half_open_connection_is_found_by_the_watchdog() {
    let settings = [
        ("broker.heartbeat_s", "600"),
        ("broker.watchdog_s", "1"),
        ("broker.call_timeout_ms", "2000"),
    ];
    half_open(&settings, "half-open, watchdog 1 s and time limit 2 s").await;
}

#[tokio::test]
async fn a_broker_that_takes_connections_and_says_nothing_costs_nothing() {
    let (mut world, proxy) = world_behind_proxy(&[]).await;
    for (key, milliseconds) in [
        ("broker.connect_timeout_ms", "400"),
        ("broker.reconnect_base_ms", "10"),
        ("broker.reconnect_max_ms", "20"),
    ] {
        world.set(key, milliseconds);
    }
    let process = world.process().await;
    proxy.set(Mode::Stall);
    proxy.cut();
    let mut counted = Vec::new();
    for tries in [8, 30] {
        let before = proxy.accepted();
        eventually("it to be tried again", || async {
            (proxy.accepted() >= before + tries).then_some(())
        })
        .await;
        counted.push(process.descriptors_and_threads());
    }
    let [(descriptors, threads), (then_descriptors, then_threads)] = counted[..] else {
        panic!("{counted:?}")
    };
    println!("silent connects: descriptors and threads {counted:?}");
    assert!(then_descriptors <= descriptors + 6 && then_threads <= threads + 6, "{counted:?}");
    assert!(proxy.open() <= CONNECTIONS + 2, "{} connections", proxy.open());
    proxy.set(Mode::Pass);
    assert_back(&world, &mut Vec::new(), "silent").await;
    process.kill().await;
}

#[tokio::test]
async fn a_connection_that_breaks_anywhere_is_made_again() {
    let (world, proxy) = world_behind_proxy(&[
        ("broker.reconnect_base_ms", "10"),
        ("broker.reconnect_max_ms", "50"),
    ])
    .await;
    let process = world.process().await;
    let (descriptors, threads) = process.descriptors_and_threads();
    // In the first frame, between the steps of the handshake, and after it.
    for bytes in [0, 1, 7, 8, 100, 450, 500, 515, 530, 545, 560, 580, 600] {
        proxy.set(Mode::Truncate(bytes));
        proxy.cut();
        let before = proxy.accepted();
        eventually("it to be tried again", || async {
            (proxy.accepted() >= before + 4).then_some(())
        })
        .await;
    }
    proxy.set(Mode::Delay(Duration::from_millis(20)));
    proxy.cut();
    let mut records = Vec::new();
    assert_back(&world, &mut records, "broken off").await;
    assert_each_ended_once(&world, &records).await;
    eventually("what was begun to be undone", || async {
        let now = process.descriptors_and_threads();
        (proxy.open() == CONNECTIONS && now.0 <= descriptors + 2 && now.1 <= threads + 4)
            .then_some(())
    })
    .await;
    process.kill().await;
}

#[tokio::test]
async fn the_queue_is_deleted_and_the_consumer_cancelled() {
    let world = World::new().await;
    let daemon = world.daemon().await;
    let mut records = reserve_many(&world, 1);
    publish(&world, &records).await;
    world.wait_for_state(&records[0], "confirmed").await;
    let channel = world.exchange.channel().await;
    let options = QueueDeleteOptions::default();
    channel.queue_delete(world.jobs_queue.as_str().into(), options).await.unwrap();
    // The daemon declares, so it declares again; a client that did not would wait for somebody.
    eventually("the queue to be there again, with its consumer", || async {
        let options = QueueDeclareOptions { passive: true, ..Default::default() };
        let name = world.jobs_queue.as_str().into();
        let channel = world.exchange.channel().await;
        let asked = channel.queue_declare(name, options, FieldTable::default()).await;
        asked.is_ok_and(|queue| queue.consumer_count() == 1).then_some(())
    })
    .await;
    assert_back(&world, &mut records, "queue deleted").await;
    assert_each_ended_once(&world, &records).await;
    daemon.wait_until_ready().await;
    daemon.stop().await;
}

#[tokio::test]
async fn an_answer_of_oes_that_breaks_off_is_read_back() {
    // It is about the update's answer: a read before it would break off as well.
    let mut world = World::with(&[("decide.verify_with_oes", "false")]).await;
    let oes = world.sandbox.base_url();
    let proxy = Proxy::before(oes.strip_prefix("http://").unwrap().parse().unwrap()).await;
    world.set("oes.base_url", &format!("http://{}", proxy.address()));
    let daemon = world.daemon().await;
    proxy.set(Mode::Truncate(60));
    let records = reserve_many(&world, 1);
    publish(&world, &records).await;
    eventually("the outcome to be unknown", || async {
        let state = world.history(records[0].id).await?.job.state.to_string();
        state.starts_with("unknown").then_some(())
    })
    .await;
    proxy.set(Mode::Pass);
    assert_each_ended_once(&world, &records).await;
    assert_eq!(world.puts_of(&records[0]).len(), 1, "the answer was lost, not the update");
    daemon.stop().await;
}

/// Ends the node under load in one way or another.
async fn the_node_goes_and_comes_back(end: impl AsyncFnOnce(&mut PrivateNode), fault: &str) {
    let mut node = private_node().await;
    let mut world = World::on(&node.url, &[]).await;
    let daemon = world.daemon().await;
    let mut records = reserve_many(&world, 60);
    publish(&world, &records[..30]).await;
    world.wait_for_state(&records[0], "confirmed").await;
    publish(&world, &records[30..]).await;
    end(&mut node).await;
    let returned = Instant::now();
    daemon.wait_until_ready().await;
    println!("{fault}: ready {:?} after the broker's return", returned.elapsed());
    assert!(returned.elapsed() < BACK_WITHIN);
    world.exchange = Exchange::connect(&node.url).await;
    assert_back(&world, &mut records, fault).await;
    let consumers = ["-q", "--no-table-headers", "list_consumers", "queue_name", "prefetch_count"];
    let consumers = node.ctl(&consumers).await;
    let ours: Vec<_> = consumers.lines().filter(|line| line.contains(&world.jobs_queue)).collect();
    assert_eq!(ours, [format!("{}\t256", world.jobs_queue)]);
    assert_each_ended_once(&world, &records).await;
    daemon.stop().await;
    assert_eq!(world.exchange.ready(&world.jobs_queue).await, 0);
}

#[tokio::test]
async fn the_broker_is_restarted() {
    the_node_goes_and_comes_back(async |node| node.restart().await, "restart").await;
}

#[tokio::test]
async fn the_broker_is_killed() {
    the_node_goes_and_comes_back(async |node| node.crash().await, "kill -9").await;
}

async fn wait_until_blocked(daemon: &Daemon) {
    eventually("the daemon to say that the broker blocks it", || async {
        let (status, body) = daemon.get("/readyz").await;
        (status == 503 && body.contains("blocked by the broker: memory or disk alarm"))
            .then_some(())
    })
    .await;
    assert_eq!(daemon.count("settled_publisher_blocked").await, 1);
}

#[tokio::test]
async fn publishers_are_blocked() {
    /// The time limit of a call, and how many of them pass while the broker blocks.
    const CALL_TIMEOUT_MS: &str = "2000";
    const WINDOW: Duration = Duration::from_secs(5);
    let mut node = private_node().await;
    let (proxy, through) = through_proxy(&node.url).await;
    let settings = [("broker.url", through.as_str()), ("broker.call_timeout_ms", CALL_TIMEOUT_MS)];
    let world = World::on(&node.url, &settings).await;
    let other = World::on(&node.url, &[]).await;
    let records = reserve_many(&world, 20);
    publish(&world, &records).await;
    publish(&other, &reserve_many(&other, 1)).await;
    node.starve(true).await;

    // A daemon that ends while it is blocked does not wait for the broker.
    let daemon = Daemon::start(config_on_any_port(&other)).await;
    wait_until_blocked(&daemon).await;
    let asked = Instant::now();
    daemon.stop().await;
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());

    // Jobs are taken and settled meanwhile, because they come over a connection of their own.
    let daemon = Daemon::start(config_on_any_port(&world)).await;
    world.wait_for_final(20).await;
    wait_until_blocked(&daemon).await;
    let since = Instant::now();
    eventually("some time limits to pass", || async {
        // One may be on its way out.
        assert!(proxy.open() <= CONNECTIONS + 1, "{} connections", proxy.open());
        (since.elapsed() > WINDOW).then_some(())
    })
    .await;
    wait_until_blocked(&daemon).await;
    node.starve(false).await;
    daemon.wait_until_ready().await;
    assert_eq!(daemon.count("settled_publisher_blocked").await, 0);
    eventually("the outcomes to be published", || async {
        (daemon.count("settled_outbox_waiting").await == 0).then_some(())
    })
    .await;
    // Each of them once: nothing was left in a socket that the broker reads now.
    assert_eq!(world.exchange.ready(&world.outcomes).await, 20);
    assert_each_ended_once(&world, &records).await;
    daemon.stop().await;
}

fn config_on_any_port(world: &World) -> settled::config::Config {
    let mut config = world.config();
    config.http.listen.set_port(0);
    config
}

#[tokio::test]
async fn acknowledgements_take_longer_than_the_broker_allows() {
    /// RabbitMQ allows half an hour, and looks once a minute.
    const HURRY: &str = "application:set_env(rabbit, consumer_timeout, 1500), \
                         application:set_env(rabbit, channel_tick_interval, 500).";
    const NO_HURRY: &str = "application:set_env(rabbit, consumer_timeout, 1800000), \
                            application:set_env(rabbit, channel_tick_interval, 60000).";
    let node = private_node().await;
    node.ctl(&["-q", "eval", HURRY]).await;
    let (proxy, through) = through_proxy(&node.url).await;
    let world = World::on(&node.url, &[("broker.url", through.as_str())]).await;
    let daemon = world.daemon().await;
    let mut records = reserve_many(&world, 4);
    publish(&world, &records[..1]).await;
    world.wait_for_state(&records[0], "confirmed").await;
    // Nothing can be committed, so nothing is acknowledged, and the broker closes the channel.
    let other = lock(&world).await;
    publish(&world, &records[1..]).await;
    let before = proxy.accepted();
    eventually("the broker to close the channel, and the daemon to open another", || async {
        (proxy.accepted() > before).then_some(())
    })
    .await;
    unlock(other).await;
    assert_back(&world, &mut records, "acknowledgement time-out").await;
    node.ctl(&["-q", "eval", NO_HURRY]).await;
    assert_each_ended_once(&world, &records).await;
    daemon.stop().await;
    assert_eq!(world.exchange.ready(&world.jobs_queue).await, 0);
}
