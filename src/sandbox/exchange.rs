//! One request from arrival to answer, with whatever goes wrong in between.

use std::{sync::Arc, time::Duration};

use axum::response::{IntoResponse as _, Response};

use super::{
    answer::{Answer, Refusal},
    audit::Reading,
    auth::too_many,
    fault::{Effect, Stage, When},
    incoming::{Incoming, with_request_id},
    platform::{Arrival, Call},
    state::Shared,
};
use crate::domain::time::TimestampMs;

/// How an exchange ends.
enum Delivery {
    /// With an answer.
    Whole(Answer),
    /// With half of one.
    Half(Answer),
    /// With a reset.
    Reset,
}

/// Carries out a request and answers it. The work is a task of its own: a sender that gives up does
/// not stop it, as it would not at OES.
pub(super) async fn handle(shared: Arc<Shared>, call: Call, incoming: Incoming) -> Response {
    let reset = incoming.reset.clone();
    let tracker = shared.tracker.clone();
    let delivery = tracker.spawn(async move {
        let stop = shared.stop.clone();
        tokio::select! {
            biased;
            delivery = shared.exchange(call, incoming) => delivery,
            () = stop.cancelled() => Delivery::Reset,
        }
    });
    match delivery.await {
        Ok(Delivery::Whole(answer)) => answer.into_response(),
        Ok(Delivery::Half(answer)) => answer.into_truncated_response(),
        Ok(Delivery::Reset) => match reset.now().await {},
        Err(error) => {
            tracing::error!(%error, "a request to the sandbox was not carried out");
            axum::http::StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

impl Shared {
    async fn exchange(self: Arc<Self>, call: Call, incoming: Incoming) -> Delivery {
        let now = self.clock.now();
        // Read before the lock is taken: whose signature it is takes a while to find out.
        let reading = match call {
            Call::Update(route) => Some(Reading::of(route, &incoming.body)),
            Call::Record(_)
            | Call::Records(_)
            | Call::Connections
            | Call::Connection
            | Call::PartnerBalances
            | Call::Currencies
            | Call::Order(_)
            | Call::ClientBalances => None,
        };
        let arrival = self.with(|platform| platform.arrive(call, &incoming, reading.as_ref(), now));
        wait(arrival.misfortune.delay_before_ms).await;
        let delivery = match arrival.misfortune.effect.as_ref() {
            Some(effect) if effect.stage() == Stage::Instead => {
                self.with(|platform| platform.answered_instead(&arrival, effect, &incoming));
                self.instead(effect, &arrival, &incoming)
            }
            effect => {
                let now = self.clock.now();
                let answer =
                    self.with(|platform| platform.carry_out(call, &arrival, &incoming, now));
                wait(arrival.misfortune.delay_after_ms).await;
                match (call, effect) {
                    (Call::Order(_), Some(Effect::Answer { when: When::After, status: 500 })) => {
                        let failed = retriable(&answer);
                        Delivery::Whole(self.finish(failed, &arrival, &incoming, now))
                    }
                    _ => self.distort(effect, answer, &arrival, &incoming),
                }
            }
        };
        let status = match &delivery {
            Delivery::Whole(answer) | Delivery::Half(answer) => Some(answer.status),
            Delivery::Reset => None,
        };
        if let Some(seq) = arrival.put {
            self.with(|platform| platform.audit.answered(seq, status));
        }
        delivery
    }

    /// What a request gets instead of being carried out.
    fn instead(&self, effect: &Effect, arrival: &Arrival, incoming: &Incoming) -> Delivery {
        let now = self.clock.now();
        let whole = |answer| Delivery::Whole(with_request_id(answer, &incoming.request_id));
        match effect {
            Effect::Reset { .. } => Delivery::Reset,
            Effect::Answer { status, .. } => {
                Delivery::Whole(self.error(*status, arrival, incoming, now))
            }
            Effect::Html { status, .. } => whole(Answer::html(*status)),
            Effect::Redirect { location } => {
                let mut answer = Answer::html(302);
                answer.put("location", location);
                whole(answer)
            }
            Effect::RateLimited { retry_after, retry_after_s } => {
                let free_at = now.after(Duration::from_secs(u64::from(*retry_after_s)));
                let refusal = too_many(*retry_after, free_at, now);
                whole(Answer::refusal(&refusal, &incoming.request_id))
            }
            // Not of this stage.
            Effect::Delay { .. }
            | Effect::Truncate
            | Effect::Oversize { .. }
            | Effect::WrongEcho { .. }
            | Effect::AwaitApproval
            | Effect::PolicyRejects { .. }
            | Effect::DecideOtherwise { .. }
            | Effect::PublishTwice => Delivery::Whole(self.error(500, arrival, incoming, now)),
        }
    }

    /// What arrives of the answer to a request that was carried out.
    fn distort(
        &self,
        effect: Option<&Effect>,
        mut answer: Answer,
        arrival: &Arrival,
        incoming: &Incoming,
    ) -> Delivery {
        let now = self.clock.now();
        match effect {
            Some(Effect::Reset { .. }) => Delivery::Reset,
            Some(Effect::Answer { status, .. }) => {
                if *status >= 500 {
                    self.with(|platform| platform.failed_afterwards(arrival));
                }
                Delivery::Whole(self.error(*status, arrival, incoming, now))
            }
            Some(Effect::Html { status, .. }) => {
                let page = Answer::html(*status);
                Delivery::Whole(with_request_id(page, &incoming.request_id))
            }
            Some(Effect::Truncate) => Delivery::Half(self.finish(answer, arrival, incoming, now)),
            Some(Effect::Oversize { bytes }) => {
                // White space after the end leaves the JSON what it is.
                let size = answer.body.len().max(*bytes);
                answer.body.resize(size, b' ');
                Delivery::Whole(self.finish(answer, arrival, incoming, now))
            }
            Some(Effect::WrongEcho { quantity }) => {
                let other = with_quantity(answer, &quantity.to_string());
                Delivery::Whole(self.finish(other, arrival, incoming, now))
            }
            None
            | Some(
                Effect::Delay { .. }
                | Effect::Redirect { .. }
                | Effect::RateLimited { .. }
                | Effect::AwaitApproval
                | Effect::PolicyRejects { .. }
                | Effect::DecideOtherwise { .. }
                | Effect::PublishTwice,
            ) => Delivery::Whole(self.finish(answer, arrival, incoming, now)),
        }
    }

    fn error(
        &self,
        status: u16,
        arrival: &Arrival,
        incoming: &Incoming,
        now: TimestampMs,
    ) -> Answer {
        let refusal = Refusal::new(status, "Fault", "a fault that was asked for".to_owned());
        let answer = Answer::refusal(&refusal, &incoming.request_id);
        self.finish(answer, arrival, incoming, now)
    }

    /// Adds what every answer of OES has.
    fn finish(
        &self,
        mut answer: Answer,
        arrival: &Arrival,
        incoming: &Incoming,
        now: TimestampMs,
    ) -> Answer {
        if let Ok(caller) = &arrival.caller {
            self.with(|platform| {
                let access = &platform.access;
                access.prove(*caller, &incoming.path_and_query, &mut answer, now);
            });
        }
        with_request_id(answer, &incoming.request_id)
    }
}

async fn wait(delay_ms: u64) {
    if delay_ms > 0 {
        tokio::time::sleep(Duration::from_millis(delay_ms)).await;
    }
}

/// The same echo with another quantity; an answer that is no echo stays as it is.
fn with_quantity(answer: Answer, quantity: &str) -> Answer {
    let mut value: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    match value.pointer_mut("/amount/quantity") {
        Some(stated) => {
            *stated = quantity.into();
            Answer::json(answer.status, &value)
        }
        None => answer,
    }
}

/// The 500 that the reference gives an order that was taken, with its record: still reserved, and the
/// same order may be sent again. An answer without such a record is only a failure.
fn retriable(answer: &Answer) -> Answer {
    let mut value: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let record = value.as_object_mut().and_then(|fields| fields.values_mut().next());
    match record {
        Some(record) if record.get("status").is_some_and(|status| status == "reserved") => {
            if let Some(fields) = record.as_object_mut() {
                fields.insert("retriable".to_owned(), true.into());
            }
        }
        Some(_) | None => {
            value = serde_json::json!({"error": "a fault that was asked for", "name": "Fault"});
        }
    }
    Answer::json(500, &value)
}
