//! What a service manager is told: ready once the book is open, at work while it really is, and ending.

use std::{
    os::unix::net::UnixDatagram,
    process::Stdio,
    sync::{Arc, Mutex},
};

use rustix::process::Signal;
use settled::{
    domain::job::JobType,
    sandbox::{Effect, Fault, On, Times, When},
};
use sqlx::Connection as _;
use tokio::{
    process::{Child, Command},
    task::JoinSet,
};

use crate::support::{daemon::binary, eventually, world::World};

/// The service manager's ear. It listens all the time, as a service manager does.
struct Manager {
    heard: Arc<Mutex<Vec<String>>>,
    _listening: JoinSet<()>,
}

impl Manager {
    fn listen(world: &World) -> Self {
        let socket = tokio::net::UnixDatagram::bind(world.path("notify")).unwrap();
        let heard = Arc::<Mutex<Vec<String>>>::default();
        let (shared, mut listening) = (Arc::clone(&heard), JoinSet::new());
        listening.spawn(async move {
            let mut buffer = [0; 4_096];
            while let Ok(length) = socket.recv(&mut buffer).await {
                let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                shared.lock().unwrap().extend(text.lines().map(str::to_owned));
            }
        });
        Self { heard, _listening: listening }
    }

    /// Everything that was said until now.
    fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().clone()
    }

    fn count(&self, line: &str) -> usize {
        self.heard().iter().filter(|said| *said == line).count()
    }

    async fn wait_for(&self, line: &str, times: usize) {
        eventually(line, || async { (self.count(line) >= times).then_some(()) }).await;
    }
}

/// The real binary under a service manager that wants to hear of it every 1.5 seconds.
fn start(world: &World) -> Child {
    let mut command = binary(&world.config_file());
    command.arg("run").stdout(Stdio::null()).stderr(Stdio::null());
    supervised(&mut command, world)
}

fn supervised(command: &mut Command, world: &World) -> Child {
    command.env("NOTIFY_SOCKET", world.path("notify")).env("WATCHDOG_USEC", "1500000");
    command.spawn().unwrap()
}

fn signal(child: &Child, signal: Signal) {
    let id = i32::try_from(child.id().expect("it runs")).unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_raw(id).unwrap(), signal).unwrap();
}

async fn healthz(world: &World) -> (u16, String) {
    let url = format!("http://{}/healthz", world.setting("http.listen"));
    settled::tls::use_ring();
    let client = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
    let answer = client.get(url).send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

/// The seconds in "the writer is at one thing for 7 s".
fn stuck_for_s(reason: &str) -> u64 {
    let words: Vec<&str> = reason.split_whitespace().collect();
    words.iter().find_map(|word| word.parse().ok()).unwrap_or_else(|| panic!("{reason}"))
}

#[tokio::test]
async fn the_watchdog_is_fed_only_while_the_writer_works() {
    let mut world = World::new().await;
    // No call may be allowed to last longer.
    world.set("health.stuck_after_s", "6");
    world.set("broker.connect_timeout_ms", "3000");
    let manager = Manager::listen(&world);
    let mut daemon = start(&world);
    manager.wait_for("READY=1", 1).await;
    manager.wait_for("WATCHDOG=1", 3).await;
    assert_eq!(healthz(&world).await.0, 200);

    // Another program holds the database: the daemon runs and answers, and does no work.
    let url = format!("sqlite:{}", world.path("book.db").display());
    let mut other = sqlx::SqliteConnection::connect(&url).await.unwrap();
    let lock = other.begin_with("BEGIN IMMEDIATE").await.unwrap();
    world.publish([world.job(&world.reserve(JobType::Allocation, "5"))]).await;
    let reason = hangs_unfed(&world, &manager).await;
    assert!(reason.contains("the writer is at one thing for"), "{reason}");
    let fed = manager.count("WATCHDOG=1");

    lock.rollback().await.unwrap();
    manager.wait_for("WATCHDOG=1", fed + 2).await;
    assert_eq!(healthz(&world).await.0, 200);
    world.wait_for_final(1).await;
    signal(&daemon, Signal::TERM);
    manager.wait_for("STOPPING=1", 1).await;
    assert!(daemon.wait().await.unwrap().success());
    assert_eq!(manager.count("READY=1"), 1);
}

/// Waits until the daemon counts as stuck, and then for as long as the service manager would have to wait
/// until it gives up. Answers why it is stuck.
async fn hangs_unfed(world: &World, manager: &Manager) -> String {
    let reason = eventually("the daemon to be stuck", || async {
        let (status, reason) = healthz(world).await;
        (status == 503).then_some(reason)
    })
    .await;
    eventually("the reason to be told", || async {
        manager.heard().iter().any(|said| said.starts_with("STATUS=")).then_some(())
    })
    .await;
    let fed = manager.count("WATCHDOG=1");
    // Long enough for it to have been fed several times more.
    for later in 1..=3 {
        let then = stuck_for_s(&reason) + later;
        eventually("another second", || async {
            (stuck_for_s(&healthz(world).await.1) >= then).then_some(())
        })
        .await;
    }
    assert_eq!(manager.count("WATCHDOG=1"), fed, "{reason}");
    reason
}

/// A daemon one part of which hangs, while everything else goes on.
async fn is_not_fed_while_one_hangs(part: &str) {
    let world =
        World::with(&[("health.stuck_after_s", "6"), ("broker.connect_timeout_ms", "3000")]).await;
    let manager = Manager::listen(&world);
    let mut command = binary(&world.config_file());
    command.arg("run").stdout(Stdio::null()).stderr(Stdio::null()).env("SETTLED_STALL_AT", part);
    let mut daemon = supervised(&mut command, &world);
    manager.wait_for("READY=1", 1).await;
    world.submit(JobType::Allocation, "5").await;
    let reason = hangs_unfed(&world, &manager).await;
    assert!(reason.contains(&format!("the {part} is at one thing for")), "{part}: {reason}");
    daemon.kill().await.unwrap();
}

#[tokio::test]
async fn a_part_that_hangs_ends_the_keep_alive_whichever_it_is() {
    let parts = settled::crash::STALLS;
    futures_util::future::join_all(parts.map(is_not_fed_while_one_hangs)).await;
}

/// Watches a daemon for longer than what counts as stuck.
async fn is_fed_for_long(world: &World) {
    let manager = Manager::listen(world);
    let mut daemon = start(world);
    manager.wait_for("READY=1", 1).await;
    manager.wait_for("WATCHDOG=1", 20).await;
    assert_eq!(healthz(world).await.0, 200);
    signal(&daemon, Signal::TERM);
    assert!(daemon.wait().await.unwrap().success());
}

#[tokio::test]
async fn waiting_for_the_broker_or_for_oes_is_not_being_stuck() {
    let patience = [("health.stuck_after_s", "6"), ("broker.connect_timeout_ms", "3000")];
    let world = World::with(&patience).await;
    for on in [On::Update, On::Read, On::List] {
        let refuse = Effect::Answer { when: When::Before, status: 401 };
        world.inject(Fault::new(on, refuse).times(Times::Always));
    }
    world.submit(JobType::Allocation, "5").await;
    let mut away = World::with(&patience).await;
    away.set("broker.url", "amqp://guest:guest@127.0.0.1:1/%2f");
    tokio::join!(is_fed_for_long(&world), is_fed_for_long(&away));
}

#[tokio::test]
async fn a_service_manager_that_does_not_listen_holds_nothing_up() {
    let world = World::new().await;
    // It takes as much as the kernel keeps for it, and never reads.
    let _deaf = UnixDatagram::bind(world.path("notify")).unwrap();
    let mut command = binary(&world.config_file());
    command.arg("run").stdout(Stdio::null()).stderr(Stdio::null());
    command.env("NOTIFY_SOCKET", world.path("notify")).env("WATCHDOG_USEC", "3000");
    let mut daemon = command.spawn().unwrap();
    for _ in 0..3 {
        let record = world.submit(JobType::Allocation, "5").await;
        world.wait_for_state(&record, "confirmed").await;
    }
    assert_eq!(healthz(&world).await.0, 200);
    daemon.kill().await.unwrap();
}
