//! Where the book and OES do not say the same: about a record, and about what a connection has.
//!
//! What OES has for a connection is what its client has allocated less what the client took back: an
//! allocation is added when it is cleared, and a deallocation leaves when it is cleared; a reserved one
//! only moves from OES's `available` to its `held`. The book moves at the decision and at the
//! confirmation. So OES's `available` and `held` together are compared with the book's `available` and
//! `held` together, and what is on its way explains a difference: OES may already have added what is
//! `incoming` here, and may already have let go what is `held` here.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{
    amount::{Amount, AmountError, Balance, Total},
    decimals::Scales,
    decision::Outcome,
    ids::{ConnectionId, CurrencyCode, RecordId},
    job::JobType,
    shown::ShownRecord,
    state::State,
};

/// What a finding is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// The record has ended in another way than here, or has not ended there, or was ended there only.
    Status,
    /// OES does not have the record.
    Absent,
    /// The record is of the other type.
    Type,
    /// The record moves another amount.
    Amount,
    /// The record belongs to another connection.
    Connection,
    /// OES holds a record as reserved that has no job here.
    WithoutJob,
    /// What a connection has differs by more than is on its way.
    Balance,
    /// What OES shows cannot be read, so nothing can be said about it.
    Unreadable,
    /// A record without a job, whose message is in quarantine.
    Quarantined,
    /// A record without a job that was taken in.
    Adopted,
    /// A job that waits for an operator; its record agrees.
    Parked,
    /// A job that was frozen; its record agrees.
    Conflict,
}

impl FindingKind {
    /// All kinds, for metrics.
    pub const ALL: [Self; 12] = [
        Self::Status,
        Self::Absent,
        Self::Type,
        Self::Amount,
        Self::Connection,
        Self::WithoutJob,
        Self::Balance,
        Self::Unreadable,
        Self::Quarantined,
        Self::Adopted,
        Self::Parked,
        Self::Conflict,
    ];

    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Absent => "absent",
            Self::Type => "type",
            Self::Amount => "amount",
            Self::Connection => "connection",
            Self::WithoutJob => "without_job",
            Self::Balance => "balance",
            Self::Unreadable => "unreadable",
            Self::Quarantined => "quarantined",
            Self::Adopted => "adopted",
            Self::Parked => "parked",
            Self::Conflict => "conflict",
        }
    }

    /// Whether the book and OES differ. The others are shown because somebody should know of them.
    #[must_use]
    pub const fn is_difference(self) -> bool {
        match self {
            Self::Status
            | Self::Absent
            | Self::Type
            | Self::Amount
            | Self::Connection
            | Self::WithoutJob
            | Self::Balance
            | Self::Unreadable => true,
            Self::Quarantined | Self::Adopted | Self::Parked | Self::Conflict => false,
        }
    }
}

impl fmt::Display for FindingKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One thing that a comparison found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// What it is about.
    pub kind: FindingKind,
    /// The record, where it is about one.
    pub record_id: Option<RecordId>,
    /// The connection, where that is known.
    pub connection_id: Option<ConnectionId>,
    /// The currency, where that is known.
    pub currency: Option<String>,
    /// What the book says.
    pub here: String,
    /// What OES says.
    pub oes: String,
    /// More of it.
    pub note: String,
}

/// What a comparison needs to know of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ComparedJob {
    /// Its record.
    pub record_id: RecordId,
    /// Its type.
    pub job_type: JobType,
    /// How much of what.
    pub amount: Amount,
    /// Its connection.
    pub connection_id: ConnectionId,
    /// How far it has come.
    pub state: State,
    /// What was decided.
    pub outcome: Option<Outcome>,
    /// How OES ended it, as far as is known here.
    pub final_outcome: Option<Outcome>,
}

/// What OES shows of a job's record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShownJob {
    /// The record.
    Found(Box<ShownRecord>),
    /// There is no such record.
    Absent,
    /// Something that cannot be read.
    Unreadable(String),
}

/// Everything in which a record differs from its job; nothing if they agree, or if what was sent is
/// applied and only its confirmation is on its way.
#[must_use]
pub fn compare_job(job: &ComparedJob, shown: &ShownJob, scales: &Scales) -> Vec<Finding> {
    let finding = |kind, here: String, oes: String, note: &str| Finding {
        kind,
        record_id: Some(job.record_id),
        connection_id: Some(job.connection_id),
        currency: Some(job.amount.currency().to_string()),
        here,
        oes,
        note: note.to_owned(),
    };
    let state = job.state.to_string();
    let record = match shown {
        ShownJob::Found(record) => record,
        ShownJob::Absent => {
            let note = "OES answers that it has no such record";
            return vec![finding(FindingKind::Absent, state, "not there".to_owned(), note)];
        }
        ShownJob::Unreadable(reason) => {
            return vec![finding(FindingKind::Unreadable, state, String::new(), reason)];
        }
    };
    let ShownRecord { record, amount, .. } = record.as_ref();
    let mut findings = Vec::new();
    if record.job_type != job.job_type {
        let (here, oes) = (job.job_type.to_string(), record.job_type.to_string());
        findings.push(finding(FindingKind::Type, here, oes, ""));
    }
    if record.connection_id != job.connection_id {
        let (here, oes) = (job.connection_id.to_string(), record.connection_id.to_string());
        findings.push(finding(FindingKind::Connection, here, oes, ""));
    }
    let shown_amount = format!("{} {}", amount.quantity, amount.currency);
    match amount.read_by(scales) {
        Ok(amount) if amount == job.amount => {}
        Ok(_) => {
            let here = job.amount.to_string();
            findings.push(finding(FindingKind::Amount, here, shown_amount, ""));
        }
        Err(reason) => {
            let here = job.amount.to_string();
            findings.push(finding(FindingKind::Unreadable, here, shown_amount, &reason));
        }
    }
    if let Some(note) = status_differs(job, record.status.outcome()) {
        let oes = record.status.as_str().to_owned();
        findings.push(finding(FindingKind::Status, state.clone(), oes, note));
    }
    if findings.is_empty()
        && let Some((kind, note)) = waits_for_an_operator(job.state)
    {
        findings.push(finding(kind, state, record.status.as_str().to_owned(), note));
    }
    findings
}

/// Why OES's status and the job's state cannot both be right.
fn status_differs(job: &ComparedJob, at_oes: Option<Outcome>) -> Option<&'static str> {
    match (job.final_outcome, at_oes) {
        (Some(here), Some(there)) if here == there => None,
        (Some(_), Some(_)) => Some("it ended in the other way"),
        (Some(_), None) => Some("it is final here, and still reserved at OES"),
        (None, None) => None,
        (None, Some(there)) if job.outcome == Some(there) => None,
        (None, Some(_)) if job.outcome.is_some() => Some("OES holds what was not decided"),
        (None, Some(_)) => Some("OES ended it before it was decided here"),
    }
}

fn waits_for_an_operator(state: State) -> Option<(FindingKind, &'static str)> {
    match state {
        State::Parked(_) => Some((FindingKind::Parked, "settled jobs show, settled jobs retry")),
        State::Conflict(_) => Some((FindingKind::Conflict, "settled jobs show; call BitGo")),
        State::Received
        | State::Decided
        | State::Sending
        | State::Unknown(_)
        | State::AwaitingApproval
        | State::Confirmed
        | State::Overruled
        | State::Refused => None,
    }
}

/// What the book has for a connection in a currency.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BookFunds {
    /// What may be traded or taken back.
    pub available: Balance,
    /// Decided deallocations that OES has not confirmed.
    pub held: Balance,
    /// Decided allocations that OES has not confirmed.
    pub incoming: Balance,
}

impl BookFunds {
    /// What OES may have at the same time: from everything on its way out gone, to everything on its
    /// way in arrived.
    fn range(&self) -> Result<(Balance, Balance), AmountError> {
        // `available` and `held` together, less what is held.
        Ok((self.available, self.total()?.plus(self.incoming)?))
    }

    fn total(&self) -> Result<Balance, AmountError> {
        self.available.plus(self.held)
    }
}

/// What a connection has in a currency, on both sides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BalanceLine {
    /// The connection.
    pub connection_id: ConnectionId,
    /// The currency.
    pub currency: CurrencyCode,
    /// Available in the book.
    pub available: Balance,
    /// Held in the book.
    pub held: Balance,
    /// Incoming in the book.
    pub incoming: Balance,
    /// Available at OES.
    pub oes_available: Balance,
    /// Held at OES.
    pub oes_held: Balance,
    /// What OES has, less what the book has; `available` and `held` together.
    pub difference: Balance,
    /// The part of it that jobs on their way explain.
    pub in_flight: Balance,
    /// The rest.
    pub unexplained: Balance,
}

/// Compares what OES shows with what the book had before and after that was asked for.
///
/// # Errors
/// [`AmountError`] when a sum cannot be represented.
pub fn compare_balance(
    connection_id: ConnectionId,
    currency: CurrencyCode,
    (before, after): (BookFunds, BookFunds),
    (oes_available, oes_held): (Total, Total),
) -> Result<BalanceLine, AmountError> {
    let (oes_available, oes_held) = (Balance::from(oes_available), Balance::from(oes_held));
    let oes = oes_available.plus(oes_held)?;
    let (one, other) = (before.range()?, after.range()?);
    let (low, high) = (one.0.min(other.0), one.1.max(other.1));
    let nearest = oes.clamp(low, high.max(low));
    let difference = oes.plus(after.total()?.negated())?;
    let unexplained = oes.plus(nearest.negated())?;
    Ok(BalanceLine {
        connection_id,
        currency,
        available: after.available,
        held: after.held,
        incoming: after.incoming,
        oes_available,
        oes_held,
        difference,
        in_flight: difference.plus(unexplained.negated())?,
        unexplained,
    })
}

impl BalanceLine {
    /// What is to be told of it if it differs by more than is on its way.
    #[must_use]
    pub fn finding(&self) -> Option<Finding> {
        (!self.unexplained.is_zero()).then(|| Finding {
            kind: FindingKind::Balance,
            record_id: None,
            connection_id: Some(self.connection_id),
            currency: Some(self.currency.to_string()),
            here: format!("{} + {} held", self.available, self.held),
            oes: format!("{} + {} held", self.oes_available, self.oes_held),
            note: format!(
                "OES has {} more, {} of it on its way: {} unexplained",
                self.difference, self.in_flight, self.unexplained
            ),
        })
    }
}

#[cfg(test)]
mod tests;
