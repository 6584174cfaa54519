//! In the place of the partner's edge: a job message for every reserved record.
//!
//! A record whose message is not with the broker would never be decided, so a message is published
//! until the broker has confirmed it.

use std::{convert::Infallible, sync::Arc};

use serde::Serialize;

use super::{
    fault::{Effect, On},
    state::Shared,
    world::{World, WorldError},
};
use crate::{
    broker::{BrokerError, Outgoing, PublishOutcome, PublisherSession},
    config::BrokerConfig,
    domain::{ids::RecordId, job::JobType},
};

/// Most messages that are published together.
const BATCH_MAX: usize = 100;

#[derive(Serialize)]
struct Amount<'a> {
    currency: &'a str,
    quantity: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Job<'a> {
    #[serde(rename = "type")]
    record_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    allocation_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deallocation_id: Option<String>,
    amount: Amount<'a>,
    client_id: String,
    connection_id: String,
    partners_client_id: &'a str,
    partners_connection_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    partners_allocation_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    partners_deallocation_id: Option<&'a str>,
}

/// The message for a record.
pub(super) fn message(world: &World, id: RecordId) -> Result<String, WorldError> {
    let record = world.record(id).ok_or(WorldError::NoRecord(id))?;
    let connection = world
        .connections
        .get(&record.connection_id)
        .ok_or(WorldError::NoConnection(record.connection_id))?;
    let id = record.id.to_string();
    let partners_id = record.partners_record_id.as_str();
    let (allocation, deallocation) = match record.record_type {
        JobType::Allocation => (Some((id, partners_id)), None),
        JobType::Deallocation => (None, Some((id, partners_id))),
    };
    let job = Job {
        record_type: record.record_type.as_str(),
        partners_allocation_id: allocation.as_ref().map(|(_, partners_id)| *partners_id),
        partners_deallocation_id: deallocation.as_ref().map(|(_, partners_id)| *partners_id),
        allocation_id: allocation.map(|(id, _)| id),
        deallocation_id: deallocation.map(|(id, _)| id),
        amount: Amount {
            currency: record.partner_currency.as_str(),
            quantity: record.quantity.to_string(),
        },
        client_id: record.client_id.to_string(),
        connection_id: record.connection_id.to_string(),
        partners_client_id: connection.partners_client_id.as_deref().unwrap_or_default(),
        partners_connection_id: connection.partners_connection_id.as_deref().unwrap_or_default(),
    };
    Ok(serde_json::to_string(&job).unwrap_or_default())
}

/// Publishes messages until the sandbox ends.
pub(super) async fn run(shared: Arc<Shared>, config: BrokerConfig) {
    let schedule = config.reconnect_schedule();
    let mut failures: u32 = 0;
    loop {
        let session = session(&shared, &config, &mut failures);
        let error = tokio::select! {
            () = shared.stop.cancelled() => return,
            ended = session => match ended {
                Err(error) => error,
            },
        };
        failures = failures.saturating_add(1);
        let delay = schedule.delay(failures);
        tracing::warn!(%error, ?delay, "the broker does not take job messages; they wait");
        tokio::select! {
            () = shared.stop.cancelled() => return,
            () = tokio::time::sleep(delay) => {}
        }
    }
}

/// One session of publishing; only an error ends it.
async fn session(
    shared: &Shared,
    config: &BrokerConfig,
    failures: &mut u32,
) -> Result<Infallible, BrokerError> {
    let session = PublisherSession::open(config).await?;
    loop {
        let batch = next_batch(shared, config);
        if batch.is_empty() {
            shared.jobs_bell.notified().await;
            continue;
        }
        let ids: Vec<RecordId> = batch.iter().map(|(id, _)| *id).collect();
        let messages = batch.into_iter().map(|(_, message)| message).collect();
        let outcomes = session.publish(messages).await?;
        let mut all_taken = true;
        for (id, outcome) in ids.into_iter().zip(outcomes) {
            match outcome {
                PublishOutcome::Confirmed => taken(shared, id),
                PublishOutcome::Unroutable | PublishOutcome::Refused => {
                    all_taken = false;
                    let queue = &config.jobs_queue;
                    tracing::warn!(record_id = %id, queue, ?outcome, "a job message was not taken");
                }
            }
        }
        if all_taken {
            *failures = 0;
        } else {
            // There is no queue yet, or it is full.
            *failures = failures.saturating_add(1);
            tokio::time::sleep(config.reconnect_schedule().delay(*failures)).await;
        }
    }
}

fn next_batch(shared: &Shared, config: &BrokerConfig) -> Vec<(RecordId, Outgoing)> {
    let now = shared.clock.now();
    shared.look(|platform| {
        let ids = platform.jobs.iter().take(BATCH_MAX);
        let messages = ids.filter_map(|id| {
            let body = message(&platform.world, *id).ok()?;
            let outgoing = Outgoing {
                exchange: String::new(),
                routing_key: config.jobs_queue.clone(),
                message_id: id.to_string(),
                content_type: "application/json",
                headers: Vec::new(),
                body: body.into_bytes(),
                published_at: now,
            };
            Some((*id, outgoing))
        });
        messages.collect()
    })
}

/// A message is with the broker: it is not published again, unless a fault wants it twice.
fn taken(shared: &Shared, id: RecordId) {
    let again = shared.with(|platform| {
        let counts = &mut platform.audit.counts;
        counts.jobs_published = counts.jobs_published.saturating_add(1);
        platform.jobs.retain(|waiting| *waiting != id);
        let effect = platform.faults.strike(On::Job, &[id]).effect;
        let again = effect == Some(Effect::PublishTwice);
        if again {
            platform.jobs.push_back(id);
        }
        again
    });
    tracing::info!(record_id = %id, again, "a job message was published");
}
