//! The API: who may do what, in what form, and what it costs at most.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use settled::{
    domain::job::JobType,
    sandbox::{Effect, Fault, On, Record, Times, When},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::support::{api::People, daemon::Daemon, world::World};

async fn open() -> (World, Daemon, People) {
    let mut world = World::new().await;
    let tokens = People::known_to(&mut world);
    let daemon = world.daemon().await;
    let people = People::at(&daemon, tokens);
    (world, daemon, people)
}

/// Every route of the description with its method, and something in the place of what it asks for.
async fn routes(people: &People) -> Vec<(Method, String)> {
    let described = people.ask_with(None, Method::GET, "/openapi.json", None).await.json();
    let mut routes = Vec::new();
    for (path, methods) in described["paths"].as_object().unwrap() {
        let path = path
            .replace("{recordId}", "0b4a3f3e-7d0a-4b5e-9a0e-3d1c5f2b7a10")
            .replace("{switch}", "sending")
            .replace("{seq}", "1");
        assert!(!path.contains('{'), "{path}");
        for method in methods.as_object().unwrap().keys() {
            routes.push((method.to_uppercase().parse().unwrap(), path.clone()));
        }
    }
    assert!(routes.len() > 20, "{routes:?}");
    routes
}

/// Only a look at what would be done; the one thing that is posted and changes nothing.
const PREVIEW: &str = "/v1/bulk/preview";

#[tokio::test]
async fn without_tokens_there_is_no_api_but_the_control_socket_serves_its_owner() {
    let world = World::new().await;
    let daemon = world.daemon().await;
    for path in ["/v1/jobs", "/v1/status", "/openapi.json"] {
        assert_eq!(daemon.get(path).await.0, 404, "{path}");
    }
    assert_eq!(daemon.get("/healthz").await.0, 200);
    let said = world.must_run(&["switch", "sending", "off", "--reason", "a drill"]).await;
    assert!(said.contains("sending is off"), "{said}");
    daemon.stop().await;
}

#[tokio::test]
async fn every_route_needs_a_token_and_every_action_an_operator() {
    let (_world, daemon, people) = open().await;
    let wrong = format!("{}0", people.tokens["alice"]);
    for (method, path) in routes(&people).await {
        let body = (method != Method::GET).then(|| json!({"reason": "because"}));
        for token in [None, Some(wrong.as_str()), Some("")] {
            let answer = people.ask_with(token, method.clone(), &path, body.as_ref()).await;
            assert_eq!(answer.status, 401, "{method} {path}");
            assert_eq!(answer.headers["www-authenticate"], "Bearer");
            assert!(!answer.problem().contains(&wrong), "{answer:?}");
        }
        let token = Some(people.tokens["eve"].as_str());
        let answer = people.ask_with(token, method.clone(), &path, body.as_ref()).await;
        if method == Method::GET || path == PREVIEW {
            assert!([200, 400, 404].contains(&answer.status), "{method} {path}: {answer:?}");
        } else {
            assert_eq!(answer.status, 403, "{method} {path}");
            assert!(answer.problem().contains("eve may look and not act"), "{answer:?}");
        }
    }
    let actions = people.get("eve", "/v1/actions").await.json();
    assert_eq!(actions, json!([]), "nothing was done");
    daemon.stop().await;
}

#[tokio::test]
async fn every_action_needs_a_reason_and_nothing_that_is_not_asked_for() {
    let (_world, daemon, people) = open().await;
    for (method, path) in routes(&people).await {
        if method == Method::GET || path == PREVIEW {
            continue;
        }
        let outcome = path.ends_with("/resolve").then_some("cleared");
        for reason in [json!(null), json!(""), json!("  "), json!(7), json!("x".repeat(513))] {
            let mut body = json!({"reason": reason});
            match path.as_str() {
                "/v1/bulk" => body
                    .as_object_mut()
                    .unwrap()
                    .extend(json!({"action": "retry", "records": []}).as_object().unwrap().clone()),
                "/v1/book/events" => body = json!({"source": reason, "events": []}),
                "/v1/book/sync" => body["apply"] = json!(false),
                "/v1/book/accept-snapshot" => body["connections"] = json!([]),
                "/v1/reconcile" => {
                    body["sinceMs"] = json!(0);
                    body["untilMs"] = json!(0);
                    body["adopt"] = json!(false);
                }
                "/v1/switches/sending" => body["on"] = json!(false),
                _ => {}
            }
            if let Some(outcome) = outcome {
                body["outcome"] = json!(outcome);
            }
            let token = Some(people.tokens["alice"].as_str());
            let answer = people.ask_with(token, method.clone(), &path, Some(&body)).await;
            assert_eq!(answer.status, 400, "{method} {path} {body}: {answer:?}");
            let problem = answer.problem();
            assert!(problem.contains("reason") || problem.contains("source"), "{problem}");
        }
    }
    let more = json!({"on": false, "reason": "because", "who": "somebody else"});
    let answer = people.put("alice", "/v1/switches/sending", &more).await;
    assert_eq!(answer.status, 400, "a field that is not known: {answer:?}");
    assert_eq!(people.get("eve", "/v1/actions").await.json(), json!([]));
    daemon.stop().await;
}

#[tokio::test]
async fn a_page_of_another_site_can_neither_read_nor_act() {
    let (_world, daemon, people) = open().await;
    settled::tls::use_ring();
    let http = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
    let url = format!("{}/v1/switches/sending", daemon.base());
    let preflight = http
        .request(Method::OPTIONS, &url)
        .header("origin", "https://evil.example")
        .header("access-control-request-method", "PUT")
        .header("access-control-request-headers", "authorization")
        .send()
        .await
        .unwrap();
    assert!(!preflight.status().is_success());
    let allowed =
        preflight.headers().keys().any(|name| name.as_str().starts_with("access-control"));
    assert!(!allowed, "{preflight:?}");
    // What a form can send without being asked first is no JSON.
    for kind in
        ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"]
    {
        let answer = http
            .put(&url)
            .bearer_auth(&people.tokens["alice"])
            .header("content-type", kind)
            .body(r#"{"on":false,"reason":"because"}"#)
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 415, "{kind}");
    }
    // Neither a cookie nor a token in the query is looked at.
    let token = &people.tokens["alice"];
    for request in [
        http.get(format!("{}/v1/jobs?access_token={token}", daemon.base())),
        http.get(format!("{}/v1/jobs", daemon.base())).header("cookie", format!("token={token}")),
        http.get(format!("{}/v1/jobs", daemon.base())).header("x-settled-who", "alice"),
    ] {
        assert_eq!(request.send().await.unwrap().status(), 401);
    }
    daemon.stop().await;
}

/// Sends some bytes and hears what comes, until the connection is closed.
async fn raw(daemon: &Daemon, bytes: &[u8]) -> String {
    let address = daemon.base().strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut heard = Vec::new();
    // A connection that is reset has been closed as well.
    let _ended = stream.read_to_end(&mut heard).await;
    String::from_utf8_lossy(&heard).into_owned()
}

#[tokio::test]
async fn a_request_that_is_too_large_or_too_slow_is_ended_and_others_are_served_meanwhile() {
    let (_world, daemon, people) = open().await;
    let token = &people.tokens["alice"];
    let large = json!({"on": false, "reason": "x".repeat(70_000)});
    let answer = people.put("alice", "/v1/switches/sending", &large).await;
    assert_eq!(answer.status, 413);
    assert!(answer.problem().contains("65536 bytes"), "{answer:?}");

    let head = |length: usize| {
        format!(
            "PUT /v1/switches/sending HTTP/1.1\r\nhost: settled\r\nauthorization: Bearer {token}\r\n\
             content-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
        )
    };
    let (slow_body, slow_head, long_head) = (
        format!("{}{{\"on\":", head(40)),
        "GET /v1/jobs HTTP/1.1\r\nhost: settled\r\nauthor".to_owned(),
        format!(
            "GET /v1/jobs HTTP/1.1\r\nhost: settled\r\nx-long: {}\r\n\r\n",
            "x".repeat(400_000)
        ),
    );
    let served = async {
        for _ in 0..20 {
            assert_eq!(people.get("eve", "/v1/switches").await.status, 200);
            assert_eq!(daemon.get("/healthz").await.0, 200);
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let (slow_body, slow_head, long_head, ()) = tokio::join!(
        raw(&daemon, slow_body.as_bytes()),
        raw(&daemon, slow_head.as_bytes()),
        raw(&daemon, long_head.as_bytes()),
        served
    );
    assert!(
        slow_body.starts_with("HTTP/1.1 408") && slow_body.contains("did not arrive"),
        "{slow_body}"
    );
    assert!(slow_head.is_empty() || slow_head.starts_with("HTTP/1.1 408"), "{slow_head}");
    assert!(long_head.starts_with("HTTP/1.1 431"), "{long_head}");
    assert_eq!(people.get("eve", "/v1/actions").await.json(), json!([]), "nothing was done");
    daemon.stop().await;
}

#[tokio::test]
async fn more_requests_than_allowed_are_turned_away_and_probes_are_not() {
    let (_world, daemon, people) = open().await;
    let mut turned_away = 0;
    // All at once: one after the other, a busy machine may be slower than the limit.
    let token = Some(people.tokens["eve"].as_str());
    let asked = (0..200).map(|_| people.ask_once(token, Method::GET, "/v1/switches", None));
    for answer in futures_util::future::join_all(asked).await {
        if answer.status == 429 {
            assert_eq!(answer.headers["retry-after"], "1");
            assert!(answer.problem().contains("50 requests"), "{answer:?}");
            turned_away += 1;
        }
    }
    assert!(turned_away > 20, "{turned_away}");
    assert_eq!(daemon.get("/healthz").await.0, 200);
    assert_eq!(daemon.get("/readyz").await.0, 200);
    daemon.stop().await;
}

/// The ids on one page of jobs.
async fn found(people: &People, query: &str) -> Vec<String> {
    let page = people.get("eve", &format!("/v1/jobs?{query}")).await;
    assert_eq!(page.status, 200, "{query}: {page:?}");
    on_page(&page.json())
}

fn on_page(page: &Value) -> Vec<String> {
    let jobs = page["jobs"].as_array().unwrap();
    jobs.iter().map(|job| job["recordId"].as_str().unwrap().to_owned()).collect()
}

fn ids(records: &[&Record]) -> Vec<String> {
    records.iter().map(|record| record.id.to_string()).collect()
}

/// Three allocations that are cleared, a deallocation that is released, and one that is parked; the last
/// one first.
async fn five_jobs(world: &World) -> [Record; 5] {
    let mut cleared = Vec::new();
    for quantity in ["1", "2", "3"] {
        let record = world.submit(JobType::Allocation, quantity).await;
        world.wait_for_state(&record, "confirmed").await;
        cleared.push(record);
    }
    let released = world.submit(JobType::Deallocation, "9000000").await;
    world.wait_for_state(&released, "confirmed").await;
    let parked = world.reserve(JobType::Deallocation, "7");
    let refuse = Effect::Answer { when: When::Before, status: 422 };
    world.inject(Fault::new(On::Update, refuse).of_record(parked.id).times(Times::Always));
    world.publish([world.job(&parked)]).await;
    world.wait_for_state(&parked, "parked(refused_by_oes)").await;
    let [one, two, three] = cleared.try_into().unwrap();
    [parked, released, three, two, one]
}

#[tokio::test]
async fn jobs_are_found_by_all_that_is_asked_for() {
    let (world, daemon, people) = open().await;
    let records = five_jobs(&world).await;
    let all: Vec<&Record> = records.iter().collect();
    let (parked, released) = (ids(&all[..1]), ids(&all[1..2]));
    let shown = people.get("eve", &format!("/v1/jobs/{}", records[0].id)).await.json();
    let partners = shown["partnersRecordId"].as_str().unwrap();
    let (connection, client) = (world.connection_id, world.client_id);
    let short = records[0].id.to_string()[..9].to_uppercase();
    for (query, expected) in [
        (String::new(), ids(&all)),
        ("sort=oldest".to_owned(), ids(&all).into_iter().rev().collect()),
        ("state=parked".to_owned(), parked.clone()),
        ("state=open".to_owned(), parked.clone()),
        ("state=parked,confirmed&type=deallocation".to_owned(), ids(&all[..2])),
        ("state=overruled".to_owned(), vec![]),
        ("reason=refused_by_oes".to_owned(), parked.clone()),
        ("reason=insufficient_available".to_owned(), released.clone()),
        ("outcome=released".to_owned(), released),
        ("type=allocation".to_owned(), ids(&all[2..])),
        (format!("connection={connection}"), ids(&all)),
        (format!("client={client}&state=confirmed"), ids(&all[1..])),
        (format!("connection={}", uuid::Uuid::new_v4()), vec![]),
        (format!("client={}", uuid::Uuid::new_v4()), vec![]),
        ("currency=BTC&limit=2".to_owned(), ids(&all[..2])),
        ("currency=ETH".to_owned(), vec![]),
        (format!("text={short}"), parked.clone()),
        (format!("text={partners}"), parked.clone()),
        ("text=client-0".to_owned(), ids(&all)),
        ("text=nothing-begins-so".to_owned(), vec![]),
        ("sort=longest".to_owned(), parked.clone()),
        (format!("sort=longest&text={partners}"), parked.clone()),
        ("sort=next".to_owned(), parked.clone()),
        ("sort=updated&state=parked".to_owned(), parked.clone()),
        (format!("sort=updated&text={partners}"), parked),
        (format!("text={client}&limit=1"), ids(&all[..1])),
        (format!("text={}", &connection.to_string()[..12]), ids(&all)),
        ("olderThan=1h".to_owned(), vec![]),
        ("youngerThan=1h".to_owned(), ids(&all)),
        ("youngerThan=1h&olderThan=2h".to_owned(), vec![]),
        ("receivedUntil=1000".to_owned(), vec![]),
        ("receivedSince=1000".to_owned(), ids(&all)),
    ] {
        assert_eq!(found(&people, &query).await, expected, "{query}");
    }
    for bad in [
        "state=gone",
        "type=loan",
        "connection=x",
        "client=1",
        "sort=by-mood",
        "after=there",
        "after=0.7",
        "sort=oldest&after=bmV3ZXN0LjAuNw",
        "after=bmV3ZXN0LjAuNw&before=bmV3ZXN0LjAuNw",
        "reason=bad-weather",
        "olderThan=old",
        "outcome=maybe",
        "limit=many",
        "colour=red",
    ] {
        let answer = people.get("eve", &format!("/v1/jobs?{bad}")).await;
        assert_eq!(answer.status, 400, "{bad}");
        answer.problem();
    }
    daemon.stop().await;
}

#[tokio::test]
async fn jobs_are_read_page_by_page_each_once_and_in_order() {
    let (world, daemon, people) = open().await;
    five_jobs(&world).await;
    let (connection, client) = (world.connection_id, world.client_id);
    for which in [String::new(), format!("&connection={connection}"), format!("&client={client}")] {
        for sort in ["newest", "oldest", "updated"] {
            let whole = found(&people, &format!("sort={sort}{which}")).await;
            assert_eq!(whole.len(), 5, "{sort}{which}");
            let (mut read, mut place) = (Vec::new(), String::new());
            let last = loop {
                let query = format!("/v1/jobs?sort={sort}&limit=2&count=true{which}{place}");
                let page = people.get("eve", &query).await.json();
                assert_eq!(page["count"], json!({"jobs": 5, "isExact": true}));
                read.extend(on_page(&page));
                let Some(next) = page["next"].as_str() else { break page };
                place = format!("&after={next}");
            };
            assert_eq!(read, whole, "{sort}{which}");
            let (mut read, mut previous) = (on_page(&last), last["previous"].clone());
            while let Some(before) = previous.as_str() {
                let query = format!("/v1/jobs?limit=2{which}&before={before}");
                let page = people.get("eve", &query).await.json();
                read = [on_page(&page), read].concat();
                previous = page["previous"].clone();
            }
            assert_eq!(read, whole, "{sort}{which}, backwards");
        }
    }
    daemon.stop().await;
}

#[tokio::test]
async fn a_job_is_shown_with_the_times_between_and_explained() {
    let (world, daemon, people) = open().await;
    let record = world.submit(JobType::Allocation, "5").await;
    world.wait_for_state(&record, "confirmed").await;
    let shown = people.get("eve", &format!("/v1/jobs/{}", record.id)).await.json();
    let timeline = shown["timeline"].as_array().unwrap();
    let at = |index: usize, name: &str| timeline[index][name].as_i64().unwrap();
    for index in 1..timeline.len() {
        assert_eq!(at(index, "afterMs"), at(index, "atMs") - at(index - 1, "atMs"));
    }
    assert_eq!(at(0, "afterMs"), 0);
    let explained = people.get("eve", &format!("/v1/jobs/{}/explain", record.id)).await.json();
    assert_eq!((&explained["says"], &explained["agrees"]), (&json!("cleared"), &json!(true)));
    let evidence = people.get("eve", &format!("/v1/jobs/{}/evidence", record.id)).await.json();
    assert_eq!(evidence["recordId"], json!(record.id));
    let unknown = people.get("eve", &format!("/v1/jobs/{}", uuid::Uuid::new_v4())).await;
    assert_eq!(unknown.status, 404);
    assert!(unknown.problem().contains("there is no job"), "{unknown:?}");

    let status = people.get("eve", "/v1/status").await.json();
    assert_eq!(status["daemon"]["ready"], true);
    assert_eq!(status["daemon"]["you"], json!({"name": "eve", "role": "read-only"}));
    let connections = people.get("eve", "/v1/book/connections").await.json();
    assert_eq!(connections[0]["holdings"][0]["available"], "1000005");
    let one = format!("/v1/book/connections?connection={}", world.connection_id);
    assert_eq!(people.get("eve", &one).await.json(), connections);
    let behind = format!("/v1/book/connections?after={}", world.connection_id);
    assert_eq!(people.get("eve", &behind).await.json(), json!([]));
    let currencies = people.get("eve", "/v1/book/currencies").await.json();
    assert_eq!(currencies[0]["exposureTotal"], "5");
    daemon.stop().await;
}

#[tokio::test]
async fn facts_are_taken_over_the_api_with_the_name_of_who_brings_them() {
    let (world, daemon, people) = open().await;
    let facts = json!({"source": "desk", "events": [world.adjustment("api-1", "-5")]});
    let taken = people.post("alice", "/v1/book/events", &facts).await;
    assert_eq!(taken.json()["outcomes"], json!(["applied"]));
    assert_eq!(
        people.post("bob", "/v1/book/events", &facts).await.json()["outcomes"],
        json!(["already_applied"])
    );
    assert_eq!(world.balances().await[0], "999995");
    let limits = json!({"source": "desk", "events": [
        {"eventId": "api-2", "type": "currency.configured", "currency": "BTC", "enabled": true,
         "quantityMin": "3", "quantityMax": "9"}]});
    assert_eq!(people.post("alice", "/v1/book/events", &limits).await.status, 200);
    let history = people.get("eve", "/v1/book/history?currency=BTC&limit=1").await.json();
    assert_eq!(history[0]["source"], "desk by alice");
    let bad = json!({"source": "desk", "events": [{"eventId": "x", "type": "gift"}]});
    assert_eq!(people.post("alice", "/v1/book/events", &bad).await.status, 400);
    daemon.stop().await;
}

#[tokio::test]
async fn a_token_that_was_taken_back_opens_nothing_without_a_restart() {
    let (world, daemon, people) = open().await;
    assert_eq!(people.get("alice", "/v1/switches").await.status, 200);
    let path = world.path("tokens");
    let lines = std::fs::read_to_string(&path).unwrap();
    let kept: Vec<&str> = lines.lines().filter(|line| !line.starts_with("alice")).collect();
    std::fs::write(&path, kept.join("\n")).unwrap();
    assert_eq!(people.get("alice", "/v1/switches").await.status, 401);
    assert_eq!(people.get("bob", "/v1/switches").await.status, 200);
    daemon.stop().await;
}

#[tokio::test]
async fn the_description_names_every_schema_that_it_refers_to() {
    let (_world, daemon, people) = open().await;
    let described = people.ask_with(None, Method::GET, "/openapi.json", None).await.json();
    let mut referred = Vec::new();
    collect(&described, &mut referred);
    assert!(referred.len() > 20);
    for name in referred {
        let schema = &described["components"]["schemas"][&name];
        assert!(schema.is_object(), "{name} is not described");
    }
    assert_eq!(described["security"], json!([{"token": []}]));
    daemon.stop().await;
}

fn collect(value: &Value, names: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            if let Some(name) = fields.get("$ref").and_then(Value::as_str) {
                names.push(name.strip_prefix("#/components/schemas/").unwrap().to_owned());
            }
            fields.values().for_each(|field| collect(field, names));
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, names)),
        _ => {}
    }
}
