//! Everything that requests read and change, behind one lock, and the order in which a request is
//! checked before its own rules apply.
//!
//! Nothing in here waits: a request is carried out under the lock in one go, so that no half of one
//! is ever seen, and a sender that gives up cannot stop it half-way.

use std::collections::{HashMap, HashSet, VecDeque};

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::{
    answer::{Answer, Refusal},
    audit::{Audit, Reading},
    auth::{Access, Caller, Scope, Side},
    fault::{Effect, Faults, Misfortune, On, Ruling},
    incoming::Incoming,
    rules::{NonceAfterError, Rules},
    world::World,
};
use crate::domain::{
    ids::{ClientId, RecordId},
    job::JobType,
    time::TimestampMs,
};

/// Most nonces that are remembered; a sandbox that has seen more must be started anew.
pub const NONCES_MAX: usize = 4_000_000;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    /// The partner's update of a record.
    Update(JobType),
    /// One record.
    Record(Side),
    /// Records.
    Records(Side),
    /// The partner's connections.
    Connections,
    /// One of them.
    Connection,
    /// What is allocated to the partner's connections.
    PartnerBalances,
    /// The currencies of a partner.
    Currencies,
    /// A client's allocation or deallocation.
    Order(JobType),
    /// What a client has.
    ClientBalances,
}

impl Call {
    const fn on(self) -> On {
        match self {
            Self::Update(_) => On::Update,
            Self::Record(Side::Partner) => On::Read,
            Self::Records(Side::Partner) => On::List,
            Self::Connections | Self::Connection | Self::PartnerBalances | Self::Currencies => {
                On::OtherRead
            }
            Self::Order(_) => On::Order,
            Self::Record(Side::Client) | Self::Records(Side::Client) | Self::ClientBalances => {
                On::ClientRead
            }
        }
    }

    /// The side that the route is for; nothing if it is for both.
    const fn side(self) -> Option<Side> {
        match self {
            Self::Update(_) | Self::Connections | Self::Connection | Self::PartnerBalances => {
                Some(Side::Partner)
            }
            Self::Record(side) | Self::Records(side) => Some(side),
            Self::Order(_) | Self::ClientBalances => Some(Side::Client),
            Self::Currencies => None,
        }
    }

    const fn scopes(self) -> &'static [Scope] {
        match self {
            Self::Update(_) | Self::Order(_) => &[Scope::Read, Scope::Write],
            Self::Record(_)
            | Self::Records(_)
            | Self::Connections
            | Self::Connection
            | Self::PartnerBalances
            | Self::Currencies
            | Self::ClientBalances => &[Scope::Read],
        }
    }
}

/// A request that was carried out.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) status: u16,
    pub(super) body: Value,
    /// What became of it, in one word.
    pub(super) verdict: &'static str,
    /// Whether it is an update that was obeyed.
    pub(super) applied: bool,
}

impl Done {
    pub(super) fn read(body: Value) -> Self {
        Self { status: 200, body, verdict: "read", applied: false }
    }
}

/// How a nonce was used.
#[derive(Clone, Copy, Debug)]
pub(super) struct NonceUse {
    /// The hash of the body that had it.
    pub(super) body_hash: [u8; 32],
    /// Whether that body was applied.
    pub(super) applied: bool,
}

/// What is known of a request when it arrives.
#[derive(Debug)]
pub(super) struct Arrival {
    /// The record that it is about, as far as it says so when it arrives.
    record: Option<RecordId>,
    pub(super) misfortune: Misfortune,
    pub(super) caller: Result<Caller, Refusal>,
    /// Its number, if it is an update.
    pub(super) put: Option<u64>,
    /// The nonce, if it is an update that the partner signed.
    signed_nonce: Option<String>,
}

/// All of it.
#[derive(Debug)]
pub(super) struct Platform {
    pub(super) world: World,
    pub(super) rules: Rules,
    pub(super) access: Access,
    pub(super) faults: Faults,
    pub(super) audit: Audit,
    pub(super) partner_nonces: HashMap<String, NonceUse>,
    pub(super) client_nonces: HashSet<(ClientId, String)>,
    /// Records whose job message is not with the broker yet.
    pub(super) jobs: VecDeque<RecordId>,
    /// Whether job messages are published at all.
    pub(super) publishes_jobs: bool,
}

impl Platform {
    /// Takes note of a request, finds out who sent it and what goes wrong with it.
    pub(super) fn arrive(
        &mut self,
        call: Call,
        incoming: &Incoming,
        reading: Option<&Reading>,
        now: TimestampMs,
    ) -> Arrival {
        let keys = &self.world.partner.public_keys;
        let (put, signed_nonce, records) = match call {
            Call::Update(route) => {
                let seq = reading.map(|read| self.audit.arrived(route, read, keys, incoming, now));
                let nonce = reading.and_then(|reading| reading.signed_nonce(keys));
                let record = reading.and_then(|reading| reading.record_id);
                (seq, nonce.map(str::to_owned), record.into_iter().collect::<Vec<_>>())
            }
            Call::Record(_) => (None, None, incoming.id.parse().into_iter().collect()),
            Call::Records(_) => (None, None, incoming.ids("allocationIds")),
            Call::Connections
            | Call::Connection
            | Call::PartnerBalances
            | Call::Currencies
            | Call::Order(_)
            | Call::ClientBalances => (None, None, Vec::new()),
        };
        let counts = &mut self.audit.counts;
        let counter = match call.on() {
            On::Update | On::Job => None,
            On::Read | On::List | On::OtherRead => Some(&mut counts.partner_reads),
            On::Order => Some(&mut counts.orders),
            On::ClientRead => Some(&mut counts.client_reads),
        };
        if let Some(counter) = counter {
            *counter = counter.saturating_add(1);
        }
        let misfortune = self.faults.strike(call.on(), &records);
        if let Some(effect) = &misfortune.effect {
            self.audit.counts.faults = self.audit.counts.faults.saturating_add(1);
            if let Some(seq) = put {
                self.audit.struck(seq, effect.name());
            }
        }
        let caller = self.access.authenticate(
            &incoming.headers,
            &incoming.path_and_query,
            &incoming.body,
            now,
        );
        Arrival { record: records.first().copied(), misfortune, caller, put, signed_nonce }
    }

    /// Carries a request out, or refuses it.
    pub(super) fn carry_out(
        &mut self,
        call: Call,
        arrival: &Arrival,
        incoming: &Incoming,
        now: TimestampMs,
    ) -> Answer {
        let done = self
            .enter(call, arrival, incoming, now)
            .and_then(|()| self.dispatch(call, arrival, incoming, now));
        let (answer, verdict, applied) = match done {
            Ok(done) => (Answer::json(done.status, &done.body), done.verdict, done.applied),
            Err(refusal) => (Answer::refusal(&refusal, &incoming.request_id), refusal.name, false),
        };
        if let Some(seq) = arrival.put {
            self.audit.became(seq, verdict, applied);
        }
        tracing::info!(
            request_id = incoming.request_id,
            record_id = arrival.record.map(tracing::field::display),
            ?call,
            status = answer.status,
            verdict,
            "a request was carried out"
        );
        answer
    }

    /// Checks that come before a request's own: token, side, scopes, enterprise, rate limit.
    fn enter(
        &mut self,
        call: Call,
        arrival: &Arrival,
        incoming: &Incoming,
        now: TimestampMs,
    ) -> Result<(), Refusal> {
        let allowed = arrival.caller.clone().and_then(|caller| {
            self.access.authorize(caller, call.side(), call.scopes())?;
            Ok(caller)
        });
        let caller = allowed.inspect_err(|_| {
            self.audit.counts.unauthorized = self.audit.counts.unauthorized.saturating_add(1);
        })?;
        let enterprise = &incoming.enterprise_id;
        let is_known = match caller.side {
            Side::Partner => self.world.partner.enterprise_id == *enterprise,
            Side::Client => self.world.client_of(enterprise).is_some(),
        };
        if !is_known {
            return Err(Refusal::new(
                404,
                "EnterpriseNotFound",
                format!("there is no enterprise {enterprise:?} of this caller"),
            ));
        }
        let (limit, retry_after) = (self.rules.rate_limit, self.rules.retry_after);
        self.access.admit(caller, limit, retry_after, now).inspect_err(|_| {
            self.audit.counts.rate_limited = self.audit.counts.rate_limited.saturating_add(1);
        })
    }

    fn dispatch(
        &mut self,
        call: Call,
        arrival: &Arrival,
        incoming: &Incoming,
        now: TimestampMs,
    ) -> Result<Done, Refusal> {
        match call {
            Call::Update(route) => {
                incoming.check_is_json()?;
                let effect = arrival.misfortune.effect.as_ref();
                let ruling = effect.map_or(Ruling::Obey, Effect::ruling);
                let put = arrival.put.unwrap_or_default();
                self.update(route, &incoming.body, ruling, put, now)
            }
            Call::Order(route) => {
                incoming.check_is_json()?;
                self.order(route, incoming, now)
            }
            Call::Record(side) => self.read_record(side, incoming),
            Call::Records(side) => self.read_records(side, incoming),
            Call::Connections => self.read_connections(incoming),
            Call::Connection => self.read_connection(incoming),
            Call::PartnerBalances => self.read_partner_balances(incoming),
            Call::Currencies => self.read_currencies(incoming),
            Call::ClientBalances => self.read_client_balances(incoming),
        }
    }

    /// Takes note of an update that a fault answers instead of its being carried out. A status that
    /// OES gives after it has looked at the nonce uses the nonce up.
    pub(super) fn answered_instead(
        &mut self,
        arrival: &Arrival,
        effect: &Effect,
        incoming: &Incoming,
    ) {
        let Some(seq) = arrival.put else {
            return;
        };
        self.audit.became(seq, effect.name(), false);
        let status = match effect {
            Effect::Answer { status, .. } => *status,
            Effect::Delay { .. }
            | Effect::Reset { .. }
            | Effect::Html { .. }
            | Effect::Redirect { .. }
            | Effect::RateLimited { .. }
            | Effect::Truncate
            | Effect::Oversize { .. }
            | Effect::WrongEcho { .. }
            | Effect::AwaitApproval
            | Effect::PolicyRejects { .. }
            | Effect::DecideOtherwise { .. }
            | Effect::PublishTwice => return,
        };
        let consumes = match status {
            404 | 409 | 422 => true,
            500.. => self.rules.nonce_after_error == NonceAfterError::Consumed,
            _ => false,
        };
        if let (true, Some(nonce)) = (consumes, &arrival.signed_nonce) {
            self.partner_nonces
                .entry(nonce.clone())
                .or_insert(NonceUse { body_hash: hash(&incoming.body), applied: false });
        }
    }

    /// Takes note of an update that was carried out and is answered with a 5xx all the same.
    pub(super) fn failed_afterwards(&mut self, arrival: &Arrival) {
        match (self.rules.nonce_after_error, &arrival.signed_nonce) {
            (NonceAfterError::Free, Some(nonce)) => {
                self.partner_nonces.remove(nonce);
            }
            (NonceAfterError::Free, None) | (NonceAfterError::Consumed, _) => {}
        }
    }
}

pub(super) fn hash(body: &[u8]) -> [u8; 32] {
    Sha256::digest(body).into()
}
