//! What happens in the demo: orders, repetitions, malformed messages, lost answers.

use std::{
    collections::BTreeSet,
    io::IsTerminal as _,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use futures_util::{StreamExt as _, stream};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::parts::Parts;
use crate::{
    broker::{ConsumerSession, Consuming, Outgoing, PublishOutcome, PublisherSession},
    cli::output,
    clock::{Clock as _, SystemClock},
    domain::{
        ids::{ConnectionId, RecordId},
        job::JobType,
    },
    sandbox::{ClientOrder, Effect, Fault, On, Times, When},
    store::Readers,
};

/// Orders that are under way at a time.
const CLIENTS: usize = 8;

/// How often progress is looked at, and how often it is told where there is no terminal.
const LOOK_EVERY: Duration = Duration::from_millis(100);
const TELL_EVERY: Duration = Duration::from_secs(2);

/// Outcomes that the demo hears before it acknowledges.
const HEAR_AHEAD: u16 = 100;

/// What was done.
pub(super) struct Played {
    /// The records that clients asked for, in the order of asking.
    pub(super) records: Vec<RecordId>,
    /// How many different bad messages were published.
    pub(super) bad_messages: u64,
    /// When it began.
    pub(super) begun: Instant,
}

/// Plays the clients and whoever else makes trouble.
pub(super) async fn play(parts: &Parts, orders: u32) -> anyhow::Result<Played> {
    let begun = Instant::now();
    make_trouble(parts).await?;
    output::line(format_args!(
        "demo: clients make {orders} orders; one in ten messages comes twice, one answer in twenty is \
         lost or an error"
    ))?;
    let connections = parts.connections();
    let wanted = (0..orders).map(|number| order(number, &connections));
    let records: Vec<RecordId> = stream::iter(wanted)
        .map(|order| async move {
            let order = order.context("the seed has not two connections")?;
            let answer = parts.client.order(&parts.client_key, &order).await?;
            anyhow::Ok(answer.record.id)
        })
        .buffered(CLIENTS)
        .collect::<Vec<_>>()
        .await
        .into_iter()
        .collect::<Result<_, _>>()?;
    let bad = bad_messages(records.first().copied());
    output::line(format_args!("demo: somebody publishes {} malformed messages", bad.len()))?;
    let bad_messages = u64::try_from(bad.len())?;
    publish(parts, bad).await?;
    Ok(Played { records, bad_messages, begun })
}

/// Faults of the sandbox: messages that come twice, answers that are lost or errors.
async fn make_trouble(parts: &Parts) -> anyhow::Result<()> {
    for (on, effect, per_mille) in [
        (On::Job, Effect::PublishTwice, 100),
        (On::Update, Effect::Reset { when: When::After }, 20),
        (On::Update, Effect::Reset { when: When::Before }, 10),
        (On::Update, Effect::Answer { when: When::After, status: 500 }, 10),
        (On::Update, Effect::Answer { when: When::Before, status: 503 }, 10),
    ] {
        parts.client.inject(&Fault::new(on, effect).times(Times::PerMille(per_mille))).await?;
    }
    Ok(())
}

/// The order with this number: most are cleared, and each kind of release has its turn.
fn order(number: u32, connections: &[ConnectionId]) -> Option<ClientOrder> {
    let (first, second) = (*connections.first()?, *connections.get(1)?);
    let (record_type, connection_id, currency, quantity) = match number.rem_euclid(12) {
        // Below the exchange's smallest quantity, and above its largest.
        3 => (JobType::Allocation, first, "usdc", "999".to_owned()),
        7 => (JobType::Allocation, first, "usdc", "5000000001".to_owned()),
        // Allocated at OES, but traded away on the exchange.
        5 => (JobType::Deallocation, first, "btc", "2000000".to_owned()),
        // Switched off on the exchange.
        9 => (JobType::Allocation, second, "btc", "1000".to_owned()),
        1 | 11 => (
            JobType::Deallocation,
            first,
            "eth",
            format!("10000000000000{:03}", number.rem_euclid(1_000)),
        ),
        2 | 8 => {
            (JobType::Allocation, first, "usdc", format!("25{:04}", number.rem_euclid(10_000)))
        }
        _ => (JobType::Allocation, first, "btc", format!("1{:03}", number.rem_euclid(1_000))),
    };
    Some(ClientOrder {
        record_type,
        connection_id,
        currency: currency.to_owned(),
        quantity,
        client_external_id: format!("demo-{number}"),
        notes: None,
    })
}

/// Messages that must never act, one of them about a record that is known with other content.
fn bad_messages(known: Option<RecordId>) -> Vec<Vec<u8>> {
    let job = |id: Value, quantity: Value| {
        json!({
            "type": "allocation", "allocationId": id, "amount": {"currency": "BTC", "quantity": quantity},
            "clientId": "0e5a0000-0000-4000-8000-000000000001",
            "connectionId": "0e5a0000-0000-4000-8000-000000000011",
            "partnersClientId": "client-001", "partnersConnectionId": "conn-001",
            "partnersAllocationId": "forged",
        })
        .to_string()
        .into_bytes()
    };
    let fresh = "0b4a3f3e-7d0a-4b5e-9a0e-3d1c5f2b7a10";
    let mut messages = vec![
        b"hello".to_vec(),
        b"{\"type\":\"allocation\"".to_vec(),
        b"{\"type\":\"withdrawal\"}".to_vec(),
        b"\x1f\x8b\x08\x00".to_vec(),
        job(json!(fresh), json!("1e18")),
        job(json!(fresh), json!(1)),
        job(json!(fresh), json!("-1")),
        job(json!(fresh.to_uppercase()), json!("1")),
        job(json!(""), json!("1")),
    ];
    messages.extend(known.map(|id| job(json!(id), json!("123456789"))));
    messages
}

async fn publish(parts: &Parts, messages: Vec<Vec<u8>>) -> anyhow::Result<()> {
    let session = PublisherSession::open(&parts.config.broker).await?;
    let outgoing = messages.into_iter().map(|body| Outgoing {
        exchange: String::new(),
        routing_key: parts.config.broker.jobs_queue.clone(),
        message_id: String::new(),
        content_type: "application/json",
        headers: Vec::new(),
        body,
        published_at: SystemClock.now(),
    });
    let outcomes = session.publish(outgoing.collect()).await?;
    session.close().await;
    anyhow::ensure!(
        outcomes.iter().all(|outcome| *outcome == PublishOutcome::Confirmed),
        "the broker did not take the demo's messages: {outcomes:?}"
    );
    Ok(())
}

/// Waits until every job is final, announced and heard, and every bad message is put away; shows how
/// far things have come.
pub(super) async fn watch(
    parts: &mut Parts,
    readers: &Readers,
    played: &Played,
) -> anyhow::Result<()> {
    let total = u64::try_from(played.records.len())?;
    let bar = progress(total)?;
    let how = Consuming {
        queue: &parts.outcomes_queue,
        prefetch: HEAR_AHEAD,
        is_alone: false,
        ack_points: [""; 2],
    };
    let mut exchange = ConsumerSession::open(&parts.config.broker, &how).await?;
    let mut heard: BTreeSet<String> = BTreeSet::new();
    let mut look = tokio::time::interval(LOOK_EVERY);
    let mut told = Instant::now();
    loop {
        tokio::select! {
            delivery = exchange.next() => {
                let delivery = delivery?;
                exchange.acknowledge_up_to(delivery.tag).await?;
                let event: Value = serde_json::from_slice(&delivery.body)?;
                heard.insert(event.get("eventId").and_then(Value::as_str).unwrap_or_default().to_owned());
            }
            _ = look.tick() => {
                parts.still_running()?;
                let counts = readers.job_counts().await?;
                let is_final = |state: &str| matches!(state, "confirmed" | "overruled");
                let done = counts.iter().filter(|line| is_final(&line.state)).map(|line| line.jobs).sum();
                let open: u64 = counts.iter().filter(|line| !is_final(&line.state)).map(|line| line.jobs).sum();
                let (waiting, refused) = (readers.unpublished_count().await?, readers.quarantined_count().await?);
                let announced = u64::try_from(heard.len())?;
                let text = format!("{done} of {total} final, {open} open, {announced} announced, {refused} messages refused");
                bar.set_position(done);
                bar.set_message(text.clone());
                if bar.is_hidden() && told.elapsed() >= TELL_EVERY {
                    told = Instant::now();
                    output::line(format_args!("demo: {text}"))?;
                }
                let all = done == total && open == 0 && waiting == 0;
                if all && announced == total && refused == played.bad_messages {
                    bar.finish_and_clear();
                    output::line(format_args!(
                        "demo: {text}, after {}",
                        output::duration(played.begun.elapsed())
                    ))?;
                    exchange.close().await;
                    return Ok(());
                }
            }
        }
    }
}

fn progress(total: u64) -> anyhow::Result<ProgressBar> {
    if !std::io::stderr().is_terminal() {
        return Ok(ProgressBar::hidden());
    }
    let bar = ProgressBar::new(total);
    bar.set_style(ProgressStyle::with_template("{bar:40} {msg}")?);
    Ok(bar)
}
