//! Comparing the book with OES: what is done by itself, and when.

use serde::Deserialize;

/// Comparing the book with OES.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReconcileConfig {
    /// How often jobs and balances are compared; 0 for never.
    pub every_s: u64,
    /// How far back jobs are compared by that.
    pub range_s: u64,
    /// How often OES is asked for reserved records that have no job here; 0 for never.
    pub sweep_every_s: u64,
    /// How old such a record must be.
    pub sweep_age_s: u64,
    /// Whether such records are taken in by themselves, on the schedule.
    pub adopt: bool,
    /// Whether a balance that differs is a difference.
    pub balances: bool,
}

impl Default for ReconcileConfig {
    fn default() -> Self {
        Self {
            every_s: 0,
            range_s: 86_400,
            sweep_every_s: 300,
            sweep_age_s: 900,
            adopt: false,
            balances: true,
        }
    }
}
