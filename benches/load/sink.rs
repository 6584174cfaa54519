//! The server that takes the updates: as lean as a server can be that is still honest about what it took.
//!
//! It is no stand-in for OES; `settled sandbox` is. It answers each update with its echo, keeps each
//! record's status, counts repetitions and contradictions, and checks one signature in many, so that
//! whoever is measured cannot cheat, and the server costs as little as possible of the two cores.

use std::{
    collections::HashMap,
    convert::Infallible,
    io::Write as _,
    rc::Rc,
    sync::{Mutex, PoisonError},
};

use anyhow::Context as _;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::CONTENT_TYPE,
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use serde_json::json;
use settled::signer;
use tokio::{net::TcpListener, task::LocalSet};
use uuid::Uuid;

use crate::{clock, workload::Workload};

/// One signature in so many is checked: all of them would cost more than everything else here.
const CHECKED_ONE_IN: u64 = 997;

const RESERVED: u8 = 0;
const CLEARED: u8 = 1;
const RELEASED: u8 = 2;

/// What has arrived so far.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Taken {
    /// Records that have an outcome.
    pub(crate) settled: u64,
    /// Updates that said again what was known.
    pub(crate) repeated: u64,
    /// Updates that said the contrary: must be none.
    pub(crate) contradicted: u64,
    /// Updates that were not understood: must be none.
    pub(crate) refused: u64,
    /// Signatures that were checked.
    pub(crate) checked: u64,
    /// Signatures among them that are not the key's: must be none.
    pub(crate) forged: u64,
    /// Reads that were answered.
    pub(crate) reads: u64,
    /// When the first and the last update came, by the monotonic clock.
    pub(crate) first_ns: u64,
    pub(crate) last_ns: u64,
}

#[derive(Default)]
struct Records {
    workload: Option<Workload>,
    /// By id, the number of the record.
    numbers: HashMap<Uuid, u32>,
    status: Vec<u8>,
    arrived_ns: Vec<u64>,
    taken: Taken,
    public_key: Option<String>,
}

struct Sink {
    // One thread has it; the lock only satisfies the types of what is shared between connections.
    records: Mutex<Records>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Update<'a> {
    status: &'a str,
    allocation_id: Option<Uuid>,
    deallocation_id: Option<Uuid>,
    payload: std::borrow::Cow<'a, str>,
    signature: &'a str,
}

#[derive(Deserialize)]
struct Expect {
    seed: u64,
    records: u64,
    public_key: Option<String>,
}

type Answer = Response<Full<Bytes>>;

/// Serves until it is killed. Says on standard output where.
pub(crate) async fn serve() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let mut out = std::io::stdout();
    writeln!(out, "http://{}", listener.local_addr()?)?;
    out.flush()?;
    let sink = Rc::new(Sink { records: Mutex::default() });
    LocalSet::new()
        .run_until(async move {
            loop {
                let (stream, _) = listener.accept().await.context("accepting a connection")?;
                stream.set_nodelay(true)?;
                let sink = Rc::clone(&sink);
                tokio::task::spawn_local(async move {
                    let service = service_fn(|request| sink.answer(request));
                    // A peer that goes away is no fault.
                    let _ended = http1::Builder::new()
                        .pipeline_flush(true)
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        })
        .await
}

fn reply(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static("application/json"));
    answer
}

impl Sink {
    async fn answer(&self, request: Request<Incoming>) -> Result<Answer, Infallible> {
        let (head, body) = request.into_parts();
        let Ok(body) = body.collect().await.map(http_body_util::Collected::to_bytes) else {
            return Ok(reply(StatusCode::BAD_REQUEST, "{}"));
        };
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        let path = head.uri.path();
        Ok(match (head.method, path) {
            (Method::PUT, _) => records.update(&body),
            (Method::POST, "/_sink/expect") => records.expect(&body),
            (Method::GET, "/_sink/taken") => {
                reply(StatusCode::OK, json!(records.taken).to_string())
            }
            (Method::GET, "/_sink/arrived") => {
                reply(StatusCode::OK, json!(records.arrived_ns).to_string())
            }
            (Method::GET, _) => records.read(path, head.uri.query().unwrap_or_default()),
            _ => reply(StatusCode::NOT_FOUND, "{}"),
        })
    }
}

impl Records {
    fn expect(&mut self, body: &[u8]) -> Answer {
        let Ok(Expect { seed, records, public_key }) = serde_json::from_slice(body) else {
            return reply(StatusCode::BAD_REQUEST, "{}");
        };
        let workload = Workload { seed };
        *self = Self { workload: Some(workload), public_key, ..Self::default() };
        let length = usize::try_from(records).unwrap_or(0);
        self.numbers = (0..records)
            .map(|number| (workload.record(number).id, u32::try_from(number).unwrap_or(u32::MAX)))
            .collect();
        self.status = vec![RESERVED; length];
        self.arrived_ns = vec![0; length];
        reply(StatusCode::OK, "{}")
    }

    fn update(&mut self, body: &[u8]) -> Answer {
        let now = clock::monotonic_ns();
        let Ok(update) = serde_json::from_slice::<Update<'_>>(body) else {
            self.taken.refused += 1;
            return reply(StatusCode::BAD_REQUEST, r#"{"error":"not an update"}"#);
        };
        let known = update
            .allocation_id
            .or(update.deallocation_id)
            .and_then(|id| self.numbers.get(&id).copied())
            .zip(self.workload);
        let Some((number, workload)) = known else {
            self.taken.refused += 1;
            return reply(StatusCode::NOT_FOUND, r#"{"error":"no such record"}"#);
        };
        let index = number as usize;
        let said = if update.status == "cleared" { CLEARED } else { RELEASED };
        match self.status[index] {
            RESERVED => {
                self.status[index] = said;
                self.arrived_ns[index] = now;
                self.taken.settled += 1;
            }
            known if known == said => self.taken.repeated += 1,
            _ => {
                self.taken.contradicted += 1;
                return reply(StatusCode::CONFLICT, r#"{"error":"it is final"}"#);
            }
        }
        if self.taken.first_ns == 0 {
            self.taken.first_ns = now;
        }
        self.taken.last_ns = now;
        self.check(&update, number);
        let record = workload.record(u64::from(number));
        let (kind, name) = if record.is_allocation {
            ("allocation", "Allocation")
        } else {
            ("deallocation", "Deallocation")
        };
        reply(
            StatusCode::OK,
            format!(
                r#"{{"{kind}Id":"{}",{},"partners{name}Id":"{}"}}"#,
                record.id,
                record.terms(),
                record.partners_id
            ),
        )
    }

    fn check(&mut self, update: &Update<'_>, number: u32) {
        if let Some(key) =
            self.public_key.as_ref().filter(|_| u64::from(number) % CHECKED_ONE_IN == 0)
        {
            self.taken.checked += 1;
            let by = signer::recover(update.payload.as_bytes(), update.signature);
            if by.as_ref() != Some(key) {
                self.taken.forged += 1;
            }
        }
    }

    fn read(&mut self, path: &str, query: &str) -> Answer {
        self.taken.reads += 1;
        let last = path.rsplit('/').next().unwrap_or_default();
        if let Ok(id) = last.parse::<Uuid>() {
            return match self.show(id) {
                Some(record) => reply(StatusCode::OK, format!(r#"{{"allocation":{record}}}"#)),
                None => reply(StatusCode::NOT_FOUND, r#"{"error":"no such record"}"#),
            };
        }
        let ids = query.split('&').find_map(|pair| pair.strip_prefix("allocationIds="));
        let shown: Vec<String> = ids
            .unwrap_or_default()
            .split(['%', ','])
            // A comma may come as %2C.
            .filter_map(|id| id.strip_prefix("2C").unwrap_or(id).parse().ok())
            .filter_map(|id| self.show(id))
            .collect();
        reply(StatusCode::OK, format!(r#"{{"allocations":[{}]}}"#, shown.join(",")))
    }

    fn show(&self, id: Uuid) -> Option<String> {
        let (number, workload) = self.numbers.get(&id).copied().zip(self.workload)?;
        let status = match self.status[number as usize] {
            RESERVED => "reserved",
            CLEARED => "cleared",
            _ => "released",
        };
        let record = workload.record(u64::from(number));
        let kind = if record.is_allocation { "allocation" } else { "deallocation" };
        Some(format!(
            r#"{{"id":"{id}","type":"{kind}","status":"{status}",{},"partnerExternalId":null,"reason":null,"createdAt":"2026-01-01T00:00:00.000Z","updatedAt":"2026-01-01T00:00:00.000Z","retriable":false}}"#,
            record.terms()
        ))
    }
}
