//! Who calls a sandbox: a client of it as the command line, the demo and tests play one, and whoever
//! steers it. The client's side works with any OES.

mod answer;

use std::{fmt, time::Duration};

use reqwest::{
    Client, Method, Url,
    header::{CONTENT_TYPE, HeaderValue},
};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;
use serde_json::Value;

use super::{fault::Fault, seed::Seed};
use crate::{
    domain::{
        ids::{ConnectionId, RecordId},
        job::JobType,
    },
    outbound,
    signer::SigningKey,
};

use answer::{read_record, refused};

pub use answer::{ClientAmount, ClientAnswer, ClientOrder, ClientRecord, SandboxClientError};

/// Limit on connecting.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Limit on a whole request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Largest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1_024 * 1_024;

/// Bytes of randomness in a nonce.
const NONCE_BYTES: usize = 32;

/// How often a record is read while its end is awaited.
const POLL_EVERY: Duration = Duration::from_millis(250);

#[derive(Serialize)]
struct Amount<'a> {
    currency: &'a str,
    quantity: &'a str,
}

/// What is signed, in the documented order.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Payload<'a> {
    amount: Amount<'a>,
    client_external_id: &'a str,
    nonce: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    notes: Option<&'a str>,
    connection_id: ConnectionId,
    enterprise_id: &'a str,
}

/// What is sent.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    amount: Amount<'a>,
    client_external_id: &'a str,
    nonce: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    notes: Option<&'a str>,
    payload: &'a str,
    signature: &'a str,
}

/// A client of one enterprise.
pub struct SandboxClient {
    http: Client,
    base: Url,
    enterprise_id: String,
    token: SecretString,
}

impl fmt::Debug for SandboxClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SandboxClient")
            .field("base", &self.base.as_str())
            .field("enterprise_id", &self.enterprise_id)
            .finish_non_exhaustive()
    }
}

impl SandboxClient {
    /// A client. `http` is only for this machine, unless `allow_plain_http` says otherwise.
    ///
    /// # Errors
    /// [`SandboxClientError`].
    pub fn new(
        base_url: &str,
        enterprise_id: &str,
        token: &str,
        allow_plain_http: bool,
    ) -> Result<Self, SandboxClientError> {
        let base = base(base_url, allow_plain_http)?;
        if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(SandboxClientError::BadToken);
        }
        let builder = outbound::client_for(&base)
            .user_agent(concat!("settled-sandbox/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(REQUEST_TIMEOUT);
        Ok(Self {
            http: builder.build().map_err(SandboxClientError::Client)?,
            base,
            enterprise_id: enterprise_id.to_owned(),
            token: SecretString::from(token),
        })
    }

    /// Allocates, with an id of its own.
    ///
    /// # Errors
    /// [`SandboxClientError`].
    pub async fn allocate(
        &self,
        key: &SigningKey,
        connection_id: ConnectionId,
        currency: &str,
        quantity: &str,
    ) -> Result<ClientAnswer, SandboxClientError> {
        let order = new_order(JobType::Allocation, connection_id, currency, quantity);
        self.order(key, &order).await
    }

    /// Deallocates, with an id of its own.
    ///
    /// # Errors
    /// [`SandboxClientError`].
    pub async fn deallocate(
        &self,
        key: &SigningKey,
        connection_id: ConnectionId,
        currency: &str,
        quantity: &str,
    ) -> Result<ClientAnswer, SandboxClientError> {
        let order = new_order(JobType::Deallocation, connection_id, currency, quantity);
        self.order(key, &order).await
    }

    /// Signs and sends an order. A record that is released at once is an answer too.
    ///
    /// # Errors
    /// [`SandboxClientError`].
    pub async fn order(
        &self,
        key: &SigningKey,
        order: &ClientOrder,
    ) -> Result<ClientAnswer, SandboxClientError> {
        let what = format!("{} {}", order.record_type, order.client_external_id);
        let nonce = hex::encode(rand::random::<[u8; NONCE_BYTES]>());
        let amount = || Amount { currency: &order.currency, quantity: &order.quantity };
        let payload = serde_json::to_string(&Payload {
            amount: amount(),
            client_external_id: &order.client_external_id,
            nonce: &nonce,
            notes: order.notes.as_deref(),
            connection_id: order.connection_id,
            enterprise_id: &self.enterprise_id,
        })
        .map_err(SandboxClientError::Unwritable)?;
        let signature = key.sign(payload.as_bytes()).ok_or(SandboxClientError::NotSigned)?;
        let body = serde_json::to_string(&Body {
            amount: amount(),
            client_external_id: &order.client_external_id,
            nonce: &nonce,
            notes: order.notes.as_deref(),
            payload: &payload,
            signature: signature.as_str(),
        })
        .map_err(SandboxClientError::Unwritable)?;
        let url = self.client_route(&[
            "connections",
            &order.connection_id.to_string(),
            match order.record_type {
                JobType::Allocation => "allocations",
                JobType::Deallocation => "deallocations",
            },
        ]);
        let (status, value) = self.exchange(&what, Method::POST, url, Some(body)).await?;
        read_record(&what, status, &value)
    }

    /// Reads a record of either type.
    ///
    /// # Errors
    /// [`SandboxClientError`].
    pub async fn get(&self, id: RecordId) -> Result<ClientAnswer, SandboxClientError> {
        let what = format!("reading record {id}");
        let url = self.client_route(&["allocations", &id.to_string()]);
        let (status, value) = self.exchange(&what, Method::GET, url, None).await?;
        read_record(&what, status, &value)
    }

    /// What the client and its connections have.
    ///
    /// # Errors
    /// [`SandboxClientError`].
    pub async fn balances(&self) -> Result<Value, SandboxClientError> {
        let url = self.client_route(&["balances"]);
        self.expect("reading balances", Method::GET, url, None).await
    }

    /// Reads a record until it is final. A read that gets no answer, or is one too many for the rate
    /// limit, is made again.
    ///
    /// # Errors
    /// [`SandboxClientError::NotFinal`] when it is not in time; others as for a single read.
    pub async fn wait_until_final(
        &self,
        id: RecordId,
        limit: Duration,
    ) -> Result<ClientAnswer, SandboxClientError> {
        let mut status = "unread".to_owned();
        let wait = async {
            loop {
                match self.get(id).await {
                    Ok(answer) if answer.record.is_final() => return Ok(answer),
                    Ok(answer) => status = answer.record.status,
                    Err(error) if error.may_pass() => {
                        tracing::debug!(record_id = %id, %error, "a record is read again");
                    }
                    Err(error) => return Err(error),
                }
                tokio::time::sleep(POLL_EVERY).await;
            }
        };
        match tokio::time::timeout(limit, wait).await {
            Ok(ended) => ended,
            Err(_) => Err(SandboxClientError::NotFinal { id, status, limit }),
        }
    }

    /// Counts, findings, switches and waiting faults of a sandbox.
    ///
    /// # Errors
    /// [`SandboxClientError`].
    pub async fn overview(&self) -> Result<Value, SandboxClientError> {
        let url = self.control_route("state");
        self.expect("reading the sandbox's state", Method::GET, url, None).await
    }

    /// Programs a fault of a sandbox.
    ///
    /// # Errors
    /// [`SandboxClientError`].
    pub async fn inject(&self, fault: &Fault) -> Result<(), SandboxClientError> {
        self.control("faults", fault).await.map(drop)
    }

    /// Adds to the world of a sandbox.
    ///
    /// # Errors
    /// [`SandboxClientError`].
    pub async fn seed(&self, seed: &Seed) -> Result<(), SandboxClientError> {
        self.control("seed", seed).await.map(drop)
    }

    /// Posts to a control route: `records/{id}/approve`, `rules`, …
    ///
    /// # Errors
    /// [`SandboxClientError`].
    pub async fn control(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<Value, SandboxClientError> {
        let what = format!("the control request {path}");
        let body = serde_json::to_string(body).map_err(SandboxClientError::Unwritable)?;
        let url = self.control_route(path);
        self.expect(&what, Method::POST, url, Some(body)).await
    }

    fn client_route(&self, segments: &[&str]) -> Url {
        let mut url = self.base.clone();
        // The base was checked to take path segments.
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty()
                .extend(["api", "network", "v1", "enterprises", &self.enterprise_id])
                .push("clients")
                .extend(segments);
        }
        url
    }

    fn control_route(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().push("_sandbox").extend(path.split('/'));
        }
        url
    }

    async fn expect(
        &self,
        what: &str,
        method: Method,
        url: Url,
        body: Option<String>,
    ) -> Result<Value, SandboxClientError> {
        let (status, value) = self.exchange(what, method, url, body).await?;
        if status == 200 { Ok(value) } else { Err(refused(what, status, &value)) }
    }

    async fn exchange(
        &self,
        what: &str,
        method: Method,
        url: Url,
        body: Option<String>,
    ) -> Result<(u16, Value), SandboxClientError> {
        let no_answer =
            |reason: String| SandboxClientError::NoAnswer { what: what.to_owned(), reason };
        let mut request = self.http.request(method, url).bearer_auth(self.token.expose_secret());
        if let Some(body) = body {
            let json = HeaderValue::from_static("application/json");
            request = request.header(CONTENT_TYPE, json).body(body);
        }
        let mut response = request.send().await.map_err(|error| no_answer(cause(&error)))?;
        let status = response.status().as_u16();
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| no_answer(cause(&error)))? {
            if bytes.len().saturating_add(chunk.len()) > ANSWER_BYTES_MAX {
                return Err(no_answer(format!("it has more than {ANSWER_BYTES_MAX} bytes")));
            }
            bytes.extend_from_slice(&chunk);
        }
        let value =
            serde_json::from_slice(&bytes).map_err(|error| SandboxClientError::Unreadable {
                what: what.to_owned(),
                status,
                reason: error.to_string(),
            })?;
        Ok((status, value))
    }
}

fn new_order(
    record_type: JobType,
    connection_id: ConnectionId,
    currency: &str,
    quantity: &str,
) -> ClientOrder {
    ClientOrder {
        record_type,
        connection_id,
        currency: currency.to_owned(),
        quantity: quantity.to_owned(),
        client_external_id: uuid::Uuid::new_v4().to_string(),
        notes: None,
    }
}

fn base(base_url: &str, allow_plain_http: bool) -> Result<Url, SandboxClientError> {
    let bad = |reason: &str| SandboxClientError::BadUrl {
        url: base_url.to_owned(),
        reason: reason.to_owned(),
    };
    let url = Url::parse(base_url).map_err(|error| bad(&error.to_string()))?;
    outbound::check(&url, allow_plain_http, "the token", "say --allow-plain-http")
        .map_err(|reason| bad(&reason))?;
    Ok(url)
}

fn cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
