//! The tables, as Markdown.

use std::fmt::Write as _;

use super::{Report, Spread};
use crate::{
    bench::Run,
    scenario::{History, Percentiles},
    subject::{IN_FLIGHT, Subject},
};

/// Each table that there is something for, with the name of its place in the document.
pub(super) fn blocks(report: &Report) -> Vec<(&'static str, String)> {
    let tables = [
        ("machine", Some(machine(report))),
        ("throughput", (!report.throughput.is_empty()).then(|| throughput(report))),
        ("resources", (!report.throughput.is_empty()).then(|| resources(report))),
        ("batches", batches(report)),
        ("parts", parts(report)),
        ("latency", (!report.latency.is_empty()).then(|| latency(report))),
        ("syncs", (!report.syncs.is_empty()).then(|| syncs(report))),
        ("many", many(report)),
        ("history", report.history.as_ref().map(history)),
        ("profile", (!report.profile.is_empty()).then(|| profile(report))),
    ];
    tables.into_iter().filter_map(|(name, table)| Some((name, table?))).collect()
}

/// A table from its rows; the first is its head.
fn table(rows: &[Vec<String>]) -> String {
    let mut text = String::new();
    for (number, row) in rows.iter().enumerate() {
        text.push_str("| ");
        text.push_str(&row.join(" | "));
        text.push_str(" |\n");
        if number == 0 {
            text.push('|');
            for column in 0..row.len() {
                text.push_str(if column == 0 { "---|" } else { "---:|" });
            }
            text.push('\n');
        }
    }
    text
}

fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).to_vec()
}

fn whole(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn subjects(report: &Report) -> impl Iterator<Item = (Subject, Spread)> + '_ {
    Subject::COMPARED
        .into_iter()
        .filter_map(|subject| Some((subject, report.spread(subject, |run| run.per_second)?)))
}

fn machine(report: &Report) -> String {
    let machine = &report.machine;
    let Percentiles { p50, p99, .. } = machine.sync_ms;
    let versions: Vec<String> =
        machine.versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
    format!(
        "{} cores of {}, Linux {}; load at the start {:.2}. A page at the end of a growing file is \
         synced in {p50:.2} ms (p99 {p99:.2} ms). {}.\n",
        machine.cores,
        machine.processor,
        machine.kernel,
        machine.load,
        versions.join(", "),
    )
}

fn throughput(report: &Report) -> String {
    let median = |subject| report.spread(subject, |run| run.per_second).map(|spread| spread.median);
    let ceiling = median(Subject::Ceiling);
    let mut rows = vec![row(["", "jobs/s, median", "min", "max", "of the ceiling", "settled is"])];
    let settled = median(Subject::Daemon);
    for (subject, Spread { median, min, max }) in subjects(report) {
        let share = ceiling.map_or_else(String::new, |ceiling| format!("{:.2}", median / ceiling));
        let times =
            settled.map_or_else(String::new, |settled| format!("{:.2} ×", settled / median));
        rows.push(vec![
            subject.name().to_owned(),
            whole(median),
            whole(min),
            whole(max),
            share,
            times,
        ]);
    }
    table(&rows)
}

fn resources(report: &Report) -> String {
    let mut rows = vec![row([
        "",
        "CPU s per 1,000 jobs",
        "broker's",
        "server's",
        "peak RSS, MiB",
        "written, KiB a job",
    ])];
    for (subject, _) in subjects(report) {
        let figure = |figure: fn(&Run) -> f64| {
            report.spread(subject, figure).map_or(0.0, |spread| spread.median)
        };
        rows.push(vec![
            subject.name().to_owned(),
            format!("{:.3}", figure(|run| run.cpu_s_per_1000)),
            format!("{:.3}", figure(|run| run.broker_cpu_s_per_1000)),
            format!("{:.3}", figure(|run| run.server_cpu_s_per_1000)),
            whole(figure(|run| run.rss_peak_mib)),
            format!("{:.1}", figure(|run| run.written_kib_per_job)),
        ]);
    }
    table(&rows)
}

fn batches(report: &Report) -> Option<String> {
    let run = report.throughput.iter().rfind(|run| run.subject == Subject::Daemon)?;
    let commits = run.commits.as_ref()?;
    let mut text = format!(
        "{:.3} commits a job, {:.0} commands a commit on average, {:.1} ms each.\n\n",
        commits.per_job, commits.commands_mean, commits.duration_mean_ms
    );
    let mut rows = vec![row(["commands in the commit, at most", "commits"])];
    let mut up_to: Vec<(f64, &String, u64)> = (commits.commands_up_to.iter())
        .filter_map(|(bound, count)| Some((bound.parse().ok()?, bound, *count)))
        .collect();
    up_to.sort_by(|(one, ..), (other, ..)| one.total_cmp(other));
    let mut before = 0;
    for (_, bound, count) in up_to {
        rows.push(vec![bound.clone(), (count - before).to_string()]);
        before = count;
    }
    text.push_str(&table(&rows));
    Some(text)
}

fn parts(report: &Report) -> Option<String> {
    let parts = report.parts.as_ref()?;
    let mut rows = vec![row(["part alone", "a second"])];
    for (name, rate) in [
        ("consume and acknowledge (acknowledgements for 64)", parts.consume_per_second),
        (&format!("PUT, {IN_FLIGHT} under way"), parts.put_per_second),
        ("sign and verify, one core", parts.sign_per_second),
        ("the writer alone: both commits of a job, signed, 256 a batch", parts.commit_per_second),
        ("sync of a page", 1e3 / parts.sync_ms.p50),
    ] {
        rows.push(vec![name.to_owned(), whole(rate)]);
    }
    Some(table(&rows))
}

fn latency(report: &Report) -> String {
    let mut rows = vec![row(["", "p50, ms", "p90", "p99", "max"])];
    for latency in &report.latency {
        for (what, times) in [
            ("update received", Some(latency.to_update_ms)),
            ("outcome heard", latency.to_outcome_ms),
        ] {
            let name = format!("{}: published → {what}", latency.subject.name());
            rows.extend(times.map(|times| times_row(name, times)));
        }
    }
    if let Some(paced) = &report.paced {
        for (part, times) in [
            ("a row of 1 KiB in SQLite, committed", paced.row),
            ("a job through the writer to its signed attempt, committed", paced.commit),
            ("an update and its answer", paced.round_trip),
        ] {
            rows.push(times_row(format!("alone: {part}"), times));
        }
    }
    table(&rows)
}

fn times_row(name: String, Percentiles { p50, p90, p99, max }: Percentiles) -> Vec<String> {
    std::iter::once(name).chain([p50, p90, p99, max].map(|ms| format!("{ms:.2}"))).collect()
}

fn syncs(report: &Report) -> String {
    let mut rows = vec![row(["", "jobs", "syncs a job"])];
    for syncs in &report.syncs {
        rows.push(vec![
            syncs.what.clone(),
            syncs.jobs.to_string(),
            format!("{:.3}", syncs.per_job),
        ]);
    }
    table(&rows)
}

fn many(report: &Report) -> Option<String> {
    let mut text = String::new();
    if let Some(backlog) = &report.backlog {
        // A `String` takes whatever is written to it.
        let _fits = writeln!(
            text,
            "* {} jobs wait in the book: taken in at {}/s, peak RSS {:.0} MiB; a scrape of the metrics \
             takes {:.0} ms; a start takes {:.2} s (peak RSS {:.0} MiB).",
            whole(backlog.jobs as f64),
            whole(backlog.per_second),
            backlog.rss_peak_mib,
            backlog.scrape_ms,
            backlog.start_s,
            backlog.start_rss_peak_mib,
        );
    }
    if let Some(recovery) = &report.recovery {
        let _fits = writeln!(
            text,
            "* {} open jobs after a kill -9: consuming after {:.2} s, the first update after {:.2} s, \
             all settled and announced after {:.1} s ({}/s).",
            whole(recovery.open_jobs as f64),
            recovery.start_s,
            recovery.first_update_s,
            recovery.all_settled_s,
            whole(recovery.per_second),
        );
    }
    (!text.is_empty()).then_some(text)
}

fn history(history: &History) -> String {
    let rate = |runs: &[Run]| {
        Spread::of(runs.iter().map(|run| run.per_second)).unwrap_or(Spread {
            median: 0.0,
            min: 0.0,
            max: 0.0,
        })
    };
    let mut rows = vec![row(["", "jobs/s, median", "min", "max", "of the empty book's"])];
    let empty = rate(&history.without);
    for (name, spread) in [
        ("an empty book".to_owned(), empty),
        (format!("{} jobs before", whole(history.jobs_before as f64)), rate(&history.with_it)),
    ] {
        rows.push(vec![
            name,
            whole(spread.median),
            whole(spread.min),
            whole(spread.max),
            format!("{:.2}", spread.median / empty.median),
        ]);
    }
    format!(
        "{}\nThe book has {:.1} GiB then; a start with it takes {:.2} s; the peak RSS while it grew was \
         {:.0} MiB.\n",
        table(&rows),
        history.book_gib,
        history.start_s,
        history.growing_rss_peak_mib
    )
}

fn profile(report: &Report) -> String {
    let mut rows = vec![row(["where", "share"])];
    for (name, share) in &report.profile {
        rows.push(vec![name.clone(), format!("{share:.1} %")]);
    }
    table(&rows)
}
