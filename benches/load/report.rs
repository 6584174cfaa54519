//! The results: JSON for programs, tables for people, and two plots.

mod plot;
mod tables;

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::{
    bench::{Bench, Run},
    parts::{self, Parts, paced::Paced},
    scenario::{Backlog, History, Latency, Percentiles, Recovery, Syncs},
    subject::Subject,
};

/// Everything that was measured in one run.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    pub(crate) parts: Option<Parts>,
    pub(crate) throughput: Vec<Run>,
    pub(crate) latency: Vec<Latency>,
    pub(crate) paced: Option<Paced>,
    pub(crate) syncs: Vec<Syncs>,
    pub(crate) recovery: Option<Recovery>,
    pub(crate) backlog: Option<Backlog>,
    pub(crate) history: Option<History>,
    /// Shares of the daemon's processor time, the largest first.
    pub(crate) profile: Vec<(String, f64)>,
}

/// Where it was measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Machine {
    processor: String,
    cores: usize,
    kernel: String,
    /// The longest time of the three that the load was averaged over, as the run began: others at work?
    load: f64,
    /// A page written at a file's end and synced.
    sync_ms: Percentiles,
    versions: BTreeMap<String, String>,
}

/// The median of some values, and the smallest and largest of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    pub(crate) fn of(values: impl Iterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[middle]
        } else {
            f64::midpoint(values[middle - 1], values[middle])
        };
        Some(Self { median, min, max })
    }
}

impl Machine {
    fn here(folder: &Path) -> anyhow::Result<Self> {
        let processor = fs::read_to_string("/proc/cpuinfo")?
            .lines()
            .find_map(|line| line.strip_prefix("model name"))
            .map(|rest| rest.trim_start_matches([' ', '\t', ':']).to_owned())
            .unwrap_or_default();
        let load = fs::read_to_string("/proc/loadavg")?;
        let load = load.split_whitespace().next().and_then(|text| text.parse().ok());
        let versions = [
            ("node", &["node", "--version"][..]),
            ("python", &["target/bench/venv/bin/python", "--version"]),
            ("rabbitmq", &["dpkg-query", "-W", "-f", "${Version}", "rabbitmq-server"]),
            ("rustc", &["rustc", "--version"]),
        ];
        let said = |command: &[&str]| {
            let out = Command::new(command[0]).args(&command[1..]).output().ok()?;
            Some(String::from_utf8_lossy(&out.stdout).trim().to_owned())
        };
        Ok(Self {
            processor,
            cores: std::thread::available_parallelism()?.get(),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            load: load.unwrap_or_default(),
            sync_ms: parts::sync_times(folder)?,
            versions: versions
                .into_iter()
                .filter_map(|(name, command)| Some((name.to_owned(), said(command)?)))
                .collect(),
        })
    }
}

impl Report {
    pub(crate) fn new(bench: &Bench) -> anyhow::Result<Self> {
        Ok(Self {
            machine: Machine::here(&bench.folder)?,
            parts: None,
            throughput: Vec::new(),
            latency: Vec::new(),
            paced: None,
            syncs: Vec::new(),
            recovery: None,
            backlog: None,
            history: None,
            profile: Vec::new(),
        })
    }

    /// The spread of a figure of one subject's runs.
    pub(crate) fn spread(&self, subject: Subject, figure: impl Fn(&Run) -> f64) -> Option<Spread> {
        Spread::of(self.throughput.iter().filter(|run| run.subject == subject).map(figure))
    }

    /// Shows the tables and writes the results; into the documents too, if that is wanted.
    pub(crate) fn write(&self, root: &Path, into_docs: bool) -> anyhow::Result<()> {
        let blocks = tables::blocks(self);
        for (name, table) in &blocks {
            println!("\n## {name}\n\n{table}");
        }
        let json = serde_json::to_string_pretty(self)?;
        let results = root.join("target/bench/results.json");
        fs::write(&results, &json)?;
        eprintln!("bench: the results are in {}", results.display());
        if into_docs {
            let folder = root.join("docs/performance");
            fs::create_dir_all(&folder)?;
            // The tables of "Many jobs" take long, and may come from a run of their own.
            let is_main = !self.throughput.is_empty();
            let results = if is_main { "results.json" } else { "many-jobs.json" };
            fs::write(folder.join(results), json)?;
            plot::throughput(self, &folder.join("throughput.svg"))?;
            plot::history(self, &folder.join("history.svg"))?;
            let document = root.join("docs/PERFORMANCE.md");
            let mut text = fs::read_to_string(&document)?;
            for (name, table) in blocks.iter().filter(|(name, _)| is_main || *name != "machine") {
                text = replace_block(&text, name, table)
                    .with_context(|| format!("{} has no place for {name}", document.display()))?;
            }
            fs::write(document, text)?;
        }
        Ok(())
    }
}

/// Puts a table between the marks that name it.
fn replace_block(text: &str, name: &str, table: &str) -> Option<String> {
    let (begin, end) = (format!("<!-- bench: {name} -->"), "<!-- /bench -->");
    let (before, rest) = text.split_once(&begin)?;
    let (_, after) = rest.split_once(end)?;
    Some(format!("{before}{begin}\n{table}{end}{after}"))
}
