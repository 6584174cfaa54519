//! The API: the same over the listener, with tokens, and over the control socket.
//!
//! Handlers only read what was asked, call `operator` or `compare`, and write the answer down. Whoever acts
//! gives a reason, and their name comes from [`super::auth`], never from the request's body.
#![allow(unused_qualifications, reason = "what utoipa's macros write is not ours to shorten")]

mod actions;
mod bodies;
mod book;
mod bulk;
mod compare;
mod feeds;
mod jobs;
mod quarantine;
mod status;

use std::{path::PathBuf, sync::Arc};

use axum::{Json, Router, middleware::from_fn_with_state, routing::get};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use utoipa::OpenApi as _;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    auth::{Door, authenticate},
    limits::{Limits, keep},
    problem::Problem,
};
use crate::{
    clock::Clock,
    compare::Desk,
    domain::{
        book::{BOOK_EVENTS_MAX, EVENT_BYTES_MAX},
        ids::RecordId,
    },
    health::Checks,
    operator::operations::Operations,
    store::{Readers, StoreError, archive::open_history},
};

pub use actions::SwitchSet;
pub use bodies::{Because, BookFacts, BulkAction, BulkRequest, End, SnapshotOrder, SwitchSetting};
pub use book::BookAnswer;
pub use bulk::{ActedLine, RECORDS_MAX};
pub use compare::{ReconcileOrder, SyncOrder};
pub(super) use jobs::JobQuery;

/// What the API answers from.
#[derive(Clone)]
pub struct Api {
    /// Where the book is, with its archives beside it or elsewhere.
    pub book: PathBuf,
    /// What operators ask for.
    pub operations: Operations,
    /// The parts' health.
    pub checks: Checks,
    /// Who compares the book with OES.
    pub desk: Arc<Desk>,
    /// The bell of what archives, if anything does.
    pub archive: Option<Arc<Notify>>,
    /// Whether a name that was not proved may say how OES ended a record.
    pub trusts_names: bool,
    /// Ends what is asked for when the daemon ends.
    pub stop: CancellationToken,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

/// What the API's description begins with.
#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "settled",
        description = "What the operators of a settlement worker see and do. Times are milliseconds since \
                       the Unix epoch, quantities are whole base units as text. Every action needs a \
                       reason and is journalled with it and the name of the token."
    ),
    modifiers(&Bearer),
    security(("token" = []))
)]
struct Described;

struct Bearer;

impl utoipa::Modify for Bearer {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
        let components = openapi.components.get_or_insert_default();
        let scheme = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        components.add_security_scheme("token", scheme);
    }
}

fn quick() -> OpenApiRouter<Api> {
    OpenApiRouter::with_openapi(Described::openapi())
        .routes(routes!(status::status))
        .routes(routes!(jobs::list))
        .routes(routes!(jobs::show))
        .routes(routes!(jobs::explained))
        .routes(routes!(jobs::evidence))
        .routes(routes!(jobs::retry))
        .routes(routes!(jobs::approve))
        .routes(routes!(jobs::refuse))
        .routes(routes!(jobs::resolve))
        .routes(routes!(bulk::preview))
        .routes(routes!(bulk::act))
        .routes(routes!(book::connections))
        .routes(routes!(book::currencies))
        .routes(routes!(book::history))
        .routes(routes!(feeds::list))
        .routes(routes!(feeds::accept))
        .routes(routes!(quarantine::list))
        .routes(routes!(quarantine::show))
        .routes(routes!(quarantine::requeue))
        .routes(routes!(actions::list))
        .routes(routes!(actions::switches))
        .routes(routes!(actions::set_switch))
        .routes(routes!(compare::runs))
        .routes(routes!(compare::run))
        .routes(routes!(compare::archive))
}

fn large() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(book::events))
}

fn long() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(compare::sync)).routes(routes!(compare::reconcile))
}

/// The API's description, as it is at `/openapi.json`.
#[must_use]
pub fn description() -> utoipa::openapi::OpenApi {
    quick().merge(large()).merge(long()).split_for_parts().1
}

impl Api {
    /// What one job's history is read from: its archive is opened for those that are in one.
    pub(super) async fn history_of(&self, record: RecordId) -> Result<Readers, StoreError> {
        if self.checks.readers.is_archived(record).await? {
            open_history(&self.book).await
        } else {
            Ok(self.checks.readers.clone())
        }
    }

    /// The routes, for those who come in by a door.
    pub fn router(self, door: &Door) -> Router {
        let limits = match door {
            Door::Listener(_) => Limits::of_listener(),
            Door::Socket(_) => Limits::of_socket(),
        };
        let described = Json(description());
        // What comes first is asked last: who it is, then what it may cost.
        let kept = |router: OpenApiRouter<Self>, limits: Limits| {
            let (router, _) = router.split_for_parts();
            router
                .layer(from_fn_with_state(limits, keep))
                .layer(from_fn_with_state(door.clone(), authenticate))
        };
        let events = limits.with_body(BOOK_EVENTS_MAX.saturating_mul(EVENT_BYTES_MAX));
        kept(quick(), limits.clone())
            .merge(kept(large(), events))
            .merge(kept(long(), limits.without_timeout()))
            .with_state(self)
            .route("/openapi.json", get(async move || described.clone()))
    }
}

/// What is answered where there is no route.
pub async fn no_route() -> Problem {
    Problem::not_found("there is no such route: /openapi.json lists them")
}

/// What is answered where a route is asked in another way.
pub async fn no_method() -> Problem {
    Problem::new(
        axum::http::StatusCode::METHOD_NOT_ALLOWED,
        "the route is there, but not for this method: /openapi.json lists them",
    )
}
