//! The control socket: how a command reaches the daemon that holds the book.
//!
//! HTTP over a Unix socket with mode 0600 beside the database: whoever may open it may change the
//! book, as whoever may write the database file may.

use std::{
    io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use reqwest::{Method, RequestBuilder, header};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json, value::RawValue};
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::{
    compare::{
        reconcile::{ReconcileReport, ReconcileRequest},
        sync::{SyncReport, SyncRequest},
    },
    domain::{
        action::{Operator, Switch},
        ids::{ConnectionId, QuarantineSeq, RecordId},
    },
    operator::operations::Requeueing,
    pipeline::accept::SnapshotAcceptance,
    store::work::BookEventOutcome,
    web::{
        api::{
            self, ActedLine, Api, Because, BookAnswer, BookFacts, BulkRequest, ReconcileOrder,
            SnapshotOrder, SwitchSet, SwitchSetting, SyncOrder,
        },
        auth::{Door, Tokens, WHO_HEADER},
        problem::Problem,
        serve,
    },
    writer::{Acted, JobAction},
};

/// Permissions of the socket: its owner's only.
const SOCKET_MODE: u32 = 0o600;

/// Limit on a request to the daemon.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// Limit on a comparison with OES, which asks for many pages at a measured pace.
const COMPARISON_TIMEOUT: Duration = Duration::from_secs(4 * 3_600);

/// Why a command did not reach the daemon, or was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The socket is not there or nobody listens.
    #[error("the process that holds the book does not answer at {socket}: {reason}")]
    Unreachable {
        /// The socket.
        socket: PathBuf,
        /// What happened.
        reason: String,
    },
    /// The daemon answered that it could not.
    #[error("the daemon refused: {0}")]
    Refused(String),
}

/// Listens at `path`; a socket that a dead daemon left there is replaced. The caller holds the book's
/// lock, so no live daemon is behind it.
///
/// # Errors
/// When the socket cannot be made.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(SOCKET_MODE))?;
    Ok(listener)
}

/// Answers at the socket until the daemon ends.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    api: Api,
    tokens: Option<Arc<Tokens>>,
    listener: UnixListener,
    stop: CancellationToken,
) -> io::Result<()> {
    let router = api
        .router(&Door::Socket(tokens))
        .fallback(api::no_route)
        .method_not_allowed_fallback(api::no_method);
    serve::serve(listener, router, stop).await
}

/// Who uses a client: by the name they give, or by the token that proves it.
#[derive(Clone)]
pub struct Caller {
    /// The name.
    pub who: String,
    /// The token; without one the name is only said.
    pub token: Option<Zeroizing<String>>,
}

/// Reaches the daemon that holds a book.
pub struct ControlClient {
    socket: PathBuf,
    http: reqwest::Client,
    caller: Caller,
}

/// A fault of what was to be sent.
fn unsendable(error: impl std::fmt::Display) -> ControlError {
    ControlError::Refused(error.to_string())
}

impl ControlClient {
    /// A client of the daemon whose socket is at `socket`.
    ///
    /// # Errors
    /// [`ControlError::Unreachable`] when the client cannot be made.
    pub fn new(socket: &Path, caller: Caller) -> Result<Self, ControlError> {
        crate::tls::use_ring();
        let http = reqwest::Client::builder()
            .unix_socket(socket)
            .timeout(REQUEST_TIMEOUT)
            .no_proxy()
            .tls_certs_only([])
            .build()
            .map_err(|error| ControlError::Unreachable {
                socket: socket.to_owned(),
                reason: error.to_string(),
            })?;
        Ok(Self { socket: socket.to_owned(), http, caller })
    }

    /// Has the daemon take facts into its book; they are committed together.
    ///
    /// # Errors
    /// [`ControlError`]; nothing is changed if the daemon refused.
    pub async fn apply_book_events(
        &self,
        source: &str,
        events: &[String],
    ) -> Result<Vec<BookEventOutcome>, ControlError> {
        let events = events.iter().map(|event| RawValue::from_string(event.clone()));
        let events = events.collect::<Result<_, _>>().map_err(unsendable)?;
        let facts = BookFacts { source: source.to_owned(), events };
        let answer: BookAnswer = self.ask(Method::POST, "/v1/book/events", &facts).await?;
        Ok(answer.outcomes)
    }

    /// Has the daemon compare connections and currencies with OES.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn sync(
        &self,
        request: &SyncRequest,
        reason: &str,
    ) -> Result<SyncReport, ControlError> {
        let order = SyncOrder {
            apply: request.apply,
            activate: request.activate.clone(),
            reason: reason.to_owned(),
        };
        let request = self.request(Method::POST, "/v1/book/sync", &order)?;
        self.exchange(request.timeout(COMPARISON_TIMEOUT)).await
    }

    /// Has the daemon compare jobs and balances with OES.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn reconcile(
        &self,
        request: &ReconcileRequest,
        reason: &str,
    ) -> Result<ReconcileReport, ControlError> {
        let order = ReconcileOrder {
            since_ms: request.since_ms,
            until_ms: request.until_ms,
            adopt: request.adopt,
            reason: reason.to_owned(),
        };
        let request = self.request(Method::POST, "/v1/reconcile", &order)?;
        self.exchange(request.timeout(COMPARISON_TIMEOUT)).await
    }

    /// Has the daemon carry an action out on jobs.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn act(
        &self,
        action: JobAction,
        records: &[RecordId],
        by: &Operator,
    ) -> Result<Vec<(RecordId, Acted)>, ControlError> {
        let request = BulkRequest::new(action, records, by);
        let lines: Vec<ActedLine> = self.ask(Method::POST, "/v1/bulk", &request).await?;
        Ok(lines.into_iter().map(|line| (line.record_id, line.became)).collect())
    }

    /// Has the daemon put a quarantined message back in.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn requeue(
        &self,
        message: QuarantineSeq,
        reason: &str,
    ) -> Result<Requeueing, ControlError> {
        let why = Because { reason: reason.to_owned() };
        self.ask(Method::POST, &format!("/v1/quarantine/{message}/requeue"), &why).await
    }

    /// Has the daemon set a switch. Answers whether that changed anything.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn set_switch(
        &self,
        switch: Switch,
        on: bool,
        reason: &str,
    ) -> Result<bool, ControlError> {
        let setting = SwitchSetting { on, reason: reason.to_owned() };
        let path = format!("/v1/switches/{switch}");
        let set: SwitchSet = self.ask(Method::PUT, &path, &setting).await?;
        Ok(set.changed)
    }

    /// Has the daemon accept connections as the exchange states them.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn accept_snapshots(
        &self,
        connections: &[ConnectionId],
        reason: &str,
    ) -> Result<Vec<SnapshotAcceptance>, ControlError> {
        let order = SnapshotOrder { connections: connections.to_vec(), reason: reason.to_owned() };
        self.ask(Method::POST, "/v1/book/accept-snapshot", &order).await
    }

    /// Has the daemon archive now what is old enough; it does not wait for the end of it.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn archive(&self, reason: &str) -> Result<(), ControlError> {
        let why = Because { reason: reason.to_owned() };
        let _told: Value = self.ask(Method::POST, "/v1/archive", &why).await?;
        Ok(())
    }

    /// Asks the daemon what it says of itself.
    ///
    /// # Errors
    /// [`ControlError::Unreachable`] when no daemon answers.
    pub async fn status(&self) -> Result<Value, ControlError> {
        let mut status: Value = self.ask(Method::GET, "/v1/status", &json!(null)).await?;
        Ok(status.get_mut("daemon").map(Value::take).unwrap_or_default())
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ControlError> {
        self.exchange(self.request(method, path, body)?).await
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<RequestBuilder, ControlError> {
        let body = serde_json::to_string(body).map_err(unsendable)?;
        let who = header::HeaderValue::from_bytes(self.caller.who.as_bytes());
        let mut request = self
            .http
            .request(method, format!("http://settled{path}"))
            .header(WHO_HEADER, who.map_err(unsendable)?)
            .header(header::CONTENT_TYPE, "application/json")
            .body(body);
        if let Some(token) = &self.caller.token {
            request = request.bearer_auth(token.as_str());
        }
        Ok(request)
    }

    async fn exchange<T: DeserializeOwned>(
        &self,
        request: RequestBuilder,
    ) -> Result<T, ControlError> {
        let unreachable = |error: reqwest::Error| ControlError::Unreachable {
            socket: self.socket.clone(),
            reason: error.to_string(),
        };
        let answer = request.send().await.map_err(unreachable)?;
        let status = answer.status();
        let body = answer.bytes().await.map_err(unreachable)?;
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(unsendable);
        }
        let reason = serde_json::from_slice::<Problem>(&body)
            .map_or_else(|_| format!("status {status}"), |problem| problem.detail().to_owned());
        Err(ControlError::Refused(reason))
    }
}
