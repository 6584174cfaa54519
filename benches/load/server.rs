//! The sink's process, and what it says it took.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use serde_json::json;

use crate::{
    sink::Taken,
    workload::{ENTERPRISE, Workload},
};

pub(crate) struct Server {
    child: Child,
    pub(crate) url: String,
    http: reqwest::Client,
}

impl Server {
    pub(crate) fn start() -> anyhow::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["role", "sink"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut url = String::new();
        let out = child.stdout.take().context("the sink has no output")?;
        BufReader::new(out).read_line(&mut url)?;
        Ok(Self { child, url: url.trim().to_owned(), http: client()? })
    }

    /// The base of the partner's routes.
    pub(crate) fn partner_url(&self) -> String {
        format!("{}/api/network/v1/enterprises/{ENTERPRISE}/partners", self.url)
    }

    /// Forgets everything and expects new records.
    pub(crate) async fn expect(
        &self,
        workload: Workload,
        records: u64,
        public_key: Option<&str>,
    ) -> anyhow::Result<()> {
        let body = json!({"seed": workload.seed, "records": records, "public_key": public_key});
        self.http
            .post(format!("{}/_sink/expect", self.url))
            .body(body.to_string())
            .send()
            .await?
            .error_for_status()?;
        Ok(())
    }

    pub(crate) async fn taken(&self) -> anyhow::Result<Taken> {
        let text = self.http.get(format!("{}/_sink/taken", self.url)).send().await?.text().await?;
        Ok(serde_json::from_str(&text)?)
    }

    /// When each record's update arrived, by the monotonic clock.
    pub(crate) async fn arrived_ns(&self) -> anyhow::Result<Vec<u64>> {
        let text =
            self.http.get(format!("{}/_sink/arrived", self.url)).send().await?.text().await?;
        Ok(serde_json::from_str(&text)?)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Taken {
    /// What whoever sent the updates must have kept to.
    pub(crate) fn must_be_honest(&self, records: u64) -> anyhow::Result<()> {
        ensure!(
            self.settled == records
                && self.contradicted == 0
                && self.refused == 0
                && self.forged == 0,
            "the updates were not as they must be: {self:?}"
        );
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}

/// A client for questions; nothing that is measured goes through it.
pub(crate) fn client() -> anyhow::Result<reqwest::Client> {
    settled::tls::use_ring();
    Ok(reqwest::Client::builder()
        .timeout(Duration::from_secs(60))
        .no_proxy()
        .tls_certs_only([])
        .build()?)
}
