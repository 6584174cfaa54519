//! The integration tests: one crate, a file per promise. Broker, database and HTTP are real.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test may abort, and compares with `_` what it does not list"
)]

mod architecture;
mod bad_messages;
mod broker_faults;
mod client_s_life;
mod configuration;
mod crash_points;
mod disk;
mod fairness;
mod no_job_lost;
mod one_decision;
mod operators;
mod outcomes;
mod restore;
mod schema_rules;
mod sender_stops;
mod sent_on;
mod shutdown;
mod signing_vectors;
mod support;
mod topology;
mod unknown_outcomes;
mod waiting;
mod whole_life;
