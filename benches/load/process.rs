//! What a process has used, read from /proc, which costs it nothing.

use std::{
    fs::{self, File},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};

/// Clock ticks a second in /proc, on every Linux that this runs on.
const TICKS_PER_S: f64 = 100.0;

/// How long a process may take to end once it was asked to.
const END_LIMIT: Duration = Duration::from_secs(60);

/// What a process has used so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// Processor time, of the kernel for it included.
    pub(crate) cpu_s: f64,
    /// Most memory that ever was resident.
    pub(crate) rss_peak_bytes: u64,
    /// Bytes that it caused to be written to storage.
    pub(crate) written_bytes: u64,
}

impl Usage {
    pub(crate) fn of(pid: u32) -> anyhow::Result<Self> {
        let read = |name: &str| {
            fs::read_to_string(format!("/proc/{pid}/{name}"))
                .with_context(|| format!("process {pid} has ended too early"))
        };
        let stat = read("stat")?;
        // The name may hold spaces and parentheses; what follows its last one does not.
        let fields: Vec<&str> =
            stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
        let ticks = |field: usize| {
            fields.get(field).and_then(|text| text.parse::<f64>().ok()).unwrap_or_default()
        };
        let status = read("status")?;
        let io = read("io")?;
        Ok(Self {
            cpu_s: (ticks(11) + ticks(12)) / TICKS_PER_S,
            rss_peak_bytes: number_after(&status, "VmHWM:") * 1_024,
            written_bytes: number_after(&io, "write_bytes:"),
        })
    }
}

fn number_after(text: &str, name: &str) -> u64 {
    text.lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|number| number.parse().ok())
        .unwrap_or_default()
}

/// A process that ends with its owner.
pub(crate) struct Process {
    child: Child,
    /// Whom signals and questions are about; a tracer has the process as its child.
    pub(crate) pid: u32,
}

impl Process {
    /// Starts a program with its output in a file.
    pub(crate) fn start(command: &mut Command, output: &Path) -> anyhow::Result<Self> {
        let file = File::create(output)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("starting {}", command.get_program().display()))?;
        Ok(Self { pid: child.id(), child })
    }

    /// Starts a tracer that runs `program`, which is then whom signals and questions are about.
    pub(crate) fn start_traced(
        tracer: &mut Command,
        program: &Path,
        output: &Path,
    ) -> anyhow::Result<Self> {
        let program = fs::canonicalize(program)?;
        let mut this = Self::start(tracer, output)?;
        let tracer = this.child.id();
        let children = format!("/proc/{tracer}/task/{tracer}/children");
        this.pid = wait_for("the traced process", Duration::from_secs(10), || {
            let children = fs::read_to_string(&children)?;
            // The tracer tries itself out on children of its own first, which soon end.
            let is_traced = |pid: &&str| {
                fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|runs| runs == program)
            };
            Ok(children.split_whitespace().find(is_traced).map(str::parse).transpose()?)
        })?;
        Ok(this)
    }

    pub(crate) fn usage(&self) -> anyhow::Result<Usage> {
        Usage::of(self.pid)
    }

    /// Asks it to end, and waits until it has ended well.
    pub(crate) fn end(mut self) -> anyhow::Result<()> {
        self.signal(rustix::process::Signal::TERM);
        let status = wait_for("an end in good order", END_LIMIT, || Ok(self.child.try_wait()?))?;
        if status.success() { Ok(()) } else { bail!("it ended with {status}") }
    }

    /// Interrupts it, as Ctrl-C would, and waits until it has ended.
    pub(crate) fn interrupt(mut self) -> anyhow::Result<()> {
        self.signal(rustix::process::Signal::INT);
        wait_for("an end after Ctrl-C", END_LIMIT, || Ok(self.child.try_wait()?))?;
        Ok(())
    }

    /// Kills it, as a crash would.
    pub(crate) fn kill(mut self) -> anyhow::Result<()> {
        self.signal(rustix::process::Signal::KILL);
        self.child.wait()?;
        Ok(())
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = i32::try_from(self.pid).ok().and_then(rustix::process::Pid::from_raw);
        // A process that is gone needs no signal.
        let _told = pid.map(|pid| rustix::process::kill_process(pid, signal));
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(rustix::process::Signal::KILL);
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}

/// The last lines of a file.
pub(crate) fn tail(file: &Path) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}

/// Waits until something is there. Looks often, because what comes next is measured from then on.
pub(crate) fn wait_for<T>(
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let begun = Instant::now();
    while begun.elapsed() < limit {
        if let Some(found) = look()? {
            return Ok(found);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    bail!("{what}: not within {limit:?}")
}

/// Waits until a file that a process writes to has `text`.
pub(crate) fn wait_for_text(
    process: &mut Process,
    file: &Path,
    text: &str,
    limit: Duration,
) -> anyhow::Result<()> {
    let found = wait_for(text, limit, || {
        let ended = process.child.try_wait()?;
        let content = fs::read(file)?;
        let there = String::from_utf8_lossy(&content).contains(text);
        anyhow::ensure!(there || ended.is_none(), "the process has ended: {ended:?}");
        Ok(there.then_some(()))
    });
    found.with_context(|| format!("the output so far:\n{}", tail(file)))
}
