//! What a batch has to tell once it is committed, for logs and metrics. Before the commit it is not
//! true yet, and a batch that is rolled back tells nothing.

use std::time::Duration;

use super::{
    action::{ActionKind, Switch},
    amount::{Balance, Quantity},
    decision::Outcome,
    feed::{BookSequence, Gap, TotalDiffers},
    ids::{ConnectionId, CurrencyCode, RecordId},
    job::JobType,
    state::{ConflictKind, ParkReason},
};

/// Something that became true.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// A record was decided.
    Decided {
        /// Which.
        record: RecordId,
        /// Of which type.
        job_type: JobType,
        /// How.
        outcome: Outcome,
        /// The rule that released it.
        reject_code: Option<String>,
    },
    /// OES has ended a record, and so has the book.
    Final {
        /// Which.
        record: RecordId,
        /// Of which type.
        job_type: JobType,
        /// How.
        outcome: Outcome,
        /// Whether that is not what was decided here.
        overruled: bool,
        /// From its arrival to here.
        took: Duration,
    },
    /// An operator must look at a job.
    Parked {
        /// Its record.
        record: RecordId,
        /// Why.
        reason: ParkReason,
        /// What failed, where something did.
        why: Option<String>,
    },
    /// OES's record is not what a message says: forged, or altered on its way.
    Refused {
        /// Which record it names.
        record: RecordId,
        /// In what it differs, for a reader.
        what: String,
    },
    /// A message that was put away, because a refused one had its record's id, is a job now.
    Reconsidered {
        /// Its record.
        record: RecordId,
    },
    /// OES contradicts us about a record.
    Frozen {
        /// Which.
        record: RecordId,
        /// In which way.
        kind: ConflictKind,
    },
    /// Two operators have said how OES ended a record that contradicted what was decided.
    ClosedByOperators {
        /// Which.
        record: RecordId,
        /// How it ended.
        outcome: Outcome,
        /// Who said so first.
        proposed_by: String,
        /// Who said so too.
        confirmed_by: String,
    },
    /// A switch was set.
    Switched {
        /// Which.
        switch: Switch,
        /// Whether it is on now.
        on: bool,
        /// Who set it.
        who: String,
        /// Why.
        reason: String,
    },
    /// An operator's action is in the journal.
    Acted(ActionKind),
    /// A fed fact took an available balance below zero: the exchange fed more out than there was.
    Overdrawn {
        /// Whose.
        connection: ConnectionId,
        /// In what.
        currency: CurrencyCode,
        /// What it is now, base units.
        available: Balance,
    },
    /// Numbers of a connection's feed did not come.
    FeedGap {
        /// Whose.
        connection: ConnectionId,
        /// Which.
        gap: Gap,
    },
    /// An event came with a number that was there before, or too late: nothing that it says was taken.
    FeedOld {
        /// Whose.
        connection: ConnectionId,
        /// Its number.
        sequence: BookSequence,
    },
    /// A snapshot states other totals than the book has.
    SnapshotDiffers {
        /// Whose.
        connection: ConnectionId,
        /// In what.
        differs: Vec<TotalDiffers>,
    },
    /// A snapshot agrees with the book again, or for the first time since a restore.
    SnapshotAgrees {
        /// Whose.
        connection: ConnectionId,
        /// Whether that lets decisions go on after a restore.
        proves: bool,
    },
    /// OES cleared a deallocation that was released here, and the book could not cover it.
    Shortfall {
        /// Its record.
        record: RecordId,
        /// How much was missing, base units.
        shortfall: Quantity,
    },
}
