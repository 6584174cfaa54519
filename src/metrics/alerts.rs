//! What is counted of alerts and of the notices about them.

use std::collections::BTreeSet;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use super::{Metrics, ResultLabels};
use crate::{
    domain::alert::{AlertKey, AlertKind},
    store::alerts::Channel,
};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AlertLabels {
    alert: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NoticeLabels {
    channel: &'static str,
    result: &'static str,
}

#[derive(Debug, Default)]
pub(super) struct AlertMetrics {
    firing: Family<AlertLabels, Gauge>,
    notices: Family<NoticeLabels, Counter>,
    heartbeats: Family<ResultLabels, Counter>,
}

impl AlertMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        let help = "Whether the daemon's own alerts fire, by alert";
        registry.register("alert_firing", help, self.firing.clone());
        let help = "Tries to deliver notices of alerts, by channel and result";
        registry.register("alert_notices", help, self.notices.clone());
        let help = "Signs of life that were sent, by result";
        registry.register("heartbeats", help, self.heartbeats.clone());
        for kind in AlertKind::ALL {
            drop(self.firing.get_or_create(&AlertLabels { alert: kind.name() }));
        }
        for channel in Channel::ALL.map(Channel::as_str) {
            for result in ["delivered", "failed", "given_up"] {
                drop(self.notices.get_or_create(&NoticeLabels { channel, result }));
            }
        }
        for result in ["delivered", "failed"] {
            drop(self.heartbeats.get_or_create(&ResultLabels { result }));
        }
    }
}

impl Metrics {
    /// The alerts that fire now.
    pub fn alerts_firing<'k>(&self, firing: impl Iterator<Item = &'k AlertKey>) {
        let firing: BTreeSet<AlertKind> = firing.map(|key| key.kind).collect();
        for kind in AlertKind::ALL {
            let labels = AlertLabels { alert: kind.name() };
            self.alerts.firing.get_or_create(&labels).set(i64::from(firing.contains(&kind)));
        }
    }

    /// A try to deliver a notice.
    pub fn notice(&self, channel: Channel, result: &'static str) {
        let labels = NoticeLabels { channel: channel.as_str(), result };
        self.alerts.notices.get_or_create(&labels).inc();
    }

    /// A sign of life that arrived or did not.
    pub fn heartbeat(&self, arrived: bool) {
        let result = if arrived { "delivered" } else { "failed" };
        self.alerts.heartbeats.get_or_create(&ResultLabels { result }).inc();
    }
}
