//! A real browser: Debian's Chromium without a window, driven over WebDriver.
//!
//! WebDriver is JSON over HTTP, and a dozen requests of it are needed. The crates for it bring either operators
//! on `String` that change what compiles elsewhere, or more crates than the rest of the tests together.

use std::{collections::BTreeSet, path::Path, process::Stdio, time::Duration};

use reqwest::Method;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};

use super::{PATIENCE, eventually};

const DRIVER: &str = "/usr/bin/chromedriver";
const CHROMIUM: &str = "/usr/bin/chromium";

/// The member of an answer that names an element, as the standard has it.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// Keys, as the standard has them.
pub(crate) const TAB: &str = "\u{e004}";
pub(crate) const ENTER: &str = "\u{e007}";
pub(crate) const SPACE: &str = " ";

/// Asks for what the page says.
const TEXT: &str = "return document.body ? document.body.innerText : ''";

/// How often Tab is pressed at most to come to something.
const TABS_MAX: usize = 150;

/// How wide a page is shown.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Screen {
    Desktop,
    Phone,
}

impl Screen {
    pub(crate) const ALL: [Self; 2] = [Self::Desktop, Self::Phone];

    pub(crate) const fn width(self) -> u32 {
        match self {
            Self::Desktop => 1_280,
            Self::Phone => 390,
        }
    }
}

/// A browser that was started for one test.
pub(crate) struct Browser {
    http: reqwest::Client,
    /// Where its session is driven.
    session: String,
    /// The daemon that it looks at.
    base: String,
    driver: Child,
    /// The browser's own process: its driver, when it is killed, leaves it behind.
    process: Option<Pid>,
    _profile: tempfile::TempDir,
}

impl Drop for Browser {
    fn drop(&mut self) {
        if let Some(process) = self.process.take() {
            let _gone = kill_process(process, Signal::KILL);
        }
    }
}

fn capabilities(profile: &Path) -> Value {
    let arguments = [
        "--headless",
        // Also where the tests run as root, or in a container without user namespaces.
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--hide-scrollbars",
        &format!("--user-data-dir={}", profile.display()),
    ];
    json!({"capabilities": {"alwaysMatch": {
        "browserName": "chrome",
        "goog:chromeOptions": {"binary": CHROMIUM, "args": arguments},
        "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
    }}})
}

impl Browser {
    /// A new browser that knows nothing, to look at a daemon with.
    pub(crate) async fn at(base: &str) -> Self {
        settled::tls::use_ring();
        let profile = tempfile::tempdir().unwrap();
        let mut chromedriver = Command::new(DRIVER)
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("Chromium and its driver are installed: `make test` does that");
        let mut lines = BufReader::new(chromedriver.stdout.take().unwrap()).lines();
        let port = loop {
            let line = lines.next_line().await.unwrap().expect("it says where it listens");
            if let Some((_, port)) = line.split_once("started successfully on port ") {
                break port.trim_end_matches('.').to_owned();
            }
        };
        let http = reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only([])
            .timeout(Duration::from_secs(60))
            .build()
            .unwrap();
        let driver = format!("http://127.0.0.1:{port}/session");
        let wanted = capabilities(profile.path()).to_string();
        let made = http.post(&driver).body(wanted).send().await.unwrap().text().await.unwrap();
        let made: Value = serde_json::from_str(&made).unwrap();
        let id = made["value"]["sessionId"].as_str().unwrap_or_else(|| panic!("{made}"));
        let session = format!("{driver}/{id}");
        let process = made["value"]["capabilities"]["goog:processID"].as_i64();
        let process = process.and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        assert!(process.is_some(), "{made}");
        let browser = Self {
            http,
            session,
            base: base.to_owned(),
            driver: chromedriver,
            process,
            _profile: profile,
        };
        browser.show_on(Screen::Desktop, false).await;
        browser
    }

    /// Has the browser do something.
    async fn drive(&self, method: Method, path: &str, body: Option<Value>) -> Result<Value, Value> {
        let mut request = self.http.request(method, format!("{}{path}", self.session));
        if let Some(body) = body {
            request = request.body(body.to_string());
        }
        let answer = request.send().await.unwrap();
        let is_done = answer.status().is_success();
        let text = answer.text().await.unwrap();
        let mut answer: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}"));
        let value = answer["value"].take();
        if is_done { Ok(value) } else { Err(value) }
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        let done = self.drive(Method::POST, path, Some(body)).await;
        done.unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    async fn devtools(&self, command: &str, parameters: Value) -> Value {
        self.post("/goog/cdp/execute", json!({"cmd": command, "params": parameters})).await
    }

    /// As on a screen, in the light or in the dark.
    pub(crate) async fn show_on(&self, screen: Screen, dark: bool) {
        let is_phone = matches!(screen, Screen::Phone);
        let metrics = json!({
            "width": screen.width(), "height": 900, "deviceScaleFactor": 1, "mobile": is_phone,
        });
        self.devtools("Emulation.setDeviceMetricsOverride", metrics).await;
        let scheme = if dark { "dark" } else { "light" };
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.devtools("Emulation.setEmulatedMedia", json!({"features": features})).await;
    }

    /// Without the scripts of pages, as some browsers are set.
    pub(crate) async fn without_scripts(&self) {
        self.devtools("Emulation.setScriptExecutionDisabled", json!({"value": true})).await;
    }

    pub(crate) async fn open(&self, path: &str) {
        self.post("/url", json!({"url": format!("{}{path}", self.base)})).await;
    }

    /// Where it is now, without the host.
    pub(crate) async fn path(&self) -> String {
        let url = self.drive(Method::GET, "/url", None).await.unwrap();
        let url = url.as_str().unwrap();
        url.strip_prefix(&self.base).unwrap_or(url).to_owned()
    }

    async fn find(&self, css: &str) -> String {
        let found = json!({"using": "css selector", "value": css});
        let found = self.drive(Method::POST, "/element", Some(found)).await;
        let Ok(found) = found else {
            panic!("no {css} at {} in\n{}", self.path().await, self.text().await);
        };
        found[ELEMENT].as_str().unwrap().to_owned()
    }

    /// Whether there is such an element.
    pub(crate) async fn has(&self, css: &str) -> bool {
        let found = json!({"using": "css selector", "value": css});
        !self.post("/elements", found).await.as_array().unwrap().is_empty()
    }

    pub(crate) async fn click(&self, css: &str) {
        let element = self.find(css).await;
        self.post(&format!("/element/{element}/click"), json!({})).await;
    }

    /// Clicks on what leads to another page, and waits until that one is there.
    ///
    /// The driver itself waits only if the browser has begun to go elsewhere by the time it looks, which a
    /// slow machine does not always do.
    pub(crate) async fn follow(&self, css: &str) {
        let page = self.find("html").await;
        self.click(css).await;
        eventually("another page", || async {
            let left =
                self.drive(Method::GET, &format!("/element/{page}/name"), None).await.is_err();
            if !left {
                return None;
            }
            // A page that is just being left answers no question.
            let state = self.ask("return document.readyState").await.ok()?;
            (state == "complete").then_some(())
        })
        .await;
    }

    pub(crate) async fn type_into(&self, css: &str, text: &str) {
        let element = self.find(css).await;
        self.post(&format!("/element/{element}/value"), json!({"text": text})).await;
    }

    /// What an element says, as it is seen.
    pub(crate) async fn text_of(&self, css: &str) -> String {
        let element = self.find(css).await;
        let text = self.drive(Method::GET, &format!("/element/{element}/text"), None).await;
        text.unwrap().as_str().unwrap().to_owned()
    }

    /// What the page says.
    pub(crate) async fn text(&self) -> String {
        let text = self.script(TEXT).await;
        text.as_str().unwrap().to_owned()
    }

    /// Waits until the page says something.
    pub(crate) async fn wait_for_text(&self, text: &str) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let page = self.ask(TEXT).await.unwrap_or_else(|error| error);
            let page = page.as_str().unwrap_or_default();
            if page.contains(text) {
                return;
            }
            let is_late = tokio::time::Instant::now() > deadline;
            assert!(!is_late, "{} never says {text:?}, but {page}", self.path().await);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Signs in with a token, as a person would.
    pub(crate) async fn sign_in(&self, token: &str) {
        self.open("/page/sign-in").await;
        self.type_into("#token", token).await;
        self.follow("main button").await;
        assert!(self.has("header.top").await, "{}", self.text().await);
    }

    /// Presses keys, one after another, wherever the focus is.
    pub(crate) async fn press(&self, keys: &str) {
        let strokes: Vec<Value> = keys
            .chars()
            .flat_map(|key| ["keyDown", "keyUp"].map(|what| json!({"type": what, "value": key})))
            .collect();
        let actions = json!([{"type": "key", "id": "keyboard", "actions": strokes}]);
        self.post("/actions", json!({"actions": actions})).await;
    }

    /// Presses Tab until what has the focus is called so.
    pub(crate) async fn tab_to(&self, wanted: &str) {
        let mut seen = Vec::new();
        for _ in 0..TABS_MAX {
            self.press(TAB).await;
            let name = self.focused().await;
            if name.contains(wanted) {
                return;
            }
            seen.push(name);
        }
        panic!("Tab never comes to {wanted:?} at {}, but to {seen:?}", self.path().await);
    }

    /// What has the focus: what it says, its name and its label.
    pub(crate) async fn focused(&self) -> String {
        let name = self
            .script(
                "const at = document.activeElement; const label = at.labels && at.labels[0]; \
                 const text = at.matches('a, button, summary') ? at.textContent : ''; \
                 return [at.tagName, at.id, at.name, text, label ? label.textContent : ''] \
                 .join(' ').replace(/\\s+/g, ' ');",
            )
            .await;
        name.as_str().unwrap().to_owned()
    }

    /// Asks the page.
    pub(crate) async fn script(&self, script: &str) -> Value {
        self.ask(script).await.unwrap_or_else(|error| panic!("{script}: {error}"))
    }

    /// Asks a page that may just be left.
    async fn ask(&self, script: &str) -> Result<Value, Value> {
        let body = json!({"script": script, "args": []});
        self.drive(Method::POST, "/execute/sync", Some(body)).await
    }

    /// A picture of the whole page.
    pub(crate) async fn picture(&self, file: &Path) {
        let height = self.script("return document.documentElement.scrollHeight").await;
        let width = self.script("return window.innerWidth").await;
        let clip = json!({"x": 0, "y": 0, "width": width, "height": height, "scale": 1});
        let wanted = json!({"format": "png", "captureBeyondViewport": true, "clip": clip});
        let picture = self.devtools("Page.captureScreenshot", wanted).await;
        let picture = picture["data"].as_str().unwrap();
        let bytes = base64::Engine::decode(&base64::prelude::BASE64_STANDARD, picture).unwrap();
        std::fs::write(file, bytes).unwrap();
    }

    async fn log(&self, kind: &str) -> Vec<String> {
        let entries = self.post("/se/log", json!({"type": kind})).await;
        let entries = entries.as_array().unwrap().iter();
        entries.map(|entry| entry["message"].as_str().unwrap().to_owned()).collect()
    }

    /// What was said in the console since this was asked last.
    pub(crate) async fn console(&self) -> Vec<String> {
        self.log("browser").await
    }

    /// The hosts that were asked for anything since this was asked last.
    pub(crate) async fn hosts(&self) -> BTreeSet<String> {
        let mut hosts = BTreeSet::new();
        for entry in self.log("performance").await {
            let entry: Value = serde_json::from_str(&entry).unwrap();
            if entry["message"]["method"] == "Network.requestWillBeSent" {
                let url = entry["message"]["params"]["request"]["url"].as_str().unwrap();
                hosts.insert(url.split('/').take(3).collect::<Vec<_>>().join("/"));
            }
        }
        // What a browser does by itself before it shows a page is not asked of any host.
        hosts.retain(|host| host.starts_with("http"));
        hosts
    }

    pub(crate) async fn close(mut self) {
        self.drive(Method::DELETE, "", None).await.unwrap();
        self.process = None;
        self.driver.kill().await.unwrap();
    }
}
