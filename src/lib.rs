//! `settled`: the settlement worker of an exchange partner of BitGo's off-exchange settlement.
#![cfg_attr(
    test,
    allow(
        clippy::arithmetic_side_effects,
        clippy::wildcard_enum_match_arm,
        reason = "a test may overflow and abort, and compares with `_` what it does not list"
    )
)]
pub mod app;
pub mod book_file;
pub mod broker;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod domain;
pub mod health;
pub mod metrics;
pub mod oes;
pub mod operator;
pub mod pipeline;
pub mod sandbox;
pub mod secret_file;
pub mod signer;
pub mod store;
pub mod telemetry;
pub mod web;
pub mod writer;
