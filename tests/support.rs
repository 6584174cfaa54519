//! What the tests stand on: a real broker, the sandbox over real HTTP, and the daemon, in this
//! process or as the real binary.

pub(crate) mod api;
pub(crate) mod broker;
pub(crate) mod browser;
pub(crate) mod daemon;
pub(crate) mod feed;
pub(crate) mod node;
pub(crate) mod power;
pub(crate) mod proxy;
pub(crate) mod receiver;
pub(crate) mod recording;
pub(crate) mod spans;
pub(crate) mod tamper;
pub(crate) mod wire;
pub(crate) mod world;

use std::{future::Future, time::Duration};

/// How long a condition may take to come true before a test fails. Generous: the machines are slow,
/// and a condition that holds earlier is noticed earlier.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(10);

/// Looks again and again until something is there; fails with `what` if it never is.
pub(crate) async fn eventually<T, F>(what: &str, look: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    eventually_or(what, async || String::new(), look).await
}

/// The same, and says when it fails what can be seen then.
pub(crate) async fn eventually_or<T, F>(
    what: &str,
    explain: impl AsyncFnOnce() -> String,
    mut look: impl FnMut() -> F,
) -> T
where
    F: Future<Output = Option<T>>,
{
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        let in_time = tokio::time::Instant::now() < deadline;
        assert!(in_time, "waited in vain for {what} {}", explain().await);
        tokio::time::sleep(LOOK_AGAIN_AFTER).await;
    }
}
