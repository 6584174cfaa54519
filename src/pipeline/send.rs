//! Send: one PUT of one attempt, with no transaction open.

use std::{sync::Arc, time::Instant};

use tokio::{
    sync::mpsc,
    task::{JoinError, JoinSet},
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::{
    budget::{Budget, SendPermit},
    confirm::Reply,
    sign::PreparedAttempt,
    wake::{Rested, Wake, rest},
};
use crate::{
    clock::Clock,
    crash,
    domain::{
        action::Switch,
        reply::{Verdict, classify},
        state::Doubt,
    },
    metrics::Metrics,
    oes::{Answer, NoAnswer, OesClient},
    store::{Readers, StoreError, work::AttemptEnd},
    traces::{Step, Traces},
    writer::{WriterGone, WriterHandle},
};

/// Most attempts that one batch prepares for the loop.
const PREPARED_MAX: usize = 256;

/// Most bytes of an answer that are kept with its attempt.
const RESPONSE_BYTES_KEPT: usize = 2_048;

/// An attempt with the permit to send it.
pub type Permitted = (PreparedAttempt, SendPermit);

/// Sends what the writer has committed.
pub struct Sender {
    /// Where results go.
    pub writer: WriterHandle,
    /// OES.
    pub oes: Arc<OesClient>,
    /// What may be asked of it.
    pub budget: Arc<Budget>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Where steps are told.
    pub traces: Traces,
}

impl Sender {
    /// Sends each attempt that arrives, until the writer has ended and everything in flight has
    /// been answered or recorded as unknown.
    ///
    /// # Errors
    /// The panic of a send: its attempt is open on disk, and a restart reads it back.
    pub async fn run(
        self,
        mut prepared: mpsc::UnboundedReceiver<Permitted>,
    ) -> Result<(), JoinError> {
        let this = Arc::new(self);
        // Permits bound how many there are at a time. Dropped with this future, they end with it.
        let mut in_flight = JoinSet::new();
        loop {
            tokio::select! {
                Some(ended) = in_flight.join_next() => ended?,
                next = prepared.recv() => match next {
                    Some((attempt, permit)) => {
                        let sender = Arc::clone(&this);
                        let record = attempt.terms.record_id;
                        let span = tracing::debug_span!("send", %record, attempt = attempt.number);
                        let sent = async move { sender.send(attempt, permit).await };
                        in_flight.spawn(sent.instrument(span));
                    }
                    None => break,
                },
            }
        }
        while let Some(ended) = in_flight.join_next().await {
            ended?;
        }
        Ok(())
    }

    async fn send(&self, attempt: PreparedAttempt, permit: SendPermit) {
        let PreparedAttempt { job, seq, number, terms, body } = attempt;
        tracing::debug!(record = %terms.record_id, attempt = %seq, "sending");
        crash::point("before_send");
        crash::stall("sender").await;
        let begun = Instant::now();
        let answer = self.oes.put_update(terms.job_type, body).await;
        crash::point("after_answer");
        drop(permit);
        let verdict = match &answer {
            Ok(answer) => classify(&terms, answer.status, answer.body.as_deref()),
            Err(_) => Verdict::Doubtful(Doubt::NoReply),
        };
        self.metrics.attempt(verdict);
        let status = answer.as_ref().ok().map(|answer| answer.status);
        self.traces.tell(terms.record_id, Step::Sent { attempt: number, status, verdict }, begun);
        self.tell_budget(&terms.record_id, verdict, answer.as_ref().ok());
        if !matches!(verdict, Verdict::Accepted) {
            tracing::warn!(
                record = %terms.record_id,
                attempt = %seq,
                result = verdict.as_str(),
                status = status.unwrap_or(0),
                error = answer.as_ref().err().map(tracing::field::display),
                "the update was not simply accepted"
            );
        }
        let end = keep(verdict, answer);
        // If the writer has ended, the attempt stays open on disk and is read back at the next start.
        let _ended: Result<(), WriterGone> =
            self.writer.finish(Reply { job, attempt: seq, verdict, end }).await;
    }

    fn tell_budget(
        &self,
        record: &crate::domain::ids::RecordId,
        verdict: Verdict,
        answer: Option<&Answer>,
    ) {
        match verdict {
            Verdict::TurnedAway => {
                self.budget.rate_limited(answer.and_then(|answer| answer.retry_at));
            }
            Verdict::Doubtful(Doubt::Unauthorized) => self.budget.token_refused(),
            Verdict::Doubtful(Doubt::Forbidden) => self.budget.update_forbidden(*record),
            Verdict::Doubtful(Doubt::NoReply | Doubt::ServerError) => {}
            Verdict::Accepted | Verdict::ApprovalPending | Verdict::Doubtful(_) => {
                self.budget.update_answered();
            }
        }
    }
}

/// What is kept of an answer with its attempt.
fn keep(verdict: Verdict, answer: Result<Answer, NoAnswer>) -> AttemptEnd {
    match answer {
        Ok(answer) => {
            let detail = answer
                .body
                .is_none()
                .then(|| "the answer was cut off, too large, or its HMAC is wrong".to_owned());
            AttemptEnd {
                result: verdict.as_str(),
                http_status: Some(answer.status),
                request_id: answer.request_id,
                response: answer.body.map(|body| start_of(&body)),
                detail,
            }
        }
        Err(no_answer) => AttemptEnd {
            result: verdict.as_str(),
            detail: Some(no_answer.to_string()),
            ..AttemptEnd::default()
        },
    }
}

fn start_of(body: &[u8]) -> String {
    let kept = body.get(..RESPONSE_BYTES_KEPT).unwrap_or(body);
    // NUL would end the text for SQLite's own tools.
    String::from_utf8_lossy(kept).replace('\0', "\u{fffd}")
}

/// Asks the writer to prepare attempts that are due, as many as may be sent.
pub struct Feeder {
    /// The book.
    pub readers: Readers,
    /// Who prepares.
    pub writer: WriterHandle,
    /// What may be sent.
    pub budget: Arc<Budget>,
    /// The bells.
    pub wake: Wake,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

impl Feeder {
    /// Feeds until the daemon ends.
    ///
    /// # Errors
    /// [`StoreError`] when the book cannot be read.
    pub async fn run(self, stop: CancellationToken) -> Result<(), StoreError> {
        let switches = self.writer.switches();
        loop {
            self.wake.send.pulse.beat();
            crash::stall("feeder").await;
            let is_on = switches.is_on(Switch::Signing) && switches.is_on(Switch::Sending);
            // The bell rings when they are on again.
            let due = if is_on { self.readers.next_attempt_due().await? } else { None };
            if due.is_none_or(|due| due > self.clock.now()) {
                let rested = rest(&self.wake.send, due, self.clock.as_ref(), &stop).await;
                if rested == Rested::Stop {
                    return Ok(());
                }
                continue;
            }
            // No more permits than attempts, because each costs a piece of the rate limit.
            let due = self.readers.due_attempts_count(self.clock.now(), PREPARED_MAX).await?;
            // Leave to send may take as long as OES likes.
            let resting = self.wake.send.pulse.rest();
            let permits = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                permits = self.budget.send_permits(due) => permits,
            };
            drop(resting);
            if self.writer.prepare(permits, due).await == Err(WriterGone) {
                return Ok(());
            }
        }
    }
}
