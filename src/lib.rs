//! `settled`: the settlement worker of an exchange partner of BitGo's off-exchange settlement (OES).
//!
//! The modules below stand in reading order: first the rules, which know nothing of the world; then
//! the steps that apply them; then each room that touches the world; then how it is all put together
//! and what people see of it. `ARCHITECTURE.md` tells the story, and lists what must stay absent.
#![cfg_attr(
    test,
    allow(
        clippy::arithmetic_side_effects,
        clippy::wildcard_enum_match_arm,
        reason = "a test may overflow and abort, and compares with `_` what it does not list"
    )
)]

// The rules: amounts, ids, messages, policy, payload, ledger, states. Pure.
pub mod domain;

// The steps of a job, one file each, and the loops that drive them.
pub mod pipeline;

// The one task that changes the book, many changes to a commit.
pub mod writer;

// The book on disk: the only SQL.
pub mod store;

// RabbitMQ: the only AMQP.
pub mod broker;

// OES: the only HTTP that leaves the process, apart from notices of alerts and traces; and what secures the
// ways out.
pub mod oes;
pub mod outbound;
pub mod tls;

// The book compared with OES: connections, records without a job, jobs and balances.
pub mod compare;

// What people are told of, and by which ways: HTTP to a webhook, or a program.
pub mod alerts;

// The key, how secrets are read from files, and how they stay out of others.
pub mod confine;
pub mod secret_file;
pub mod signer;

// The one place that reads the time, and how far long work has come.
pub mod clock;
pub mod tally;

// What can be configured, and the parts put together, watched, and ended in order.
pub mod app;
pub mod config;

// What probes and people see: health, metrics, logs, traces, the listener, the control socket.
pub mod control;
pub mod health;
pub mod metrics;
pub mod telemetry;
pub mod traces;
pub mod web;

// What operators ask for, and the command line that asks.
pub mod book_file;
pub mod cli;
pub mod operator;

// Where tests can make the process crash.
pub mod crash;

// A stand-in for OES, for the demo, the tests and partners' own tests.
pub mod sandbox;

// The rules and the steps under faults, seed after seed, in virtual time.
#[cfg(test)]
mod simulation;
