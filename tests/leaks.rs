//! No secret is anywhere but in its file: the daemon and every command run with everything logged, its
//! dependencies included, through refusals, a broker that dies, and bad configurations; then everything that
//! came out of them is searched.

use std::{path::Path, process::Stdio, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use rustix::process::{Pid, Signal, kill_process};
use settled::{
    domain::job::JobType,
    sandbox::{Effect, Fault, On, Times, When},
};
use sha2::{Digest as _, Sha256};
use tokio::{io::AsyncReadExt as _, process::Child, task::JoinHandle};

use crate::support::{
    daemon::binary,
    eventually, eventually_or,
    node::private_node,
    receiver::{Manner, Receiver},
    spans::spans,
    world::{KEY_HEX, TOKEN, World, write_secret},
};

const BROKER_PASSWORD: &str = "canary-broker-password-5b1d";
const WEBHOOK_SECRET: &str = "canary-webhook-secret-of-some-length";
const HOOK_PATH: &str = "canary-path-of-a-webhook";
const BEAT_PATH: &str = "canary-path-of-a-heartbeat";
const TRACES_PATH: &str = "canary-path-of-traces";
const TRACES_TOKEN: &str = "canary-token-for-traces";
const OPERATOR_TOKEN: &str = "settled_canary-token-of-an-operator";

/// Everything that may be nowhere.
const SECRETS: [(&str, &str); 9] = [
    ("the signing key", KEY_HEX),
    ("the access token", TOKEN),
    ("the broker's password", BROKER_PASSWORD),
    ("the webhook's secret", WEBHOOK_SECRET),
    ("the webhook's path", HOOK_PATH),
    ("the heartbeat's path", BEAT_PATH),
    ("the path for traces", TRACES_PATH),
    ("the token for traces", TRACES_TOKEN),
    ("an operator's token", OPERATOR_TOKEN),
];

/// The forms in which a secret could show: as it is, in hexadecimal, in base64, as bytes in a list.
fn forms(secret: &str) -> Vec<Vec<u8>> {
    let mut forms = Vec::new();
    let mut plain = vec![secret.as_bytes().to_vec()];
    // The key is hexadecimal itself; its bytes are a form of it.
    plain.extend(hex::decode(secret));
    for bytes in plain {
        let list: Vec<String> = bytes.iter().map(u8::to_string).collect();
        let encoded = BASE64_STANDARD.encode(&bytes);
        forms.push(hex::encode(&bytes).into_bytes());
        forms.push(hex::encode_upper(&bytes).into_bytes());
        forms.push(encoded.trim_end_matches('=').as_bytes().to_vec());
        forms.push(list.join(", ").into_bytes());
        forms.push(bytes);
    }
    forms
}

fn search(place: &str, bytes: &[u8]) {
    for (name, secret) in SECRETS {
        search_for(name, secret, place, bytes);
    }
}

fn search_for(name: &str, secret: &str, place: &str, bytes: &[u8]) {
    for form in forms(secret) {
        let at = bytes.windows(form.len()).position(|window| window == form);
        if let Some(at) = at {
            let around = &bytes[at.saturating_sub(200)..at];
            panic!("{name} is in {place}, after {}", String::from_utf8_lossy(around));
        }
    }
}

/// The world with canaries for secrets, on a broker with a user of its own.
async fn world_with_canaries(
    broker: &str,
    (receiver, collector): (&Receiver, &Receiver),
    format: &str,
) -> World {
    let mut world = World::on(broker, &[]).await;
    let secret = world.path("webhook-secret");
    write_secret(&secret, WEBHOOK_SECRET);
    let headers = world.path("traces-headers");
    write_secret(&headers, &format!("authorization: Bearer {TRACES_TOKEN}"));
    let tokens = world.path("tokens");
    let line = format!("alice:operator:{}", hex::encode(Sha256::digest(OPERATOR_TOKEN)));
    write_secret(&tokens, &line);
    let with_password = broker.replace("guest:guest", &format!("canary:{BROKER_PASSWORD}"));
    for (key, value) in [
        // Also what may never be logged: it would show the password.
        ("log.filter", "trace,lapin=trace"),
        ("log.format", format),
        ("broker.url", &with_password),
        ("store.mark_path", world.path("mark").to_str().unwrap()),
        ("archive.path", world.path("archive.db").to_str().unwrap()),
        ("archive.after_days", "0"),
        ("http.tokens_file", tokens.to_str().unwrap()),
        ("traces.endpoint", &collector.url(&format!("/{TRACES_PATH}"))),
        ("traces.headers_file", headers.to_str().unwrap()),
        ("traces.every_ms", "20"),
        ("alerts.every_s", "1"),
        ("alerts.hold_s", "0"),
        ("alerts.calm_s", "0"),
        ("alerts.webhook_secret_file", secret.to_str().unwrap()),
        ("alerts.webhook_url", &receiver.url(&format!("/{HOOK_PATH}"))),
        ("alerts.heartbeat_url", &receiver.url(&format!("/{BEAT_PATH}"))),
        ("alerts.heartbeat_every_s", "1"),
        ("alerts.command", "[\"/bin/cat\"]"),
    ] {
        world.set(key, value);
    }
    world
}

/// A daemon whose log is kept.
fn start(world: &World) -> (Child, JoinHandle<Vec<u8>>) {
    let mut command = binary(&world.config_file());
    command.arg("run").stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut log = child.stderr.take().unwrap();
    #[expect(clippy::disallowed_methods, reason = "the test waits for it at the end")]
    let reading = tokio::spawn(async move {
        let mut bytes = Vec::new();
        log.read_to_end(&mut bytes).await.unwrap();
        bytes
    });
    (child, reading)
}

fn http() -> reqwest::Client {
    settled::tls::use_ring();
    reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap()
}

fn address(world: &World, path: &str) -> String {
    format!("http://{}{path}", world.setting("http.listen"))
}

/// What the machine shows of a process to others.
fn search_process(child: &Child) {
    let id = child.id().expect("it runs");
    for file in ["environ", "cmdline", "status", "maps"] {
        let bytes = std::fs::read(format!("/proc/{id}/{file}")).unwrap();
        search(file, &bytes);
    }
    let limits = std::fs::read_to_string(format!("/proc/{id}/limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    let numbers: Vec<&str> = core.split_whitespace().skip(4).take(2).collect();
    assert_eq!(numbers, ["0", "0"], "a core dump would hold the key");
}

/// What every command answers and complains.
async fn search_answers(world: &World, record: &str) {
    let evidence = world.path("evidence.json");
    let evidence = evidence.to_str().unwrap();
    for arguments in [
        &["status", "--json"][..],
        &["doctor"],
        &["topology"],
        &["key", "show"],
        &["jobs", "list", "--json"],
        &["jobs", "show", record, "--json"],
        &["jobs", "explain", record],
        &["jobs", "evidence", record, "--out", evidence],
        &["book", "show", "--json"],
        &["book", "sync"],
        &["reconcile", "--json"],
        &["alerts", "list", "--json"],
        &["alerts", "test"],
        &["verify"],
    ] {
        let (_, output, error) = world.run(arguments).await;
        assert!(!output.is_empty() || !error.is_empty(), "{arguments:?}");
        search(&format!("settled {arguments:?}"), (output + &error).as_bytes());
    }
    for path in ["/metrics", "/readyz", "/healthz"] {
        let answer = http().get(address(world, path)).send().await.unwrap();
        search(path, format!("{:?}", answer.headers()).as_bytes());
        search(path, &answer.bytes().await.unwrap());
    }
}

/// What the page shows, and says to the browser, whether somebody is let in or not. Answers the words that open
/// and bind the session, which may be nowhere else.
async fn search_page(world: &World, record: &str) -> [String; 2] {
    let browser = reqwest::Client::builder().no_proxy().tls_certs_only([]);
    let browser = browser.redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let sign_in = async |token: &str| {
        let form = browser.post(address(world, "/page/sign-in")).body(format!("token={token}"));
        form.send().await.unwrap()
    };
    let wrong = sign_in(&format!("{OPERATOR_TOKEN}x")).await;
    assert_eq!(wrong.status(), 401);
    search("a sign-in that fails", wrong.text().await.unwrap().as_bytes());
    let right = sign_in(OPERATOR_TOKEN).await;
    assert_eq!(right.status(), 303);
    search("the headers of a sign-in", format!("{:?}", right.headers()).as_bytes());
    let cookie = right.headers()["set-cookie"].to_str().unwrap();
    let cookie = cookie.split(';').next().unwrap().to_owned();
    let opens = cookie.strip_prefix("settled=").unwrap().to_owned();
    let get = async |path: &str| {
        let page =
            browser.get(address(world, path)).header("cookie", &cookie).send().await.unwrap();
        assert_eq!(page.status(), 200, "{path}");
        search(path, format!("{:?}", page.headers()).as_bytes());
        let text = page.text().await.unwrap();
        search(path, text.as_bytes());
        search_for("the session's word", &opens, path, text.as_bytes());
        text
    };
    let (job, evidence) = (format!("/page/jobs/{record}"), format!("/page/jobs/{record}/evidence"));
    for path in [
        "/page",
        "/page/jobs",
        &job,
        &evidence,
        "/page/quarantine",
        "/page/quarantine/1",
        "/page/book",
        "/page/book?history=on",
        "/page/reconcile",
        "/page/actions",
        "/page/runbook",
    ] {
        get(path).await;
    }
    let switches = get("/page/switches").await;
    let (_, csrf) = switches.split_once("name=\"csrf\" value=\"").unwrap();
    let csrf = csrf.split('"').next().unwrap().to_owned();
    for to in ["off", "on"] {
        let form = browser.post(address(world, "/page/switches/signing")).header("cookie", &cookie);
        let body = format!("csrf={csrf}&reason=a+drill&to={to}");
        let answer = form.body(body).send().await.unwrap();
        assert_eq!(answer.status(), 303);
    }
    assert!(get("/page/actions").await.contains("a drill"));
    [opens, csrf]
}

/// Everything that the daemon and the commands have written, the files of secrets and the configuration,
/// in which the URLs stand, left out.
fn search_files(folder: &Path) {
    let secret_files = ["key", "token", "webhook-secret", "traces-headers", "settled.toml"];
    let mut searched = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_file() && !secret_files.contains(&name.as_str()) {
            search(&name, &std::fs::read(&path).unwrap());
            searched.push(name);
        }
    }
    for expected in ["book.db", "book.db-wal", "archive.db", "mark", "evidence.json"] {
        assert!(searched.iter().any(|name| name == expected), "{expected} in {searched:?}");
    }
}

async fn run_through_faults(world: &World, receiver: &Receiver) -> Vec<u8> {
    let (child, log) = start(world);
    eventually("the daemon to be ready", || async {
        let answer = http().get(address(world, "/readyz")).send().await.ok()?;
        (answer.status() == 200).then_some(())
    })
    .await;
    search_process(&child);
    // A token that is refused, answers that are lost, and a webhook that does not take notices.
    receiver.next([Manner::Answer(500), Manner::Lose, Manner::Answer(403)]);
    for on in [On::Update, On::List, On::Read] {
        let refuse = Effect::Answer { when: When::Before, status: 401 };
        world.inject(Fault::new(on, refuse).times(Times::Next(1)));
    }
    world.inject(Fault::new(On::Update, Effect::Reset { when: When::After }));
    let record = world.submit(JobType::Deallocation, "9000000").await;
    world.publish([b"no job".to_vec()]).await;
    let mut node = private_node().await;
    node.crash().await;
    drop(node);
    world.wait_for_state(&record, "confirmed").await;
    receiver.wait_for_notice("SettledQuarantine", "firing").await;
    search_process(&child);
    search_answers(world, &record.id.to_string()).await;
    let session = search_page(world, &record.id.to_string()).await;
    // Once its outcome is published.
    eventually_or(
        "the archive to be there",
        || world.status(),
        || async {
            world.must_run(&["archive"]).await;
            world.path("archive.db").exists().then_some(())
        },
    )
    .await;
    // While it runs, so that the log beside the book has not been copied away.
    search_files(&world.path(""));
    let id = Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()).unwrap();
    kill_process(id, Signal::TERM).unwrap();
    let mut child = child;
    let ended = tokio::time::timeout(Duration::from_secs(60), child.wait()).await;
    assert!(ended.expect("it ends").unwrap().success());
    let log = log.await.unwrap();
    for word in &session {
        search_for("a word of a session", word, "the log", &log);
        for file in ["book.db", "book.db-wal"] {
            let bytes = std::fs::read(world.path(file)).unwrap_or_default();
            search_for("a word of a session", word, file, &bytes);
        }
    }
    log
}

/// What a command says, if need be until it is ended.
async fn complaint(world: &World, arguments: &[&str]) -> Vec<u8> {
    let mut command = binary(&world.config_file());
    let mut child = command.args(arguments).spawn().unwrap();
    let (mut output, mut error) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let (mut said, mut complained) = (Vec::new(), Vec::new());
    let listening =
        async { tokio::join!(output.read_to_end(&mut said), error.read_to_end(&mut complained)) };
    let ending = async {
        if tokio::time::timeout(Duration::from_secs(5), child.wait()).await.is_err() {
            child.kill().await.unwrap();
        }
    };
    let _ended = tokio::join!(listening, ending);
    said.extend(complained);
    assert!(!said.is_empty(), "{arguments:?} says nothing");
    said
}

/// Configurations that cannot work, each with a secret at the place that is wrong.
async fn search_complaints(world: &mut World) {
    let good = world.setting("broker.url").to_owned();
    let (key, token) = (world.path("key"), world.path("token"));
    for (broken_key, value) in [
        ("broker.url", format!("amqp:canary:{BROKER_PASSWORD}@host")),
        ("broker.url", format!("amqp://canary:{BROKER_PASSWORD}@host:99999/%2f")),
        ("broker.url", good.replace("canary:", "another:")),
        ("alerts.webhook_url", format!("ftp://host/{HOOK_PATH}")),
        ("alerts.heartbeat_url", format!("http://[/{BEAT_PATH}")),
        ("alerts.command", format!("[\"{WEBHOOK_SECRET}\"")),
        ("traces.endpoint", format!("http://host/{TRACES_PATH}")),
    ] {
        let before = world.setting(broken_key).to_owned();
        world.set(broken_key, &value);
        for arguments in [&["doctor"][..], &["run"], &["alerts", "test"], &["topology"]] {
            // A daemon that cannot reach its broker goes on trying; it is looked at for a while.
            let text = complaint(world, arguments).await;
            search(&format!("settled {arguments:?} with a wrong {broken_key}"), &text);
        }
        world.set(broken_key, &before);
    }
    // A key and a token that are no such thing, and files that others can read.
    std::fs::write(&key, format!("{KEY_HEX}00")).unwrap();
    std::fs::write(&token, format!("{TOKEN} \u{7}")).unwrap();
    for arguments in [&["doctor"][..], &["run"], &["key", "show"]] {
        let (success, output, error) = world.run(arguments).await;
        assert!(!success);
        search(&format!("settled {arguments:?} with bad secrets"), (output + &error).as_bytes());
    }
}

#[tokio::test]
async fn no_secret_is_anywhere_but_in_its_file_whatever_happens_and_is_logged() {
    let (receiver, collector) = (Receiver::start().await, Receiver::start().await);
    let broker = {
        let node = private_node().await;
        // Whoever ran before may have left it.
        node.ctl(&["-q", "add_user", "canary", BROKER_PASSWORD]).await;
        node.ctl(&["-q", "set_permissions", "canary", ".*", ".*", ".*"]).await;
        node.url.clone()
    };
    for format in ["text", "json"] {
        let mut world = world_with_canaries(&broker, (&receiver, &collector), format).await;
        collector.next([Manner::Answer(401), Manner::Lose, Manner::Answer(400)]);
        let log = run_through_faults(&world, &receiver).await;
        let text = String::from_utf8_lossy(&log);
        for part in ["TRACE", "hyper", "settled::"] {
            assert!(text.contains(part), "nothing of {part} was logged");
        }
        search(&format!("the log ({format})"), &log);
        search("the configuration as it is shown", format!("{:?}", world.config()).as_bytes());
        if format == "json" {
            search_complaints(&mut world).await;
        }
    }
    for request in receiver.arrived() {
        let told = format!("{:?} {}", request.headers, request.body);
        search("a notice", told.as_bytes());
    }
    // What failed and was read back is among the spans; the token is where it belongs.
    assert!(spans(&collector).iter().any(|span| span.name == "read_back"));
    for mut request in collector.arrived() {
        let token = request.headers.remove("authorization");
        assert_eq!(token, Some(format!("Bearer {TRACES_TOKEN}")));
        search("exported spans", &request.bytes);
        search("the headers of exported spans", format!("{:?}", request.headers).as_bytes());
    }
}
