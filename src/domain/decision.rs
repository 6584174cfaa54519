//! The answer about one record. Once committed it never changes.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::verification::Ended;

/// What happens to the record at OES; both are terminal there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It happened.
    Cleared,
    /// It did not; the funds return to where they were.
    Released,
}

impl Outcome {
    /// Both outcomes, for listings and tests.
    pub const ALL: [Self; 2] = [Self::Cleared, Self::Released];

    /// The word that OES, rows and metrics use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cleared => "cleared",
            Self::Released => "released",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a record is released. The client at the other end may read the text, so it holds no
/// balance, no limit and nothing of the inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RejectCode {
    /// The book has no such connection, and the grace has passed.
    ConnectionUnknown,
    /// The connection is switched off.
    ConnectionInactive,
    /// The currency is not in the book or switched off.
    CurrencyNotEnabled,
    /// Below the currency's smallest quantity.
    QuantityTooSmall,
    /// Above the currency's largest quantity.
    QuantityTooLarge,
    /// An allocation that would take the connection above its exposure cap.
    ExposureOfConnection,
    /// An allocation that would take all connections together above the currency's exposure cap.
    ExposureTotal,
    /// More than the connection's cap for the day.
    DailyLimit,
    /// A deallocation of more than the connection has available.
    InsufficientAvailable,
    /// It needed an operator's approval, and an operator refused it.
    OperatorRefused,
    /// OES had released it before it was decided here.
    ReleasedAtOes,
}

impl RejectCode {
    /// All codes, for metrics and tests.
    pub const ALL: [Self; 11] = [
        Self::ConnectionUnknown,
        Self::ConnectionInactive,
        Self::CurrencyNotEnabled,
        Self::QuantityTooSmall,
        Self::QuantityTooLarge,
        Self::ExposureOfConnection,
        Self::ExposureTotal,
        Self::DailyLimit,
        Self::InsufficientAvailable,
        Self::OperatorRefused,
        Self::ReleasedAtOes,
    ];

    /// One word for rows and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ConnectionUnknown => "connection_unknown",
            Self::ConnectionInactive => "connection_inactive",
            Self::CurrencyNotEnabled => "currency_not_enabled",
            Self::QuantityTooSmall => "quantity_too_small",
            Self::QuantityTooLarge => "quantity_too_large",
            Self::ExposureOfConnection => "exposure_of_connection",
            Self::ExposureTotal => "exposure_total",
            Self::DailyLimit => "daily_limit",
            Self::InsufficientAvailable => "insufficient_available",
            Self::OperatorRefused => "operator_refused",
            Self::ReleasedAtOes => "released_at_oes",
        }
    }

    /// The `rejectReason` that is signed and sent.
    #[must_use]
    pub const fn reject_reason(self) -> &'static str {
        match self {
            Self::ConnectionUnknown => "The connection is not known to the exchange.",
            Self::ConnectionInactive => "The connection is not active on the exchange.",
            Self::CurrencyNotEnabled => "The currency is not enabled on the exchange.",
            Self::QuantityTooSmall => "The quantity is below the smallest that is accepted.",
            Self::QuantityTooLarge => "The quantity is above the largest that is accepted.",
            Self::ExposureOfConnection => {
                "The quantity would take the connection above what the exchange accepts of it."
            }
            Self::ExposureTotal => "The exchange cannot accept more of the currency at present.",
            Self::DailyLimit => "The quantity is above what is left of the connection's day.",
            Self::InsufficientAvailable => "The available balance does not cover the quantity.",
            Self::OperatorRefused => "The exchange has declined the request.",
            Self::ReleasedAtOes => "The request was released at BitGo.",
        }
    }
}

impl fmt::Display for RejectCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A decision. `released` always has its reason, `cleared` never has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The record is cleared.
    Cleared,
    /// The record is released.
    Released {
        /// The rule that released it, one word. Text, because a row may be older than this program.
        code: String,
        /// The reason as signed, for the client.
        reject_reason: String,
    },
}

impl Decision {
    /// A release for one of the policy's reasons.
    #[must_use]
    pub fn released(code: RejectCode) -> Self {
        Self::Released {
            code: code.as_str().to_owned(),
            reject_reason: code.reject_reason().to_owned(),
        }
    }

    /// What OES has decided already, with its reason.
    #[must_use]
    pub fn of_oes(ended: &Ended) -> Self {
        match ended.outcome {
            Outcome::Cleared => Self::Cleared,
            Outcome::Released => {
                let code = RejectCode::ReleasedAtOes;
                let reason = ended.reason.as_deref().unwrap_or(code.reject_reason());
                Self::Released { code: code.as_str().to_owned(), reject_reason: reason.to_owned() }
            }
        }
    }

    /// Cleared or released.
    #[must_use]
    pub const fn outcome(&self) -> Outcome {
        match self {
            Self::Cleared => Outcome::Cleared,
            Self::Released { .. } => Outcome::Released,
        }
    }

    /// The reason as signed, if there is one.
    #[must_use]
    pub fn reject_reason(&self) -> Option<&str> {
        match self {
            Self::Cleared => None,
            Self::Released { reject_reason, .. } => Some(reject_reason),
        }
    }

    /// The rule that released the record, if one did.
    #[must_use]
    pub fn reject_code(&self) -> Option<&str> {
        match self {
            Self::Cleared => None,
            Self::Released { code, .. } => Some(code),
        }
    }
}

/// Who has decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DecidedBy {
    /// The policy alone.
    Policy,
    /// The policy, after an operator's word.
    Operator {
        /// The person, as far as the system knows.
        who: String,
        /// What they said about it.
        reason: String,
    },
    /// OES, which had ended the record before.
    Oes,
}
