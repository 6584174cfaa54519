//! The handle by which tests, the control routes and the demo look at a sandbox and steer it.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::sync::{Notify, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    audit::{Contradiction, Counts, Put, RepeatedNonce, Signer},
    fault::{AfterRejection, Fault, FaultError},
    jobs,
    platform::Platform,
    record::Record,
    rules::{Rules, RulesError},
    seed::{ClientSeed, ConnectionSeed, CurrencySeed, PartnerSeed, Seed, SeedError},
    units::{Funds, Units},
    world::{Connection, NewRecord, WorldError},
};
use crate::{
    clock::Clock,
    domain::{
        decision::Outcome,
        ids::{ClientId, ConnectionId, CurrencyCode, RecordId},
        job::JobType,
    },
};

/// What the parts of a sandbox share.
#[derive(Debug)]
pub(super) struct Shared {
    platform: Mutex<Platform>,
    changes: watch::Sender<u64>,
    /// Rung when a job message waits to be published.
    pub(super) jobs_bell: Notify,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) tracker: TaskTracker,
    pub(super) stop: CancellationToken,
}

impl Shared {
    pub(super) fn new(platform: Platform, clock: Arc<dyn Clock>) -> Self {
        Self {
            platform: Mutex::new(platform),
            changes: watch::Sender::new(0),
            jobs_bell: Notify::new(),
            clock,
            tracker: TaskTracker::new(),
            stop: CancellationToken::new(),
        }
    }

    /// Looks at everything, perhaps changes it, and tells whoever waits for a change.
    pub(super) fn with<T>(&self, work: impl FnOnce(&mut Platform) -> T) -> T {
        let mut platform = self.lock();
        let result = work(&mut platform);
        let has_jobs = !platform.jobs.is_empty();
        drop(platform);
        self.changes.send_modify(|version| *version = version.wrapping_add(1));
        if has_jobs {
            self.jobs_bell.notify_one();
        }
        result
    }

    /// Looks at everything.
    pub(super) fn look<T>(&self, look: impl FnOnce(&Platform) -> T) -> T {
        look(&self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Platform> {
        // A panic under the lock is a fault of the sandbox; what it holds is still worth a look.
        self.platform.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A record that is made without a client's request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Reservation {
    /// Which of the two.
    #[serde(rename = "type")]
    pub record_type: JobType,
    /// Its connection.
    pub connection_id: ConnectionId,
    /// The currency as clients name it.
    pub currency: CurrencyCode,
    /// How much.
    pub quantity: Units,
    /// Its id in the partner's system, instead of one that the sandbox makes.
    #[serde(default)]
    pub partners_record_id: Option<String>,
}

/// A look at everything that tests ask about.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Overview {
    /// How much of what happened.
    pub counts: Counts,
    /// Records that are not final.
    pub reserved: usize,
    /// Records that were cleared.
    pub cleared: usize,
    /// Records that were released.
    pub released: usize,
    /// Job messages that the broker does not have yet.
    pub jobs_waiting: usize,
    /// The switches.
    pub rules: Rules,
    /// The faults that wait to happen.
    pub faults: Vec<Fault>,
    /// Updates that say the other outcome.
    pub contradictions: Vec<Contradiction>,
    /// Nonces that arrived again.
    pub repeated_nonces: Vec<RepeatedNonce>,
    /// The numbers of updates that the partner did not sign.
    pub bad_signatures: Vec<u64>,
}

/// Looks at a running sandbox and steers it.
#[derive(Clone, Debug)]
pub struct SandboxState(pub(super) Arc<Shared>);

impl SandboxState {
    /// A record.
    #[must_use]
    pub fn record(&self, id: RecordId) -> Option<Record> {
        self.0.look(|platform| platform.world.record(id).cloned())
    }

    /// All records, in the order in which they were made.
    #[must_use]
    pub fn records(&self) -> Vec<Record> {
        self.0.look(|platform| platform.world.records().cloned().collect())
    }

    /// Every update that arrived, in order, whatever became of it.
    #[must_use]
    pub fn puts(&self) -> Vec<Put> {
        self.puts_that(|_| true)
    }

    fn puts_that(&self, fits: impl Fn(&Put) -> bool) -> Vec<Put> {
        self.0.look(|platform| {
            let puts = platform.audit.puts().filter(|put| fits(put));
            puts.cloned().collect()
        })
    }

    /// The updates about one record.
    #[must_use]
    pub fn puts_of(&self, id: RecordId) -> Vec<Put> {
        self.puts_that(|put| put.record_id == Some(id))
    }

    /// Updates that the partner did not sign.
    #[must_use]
    pub fn bad_signatures(&self) -> Vec<Put> {
        self.puts_that(|put| put.signer != Signer::Partner)
    }

    /// Updates that say the other outcome than an earlier one, or than a final record.
    #[must_use]
    pub fn contradictions(&self) -> Vec<Contradiction> {
        self.0.look(|platform| platform.audit.contradictions.clone())
    }

    /// Nonces that arrived again.
    #[must_use]
    pub fn repeated_nonces(&self) -> Vec<RepeatedNonce> {
        self.0.look(|platform| platform.audit.repeated_nonces.clone())
    }

    /// How much of what happened.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.0.look(|platform| platform.audit.counts)
    }

    /// Counts, findings, switches and waiting faults together.
    #[must_use]
    pub fn overview(&self) -> Overview {
        self.0.look(|platform| {
            let (mut reserved, mut cleared, mut released) = (0_usize, 0_usize, 0_usize);
            for record in platform.world.records() {
                let count = match record.standing.outcome() {
                    None => &mut reserved,
                    Some(Outcome::Cleared) => &mut cleared,
                    Some(Outcome::Released) => &mut released,
                };
                *count = count.saturating_add(1);
            }
            Overview {
                counts: platform.audit.counts,
                reserved,
                cleared,
                released,
                jobs_waiting: platform.jobs.len(),
                rules: platform.rules,
                faults: platform.faults.waiting().to_vec(),
                contradictions: platform.audit.contradictions.clone(),
                repeated_nonces: platform.audit.repeated_nonces.clone(),
                bad_signatures: platform
                    .audit
                    .puts()
                    .filter(|put| put.signer != Signer::Partner)
                    .map(|put| put.seq)
                    .collect(),
            }
        })
    }

    /// A connection and what is allocated to it.
    #[must_use]
    pub fn connection(&self, id: ConnectionId) -> Option<Connection> {
        self.0.look(|platform| platform.world.connections.get(&id).cloned())
    }

    /// What a client has at BitGo of a currency.
    #[must_use]
    pub fn client_funds(&self, id: ClientId, currency: &CurrencyCode) -> Option<Funds> {
        self.0.look(|platform| {
            let client = platform.world.clients.get(&id)?;
            client.purse.get(currency).copied()
        })
    }

    /// What is allocated to a connection of a currency.
    #[must_use]
    pub fn connection_funds(&self, id: ConnectionId, currency: &CurrencyCode) -> Option<Funds> {
        self.connection(id)?.purse.get(currency).copied()
    }

    /// Everything that everybody has of a currency: only a seed changes it.
    #[must_use]
    pub fn total(&self, currency: &CurrencyCode) -> Units {
        self.0.look(|platform| platform.world.total(currency))
    }

    /// Adds to the world.
    ///
    /// # Errors
    /// [`SeedError`]; nothing is changed then.
    pub fn apply(&self, seed: &Seed) -> Result<(), SeedError> {
        let now = self.0.clock.now();
        self.0.with(|platform| platform.world.apply(seed, now))
    }

    /// Adds or changes a currency.
    ///
    /// # Errors
    /// [`SeedError`].
    pub fn add_currency(&self, currency: CurrencySeed) -> Result<(), SeedError> {
        self.apply(&Seed { currencies: vec![currency], ..Seed::default() })
    }

    /// Adds or changes a client.
    ///
    /// # Errors
    /// [`SeedError`].
    pub fn add_client(&self, client: ClientSeed) -> Result<(), SeedError> {
        self.apply(&Seed { clients: vec![client], ..Seed::default() })
    }

    /// Adds or changes a connection.
    ///
    /// # Errors
    /// [`SeedError`].
    pub fn add_connection(&self, connection: ConnectionSeed) -> Result<(), SeedError> {
        self.apply(&Seed { connections: vec![connection], ..Seed::default() })
    }

    /// Registers one more public key of the partner.
    ///
    /// # Errors
    /// [`SeedError::BadPublicKey`].
    pub fn register_partner_key(&self, public_key: &str) -> Result<(), SeedError> {
        self.apply(&Seed {
            partner: PartnerSeed { enterprise_id: None, public_keys: vec![public_key.to_owned()] },
            ..Seed::default()
        })
    }

    /// Makes a reserved record without a client's request. Its job message is published as for any
    /// other, if jobs are published at all.
    ///
    /// # Errors
    /// [`WorldError`], also when OES would release the record at once.
    pub fn reserve(&self, reservation: Reservation) -> Result<Record, WorldError> {
        let now = self.0.clock.now();
        self.0.with(|platform| {
            let new = NewRecord {
                record_type: reservation.record_type,
                connection_id: reservation.connection_id,
                currency: reservation.currency,
                quantity: reservation.quantity,
                client_external_id: uuid::Uuid::new_v4().to_string(),
                notes: None,
                partners_record_id: reservation.partners_record_id,
                initiated_by: "sandbox".to_owned(),
            };
            if let Some(reason) = platform.world.objection(&new)? {
                return Err(WorldError::Objection(reason));
            }
            let id = platform.place(new, now)?;
            let record = platform.world.record(id).cloned();
            record.ok_or(WorldError::NoRecord(id))
        })
    }

    /// The message that the partner's edge puts on the queue for a record.
    ///
    /// # Errors
    /// [`WorldError::NoRecord`].
    pub fn job_message(&self, id: RecordId) -> Result<String, WorldError> {
        self.0.look(|platform| jobs::message(&platform.world, id))
    }

    /// Programs a fault.
    ///
    /// # Errors
    /// [`FaultError`] for one that could not happen.
    pub fn inject(&self, fault: Fault) -> Result<(), FaultError> {
        self.0.with(|platform| platform.faults.add(fault))
    }

    /// The faults that wait to happen.
    #[must_use]
    pub fn faults(&self) -> Vec<Fault> {
        self.0.look(|platform| platform.faults.waiting().to_vec())
    }

    /// Takes all faults back.
    pub fn clear_faults(&self) {
        self.0.with(|platform| platform.faults.clear());
    }

    /// The switches.
    #[must_use]
    pub fn rules(&self) -> Rules {
        self.0.look(|platform| platform.rules)
    }

    /// Changes some of the switches, by the names that they have in JSON.
    ///
    /// # Errors
    /// [`RulesError::Unknown`]; nothing is changed then.
    pub fn change_rules(&self, changes: Map<String, Value>) -> Result<Rules, RulesError> {
        self.0.with(|platform| {
            platform.rules = platform.rules.changed(changes)?;
            Ok(platform.rules)
        })
    }

    /// Sets the switches.
    pub fn set_rules(&self, rules: Rules) {
        self.0.with(|platform| platform.rules = rules);
    }

    /// Approves an update that waits: it happens.
    ///
    /// # Errors
    /// [`WorldError`].
    pub fn approve(&self, id: RecordId) -> Result<(), WorldError> {
        let now = self.0.clock.now();
        self.0.with(|platform| platform.world.approve(id, now))
    }

    /// Rejects an update that waits.
    ///
    /// # Errors
    /// [`WorldError`].
    pub fn reject(&self, id: RecordId, then: AfterRejection) -> Result<(), WorldError> {
        let now = self.0.clock.now();
        self.0.with(|platform| platform.world.reject(id, then, now))
    }

    /// Ends a record as OES would by itself.
    ///
    /// # Errors
    /// [`WorldError`].
    pub fn finish(&self, id: RecordId, outcome: Outcome) -> Result<(), WorldError> {
        let now = self.0.clock.now();
        self.0.with(|platform| platform.world.finish(id, outcome, now))
    }

    /// Makes a record move another quantity, as if it always had: what a comparison must find.
    ///
    /// # Errors
    /// [`WorldError::NoRecord`].
    pub fn falsify(&self, id: RecordId, quantity: Units) -> Result<(), WorldError> {
        self.0
            .with(|platform| platform.world.record_mut(id).map(|record| record.quantity = quantity))
    }

    /// Keeps a record from the partner's reads, as if OES were behind the edge that answered for it.
    pub fn hide(&self, id: RecordId) {
        self.0.with(|platform| platform.world.hidden.insert(id));
    }

    /// Shows a record that was hidden.
    pub fn show(&self, id: RecordId) {
        self.0.with(|platform| platform.world.hidden.remove(&id));
    }

    /// Takes a connection away, as if it had never been there. Answers whether it was.
    #[must_use]
    pub fn remove_connection(&self, id: ConnectionId) -> bool {
        self.0.with(|platform| platform.world.connections.remove(&id).is_some())
    }

    /// Waits until something holds, looking again at every change. Answers whether it came to hold
    /// within the limit.
    pub async fn wait_for(&self, limit: Duration, mut holds: impl FnMut(&Self) -> bool) -> bool {
        let mut changes = self.0.changes.subscribe();
        let wait = async {
            // The sender lives as long as this handle, so changes never end.
            while !holds(self) && changes.changed().await.is_ok() {}
        };
        tokio::time::timeout(limit, wait).await.is_ok()
    }
}
