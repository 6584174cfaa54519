//! What the book says can be proved offline, and whatever somebody changes in it is found.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use settled::{
    domain::job::JobType,
    operator::audit::{Audit, audit},
    sandbox::{Effect, Fault, On, When},
    store::{open_readers, verify::Head},
};
use sqlx::{AssertSqlSafe, Connection as _};

use crate::support::{
    eventually,
    tamper::{another_value, columns, open_without_rules},
    world::{AVAILABLE, World, copy_book},
};

/// Columns that change in the life of a row and are therefore not sealed; everything else is.
const CHANGING: [(&str, &[&str]); 4] = [
    (
        "jobs",
        &[
            "state_reason",
            "next_step_at_ms",
            "attempts_counted",
            "reads_made",
            "absences",
            "tried_since_ms",
            "verified_at_ms",
            "approval_before",
            "gate_ms",
            "waits_for_book",
        ],
    ),
    ("accounts", &[]),
    ("quarantine", &["times_seen", "last_seen_ms"]),
    ("outbox", &["published_at_ms"]),
];

/// Tables that hold no evidence: what they show follows from sealed rows, is a matter of minutes, or is
/// what OES said at some time, on which no decision rests.
const NOT_SEALED: [&str; 14] = [
    "_sqlx_migrations",
    "alert_notices",
    "alerts",
    "connection_feeds",
    "connection_limits",
    "connections",
    "currencies",
    "currency_totals",
    "daily_cleared",
    "feed_state",
    "job_counts",
    "reconcile_findings",
    "reconcile_runs",
    "switches",
];

/// A book in which everything has happened that is sealed.
async fn rich_book(world: &World) -> PathBuf {
    // What the exchange holds is not what the book has: that is noted.
    world.import(&[world.snapshot("s-1", "999")]).await;
    let daemon = world.daemon().await;
    let cleared = world.submit(JobType::Deallocation, "7").await;
    let released = world.submit(JobType::Deallocation, "9000000").await;
    let lost = world.reserve(JobType::Allocation, "5");
    let reset = Effect::Reset { when: When::After };
    world.inject(Fault::new(On::Update, reset).of_record(lost.id));
    world.publish([world.job(&lost), b"no job".to_vec()]).await;
    for record in [&cleared, &released, &lost] {
        world.wait_for_state(record, "confirmed").await;
    }
    let readers = open_readers(&world.path("book.db")).await.unwrap();
    eventually("the bad message is in quarantine", async || {
        (readers.quarantined_count().await.unwrap() == 1).then_some(())
    })
    .await;
    readers.close().await;
    world.must_run(&["switch", "intake", "off", "--reason", "a drill"]).await;
    daemon.stop().await;
    world.path("book.db")
}

async fn audited(book: &Path, known: Option<Head>) -> Result<Audit, String> {
    let readers = open_readers(book).await.map_err(|error| error.to_string())?;
    let audit = audit(&readers, known).await.map_err(|error| error.to_string());
    readers.close().await;
    audit
}

struct Tamperer {
    book: PathBuf,
    tampered: PathBuf,
}

impl Tamperer {
    /// Carries out `sql` on a copy, and says what the audit finds. Answers whether any row was changed.
    async fn tamper(&self, sql: &str) -> bool {
        copy_book(&self.book, &self.tampered);
        let mut connection = open_without_rules(&self.tampered).await;
        let done = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut connection).await;
        connection.close().await.unwrap();
        let changed = match done {
            Ok(done) => done.rows_affected() > 0,
            // A unique index does not let it happen.
            Err(error) if error.to_string().contains("UNIQUE") => false,
            Err(error) => panic!("{error}: {sql}"),
        };
        if changed {
            let found = audited(&self.tampered, None).await;
            let holds = found.as_ref().is_ok_and(Audit::holds);
            assert!(!holds, "not found: {sql}");
        }
        changed
    }

    async fn tables(&self) -> Vec<(String, Vec<(String, String)>)> {
        let mut connection = open_without_rules(&self.book).await;
        let names: Vec<(String,)> = sqlx::query_as(
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY 1",
        )
        .fetch_all(&mut connection)
        .await
        .unwrap();
        let mut tables = Vec::new();
        for (table,) in names {
            let columns = columns(&mut connection, &table).await;
            tables.push((table, columns));
        }
        connection.close().await.unwrap();
        tables
    }
}

fn is_changing(table: &str, column: &str) -> bool {
    CHANGING.iter().any(|(name, columns)| *name == table && columns.contains(&column))
}

#[tokio::test]
async fn every_column_of_every_sealed_row_is_proof_against_a_change() {
    let world = World::new().await;
    let book = rich_book(&world).await;
    assert!(audited(&book, None).await.unwrap().holds());
    let copy = world.path("copy.db");
    copy_book(&book, &copy);
    let tamperer = Tamperer { book: copy, tampered: world.path("tampered.db") };

    let (mut edited, mut empty) = (0, Vec::new());
    for (table, columns) in tamperer.tables().await {
        if NOT_SEALED.contains(&table.as_str()) {
            continue;
        }
        let last = format!("rowid = (SELECT max(rowid) FROM {table})");
        if !tamperer.tamper(&format!("DELETE FROM {table} WHERE {last}")).await {
            empty.push(table);
            continue;
        }
        for (column, kind) in columns {
            if is_changing(&table, &column) {
                continue;
            }
            let other = another_value(&column, &kind);
            assert!(
                tamperer
                    .tamper(&format!("UPDATE {table} SET {column} = {other} WHERE {last}"))
                    .await,
                "{table}.{column} could not be changed"
            );
            edited += 1;
        }
    }
    assert!(edited > 80, "{edited}");
    assert_eq!(
        empty,
        ["archived_jobs", "archives", "restores"],
        "what did not happen cannot be tampered with"
    );
}

#[tokio::test]
async fn rows_that_are_added_or_change_places_are_found() {
    let world = World::new().await;
    let book = rich_book(&world).await;
    let copy = world.path("copy.db");
    copy_book(&book, &copy);
    let tamperer = Tamperer { book: copy, tampered: world.path("tampered.db") };
    for sql in [
        // Two movements change places.
        "UPDATE transfers SET transfer_seq = -transfer_seq WHERE transfer_seq IN (2, 3);
         UPDATE transfers SET transfer_seq = CASE transfer_seq WHEN -2 THEN 3 ELSE 2 END
         WHERE transfer_seq < 0",
        // Two messages change places.
        "UPDATE messages SET job_seq = -job_seq WHERE job_seq IN (1, 2);
         UPDATE messages SET job_seq = CASE job_seq WHEN -1 THEN 2 ELSE 1 END WHERE job_seq < 0",
        // Something is booked beside the journal, and the balances follow.
        "INSERT INTO transfers SELECT transfer_seq + 1, NULL, 1, 'adjusted', debit_account,
             credit_account, '1', booked_at_ms FROM transfers ORDER BY transfer_seq DESC LIMIT 1",
        "INSERT INTO job_events SELECT 1000, 1, 1, 'parked', '{}'",
        // A switch is turned behind everybody's back.
        "UPDATE switches SET is_on = 1 WHERE switch = 'intake'",
        "UPDATE switches SET is_on = 0 WHERE switch = 'sending'",
        "UPDATE switches SET action_seq = NULL WHERE switch = 'intake'",
        "DELETE FROM switches WHERE switch = 'sending'",
        // What was fed is shown otherwise.
        "UPDATE connections SET active = 1 - active",
        "UPDATE connections SET partners_client_id = partners_client_id || 'x'",
        "UPDATE currencies SET quantity_max = quantity_max || '0'",
        "UPDATE currencies SET approval_above = '5'",
        "DELETE FROM currencies",
        // The last seal goes, with nothing else.
        "DELETE FROM journal WHERE commit_seq = (SELECT max(commit_seq) FROM journal)",
        // Two seals change places.
        "UPDATE journal SET commit_seq = -commit_seq WHERE commit_seq IN (2, 3);
         UPDATE journal SET commit_seq = CASE commit_seq WHEN -2 THEN 3 ELSE 2 END WHERE commit_seq < 0",
        // What was decided is turned, wherever it is written.
        "UPDATE decisions SET outcome = 'released', reject_code = 'x', reject_reason = 'x' WHERE job_seq = 1;
         UPDATE jobs SET outcome = 'released', final_outcome = 'released' WHERE job_seq = 1",
    ] {
        assert!(tamperer.tamper(sql).await, "{sql}");
    }
}

#[tokio::test]
async fn what_is_shown_of_a_feed_follows_from_its_events() {
    let world = World::new().await;
    let limited = |event: &str, sequence: u64| {
        json!({
            "eventId": event, "type": "connection.limited", "connectionId": world.connection_id,
            "currency": "BTC", "approvalAbove": "900", "sequence": sequence,
        })
    };
    let mut stated = world.connection_event("c-9", world.connection_id, true);
    stated["sequence"] = json!(2);
    let events = [world.numbered(1, "5"), stated, limited("l-1", 7), world.numbered(8, "1")];
    world.import(&events).await;
    // Some come late, one of them as a part of what a snapshot differs by; and one comes too late to be taken in: it
    // counts as having come, and stands nowhere.
    let snapshot = world.snapshot("s-1", "999");
    world
        .import(&[world.numbered(6, "2"), snapshot, world.numbered(5, "3"), limited("l-2", 4)])
        .await;
    let feed = world.known_feed().await.unwrap();
    let missing: Vec<String> = feed.missing.iter().map(ToString::to_string).collect();
    let [differs] = feed.differs.as_slice() else { panic!("{feed:?}") };
    let (found, late) = (AVAILABLE + 5 + 1 + 2, 3);
    assert_eq!(
        (missing, differs.found.to_string()),
        (vec!["3".to_owned()], (found + late).to_string())
    );
    let copy = world.path("copy.db");
    copy_book(&world.path("book.db"), &copy);
    assert!(audited(&copy, None).await.unwrap().holds());
    let tamperer = Tamperer { book: copy, tampered: world.path("tampered.db") };
    for change in [
        "last_sequence = last_sequence + 1",
        "last_sequence = last_sequence - 1",
        "stated_sequence = stated_sequence + 1",
        "limited_sequence = NULL",
        "compared_sequence = compared_sequence - 1",
        "missing = '[[5, 6]]'",
        "missing = '[[11, 11]]'",
        "differs = replace(differs, 'BTC', 'ETH')",
        "differs = replace(differs, '999', '998')",
        // As it was before the late one came: accepted, that one would be booked twice.
        &format!("differs = replace(differs, '{}', '{found}')", found + late),
    ] {
        let sql = format!("UPDATE connection_feeds SET {change}");
        assert!(tamperer.tamper(&sql).await, "{sql}");
    }
    assert!(tamperer.tamper("DELETE FROM connection_feeds").await);
}

#[tokio::test]
async fn a_book_that_was_cut_short_does_not_have_the_link_that_was_noted() {
    let world = World::new().await;
    let early = world.path("early.db");
    let daemon = world.daemon().await;
    let first = world.submit(JobType::Allocation, "5").await;
    world.wait_for_state(&first, "confirmed").await;
    daemon.stop().await;
    copy_book(&world.path("book.db"), &early);
    let noted_early = audited(&early, None).await.unwrap().journal.head.unwrap();
    let book = rich_book(&world).await;
    let noted = audited(&book, None).await.unwrap().journal.head.unwrap();
    assert!(noted.commit > noted_early.commit);

    assert!(audited(&book, Some(noted_early)).await.unwrap().holds(), "it only went on");
    let cut = audited(&early, Some(noted)).await.unwrap();
    assert!(!cut.holds(), "whole in itself, but older than what is known");
    let other = Head { chain: noted_early.chain, ..noted };
    assert!(!audited(&book, Some(other)).await.unwrap().holds());
}

#[tokio::test]
async fn the_command_verifies_a_copy_without_a_configuration_and_says_what_is_wrong() {
    let world = World::new().await;
    let book = rich_book(&world).await;
    let path = book.to_str().unwrap();
    let told = world.must_run(&["verify"]).await;
    for part in ["every page and index", "seals over", "attempts", "holds", "the journal ends with"]
    {
        assert!(told.contains(part), "{part} is missing in\n{told}");
    }
    assert!(!told.contains("fault"), "{told}");
    let json: Value =
        serde_json::from_str(&world.must_run(&["verify", "--book", path, "--json"]).await).unwrap();
    let head = &json["journal"]["head"];
    let known = format!("{}:{}", head["commit"], head["chain"].as_str().unwrap());
    world.must_run(&["verify", "--known", &known]).await;

    let tampered = world.path("tampered.db");
    copy_book(&book, &tampered);
    let mut connection = open_without_rules(&tampered).await;
    sqlx::raw_sql(
        "UPDATE attempts SET body = replace(body, 'cleared', 'CLEARED') WHERE attempt_seq = 1",
    )
    .execute(&mut connection)
    .await
    .unwrap();
    connection.close().await.unwrap();
    let (success, told, error) = world.run(&["verify", "--book", tampered.to_str().unwrap()]).await;
    assert!(!success && error.contains("does not hold"), "{told}{error}");
    assert!(told.contains("FAULT in the journal: seal") && told.contains("attempts 1"), "{told}");
    assert!(told.contains("FAULT in the signatures: attempt 1 for record"), "{told}");
}

#[tokio::test]
async fn the_evidence_for_a_record_is_proof_without_the_book_and_shows_nothing_of_others() {
    let world = World::new().await;
    let daemon = world.daemon().await;
    // Both go through the same commits, as far as they can.
    let (mine, other) =
        (world.reserve(JobType::Deallocation, "9000000"), world.reserve(JobType::Allocation, "4"));
    let reset = Effect::Reset { when: When::After };
    world.inject(Fault::new(On::Update, reset).of_record(mine.id));
    world.publish([world.job(&mine), world.job(&other)]).await;
    for record in [&mine, &other] {
        world.wait_for_state(record, "confirmed").await;
    }
    let file = world.path("evidence.json");
    let name = file.to_str().unwrap();
    world.must_run(&["jobs", "evidence", &mine.id.to_string(), "--out", name]).await;
    let (again, _, error) =
        world.run(&["jobs", "evidence", &mine.id.to_string(), "--out", name]).await;
    assert!(!again && error.contains("cannot make"), "{error}");
    daemon.stop().await;

    let told = world.must_run(&["verify", "--evidence", name]).await;
    for part in
        ["decided released, ended released", "attempt 1: signed by 0258e8", "rows are as they"]
    {
        assert!(told.contains(part), "{part} is missing in\n{told}");
    }
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(!text.contains(&other.id.to_string()), "nothing of another client is in it");
    let sent = &world.puts_of(&mine)[0].body;
    assert!(
        text.contains(
            &serde_json::to_string(&serde_json::to_string(sent).unwrap()).unwrap()[3..90]
        )
    );

    // Each seal that it names is in the book's chain.
    let evidence: Value = serde_json::from_str(&text).unwrap();
    for seal in evidence["seals"].as_array().unwrap() {
        let known = format!("{}:{}", seal["commit"], seal["chain"].as_str().unwrap());
        world.must_run(&["verify", "--known", &known]).await;
    }

    // Whatever is changed in what it proves is found.
    let seals = evidence["seals"].as_array().unwrap().len();
    let mut changed = 0;
    for place in 0..seals {
        let seal = &evidence["seals"][place];
        for pointer in ["/previous", "/digest", "/chain", "/sealedAtMs", "/sealedRows", "/commit"] {
            let mut tampered = evidence.clone();
            let value = tampered["seals"][place].pointer_mut(pointer).unwrap();
            *value = match value {
                Value::String(text) => Value::from(format!("{}0", &text[..text.len() - 1])),
                Value::Number(number) => Value::from(number.as_i64().unwrap() + 1),
                other => panic!("{other}"),
            };
            if tampered != evidence {
                assert_not_proved(&world, &tampered, &format!("{place}{pointer}")).await;
                changed += 1;
            }
        }
        for (kind, rows) in seal["rows"].as_object().unwrap() {
            for (number, line) in rows.as_object().unwrap() {
                let mut tampered = evidence.clone();
                let edited = line.as_str().unwrap().replacen(['1', 'a', 'e'], "7", 1);
                tampered["seals"][place]["rows"][kind][number] = edited.into();
                assert_not_proved(&world, &tampered, &format!("{place} {kind} {number}")).await;
                changed += 1;
            }
        }
    }
    assert!(changed > 20, "{changed}");
}

async fn assert_not_proved(world: &World, evidence: &Value, what: &str) {
    let file = world.path("tampered.json");
    std::fs::write(&file, evidence.to_string()).unwrap();
    let (success, told, error) = world.run(&["verify", "--evidence", file.to_str().unwrap()]).await;
    assert!(!success, "{what} is taken for proof: {told}");
    assert!(error.contains("does not hold") || error.contains("is no evidence"), "{what}: {error}");
}
