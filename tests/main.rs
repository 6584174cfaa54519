//! The integration tests: one crate, a file per promise. Broker, database and HTTP are real.
//!
//! Broken on purpose, the code made these fail (`src/simulation.rs` lists more, for the rules):
//!
//! | what was broken | what failed |
//! |---|---|
//! | a delivery is acknowledged before its commit (`pipeline::receive`) | `no_job_lost` |
//! | after a doubtful answer the job is `decided` again without a read (`pipeline::confirm`) | 13 of `unknown_outcomes` |
//! | a decision places no hold (`pipeline::decide`) | 4 of `whole_life` |
//! | a job that disagrees with its connection is parked for another reason (`domain::policy`) | `waiting` |
//! | attempts that were under way at a crash are left alone (`writer`) | 2 of `shutdown` |
//! | the log of the last run is not written again (`store::open`) | 2 of `disk` |
//! | a socket is not shut down with its session (`broker::link`) | 2 of `broker_faults` |
//! | a blocked publisher gives its session up (`broker::publisher`) | 1 of `broker_faults` |
//! | a sync takes the exchange for agreed to every connection (`domain::sync`) | `sync` |
//! | a sync believes a list that shows no connection (`compare::sync`) | `sync` |
//! | an adopted job names the record instead of the exchange's id of it (`domain::adopt`) | 2 of `reconcile` |
//! | what is on its way explains nothing (`domain::difference`) | `reconcile` |
//! | balances are not compared (`compare::reconcile`) | `reconcile` |
//! | the book does not note which row numbers went into an archive (`store::flush`) | 2 of `archive` |
//! | a receiver that waits for deliveries counts as busy (`pipeline::receive`) | 2 of `supervised` |
//! | the service manager is told by a task of the runtime (`app::watchdog`) | `supervised` hangs |
//! | the gate is not asked before a decision (`pipeline::decide`) | 3 of `feed_gate` |
//! | an unproven connection is decided about (`pipeline::decide`) | `restore_with_feed` |
//! | an event of the feed is acknowledged before its commit (`pipeline::receive`) | `feeds`, `crash_points` |
//! | an event with an old number is applied (`domain::feed`) | `feeds` |
//! | what comes late stays part of the difference that it explains (`domain::feed`) | `feeds` |
//! | the signatures of a batch change places (`writer`) | 5 of `no_job_lost`, `whole_life` |
//! | a form of another session is taken (`web::page`) | `page` |
//! | a snapshot that differs proves a restored connection (`store::work`) | `restore_with_feed` |
//! | rows are removed without a comparison with what was copied (`store::archive`) | 1 of `archive` |
//! | a job that ended stays among the rows that are kept (`store::kept`) | 3 of `limits` |
//! | a day's sum that is kept does not follow (`store::kept`) | 4 of `limits` |
//! | whoever tells a step waits for room in the queue (`traces`) | `traces` hangs |
//! | attempts are handed to the sender before their commit (`writer::batch`) | 1 of `disk` |
//! | attempts are handed to the sender before their mark is written (`writer::batch`) | 1 of `restore` |
//! | an attempt that is not signed is left out of its commit (`store::batch`) | unit tests of `store::kept` |
//! | nonces are all the same (`pipeline::sign`) | 6 of `no_job_lost`, `whole_life` |
//! | messages are handed to the broker in the wrong order (`broker::publisher`) | 1 of `outcomes` |
//! | a consumer agrees to small frames (`broker`) | 1 of `bad_messages` |
//! | a publisher leaves its frames to the broker (`broker`) | 1 of `topology` |
//! | what came late is left out of a difference that is verified (`store::verify`) | 1 of `proof` |
//! | a batch takes one new job only while others wait (`writer`) | unit tests of `writer` |
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

mod actions;
mod alerts;
mod api;
mod architecture;
mod archive;
mod backup;
mod bad_messages;
mod broker_faults;
mod browser;
mod chaos;
mod cli_jobs;
mod cli_manual;
mod cli_progress;
mod client_s_life;
mod configuration;
mod crash_points;
mod decimals;
mod deployment;
mod disk;
mod explain;
mod fairness;
mod feed_gate;
mod feeds;
mod leaks;
mod limits;
mod metrics;
mod no_job_lost;
mod one_decision;
mod operators;
mod outcomes;
mod page;
mod proof;
mod reconcile;
mod restore;
mod restore_with_feed;
mod schema_rules;
mod sender_stops;
mod sent_on;
mod shutdown;
mod signing_vectors;
mod supervised;
mod support;
mod switches;
mod sync;
mod topology;
mod traces;
mod trust;
mod unknown_outcomes;
mod waiting;
mod whole_life;
