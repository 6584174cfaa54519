//! The collector: one request, one answer. OTLP over HTTP, as binary protobuf.

use std::{
    fmt,
    path::PathBuf,
    sync::{PoisonError, RwLock},
};

use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use prost::Message as _;
use reqwest::{
    Client, StatusCode, Url,
    header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue},
};
use uuid::Uuid;

use super::span;
use crate::{
    config::TracesConfig,
    outbound,
    secret_file::{self, SecretFileError},
};

/// How requests and answers are written.
const PROTOBUF: &str = "application/x-protobuf";

/// Most headers that the file may have.
const HEADERS_MAX: usize = 16;

/// Most bytes of an answer that are read; it says how many spans were refused.
const ANSWER_BYTES_MAX: usize = 64 * 1_024;

/// Why there is no way to a collector.
#[derive(Debug, thiserror::Error)]
pub enum CollectorError {
    /// The address.
    #[error("traces.endpoint ({shown}) is no address that can be used: {reason}")]
    BadUrl {
        /// As much of it as may be shown.
        shown: String,
        /// What is wrong.
        reason: String,
    },
    /// The headers' file.
    #[error("traces.headers_file: {0}")]
    Secret(#[from] SecretFileError),
    /// What is in it.
    #[error("traces.headers_file: {0}")]
    BadHeaders(&'static str),
    /// TLS or the client library.
    #[error("the HTTP client for traces cannot be set up: {0}")]
    Client(String),
}

/// Why spans were not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Undelivered {
    /// It may work later: no answer, or one that asks for another try.
    #[error("{0}")]
    Later(String),
    /// It would be the same again.
    #[error("{0}")]
    Never(String),
}

/// An OpenTelemetry collector, or whatever takes OTLP over HTTP.
pub struct Collector {
    http: Client,
    url: Url,
    shown: String,
    headers_file: Option<PathBuf>,
    headers: RwLock<HeaderMap>,
}

impl fmt::Debug for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Collector").field("at", &self.shown).finish_non_exhaustive()
    }
}

impl fmt::Display for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl Collector {
    /// The collector as configured, if one is.
    ///
    /// # Errors
    /// [`CollectorError`], which names the key.
    pub fn new(config: &TracesConfig) -> Result<Option<Self>, CollectorError> {
        let Some(endpoint) = &config.endpoint else { return Ok(None) };
        let shown = endpoint.to_string();
        let url = check(endpoint.expose(), config.allow_plain_http)
            .map_err(|reason| CollectorError::BadUrl { shown: shown.clone(), reason })?;
        let headers_file = config.headers_file.clone();
        let headers = RwLock::new(read_headers(headers_file.as_ref())?);
        let http = outbound::client_for(&url)
            .timeout(config.timeout())
            .pool_max_idle_per_host(1)
            .build()
            .map_err(|error| CollectorError::Client(error.without_url().to_string()))?;
        Ok(Some(Self { http, url, shown, headers_file, headers }))
    }

    /// Sends spans, once. Answers how many of them the collector refused.
    ///
    /// # Errors
    /// [`Undelivered`].
    pub async fn send(&self, request: &ExportTraceServiceRequest) -> Result<u64, Undelivered> {
        let headers = self.headers.read().unwrap_or_else(PoisonError::into_inner).clone();
        let answer = self
            .http
            .post(self.url.clone())
            .headers(headers)
            .header(CONTENT_TYPE, PROTOBUF)
            .body(request.encode_to_vec())
            .send()
            .await
            .map_err(|error| {
                Undelivered::Later(format!("{}: {}", self.shown, outbound::describe(&error)))
            })?;
        let status = answer.status();
        if !status.is_success() {
            let told = format!("{} answers {}", self.shown, status.as_u16());
            return Err(match status {
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                    self.read_headers_again();
                    Undelivered::Later(told)
                }
                // Those that OTLP asks to try again.
                StatusCode::TOO_MANY_REQUESTS
                | StatusCode::BAD_GATEWAY
                | StatusCode::SERVICE_UNAVAILABLE
                | StatusCode::GATEWAY_TIMEOUT => Undelivered::Later(told),
                _ => Undelivered::Never(told),
            });
        }
        Ok(refused(answer).await)
    }

    /// Whether the collector takes spans, asked with none: only who would send them is named.
    ///
    /// # Errors
    /// [`Undelivered`].
    pub async fn probe(&self) -> Result<(), Undelivered> {
        let nobody = span::resource(env!("CARGO_PKG_NAME"), Uuid::nil());
        self.send(&span::request(&nobody, Vec::new())).await.map(|_| ())
    }

    /// A token that is refused may have been replaced; one that cannot be read stays as it is.
    fn read_headers_again(&self) {
        if let Ok(fresh) = read_headers(self.headers_file.as_ref()) {
            *self.headers.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        }
    }
}

/// How many spans an answer says were refused; none, if it says nothing that can be read.
async fn refused(mut answer: reqwest::Response) -> u64 {
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = answer.chunk().await {
        if body.len().saturating_add(chunk.len()) > ANSWER_BYTES_MAX {
            return 0;
        }
        body.extend_from_slice(&chunk);
    }
    ExportTraceServiceResponse::decode(body.as_slice())
        .ok()
        .and_then(|answer| answer.partial_success)
        .map_or(0, |partial| u64::try_from(partial.rejected_spans).unwrap_or(0))
}

/// An address that headers may be sent to.
fn check(endpoint: &str, allow_plain_http: bool) -> Result<Url, String> {
    let url = Url::parse(endpoint).map_err(|error| error.to_string())?;
    let allowing = "set traces.allow_plain_http = true";
    outbound::check(&url, allow_plain_http, "record ids and headers", allowing)?;
    Ok(url)
}

/// `NAME: VALUE`, one a line.
fn read_headers(file: Option<&PathBuf>) -> Result<HeaderMap, CollectorError> {
    let mut headers = HeaderMap::new();
    let Some(file) = file else { return Ok(headers) };
    let text = secret_file::read(file)?;
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        // The line is not repeated: it may be a token without its name.
        let bad = CollectorError::BadHeaders("each line must be NAME: VALUE");
        let Some((name, value)) = line.split_once(':') else { return Err(bad) };
        let name = HeaderName::from_bytes(name.trim().as_bytes());
        let value = HeaderValue::from_str(value.trim());
        let (Ok(name), Ok(mut value)) = (name, value) else { return Err(bad) };
        value.set_sensitive(true);
        headers.append(name, value);
        if headers.len() > HEADERS_MAX {
            return Err(CollectorError::BadHeaders("there are more than 16 headers"));
        }
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_safe_or_refused_without_being_shown_whole() {
        for good in [
            "https://collector.example/v1/traces",
            "http://127.0.0.1:4318/v1/traces",
            "http://localhost:4318/v1/traces",
            "http://[::1]:4318/v1/traces",
        ] {
            assert!(check(good, false).is_ok(), "{good}");
        }
        let far = "http://collector.example:4318/v1/traces";
        assert!(check(far, false).is_err() && check(far, true).is_ok());
        for bad in ["ftp://collector", "collector:4318", "https://user:pass@collector", "http://["]
        {
            assert!(check(bad, true).is_err(), "{bad}");
        }
        let config = TracesConfig {
            endpoint: Some("http://collector.example/canary".to_owned().into()),
            ..TracesConfig::default()
        };
        let error = Collector::new(&config).unwrap_err().to_string();
        assert!(error.contains("http://collector.example") && !error.contains("canary"), "{error}");
    }

    #[test]
    fn headers_come_from_a_secret_file_and_are_never_shown() {
        use std::os::unix::fs::OpenOptionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("headers");
        let write = |text: &str| {
            let mut options = std::fs::OpenOptions::new();
            let mut file =
                options.write(true).create(true).truncate(true).mode(0o600).open(&path).unwrap();
            std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
        };
        write("authorization: Bearer canary: with a colon\n\nx-scope: partner\n");
        let headers = read_headers(Some(&path)).unwrap();
        assert_eq!(headers["authorization"], "Bearer canary: with a colon");
        assert_eq!(headers["x-scope"], "partner");
        assert!(!format!("{headers:?}").contains("canary"));
        let many = "a: b\n".repeat(HEADERS_MAX + 1);
        for bad in ["Bearer canary", "na me: canary", "name: can\u{7}ary", &many] {
            write(bad);
            let error = read_headers(Some(&path)).unwrap_err().to_string();
            assert!(error.contains("headers_file") && !error.contains("canary"), "{error}");
        }
    }
}
