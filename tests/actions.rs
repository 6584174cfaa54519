//! What operators do: it takes two to say how OES ended a record, every action is journalled, and no action
//! changes a decision that was signed.

use serde_json::{Value, json};
use settled::{
    domain::{decision::Outcome, job::JobType},
    sandbox::{Effect, Fault, On, Record, Times, When},
};

use crate::support::{api::People, daemon::Daemon, world::World};

async fn open() -> (World, Daemon, People) {
    open_with(&[]).await
}

async fn open_with(settings: &[(&str, &str)]) -> (World, Daemon, People) {
    let mut world = World::with(settings).await;
    let tokens = People::known_to(&mut world);
    let daemon = world.daemon().await;
    let people = People::at(&daemon, tokens);
    (world, daemon, people)
}

/// A record whose updates never arrive, and that OES ends by itself, against the decision.
async fn in_conflict(world: &World, job_type: JobType, quantity: &str, actual: Outcome) -> Record {
    let record = world.reserve(job_type, quantity);
    let lost = Effect::Answer { when: When::Before, status: 500 };
    world.inject(Fault::new(On::Update, lost).of_record(record.id).times(Times::Always));
    world.publish([world.job(&record)]).await;
    crate::support::eventually("an update to be on its way", || async {
        (!world.puts_of(&record).is_empty()).then_some(())
    })
    .await;
    world.oes().finish(record.id, actual).unwrap();
    world.wait_for_state(&record, "conflict(other_outcome)").await;
    record
}

async fn resolve(people: &People, who: &str, record: &Record, outcome: &str) -> (u16, Value) {
    let body = json!({"outcome": outcome, "reason": "BitGo told us so, ticket 4711"});
    let answer = people.post(who, &format!("/v1/jobs/{}/resolve", record.id), &body).await;
    (answer.status, answer.json())
}

#[tokio::test]
async fn a_conflict_is_closed_by_two_operators_and_the_book_follows_oes() {
    let (world, daemon, people) = open().await;
    let voided = in_conflict(&world, JobType::Allocation, "50", Outcome::Released).await;
    assert_eq!(world.balances().await, ["1000000", "0", "50"].map(str::to_owned));

    let (status, said) = resolve(&people, "alice", &voided, "released").await;
    assert_eq!(status, 200);
    assert!(said["close"]["proposed"].is_i64(), "{said}");
    let (_, said) = resolve(&people, "alice", &voided, "released").await;
    assert!(said["close"]["same_person"].is_i64(), "one person is not two: {said}");
    assert_eq!(world.balances().await[2], "50", "nothing has moved");
    let (status, said) = resolve(&people, "eve", &voided, "released").await;
    assert_eq!(status, 403, "{said}");
    let (_, said) = resolve(&people, "bob", &voided, "released").await;
    assert_eq!(said, json!({"close": {"closed": "overruled"}}));

    assert_eq!(world.balances().await, ["1000000", "0", "0"].map(str::to_owned));
    let history = world.wait_for_state(&voided, "overruled").await;
    assert_eq!(history.decision.as_ref().unwrap().outcome, "cleared", "the decision stays");
    assert!(history.attempts.iter().all(|attempt| attempt.body.contains("\"status\":\"cleared\"")));
    let phases: Vec<&str> = history.transfers.iter().map(|line| line.phase.as_str()).collect();
    assert_eq!(phases, ["pending", "voided"]);
    let heard = world.hear_outcomes(1).await.pop().unwrap();
    assert_eq!(heard.routing_key, "allocation.released");
    let event = heard.json();
    assert_eq!(
        (&event["outcome"], &event["overruledDecision"], &event["knownBy"]),
        (&json!("released"), &json!("cleared"), &json!("operators"))
    );
    let actions = people.get("eve", &format!("/v1/actions?record={}", voided.id)).await.json();
    let who: Vec<&str> =
        actions.as_array().unwrap().iter().map(|line| line["who"].as_str().unwrap()).collect();
    assert_eq!(who, ["bob", "alice"]);
    assert_eq!(actions[0]["kind"], "confirm_end");
    assert_eq!(actions[0]["detail"]["proposedBy"], "alice");
    assert_eq!(actions[1]["reason"], "BitGo told us so, ticket 4711");
    let (_, said) = resolve(&people, "bob", &voided, "released").await;
    assert_eq!(said, json!({"close": {"not_in_conflict": "overruled"}}));
    daemon.stop().await;
    world.must_run(&["verify"]).await;
    world.assert_promises().await;
}

#[tokio::test]
async fn a_deallocation_that_oes_cleared_takes_what_is_there_and_the_shortfall_is_told() {
    let (world, daemon, people) = open().await;
    let record = in_conflict(&world, JobType::Deallocation, "1000400", Outcome::Cleared).await;
    resolve(&people, "alice", &record, "cleared").await;
    let (_, said) = resolve(&people, "bob", &record, "cleared").await;
    assert_eq!(said, json!({"close": {"closed": "overruled"}}));
    assert_eq!(world.balances().await, ["0", "0", "0"].map(str::to_owned));
    let history = world.wait_for_state(&record, "overruled").await;
    let shortfall =
        history.notes.iter().any(|note| note.detail.get().contains("\"shortfall\":\"400\""));
    assert!(shortfall, "{:?}", history.notes);
    assert_eq!(world.hear_outcomes(1).await[0].routing_key, "deallocation.cleared");
    let shown = people.get("eve", &format!("/v1/jobs/{}", record.id)).await.json();
    let told: Vec<&str> = shown["timeline"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|happening| happening["what"].as_str())
        .filter(|what| what.starts_with("end"))
        .collect();
    assert_eq!(told, ["end proposed", "end confirmed"]);
    daemon.stop().await;
    world.assert_promises().await;
}

#[tokio::test]
async fn what_contradicts_oes_or_is_no_conflict_is_refused() {
    let (world, daemon, people) = open().await;
    let record = in_conflict(&world, JobType::Allocation, "5", Outcome::Released).await;
    // OES is asked first, and shows that it was not so.
    let (status, said) = resolve(&people, "alice", &record, "cleared").await;
    assert_eq!(status, 409);
    assert!(said["detail"].as_str().unwrap().contains("OES shows record"), "{said}");
    // Where OES cannot be asked, what it was last read as holds.
    let down = Effect::Answer { when: When::Before, status: 503 };
    world.inject(Fault::new(On::Read, down).times(Times::Always));
    let (status, said) = resolve(&people, "alice", &record, "cleared").await;
    assert_eq!((status, said), (200, json!({"close": {"not_the_outcome": "released"}})));
    let (_, said) = resolve(&people, "alice", &record, "released").await;
    assert!(said["close"]["proposed"].is_i64(), "{said}");
    world.oes().clear_faults();
    let good = world.submit(JobType::Allocation, "7").await;
    world.wait_for_state(&good, "confirmed").await;
    let (_, said) = resolve(&people, "alice", &good, "cleared").await;
    assert_eq!(said, json!({"close": {"not_in_conflict": "confirmed"}}));
    world.assert_promises().await;
    daemon.stop().await;
}

#[tokio::test]
async fn a_proposal_that_is_too_old_is_none() {
    let (world, daemon, people) = open_with(&[("operator.confirm_within_s", "1")]).await;
    let record = in_conflict(&world, JobType::Allocation, "5", Outcome::Released).await;
    let (_, said) = resolve(&people, "alice", &record, "released").await;
    let expires = said["close"]["proposed"].as_i64().unwrap();
    crate::support::eventually("the proposal to be too old", || async {
        let status = people.get("eve", "/v1/status").await.json();
        (status["atMs"].as_i64().unwrap() > expires).then_some(())
    })
    .await;
    let (_, said) = resolve(&people, "bob", &record, "released").await;
    assert!(said["close"]["proposed"].is_i64(), "bob's word is the first again: {said}");
    let (_, said) = resolve(&people, "alice", &record, "released").await;
    assert_eq!(said, json!({"close": {"closed": "overruled"}}), "and alice's is the second");
    world.assert_promises().await;
    daemon.stop().await;
}

#[tokio::test]
async fn a_name_that_is_only_said_does_not_count_where_there_are_tokens() {
    let (world, daemon, people) = open().await;
    let record = in_conflict(&world, JobType::Allocation, "5", Outcome::Released).await;
    let id = record.id.to_string();
    let arguments = ["jobs", "resolve", &id, "--outcome", "released", "--reason", "ticket 4711"];
    let (success, _, error) = world.run(&arguments).await;
    assert!(!success && error.contains("bring your token"), "{error}");
    for (name, said) in
        [("alice", "another operator must say the same"), ("bob", "is closed as overruled")]
    {
        let file = world.path(name);
        world.write_secret(&file, &people.tokens[name]);
        let mut with_token = vec!["--token-file", file.to_str().unwrap()];
        with_token.extend(arguments);
        let output = world.must_run(&with_token).await;
        assert!(output.contains(said), "{output}");
    }
    let log = world.must_run(&["actions", "--record", &id]).await;
    assert!(log.contains("alice") && log.contains("bob") && log.contains("ticket 4711"), "{log}");
    world.assert_promises().await;
    daemon.stop().await;
}

#[tokio::test]
async fn no_action_moves_a_job_that_it_is_not_for() {
    let (world, daemon, people) = open().await;
    let done = world.submit(JobType::Allocation, "5").await;
    world.wait_for_state(&done, "confirmed").await;
    let frozen = in_conflict(&world, JobType::Allocation, "6", Outcome::Released).await;
    let before = world.balances().await;
    for (record, state) in [(&done, "confirmed"), (&frozen, "conflict(other_outcome)")] {
        for action in ["retry", "approve", "refuse"] {
            let path = format!("/v1/jobs/{}/{action}", record.id);
            let answer = people.post("alice", &path, &json!({"reason": "why not"})).await;
            assert_eq!(answer.status, 200);
            assert!(answer.text.contains(state), "{action}: {answer:?}");
        }
        world.wait_for_state(record, state).await;
    }
    assert_eq!(world.balances().await, before);
    assert_eq!(people.get("eve", "/v1/actions").await.json(), json!([]), "nothing was done");
    let nobody = format!("/v1/jobs/{}/retry", uuid::Uuid::new_v4());
    let answer = people.post("alice", &nobody, &json!({"reason": "why not"})).await;
    assert_eq!(answer.json(), json!({"retry": "unknown"}));
    daemon.stop().await;
}

#[tokio::test]
async fn a_quarantined_message_is_put_back_in_by_the_same_strict_path_and_marked() {
    let (world, daemon, people) = open().await;
    let record = world.submit(JobType::Allocation, "5").await;
    world.wait_for_state(&record, "confirmed").await;
    let other = String::from_utf8(world.job(&record)).unwrap().replace("\"5\"", "\"6\"");
    world.publish([b"no job".to_vec(), other.into_bytes()]).await;
    crate::support::eventually("both to be in quarantine", || async {
        let listed = people.get("eve", "/v1/quarantine").await.json();
        (listed.as_array().unwrap().len() == 2).then_some(())
    })
    .await;
    for (code, said) in [("not_json", "still_bad"), ("content_differs", "contradicts")] {
        let listed = people.get("eve", &format!("/v1/quarantine?code={code}")).await.json();
        let path = format!("/v1/quarantine/{}", listed[0]["seq"]);
        let shown = people.get("eve", &path).await.json();
        assert_eq!((&shown["requeued"], &shown["code"]), (&json!(null), &json!(code)));
        assert_eq!(shown["text"] == "no job", code == "not_json");
        let why = json!({"reason": "again"});
        let answer = people.post("alice", &format!("{path}/requeue"), &why).await.json();
        assert!(answer.to_string().contains(said), "{answer}");
    }
    assert_eq!(people.get("eve", "/v1/actions").await.json(), json!([]), "nothing was done");
    let gone = people.post("alice", "/v1/quarantine/9/requeue", &json!({"reason": "again"})).await;
    assert_eq!(gone.status, 404);
    world.assert_promises().await;
    daemon.stop().await;
}

#[tokio::test]
async fn a_message_that_the_book_can_hold_now_becomes_a_job() {
    use sqlx::{Connection as _, Executor as _};
    let (world, daemon, people) = open().await;
    let refuse =
        "CREATE TRIGGER not_now BEFORE INSERT ON jobs BEGIN SELECT RAISE(ABORT, 'not now'); END";
    let url = format!("sqlite:{}", world.path("book.db").display());
    let mut connection = sqlx::SqliteConnection::connect(&url).await.unwrap();
    connection.execute(refuse).await.unwrap();
    let record = world.submit(JobType::Allocation, "5").await;
    crate::support::eventually("it to be in quarantine", || async {
        let listed = people.get("eve", "/v1/quarantine?code=not_storable").await.json();
        (listed.as_array().unwrap().len() == 1).then_some(())
    })
    .await;
    let refused =
        people.post("alice", "/v1/quarantine/1/requeue", &json!({"reason": "now?"})).await;
    assert_eq!(refused.status, 422, "the book cannot hold it yet: {refused:?}");
    connection.execute("DROP TRIGGER not_now").await.unwrap();
    connection.close().await.unwrap();
    let said =
        world.must_run(&["quarantine", "requeue", "1", "--reason", "the disk is larger"]).await;
    assert!(said.contains(&format!("is a job now, about record {}", record.id)), "{said}");
    world.wait_for_state(&record, "confirmed").await;
    let shown = people.get("eve", "/v1/quarantine/1").await.json();
    assert_eq!(shown["requeued"]["reason"], "the disk is larger");
    let waiting = people.get("eve", "/v1/quarantine?waiting=true").await.json();
    assert_eq!(waiting, json!([]));
    let again = people.post("alice", "/v1/quarantine/1/requeue", &json!({"reason": "twice"})).await;
    assert_eq!(again.json(), json!({"repeated": record.id}), "it is one job");
    assert_eq!(world.puts_of(&record).len(), 1);
    world.assert_promises().await;
    daemon.stop().await;
}
