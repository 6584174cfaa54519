//! The control routes, seeds, and how a sandbox starts and ends.

use super::*;

#[tokio::test]
async fn a_sandbox_can_be_steered_from_outside() {
    let rig = Rig::new().await;
    let control = async |method: Method, path: &str, body: Option<&str>| {
        let url = format!("{}/_sandbox/{path}", rig.sandbox.base_url());
        rig.ask(method, url, "", body.map(str::to_owned)).await
    };
    let reservation = format!(
        r#"{{"type":"allocation","connectionId":"{}","currency":"btc","quantity":"5"}}"#,
        rig.connection
    );
    let made = control(Method::POST, "records", Some(&reservation)).await;
    assert_eq!(made.status, 200, "{made:?}");
    let id = made.body["id"].as_str().unwrap().to_owned();
    let job = control(Method::GET, &format!("records/{id}/job"), None).await;
    assert_eq!(job.body["allocationId"], id.as_str());

    let fault = r#"{"on":["update"],"effect":{"kind":"awaitApproval"}}"#;
    assert_eq!(control(Method::POST, "faults", Some(fault)).await.status, 200);
    let waiting = control(Method::GET, "faults", None).await;
    assert_eq!(waiting.body["faults"][0]["effect"]["kind"], "awaitApproval");
    let record = rig.record(id.parse().unwrap());
    rig.settle(&record, Outcome::Cleared).await;
    let path = format!("records/{id}/reject");
    let rejected = control(Method::POST, &path, Some(r#"{"then":"staysReserved"}"#)).await;
    assert_eq!(rejected.body["policyResult"], "rejected");
    let path = format!("records/{id}/finish");
    let finished = control(Method::POST, &path, Some(r#"{"outcome":"released"}"#)).await;
    assert_eq!(finished.body["standing"]["final"], "released");
    let again = control(Method::POST, &path, Some(r#"{"outcome":"cleared"}"#)).await;
    assert_eq!(again.status, 409);

    let rules = control(Method::POST, "rules", Some(r#"{"keyOrder":"any"}"#)).await;
    assert_eq!(rules.body["keyOrder"], "any");
    assert_eq!(rig.state.rules().key_order, KeyOrder::Any);
    let puts = control(Method::GET, "puts?from=0", None).await;
    assert_eq!(puts.body["puts"][0]["verdict"], "awaitingApproval");
    assert_eq!(puts.body["puts"][0]["answered"], 200);
    let state = control(Method::GET, "state", None).await;
    assert_eq!(state.body["counts"]["puts"], 1);
    assert_eq!(state.body["released"], 1);
    assert!(!format!("{state:?} {puts:?}").contains(PARTNER_TOKEN));
}

#[tokio::test]
async fn a_control_request_that_is_not_in_order_is_refused_and_changes_nothing() {
    let rig = Rig::new().await;
    let post = async |path: &str, body: &str| {
        let url = format!("{}/_sandbox/{path}", rig.sandbox.base_url());
        rig.ask(Method::POST, url, "", Some(body.to_owned())).await.status
    };
    let rules = rig.state.rules();
    assert_eq!(post("rules", r#"{"keyOrders":"any"}"#).await, 400);
    assert_eq!(rig.state.rules(), rules);
    assert_eq!(post("faults", r#"{"on":["job"],"effect":{"kind":"truncate"}}"#).await, 400);
    assert_eq!(post("faults", "{").await, 400);
    assert!(rig.state.faults().is_empty());
    assert_eq!(post(&format!("records/{}/approve", Uuid::nil()), "").await, 404);
    assert_eq!(post("records/x/approve", "").await, 400);
    let record = rig.allocation();
    assert_eq!(post(&format!("records/{}/approve", record.id), "").await, 409);
    let too_much = format!(
        r#"{{"type":"allocation","connectionId":"{}","currency":"btc","quantity":"999999999999"}}"#,
        rig.connection
    );
    assert_eq!(post("records", &too_much).await, 409);
    assert_eq!(rig.state.records().len(), 1);
}

#[tokio::test]
async fn a_seed_is_taken_whole_or_not_at_all() {
    let rig = Rig::new().await;
    let client = rig.state.connection(rig.connection).unwrap().client_id;
    let new = Uuid::new_v4();
    let connection = |id: Uuid, client: Uuid| {
        format!(
            r#"{{"id":"{id}","clientId":"{client}","partnersClientId":"c","partnersConnectionId":"k"}}"#
        )
    };
    let before = rig.state.total(&btc());
    for (what, seed) in [
        ("unknown client", format!(r#"{{"connections":[{}]}}"#, connection(new, new))),
        (
            "another client's connection",
            format!(
                r#"{{"clients":[{{"id":"{new}","enterpriseId":"e"}}],"connections":[{}]}}"#,
                connection(rig.connection.as_uuid(), new)
            ),
        ),
        (
            "a taken enterprise",
            format!(r#"{{"clients":[{{"id":"{new}","enterpriseId":"{CLIENT_ENTERPRISE}"}}]}}"#),
        ),
        (
            "unknown currency",
            format!(
                r#"{{"clients":[{{"id":"{client}","enterpriseId":"{CLIENT_ENTERPRISE}","balances":{{"doge":"1"}}}}]}}"#
            ),
        ),
        ("no key", r#"{"partner":{"publicKeys":["04ab"]}}"#.to_owned()),
    ] {
        let seed: Seed = serde_json::from_str(&seed).unwrap();
        assert!(rig.state.apply(&seed).is_err(), "{what}");
    }
    assert_eq!(rig.state.total(&btc()), before);
    assert!(rig.state.connection(new.into()).is_none());
    let broken = r#"{"connections":[{"id":"x"}]}"#;
    assert!(serde_json::from_str::<Seed>(broken).is_err());
    assert!(serde_json::from_str::<Seed>(r#"{"conections":[]}"#).is_err());
}

#[tokio::test]
async fn a_seed_survives_its_file() {
    let seed = Seed::example(&key('1').public_key(), &key('2').public_key());
    let text = serde_json::to_string(&seed).unwrap();
    assert_eq!(serde_json::from_str::<Seed>(&text).unwrap(), seed);
}

#[tokio::test]
async fn a_sandbox_ends_though_requests_are_under_way_and_frees_its_address() {
    let rig = Rig::new().await;
    let record = rig.allocation();
    let delay = Effect::Delay { when: When::Before, delay_ms: DELAY_MS_MAX };
    rig.state.inject(Fault::new(On::Update, delay)).unwrap();
    let body = rig.draft(&record, Outcome::Cleared).body(&rig.partner);
    let (http, url) = (rig.http.clone(), rig.put_url(JobType::Allocation));
    let tracker = tokio_util::task::TaskTracker::new();
    let put = tracker.spawn(
        http.put(url)
            .bearer_auth(PARTNER_TOKEN)
            .header("content-type", "application/json")
            .body(body)
            .send(),
    );
    let arrived = rig.state.wait_for(LIMIT, |state| state.counts().puts == 1);
    assert!(arrived.await);
    let address = rig.sandbox.address();
    tokio::time::timeout(LIMIT, rig.sandbox.stop()).await.unwrap();
    assert!(put.await.unwrap().is_err());
    assert!(TcpListener::bind(address).await.is_ok());
    let config = SandboxConfig { listen: address, ..SandboxConfig::empty(Arc::new(SystemClock)) };
    let again = Sandbox::start(config).await.unwrap();
    let taken = SandboxConfig { listen: address, ..SandboxConfig::empty(Arc::new(SystemClock)) };
    let error = Sandbox::start(taken).await.unwrap_err().to_string();
    assert!(error.contains("cannot listen"), "{error}");
    again.stop().await;
}

#[test]
fn a_client_never_sends_its_token_in_the_clear_to_another_machine() {
    for (url, allow, is_fine) in [
        ("http://127.0.0.1:1", false, true),
        ("http://localhost", false, true),
        ("http://10.0.0.1", false, false),
        ("http://10.0.0.1", true, true),
        ("ftp://127.0.0.1", true, false),
        ("https://u:p@10.0.0.1", true, false),
        ("nowhere", true, false),
    ] {
        let client = SandboxClient::new(url, "e", "secret-token", allow);
        assert_eq!(client.is_ok(), is_fine, "{url}");
        assert!(!format!("{client:?}").contains("secret-token"));
    }
    assert!(SandboxClient::new("http://127.0.0.1:1", "e", "to ken", false).is_err());
}
