//! The operator page, as a browser without a mind of its own asks for it: who gets in, what a form must carry,
//! and that nothing from outside is ever more than text.

use std::{collections::BTreeMap, io::Write as _};

use reqwest::{Method, redirect::Policy};
use settled::{
    domain::job::JobType,
    sandbox::{Effect, Fault, On, Record, Reservation, Times, When},
};

use crate::support::{api::People, daemon::Daemon, eventually, world::World};

/// Every page.
const PAGES: [&str; 10] = [
    "/page",
    "/page/jobs",
    "/page/jobs?state=open&sort=longest",
    "/page/quarantine",
    "/page/book",
    "/page/switches",
    "/page/reconcile",
    "/page/actions",
    "/page/runbook",
    "/page/book?history=on",
];

/// Every form that changes something, with what it asks for.
const FORMS: [(&str, &str); 7] = [
    ("/page/bulk", "id=0b4a3f3e-7d0a-4b5e-9a0e-3d1c5f2b7a10"),
    ("/page/switches/sending", "to=off"),
    ("/page/jobs/0b4a3f3e-7d0a-4b5e-9a0e-3d1c5f2b7a10/act", "action=retry"),
    ("/page/jobs/0b4a3f3e-7d0a-4b5e-9a0e-3d1c5f2b7a10/act", "action=approve"),
    ("/page/jobs/0b4a3f3e-7d0a-4b5e-9a0e-3d1c5f2b7a10/act", "action=close-cleared"),
    ("/page/quarantine/1/requeue", ""),
    ("/page/sign-out", ""),
];

/// Somebody's browser: it keeps a cookie and does what it is told.
struct Visitor {
    http: reqwest::Client,
    base: String,
    cookie: Option<String>,
}

struct Page {
    status: u16,
    headers: reqwest::header::HeaderMap,
    text: String,
}

impl Page {
    /// The word that its forms carry.
    fn csrf(&self) -> String {
        let (_, rest) = self.text.split_once("name=\"csrf\" value=\"").expect("a form");
        rest.split('"').next().unwrap().to_owned()
    }

    fn location(&self) -> &str {
        self.headers["location"].to_str().unwrap()
    }
}

impl Visitor {
    fn at(daemon: &Daemon) -> Self {
        settled::tls::use_ring();
        let http =
            reqwest::Client::builder().no_proxy().tls_certs_only([]).redirect(Policy::none());
        Self { http: http.build().unwrap(), base: daemon.base().to_owned(), cookie: None }
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<String>,
    ) -> Page {
        let mut request = self.http.request(method, format!("{}{path}", self.base));
        if let Some(cookie) = &self.cookie {
            request = request.header("cookie", cookie);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request =
                request.header("content-type", "application/x-www-form-urlencoded").body(body);
        }
        // How many requests may come in a second is another test's.
        tokio::time::sleep(std::time::Duration::from_millis(25)).await;
        let answer = request.send().await.unwrap();
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        Page { status, headers, text: answer.text().await.unwrap() }
    }

    async fn get(&self, path: &str) -> Page {
        self.ask(Method::GET, path, &[], None).await
    }

    async fn post(&self, path: &str, body: &str) -> Page {
        self.ask(Method::POST, path, &[], Some(body.to_owned())).await
    }

    async fn sign_in(&mut self, token: &str) -> Page {
        let answer = self.post("/page/sign-in", &format!("token={token}&next=/page/book")).await;
        if let Some(cookie) = answer.headers.get("set-cookie") {
            let cookie = cookie.to_str().unwrap();
            self.cookie = Some(cookie.split(';').next().unwrap().to_owned());
        }
        answer
    }

    async fn signed_in(daemon: &Daemon, token: &str) -> Self {
        let mut visitor = Self::at(daemon);
        assert_eq!(visitor.sign_in(token).await.status, 303);
        visitor
    }
}

async fn open_with(settings: &[(&str, &str)]) -> (World, Daemon, People) {
    let mut world = World::with(settings).await;
    let tokens = People::known_to(&mut world);
    let daemon = world.daemon().await;
    let people = People::at(&daemon, tokens);
    (world, daemon, people)
}

async fn open() -> (World, Daemon, People) {
    open_with(&[]).await
}

#[tokio::test]
async fn the_page_is_there_only_where_there_are_tokens_and_it_is_wanted() {
    let world = World::new().await;
    let daemon = world.daemon().await;
    assert_eq!(Visitor::at(&daemon).get("/page").await.status, 404);
    daemon.stop().await;
    let (_world, daemon, people) = open_with(&[("http.page", "false")]).await;
    assert_eq!(Visitor::at(&daemon).get("/page").await.status, 404);
    assert_eq!(people.get("eve", "/v1/switches").await.status, 200);
    daemon.stop().await;
}

#[tokio::test]
async fn nobody_sees_a_page_without_a_token_and_signing_in_leads_to_where_one_wanted_to_go() {
    let (_world, daemon, people) = open().await;
    let mut visitor = Visitor::at(&daemon);
    for path in PAGES.into_iter().chain(["/page/jobs/x", "/page/quarantine/1", "/page/no-such"]) {
        let answer = visitor.get(path).await;
        assert_eq!(answer.status, 303, "{path}");
        let next =
            path.replace('/', "%2F").replace('?', "%3F").replace('=', "%3D").replace('&', "%26");
        assert_eq!(answer.location(), format!("/page/sign-in?next={next}"));
        assert_eq!(answer.headers["cache-control"], "no-store");
    }
    assert_eq!(visitor.get("/").await.location(), "/page");
    for wrong in ["", "settled_0", &"x".repeat(3_000), "%00"] {
        let answer = visitor.sign_in(wrong).await;
        assert_eq!((answer.status, answer.headers.get("set-cookie")), (401, None), "{wrong}");
        assert!(answer.text.contains("not a token of this daemon"));
    }
    let answer = visitor.sign_in(&people.tokens["eve"]).await;
    assert_eq!((answer.status, answer.location()), (303, "/page/book"));
    let cookie = answer.headers["set-cookie"].to_str().unwrap();
    for wanted in ["settled=", "HttpOnly", "SameSite=Strict", "Path=/", "Max-Age=43200"] {
        assert!(cookie.contains(wanted), "{cookie}");
    }
    assert!(!cookie.contains("Secure") && !cookie.contains(&people.tokens["eve"]), "{cookie}");
    for path in PAGES {
        let page = visitor.get(path).await;
        assert_eq!(page.status, 200, "{path}: {}", page.text);
        assert!(page.text.contains("eve"), "{path}");
        assert_eq!(page.headers["cache-control"], "no-store");
        let policy = page.headers["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'"), "{policy}");
        assert!(
            policy.contains("frame-ancestors 'none'") && !policy.contains("unsafe"),
            "{policy}"
        );
        assert_eq!(page.headers["x-content-type-options"], "nosniff");
        assert!(!page.text.contains("style=") && !page.text.contains("onclick"), "{path}");
    }
    assert_eq!(visitor.get("/page/no-such").await.status, 404);
    daemon.stop().await;
}

#[tokio::test]
async fn a_session_ends_when_one_signs_out_or_the_token_is_taken_back() {
    let (world, daemon, people) = open().await;
    let alice = Visitor::signed_in(&daemon, &people.tokens["alice"]).await;
    let bob = Visitor::signed_in(&daemon, &people.tokens["bob"]).await;
    let csrf = alice.get("/page").await.csrf();
    let answer = alice.post("/page/sign-out", &format!("csrf={csrf}")).await;
    assert_eq!((answer.status, answer.location()), (303, "/page/sign-in"));
    assert!(answer.headers["set-cookie"].to_str().unwrap().contains("Max-Age=0"));
    assert_eq!(alice.get("/page").await.status, 303, "the cookie opens nothing any more");
    assert_eq!(bob.get("/page").await.status, 200);

    let path = world.path("tokens");
    let lines = std::fs::read_to_string(&path).unwrap();
    let left: Vec<&str> = lines.lines().filter(|line| !line.starts_with("bob")).collect();
    std::fs::write(&path, left.join("\n")).unwrap();
    assert_eq!(bob.get("/page").await.status, 303);
    let csrf = "0".repeat(64);
    let answer = bob.post("/page/switches/sending", &format!("csrf={csrf}&to=off&reason=x")).await;
    assert_eq!(answer.status, 401);
    // A refresh of a page says so and leads nowhere.
    let live = bob.ask(Method::GET, "/page", &[("x-settled-live", "1")], None).await;
    assert_eq!(live.status, 401);
    daemon.stop().await;
}

#[tokio::test]
async fn behind_tls_the_cookie_is_for_tls_only() {
    let (_world, daemon, people) = open_with(&[("http.behind_tls", "true")]).await;
    let mut visitor = Visitor::at(&daemon);
    let answer = visitor.sign_in(&people.tokens["eve"]).await;
    let cookie = answer.headers["set-cookie"].to_str().unwrap();
    assert!(cookie.starts_with("__Host-settled=") && cookie.ends_with("; Secure"), "{cookie}");
    assert_eq!(visitor.get("/page").await.status, 200);
    visitor.cookie = visitor.cookie.map(|cookie| cookie.replace("__Host-", ""));
    assert_eq!(visitor.get("/page").await.status, 303);
    daemon.stop().await;
}

#[tokio::test]
async fn whoever_tries_many_tokens_is_turned_away() {
    let (_world, daemon, people) = open().await;
    let mut visitor = Visitor::at(&daemon);
    let mut turned_away = 0;
    for _ in 0..30 {
        let answer = visitor.sign_in("settled_0").await;
        turned_away += u32::from(answer.status == 429);
    }
    assert!(turned_away > 10, "{turned_away}");
    assert_eq!(people.get("eve", "/v1/switches").await.status, 200, "the API goes on");
    daemon.stop().await;
}

#[tokio::test]
async fn only_a_form_of_the_same_session_changes_anything() {
    let (_world, daemon, people) = open().await;
    let alice = Visitor::signed_in(&daemon, &people.tokens["alice"]).await;
    let bob = Visitor::signed_in(&daemon, &people.tokens["bob"]).await;
    let again = Visitor::signed_in(&daemon, &people.tokens["alice"]).await;
    let (mine, others, of_again) = (
        alice.get("/page").await.csrf(),
        bob.get("/page").await.csrf(),
        again.get("/page").await.csrf(),
    );
    for (path, fields) in FORMS {
        for csrf in ["", &others, &of_again, &mine[1..], &mine.to_uppercase()] {
            let body = format!("csrf={csrf}&reason=because&{fields}");
            let answer = alice.post(path, &body).await;
            assert_eq!(answer.status, 403, "{path} {csrf}");
            assert!(answer.text.contains("not of this session"), "{}", answer.text);
        }
        assert_eq!(alice.post(path, &format!("reason=because&{fields}")).await.status, 403);
        // With the right word, but from elsewhere.
        for headers in [
            [("sec-fetch-site", "cross-site")],
            [("sec-fetch-site", "same-site")],
            [("origin", "http://127.0.0.1:1")],
            [("origin", "null")],
        ] {
            let body = format!("csrf={mine}&reason=because&{fields}");
            let answer = alice.ask(Method::POST, path, &headers, Some(body)).await;
            assert_eq!(answer.status, 403, "{path} {headers:?}");
        }
        // A cookie is no token, and a token no cookie.
        let no_cookie = Visitor::at(&daemon);
        let bearer = format!("Bearer {}", people.tokens["alice"]);
        let body = Some(format!("csrf={mine}&reason=because&{fields}"));
        let answer = no_cookie.ask(Method::POST, path, &[("authorization", &bearer)], body).await;
        assert_eq!(answer.status, 401, "{path}");
    }
    assert_eq!(alice.get("/v1/switches").await.status, 401, "the API looks at no cookie");
    assert_eq!(people.get("eve", "/v1/actions").await.text, "[]", "nothing was done");
    let done =
        alice.post("/page/switches/sending", &format!("csrf={mine}&reason=a+drill&to=off")).await;
    assert_eq!(done.status, 303);
    let shown = alice.get("/page/switches").await.text;
    assert!(shown.contains("sending is off.") && shown.contains("a drill"), "{shown}");
    assert!(!alice.get("/page/switches").await.text.contains("sending is off."), "said once");
    let action = people.get("eve", "/v1/actions").await.json();
    assert_eq!((&action[0]["who"], &action[0]["reason"]), (&"alice".into(), &"a drill".into()));
    daemon.stop().await;
}

#[tokio::test]
async fn who_may_only_look_sees_no_form_and_can_do_nothing() {
    let (world, daemon, people) = open().await;
    let parked = parked(&world).await;
    let eve = Visitor::signed_in(&daemon, &people.tokens["eve"]).await;
    let job = format!("/page/jobs/{}", parked.id);
    for path in PAGES.into_iter().chain([job.as_str()]) {
        let page = eve.get(path).await;
        assert_eq!(page.status, 200, "{path}");
        let forms = page.text.matches("method=\"post\"").count();
        assert_eq!(forms, 1, "{path}: to sign out only");
    }
    let csrf = eve.get("/page").await.csrf();
    for (path, fields) in FORMS.into_iter().filter(|(path, _)| *path != "/page/sign-out") {
        let answer = eve.post(path, &format!("csrf={csrf}&reason=because&{fields}")).await;
        assert_eq!(answer.status, 403, "{path}");
        assert!(answer.text.contains("eve may look and not act"), "{}", answer.text);
    }
    assert_eq!(people.get("eve", "/v1/actions").await.text, "[]", "nothing was done");
    daemon.stop().await;
}

#[tokio::test]
async fn every_action_needs_a_reason() {
    let (_world, daemon, people) = open().await;
    let alice = Visitor::signed_in(&daemon, &people.tokens["alice"]).await;
    let csrf = alice.get("/page").await.csrf();
    for (path, fields) in FORMS.into_iter().filter(|(path, _)| *path != "/page/sign-out") {
        for reason in ["", "reason=", "reason=++", &format!("reason={}", "x".repeat(513))] {
            let answer = alice.post(path, &format!("csrf={csrf}&{reason}&{fields}")).await;
            let said = if path == "/page/bulk" {
                assert_eq!(answer.status, 400, "{reason}: {}", answer.text);
                answer.text
            } else {
                assert_eq!(answer.status, 303, "{path} {reason}: {}", answer.text);
                alice.get("/page/switches").await.text
            };
            assert!(said.contains("reason"), "{path} {reason}: {said}");
        }
    }
    assert_eq!(people.get("eve", "/v1/actions").await.text, "[]", "nothing was done");
    daemon.stop().await;
}

/// A deallocation that OES does not take.
async fn parked(world: &World) -> Record {
    let parked = world.reserve(JobType::Deallocation, "7");
    let refuse = Effect::Answer { when: When::Before, status: 422 };
    world.inject(Fault::new(On::Update, refuse).of_record(parked.id).times(Times::Always));
    world.publish([world.job(&parked)]).await;
    world.wait_for_state(&parked, "parked(refused_by_oes)").await;
    parked
}

#[tokio::test]
async fn a_bulk_action_is_carried_out_once_and_on_what_was_shown() {
    let (world, daemon, people) = open().await;
    let record = parked(&world).await;
    let alice = Visitor::signed_in(&daemon, &people.tokens["alice"]).await;
    let bob = Visitor::signed_in(&daemon, &people.tokens["bob"]).await;
    let preview =
        |csrf: &str| format!("csrf={csrf}&action=retry&query=state%3Dparked%26currency%3DBTC");
    let csrf = alice.get("/page/jobs").await.csrf();
    let shown = alice.post("/page/bulk/preview", &preview(&csrf)).await;
    assert_eq!(shown.status, 200, "{}", shown.text);
    assert!(
        shown.text.contains(&record.id.to_string()) && shown.text.contains("BTC"),
        "{}",
        shown.text
    );
    let (_, rest) = shown.text.split_once("name=\"id\" value=\"").unwrap();
    let id = rest.split('"').next().unwrap();
    // What one operator was shown is nothing to another.
    let of_bob = bob.get("/page/jobs").await.csrf();
    let answer = bob.post("/page/bulk", &format!("csrf={of_bob}&id={id}&reason=x")).await;
    assert_eq!(answer.status, 409, "{}", answer.text);
    world.oes().clear_faults();
    let confirm = format!("csrf={csrf}&id={id}&reason=OES+is+well+again");
    let done = alice.post("/page/bulk", &confirm).await;
    assert!(
        done.status == 200 && done.text.contains("<strong>1</strong> × The job goes on"),
        "{}",
        done.text
    );
    world.wait_for_state(&record, "confirmed").await;
    assert_eq!(alice.post("/page/bulk", &confirm).await.status, 409, "once");
    let action = people.get("eve", "/v1/actions").await.json();
    assert_eq!(action[0]["bulkId"], id, "{action}");
    let nothing = alice.post("/page/bulk/preview", &preview(&csrf)).await;
    assert!(nothing.text.contains("There is no job that this is for."), "{}", nothing.text);
    for bad in ["action=sell&query=", "action=retry&query=colour%3Dred", "query="] {
        let answer = alice.post("/page/bulk/preview", &format!("csrf={csrf}&{bad}")).await;
        assert_eq!(answer.status, 400, "{bad}");
    }
    daemon.stop().await;
}

#[tokio::test]
async fn a_link_from_another_site_leads_to_the_page_although_the_cookie_is_held_back_at_first() {
    let (_world, daemon, people) = open().await;
    let mut visitor = Visitor::signed_in(&daemon, &people.tokens["eve"]).await;
    let cookie = visitor.cookie.take();
    let from_elsewhere = [("sec-fetch-site", "cross-site")];
    let answer = visitor.ask(Method::GET, "/page/jobs?state=parked", &from_elsewhere, None).await;
    assert!(answer.text.contains("0; url=/page/jobs?state=parked"), "{}", answer.text);
    let again = [("sec-fetch-site", "same-origin")];
    let answer = visitor.ask(Method::GET, "/page/jobs?state=parked", &again, None).await;
    assert_eq!(answer.status, 303, "who is not signed in goes to the sign-in");
    visitor.cookie = cookie;
    let answer = visitor.ask(Method::GET, "/page/jobs?state=parked", &again, None).await;
    assert_eq!(answer.status, 200);
    daemon.stop().await;
}

const SCRIPT: &str = "<script>alert('owned')</script>\"'><img src=x onerror=alert(1)>&lt;b";

/// What a page says of a text: its own markup, and none of the text's.
fn assert_only_text(path: &str, page: &str) {
    let scripts: Vec<_> = page.match_indices("<script").collect();
    assert_eq!(scripts.len(), 1, "{path}: {page}");
    for markup in ["<img", "onerror=alert(1)>", "&lt;b<"] {
        assert!(!page.contains(markup), "{path} has {markup}: {page}");
    }
}

#[tokio::test]
async fn what_comes_from_outside_is_shown_as_text() {
    let (world, daemon, people) = open().await;
    let alice = Visitor::signed_in(&daemon, &people.tokens["alice"]).await;
    let evil = world.oes().reserve(Reservation {
        record_type: JobType::Allocation,
        connection_id: world.connection_id,
        currency: "BTC".parse().unwrap(),
        quantity: "5".parse().unwrap(),
        partners_record_id: Some(SCRIPT.parse().unwrap()),
    });
    let evil = evil.unwrap();
    world.publish([world.job(&evil), SCRIPT.as_bytes().to_vec()]).await;
    world.wait_for_state(&evil, "confirmed").await;
    eventually("the message to be in quarantine", || async {
        alice.get("/page/quarantine/1").await.text.contains("owned").then_some(())
    })
    .await;
    let csrf = alice.get("/page").await.csrf();
    let form = BTreeMap::from([("csrf", csrf.as_str()), ("reason", SCRIPT), ("to", "off")]);
    let body = serde_urlencoded::to_string(&form).unwrap();
    assert_eq!(alice.post("/page/switches/sending", &body).await.status, 303);
    let (shown, evil_job) =
        (["/page/switches", "/page/actions"], format!("/page/jobs/{}", evil.id));
    let query = serde_urlencoded::to_string([("who", SCRIPT)]).unwrap();
    let (filter, code) =
        (format!("/page/actions?{query}"), query.replace("who", "/page/quarantine?code"));
    let next = query.replace("who", "/page/sign-in?next");
    for path in shown.into_iter().chain([
        "/page",
        "/page/quarantine",
        "/page/quarantine/1",
        &evil_job,
        &filter,
        &code,
    ]) {
        let page = alice.get(path).await;
        assert_eq!(page.status, 200, "{path}");
        assert!(
            path.ends_with("/page/quarantine") || page.text.contains("script&#62;"),
            "{path}: {}",
            page.text
        );
        assert_only_text(path, &page.text);
    }
    // Also where nothing is found, and before one is signed in.
    for (visitor, path) in [
        (&alice, "/page/jobs/%3Cscript%3E"),
        (&alice, "/page/jobs?state=%3Cscript%3E"),
        (&alice, "/page/book?connection=%3Cscript%3E"),
        (&Visitor::at(&daemon), next.as_str()),
    ] {
        let page = visitor.get(path).await;
        assert!(!page.text.contains("<script"), "{path}: {}", page.text);
    }
    daemon.stop().await;
}

#[tokio::test]
async fn a_page_can_be_asked_for_by_a_file_of_tokens_that_has_changed() {
    let (world, daemon, people) = open().await;
    let (token, line) = settled::web::auth::new_token("dora", settled::web::auth::Role::Operator);
    let mut file = std::fs::OpenOptions::new().append(true).open(world.path("tokens")).unwrap();
    writeln!(file, "{line}").unwrap();
    drop(file);
    let dora = Visitor::signed_in(&daemon, &token).await;
    assert!(dora.get("/page").await.text.contains("dora"));
    assert!(!people.tokens.contains_key("dora"));
    daemon.stop().await;
}
