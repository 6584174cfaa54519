//! Recomputing the book from its entries.
//!
//! Sums are made here, in whole numbers of 320 bits, and never in SQL.

mod sums;

use std::{collections::BTreeMap, time::Duration};

use futures_util::TryStreamExt as _;
use serde::Serialize;

use super::{
    Readers, StoreError,
    error::While as _,
    journal::rows_there,
    rows::{outcome_of, parse},
};
use crate::{
    domain::{
        amount::{Quantity, Total},
        decision::Outcome,
        job::JobType,
        journal::Kind,
        ledger::{self, AccountKind, AccountTotals, Phase},
    },
    tally::Tally,
};

mod archives;
mod attempts;
mod facts;
mod feeds;
mod journal;

pub use archives::ArchivesCheck;
pub use attempts::SignedAttempt;
pub use journal::{Head, JournalCheck};

const VERIFYING: &str = "verifying the book";

/// Longest verification: the log beside the book cannot begin anew while a read of it lasts.
const VERIFYING_MAX: Duration = Duration::from_secs(15 * 60);

/// Most differences that are listed; more are only counted.
pub const FAULTS_LISTED_MAX: usize = 100;

/// What verification found.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Verification {
    /// Accounts that were recomputed.
    pub accounts: u64,
    /// Movements that were added up.
    pub transfers: u64,
    /// Jobs whose movements were compared with their state.
    pub jobs: u64,
    /// How many differences there are.
    pub faults_count: u64,
    /// The first of them, for a reader.
    pub faults: Vec<String>,
}

impl Verification {
    /// Whether everything agrees.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.faults_count == 0
    }

    fn fault(&mut self, text: String) {
        self.faults_count = self.faults_count.saturating_add(1);
        if self.faults.len() < FAULTS_LISTED_MAX {
            self.faults.push(text);
        }
    }
}

impl Readers {
    /// How many rows an audit looks at: those that are sealed, and once more those that are added up or
    /// whose signature is checked.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn rows_to_verify(&self) -> Result<u64, StoreError> {
        let mut connection = self.pool.acquire().await.while_doing(VERIFYING)?;
        let mut rows = 0_u64;
        for kind in Kind::ALL.into_iter().chain([Kind::Transfers, Kind::Jobs, Kind::Attempts]) {
            rows = rows.saturating_add(rows_there(&mut connection, kind).await?);
        }
        Ok(rows)
    }

    /// Recomputes every balance from the movements, compares each job's movements with its decision and
    /// its end, and recomputes the sums that limits are compared with.
    ///
    /// # Errors
    /// [`StoreError`] when the book cannot be read; differences are in the answer.
    pub async fn verify(&self) -> Result<Verification, StoreError> {
        self.verify_counting(&Tally::default()).await
    }

    /// The same, counting movements and jobs as they are read.
    ///
    /// # Errors
    /// [`StoreError`] when the book cannot be read; differences are in the answer.
    pub async fn verify_counting(&self, tally: &Tally) -> Result<Verification, StoreError> {
        tokio::time::timeout(VERIFYING_MAX, self.verify_all(tally)).await.map_err(|_| {
            StoreError::Unusable(format!(
                "verifying the book was given up after {} minutes, because the log beside it grows \
                 meanwhile: copy the book while no daemon runs, and verify the copy",
                VERIFYING_MAX.as_secs() / 60
            ))
        })?
    }

    async fn verify_all(&self, tally: &Tally) -> Result<Verification, StoreError> {
        // One transaction, so that the parts belong together while the writer goes on.
        let mut transaction = self.pool.begin().await.while_doing(VERIFYING)?;
        let mut found = Verification::default();
        verify_accounts(&mut transaction, &mut found, tally).await?;
        verify_jobs(&mut transaction, &mut found, tally).await?;
        verify_counts(&mut transaction, &mut found).await?;
        sums::verify_currency_totals(&mut transaction, &mut found).await?;
        sums::verify_jobs_totals(&mut transaction, &mut found).await?;
        sums::verify_daily(&mut transaction, &mut found).await?;
        facts::verify_facts(&mut transaction, &mut found).await?;
        facts::verify_switches(&mut transaction, &mut found).await?;
        feeds::verify_feeds(&mut transaction, &mut found).await?;
        Ok(found)
    }
}

async fn verify_accounts(
    connection: &mut sqlx::SqliteConnection,
    found: &mut Verification,
    tally: &Tally,
) -> Result<(), StoreError> {
    let mut recomputed: BTreeMap<i64, AccountTotals> = BTreeMap::new();
    let mut rows = sqlx::query!("SELECT debit_account, credit_account, quantity FROM transfers")
        .fetch(&mut *connection);
    while let Some(row) = rows.try_next().await.while_doing(VERIFYING)? {
        let quantity: Quantity = parse("transfers", &row.quantity)?;
        let overflow = |error| StoreError::Unreadable {
            table: "transfers",
            reason: format!("the sum of an account cannot be represented: {error}"),
        };
        recomputed.entry(row.debit_account).or_default().debit(quantity).map_err(overflow)?;
        recomputed.entry(row.credit_account).or_default().credit(quantity).map_err(overflow)?;
        found.transfers = found.transfers.saturating_add(1);
        tally.add(1);
    }
    drop(rows);

    let rows = sqlx::query!(
        r#"SELECT account_seq AS "account_seq!", connection_id, currency, kind, debits, credits,
            overdrawn AS "overdrawn!: bool"
           FROM accounts ORDER BY account_seq"#
    )
    .fetch_all(connection)
    .await
    .while_doing(VERIFYING)?;
    for row in rows {
        let stored = AccountTotals {
            debits: parse::<Total>("accounts", &row.debits)?,
            credits: parse::<Total>("accounts", &row.credits)?,
        };
        let sums = recomputed.remove(&row.account_seq).unwrap_or_default();
        let name = format!("{} {} of connection {}", row.kind, row.currency, row.connection_id);
        if stored != sums {
            found.fault(format!(
                "{name}: the book says {} out and {} in, its movements sum to {} and {}",
                stored.debits, stored.credits, sums.debits, sums.credits
            ));
        }
        let negative = stored.balance().is_negative();
        let held_or_incoming =
            row.kind == AccountKind::Held.as_str() || row.kind == AccountKind::Incoming.as_str();
        if negative && held_or_incoming {
            found.fault(format!("{name}: holds {}, which is below zero", stored.balance()));
        }
        if row.overdrawn != (negative && row.kind == AccountKind::Available.as_str()) {
            found.fault(format!(
                "{name}: holds {}, and is wrongly shown as {}overdrawn",
                stored.balance(),
                if row.overdrawn { "" } else { "not " }
            ));
        }
        found.accounts = found.accounts.saturating_add(1);
    }
    for account in recomputed.keys() {
        found.fault(format!("movements name account {account}, which does not exist"));
    }
    Ok(())
}

async fn verify_jobs(
    connection: &mut sqlx::SqliteConnection,
    found: &mut Verification,
    tally: &Tally,
) -> Result<(), StoreError> {
    let mut rows = sqlx::query!(
        r#"SELECT record_id, type AS job_type, quantity, state, outcome, final_outcome,
            (SELECT outcome FROM decisions WHERE decisions.job_seq = jobs.job_seq)
                AS "decided: String",
            (SELECT json_group_array(json_array(phase, debit.kind, credit.kind, moved.quantity))
             FROM (SELECT * FROM transfers
                   WHERE transfers.job_seq = jobs.job_seq AND phase = 'pending'
                   UNION ALL
                   SELECT * FROM transfers WHERE transfers.job_seq = jobs.job_seq
                     AND phase IN ('posted', 'voided', 'overruled')) AS moved
             JOIN accounts AS debit ON debit.account_seq = debit_account
                AND debit.connection_id = jobs.connection_id AND debit.currency = jobs.currency
             JOIN accounts AS credit ON credit.account_seq = credit_account
                AND credit.connection_id = jobs.connection_id AND credit.currency = jobs.currency)
                AS "moved!: String"
           FROM jobs ORDER BY job_seq"#
    )
    .fetch(connection);
    while let Some(row) = rows.try_next().await.while_doing(VERIFYING)? {
        found.jobs = found.jobs.saturating_add(1);
        tally.add(1);
        if row.outcome != row.decided {
            found.fault(format!(
                "record {}: the job says {:?}, its decision says {:?}",
                row.record_id, row.outcome, row.decided
            ));
        }
        let job_type: JobType = parse("jobs", &row.job_type)?;
        let quantity: Quantity = parse("jobs", &row.quantity)?;
        let outcome = row.outcome.as_deref().map(outcome_of).transpose()?;
        let end = row.final_outcome.as_deref().map(outcome_of).transpose()?;
        let mut moved: Vec<MovedRow> = serde_json::from_str(&row.moved).map_err(|error| {
            StoreError::Unreadable { table: "transfers", reason: error.to_string() }
        })?;
        // The hold first; in which order the rows are found is the database's affair.
        moved.sort_by_key(|(phase, ..)| phase != Phase::Pending.as_str());
        if let Some(fault) = movements_fault(job_type, quantity, outcome, end, &moved) {
            found.fault(format!("record {} ({}): {fault}", row.record_id, row.state));
        }
    }
    Ok(())
}

/// Phase, debit, credit and quantity of a movement, as words.
type MovedRow = (String, String, String, String);

/// What is wrong with a job's movements, if anything.
fn movements_fault(
    job_type: JobType,
    quantity: Quantity,
    outcome: Option<Outcome>,
    end: Option<Outcome>,
    moved: &[MovedRow],
) -> Option<String> {
    let mut expected = Vec::new();
    if let Some(outcome) = outcome {
        expected.extend(ledger::hold(job_type, outcome, quantity));
        if let Some(end) = end {
            // How much of a contrary deallocation was covered is not known any more; the movement
            // is checked against the most there can be.
            let most =
                crate::domain::amount::Balance::of(Total::ZERO.plus(quantity).ok()?, Total::ZERO);
            expected.extend(ledger::close(job_type, outcome, end, quantity, most).movement);
        }
    }
    // Only a deallocation can have been covered in part, or not at all.
    let may_be_partial = job_type == JobType::Deallocation
        && expected.last().is_some_and(|last| last.phase == Phase::Overruled);
    let is_part = |text: &str| text.parse::<Quantity>().is_ok_and(|moved| moved <= quantity);
    let agrees = |movement: &ledger::Movement, row: &MovedRow| {
        movement.phase.as_str() == row.0
            && movement.debit.as_str() == row.1
            && movement.credit.as_str() == row.2
            && (movement.quantity.to_string() == row.3 || (may_be_partial && is_part(&row.3)))
    };
    let complete = expected.len() == moved.len() || (may_be_partial && moved.is_empty());
    let all = expected.iter().zip(moved).all(|(movement, row)| agrees(movement, row));
    if complete && all {
        None
    } else {
        Some(format!("its movements are {moved:?}, and its decision and end ask for {expected:?}"))
    }
}

async fn verify_counts(
    connection: &mut sqlx::SqliteConnection,
    found: &mut Verification,
) -> Result<(), StoreError> {
    let rows = sqlx::query!(
        r#"SELECT job_counts.state, job_counts.type AS job_type, job_counts.jobs,
            coalesce(counted.jobs, 0) AS "counted!: i64"
           FROM job_counts LEFT JOIN
            (SELECT state, type, count(*) AS jobs FROM jobs GROUP BY state, type) AS counted
            USING (state, type)"#
    )
    .fetch_all(connection)
    .await
    .while_doing(VERIFYING)?;
    for row in rows.iter().filter(|row| row.jobs != row.counted) {
        found.fault(format!(
            "{} {}s that are {}: the book says {}",
            row.counted, row.job_type, row.state, row.jobs
        ));
    }
    Ok(())
}
