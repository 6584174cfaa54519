//! What operators see: the command line, health, metrics, the doctor.

use std::process::Stdio;

use serde_json::Value;
use settled::{
    domain::job::JobType,
    sandbox::{Effect, Fault, On, Times, When},
};
use tokio::io::AsyncWriteExt as _;

use crate::support::{
    daemon::{binary, text},
    world::{KEY_HEX, World},
};

#[tokio::test]
async fn jobs_can_be_listed_by_state_type_and_age_and_one_be_told_whole() {
    let world = World::new().await;
    let daemon = world.daemon().await;
    let good = world.submit(JobType::Allocation, "5").await;
    let bad = world.reserve(JobType::Deallocation, "7");
    let refuse = Effect::Answer { when: When::Before, status: 422 };
    world.inject(Fault::new(On::Update, refuse).of_record(bad.id).times(Times::Always));
    world.publish([world.job(&bad)]).await;
    world.wait_for_state(&good, "confirmed").await;
    world.wait_for_state(&bad, "parked(refused_by_oes)").await;

    let all = world.must_run(&["jobs", "list"]).await;
    assert!(all.contains(&good.id.to_string()) && all.contains("parked (refused_by_oes)"), "{all}");
    assert_eq!(all.lines().count(), 3, "headings and two jobs: {all}");
    let parked = world.must_run(&["jobs", "list", "--state", "parked"]).await;
    assert!(!parked.contains(&good.id.to_string()) && parked.contains(&bad.id.to_string()));
    let allocations = world.must_run(&["jobs", "list", "--type", "allocation", "--json"]).await;
    let page: Value = serde_json::from_str(&allocations).unwrap();
    let lines = page["jobs"].as_array().unwrap();
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0]["recordId"], good.id.to_string());
    assert_eq!(lines[0]["finalOutcome"], "cleared");
    let old = world.must_run(&["jobs", "list", "--older-than", "1h", "--json"]).await;
    let old: Value = serde_json::from_str(&old).unwrap();
    assert_eq!(old["jobs"], serde_json::json!([]));

    let told = world.must_run(&["jobs", "show", &bad.id.to_string()]).await;
    let order = [
        "received",
        "decided",
        "booked",
        "signed",
        "answered",
        "refused_answer (status 422)",
        "read back",
    ];
    let mut rest = told.as_str();
    for part in order {
        let at = rest
            .find(part)
            .unwrap_or_else(|| panic!("{part} is missing or out of order in\n{told}"));
        rest = &rest[at..];
    }
    let whole: Value = serde_json::from_str(
        &world.must_run(&["jobs", "show", &good.id.to_string(), "--json"]).await,
    )
    .unwrap();
    let signed =
        whole["timeline"].as_array().unwrap().iter().find(|item| item["what"] == "signed").unwrap();
    assert_eq!(
        signed["detail"]["body"],
        world.puts_of(&good)[0].body,
        "the exact bytes that were sent"
    );
    let (success, _, error) =
        world.run(&["jobs", "show", "0b4a3f3e-7d0a-4b5e-9a0e-3d1c5f2b7a10"]).await;
    assert!(!success && error.contains("there is no job about record"), "{error}");

    let status = world.status().await;
    for part in ["daemon: ready", "parked", "1", "released and not confirmed by OES: none"] {
        assert!(status.contains(part), "{part} is missing in\n{status}");
    }
    daemon.stop().await;
    let status = world.status().await;
    assert!(status.contains("daemon: not running"), "{status}");
}

#[tokio::test]
async fn a_released_record_that_oes_has_not_confirmed_shows_in_metrics_and_status() {
    let world = World::new().await;
    let daemon = world.daemon().await;
    let refuse = Effect::Answer { when: When::Before, status: 422 };
    world.inject(Fault::new(On::Update, refuse).times(Times::Always));
    let record = world.submit(JobType::Deallocation, "9000000").await;
    world.wait_for_state(&record, "parked(refused_by_oes)").await;
    assert_eq!(daemon.count("settled_released_unconfirmed_jobs").await, 1);
    assert!(daemon.number("settled_released_unconfirmed_oldest_age_seconds").await > 0.0);
    assert_eq!(daemon.count("settled_attempts_total{result=\"refused_answer\"}").await, 1);
    let status = world.status().await;
    assert!(status.contains("released and not confirmed by OES: 1 (oldest"), "{status}");
    daemon.stop().await;
}

#[tokio::test]
async fn the_doctor_says_what_is_wrong_and_what_to_do() {
    let mut world = World::new().await;
    let (success, output, _) = world.run(&["doctor"]).await;
    assert!(success, "{output}");
    for part in [
        "ok    config",
        "public key 0258e8",
        "the book holds",
        "RabbitMQ answers",
        "a read succeeded",
    ] {
        assert!(output.contains(part), "{part} is missing in\n{output}");
    }
    world.set("oes.base_url", "http://127.0.0.1:1");
    world.set("broker.url", "amqp://guest:a-password@127.0.0.1:1/%2f");
    std::fs::write(world.path("key"), "tprv-not-a-key").unwrap();
    let (success, output, error) = world.run(&["doctor"]).await;
    assert!(!success && error.contains("3 things need attention"), "{output}{error}");
    for part in ["BAD   key", "the key is a tprv", "BAD   broker", "BAD   oes", "could not connect"]
    {
        assert!(output.contains(part), "{part} is missing in\n{output}");
    }
    assert!(!output.contains("a-password") && !error.contains("a-password"));
}

#[tokio::test]
async fn a_key_signs_exactly_the_bytes_of_standard_input() {
    let world = World::new().await;
    let key_file = world.path("key");
    for payload in [&b""[..], b"hello", b"hello\n", "{\"a\":\"\u{1f511}\"}".as_bytes()] {
        let mut command = binary(&world.config_file());
        command.args(["key", "sign", "--key-file", key_file.to_str().unwrap()]);
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(payload).await.unwrap();
        let output = child.wait_with_output().await.unwrap();
        let expected =
            settled::signer::SigningKey::from_text(KEY_HEX).unwrap().sign(payload).unwrap();
        assert_eq!(text(&output.stdout), format!("{expected}\n"));
    }
    let shown = world.must_run(&["key", "show"]).await;
    assert!(shown.contains("0258e846f8cd4346fb075f83af347d06b7d16a56cc6a6a538d87e8a9e3c5118616"));
    assert!(shown.contains("1BxL7Bx6YBwZtyNj7QZPUqpfB3QptrHKUh"));
    let file = std::fs::File::open(&key_file).unwrap();
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let (success, _, error) = world.run(&["key", "show"]).await;
    assert!(!success && error.contains("chmod 600"), "{error}");
}

#[tokio::test]
async fn the_book_is_imported_once_shown_and_verified() {
    let world = World::new().await;
    let again = world.import(&world.book_lines()).await;
    assert!(again.contains("3 already in the book"), "{again}");
    let shown: Value =
        serde_json::from_str(&world.must_run(&["book", "show", "--json"]).await).unwrap();
    assert_eq!(shown["balances"][0]["available"], "1000000");
    assert_eq!(shown["currencies"][0]["currency"], "BTC");

    let path = world.path("bad.jsonl");
    let changed = world.adjustment("b-1", "5").to_string();
    let mut unknown = world.adjustment("b-9", "5");
    unknown["connectionId"] = serde_json::json!(uuid::Uuid::new_v4());
    std::fs::write(&path, format!("{changed}\n{unknown}\n")).unwrap();
    let (success, _, error) = world.run(&["book", "import", path.to_str().unwrap()]).await;
    assert!(!success);
    assert!(error.contains("line 1: event b-1 is in the book with another content"), "{error}");
    assert!(
        error.contains(
            "line 2: event b-9 is a balance.adjusted of a connection that the book does not have"
        ),
        "{error}"
    );
    assert_eq!(world.balances().await[0], "1000000");
    assert!(world.must_run(&["book", "verify"]).await.contains("the book holds"));
}

#[tokio::test]
async fn a_balance_that_was_tampered_with_is_found() {
    use sqlx::{Connection as _, Executor as _};
    let world = World::new().await;
    let url = format!("sqlite:{}", world.path("book.db").display());
    let mut connection = sqlx::SqliteConnection::connect(&url).await.unwrap();
    connection
        .execute("UPDATE accounts SET credits = '1000001' WHERE kind = 'available'")
        .await
        .unwrap();
    connection.close().await.unwrap();
    let (success, output, _) = world.run(&["book", "verify"]).await;
    assert!(!success);
    assert!(output.contains("DIFFERENCE: available BTC of connection"), "{output}");
}
