//! Who is measured: the daemon, and the programs it is compared with. Each gets the same queue, the same
//! server, and a folder on the same disk.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    broker::Queues,
    process::{Process, wait_for_text},
    server::Server,
    workload::{self, ENTERPRISE, KEY_HEX, TOKEN},
};

/// How long a program may take to begin.
const BEGIN_LIMIT: Duration = Duration::from_secs(120);
/// Updates under way and deliveries unacknowledged at a time: the daemon's defaults, for all.
pub(crate) const IN_FLIGHT: usize = 512;
pub(crate) const PREFETCH: u16 = 256;

/// Who is measured.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    clap::ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Subject {
    /// `settled run`.
    Daemon,
    /// The same with `decide.verify_with_oes`.
    DaemonVerifying,
    /// lapin to reqwest: no record, no signature.
    Ceiling,
    /// Node.js at its best: batched commits, signing in a worker thread.
    NodeBest,
    /// Node.js with a commit a step.
    NodePlain,
    /// Python with a commit a step.
    Python,
    /// Only consuming and acknowledging.
    ConsumeOnly,
}

impl Subject {
    pub(crate) const COMPARED: [Self; 6] = [
        Self::Daemon,
        Self::DaemonVerifying,
        Self::Ceiling,
        Self::NodeBest,
        Self::NodePlain,
        Self::Python,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Daemon => "settled",
            Self::DaemonVerifying => "settled, verify_with_oes",
            Self::Ceiling => "ceiling: lapin → reqwest, no record",
            Self::NodeBest => "Node.js at its best",
            Self::NodePlain => "Node.js, a commit a step",
            Self::Python => "Python, a commit a step",
            Self::ConsumeOnly => "consume and acknowledge only",
        }
    }

    pub(crate) const fn is_daemon(self) -> bool {
        matches!(self, Self::Daemon | Self::DaemonVerifying)
    }

    /// Whether it signs, so that its signatures can be checked.
    pub(crate) const fn signs(self) -> bool {
        !matches!(self, Self::Ceiling | Self::ConsumeOnly)
    }

    /// How many of the jobs it gets: slow ones fewer, so that every run lasts for some seconds.
    pub(crate) fn share_of(self, jobs: u64) -> u64 {
        let parts = match self {
            Self::Daemon | Self::DaemonVerifying => 10,
            Self::Ceiling | Self::ConsumeOnly => 20,
            Self::NodeBest => 6,
            Self::NodePlain | Self::Python => 2,
        };
        (jobs * parts).div_ceil(10).max(1)
    }
}

/// A daemon's own place: its configuration, key and book.
pub(crate) struct Place {
    pub(crate) folder: PathBuf,
    settings: Vec<(&'static str, &'static str, String)>,
    binary: PathBuf,
    pub(crate) http_port: u16,
}

impl Place {
    /// A place with a book that knows the workload's connections.
    pub(crate) fn new(binary: &Path, folder: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(folder)?;
        write_secret(&folder.join("key"), KEY_HEX)?;
        write_secret(&folder.join("token"), TOKEN)?;
        let path = |name: &str| json!(folder.join(name)).to_string();
        let http_port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let settings = vec![
            ("store", "path", path("book.db")),
            ("broker", "declare", "true".to_owned()),
            ("oes", "enterprise_id", json!(ENTERPRISE).to_string()),
            ("oes", "access_token_file", path("token")),
            // The server has no limit, and the daemon is to be no gentler than the others.
            ("oes", "rate_limit", "2000000000".to_owned()),
            ("oes", "rate_burst", "1000000".to_owned()),
            ("oes", "rate_window_s", "1".to_owned()),
            ("signer", "key_file", path("key")),
            ("decide", "verify_with_oes", "false".to_owned()),
            ("http", "listen", json!(format!("127.0.0.1:{http_port}")).to_string()),
        ];
        let this =
            Self { folder: folder.to_owned(), settings, binary: binary.to_owned(), http_port };
        fs::write(folder.join("book.jsonl"), workload::book())?;
        this.write_config()?;
        let import = this.command(&["book", "import"]).arg(folder.join("book.jsonl")).output()?;
        if !import.status.success() {
            bail!("the book was not imported: {}", String::from_utf8_lossy(&import.stderr));
        }
        Ok(this)
    }

    pub(crate) fn set(&mut self, section: &'static str, key: &'static str, value: &str) {
        self.settings
            .retain(|(known_section, known, _)| (*known_section, *known) != (section, key));
        self.settings.push((section, key, value.to_owned()));
    }

    /// Whether each record is read at OES before its decision.
    pub(crate) fn verify_with_oes(&mut self, on: bool) {
        self.set("decide", "verify_with_oes", if on { "true" } else { "false" });
    }

    /// Points it at the queues and the server of a run.
    pub(crate) fn aim(&mut self, queues: &Queues, server: &Server) {
        let config = &queues.config;
        self.set("broker", "url", &json!(config.url.expose()).to_string());
        self.set("broker", "jobs_queue", &json!(config.jobs_queue).to_string());
        self.set("broker", "outcomes_exchange", &json!(config.outcomes_exchange).to_string());
        self.set("broker", "dead_letter_exchange", &json!(config.dead_letter_exchange).to_string());
        self.set("oes", "base_url", &json!(server.url).to_string());
    }

    fn write_config(&self) -> anyhow::Result<()> {
        let mut sections: Vec<&str> = self.settings.iter().map(|(section, ..)| *section).collect();
        sections.sort_unstable();
        sections.dedup();
        let mut lines = Vec::new();
        for section in sections {
            lines.push(format!("[{section}]"));
            for (_, key, value) in self.settings.iter().filter(|(of, ..)| *of == section) {
                lines.push(format!("{key} = {value}"));
            }
        }
        Ok(fs::write(self.folder.join("settled.toml"), lines.join("\n"))?)
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg("-c").arg(self.folder.join("settled.toml")).args(arguments);
        command
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.folder.join("output.log")
    }

    /// Starts the daemon and waits until it consumes.
    pub(crate) fn run(&self) -> anyhow::Result<Process> {
        self.write_config()?;
        let mut process = Process::start(&mut self.command(&["run"]), &self.log())?;
        wait_for_text(&mut process, &self.log(), "consuming", BEGIN_LIMIT)?;
        Ok(process)
    }

    /// Starts the daemon under a tracer that writes down each sync, a line for each.
    pub(crate) fn run_counting_syncs(&self, syncs: &Path) -> anyhow::Result<Process> {
        self.write_config()?;
        let mut command = Command::new("strace");
        command
            // Only the calls that are counted stop the process.
            .args([
                "-f",
                "--seccomp-bpf",
                "-q",
                "-e",
                "trace=fsync,fdatasync",
                "-e",
                "signal=none",
                "-o",
            ])
            .arg(syncs)
            .arg(&self.binary)
            .arg("-c")
            .arg(self.folder.join("settled.toml"))
            .arg("run");
        let mut process = Process::start_traced(&mut command, &self.binary, &self.log())?;
        wait_for_text(&mut process, &self.log(), "consuming", BEGIN_LIMIT)?;
        Ok(process)
    }

    /// Has the book, its movements and its journal verified by the program itself.
    pub(crate) fn must_verify(&self) -> anyhow::Result<()> {
        for arguments in [&["book", "verify"][..], &["verify"]] {
            let out = self.command(arguments).output()?;
            if !out.status.success() {
                bail!("{arguments:?} failed: {}", String::from_utf8_lossy(&out.stderr));
            }
        }
        Ok(())
    }
}

/// Starts a program that is no daemon; it says "consuming" and, at the end, "done".
pub(crate) fn start_peer(
    subject: Subject,
    root: &Path,
    folder: &Path,
    (queues, server): (&Queues, &Server),
    jobs: u64,
) -> anyhow::Result<Process> {
    let peers = root.join("benches/peers");
    let mut command = match subject {
        Subject::Ceiling | Subject::ConsumeOnly => {
            let mut command = Command::new(std::env::current_exe()?);
            let role = if subject == Subject::Ceiling { "ceiling" } else { "consume-only" };
            command.args(["role", role]);
            command
        }
        Subject::NodeBest | Subject::NodePlain => {
            let mut command = Command::new("node");
            let program = if subject == Subject::NodeBest { "best.mjs" } else { "plain.mjs" };
            command.arg(peers.join("node").join(program));
            command
        }
        Subject::Python => {
            let mut command = Command::new(root.join("target/bench/venv/bin/python"));
            command.arg(peers.join("python/plain.py"));
            command
        }
        Subject::Daemon | Subject::DaemonVerifying => bail!("the daemon is no peer"),
    };
    fs::create_dir_all(folder)?;
    command
        .env("BENCH_AMQP_URL", queues.config.url.expose())
        .env("BENCH_QUEUE", &queues.config.jobs_queue)
        .env("BENCH_OES_URL", server.partner_url())
        .env("BENCH_TOKEN", TOKEN)
        .env("BENCH_KEY_HEX", KEY_HEX)
        .env("BENCH_BOOK", folder.join("book.jsonl"))
        .env("BENCH_DB", folder.join("peer.db"))
        .env("BENCH_JOBS", jobs.to_string())
        .env("BENCH_PREFETCH", PREFETCH.to_string())
        .env("BENCH_IN_FLIGHT", IN_FLIGHT.to_string());
    fs::write(folder.join("book.jsonl"), workload::book())?;
    let output = folder.join("output.log");
    let mut process = Process::start(&mut command, &output)?;
    wait_for_text(&mut process, &output, "consuming", BEGIN_LIMIT)
        .with_context(|| subject.name())?;
    Ok(process)
}

fn write_secret(path: &Path, content: &str) -> anyhow::Result<()> {
    use std::io::Write as _;
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    Ok(writeln!(file, "{content}")?)
}
