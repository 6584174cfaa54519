//! Which jobs: the same questions for a list, for watching, and for an action on many.

use std::{collections::BTreeSet, time::Duration};

use clap::{Args, ValueEnum};

use crate::{
    domain::{
        decision::Outcome,
        ids::{ClientId, ConnectionId, CurrencyCode},
        job::JobType,
        time::{TimestampMs, parse_age},
    },
    store::query::JobFilter,
};

/// Which jobs. Every question narrows the list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
#[command(next_help_heading = "Which jobs")]
pub(in crate::cli) struct FilterArgs {
    /// Only jobs in these states, separated by commas: received, decided, sending, unknown,
    /// `awaiting_approval`, parked, conflict, confirmed, overruled, refused; `open` stands for all but the
    /// last three.
    #[arg(long, value_name = "STATES", value_parser = JobFilter::parse_states)]
    state: Option<BTreeSet<String>>,
    /// Only allocations or only deallocations.
    #[arg(long, value_name = "TYPE")]
    r#type: Option<TypeArgument>,
    /// Only jobs of this connection, by BitGo's id.
    #[arg(long, value_name = "ID")]
    connection: Option<ConnectionId>,
    /// Only jobs of this client, by BitGo's id.
    #[arg(long, value_name = "ID")]
    client: Option<ClientId>,
    /// Only jobs in this currency, as the book names it.
    #[arg(long)]
    currency: Option<CurrencyCode>,
    /// Only jobs that were taken in at least this long ago, e.g. 90s, 15m, 2h, 3d.
    #[arg(long, value_name = "AGE", value_parser = parse_age)]
    older_than: Option<Duration>,
    /// Only jobs that were taken in at most this long ago.
    #[arg(long, value_name = "AGE", value_parser = parse_age)]
    younger_than: Option<Duration>,
    /// Only jobs that were decided so.
    #[arg(long, value_name = "OUTCOME")]
    decided: Option<OutcomeArgument>,
    /// Only jobs of which an id begins with this: the record's, the client's or the connection's; the
    /// exchange's for the record, or its name for a client or connection of the book.
    #[arg(long, value_name = "BEGINNING")]
    text: Option<String>,
}

impl FilterArgs {
    /// Whether nothing is asked, so that every job is meant.
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn filter(&self, reason: Option<&String>, now: TimestampMs) -> JobFilter {
        let text = self.text.as_deref().map(str::trim).filter(|text| !text.is_empty());
        JobFilter {
            states: self.state.clone().unwrap_or_default(),
            reason: reason.cloned(),
            job_type: self.r#type.map(JobType::from),
            connection_id: self.connection,
            client_id: self.client,
            currency: self.currency.clone(),
            received_since: self.younger_than.map(|age| now.before(age)),
            received_until: self.older_than.map(|age| now.before(age)),
            outcome: self.decided.map(Outcome::from),
            text: text.map(str::to_owned),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum TypeArgument {
    Allocation,
    Deallocation,
}

impl From<TypeArgument> for JobType {
    fn from(argument: TypeArgument) -> Self {
        match argument {
            TypeArgument::Allocation => Self::Allocation,
            TypeArgument::Deallocation => Self::Deallocation,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum OutcomeArgument {
    Cleared,
    Released,
}

impl From<OutcomeArgument> for Outcome {
    fn from(argument: OutcomeArgument) -> Self {
        match argument {
            OutcomeArgument::Cleared => Self::Cleared,
            OutcomeArgument::Released => Self::Released,
        }
    }
}
