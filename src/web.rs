//! The HTTP listener, on loopback unless configured otherwise: health and metrics for everybody, and the API
//! ([`api`]) and the operator page ([`page`]) for those who have a token ([`auth`]).
//!
//! Without `http.tokens_file` there is neither; the API is on the control socket ([`crate::control`]) anyway.
//! No answer allows another site to read it. The API looks at no cookie, so that no page of another site can
//! act through it with somebody's rights. The operator page does keep a session in a cookie; there, what
//! changes anything must come from a page of the same origin and carry a word that only a form of the same
//! session has ([`page`]).

pub mod api;
pub mod auth;
mod limits;
pub mod page;
pub mod problem;
mod schema;
pub(crate) mod serve;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower::limit::GlobalConcurrencyLimitLayer;

use self::{
    api::Api,
    auth::{Door, Tokens},
    page::Page,
};
use crate::{health::Checks, metrics::Metrics};

/// Most requests at a time; a scrape and some probes.
const REQUESTS_MAX: usize = 16;

/// The content type of the Prometheus text format.
const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Limit on a probe of another process's listener.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

/// What the listener shows.
#[derive(Clone)]
pub struct Web {
    /// The parts' health.
    pub checks: Checks,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// The API, and who may use it; nothing where nobody may.
    pub api: Option<(Api, Arc<Tokens>)>,
    /// The operator page, where there is one.
    pub page: Option<Page>,
}

impl Web {
    /// The routes.
    pub fn router(mut self) -> Router {
        let (api, page) = (self.api.take(), self.page.take());
        let router = Router::new()
            .route("/healthz", get(healthz))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .layer(GlobalConcurrencyLimitLayer::new(REQUESTS_MAX))
            .with_state(self);
        let Some((api, tokens)) = api else { return router };
        router
            .merge(api.router(&Door::Listener(tokens)))
            .merge(page.map_or_else(Router::new, Page::router))
            .fallback(api::no_route)
            .method_not_allowed_fallback(api::no_method)
    }

    /// Answers until the daemon ends.
    ///
    /// # Errors
    /// When the listener fails.
    pub async fn serve(
        self,
        listener: TcpListener,
        stop: CancellationToken,
    ) -> Result<(), std::io::Error> {
        serve::serve(listener, self.router(), stop).await
    }
}

async fn healthz(State(web): State<Web>) -> Response {
    match web.checks.stuck() {
        None => (StatusCode::OK, "ok\n").into_response(),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, reason + "\n").into_response(),
    }
}

async fn readyz(State(web): State<Web>) -> Response {
    let readiness = web.checks.readiness().await;
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(readiness)).into_response()
}

async fn metrics(State(web): State<Web>) -> Response {
    let text = match web.checks.snapshot().await {
        Ok(snapshot) => {
            web.metrics.encode(&snapshot, web.checks.clock.now()).map_err(|error| error.to_string())
        }
        Err(error) => Err(error.to_string()),
    };
    match text {
        Ok(text) => ([(CONTENT_TYPE, METRICS_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error).into_response(),
    }
}

/// Asks another process's listener whether it is alive, for container health checks.
///
/// # Errors
/// A reason, when it is not.
pub async fn probe(address: SocketAddr) -> Result<(), String> {
    // Plain HTTP to ourselves: TLS is not wanted, and system certificates may be missing.
    crate::tls::use_ring();
    let client = reqwest::Client::builder()
        .timeout(PROBE_TIMEOUT)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .tls_certs_only([])
        .build()
        .map_err(|error| error.to_string())?;
    // A listener on every address is asked on loopback.
    let host = if address.ip().is_unspecified() {
        SocketAddr::from(([127, 0, 0, 1], address.port()))
    } else {
        address
    };
    let answer = client
        .get(format!("http://{host}/healthz"))
        .send()
        .await
        .map_err(|error| error.to_string())?;
    match answer.status() {
        StatusCode::OK => Ok(()),
        status => Err(format!("{host} answers {status}")),
    }
}
