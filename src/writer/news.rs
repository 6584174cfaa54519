//! Telling what was committed.

use crate::{
    domain::{news::News, state::ParkReason},
    metrics::Metrics,
};

/// Logs and counts something that became true.
pub(super) fn tell(news: &News, metrics: &Metrics) {
    match news {
        News::Decided { record, job_type, outcome, reject_code } => {
            metrics.decision(*job_type, *outcome, reject_code.as_deref());
            tracing::debug!(%record, %job_type, %outcome, reject_code, "record is decided");
        }
        News::Final { record, job_type, outcome, overruled, took } => {
            metrics.job_ended(*job_type, *outcome, *took);
            let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
            if *overruled {
                tracing::warn!(
                    %record, %job_type, %outcome, took_ms,
                    "OES's policy ended the record otherwise than decided: the book follows OES"
                );
            } else {
                tracing::info!(%record, %job_type, %outcome, took_ms, "record is final");
            }
        }
        News::Parked { record, reason: ParkReason::NeedsApproval, .. } => {
            tracing::warn!(%record, "job is above the threshold: it waits for an operator's approval");
        }
        News::Parked { record, reason, why } => {
            let reason = reason.as_str();
            tracing::error!(%record, reason, why, "job is parked: an operator must look");
        }
        News::Refused { record, what } => {
            metrics.job_refused();
            tracing::error!(
                %record, what,
                "a job's message is not what OES's record says: it is quarantined, and nothing is sent. Find \
                 out who publishes to the jobs queue"
            );
        }
        News::Reconsidered { record } => {
            tracing::warn!(
                %record,
                "a message that was in quarantine, because a refused one had its record's id, is a job now"
            );
        }
        News::Frozen { record, kind } => {
            tracing::error!(
                %record,
                kind = kind.as_str(),
                "OES contradicts what was decided and sent: the record is frozen. Ask BitGo"
            );
        }
        News::Overdrawn { connection, currency, available } => {
            metrics.overdrawn();
            tracing::error!(
                %connection, %currency, %available,
                "an available balance is below zero: deallocations are released until the exchange \
                 feeds what is missing"
            );
        }
        News::Shortfall { record, shortfall } => {
            metrics.shortfall();
            tracing::error!(
                %record, %shortfall,
                "OES cleared a deallocation that was released here, and the book cannot cover it"
            );
        }
    }
}
