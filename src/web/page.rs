//! The operator page: what operators see and do, as HTML that the daemon writes itself.
//!
//! Handlers read what was asked for, call `operator` or the book's readers, and fill a template; whatever acts
//! goes through the same [`Operations`](crate::operator::operations::Operations) as the API and the command
//! line. Every page works without JavaScript; the little there is only refreshes what is shown.
//!
//! What must never happen here: an action without a reason, without a form of the same session, or by
//! somebody who may only look ([`guard`]); a script or style within a page; a value in a page that was not
//! escaped by its template; a request to another host.

mod actions;
mod assets;
mod attention;
mod book;
mod bulk;
mod chart;
mod failure;
mod guard;
mod job;
mod job_actions;
mod jobs;
mod layout;
mod overview;
mod quarantine;
mod reconcile;
mod runbook;
pub mod samples;
mod session;
mod shown;
mod sign_in;
mod switches;

use std::{num::NonZeroU32, sync::Arc};

use axum::{
    Router,
    middleware::{from_fn, from_fn_with_state},
    response::Redirect,
    routing::{get, post},
};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

use self::{samples::Samples, session::Sessions};
use super::{
    api::Api,
    auth::Tokens,
    limits::{Limits, keep},
};

/// Where the page is.
const HOME: &str = "/page";

/// Sign-ins that may come at once.
const SIGN_INS_AT_ONCE: NonZeroU32 = NonZeroU32::MIN.saturating_add(9);
/// Sign-ins in a second, in the long run. Right ones count as well, so that trying tells nothing.
const SIGN_INS_PER_SECOND: NonZeroU32 = NonZeroU32::MIN;

/// What the page is made from.
#[derive(Clone)]
pub struct Page {
    api: Api,
    tokens: Arc<Tokens>,
    sessions: Arc<Sessions>,
    samples: Arc<Samples>,
    /// How many may sign in, and how fast.
    sign_ins: Arc<DefaultDirectRateLimiter>,
    /// Whether browsers come over TLS.
    behind_tls: bool,
}

impl Page {
    /// A page for those who have a token. `behind_tls` says whether a proxy in front speaks TLS.
    #[must_use]
    pub fn new(api: Api, tokens: Arc<Tokens>, samples: Arc<Samples>, behind_tls: bool) -> Self {
        let quota = Quota::per_second(SIGN_INS_PER_SECOND).allow_burst(SIGN_INS_AT_ONCE);
        Self {
            api,
            tokens,
            sessions: Arc::default(),
            samples,
            sign_ins: Arc::new(RateLimiter::direct(quota)),
            behind_tls,
        }
    }

    /// The routes.
    pub(super) fn router(self) -> Router {
        let inside = Router::new()
            .route(HOME, get(overview::show))
            .route("/page/jobs", get(jobs::list))
            .route("/page/jobs/{record}", get(job::show))
            .route("/page/jobs/{record}/evidence", get(job::evidence))
            .route("/page/jobs/{record}/act", post(job_actions::act))
            .route("/page/bulk/preview", post(bulk::preview))
            .route("/page/bulk", post(bulk::act))
            .route("/page/quarantine", get(quarantine::list))
            .route("/page/quarantine/{seq}", get(quarantine::show))
            .route("/page/quarantine/{seq}/requeue", post(quarantine::requeue))
            .route("/page/book", get(book::show))
            .route("/page/switches", get(switches::show))
            .route("/page/switches/{switch}", post(switches::set))
            .route("/page/reconcile", get(reconcile::list))
            .route("/page/reconcile/{seq}", get(reconcile::show))
            .route("/page/actions", get(actions::list))
            .route("/page/runbook", get(runbook::show))
            .route("/page/sign-out", post(sign_in::sign_out))
            .route("/page/{*rest}", get(failure::no_page))
            .layer(from_fn_with_state(self.clone(), guard::admit));
        let outside = Router::new()
            .route("/", get(async || Redirect::to(HOME)))
            .route("/page/sign-in", get(sign_in::show).post(sign_in::sign_in))
            .route("/page/assets/{file}", get(assets::get));
        inside
            .merge(outside)
            .layer(from_fn(guard::same_origin))
            .layer(from_fn_with_state(Limits::of_listener(), keep))
            .layer(from_fn(guard::harden))
            .with_state(self)
    }
}
