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

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Path as PathOf, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::{net::UnixListener, sync::Notify};
use tokio_util::sync::CancellationToken;

use crate::{
    compare::{
        CompareError, Desk,
        reconcile::{ReconcileReport, ReconcileRequest},
        sync::{SyncReport, SyncRequest},
    },
    domain::{book::BookEvent, ids::RecordId, policy::OperatorWord},
    health::{Checks, Readiness},
    pipeline::{
        approve::Approval,
        send_on::{Operator, SentOn},
    },
    store::work::BookEventOutcome,
    writer::{WriterGone, WriterHandle},
};

/// Most book events in one request; they share a transaction.
pub const BOOK_EVENTS_MAX: usize = 500;

/// Largest request, in bytes: the most events, each of its largest size.
const REQUEST_BYTES_MAX: usize = BOOK_EVENTS_MAX * crate::domain::book::EVENT_BYTES_MAX;

/// Permissions of the socket: its owner's only.
const SOCKET_MODE: u32 = 0o600;

/// Limit on a request to the daemon.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// Limit on a comparison with OES, which asks for many pages at a measured pace.
const COMPARISON_TIMEOUT: Duration = Duration::from_secs(4 * 3_600);

/// What the socket serves.
#[derive(Clone)]
pub struct Control {
    /// Who changes the book.
    pub writer: WriterHandle,
    /// The parts' health.
    pub checks: Checks,
    /// The bell of what archives, if anything does.
    pub archive: Option<Arc<Notify>>,
    /// Who compares the book with OES.
    pub desk: Arc<Desk>,
    /// Ends what is asked for when the daemon ends.
    pub stop: CancellationToken,
}

/// A request to take facts into the book.
#[derive(Serialize, Deserialize)]
struct BookRequest {
    source: String,
    events: Vec<Box<RawValue>>,
}

/// What became of each fact, in order.
#[derive(Serialize, Deserialize)]
struct BookAnswer {
    outcomes: Vec<BookEventOutcome>,
}

/// The daemon has been told to archive.
#[derive(Serialize, Deserialize)]
struct Rung {
    archiving: bool,
}

#[derive(Serialize, Deserialize)]
struct Fault {
    error: String,
}

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

impl Control {
    /// Answers until the daemon ends.
    ///
    /// # Errors
    /// When the listener fails.
    pub async fn serve(self, listener: UnixListener, stop: CancellationToken) -> io::Result<()> {
        let router = Router::new()
            .route("/v1/book/events", post(book_events))
            .route("/v1/jobs/{record}/send-on", post(send_on))
            .route("/v1/archive", post(archive))
            .route("/v1/jobs/{record}/approve", post(approve))
            .route("/v1/jobs/{record}/refuse", post(refuse))
            .route("/v1/book/sync", post(sync))
            .route("/v1/reconcile", post(reconcile))
            .route("/readyz", get(readyz))
            .layer(DefaultBodyLimit::max(REQUEST_BYTES_MAX))
            .with_state(self);
        axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await
    }
}

async fn readyz(State(control): State<Control>) -> Json<Readiness> {
    Json(control.checks.readiness().await)
}

async fn sync(State(control): State<Control>, body: String) -> Response {
    let desk = Arc::clone(&control.desk);
    let work = |request: SyncRequest| async move { desk.sync(&request).await };
    compare(&control.stop, &body, work).await
}

async fn reconcile(State(control): State<Control>, body: String) -> Response {
    let desk = Arc::clone(&control.desk);
    let work = |request: ReconcileRequest| async move { desk.reconcile(&request).await };
    compare(&control.stop, &body, work).await
}

/// Compares as the body asks, unless the daemon ends before that is done.
async fn compare<Q, A, F>(
    stop: &CancellationToken,
    body: &str,
    work: impl FnOnce(Q) -> F,
) -> Response
where
    Q: serde::de::DeserializeOwned,
    A: Serialize,
    F: Future<Output = Result<A, CompareError>>,
{
    let fault = |status: StatusCode, error: String| (status, Json(Fault { error })).into_response();
    let request = match serde_json::from_str(body) {
        Ok(request) => request,
        Err(error) => return fault(StatusCode::BAD_REQUEST, error.to_string()),
    };
    let done = tokio::select! {
        () = stop.cancelled() => Err(CompareError::Ending),
        done = work(request) => done,
    };
    match done {
        Ok(report) => Json(report).into_response(),
        Err(error) => fault(StatusCode::BAD_GATEWAY, error.to_string()),
    }
}

async fn book_events(State(control): State<Control>, body: String) -> Response {
    let fault = |status: StatusCode, error: String| (status, Json(Fault { error })).into_response();
    let request: BookRequest = match serde_json::from_str(&body) {
        Ok(request) => request,
        Err(error) => return fault(StatusCode::BAD_REQUEST, error.to_string()),
    };
    if request.events.len() > BOOK_EVENTS_MAX {
        return fault(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("{} events; at most {BOOK_EVENTS_MAX} go together", request.events.len()),
        );
    }
    let events: Result<Vec<BookEvent>, _> =
        request.events.iter().map(|raw| BookEvent::parse(raw.get())).collect();
    let events = match events {
        Ok(events) => events,
        Err(error) => return fault(StatusCode::BAD_REQUEST, error.to_string()),
    };
    match control.writer.apply_book_events(events, request.source).await {
        Ok(Ok(outcomes)) => Json(BookAnswer { outcomes }).into_response(),
        Ok(Err(reason)) => fault(StatusCode::UNPROCESSABLE_ENTITY, reason),
        Err(gone) => fault(StatusCode::SERVICE_UNAVAILABLE, gone.to_string()),
    }
}

/// Which job an operator's request is about, who they are and why.
fn asked(record: &str, body: &str) -> Result<(RecordId, Operator), (StatusCode, Json<Fault>)> {
    let bad = |error: String| (StatusCode::BAD_REQUEST, Json(Fault { error }));
    let id = record.parse().map_err(|error| bad(format!("{record:?} is {error}")))?;
    let by: Operator = serde_json::from_str(body).map_err(|error| bad(error.to_string()))?;
    let by = Operator::new(&by.who, &by.reason).map_err(|error| bad(error.to_owned()))?;
    Ok((id, by))
}

fn gone(error: WriterGone) -> Response {
    let fault = Fault { error: error.to_string() };
    (StatusCode::SERVICE_UNAVAILABLE, Json(fault)).into_response()
}

async fn send_on(
    State(control): State<Control>,
    PathOf(record): PathOf<String>,
    body: String,
) -> Response {
    match asked(&record, &body) {
        Err(refusal) => refusal.into_response(),
        Ok((record, by)) => match control.writer.send_on(record, by).await {
            Ok(sent_on) => Json(sent_on).into_response(),
            Err(error) => gone(error),
        },
    }
}

async fn approve(control: State<Control>, record: PathOf<String>, body: String) -> Response {
    take_word(control.0, record.0, body, OperatorWord::Approved).await
}

async fn refuse(control: State<Control>, record: PathOf<String>, body: String) -> Response {
    take_word(control.0, record.0, body, OperatorWord::Refused).await
}

async fn take_word(control: Control, record: String, body: String, word: OperatorWord) -> Response {
    match asked(&record, &body) {
        Err(refusal) => refusal.into_response(),
        Ok((record, by)) => match control.writer.approve(record, word, by).await {
            Ok(Ok(approval)) => Json(approval).into_response(),
            Ok(Err(error)) => {
                (StatusCode::UNPROCESSABLE_ENTITY, Json(Fault { error })).into_response()
            }
            Err(error) => gone(error),
        },
    }
}

async fn archive(State(control): State<Control>) -> Response {
    if let Some(bell) = &control.archive {
        bell.notify_one();
        return Json(Rung { archiving: true }).into_response();
    }
    let error = "it archives nothing: it was started without archive.path, or may sign nothing";
    (StatusCode::CONFLICT, Json(Fault { error: error.to_owned() })).into_response()
}

/// Reaches the daemon that holds a book.
pub struct ControlClient {
    socket: PathBuf,
    http: reqwest::Client,
}

impl ControlClient {
    /// A client of the daemon whose socket is at `socket`.
    ///
    /// # Errors
    /// [`ControlError::Unreachable`] when the client cannot be made.
    pub fn new(socket: &Path) -> Result<Self, ControlError> {
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
        Ok(Self { socket: socket.to_owned(), http })
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
        let refused = |error: serde_json::Error| ControlError::Refused(error.to_string());
        let raw = events
            .iter()
            .map(|event| RawValue::from_string(event.clone()))
            .collect::<Result<_, _>>()
            .map_err(refused)?;
        let body = serde_json::to_string(&BookRequest { source: source.to_owned(), events: raw })
            .map_err(refused)?;
        let answer: BookAnswer =
            self.exchange(self.http.post("http://settled/v1/book/events").body(body)).await?;
        Ok(answer.outcomes)
    }

    /// Has the daemon compare connections and currencies with OES.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn sync(&self, request: &SyncRequest) -> Result<SyncReport, ControlError> {
        self.compare("http://settled/v1/book/sync", request).await
    }

    /// Has the daemon compare jobs and balances with OES.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn reconcile(
        &self,
        request: &ReconcileRequest,
    ) -> Result<ReconcileReport, ControlError> {
        self.compare("http://settled/v1/reconcile", request).await
    }

    async fn compare<T: serde::de::DeserializeOwned>(
        &self,
        url: &str,
        request: &impl Serialize,
    ) -> Result<T, ControlError> {
        let body = serde_json::to_string(request)
            .map_err(|error| ControlError::Refused(error.to_string()))?;
        self.exchange(self.http.post(url).timeout(COMPARISON_TIMEOUT).body(body)).await
    }

    /// Has the daemon send a parked job on.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn send_on(&self, record: RecordId, by: &Operator) -> Result<SentOn, ControlError> {
        self.about_job(record, "send-on", by).await
    }

    /// Has the daemon carry out an operator's word about a job that waits for one.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn approve(
        &self,
        record: RecordId,
        word: OperatorWord,
        by: &Operator,
    ) -> Result<Approval, ControlError> {
        let action = match word {
            OperatorWord::Approved => "approve",
            OperatorWord::Refused => "refuse",
        };
        self.about_job(record, action, by).await
    }

    async fn about_job<T: serde::de::DeserializeOwned>(
        &self,
        record: RecordId,
        action: &str,
        by: &Operator,
    ) -> Result<T, ControlError> {
        let body =
            serde_json::to_string(by).map_err(|error| ControlError::Refused(error.to_string()))?;
        let url = format!("http://settled/v1/jobs/{record}/{action}");
        self.exchange(self.http.post(url).body(body)).await
    }

    /// Has the daemon archive now what is old enough; it does not wait for the end of it.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn archive(&self) -> Result<(), ControlError> {
        let _told: Rung = self.exchange(self.http.post("http://settled/v1/archive")).await?;
        Ok(())
    }

    /// Asks the daemon which of its parts are ready.
    ///
    /// # Errors
    /// [`ControlError::Unreachable`] when no daemon answers.
    pub async fn readiness(&self) -> Result<serde_json::Value, ControlError> {
        self.exchange(self.http.get("http://settled/readyz")).await
    }

    async fn exchange<T: serde::de::DeserializeOwned>(
        &self,
        request: reqwest::RequestBuilder,
    ) -> Result<T, ControlError> {
        let unreachable = |error: reqwest::Error| ControlError::Unreachable {
            socket: self.socket.clone(),
            reason: error.to_string(),
        };
        let answer = request.send().await.map_err(unreachable)?;
        let status = answer.status();
        let body = answer.bytes().await.map_err(unreachable)?;
        if status.is_success() {
            return serde_json::from_slice(&body)
                .map_err(|error| ControlError::Refused(error.to_string()));
        }
        let reason = serde_json::from_slice::<Fault>(&body)
            .map_or_else(|_| format!("status {status}"), |fault| fault.error);
        Err(ControlError::Refused(reason))
    }
}
