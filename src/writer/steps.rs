//! The steps of a batch, told to traces once they are committed.

use std::time::Instant;

use super::{
    Writer,
    batch::Carried,
    command::{Command, Done},
};
use crate::{
    domain::news::News,
    pipeline::record::Recorded,
    traces::{Step, Traces},
};

/// When a batch went through its stages.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stages {
    /// Its rows were asked for.
    pub(super) begun: Instant,
    /// Its commands were carried out, and its attempts were to be signed.
    pub(super) to_sign: Instant,
}

impl Writer {
    /// Tells what a batch did to jobs, if anybody wants to know.
    pub(super) fn trace(
        &self,
        batch: &[Command],
        carried: &Carried,
        news: &[News],
        stages: Stages,
    ) {
        if !self.traces.is_on() {
            return;
        }
        let Stages { begun, to_sign } = stages;
        let committed = Instant::now();
        for (command, done) in batch.iter().zip(&carried.done) {
            let Done::Recorded { recorded, .. } = done else { continue };
            let step = Step::Received { result: word(*recorded) };
            if let Command::Record { intake, arrived, .. } = command {
                self.traces.tell_past(intake.terms.record_id, step, (*arrived, committed));
            } else if let Command::Requeue { intake, .. } = command {
                self.traces.tell_past(intake.terms.record_id, step, (begun, committed));
            }
        }
        for item in news {
            tell(&self.traces, item, (begun, committed));
        }
        for attempt in carried.attempts.iter().flatten() {
            let step = Step::Signed { attempt: attempt.number };
            self.traces.tell_past(attempt.terms.record_id, step, (to_sign, committed));
        }
    }
}

const fn word(recorded: Recorded) -> &'static str {
    match recorded {
        Recorded::New(_) => "new",
        Recorded::Repeated(_) => "repeated",
        Recorded::Contradicts(_) => "contradicts",
        Recorded::RefusedBefore => "refused",
    }
}

/// What is news about one job is a step of it.
fn tell(traces: &Traces, news: &News, when: (Instant, Instant)) {
    let (record, step) = match news {
        News::Decided { record, job_type, outcome, reject_code } => {
            let (job_type, outcome) = (*job_type, *outcome);
            (record, Step::Decided { job_type, outcome, reject_code: reject_code.clone() })
        }
        News::Final { record, job_type, outcome, overruled, took } => {
            let (job_type, outcome, overruled) = (*job_type, *outcome, *overruled);
            (record, Step::Confirmed { job_type, outcome, overruled, took: *took })
        }
        News::Parked { record, reason, .. } => (record, Step::Parked { reason: reason.as_str() }),
        News::Frozen { record, kind } => (record, Step::Frozen { kind: kind.as_str() }),
        News::Refused { record, .. } => (record, Step::Refused),
        News::Reconsidered { record } => (record, Step::Received { result: "reconsidered" }),
        // What operators and the feed did, and balances, belong to no job's trace.
        News::ClosedByOperators { .. }
        | News::Switched { .. }
        | News::Acted(_)
        | News::Overdrawn { .. }
        | News::FeedGap { .. }
        | News::FeedOld { .. }
        | News::SnapshotDiffers { .. }
        | News::SnapshotAgrees { .. }
        | News::Shortfall { .. } => return,
    };
    traces.tell_past(*record, step, when);
}
