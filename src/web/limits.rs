//! What one request may cost: how many at a time and in a second, how long, and how large.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use axum::{
    body::{Body, to_bytes},
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::sync::Semaphore;

use super::problem::Problem;

/// Requests in a second, and as many more at once.
const REQUESTS_PER_SECOND: NonZeroU32 = NonZeroU32::MIN.saturating_add(49);
/// Most requests at a time.
const REQUESTS_MAX: usize = 16;
/// How long a request may wait for its turn and be worked on.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a request's body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest body, in bytes, but for those routes that take many things.
const BODY_BYTES_MAX: usize = 64 * 1_024;

/// The limits of some routes.
#[derive(Clone, Debug)]
pub(super) struct Limits {
    rate: Option<Arc<DefaultDirectRateLimiter>>,
    at_a_time: Arc<Semaphore>,
    timeout: Option<Duration>,
    body_bytes_max: usize,
}

impl Limits {
    /// The limits of what comes over the listener.
    #[must_use]
    pub(super) fn of_listener() -> Self {
        Self {
            rate: Some(Arc::new(RateLimiter::direct(Quota::per_second(REQUESTS_PER_SECOND)))),
            ..Self::of_socket()
        }
    }

    /// The limits of what comes over the control socket, whose callers are the book's owner.
    #[must_use]
    pub(super) fn of_socket() -> Self {
        Self {
            rate: None,
            at_a_time: Arc::new(Semaphore::new(REQUESTS_MAX)),
            timeout: Some(REQUEST_TIMEOUT),
            body_bytes_max: BODY_BYTES_MAX,
        }
    }

    /// The same for a route whose body may be larger.
    #[must_use]
    pub(super) fn with_body(&self, bytes_max: usize) -> Self {
        Self { body_bytes_max: bytes_max, ..self.clone() }
    }

    /// The same for a route that asks OES for as long as that takes; it does not stand in others' way.
    #[must_use]
    pub(super) fn without_timeout(&self) -> Self {
        let at_a_time = Arc::new(Semaphore::new(1));
        Self { timeout: None, at_a_time, ..self.clone() }
    }
}

/// Lets a request through if it keeps the limits, once its body is there.
pub(super) async fn keep(State(limits): State<Limits>, request: Request, next: Next) -> Response {
    if limits.rate.as_ref().is_some_and(|rate| rate.check().is_err()) {
        let again = [(header::RETRY_AFTER, HeaderValue::from_static("1"))];
        let problem = Problem::new(
            StatusCode::TOO_MANY_REQUESTS,
            format!("more than {REQUESTS_PER_SECOND} requests in a second"),
        );
        return (again, problem).into_response();
    }
    let Some(timeout) = limits.timeout else {
        return take(limits, request, next).await;
    };
    let late = || {
        let detail = format!("not done within {} s; look before asking again", timeout.as_secs());
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).into_response()
    };
    tokio::time::timeout(timeout, take(limits, request, next)).await.unwrap_or_else(|_| late())
}

async fn take(limits: Limits, request: Request, next: Next) -> Response {
    // The semaphore is never closed.
    let Ok(_turn) = limits.at_a_time.acquire().await else {
        return Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the daemon ends").into_response();
    };
    let (parts, body) = request.into_parts();
    let read = to_bytes(body, limits.body_bytes_max);
    let body = match tokio::time::timeout(BODY_TIMEOUT, read).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => {
            let detail = format!("the body has more than {} bytes", limits.body_bytes_max);
            return Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail).into_response();
        }
        Err(_) => {
            let detail = format!("the body did not arrive within {} s", BODY_TIMEOUT.as_secs());
            return Problem::new(StatusCode::REQUEST_TIMEOUT, detail).into_response();
        }
    };
    next.run(Request::from_parts(parts, Body::from(body))).await
}
