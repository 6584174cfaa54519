//! On a real database: a row comes back with each column as it was written.

use std::{future::ready, time::Duration};

use crate::{
    domain::{
        decision::{Decision, Outcome},
        ids::JobSeq,
        job::Job,
        message::parse_job,
        state::{Doubt, ParkReason, State},
        time::TimestampMs,
    },
    store::{WriteConnection, open_writer, work::Needs},
};

const RAW: &str = r#"{"type":"deallocation","deallocationId":"0b4a3f3e-7d0a-4b5e-9a0e-3d1c5f2b7a10",
    "amount":{"currency":"BTC","quantity":"5"},"clientId":"7b1d6f0a-9d8f-4a59-8d6c-0a4f3f7d9a22",
    "connectionId":"0e4ae5f2-5f3c-4c39-9d0d-3a0a6f1f2b11","partnersClientId":"their client",
    "partnersConnectionId":"their connection","partnersDeallocationId":"their record"}"#;

const NOW: TimestampMs = TimestampMs::from_millis(1_000);

/// The job as the database has it, and not as it is kept.
async fn read(writer: &mut WriteConnection, seq: JobSeq) -> Job {
    writer.kept.forget();
    let counters = super::super::work::Counters::load(&mut writer.connection).await.unwrap();
    let needs = Needs { jobs: [seq].into(), ..Needs::default() };
    let batch = writer.begin(NOW, counters, &needs).await.unwrap();
    let job = batch.work.job(seq).unwrap().clone();
    batch.roll_back().await.unwrap();
    job
}

/// Every column of `job` that can change, each with a value that no other one has; `first` is the smallest.
fn fill(job: &mut Job, state: State, first: u32) {
    let at = |place: u32| Some(TimestampMs::from_millis(i64::from(first + place)));
    job.state = state;
    job.state_since = at(0).unwrap();
    job.next_step_at = at(1);
    job.tried_since = at(2);
    job.verified_at = at(3);
    job.waits_since = Some(Duration::from_millis(u64::from(first + 4)));
    (job.absences, job.reads_made) = (first + 5, first + 6);
    (job.attempts_counted, job.attempts_made) = (first + 7, first + 8);
    job.approval_before = Some(format!("approval {first}"));
    job.waits_for_book = !job.waits_for_book;
}

#[tokio::test]
async fn each_column_of_a_job_is_read_as_it_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let opened = open_writer(&folder.path().join("book.db"), NOW).await.unwrap();
    let (mut writer, counters) = (opened.writer, opened.counters);

    let terms = parse_job(RAW.as_bytes()).unwrap();
    let mut batch = writer.begin(NOW, counters, &Needs::default()).await.unwrap();
    let seq = batch.work.insert_job(terms, RAW.to_owned(), Some(77_i64.try_into().unwrap()));
    let tracked = batch.work.jobs.get_mut(&seq).unwrap();
    tracked.job.decision = Some(Decision::Cleared);
    tracked.job.received_at = TimestampMs::from_millis(900);
    fill(&mut tracked.job, State::Unknown(Doubt::NoReply), 100);
    let written = tracked.job.clone();
    batch.commit(0, ready(Ok(Vec::new()))).await.unwrap();
    assert_eq!(read(&mut writer, seq).await, written);

    let mut written = written;
    for (state, final_outcome, first) in [
        (State::Parked(ParkReason::TooOld), None, 200),
        (State::Overruled, Some(Outcome::Released), 300),
    ] {
        let needs = Needs { jobs: [seq].into(), ..Needs::default() };
        let mut batch = writer.begin(NOW, counters, &needs).await.unwrap();
        let tracked = batch.work.jobs.get_mut(&seq).unwrap();
        fill(&mut tracked.job, state, first);
        tracked.job.final_outcome = final_outcome;
        if final_outcome.is_some() {
            // What is final has no next step.
            tracked.job.next_step_at = None;
        }
        tracked.changed = true;
        written = tracked.job.clone();
        batch.commit(0, ready(Ok(Vec::new()))).await.unwrap();
        assert_eq!(read(&mut writer, seq).await, written);
    }
    assert_eq!(written.final_outcome, Some(Outcome::Released));
}
