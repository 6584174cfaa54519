//! A stand-in for OES: for the demo, for our integration tests, and for partners' own.
//!
//! It serves the documented routes of both sides, checks what OES would check, plays the partner's
//! edge by putting a job on the queue for every reserved record, and goes wrong on request. It is
//! strict: what the reference leaves open is a rule that can be switched, see [`Rules`].
//!
//! What must never happen here: a payload that is built or checked with the worker's own code
//! (`domain::payload`), because a fault there would be mirrored instead of found; a token in a log
//! or an answer.
//!
//! Reading order: `world`, `life` and `seeding` are the records and the money, `signed` and `members` the
//! strict reading of bodies, `update`, `order` and `reads` the routes, `platform` what comes before
//! them, `exchange` and `fault` what goes wrong, `audit` what the partner did, `wire` and `routes`
//! the HTTP, `jobs` the queue, `state` and `control` how it is steered, `client` who calls it.

mod answer;
mod audit;
mod auth;
mod client;
mod control;
mod exchange;
mod fault;
mod incoming;
mod jobs;
mod life;
mod members;
mod order;
mod platform;
mod reads;
mod record;
mod routes;
mod rules;
mod seed;
mod seeding;
mod signed;
mod state;
mod units;
mod update;
mod wire;
mod world;

#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use tokio::net::TcpListener;
use uuid::{Uuid, uuid};

use crate::{clock::Clock, config::BrokerConfig};

pub use audit::{
    Against, Contradiction, Counts, FINDINGS_MAX, PUTS_KEPT_MAX, Put, RepeatedNonce, Signer,
};
pub use auth::{AccessToken, Scope, Side};
pub use client::{
    ClientAmount, ClientAnswer, ClientOrder, ClientRecord, SandboxClient, SandboxClientError,
};
pub use fault::{
    AfterRejection, DELAY_MS_MAX, Effect, FAULTS_MAX, Fault, FaultError, Matches,
    OVERSIZE_BYTES_MAX, On, Times, When,
};
pub use incoming::BODY_BYTES_MAX;
pub use platform::NONCES_MAX;
pub use record::{Asked, PolicyResult, Record, Standing};
pub use rules::{
    FinalRefusal, KeyOrder, NonceAfterError, NonceRefusal, RateLimit, ReadAmounts,
    ReservedPartnerId, RetryAfter, Rules, RulesError, Settlement, Signatures, Stance,
};
pub use seed::{ClientSeed, ConnectionSeed, CurrencySeed, PartnerSeed, Seed, SeedError};
pub use state::{Overview, Reservation, SandboxState};
pub use units::{Funds, Short, Units, UnitsError};
pub use wire::CONNECTIONS_MAX;
pub use world::{Connection, PARTIES_MAX, RECORDS_MAX, WorldError};

/// The partner of every sandbox, unless it is told another.
pub const DEFAULT_PARTNER_ID: Uuid = uuid!("0e5a0000-0000-4000-8000-0000000000aa");

/// How long the sandbox's tasks may take to end.
const END_LIMIT: Duration = Duration::from_secs(5);

/// Why a sandbox does not start.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The address is taken or not ours.
    #[error("the sandbox cannot listen on {address}: {source}. Is another one there?")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The seed.
    #[error("the sandbox's seed cannot be taken: {0}")]
    Seed(#[from] SeedError),
    /// A fault.
    #[error("a fault of the sandbox cannot be programmed: {0}")]
    Fault(#[from] FaultError),
}

/// How a sandbox is to be.
#[derive(Debug)]
pub struct SandboxConfig {
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The partner's id.
    pub partner_id: Uuid,
    /// The tokens that it accepts.
    pub tokens: Vec<AccessToken>,
    /// The switches.
    pub rules: Rules,
    /// What there is at the start.
    pub seed: Seed,
    /// The faults that wait at the start.
    pub faults: Vec<Fault>,
    /// The seed of the generator that faults with a probability use.
    pub random_seed: u64,
    /// The broker that job messages go to; none, and somebody else publishes them.
    pub jobs: Option<BrokerConfig>,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

impl SandboxConfig {
    /// A sandbox on a free port of loopback with nothing in it and no limit on requests, as tests
    /// want it.
    #[must_use]
    pub fn empty(clock: Arc<dyn Clock>) -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            partner_id: DEFAULT_PARTNER_ID,
            tokens: Vec::new(),
            rules: Rules { rate_limit: None, ..Rules::default() },
            seed: Seed::default(),
            faults: Vec::new(),
            random_seed: 0,
            jobs: None,
            clock,
        }
    }
}

/// A running sandbox. It ends with [`Sandbox::stop`].
#[derive(Debug)]
pub struct Sandbox {
    state: SandboxState,
    address: SocketAddr,
}

impl Sandbox {
    /// Starts a sandbox.
    ///
    /// # Errors
    /// [`SandboxError`].
    pub async fn start(config: SandboxConfig) -> Result<Self, SandboxError> {
        let mut platform = platform::Platform {
            world: world::World::new(config.partner_id),
            rules: config.rules,
            access: auth::Access::new(config.tokens),
            faults: fault::Faults::new(config.random_seed),
            audit: audit::Audit::default(),
            partner_nonces: HashMap::new(),
            client_nonces: HashSet::new(),
            jobs: VecDeque::new(),
            publishes_jobs: config.jobs.is_some(),
        };
        platform.world.apply(&config.seed, config.clock.now())?;
        for fault in config.faults {
            platform.faults.add(fault)?;
        }
        let listen = |source| SandboxError::Listen { address: config.listen, source };
        let listener = TcpListener::bind(config.listen).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let shared = Arc::new(state::Shared::new(platform, config.clock));
        let (tracker, stop) = (shared.tracker.clone(), shared.stop.clone());
        let router = routes::router(Arc::clone(&shared));
        tracker.spawn(wire::serve(listener, router, tracker.clone(), stop));
        if let Some(broker) = config.jobs {
            tracker.spawn(jobs::run(Arc::clone(&shared), broker));
        }
        tracing::info!(%address, "the sandbox listens");
        Ok(Self { state: SandboxState(shared), address })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What goes before every route: scheme and address.
    #[must_use]
    pub fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A handle to look at it and steer it.
    #[must_use]
    pub fn state(&self) -> SandboxState {
        self.state.clone()
    }

    /// Ends it: no connection is accepted any more, and those that are open get a moment.
    pub async fn stop(self) {
        let shared = &self.state.0;
        shared.stop.cancel();
        shared.tracker.close();
        let ended = tokio::time::timeout(END_LIMIT, shared.tracker.wait()).await;
        if ended.is_err() {
            tracing::warn!(address = %self.address, "tasks of the sandbox have not ended in time");
        }
    }
}
