//! People who use the API.

use std::{collections::HashMap, io::Write as _, os::unix::fs::OpenOptionsExt as _};

use reqwest::Method;
use serde_json::Value;
use settled::web::auth::{Role, new_token};

use super::{daemon::Daemon, world::World};

/// An answer of the API.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("{self:?}"))
    }

    /// What is wrong, in the one form that problems have.
    pub(crate) fn problem(&self) -> String {
        assert_eq!(self.headers["content-type"], "application/problem+json", "{self:?}");
        let problem = self.json();
        assert_eq!(problem["status"], self.status, "{self:?}");
        problem["detail"].as_str().unwrap().to_owned()
    }
}

/// Two operators and somebody who only looks, each with a token.
pub(crate) struct People {
    http: reqwest::Client,
    base: String,
    pub(crate) tokens: HashMap<&'static str, String>,
}

impl People {
    /// Writes their tokens down where the daemon will look.
    pub(crate) fn known_to(world: &mut World) -> HashMap<&'static str, String> {
        let path = world.path("tokens");
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)
            .unwrap();
        let mut tokens = HashMap::new();
        for (name, role) in
            [("alice", Role::Operator), ("bob", Role::Operator), ("eve", Role::ReadOnly)]
        {
            let (token, line) = new_token(name, role);
            writeln!(file, "{line}").unwrap();
            tokens.insert(name, token.to_string());
        }
        world.set("http.tokens_file", path.to_str().unwrap());
        tokens
    }

    pub(crate) fn at(daemon: &Daemon, tokens: HashMap<&'static str, String>) -> Self {
        settled::tls::use_ring();
        let http = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
        Self { http, base: daemon.base().to_owned(), tokens }
    }

    /// Asks with a token, or without one; where that is too often, again once the API allows it.
    pub(crate) async fn ask_with(
        &self,
        token: Option<&str>,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Answer {
        loop {
            let answer = self.ask_once(token, method.clone(), path, body).await;
            if answer.status != 429 {
                return answer;
            }
            let after_s = answer.headers["retry-after"].to_str().unwrap().parse().unwrap();
            tokio::time::sleep(std::time::Duration::from_secs(after_s)).await;
        }
    }

    /// Asks, and takes whatever the answer is.
    pub(crate) async fn ask_once(
        &self,
        token: Option<&str>,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Answer {
        let mut request = self.http.request(method, format!("{}{path}", self.base));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let answer = request.send().await.unwrap();
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        Answer { status, headers, text: answer.text().await.unwrap() }
    }

    pub(crate) async fn get(&self, who: &str, path: &str) -> Answer {
        self.ask_with(Some(&self.tokens[who]), Method::GET, path, None).await
    }

    pub(crate) async fn post(&self, who: &str, path: &str, body: &Value) -> Answer {
        self.ask_with(Some(&self.tokens[who]), Method::POST, path, Some(body)).await
    }

    pub(crate) async fn put(&self, who: &str, path: &str, body: &Value) -> Answer {
        self.ask_with(Some(&self.tokens[who]), Method::PUT, path, Some(body)).await
    }
}
