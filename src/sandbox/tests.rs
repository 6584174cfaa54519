//! Every promise of the sandbox, over real HTTP.

mod faults;
mod life;
mod money;
mod orders;
mod reads;
mod schema;
mod steering;
mod updates;
mod worker;

use std::{sync::Arc, time::Duration};

use reqwest::{Method, Response};
use serde_json::Value;

use super::*;
use crate::{
    clock::SystemClock,
    domain::{
        decision::Outcome,
        ids::{ConnectionId, CurrencyCode, RecordId},
        job::JobType,
    },
    signer::SigningKey,
};

const PARTNER_TOKEN: &str = "partner-token";
const READER_TOKEN: &str = "reader-token";
const CLIENT_TOKEN: &str = "client-token";
const PARTNER_ENTERPRISE: &str = "partner-enterprise";
const CLIENT_ENTERPRISE: &str = "client-enterprise";

/// Far more than anything here takes.
const LIMIT: Duration = Duration::from_secs(30);

fn key(byte: char) -> SigningKey {
    SigningKey::from_text(&byte.to_string().repeat(64)).unwrap()
}

/// A running sandbox with the example's world, and both sides' keys.
struct Rig {
    sandbox: Sandbox,
    state: SandboxState,
    http: reqwest::Client,
    partner: SigningKey,
    client_key: SigningKey,
    client: SandboxClient,
    connection: ConnectionId,
}

impl Rig {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut SandboxConfig)) -> Self {
        let (partner, client_key) = (key('1'), key('2'));
        let seed = Seed::example(&partner.public_key(), &client_key.public_key());
        let connection = seed.connections[0].id;
        let mut config = SandboxConfig {
            tokens: vec![
                AccessToken::new(Side::Partner, PARTNER_TOKEN),
                AccessToken::new(Side::Partner, READER_TOKEN).with_scopes([Scope::Read]),
                AccessToken::new(Side::Client, CLIENT_TOKEN),
            ],
            seed,
            ..SandboxConfig::empty(Arc::new(SystemClock))
        };
        change(&mut config);
        let sandbox = Sandbox::start(config).await.unwrap();
        let base_url = sandbox.base_url();
        let client = SandboxClient::new(&base_url, CLIENT_ENTERPRISE, CLIENT_TOKEN, false).unwrap();
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .timeout(LIMIT)
            .tls_certs_only([])
            .build()
            .unwrap();
        Self { state: sandbox.state(), sandbox, http, partner, client_key, client, connection }
    }

    fn reserve(&self, record_type: JobType, currency: &str, quantity: &str) -> Record {
        self.state
            .reserve(Reservation {
                record_type,
                connection_id: self.connection,
                currency: currency.parse().unwrap(),
                quantity: quantity.parse().unwrap(),
                partners_record_id: None,
            })
            .unwrap()
    }

    fn allocation(&self) -> Record {
        self.reserve(JobType::Allocation, "btc", "150000")
    }

    fn record(&self, id: RecordId) -> Record {
        self.state.record(id).unwrap()
    }

    fn draft(&self, record: &Record, outcome: Outcome) -> Draft {
        let connection = self.state.connection(record.connection_id).unwrap();
        Draft::new(record, &connection, outcome)
    }

    fn partner_url(&self, path: &str) -> String {
        let base_url = self.sandbox.base_url();
        format!("{base_url}/api/network/v1/enterprises/{PARTNER_ENTERPRISE}{path}")
    }

    async fn ask(&self, method: Method, url: String, token: &str, body: Option<String>) -> Told {
        let mut request = self.http.request(method, url).bearer_auth(token);
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body);
        }
        Told::from(request.send().await.unwrap()).await
    }

    async fn get(&self, path: &str) -> Told {
        self.ask(Method::GET, self.partner_url(path), PARTNER_TOKEN, None).await
    }

    fn put_url(&self, route: JobType) -> String {
        self.partner_url(match route {
            JobType::Allocation => "/partners/allocations",
            JobType::Deallocation => "/partners/deallocations",
        })
    }

    async fn put(&self, route: JobType, body: String) -> Told {
        self.ask(Method::PUT, self.put_url(route), PARTNER_TOKEN, Some(body)).await
    }

    /// Sends an update that may get no answer.
    async fn try_put(&self, route: JobType, body: String) -> Result<Response, reqwest::Error> {
        self.http
            .put(self.put_url(route))
            .bearer_auth(PARTNER_TOKEN)
            .header("content-type", "application/json")
            .body(body)
            .send()
            .await
    }

    /// Brings a record to an end as a partner would.
    async fn settle(&self, record: &Record, outcome: Outcome) -> Told {
        let body = self.draft(record, outcome).body(&self.partner);
        self.put(record.record_type, body).await
    }
}

/// An answer, read whole.
#[derive(Debug)]
struct Told {
    status: u16,
    headers: reqwest::header::HeaderMap,
    body: Value,
}

impl Told {
    async fn from(response: Response) -> Self {
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let body = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
        Self { status, headers, body }
    }

    fn name(&self) -> &str {
        self.body["name"].as_str().unwrap_or_default()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

/// An update in the making, written by hand: its members as JSON texts, in order.
#[derive(Clone)]
struct Draft {
    members: Vec<(String, String)>,
}

impl Draft {
    fn new(record: &Record, connection: &Connection, outcome: Outcome) -> Self {
        let (id, partners_id) = match record.record_type {
            JobType::Allocation => ("allocationId", "partnersAllocationId"),
            JobType::Deallocation => ("deallocationId", "partnersDeallocationId"),
        };
        let text = |text: &str| serde_json::to_string(text).unwrap();
        let amount = format!(
            r#"{{"currency":{},"quantity":"{}"}}"#,
            text(record.partner_currency.as_str()),
            record.quantity
        );
        let partners = |id: &Option<String>| text(id.as_ref().unwrap());
        let mut members = vec![("status", text(outcome.as_str()))];
        if outcome == Outcome::Released {
            members.push(("rejectReason", text("No, \"thanks\".")));
        }
        members.extend([
            (id, text(&record.id.to_string())),
            ("amount", amount),
            ("clientId", text(&record.client_id.to_string())),
            ("connectionId", text(&record.connection_id.to_string())),
            ("partnersClientId", partners(&connection.partners_client_id)),
            ("partnersConnectionId", partners(&connection.partners_connection_id)),
            (partners_id, text(&record.partners_record_id)),
            ("nonce", text(&Uuid::new_v4().to_string())),
        ]);
        Self {
            members: members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        }
    }

    /// The same with a member changed; its value is JSON.
    fn with(mut self, name: &str, value: &str) -> Self {
        let member = self.members.iter_mut().find(|(known, _)| known == name);
        value.clone_into(&mut member.unwrap().1);
        self
    }

    /// The same with one more member at the end.
    fn and(mut self, name: &str, value: &str) -> Self {
        self.members.push((name.to_owned(), value.to_owned()));
        self
    }

    fn without(mut self, name: &str) -> Self {
        self.members.retain(|(known, _)| known != name);
        self
    }

    fn json(&self) -> String {
        let members = self.members.iter();
        let members: Vec<String> =
            members.map(|(name, value)| format!("\"{name}\":{value}")).collect();
        format!("{{{}}}", members.join(","))
    }

    fn body(&self, key: &SigningKey) -> String {
        self.body_with_payload(&self.json(), key)
    }

    /// A body that carries another payload than its own.
    fn body_with_payload(&self, payload: &str, key: &SigningKey) -> String {
        let signature = key.sign(payload.as_bytes()).unwrap();
        self.body_with_proof(payload, signature.as_str())
    }

    fn body_with_proof(&self, payload: &str, signature: &str) -> String {
        self.clone()
            .and("payload", &serde_json::to_string(payload).unwrap())
            .and("signature", &serde_json::to_string(signature).unwrap())
            .json()
    }
}

fn btc() -> CurrencyCode {
    "btc".parse().unwrap()
}
