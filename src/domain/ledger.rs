//! The movements that a decision and its confirmation make in the book.
//!
//! Every movement is one debit account, one credit account and one quantity, so it balances by
//! construction. A cleared record moves in two phases: *pending* at the decision, *posted* when OES
//! has confirmed or *voided* when it ended otherwise. A client never trades on an unconfirmed
//! allocation, and a deallocated amount is out of reach from the decision on.
//!
//! | record | pending | posted | voided |
//! |---|---|---|---|
//! | allocation cleared | `oes` → `incoming` | `incoming` → `available` | `incoming` → `oes` |
//! | deallocation cleared | `available` → `held` | `held` → `oes` | `held` → `available` |
//! | released | – | – | – |

use std::fmt;

use serde::Serialize;

use super::{
    amount::{AmountError, Balance, Quantity, Total},
    decision::Outcome,
    ids::{ConnectionId, CurrencyCode},
    job::JobType,
};

/// One of the five accounts that a connection has in each currency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AccountKind {
    /// What the client may trade with or take back.
    Available,
    /// Leaving: decided deallocations that OES has not confirmed.
    Held,
    /// Arriving: decided allocations that OES has not confirmed.
    Incoming,
    /// Contra account: what OES moved in less what it moved out.
    Oes,
    /// Contra account: what the exchange's own feed moved.
    Exchange,
}

impl AccountKind {
    /// All kinds, in the order in which they are shown.
    pub const ALL: [Self; 5] =
        [Self::Available, Self::Held, Self::Incoming, Self::Oes, Self::Exchange];

    /// The word that rows use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Available => "available",
            Self::Held => "held",
            Self::Incoming => "incoming",
            Self::Oes => "oes",
            Self::Exchange => "exchange",
        }
    }
}

impl fmt::Display for AccountKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which account.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AccountKey {
    /// The connection at BitGo.
    pub connection_id: ConnectionId,
    /// The currency.
    pub currency: CurrencyCode,
    /// Which of the five.
    pub kind: AccountKind,
}

/// The two lifetime sums of an account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AccountTotals {
    /// All that left.
    pub debits: Total,
    /// All that came in.
    pub credits: Total,
}

impl AccountTotals {
    /// What the account holds now.
    #[must_use]
    pub fn balance(&self) -> Balance {
        Balance::of(self.credits, self.debits)
    }

    /// Takes `quantity` out.
    ///
    /// # Errors
    /// [`AmountError::Overflow`] when the lifetime sum cannot be represented.
    pub fn debit(&mut self, quantity: Quantity) -> Result<(), AmountError> {
        self.debits = self.debits.plus(quantity)?;
        Ok(())
    }

    /// Puts `quantity` in.
    ///
    /// # Errors
    /// [`AmountError::Overflow`] when the lifetime sum cannot be represented.
    pub fn credit(&mut self, quantity: Quantity) -> Result<(), AmountError> {
        self.credits = self.credits.plus(quantity)?;
        Ok(())
    }
}

/// What a movement is in the life of its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// The hold that is placed with the decision.
    Pending,
    /// The hold became final as decided.
    Posted,
    /// The hold went back.
    Voided,
    /// OES ended the record otherwise than decided, and nothing was held for that.
    Overruled,
    /// A fed fact.
    Adjusted,
}

impl Phase {
    /// All phases, for tests.
    pub const ALL: [Self; 5] =
        [Self::Pending, Self::Posted, Self::Voided, Self::Overruled, Self::Adjusted];

    /// The word that rows use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Posted => "posted",
            Self::Voided => "voided",
            Self::Overruled => "overruled",
            Self::Adjusted => "adjusted",
        }
    }
}

/// One movement between two accounts of a connection in a currency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Movement {
    /// Its place in the life of the record.
    pub phase: Phase,
    /// Where the quantity leaves.
    pub debit: AccountKind,
    /// Where it arrives.
    pub credit: AccountKind,
    /// How much, base units; never zero.
    pub quantity: Quantity,
}

/// The hold that a decision places, if it moves anything.
#[must_use]
pub fn hold(job_type: JobType, decided: Outcome, quantity: Quantity) -> Option<Movement> {
    let (debit, credit) = match (job_type, decided) {
        (JobType::Allocation, Outcome::Cleared) => (AccountKind::Oes, AccountKind::Incoming),
        (JobType::Deallocation, Outcome::Cleared) => (AccountKind::Available, AccountKind::Held),
        (JobType::Allocation | JobType::Deallocation, Outcome::Released) => return None,
    };
    Some(Movement { phase: Phase::Pending, debit, credit, quantity })
}

/// What closes a record in the book.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closing {
    /// The movement, if there is one.
    pub movement: Option<Movement>,
    /// The part that the book could not take because the client no longer has it; alerted.
    pub shortfall: Quantity,
}

/// Brings the book in step with how the record ended at OES: `actual` is the decision, or the
/// outcome that overruled it. `available` is the connection's balance before this movement.
#[must_use]
pub fn close(
    job_type: JobType,
    decided: Outcome,
    actual: Outcome,
    quantity: Quantity,
    available: Balance,
) -> Closing {
    use AccountKind::{Available, Held, Incoming, Oes};
    let (phase, debit, credit) = match (decided, actual, job_type) {
        (Outcome::Released, Outcome::Released, _) => {
            return Closing { movement: None, shortfall: Quantity::ZERO };
        }
        (Outcome::Cleared, Outcome::Cleared, JobType::Allocation) => {
            (Phase::Posted, Incoming, Available)
        }
        (Outcome::Cleared, Outcome::Cleared, JobType::Deallocation) => (Phase::Posted, Held, Oes),
        (Outcome::Cleared, Outcome::Released, JobType::Allocation) => {
            (Phase::Voided, Incoming, Oes)
        }
        (Outcome::Cleared, Outcome::Released, JobType::Deallocation) => {
            (Phase::Voided, Held, Available)
        }
        (Outcome::Released, Outcome::Cleared, JobType::Allocation) => {
            (Phase::Overruled, Oes, Available)
        }
        (Outcome::Released, Outcome::Cleared, JobType::Deallocation) => {
            return take_covered(quantity, available);
        }
    };
    Closing {
        movement: Some(Movement { phase, debit, credit, quantity }),
        shortfall: Quantity::ZERO,
    }
}

/// OES cleared a deallocation that was released here: what is available goes, the rest is short.
fn take_covered(quantity: Quantity, available: Balance) -> Closing {
    let covered = available.covered_part(quantity);
    let movement = (!covered.is_zero()).then_some(Movement {
        phase: Phase::Overruled,
        debit: AccountKind::Available,
        credit: AccountKind::Oes,
        quantity: covered,
    });
    Closing { movement, shortfall: quantity.less(covered) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    type Accounts = BTreeMap<AccountKind, AccountTotals>;

    fn apply(accounts: &mut Accounts, movement: Movement) {
        accounts.entry(movement.debit).or_default().debit(movement.quantity).unwrap();
        accounts.entry(movement.credit).or_default().credit(movement.quantity).unwrap();
    }

    fn balance(accounts: &Accounts, kind: AccountKind) -> i128 {
        accounts
            .get(&kind)
            .map_or(0, |totals| totals.balance().to_string().parse().expect("small in tests"))
    }

    fn with_available(quantity: u64) -> Accounts {
        let mut accounts = Accounts::new();
        if quantity > 0 {
            apply(
                &mut accounts,
                Movement {
                    phase: Phase::Adjusted,
                    debit: AccountKind::Exchange,
                    credit: AccountKind::Available,
                    quantity: Quantity::from(quantity),
                },
            );
        }
        accounts
    }

    proptest! {
        /// The table at the top of this module, checked as effects rather than as legs.
        #[test]
        fn every_record_ends_with_the_book_as_oes_has_it(
            quantity in 1_u64..1_000,
            spare in 0_u64..1_000,
            deallocation: bool,
            decided_cleared: bool,
            actually_cleared: bool,
        ) {
            let job_type =
                if deallocation { JobType::Deallocation } else { JobType::Allocation };
            let outcome = |cleared| if cleared { Outcome::Cleared } else { Outcome::Released };
            let (decided, actual) = (outcome(decided_cleared), outcome(actually_cleared));
            // The policy clears a deallocation only if it is covered.
            let before = if deallocation && decided_cleared { quantity + spare } else { spare };
            let mut accounts = with_available(before);

            if let Some(movement) = hold(job_type, decided, Quantity::from(quantity)) {
                apply(&mut accounts, movement);
            }
            if !deallocation {
                prop_assert_eq!(balance(&accounts, AccountKind::Available), i128::from(before));
            }
            let available = accounts.get(&AccountKind::Available).copied().unwrap_or_default();
            let closing =
                close(job_type, decided, actual, Quantity::from(quantity), available.balance());
            if let Some(movement) = closing.movement {
                apply(&mut accounts, movement);
            }

            prop_assert_eq!(balance(&accounts, AccountKind::Held), 0);
            prop_assert_eq!(balance(&accounts, AccountKind::Incoming), 0);
            let shortfall: i128 = closing.shortfall.to_string().parse().unwrap();
            let moved = if actually_cleared { i128::from(quantity) - shortfall } else { 0 };
            let signed = if deallocation { -moved } else { moved };
            prop_assert_eq!(
                balance(&accounts, AccountKind::Available),
                i128::from(before) + signed
            );
            prop_assert_eq!(balance(&accounts, AccountKind::Oes), -signed);
            prop_assert!(balance(&accounts, AccountKind::Available) >= 0);
            if shortfall > 0 {
                prop_assert!(deallocation && !decided_cleared && actually_cleared);
                prop_assert_eq!(balance(&accounts, AccountKind::Available), 0);
            }
            let sum: i128 = AccountKind::ALL.iter().map(|kind| balance(&accounts, *kind)).sum();
            prop_assert_eq!(sum, 0);
        }
    }

    #[test]
    fn released_places_no_hold() {
        for job_type in JobType::ALL {
            assert_eq!(hold(job_type, Outcome::Released, Quantity::from(1)), None);
        }
    }
}
