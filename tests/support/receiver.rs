//! Whoever is told of alerts, or takes traces: a real HTTP listener that can lose its answers, refuse, or hang.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex},
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::Value;
use sha2::Sha256;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use super::eventually;

/// What the receiver does with a request that it has read.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Manner {
    /// Answers with this status.
    Answer(u16),
    /// Closes the connection without a word.
    Lose,
    /// Says nothing until the sender has given up.
    Hang,
}

/// A request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Arrived {
    pub(crate) path: String,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: String,
    /// The same as it came.
    pub(crate) bytes: Vec<u8>,
    pub(crate) was_answered: bool,
}

impl Arrived {
    pub(crate) fn id(&self) -> &str {
        &self.headers["webhook-id"]
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// Whether the signature is that of these bytes, with this secret, under this id and time.
    pub(crate) fn is_signed_with(&self, secret: &[u8]) -> bool {
        let timestamp = &self.headers["webhook-timestamp"];
        let mut mac = Hmac::<Sha256>::new_from_slice(secret).unwrap();
        mac.update(format!("{}.{timestamp}.{}", self.id(), self.body).as_bytes());
        let signature = BASE64_STANDARD.encode(mac.finalize().into_bytes());
        self.headers["webhook-signature"] == format!("v1,{signature}")
    }
}

#[derive(Default)]
struct Shared {
    arrived: Mutex<Vec<Arrived>>,
    manners: Mutex<VecDeque<Manner>>,
}

pub(crate) struct Receiver {
    shared: Arc<Shared>,
    address: String,
    task: JoinHandle<()>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Receiver {
    /// Listens, and answers with 204 unless told otherwise.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let shared = Arc::<Shared>::default();
        let serving = Arc::clone(&shared);
        #[expect(clippy::disallowed_methods, reason = "it ends with the receiver")]
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = Arc::clone(&serving);
                #[expect(clippy::disallowed_methods, reason = "it ends with its connection")]
                tokio::spawn(async move { serve(stream, &shared).await });
            }
        });
        Self { shared, address, task }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// What it does with the next requests, one each.
    pub(crate) fn next(&self, manners: impl IntoIterator<Item = Manner>) {
        self.shared.manners.lock().unwrap().extend(manners);
    }

    pub(crate) fn arrived(&self) -> Vec<Arrived> {
        self.shared.arrived.lock().unwrap().clone()
    }

    /// What has arrived at this path and was answered, in short: alert and event.
    pub(crate) fn told(&self, path: &str) -> Vec<(String, String)> {
        self.arrived()
            .into_iter()
            .filter(|request| request.path == path && request.was_answered)
            .map(|request| {
                let body = request.json();
                let word = |key: &str| body[key].as_str().unwrap_or_default().to_owned();
                (word("alert"), word("event"))
            })
            .collect()
    }

    /// Waits until something has arrived.
    pub(crate) async fn wait_for(&self, what: &str, is_it: impl Fn(&Arrived) -> bool) -> Arrived {
        eventually(what, || async { self.arrived().into_iter().find(|request| is_it(request)) })
            .await
    }

    /// Waits until this is told about this alert, and answered.
    pub(crate) async fn wait_for_notice(&self, alert: &str, event: &str) -> Arrived {
        self.wait_for(&format!("{alert} to be told as {event}"), |request| {
            let body = request.json();
            request.was_answered && body["alert"] == alert && body["event"] == event
        })
        .await
    }
}

async fn serve(mut stream: TcpStream, shared: &Shared) {
    let Some((path, headers, bytes)) = read(&mut stream).await else { return };
    let body = String::from_utf8_lossy(&bytes).into_owned();
    let manner = shared.manners.lock().unwrap().pop_front().unwrap_or(Manner::Answer(204));
    let was_answered = matches!(manner, Manner::Answer(200..=299));
    shared.arrived.lock().unwrap().push(Arrived { path, headers, body, bytes, was_answered });
    match manner {
        Manner::Answer(status) => {
            let answer =
                format!("HTTP/1.1 {status} So\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            let _gone = stream.write_all(answer.as_bytes()).await;
        }
        Manner::Lose => {}
        Manner::Hang => tokio::time::sleep(Duration::from_secs(120)).await,
    }
}

/// One request, of which the length is given.
async fn read(stream: &mut TcpStream) -> Option<(String, HashMap<String, String>, Vec<u8>)> {
    let mut bytes = Vec::new();
    let head_ends = loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        (stream.read_buf(&mut bytes).await.ok()? > 0).then_some(())?;
    };
    let head = String::from_utf8(bytes[..head_ends].to_vec()).ok()?;
    let mut lines = head.lines();
    let path = lines.next()?.split(' ').nth(1)?.to_owned();
    let headers: HashMap<String, String> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let length: usize = headers.get("content-length")?.parse().ok()?;
    while bytes.len() < head_ends + length {
        (stream.read_buf(&mut bytes).await.ok()? > 0).then_some(())?;
    }
    Some((path, headers, bytes[head_ends..head_ends + length].to_vec()))
}
