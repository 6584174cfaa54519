//! The client of OES's partner routes.
//!
//! One call is one request: no retries, no redirects, no proxies, a limit on every wait and on every
//! body. What an answer means is for `domain`; this room only says what arrived.
//!
//! What must never happen here: a request sent twice; a token in a log, an error or `Debug`.

mod auth;
mod list;
mod read;

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};

use reqwest::{
    Client, Method, Response, StatusCode, Url,
    header::{CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER},
};
use secrecy::{ExposeSecret as _, SecretString};

use crate::{
    clock::Clock,
    config::{AuthStyle, OesConfig},
    domain::{job::JobType, time::TimestampMs},
    metrics::Metrics,
    outbound,
};

pub use read::ReadError;

/// How long an idle connection is kept for the next request.
const IDLE_CONNECTION_KEPT: Duration = Duration::from_secs(30);

/// Longest request id that is kept, in characters.
const REQUEST_ID_CHARS_MAX: usize = 128;

/// OES's own id of a request.
const REQUEST_ID_HEADER: &str = "request-id";

/// What a request is for, as metrics have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// One update of one record.
    Update,
    /// One record is read.
    Read,
    /// Records are listed.
    List,
    /// Connections are listed or read.
    Connections,
    /// Balances are listed.
    Balances,
    /// Supported currencies are listed.
    Currencies,
}

impl Operation {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Update, Self::Read, Self::List, Self::Connections, Self::Balances, Self::Currencies];

    /// The word that metrics and traces use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Update => "update",
            Self::Read => "read",
            Self::List => "list",
            Self::Connections => "connections",
            Self::Balances => "balances",
            Self::Currencies => "currencies",
        }
    }

    const fn method(self) -> Method {
        match self {
            Self::Update => Method::PUT,
            Self::Read | Self::List | Self::Connections | Self::Balances | Self::Currencies => {
                Method::GET
            }
        }
    }
}

/// Why a client cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum OesSetupError {
    /// A key that is needed is not set.
    #[error("{0} is not set")]
    NotSet(&'static str),
    /// Not an address that can be used. It is not repeated: somebody may have put a password there.
    #[error("oes.base_url cannot be used: {reason}")]
    BadUrl {
        /// What is wrong with it.
        reason: String,
    },
    /// The token file.
    #[error("oes.access_token_file: {0}")]
    Token(#[from] crate::secret_file::SecretFileError),
    /// A token that no HTTP header can hold.
    #[error("oes.access_token_file: the token has characters that no access token has")]
    BadToken,
    /// TLS or the client library.
    #[error("the HTTP client cannot be set up: {0}")]
    Client(#[source] reqwest::Error),
}

/// What arrived for a request.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// OES's own id of the request, if it gave one.
    pub request_id: Option<String>,
    /// The body; `None` if it was cut off, larger than the limit, or its HMAC is wrong.
    pub body: Option<Vec<u8>>,
    /// When OES asked to be left alone until, if it did.
    pub retry_at: Option<TimestampMs>,
}

/// Nothing arrived: the request may or may not have been applied.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct NoAnswer(String);

/// A client for one enterprise.
pub struct OesClient {
    http: Client,
    base: Url,
    token: RwLock<Arc<SecretString>>,
    token_file: PathBuf,
    auth: AuthStyle,
    response_bytes_max: usize,
    clock: Arc<dyn Clock>,
    metrics: Option<Arc<Metrics>>,
}

impl fmt::Debug for OesClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OesClient").field("base", &self.base.as_str()).finish_non_exhaustive()
    }
}

impl OesClient {
    /// A client as configured; reads the token from its file.
    ///
    /// # Errors
    /// [`OesSetupError`], which names the key.
    pub fn new(config: &OesConfig, clock: Arc<dyn Clock>) -> Result<Self, OesSetupError> {
        let base_url = config.base_url.as_deref().ok_or(OesSetupError::NotSet("oes.base_url"))?;
        let enterprise =
            config.enterprise_id.as_deref().ok_or(OesSetupError::NotSet("oes.enterprise_id"))?;
        let token_file = config
            .access_token_file
            .as_deref()
            .ok_or(OesSetupError::NotSet("oes.access_token_file"))?;
        let token = read_token(token_file)?;
        let base = partner_base(base_url, enterprise, config.allow_plain_http)?;
        let http = outbound::client_for(&base)
            .connect_timeout(Duration::from_millis(config.connect_timeout_ms))
            .timeout(Duration::from_millis(config.request_timeout_ms))
            .pool_idle_timeout(IDLE_CONNECTION_KEPT)
            .pool_max_idle_per_host(config.in_flight_max)
            .build()
            .map_err(OesSetupError::Client)?;
        Ok(Self {
            http,
            base,
            token: RwLock::new(Arc::new(token)),
            token_file: token_file.to_owned(),
            auth: config.auth,
            response_bytes_max: config.response_bytes_max,
            clock,
            metrics: None,
        })
    }

    /// The same client with its requests counted.
    #[must_use]
    pub fn counted_by(self, metrics: Arc<Metrics>) -> Self {
        Self { metrics: Some(metrics), ..self }
    }

    /// Reads the token's file again, for tokens that are replaced while the daemon runs. Answers whether
    /// it has another one.
    ///
    /// # Errors
    /// [`OesSetupError`]; the token is then what it was.
    pub fn reread_token(&self) -> Result<bool, OesSetupError> {
        let fresh = read_token(&self.token_file)?;
        if fresh.expose_secret() == self.token().expose_secret() {
            return Ok(false);
        }
        *self.token.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(fresh);
        Ok(true)
    }

    fn token(&self) -> Arc<SecretString> {
        Arc::clone(&self.token.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Sends one update, exactly these bytes, once.
    ///
    /// # Errors
    /// [`NoAnswer`]: whether the update was applied is not known.
    pub async fn put_update(&self, job_type: JobType, body: String) -> Result<Answer, NoAnswer> {
        let url = self.route(match job_type {
            JobType::Allocation => &["allocations"],
            JobType::Deallocation => &["deallocations"],
        });
        self.request(Operation::Update, url, Some(body)).await
    }

    /// The address of a partner route.
    fn route(&self, segments: &[&str]) -> Url {
        let mut url = self.base.clone();
        // The base was checked to take path segments.
        if let Ok(mut path) = url.path_segments_mut() {
            path.extend(segments);
        }
        url
    }

    async fn request(
        &self,
        operation: Operation,
        url: Url,
        body: Option<String>,
    ) -> Result<Answer, NoAnswer> {
        let begun = Instant::now();
        let answer = self.exchange(operation.method(), url, body).await;
        if let Some(metrics) = &self.metrics {
            let status = answer.as_ref().ok().map(|answer| answer.status);
            metrics.oes_request(operation, status, begun.elapsed());
        }
        answer
    }

    async fn exchange(
        &self,
        method: Method,
        url: Url,
        body: Option<String>,
    ) -> Result<Answer, NoAnswer> {
        let path = path_and_query(&url);
        let token = self.token();
        let headers = auth::headers(
            self.auth,
            &token,
            self.clock.now(),
            &path,
            body.as_deref().unwrap_or(""),
        );
        let mut request = self.http.request(method, url).headers(headers);
        if let Some(body) = body {
            request = request
                .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
                .body(body);
        }
        let response = request
            .send()
            .await
            .map_err(|error| NoAnswer(format!("the request {}", outbound::describe(&error))))?;
        Ok(self.receive(response, &token, &path).await)
    }

    async fn receive(&self, response: Response, token: &SecretString, path: &str) -> Answer {
        let status = response.status();
        let request_id = header_text(response.headers(), REQUEST_ID_HEADER)
            .map(|text| text.chars().take(REQUEST_ID_CHARS_MAX).collect());
        let retry_at = retry_at(response.headers(), self.clock.now());
        let proof = auth::ResponseProof::from_headers(response.headers());
        let body = self
            .read_body(response)
            .await
            .filter(|body| proof.is_right(self.auth, token, path, status.as_u16(), body));
        Answer { status: status.as_u16(), request_id, body, retry_at }
    }

    /// The whole body, or `None` if it is cut off or larger than the limit.
    async fn read_body(&self, mut response: Response) -> Option<Vec<u8>> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.ok()? {
            if body.len().saturating_add(chunk.len()) > self.response_bytes_max {
                return None;
            }
            body.extend_from_slice(&chunk);
        }
        Some(body)
    }
}

fn read_token(file: &Path) -> Result<SecretString, OesSetupError> {
    let token = crate::secret_file::read(file)?;
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(OesSetupError::BadToken);
    }
    Ok(SecretString::from(token.as_str()))
}

/// The base of the partner routes of an enterprise.
fn partner_base(
    base_url: &str,
    enterprise: &str,
    allow_plain_http: bool,
) -> Result<Url, OesSetupError> {
    let bad = |reason: &str| OesSetupError::BadUrl { reason: reason.to_owned() };
    let mut url = Url::parse(base_url).map_err(|error| bad(&error.to_string()))?;
    outbound::check(&url, allow_plain_http, "the token", "set oes.allow_plain_http = true")
        .map_err(|reason| bad(&reason))?;
    if url.query().is_some() || url.fragment().is_some() {
        return Err(bad("it must not have a query or a fragment"));
    }
    if enterprise.is_empty() {
        return Err(OesSetupError::NotSet("oes.enterprise_id"));
    }
    url.path_segments_mut().map_err(|()| bad("it has no path"))?.pop_if_empty().extend([
        "api",
        "network",
        "v1",
        "enterprises",
        enterprise,
        "partners",
    ]);
    Ok(url)
}

fn path_and_query(url: &Url) -> String {
    match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    }
}

fn header_text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// `Retry-After` in either of its forms, as the time that it names.
fn retry_at(headers: &HeaderMap, now: TimestampMs) -> Option<TimestampMs> {
    let text = header_text(headers, RETRY_AFTER.as_str())?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(now.after(Duration::from_secs(seconds)));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    let since_epoch = date.duration_since(std::time::UNIX_EPOCH).ok()?;
    i64::try_from(since_epoch.as_millis()).ok().map(TimestampMs::from_millis)
}

/// Whether a status is a success.
fn is_ok(status: u16) -> bool {
    status == StatusCode::OK.as_u16()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_built_from_the_base_whatever_its_slash() {
        for base in ["https://app.bitgo.com", "https://app.bitgo.com/"] {
            assert_eq!(
                partner_base(base, "ent 1", false).unwrap().as_str(),
                "https://app.bitgo.com/api/network/v1/enterprises/ent%201/partners"
            );
        }
    }

    #[test]
    fn a_token_never_goes_in_the_clear_to_another_machine() {
        for local in ["http://127.0.0.1:8080", "http://localhost", "http://[::1]:1"] {
            assert!(partner_base(local, "e", false).is_ok(), "{local}");
        }
        assert!(partner_base("http://10.0.0.1", "e", false).is_err());
        assert!(partner_base("http://10.0.0.1", "e", true).is_ok());
        for bad in ["ftp://x", "app.bitgo.com", "https://u:p4ss@x", "https://x?y=1", ""] {
            let error = partner_base(bad, "e", true).unwrap_err().to_string();
            assert!(error.starts_with("oes.base_url") && !error.contains("p4ss"), "{error}");
        }
    }

    #[test]
    fn retry_after_is_read_in_both_forms() {
        let now = TimestampMs::from_millis(1_000_000);
        let headers = |value: &'static str| {
            HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static(value))])
        };
        assert_eq!(retry_at(&headers("3"), now), Some(TimestampMs::from_millis(1_003_000)));
        assert_eq!(
            retry_at(&headers("Thu, 01 Jan 1970 00:00:07 GMT"), now),
            Some(TimestampMs::from_millis(7_000))
        );
        assert_eq!(retry_at(&headers("soon"), now), None);
        assert_eq!(retry_at(&HeaderMap::new(), now), None);
    }
}
