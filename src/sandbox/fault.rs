//! Faults that can be programmed: what goes wrong, with which requests, how often.
//!
//! One model for flags, the control route and tests, the same in JSON as here:
//! `{"on": ["update"], "times": {"next": 2}, "effect": {"kind": "reset", "when": "after"}}`.

use std::collections::BTreeSet;

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde::{Deserialize, Serialize};

use super::{rules::RetryAfter, units::Units};
use crate::domain::ids::RecordId;

/// Most faults that wait to happen.
pub const FAULTS_MAX: usize = 1_000;

/// Longest delay.
pub const DELAY_MS_MAX: u64 = 600_000;

/// Largest answer that is made too large on purpose.
pub const OVERSIZE_BYTES_MAX: usize = 64 * 1_024 * 1_024;

/// What a probability is out of.
const PER_MILLE_MAX: u16 = 1_000;

/// Where a fault can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum On {
    /// The partner's update of a record, of either type.
    Update,
    /// The partner's read of one record.
    Read,
    /// The partner's list of records.
    List,
    /// The partner's other reads: connections, balances, currencies.
    OtherRead,
    /// A client's allocation or deallocation.
    Order,
    /// A client's reads.
    ClientRead,
    /// A job message that goes to the queue.
    Job,
}

/// Which records a fault is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Matches {
    /// Every request.
    #[default]
    Any,
    /// Requests about one record.
    Record(RecordId),
}

/// How often a fault happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Times {
    /// To so many matching requests, from now on.
    Next(u32),
    /// To every matching request.
    Always,
    /// To so many of a thousand matching requests, by the seeded generator.
    PerMille(u16),
}

impl Default for Times {
    fn default() -> Self {
        Self::Next(1)
    }
}

/// Whether something happens before or after the request is carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum When {
    /// Before: it changes nothing, unless the effect is only a delay.
    Before,
    /// After: it has changed what it should.
    After,
}

/// What becomes of a record whose update the policy rejects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum AfterRejection {
    /// It is final with the other outcome.
    OtherOutcome,
    /// It stays reserved.
    StaysReserved,
}

/// What goes wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    tag = "kind",
    rename_all = "camelCase",
    rename_all_fields = "camelCase",
    deny_unknown_fields
)]
pub enum Effect {
    /// It takes longer. A request that was delayed before is still carried out when its sender has
    /// given up meanwhile. Adds up with one other effect.
    Delay {
        /// Before or after carrying out.
        when: When,
        /// How long.
        delay_ms: u64,
    },
    /// The connection is reset instead of an answer.
    Reset {
        /// Before or after carrying out.
        when: When,
    },
    /// An error with this status as answer: 401, 403, 404, 409, 422, 500, …
    Answer {
        /// Before or after carrying out.
        when: When,
        /// The status.
        status: u16,
    },
    /// A web page as answer, as from something between.
    Html {
        /// Before or after carrying out.
        when: When,
        /// The status.
        status: u16,
    },
    /// A redirect as answer; the request is not carried out.
    Redirect {
        /// Where to.
        location: String,
    },
    /// 429 as answer; the request is not carried out.
    RateLimited {
        /// Whether and how it says when to try again.
        retry_after: RetryAfter,
        /// When.
        retry_after_s: u32,
    },
    /// Only half of the answer arrives; the request is carried out.
    Truncate,
    /// The answer is blown up with white space; the request is carried out.
    Oversize {
        /// To at least this size.
        bytes: usize,
    },
    /// The answer to an update echoes another quantity; the update is carried out.
    WrongEcho {
        /// The quantity.
        quantity: Units,
    },
    /// The update is accepted and waits for an approval, see `approve` and `reject`.
    AwaitApproval,
    /// The update is answered with 200 and `policyResult: rejected`.
    PolicyRejects {
        /// What becomes of the record.
        record: AfterRejection,
    },
    /// OES ends the record with the other outcome by itself.
    DecideOtherwise {
        /// The status of the answer; 200 echoes as if all were well.
        status: u16,
    },
    /// The job message goes to the queue twice.
    PublishTwice,
}

/// What OES does with an update that is in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ruling {
    /// What it asks for.
    Obey,
    /// It waits for an approval.
    AwaitApproval,
    /// The policy rejects it.
    PolicyRejects(AfterRejection),
    /// The record ends with the other outcome, and this is the status of the answer.
    DecideOtherwise(u16),
}

/// In which part of an exchange an effect takes place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Instead of carrying the request out.
    Instead,
    /// While it is carried out.
    Ruling,
    /// To the answer.
    Answering,
    /// On the way to the queue.
    Publishing,
}

impl Effect {
    pub(super) fn stage(&self) -> Stage {
        match self {
            Self::Delay { when, .. }
            | Self::Reset { when }
            | Self::Answer { when, .. }
            | Self::Html { when, .. } => match when {
                When::Before => Stage::Instead,
                When::After => Stage::Answering,
            },
            Self::Redirect { .. } | Self::RateLimited { .. } => Stage::Instead,
            Self::Truncate | Self::Oversize { .. } | Self::WrongEcho { .. } => Stage::Answering,
            Self::AwaitApproval | Self::PolicyRejects { .. } | Self::DecideOtherwise { .. } => {
                Stage::Ruling
            }
            Self::PublishTwice => Stage::Publishing,
        }
    }

    pub(super) fn ruling(&self) -> Ruling {
        match self {
            Self::AwaitApproval => Ruling::AwaitApproval,
            Self::PolicyRejects { record } => Ruling::PolicyRejects(*record),
            Self::DecideOtherwise { status } => Ruling::DecideOtherwise(*status),
            Self::Delay { .. }
            | Self::Reset { .. }
            | Self::Answer { .. }
            | Self::Html { .. }
            | Self::Redirect { .. }
            | Self::RateLimited { .. }
            | Self::Truncate
            | Self::Oversize { .. }
            | Self::WrongEcho { .. }
            | Self::PublishTwice => Ruling::Obey,
        }
    }

    /// One word for logs and listings.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Delay { .. } => "delay",
            Self::Reset { .. } => "reset",
            Self::Answer { .. } => "answer",
            Self::Html { .. } => "html",
            Self::Redirect { .. } => "redirect",
            Self::RateLimited { .. } => "rateLimited",
            Self::Truncate => "truncate",
            Self::Oversize { .. } => "oversize",
            Self::WrongEcho { .. } => "wrongEcho",
            Self::AwaitApproval => "awaitApproval",
            Self::PolicyRejects { .. } => "policyRejects",
            Self::DecideOtherwise { .. } => "decideOtherwise",
            Self::PublishTwice => "publishTwice",
        }
    }
}

/// Something that goes wrong with some requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Fault {
    /// Where it happens.
    pub on: BTreeSet<On>,
    /// To which records.
    #[serde(default)]
    pub matches: Matches,
    /// How often.
    #[serde(default)]
    pub times: Times,
    /// What happens.
    pub effect: Effect,
}

/// Why a fault cannot be programmed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FaultError {
    /// It would happen nowhere.
    #[error("the fault names no place in `on`")]
    Nowhere,
    /// The effect cannot happen there.
    #[error("{effect} cannot happen on {on:?}")]
    WrongPlace {
        /// The effect.
        effect: &'static str,
        /// The place.
        on: On,
    },
    /// A status that is no answer.
    #[error("{status} is not a status that {effect} can answer with")]
    BadStatus {
        /// The effect.
        effect: &'static str,
        /// The status.
        status: u16,
    },
    /// Larger than a bound.
    #[error("{what} is {value}, and at most {max} is possible")]
    TooMuch {
        /// What it is about.
        what: &'static str,
        /// What was asked for.
        value: u64,
        /// The bound.
        max: u64,
    },
}

impl On {
    /// Everything that the partner asks for.
    pub const PARTNER: [Self; 4] = [Self::Update, Self::Read, Self::List, Self::OtherRead];
}

impl Fault {
    /// A fault of the next request of the partner, whatever it is.
    #[must_use]
    pub fn of_partner(effect: Effect) -> Self {
        Self { on: BTreeSet::from(On::PARTNER), ..Self::new(On::Update, effect) }
    }

    /// A fault of the next matching request at `on`.
    #[must_use]
    pub fn new(on: On, effect: Effect) -> Self {
        Self { on: BTreeSet::from([on]), matches: Matches::Any, times: Times::default(), effect }
    }

    /// The same for requests about one record only.
    #[must_use]
    pub fn of_record(mut self, id: RecordId) -> Self {
        self.matches = Matches::Record(id);
        self
    }

    /// The same, so often.
    #[must_use]
    pub fn times(mut self, times: Times) -> Self {
        self.times = times;
        self
    }

    /// The same at one more place.
    #[must_use]
    pub fn also_on(mut self, on: On) -> Self {
        self.on.insert(on);
        self
    }

    /// Refuses what could never happen or would be too much.
    fn check(&self) -> Result<(), FaultError> {
        let effect = self.effect.name();
        if self.on.is_empty() {
            return Err(FaultError::Nowhere);
        }
        for on in self.on.iter().copied() {
            let updates_only = matches!(self.effect, Effect::WrongEcho { .. });
            let fits = match self.effect.stage() {
                Stage::Ruling => on == On::Update,
                Stage::Publishing => on == On::Job,
                Stage::Answering if updates_only => on == On::Update,
                Stage::Instead | Stage::Answering => on != On::Job,
            };
            if !fits {
                return Err(FaultError::WrongPlace { effect, on });
            }
        }
        if let Times::PerMille(share) = self.times {
            not_above("perMille", share.into(), PER_MILLE_MAX.into())?;
        }
        match &self.effect {
            Effect::Delay { delay_ms, .. } => not_above("delayMs", *delay_ms, DELAY_MS_MAX),
            Effect::Oversize { bytes } => {
                not_above("bytes", wide(*bytes), wide(OVERSIZE_BYTES_MAX))
            }
            Effect::Answer { status, .. } if !(400..=599).contains(status) => {
                Err(FaultError::BadStatus { effect, status: *status })
            }
            Effect::DecideOtherwise { status } | Effect::Html { status, .. }
                if !(200..=599).contains(status) =>
            {
                Err(FaultError::BadStatus { effect, status: *status })
            }
            Effect::Answer { .. }
            | Effect::DecideOtherwise { .. }
            | Effect::Html { .. }
            | Effect::Reset { .. }
            | Effect::Redirect { .. }
            | Effect::RateLimited { .. }
            | Effect::Truncate
            | Effect::WrongEcho { .. }
            | Effect::AwaitApproval
            | Effect::PolicyRejects { .. }
            | Effect::PublishTwice => Ok(()),
        }
    }
}

fn wide(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

fn not_above(what: &'static str, value: u64, max: u64) -> Result<(), FaultError> {
    if value > max { Err(FaultError::TooMuch { what, value, max }) } else { Ok(()) }
}

/// What happens to one request.
#[derive(Clone, Debug, Default)]
pub(super) struct Misfortune {
    /// How long it waits before it is carried out.
    pub(super) delay_before_ms: u64,
    /// How long its answer waits.
    pub(super) delay_after_ms: u64,
    /// What else happens.
    pub(super) effect: Option<Effect>,
}

impl Misfortune {
    fn suffer(&mut self, effect: &Effect) {
        if let Effect::Delay { when, delay_ms } = effect {
            let sum = match when {
                When::Before => &mut self.delay_before_ms,
                When::After => &mut self.delay_after_ms,
            };
            *sum = sum.saturating_add(*delay_ms);
        } else {
            self.effect = Some(effect.clone());
        }
    }
}

/// The faults that wait to happen.
#[derive(Debug)]
pub(super) struct Faults {
    waiting: Vec<Fault>,
    random: StdRng,
}

impl Faults {
    pub(super) fn new(seed: u64) -> Self {
        Self { waiting: Vec::new(), random: StdRng::seed_from_u64(seed) }
    }

    pub(super) fn add(&mut self, fault: Fault) -> Result<(), FaultError> {
        fault.check()?;
        let count = self.waiting.len().saturating_add(1);
        not_above("the number of faults", wide(count), wide(FAULTS_MAX))?;
        self.waiting.push(fault);
        Ok(())
    }

    pub(super) fn clear(&mut self) {
        self.waiting.clear();
    }

    pub(super) fn waiting(&self) -> &[Fault] {
        &self.waiting
    }

    /// What happens to a request at `on` about these records: all delays that match, and the first
    /// other effect that does.
    pub(super) fn strike(&mut self, on: On, records: &[RecordId]) -> Misfortune {
        let mut misfortune = Misfortune::default();
        for fault in &mut self.waiting {
            let concerns = match fault.matches {
                Matches::Any => true,
                Matches::Record(id) => records.contains(&id),
            };
            let is_delay = matches!(fault.effect, Effect::Delay { .. });
            let has_room = is_delay || misfortune.effect.is_none();
            if !concerns || !has_room || !fault.on.contains(&on) {
                continue;
            }
            let happens = match &mut fault.times {
                Times::Next(0) => false,
                Times::Next(left) => {
                    *left = left.saturating_sub(1);
                    true
                }
                Times::Always => true,
                Times::PerMille(share) => self.random.random_range(0..PER_MILLE_MAX) < *share,
            };
            if happens {
                misfortune.suffer(&fault.effect);
            }
        }
        self.waiting.retain(|fault| fault.times != Times::Next(0));
        misfortune
    }
}

#[cfg(test)]
mod tests;
