//! A writer with a book that knows one connection: the inside of the daemon without broker and network.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::{Context as _, anyhow};
use serde_json::json;
use settled::{
    clock::{Clock as _, SystemClock},
    config::{Config, OesConfig},
    domain::{book::BookEvent, message::parse_job, reply::Verdict},
    health::Health,
    metrics::Metrics,
    pipeline::{budget::Budget, confirm::Reply, record::Intake, send::Permitted, wake::Wake},
    signer::SigningKey,
    store::{open_writer, work::AttemptEnd},
    writer::{Signing, Writer, WriterError, WriterHandle, WriterParts},
};
use tokio::{sync::mpsc, task::JoinSet};
use uuid::Uuid;

const KEY_HEX: &str = "88c4670be22d23e10e6914266f622500564ee1c1c4b31af25eaccb86eedd6d74";
const CLIENT: Uuid = Uuid::from_u128(0x0e5a_0000_0000_4000_8000_0000_0000_0001);
const CONNECTION: Uuid = Uuid::from_u128(0x0e5a_0000_0000_4000_8000_0000_0000_0011);

/// A running writer.
pub(crate) struct Book {
    pub(crate) writer: WriterHandle,
    /// Attempts that are committed and would be sent.
    pub(crate) prepared: mpsc::UnboundedReceiver<Permitted>,
    _running: JoinSet<Result<(), WriterError>>,
}

/// A key that signs nothing but benches.
pub(crate) fn key() -> anyhow::Result<SigningKey> {
    Ok(SigningKey::from_text(KEY_HEX)?)
}

/// A message about a record that nobody has seen.
pub(crate) fn message() -> Vec<u8> {
    let id = Uuid::new_v4();
    json!({
        "type": "allocation", "allocationId": id, "amount": {"currency": "BTC", "quantity": "150000"},
        "clientId": CLIENT, "connectionId": CONNECTION, "partnersClientId": "client-001",
        "partnersConnectionId": "conn-001", "partnersAllocationId": format!("alloc-{}", id.simple()),
    })
    .to_string()
    .into_bytes()
}

/// The same as a command of the writer.
pub(crate) fn intake() -> anyhow::Result<Intake> {
    let bytes = message();
    let terms = parse_job(&bytes).map_err(|refusal| anyhow!(refusal))?;
    Ok(Intake {
        terms,
        raw: String::from_utf8(bytes)?,
        queue: "bench".to_owned(),
        book_sequence: None,
    })
}

/// The answer that OES gives to an attempt, accepted.
pub(crate) fn accepted((attempt, _permit): Permitted) -> Reply {
    let end = AttemptEnd {
        result: Verdict::Accepted.as_str(),
        http_status: Some(200),
        request_id: Some("0123456789abcdef".to_owned()),
        response: Some("x".repeat(450)),
        detail: None,
    };
    Reply { job: attempt.job, attempt: attempt.seq, verdict: Verdict::Accepted, end }
}

impl Book {
    /// A new book in `folder`.
    pub(crate) async fn new(folder: &Path) -> anyhow::Result<Self> {
        let clock = Arc::new(SystemClock);
        let mut config = Config::default();
        config.decide.verify_with_oes = false;
        let oes = OesConfig {
            rate_limit: 2_000_000_000,
            rate_burst: 1_000_000_000,
            rate_window_s: 1,
            in_flight_max: 1_000_000,
            ..OesConfig::default()
        };
        let budget = Arc::new(Budget::new(&oes, Arc::clone(&clock) as _));
        let (sends, prepared) = mpsc::unbounded_channel();
        let (writer, handle) = Writer::new(WriterParts {
            book: open_writer(&folder.join("book.db"), clock.now()).await?,
            signing: Some(Signing { key: Arc::new(key()?), budget: Arc::clone(&budget), sends }),
            decides_without_key: false,
            budget: Some(budget),
            mark: None,
            limits: config.retry.limits(),
            conditions: config.conditions(),
            gate: settled::pipeline::book_gate::GateBoard::without_feed(),
            close_within: Duration::from_secs(config.operator.confirm_within_s),
            batch_max: config.writer.batch_max,
            queue_len_max: config.writer.queue_len_max,
            lazy: Duration::from_millis(config.writer.lazy_ms),
            wake: Wake::default(),
            metrics: Arc::new(Metrics::new()),
            traces: settled::traces::Traces::default(),
            health: Arc::<Health>::default(),
            clock,
        })
        .await?;
        let mut running = JoinSet::new();
        running.spawn(writer.run());
        let facts = [
            json!({"type": "connection.upserted", "eventId": "c-1", "connectionId": CONNECTION,
                   "clientId": CLIENT, "partnersClientId": "client-001",
                   "partnersConnectionId": "conn-001", "active": true}),
            json!({"type": "currency.configured", "eventId": "k-1", "currency": "BTC",
                   "enabled": true, "quantityMin": "1", "quantityMax": "1000000000"}),
        ];
        let events = facts
            .iter()
            .map(|fact| BookEvent::parse(&fact.to_string()))
            .collect::<Result<Vec<_>, _>>()?;
        handle
            .apply_book_events(events, "bench".to_owned())
            .await?
            .map_err(|reason| anyhow!(reason))
            .context("the facts were not taken in")?;
        Ok(Self { writer: handle, prepared, _running: running })
    }

    /// Takes jobs in with one batch: recorded, decided, signed, committed.
    pub(crate) async fn record(&mut self, intakes: Vec<Intake>) -> anyhow::Result<Vec<Permitted>> {
        let count = intakes.len();
        // Without a pause, so that the writer finds them all when it looks.
        let answers = tokio::task::unconstrained(async {
            let mut answers = Vec::with_capacity(count);
            for intake in intakes {
                answers.push(self.writer.record(intake).await?);
            }
            anyhow::Ok(answers)
        })
        .await?;
        for answer in answers {
            answer.await?;
        }
        let mut prepared = Vec::with_capacity(count);
        for _ in 0..count {
            prepared.push(self.prepared.recv().await.context("the writer has ended")?);
        }
        Ok(prepared)
    }

    /// Ends jobs with one batch: result, ledger, state, announcement, committed.
    pub(crate) async fn finish(&self, replies: Vec<Reply>) -> anyhow::Result<()> {
        let finishing = replies.into_iter().map(|reply| self.writer.finish(reply));
        tokio::task::unconstrained(futures_util::future::try_join_all(finishing)).await?;
        Ok(())
    }
}
