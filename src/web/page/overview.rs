//! Everything at a glance.

use askama::Template;
use axum::{extract::State, response::Response};

use super::{
    Page,
    attention::{self, Attention},
    chart::{Chart, charts},
    failure::{Failure, html},
    guard::Visitor,
    layout::Layout,
    samples::Sample,
    shown::{Age, Ago, Units},
};
use crate::{
    domain::{job::JobType, state::State as JobState, time::TimestampMs},
    health::Part,
    operator::status::{Status, status as look},
    store::query::SwitchLine,
    telemetry,
};

/// Problems that are shown.
const PROBLEMS_SHOWN_MAX: usize = 10;

/// How many jobs are in a state.
struct Step {
    state: &'static str,
    allocations: u64,
    deallocations: u64,
    /// How old the oldest is.
    oldest: Option<Age>,
    /// Whether a person has to look.
    needs: bool,
}

impl Step {
    fn jobs(&self) -> u64 {
        self.allocations.saturating_add(self.deallocations)
    }
}

/// A warning or an error of the log.
struct Problem {
    at: Ago,
    level: &'static str,
    text: String,
}

#[derive(Template)]
#[template(path = "overview.html")]
struct Overview {
    layout: Layout,
    ready: bool,
    parts: Vec<Part>,
    attention: Vec<Attention>,
    /// The way of a job that nothing happens to.
    flow: Vec<Step>,
    /// Where jobs are beside it.
    aside: Vec<Step>,
    charts: [Chart; 3],
    at_risk: Vec<(String, Units)>,
    released: u64,
    released_stuck: u64,
    released_oldest: Option<Age>,
    approvals: u64,
    approvals_oldest: Option<Age>,
    outbox: u64,
    quarantined: u64,
    off: Vec<SwitchLine>,
    problems: Vec<Problem>,
}

/// The way of a job that nothing happens to.
const FLOW: [&str; 4] = ["received", "decided", "sending", "confirmed"];
/// States that only a person ends.
const NEED_A_PERSON: [&str; 2] = ["parked", "conflict"];

fn step(state: &'static str, status: &Status, now: TimestampMs) -> Step {
    let jobs = |job_type: JobType| {
        let of = status.jobs.iter().filter(|line| line.state == state && line.job_type == job_type);
        of.map(|line| line.jobs).sum()
    };
    let oldest = status.oldest.iter().find(|line| line.state == state);
    let (allocations, deallocations) = (jobs(JobType::Allocation), jobs(JobType::Deallocation));
    let any = allocations > 0 || deallocations > 0;
    Step {
        state,
        allocations,
        deallocations,
        oldest: oldest.map(|line| Age(now.since(line.received_at_ms))),
        needs: any && NEED_A_PERSON.contains(&state),
    }
}

/// The page.
pub(super) async fn show(State(page): State<Page>, visitor: Visitor) -> Result<Response, Failure> {
    let layout = Layout::new(&page, &visitor, super::HOME, "Overview");
    let now = layout.now;
    let checks = &page.api.checks;
    let readiness = checks.readiness().await;
    let status = look(&checks.readers, None, now).await?;
    let mut samples = page.samples.all();
    samples.push(Sample::of(&status.jobs, &status.oldest, now));
    let age = |since: Option<TimestampMs>| since.map(|since| Age(now.since(since)));
    let problems = telemetry::recent_problems().into_iter().take(PROBLEMS_SHOWN_MAX);
    let aside = JobState::NAMES.into_iter().filter(|name| !FLOW.contains(name));
    Ok(html(&Overview {
        ready: readiness.ready,
        parts: readiness.parts,
        attention: attention::now(&checks.readers, now).await?,
        flow: FLOW.map(|state| step(state, &status, now)).into(),
        aside: aside.map(|state| step(state, &status, now)).collect(),
        charts: charts(&samples, now),
        released: status.released_unconfirmed.jobs,
        released_stuck: status.released_unconfirmed.stuck,
        released_oldest: age(status.released_unconfirmed.oldest_received_at_ms),
        approvals: status.approvals_waiting.jobs,
        approvals_oldest: age(status.approvals_waiting.oldest_since_ms),
        outbox: status.outbox_waiting,
        quarantined: status.quarantined,
        at_risk: status
            .at_risk
            .iter()
            .map(|risk| (risk.currency.to_string(), Units::of(risk.quantity)))
            .collect(),
        off: status.switches.into_iter().filter(|switch| !switch.on).collect(),
        problems: problems
            .map(|problem| Problem {
                at: Ago { at: problem.at_ms, now },
                level: problem.level,
                text: problem.text,
            })
            .collect(),
        layout,
    }))
}
