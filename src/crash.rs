//! Places at which a test can end the process as a crash would: no destructor runs, nothing is flushed.
//!
//! They stand after everything that became durable and before everything that leaves, because between
//! those two a crash must neither lose nor repeat anything. Others are places at which a part of the
//! daemon can be made to hang. A release build has none of them.

/// Every place, in the order in which a job passes it.
pub const POINTS: [&str; 18] = [
    "book_opened",
    "attempts_doubted",
    "before_commit",
    "after_commit_of_record",
    "after_commit_of_quarantine",
    "before_mark",
    "after_mark",
    "before_ack",
    "after_ack",
    "before_send",
    "after_answer",
    "after_commit_of_finish",
    "before_read",
    "after_commit_of_settle_reads",
    "after_commit_of_prepare",
    "before_publish",
    "after_publish",
    "after_commit_of_published",
];

/// The places of archiving, which no job passes.
pub const ARCHIVE_POINTS: [&str; 3] =
    ["archive_copied", "archive_committed", "after_commit_of_archive"];

/// The places of the exchange's feed, which no job passes.
pub const FEED_POINTS: [&str; 4] =
    ["before_commit", "after_commit_of_feed", "before_feed_ack", "after_feed_ack"];

/// The places of telling people, which no job passes.
pub const ALERT_POINTS: [&str; 2] = ["before_notice", "after_notice"];

/// What asks for a crash: the name of a place, or `NAME:3` for the third time it is passed.
#[cfg(debug_assertions)]
const CRASH_AT: &str = "SETTLED_CRASH_AT";

/// Ends the process here if a test has asked for it.
#[cfg(debug_assertions)]
pub fn point(name: &str) {
    use std::sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    };
    static WANTED: LazyLock<Option<(String, u64)>> = LazyLock::new(|| {
        let text = std::env::var(CRASH_AT).ok()?;
        let (name, time) = text.split_once(':').unwrap_or((&text, "1"));
        Some((name.to_owned(), time.parse().ok()?))
    });
    static PASSED: AtomicU64 = AtomicU64::new(0);
    if let Some((wanted, time)) = &*WANTED
        && wanted == name
        && PASSED.fetch_add(1, Ordering::Relaxed).saturating_add(1) == *time
    {
        std::process::abort();
    }
}

/// Nothing, in a build that is not for tests.
#[cfg(not(debug_assertions))]
#[inline]
pub fn point(_name: &str) {}

/// The parts that can be made to hang at their work.
pub const STALLS: [&str; 7] =
    ["receiver", "verifier", "decider", "feeder", "sender", "resolver", "announcer"];

/// What asks for a part to hang: its name, or `mark` for what stands between a commit and its sends.
#[cfg(debug_assertions)]
const STALL_AT: &str = "SETTLED_STALL_AT";

/// Never goes on from here if a test has asked for that. The other parts do.
#[cfg(debug_assertions)]
pub async fn stall(part: &str) {
    static WANTED: std::sync::LazyLock<Option<String>> =
        std::sync::LazyLock::new(|| std::env::var(STALL_AT).ok());
    if WANTED.as_deref() == Some(part) {
        std::future::pending::<()>().await;
    }
}

/// Nothing, in a build that is not for tests.
#[cfg(not(debug_assertions))]
#[inline]
pub async fn stall(_part: &str) {}
