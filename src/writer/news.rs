//! Telling what was committed.

use crate::{
    domain::{feed::TotalDiffers, news::News, state::ParkReason},
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
                    "OES ended the record otherwise than decided: the book follows OES"
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
        News::ClosedByOperators { .. } | News::Switched { .. } | News::Acted(_) => {
            tell_of_operators(news, metrics);
        }
        News::Overdrawn { connection, currency, available } => {
            metrics.overdrawn();
            tracing::error!(
                %connection, %currency, %available,
                "an available balance is below zero: deallocations are released until the exchange \
                 feeds what is missing"
            );
        }
        News::FeedGap { .. }
        | News::FeedOld { .. }
        | News::SnapshotDiffers { .. }
        | News::SnapshotAgrees { .. } => tell_of_feed(news, metrics),
        News::Shortfall { record, shortfall } => {
            metrics.shortfall();
            tracing::error!(
                %record, %shortfall,
                "OES cleared a deallocation that was released here, and the book cannot cover it"
            );
        }
    }
}

/// The same for what operators did.
fn tell_of_operators(news: &News, metrics: &Metrics) {
    match news {
        News::ClosedByOperators { record, outcome, proposed_by, confirmed_by } => {
            tracing::warn!(
                %record, %outcome, proposed_by, confirmed_by,
                "two operators have said how OES ended the record: the book follows OES"
            );
        }
        News::Switched { switch, on: false, who, reason } => {
            tracing::warn!(%switch, who, reason, "switched off: {}", switch.while_off());
        }
        News::Switched { switch, on: true, who, reason } => {
            tracing::warn!(%switch, who, reason, "switched on again");
        }
        News::Acted(kind) => metrics.operator_acted(*kind),
        News::Decided { .. }
        | News::Final { .. }
        | News::Parked { .. }
        | News::Refused { .. }
        | News::Reconsidered { .. }
        | News::Frozen { .. }
        | News::Overdrawn { .. }
        | News::FeedGap { .. }
        | News::FeedOld { .. }
        | News::SnapshotDiffers { .. }
        | News::SnapshotAgrees { .. }
        | News::Shortfall { .. } => {}
    }
}

/// The same for what the exchange feeds.
fn tell_of_feed(news: &News, metrics: &Metrics) {
    match news {
        News::FeedGap { connection, gap } => {
            metrics.feed_gap();
            tracing::error!(
                %connection, %gap,
                "events of the feed are missing: the exchange must send them again"
            );
        }
        News::FeedOld { connection, sequence } => {
            tracing::warn!(
                %connection, %sequence,
                "an event of the feed has an old number under a new id: it is ignored"
            );
        }
        News::SnapshotDiffers { connection, differs } => {
            metrics.snapshot_difference();
            for TotalDiffers { currency, expected, found } in differs {
                tracing::error!(
                    %connection, %currency, %expected, %found,
                    "the exchange's snapshot differs from the book: nothing was changed. Find out who is \
                     right, and see `settled book accept-snapshot --help`"
                );
            }
        }
        News::SnapshotAgrees { connection, proves } => {
            tracing::warn!(
                %connection, proves_after_restore = proves,
                "the exchange's snapshot agrees with the book"
            );
        }
        News::Decided { .. }
        | News::Final { .. }
        | News::Parked { .. }
        | News::Refused { .. }
        | News::Reconsidered { .. }
        | News::Frozen { .. }
        | News::ClosedByOperators { .. }
        | News::Switched { .. }
        | News::Acted(_)
        | News::Overdrawn { .. }
        | News::Shortfall { .. } => {}
    }
}
