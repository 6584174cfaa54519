//! Comparisons on a schedule, where one is configured.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use super::{CompareError, Desk, reconcile::ReconcileRequest, sync::SyncRequest};
use crate::{
    config::Config,
    domain::{difference::Finding, ids::RecordId, sync::SyncLine, time::TimestampMs},
    store::StoreError,
    tally::Tally,
};

/// Longest time from the start of the daemon to the first run of what is due since.
const FIRST_RUN_WAIT_MAX: Duration = Duration::from_secs(30);

/// Who asks, as runs and facts have it.
const SCHEDULE: &str = "schedule";

#[derive(Clone, Copy, Debug)]
enum Task {
    Sync { apply: bool },
    Sweep { adopt: bool },
    Reconcile { range: Duration, adopt: bool },
}

impl Task {
    const fn name(self) -> &'static str {
        match self {
            Self::Sync { .. } => "sync",
            Self::Sweep { .. } => "sweep",
            Self::Reconcile { .. } => "reconcile",
        }
    }
}

struct Scheduled {
    task: Task,
    every: Duration,
    due: TimestampMs,
}

/// Compares as configured until the daemon ends. A comparison that cannot be done is counted and tried
/// again when the next one is due.
///
/// # Errors
/// [`StoreError`] when the book cannot be read.
pub async fn run(
    desk: Arc<Desk>,
    config: Config,
    stop: CancellationToken,
) -> Result<(), StoreError> {
    let mut scheduled = schedule(&desk, &config).await?;
    let mut told = BTreeSet::new();
    loop {
        let Some(next) = scheduled.iter_mut().min_by_key(|scheduled| scheduled.due) else {
            // Nothing is configured; ending now would look like a failure.
            stop.cancelled().await;
            return Ok(());
        };
        let wait = next.due.since(desk.clock.now());
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(wait) => {}
        }
        let done = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            done = carry_out(&desk, next.task, &mut told) => done,
        };
        match done {
            Ok(()) => desk.metrics.comparison_done(next.task.name()),
            Err(error) => {
                desk.metrics.comparison_failed(next.task.name());
                tracing::warn!(
                    what = next.task.name(), %error, "a comparison with OES could not be done"
                );
            }
        }
        next.due = desk.clock.now().after(next.every);
    }
}

async fn schedule(desk: &Desk, config: &Config) -> Result<Vec<Scheduled>, StoreError> {
    let (now, reconcile) = (desk.clock.now(), &config.reconcile);
    let adopt = reconcile.adopt;
    let range = Duration::from_secs(reconcile.range_s);
    let mut scheduled = Vec::new();
    for (task, every_s) in [
        (Task::Sync { apply: config.book.sync_apply }, config.book.sync_every_s),
        (Task::Sweep { adopt }, reconcile.sweep_every_s),
        (Task::Reconcile { range, adopt }, reconcile.every_s),
    ] {
        if every_s == 0 {
            continue;
        }
        let every = Duration::from_secs(every_s);
        let mut due = now.after(every.min(FIRST_RUN_WAIT_MAX));
        if matches!(task, Task::Reconcile { .. })
            && let Some(last) = desk.readers.past_runs().await?.last_started_at
        {
            // A daemon that is started often must neither skip its comparison nor repeat it.
            due = due.max(last.after(every));
        }
        scheduled.push(Scheduled { task, every, due });
    }
    Ok(scheduled)
}

/// Carries one out. `told` are the records that the log has already, and they are not told again.
async fn carry_out(
    desk: &Desk,
    task: Task,
    told: &mut BTreeSet<RecordId>,
) -> Result<(), CompareError> {
    match task {
        Task::Sync { apply } => {
            let request = SyncRequest { apply, activate: Vec::new(), who: SCHEDULE.to_owned() };
            let report = desk.sync(&request).await?;
            for SyncLine { kind, about, note, .. } in
                report.lines.iter().filter(|line| line.kind.is_applied())
            {
                tracing::warn!(%about, %kind, note, apply, "the book is not as OES has it");
            }
        }
        Task::Sweep { adopt } => {
            let mut found = BTreeSet::new();
            for Finding { kind, record_id, oes, note, .. } in desk.sweep(adopt).await?.findings {
                let Some(record) = record_id else { continue };
                if !told.contains(&record) {
                    tracing::error!(
                        %record, %kind, oes, note,
                        "OES holds a record whose job never came"
                    );
                }
                found.insert(record);
            }
            *told = found;
        }
        Task::Reconcile { range, adopt } => {
            let until_ms = desk.clock.now();
            let back = i64::try_from(range.as_millis()).unwrap_or(i64::MAX);
            let since_ms = TimestampMs::from_millis(until_ms.as_millis().saturating_sub(back));
            let source = SCHEDULE.to_owned();
            let request = ReconcileRequest { since_ms, until_ms, adopt, source };
            desk.reconcile(&request, &Tally::default()).await?;
        }
    }
    Ok(())
}
