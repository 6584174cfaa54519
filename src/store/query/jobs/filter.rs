//! Which jobs are asked for.

use std::collections::BTreeSet;

use crate::domain::{
    decision::{Outcome, RejectCode},
    ids::{ClientId, ConnectionId, CurrencyCode},
    job::JobType,
    state::State,
    time::TimestampMs,
};

/// Which jobs. What is not set is not asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobFilter {
    /// Only jobs in one of these states, by name; in any, if there is none.
    pub states: BTreeSet<String>,
    /// Only jobs whose state has this reason, or that were released for it.
    pub reason: Option<String>,
    /// Only allocations or only deallocations.
    pub job_type: Option<JobType>,
    /// Only jobs of this connection.
    pub connection_id: Option<ConnectionId>,
    /// Only jobs of this client.
    pub client_id: Option<ClientId>,
    /// Only jobs in this currency.
    pub currency: Option<CurrencyCode>,
    /// Only jobs that were taken in at this time or later.
    pub received_since: Option<TimestampMs>,
    /// Only jobs that were taken in at this time or before.
    pub received_until: Option<TimestampMs>,
    /// Only jobs that were decided so.
    pub outcome: Option<Outcome>,
    /// Only jobs of which an id begins with this: the record's, the client's or the connection's, the
    /// exchange's for the record, or its name for a client or connection of the book.
    pub text: Option<String>,
}

impl JobFilter {
    /// States by name, separated by commas, with `open` for all that are not final.
    ///
    /// # Errors
    /// A sentence that names the states there are.
    pub fn parse_states(text: &str) -> Result<BTreeSet<String>, String> {
        let mut states = BTreeSet::new();
        for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            if word == "open" {
                let open = State::all().filter(|state| !state.is_final());
                states.extend(open.map(|state| state.name().to_owned()));
            } else if State::NAMES.contains(&word) {
                states.insert(word.to_owned());
            } else {
                let known = State::NAMES.join(", ");
                return Err(format!("{word:?} is no state; there are open, {known}"));
            }
        }
        Ok(states)
    }

    /// A reason of a state or of a release.
    ///
    /// # Errors
    /// A sentence that names the reasons there are.
    pub fn parse_reason(word: &str) -> Result<String, String> {
        let reasons = Self::reasons();
        if reasons.contains(word) {
            return Ok(word.to_owned());
        }
        let known: Vec<&str> = reasons.into_iter().collect();
        Err(format!("{word:?} is no reason; there are {}", known.join(", ")))
    }

    /// Every reason that a job can have.
    #[must_use]
    pub fn reasons() -> BTreeSet<&'static str> {
        let codes = RejectCode::ALL.map(RejectCode::as_str);
        State::all().filter_map(State::reason).chain(codes).collect()
    }

    /// Whether nothing but states and type is asked for.
    pub(super) fn is_counted(&self) -> bool {
        let shape =
            Self { states: self.states.clone(), job_type: self.job_type, ..Self::default() };
        *self == shape
    }
}
