//! Where the daemon's processor time goes: samples of one run, by what the functions belong to.

use std::{collections::BTreeMap, path::Path, process::Command, time::Duration};

use crate::{
    bench::{Bench, finish, wait_until_done},
    process::Process,
};

/// Samples a second. A prime, so that nothing periodic hides between them.
const SAMPLES_PER_S: &str = "997";
const BEGIN: Duration = Duration::from_millis(300);

/// What a Rust function belongs to, by the crate that its name begins with.
const CRATES: [(&str, &[&str]); 7] = [
    (
        "AMQP (lapin)",
        &[
            "lapin",
            "amq_protocol",
            "pinky_swear",
            "async_reactor",
            "async_rs",
            "flume",
            "backon",
            "cookie_factory",
            "nom",
        ],
    ),
    (
        "HTTP (reqwest, hyper)",
        &[
            "reqwest",
            "hyper",
            "hyper_util",
            "http",
            "http_body",
            "httparse",
            "tower",
            "url",
            "idna",
            "percent_encoding",
            "want",
        ],
    ),
    (
        "tokio",
        &[
            "tokio",
            "tokio_util",
            "futures_util",
            "futures_core",
            "futures_channel",
            "mio",
            "parking",
            "parking_lot",
            "parking_lot_core",
            "event_listener",
        ],
    ),
    ("sqlx", &["sqlx", "sqlx_core", "sqlx_sqlite", "libsqlite3_sys"]),
    (
        "JSON and text (serde, hex, uuid)",
        &[
            "serde",
            "serde_json",
            "serde_core",
            "serde_path_to_error",
            "hex",
            "uuid",
            "itoa",
            "ryu",
            "zmij",
            "memchr",
        ],
    ),
    ("hashes (sha2)", &["sha2", "digest", "block_buffer"]),
    (
        "logs (tracing)",
        &[
            "tracing",
            "tracing_core",
            "tracing_subscriber",
            "sharded_slab",
            "matchers",
            "regex_automata",
            "nu_ansi_term",
        ],
    ),
];

/// Parts of the kernel, by what its functions' names have in them.
const KERNEL: [(&str, &[&str]); 3] = [
    (
        "kernel: network",
        &[
            "tcp", "sock", "inet", "ip_", "skb", "net_", "loopback", "__dev_", "napi", "epoll",
            "ep_",
        ],
    ),
    (
        "kernel: files and disk",
        &[
            "ext4",
            "jbd2",
            "blk",
            "bio",
            "virtblk",
            "folio",
            "filemap",
            "vfs",
            "sync",
            "iomap",
            "submit",
            "pagecache",
            "xas_",
        ],
    ),
    (
        "kernel: waiting and waking",
        &["futex", "sched", "wake", "switch", "idle", "pick_", "enqueue", "dequeue"],
    ),
];

/// Shares of a run's samples in percent, the largest first. Empty where there is no perf.
pub(crate) async fn profile(bench: &Bench, jobs: u64) -> anyhow::Result<Vec<(String, f64)>> {
    if Command::new("perf").arg("--version").output().is_err() {
        eprintln!("bench: there is no perf (Debian's package linux-perf): no profile");
        return Ok(Vec::new());
    }
    let mut place = bench.new_place("profile")?;
    let stage = bench.stage(jobs, jobs, true).await?;
    place.aim(&stage.queues, &stage.server);
    let process = place.run()?;
    let data = place.folder.join("perf.data");
    let mut command = Command::new("perf");
    command.args(["record", "-q", "-F", SAMPLES_PER_S, "-o"]).arg(&data);
    command.args(["-p", &process.pid.to_string()]);
    let perf = Process::start(&mut command, &place.folder.join("perf.log"))?;
    tokio::time::sleep(BEGIN).await;
    wait_until_done(&stage, &place, (jobs, jobs), |_| {}).await?;
    perf.interrupt()?;
    finish(stage, &place, process, jobs).await?;
    let shares = shares(&data)?;
    bench.discard(&place.folder)?;
    Ok(shares)
}

fn shares(data: &Path) -> anyhow::Result<Vec<(String, f64)>> {
    let out = Command::new("perf")
        .args(["report", "--stdio", "--no-children", "-q", "-s", "dso,symbol", "-t", ";", "-i"])
        .arg(data)
        .output()?;
    let text = String::from_utf8_lossy(&out.stdout);
    let mut shares: BTreeMap<&str, f64> = BTreeMap::new();
    for line in text.lines() {
        let mut cells = line.splitn(3, ';').map(str::trim);
        let share = cells.next().and_then(|cell| cell.trim_end_matches('%').parse::<f64>().ok());
        if let (Some(share), Some(dso), Some(symbol)) = (share, cells.next(), cells.next()) {
            *shares.entry(group(dso, symbol)).or_default() += share;
        }
    }
    anyhow::ensure!(
        !shares.is_empty(),
        "perf has no samples: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    let mut shares: Vec<(String, f64)> =
        shares.into_iter().map(|(name, share)| (name.to_owned(), share)).collect();
    shares.sort_by(|(_, one), (_, other)| other.total_cmp(one));
    Ok(shares)
}

fn group(dso: &str, symbol: &str) -> &'static str {
    // "[.] name" in user space, "[k] name" in the kernel.
    let name = symbol.split_once("] ").map_or(symbol, |(_, name)| name).trim();
    if symbol.starts_with("[k]") {
        let known = KERNEL.iter().find(|(_, parts)| parts.iter().any(|part| name.contains(part)));
        return known.map_or("kernel: all else", |(group, _)| group);
    }
    if dso.starts_with("libc") || name.contains("alloc") && !name.contains("::") {
        return if name.contains("alloc")
            || name.contains("free")
            || name == "sysmalloc"
            || name == "unlink_chunk"
        {
            "memory: allocation"
        } else if name.contains("mem") {
            "memory: copies and comparisons"
        } else {
            "libc: all else"
        };
    }
    if name.contains("secp256k1") {
        return "signatures (secp256k1)";
    }
    let krate = crate_of(name);
    if let Some((group, _)) = CRATES.iter().find(|(_, crates)| crates.contains(&krate)) {
        return group;
    }
    match krate {
        "settled" => "settled's own code",
        "" => "SQLite",
        _ => "all else",
    }
}

/// The crate that a Rust name begins with; empty for a name of C.
fn crate_of(name: &str) -> &str {
    if !name.contains("::") {
        return "";
    }
    let name = name
        .trim_start_matches(['<', '&', '[', '(', '*'])
        .trim_start_matches("mut ")
        .trim_start_matches("dyn ");
    let end = name.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(name.len());
    match name.get(..end) {
        // Generic code of the standard library belongs to whom it works for.
        Some("core" | "alloc" | "std") => CRATES
            .iter()
            .flat_map(|(_, crates)| crates.iter())
            .find(|krate| name.contains(&format!("{krate}::")))
            .copied()
            .unwrap_or(if name.contains("settled::") { "settled" } else { "std" }),
        Some(krate) => krate,
        None => "",
    }
}
