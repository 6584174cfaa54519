//! `settled`: the settlement worker of an exchange partner of BitGo's off-exchange settlement.
#![cfg_attr(
    test,
    allow(
        clippy::arithmetic_side_effects,
        clippy::wildcard_enum_match_arm,
        reason = "a test may overflow and abort, and compares with `_` what it does not list"
    )
)]
pub mod clock;
pub mod domain;
pub mod secret_file;
pub mod signer;
pub mod store;
