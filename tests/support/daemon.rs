//! The daemon under test.

use std::{
    path::Path,
    process::{Output, Stdio},
    sync::Arc,
};

use serde_json::Value;
use settled::{
    app::App,
    clock::{Clock, SystemClock},
    config::Config,
};
use tokio::{
    process::{Child, Command},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use super::eventually;

/// A daemon in this process: fast to start, and ended in order.
pub(crate) struct Daemon {
    stop: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
    http: String,
}

impl Daemon {
    pub(crate) async fn start(config: Config) -> Self {
        Self::try_start(config).await.unwrap()
    }

    pub(crate) async fn try_start(config: Config) -> anyhow::Result<Self> {
        Self::try_start_at(config, Arc::new(SystemClock)).await
    }

    /// The same with another clock.
    pub(crate) async fn try_start_at(
        config: Config,
        clock: Arc<dyn Clock>,
    ) -> anyhow::Result<Self> {
        let app = App::start(config, clock).await?;
        let (stop, http) = (app.stop_token(), format!("http://{}", app.http_address()));
        #[expect(clippy::disallowed_methods, reason = "the test waits for it in `stop`")]
        let task = tokio::spawn(app.run());
        Ok(Self { stop, task, http })
    }

    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
    }

    /// Where it listens, with what goes before every route.
    pub(crate) fn base(&self) -> &str {
        &self.http
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        get(&self.http, path).await
    }

    pub(crate) async fn wait_until_ready(&self) {
        eventually("the daemon to be ready", || async {
            (self.get("/readyz").await.0 == 200).then_some(())
        })
        .await;
    }

    /// The value of a metric's line, e.g. `settled_jobs{state="parked",type="allocation"}`.
    pub(crate) async fn number(&self, line: &str) -> f64 {
        self.metric(line).await.parse().unwrap()
    }

    /// The same for a line that counts.
    pub(crate) async fn count(&self, line: &str) -> u64 {
        let text = self.metric(line).await;
        text.strip_suffix(".0").unwrap_or(&text).parse().unwrap()
    }

    async fn metric(&self, line: &str) -> String {
        let (status, text) = self.get("/metrics").await;
        assert_eq!(status, 200, "{text}");
        let value =
            text.lines().find_map(|candidate| candidate.strip_prefix(line)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("no metric {line} in\n{text}")).to_owned()
    }
}

fn http() -> reqwest::Client {
    settled::tls::use_ring();
    reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap()
}

async fn get(base: &str, path: &str) -> (u16, String) {
    let client = http();
    let answer = client.get(format!("{base}{path}")).send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

/// The real binary.
pub(crate) fn binary(config_file: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_settled"));
    command.arg("--config").arg(config_file);
    // What configures the machine that the tests run on is not what they test.
    for (name, _) in
        std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SETTLED"))
    {
        command.env_remove(name);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

pub(crate) async fn run(mut command: Command, arguments: &[&str]) -> Output {
    command.args(arguments).output().await.unwrap()
}

pub(crate) fn text(output: &[u8]) -> String {
    String::from_utf8_lossy(output).into_owned()
}

/// The daemon as a process, for signals and crashes.
pub(crate) struct Process {
    pub(crate) child: Child,
    http: String,
}

impl Process {
    /// Starts `settled run` and waits until it is ready. `listen` is where its listener is told to be.
    pub(crate) async fn start(config_file: &Path, listen: &str) -> Self {
        let mut command = binary(config_file);
        command.arg("run").stdout(Stdio::null()).stderr(Stdio::null());
        Self::start_command(command, listen).await
    }

    /// The same with a command that was made ready.
    pub(crate) async fn start_command(mut command: Command, listen: &str) -> Self {
        let child = command.spawn().unwrap();
        let process = Self { child, http: format!("http://{listen}") };
        eventually("the daemon's process to be ready", || async {
            let answer = http().get(format!("{}/readyz", process.http)).send().await.ok()?;
            (answer.status() == 200).then_some(())
        })
        .await;
        process
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let id = i32::try_from(self.child.id().expect("it runs")).unwrap();
        let process = rustix::process::Pid::from_raw(id).unwrap();
        rustix::process::kill_process(process, signal).unwrap();
    }

    /// How many descriptors and threads it has.
    pub(crate) fn descriptors_and_threads(&self) -> (usize, usize) {
        let id = self.child.id().expect("it runs");
        let count = |what| std::fs::read_dir(format!("/proc/{id}/{what}")).unwrap().count();
        (count("fd"), count("task"))
    }

    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Asks it to end, and waits until it has: what it took from the broker is acknowledged then.
    pub(crate) async fn end(mut self) {
        self.signal(rustix::process::Signal::TERM);
        let ended = tokio::time::timeout(super::PATIENCE, self.child.wait()).await;
        let status = ended.expect("it ends when it is asked to").unwrap();
        assert!(status.success(), "{status}");
    }

    pub(crate) async fn readiness(&self) -> Value {
        serde_json::from_str(&get(&self.http, "/readyz").await.1).unwrap()
    }
}

/// Runs the real binary with something on its standard input; it must succeed.
pub(crate) async fn run_with_input(
    world: &super::world::World,
    arguments: &[&str],
    input: &str,
) -> String {
    use tokio::io::AsyncWriteExt as _;
    let mut command = binary(&world.config_file());
    let mut child = command.args(arguments).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).await.unwrap();
    let output = child.wait_with_output().await.unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}
