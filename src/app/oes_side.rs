//! The parts that talk to OES: what reads back, decides, signs and sends.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::{App, Material, Stage};
use crate::{
    clock::Clock,
    config::OesConfig,
    metrics::Metrics,
    oes::OesClient,
    pipeline::{
        budget::Budget,
        decide,
        read::RecordReader,
        resolve::Resolver,
        send::{Feeder, Permitted, Sender},
        verify::Verifier,
    },
    signer::SigningKey,
    writer::Signing,
};

/// Signed attempts on their way to the sender; absent when nothing may be signed.
pub(super) type Sending = Option<mpsc::UnboundedReceiver<Permitted>>;

/// Who asks OES, and how much may be asked of it.
pub(super) fn way_to_oes(
    config: &OesConfig,
    metrics: &Arc<Metrics>,
    clock: &Arc<dyn Clock>,
) -> anyhow::Result<(Arc<OesClient>, Arc<Budget>)> {
    let oes = OesClient::new(config, Arc::clone(clock))?.counted_by(Arc::clone(metrics));
    let budget = Budget::new(config, Arc::clone(clock)).counted_by(Arc::clone(metrics));
    Ok((Arc::new(oes), Arc::new(budget)))
}

/// The way of signed attempts to the sender, or why there is none.
pub(super) fn may_sign(
    key: Result<SigningKey, String>,
    budget: &Arc<Budget>,
) -> (Option<Signing>, Sending, Option<String>) {
    match key {
        Ok(key) => {
            let (sends, prepared) = mpsc::unbounded_channel();
            let key = Arc::new(key);
            (Some(Signing { key, budget: Arc::clone(budget), sends }), Some(prepared), None)
        }
        Err(fault) => (None, None, Some(fault)),
    }
}

impl App {
    /// What reads back and, if something may be signed, decides and sends.
    pub(super) fn spawn_oes_side(&mut self, material: &Material, sending: Sending) {
        let Material { readers, writer, wake, metrics, traces, oes, budget, clock, .. } = material;
        let reader = RecordReader {
            oes: Arc::clone(oes),
            budget: Arc::clone(budget),
            metrics: Arc::clone(metrics),
            traces: traces.clone(),
            wake: wake.clone(),
        };
        let is_required = material.config.decide.verify_with_oes;
        let verifier = Verifier {
            readers: readers.clone(),
            writer: writer.clone(),
            reader: reader.clone(),
            jobs_queue: material.config.broker.jobs_queue.clone(),
            is_required,
            absent_reads_max: material.config.retry.absent_reads_max,
            wake: wake.clone(),
            clock: Arc::clone(clock),
        };
        // What has been sent is read back even without a key.
        let resolver = Resolver {
            readers: readers.clone(),
            writer: writer.clone(),
            reader,
            wake: wake.clone(),
            clock: Arc::clone(clock),
        };
        let stop = self.stop.clone();
        self.spawn("resolver", Stage::Intake, async move { Ok(resolver.run(stop).await?) });
        let Some(prepared) = sending else {
            return;
        };
        let stop = self.stop.clone();
        self.spawn("verifier", Stage::Intake, async move { Ok(verifier.run(stop).await?) });
        let sender = Sender {
            writer: writer.clone(),
            oes: Arc::clone(oes),
            budget: Arc::clone(budget),
            metrics: Arc::clone(metrics),
            traces: traces.clone(),
        };
        self.spawn("sender", Stage::Sending, async move { Ok(sender.run(prepared).await?) });
        let feeder = Feeder {
            readers: readers.clone(),
            writer: writer.clone(),
            budget: Arc::clone(budget),
            wake: wake.clone(),
            clock: Arc::clone(clock),
        };
        let stop = self.stop.clone();
        self.spawn("feeder", Stage::Intake, async move { Ok(feeder.run(stop).await?) });
        let decider = decide::run(
            readers.clone(),
            writer.clone(),
            is_required,
            wake.clone(),
            Arc::clone(clock),
            self.stop.clone(),
        );
        self.spawn("decider", Stage::Intake, async move { Ok(decider.await?) });
        self.spawn_archiver(material);
    }
}
