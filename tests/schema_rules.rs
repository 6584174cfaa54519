//! The database repeats the rules: no program, also not a wrong one, can break them.

use std::{collections::BTreeSet, path::PathBuf};

use settled::{
    domain::{
        state::{ConflictKind, Doubt, Event, ParkReason, State},
        time::TimestampMs,
    },
    store::open_writer,
};
use sqlx::{Connection as _, Executor as _, SqliteConnection};

const ID: &str = "0b4a3f3e-7d0a-4b5e-9a0e-3d1c5f2b7a10";

struct Book {
    connection: SqliteConnection,
    _folder: tempfile::TempDir,
}

/// A book as the daemon makes it, opened by somebody who wants to break it.
async fn book() -> Book {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("book.db");
    open_writer(&path, TimestampMs::from_millis(1)).await.unwrap().writer.close().await.unwrap();
    let url = format!("sqlite:{}", path.display());
    let mut connection = SqliteConnection::connect(&url).await.unwrap();
    connection.execute("PRAGMA recursive_triggers = ON; PRAGMA foreign_keys = ON").await.unwrap();
    let mut book = Book { connection, _folder: folder };
    book.must(
        "INSERT INTO book_events VALUES (1, 'e-1', 'connection.upserted', '{}', zeroblob(32), 'test', 1);
         INSERT INTO connections VALUES ('9e8d7c6b-5a49-4838-a716-0f1e2d3c4b5a',
             '5d1f0e3a-2b6c-4f0d-8a37-1f0a3c9b2d11', 'client', 'connection', 1, 1);
         INSERT INTO accounts VALUES (1, '9e8d7c6b-5a49-4838-a716-0f1e2d3c4b5a', 'BTC', 'available', '0', '0', 0);
         INSERT INTO accounts VALUES (2, '9e8d7c6b-5a49-4838-a716-0f1e2d3c4b5a', 'BTC', 'oes', '0', '0', 0);
         INSERT INTO signing_keys VALUES (1, printf('%066d', 2), 1);",
    )
    .await;
    book
}

impl Book {
    async fn must(&mut self, sql: &str) {
        let sql = sqlx::AssertSqlSafe(sql.to_owned());
        sqlx::raw_sql(sql).execute(&mut self.connection).await.unwrap();
    }

    async fn refuses(&mut self, sql: &str) -> String {
        let statement = sqlx::AssertSqlSafe(sql.to_owned());
        match sqlx::raw_sql(statement).execute(&mut self.connection).await {
            Err(error) => error.to_string(),
            Ok(_) => panic!("the database took: {sql}"),
        }
    }

    /// A job in some state, with the columns that the state needs.
    async fn job(&mut self, seq: i64, state: State) {
        let outcome = if is_undecided(state) { "NULL" } else { "'cleared'" };
        let end = final_outcome(state);
        let id = format!("{}{seq:04}", &ID[..32]);
        self.must(&format!(
            "INSERT INTO jobs VALUES ({seq}, '{id}', 'allocation', 'BTC', '5', '{ID}', '{ID}', 'c', 'n',
                 'r', zeroblob(32), 1, '{}', {}, 1, {outcome}, {end}, NULL, 1, 0, 0, 0, 1, NULL, NULL, NULL, NULL, 0);",
            state.name(),
            quoted(state.reason()),
        ))
        .await;
    }

    async fn decision(&mut self, seq: i64) {
        self.decided_by(seq, "policy").await;
    }

    async fn decided_by(&mut self, seq: i64, source: &str) {
        self.must(&format!(
            "INSERT INTO decisions VALUES ({seq}, 'cleared', NULL, NULL, '{source}', '{{}}', 1, NULL, NULL);"
        ))
        .await;
    }
}

fn quoted(text: Option<&str>) -> String {
    text.map_or("NULL".to_owned(), |text| format!("'{text}'"))
}

/// How a cleared job has ended in a state, as SQL.
fn final_outcome(state: State) -> &'static str {
    match state {
        State::Confirmed => "'cleared'",
        State::Overruled => "'released'",
        _ => "NULL",
    }
}

fn attempt(seq: i64, job: i64, number: i64, outcome: &str, nonce: &str) -> String {
    format!(
        "INSERT INTO attempts (attempt_seq, job_seq, attempt_no, outcome, nonce, body, signature, key_id,
             prepared_at_ms)
         VALUES ({seq}, {job}, {number}, '{outcome}', '{nonce}', '{{}}', printf('%0130d', 1), 1, 1);"
    )
}

fn events() -> impl Iterator<Item = Event> {
    [
        Event::Decide,
        Event::Prepare,
        Event::Confirm,
        Event::AwaitApproval,
        Event::TurnedAway,
        Event::FoundReserved,
        Event::Overrule,
        Event::Retry,
        Event::Appear,
        Event::Adopt,
        Event::Refuse,
    ]
    .into_iter()
    .chain(Doubt::ALL.into_iter().map(Event::Doubt))
    .chain(ConflictKind::ALL.into_iter().map(Event::Freeze))
    .chain(ParkReason::ALL.into_iter().map(Event::Park))
}

/// What one transaction can make of a job: one step, or decision and first attempt at once.
fn reachable(from: State) -> BTreeSet<State> {
    let one_step = events().filter_map(|event| from.apply(event).ok());
    let at_once = (from == State::Received).then_some(State::Sending);
    one_step.chain(at_once).collect()
}

fn is_undecided(state: State) -> bool {
    matches!(state, State::Received | State::Refused)
        || matches!(state, State::Parked(reason) if reason.is_undecided())
}

#[tokio::test]
async fn a_job_takes_exactly_the_steps_of_the_state_machine() {
    let mut book = book().await;
    let mut seq = 0;
    for from in State::all() {
        let reachable = reachable(from);
        // Where a state keeps its name, only the reason why a job is parked is the database's affair.
        let others = State::all().filter(|to| {
            *to != from && (to.name() != from.name() || matches!(to, State::Parked(_)))
        });
        for to in others {
            seq += 1;
            book.job(seq, from).await;
            if is_undecided(from) && to == State::Confirmed {
                book.decided_by(seq, "oes").await;
            }
            let outcome = if is_undecided(to) { "NULL" } else { "'cleared'" };
            let sql = sqlx::AssertSqlSafe(format!(
                "UPDATE jobs SET state = '{}', state_reason = {}, outcome = {outcome},
                     final_outcome = {} WHERE job_seq = {seq}",
                to.name(),
                quoted(to.reason()),
                final_outcome(to),
            ));
            let taken = sqlx::query(sql).execute(&mut book.connection).await.is_ok();
            assert_eq!(taken, reachable.contains(&to), "{from} → {to}");
        }
    }
    assert!(seq > 300);
}

#[tokio::test]
async fn what_is_written_is_never_changed_or_removed() {
    let mut book = book().await;
    book.job(1, State::Sending).await;
    book.decision(1).await;
    book.must(&attempt(1, 1, 1, "cleared", "nonce-1")).await;
    book.must(
        "INSERT INTO messages VALUES (1, '{}');
         INSERT INTO transfers VALUES (1, 1, NULL, 'pending', 2, 1, '5', 1);
         INSERT INTO job_events VALUES (1, 1, 1, 'read_back', '{}');
         INSERT INTO quarantine VALUES (1, 'q', zeroblob(32), x'00', 'not_json', '', NULL, 1, 1, 1);
         INSERT INTO outbox VALUES (1, 'dead_letter', NULL, 1, printf('%036d', 1), 'q', NULL, 1, NULL);
         INSERT INTO reconcile_runs VALUES (1, 1, 2, 0, 1, 'me', 'differences', 1, 0, 1, '{}', NULL);
         INSERT INTO reconcile_findings VALUES (1, 1, 'absent', NULL, NULL, NULL, '', '', '');",
    )
    .await;
    for table in [
        "ledger",
        "book_events",
        "messages",
        "decisions",
        "transfers",
        "attempts",
        "job_events",
        "quarantine",
        "outbox",
        "jobs",
        "accounts",
        "signing_keys",
        "reconcile_runs",
        "reconcile_findings",
    ] {
        book.refuses(&format!("DELETE FROM {table}")).await;
    }
    for change in [
        "UPDATE ledger SET ledger_uuid = printf('%036d', 1)",
        "UPDATE book_events SET body = '[]'",
        "UPDATE messages SET raw = ''",
        "UPDATE decisions SET outcome = 'released', reject_reason = 'x', reject_code = 'y'",
        "UPDATE transfers SET quantity = '6'",
        "UPDATE attempts SET body = '[]'",
        "UPDATE attempts SET nonce = 'nonce-2'",
        "UPDATE attempts SET outcome = 'released'",
        "UPDATE job_events SET detail = '[]'",
        "UPDATE quarantine SET bytes = x'01'",
        "UPDATE outbox SET event_id = printf('%036d', 2)",
        "UPDATE jobs SET quantity = '6'",
        "UPDATE jobs SET record_id = printf('%036d', 2)",
        "UPDATE jobs SET outcome = 'released'",
        "UPDATE accounts SET currency = 'ETH'",
        "UPDATE reconcile_runs SET result = 'clean', differences = 0",
        "UPDATE reconcile_findings SET kind = 'status'",
        "INSERT INTO reconcile_runs VALUES (2, 1, 2, 0, 1, 'me', 'clean', 1, 0, 1, '{}', NULL)",
        "INSERT INTO reconcile_runs VALUES (2, 1, 2, 0, 1, 'me', 'failed', 1, 0, 0, '{}', NULL)",
        "UPDATE signing_keys SET public_key = printf('%066d', 3)",
        // REPLACE removes a row without being a DELETE.
        "REPLACE INTO decisions VALUES (1, 'released', 'y', 'x', 'policy', '{}', 1, NULL, NULL)",
        "REPLACE INTO transfers VALUES (1, 1, NULL, 'pending', 2, 1, '6', 1)",
        "REPLACE INTO messages VALUES (1, '[]')",
        "INSERT OR REPLACE INTO outbox VALUES (1, 'dead_letter', NULL, 1, printf('%036d', 2), 'q', NULL, 1, NULL)",
    ] {
        book.refuses(change).await;
    }
}

#[tokio::test]
async fn a_signature_needs_its_decision_and_carries_no_other_outcome() {
    let mut book = book().await;
    book.job(1, State::Decided).await;
    let error = book.refuses(&attempt(1, 1, 1, "cleared", "nonce-1")).await;
    assert!(error.contains("outcome that was decided"), "{error}");
    book.decision(1).await;
    book.refuses(&attempt(1, 1, 1, "released", "nonce-1")).await;
    book.must(&attempt(1, 1, 1, "cleared", "nonce-1")).await;
}

#[tokio::test]
async fn what_needs_approval_is_decided_by_an_operator_s_word_only() {
    let mut book = book().await;
    book.job(1, State::Parked(ParkReason::NeedsApproval)).await;
    let decision = |source: &str, by: &str, because: &str| {
        format!(
            "INSERT INTO decisions VALUES (1, 'cleared', NULL, NULL, '{source}', '{{}}', 1, {by}, {because})"
        )
    };
    let error = book.refuses(&decision("policy", "NULL", "NULL")).await;
    assert!(error.contains("operator's word"), "{error}");
    for (by, because) in
        [("NULL", "NULL"), ("'somebody'", "NULL"), ("NULL", "'so'"), ("''", "'so'")]
    {
        book.refuses(&decision("operator", by, because)).await;
    }
    book.must(&decision("operator", "'somebody'", "'so'")).await;
}

#[tokio::test]
async fn sums_that_limits_count_are_quantities_and_stay() {
    let mut book = book().await;
    book.must(&format!(
        "INSERT INTO currency_totals VALUES ('BTC', '5', '0', '5', '0');
         INSERT INTO daily_cleared VALUES ('{ID}', 'BTC', '2026-11-22', 'allocation', '5', '0');"
    ))
    .await;
    for change in [
        "DELETE FROM currency_totals",
        "DELETE FROM daily_cleared",
        "UPDATE currency_totals SET currency = 'ETH'",
        "UPDATE daily_cleared SET day = '2026-11-23'",
        "UPDATE currency_totals SET from_oes = '-5'",
        "UPDATE currency_totals SET ended = '0x5'",
        "UPDATE accounts SET overdrawn = 2",
        "UPDATE daily_cleared SET cleared = '5.0'",
    ] {
        book.refuses(change).await;
    }
}

#[tokio::test]
async fn a_nonce_is_stored_once_and_a_job_has_one_open_attempt() {
    let mut book = book().await;
    for seq in [1, 2] {
        book.job(seq, State::Decided).await;
        book.decision(seq).await;
    }
    book.must(&attempt(1, 1, 1, "cleared", "nonce-1")).await;
    book.refuses(&attempt(2, 2, 1, "cleared", "nonce-1")).await;
    book.refuses(&attempt(2, 1, 2, "cleared", "nonce-2")).await;
    book.must("UPDATE attempts SET result = 'no_reply', finished_at_ms = 2").await;
    book.must(&attempt(2, 1, 2, "cleared", "nonce-2")).await;
    let error = book
        .refuses(
            "UPDATE attempts SET result = 'accepted', finished_at_ms = 3 WHERE attempt_seq = 1",
        )
        .await;
    assert!(error.contains("written once"), "{error}");
}

#[tokio::test]
async fn money_moves_once() {
    let mut book = book().await;
    book.job(1, State::Sending).await;
    let transfer = |seq: i64, phase: &str, quantity: &str| {
        format!("INSERT INTO transfers VALUES ({seq}, 1, NULL, '{phase}', 2, 1, '{quantity}', 1)")
    };
    book.must(&transfer(1, "pending", "5")).await;
    book.refuses(&transfer(2, "pending", "5")).await;
    book.must(&transfer(2, "posted", "5")).await;
    book.refuses(&transfer(3, "posted", "5")).await;
    book.refuses(&transfer(3, "voided", "5")).await;
    for quantity in ["0", "05", "-5", "5.0", "", "5e3"] {
        book.refuses(&transfer(3, "overruled", quantity)).await;
    }
    book.refuses("INSERT INTO transfers VALUES (4, NULL, 1, 'adjusted', 1, 1, '5', 1)").await;
    book.must("INSERT INTO transfers VALUES (4, NULL, 1, 'adjusted', 2, 1, '5', 1)").await;
    book.refuses("INSERT INTO transfers VALUES (5, NULL, 1, 'adjusted', 2, 1, '5', 1)").await;
}

#[tokio::test]
async fn one_record_is_one_job_whatever_its_type() {
    let mut book = book().await;
    book.job(1, State::Received).await;
    let again = "INSERT INTO jobs SELECT 2, record_id, 'deallocation', currency, quantity, client_id,
        connection_id, partners_client_id, partners_connection_id, partners_record_id, content_sha256,
        received_at_ms, state, state_reason, state_since_ms, outcome, final_outcome, next_step_at_ms,
        attempts_made, attempts_counted, reads_made, absences, tried_since_ms, verified_at_ms, approval_before,
        book_sequence, gate_ms, waits_for_book FROM jobs
        WHERE job_seq = 1";
    let error = book.refuses(again).await;
    assert!(error.contains("UNIQUE"), "{error}");
}

#[tokio::test]
async fn what_is_refused_gives_its_id_up_and_stays_for_ever() {
    let mut book = book().await;
    book.job(1, State::Received).await;
    book.must("UPDATE jobs SET state = 'refused' WHERE job_seq = 1").await;
    let again = |seq: i64, state: &str| {
        format!(
            "INSERT INTO jobs SELECT {seq}, record_id, type, currency, '7', client_id, connection_id,
                partners_client_id, partners_connection_id, partners_record_id, content_sha256,
                received_at_ms, '{state}', NULL, state_since_ms, NULL, NULL, NULL, 0, 0, 0, 0, NULL,
                NULL, NULL, NULL, NULL, 0 FROM jobs WHERE job_seq = 1"
        )
    };
    book.must(&again(2, "received")).await;
    let error = book.refuses(&again(3, "received")).await;
    assert!(error.contains("UNIQUE"), "{error}");
    book.must(&again(3, "refused")).await;
    for change in [
        "UPDATE jobs SET state = 'received' WHERE job_seq = 1",
        "UPDATE jobs SET next_step_at_ms = 5 WHERE job_seq = 1",
        "UPDATE jobs SET outcome = 'cleared' WHERE job_seq = 1",
        "DELETE FROM jobs WHERE job_seq = 1",
    ] {
        book.refuses(change).await;
    }
}

#[tokio::test]
async fn what_oes_has_ended_is_taken_over_by_its_word_only_and_nothing_is_signed_for_it() {
    let mut book = book().await;
    let confirm = |seq: i64| {
        format!(
            "UPDATE jobs SET state = 'confirmed', state_reason = NULL, outcome = 'cleared',
                final_outcome = 'cleared' WHERE job_seq = {seq}"
        )
    };
    for (seq, state) in (1_i64..).zip([
        State::Received,
        State::Parked(ParkReason::NotShown),
        State::Parked(ParkReason::EndedAtOes),
        State::Parked(ParkReason::NeedsApproval),
    ]) {
        book.job(seq, state).await;
        let error = book.refuses(&confirm(seq)).await;
        assert!(error.contains("as OES ended its record"), "{state}: {error}");
        book.decided_by(seq, "oes").await;
        book.must(&confirm(seq)).await;
        let error = book.refuses(&attempt(seq, seq, 1, "cleared", "nonce-1")).await;
        assert!(error.contains("outcome that was decided"), "{state}: {error}");
    }
}

#[test]
fn every_column_says_what_it_is() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("migrations");
    let mut columns = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        let mut in_table = false;
        for line in text.lines() {
            let code = line.trim_start();
            if line.starts_with("CREATE TABLE") {
                in_table = true;
            } else if line.starts_with(')') {
                in_table = false;
            } else if in_table {
                let word = code.split_whitespace().next().unwrap_or_default();
                let is_column =
                    word.chars().all(|c| c.is_ascii_lowercase() || c == '_' || c.is_ascii_digit())
                        && line.starts_with("    ")
                        && !line.starts_with("     ")
                        && !word.is_empty();
                if is_column {
                    columns += 1;
                    let definition = text.split(line).nth(1).unwrap_or_default();
                    let commented = line.contains("--")
                        || definition.lines().take(3).any(|next| next.contains("--"));
                    assert!(commented, "no comment: {line}");
                }
            }
        }
    }
    assert!(columns > 80, "only {columns} columns were found");
}

#[tokio::test]
async fn rows_go_only_once_it_is_written_down_in_which_archive_they_are() {
    let mut book = book().await;
    book.job(1, State::Confirmed).await;
    book.job(2, State::Decided).await;
    book.decision(1).await;
    let ended = attempt(1, 1, 1, "cleared", "n-1");
    book.must(&format!(
        "{ended}
         UPDATE attempts SET result = 'accepted', finished_at_ms = 2;
         INSERT INTO messages VALUES (1, 'raw');
         INSERT INTO job_events VALUES (1, 1, 1, 'parked', '{{}}');
         INSERT INTO transfers VALUES (1, 1, NULL, 'pending', 1, 2, '5', 1);
         INSERT INTO transfers VALUES (2, NULL, 1, 'adjusted', 1, 2, '5', 1);
         INSERT INTO outbox VALUES (1, 'outcome', 1, NULL, '{ID}', 'k', '{{}}', 1, NULL);
         INSERT INTO archives VALUES (1, '{ID}', 1, '/archive.db', 4, 4, 4, 4);"
    ))
    .await;
    let moved = ["messages", "attempts", "transfers", "job_events", "outbox"];
    for table in moved {
        let said = book.refuses(&format!("DELETE FROM {table} WHERE job_seq = 1")).await;
        assert!(said.contains("never removed"), "{table}: {said}");
    }
    // Not before its outcome is published, and never one that is open.
    for job in [1, 2] {
        let archive = format!("INSERT INTO archived_jobs VALUES ({job}, 1, 5)");
        let said = book.refuses(&archive).await;
        assert!(said.contains("only a final job"), "{said}");
    }
    book.must("UPDATE outbox SET published_at_ms = 3").await;
    book.refuses("INSERT INTO archived_jobs VALUES (1, 2, 5)").await;
    book.must("INSERT INTO archived_jobs VALUES (1, 1, 5)").await;
    for table in moved {
        book.must(&format!("DELETE FROM {table} WHERE job_seq = 1")).await;
    }
    for (sql, expected) in [
        ("DELETE FROM transfers", "a movement is never removed"),
        ("DELETE FROM decisions", "a decision is never removed"),
        ("DELETE FROM jobs WHERE job_seq = 1", "a job is never removed"),
        ("UPDATE jobs SET state_since_ms = 9 WHERE job_seq = 1", "a final job never changes"),
        ("DELETE FROM archived_jobs", "never forgotten"),
        ("UPDATE archived_jobs SET archived_at_ms = 9", "never changes"),
        ("DELETE FROM archives", "never removed"),
        ("UPDATE archives SET begun_at_ms = 9", "never changes"),
        ("UPDATE archives SET attempt_seq = 3", "never given twice"),
        ("UPDATE archives SET outbox_seq = 3", "never given twice"),
    ] {
        let said = book.refuses(sql).await;
        assert!(said.contains(expected), "{sql}: {said}");
    }
}

#[tokio::test]
async fn what_is_known_of_the_feed_never_goes_back() {
    const CONNECTION: &str = "9e8d7c6b-5a49-4838-a716-0f1e2d3c4b5a";
    let mut book = book().await;
    book.job(1, State::Received).await;
    for refused in [
        "5, 6, NULL, NULL, '[]', '[]', 0",
        "5, NULL, 6, NULL, '[]', '[]', 0",
        "5, NULL, NULL, 6, '[]', '[]', 0",
        "0, NULL, NULL, NULL, '[]', '[]', 0",
        "NULL, NULL, NULL, NULL, '[[2, 3]]', '[]', 0",
        "5, NULL, NULL, NULL, 'two', '[]', 0",
        "5, NULL, NULL, NULL, '[]', 'two', 0",
        "5, NULL, NULL, NULL, '[]', '[]', 2",
        "5, NULL, NULL, NULL, '[]', '[]', NULL",
    ] {
        book.refuses(&format!("INSERT INTO connection_feeds VALUES ('{CONNECTION}', {refused})"))
            .await;
    }
    book.must(&format!(
        "INSERT INTO connection_feeds VALUES ('{CONNECTION}', 5, 4, NULL, 5, '[[2, 3]]', '[]', 1);
         INSERT INTO feed_findings VALUES (1, 'gap', '{CONNECTION}', 1, '{{}}', 1);
         UPDATE feed_state SET gate_open_ms = 9, heartbeat_sent_at_ms = 9;"
    ))
    .await;
    for change in [
        "UPDATE connection_feeds SET last_sequence = 4",
        "UPDATE connection_feeds SET last_sequence = NULL, stated_sequence = NULL, missing = '[]'",
        "UPDATE connection_feeds SET connection_id = 'another'",
        "DELETE FROM connection_feeds",
        "INSERT INTO feed_state VALUES (2, 0, NULL)",
        "UPDATE feed_state SET gate_open_ms = 8",
        "UPDATE feed_state SET heartbeat_sent_at_ms = 8",
        "UPDATE feed_state SET heartbeat_sent_at_ms = NULL",
        "DELETE FROM feed_state",
        "INSERT INTO feed_findings SELECT 2, 'guess', connection_id, 1, '{}', 1 FROM connections",
        "INSERT INTO feed_findings SELECT 2, 'gap', connection_id, 2, '{}', 1 FROM connections",
        "UPDATE feed_findings SET detail = '[]'",
        "DELETE FROM feed_findings",
        "UPDATE jobs SET book_sequence = 3",
        "UPDATE jobs SET gate_ms = -1",
        "UPDATE jobs SET waits_for_book = 2",
    ] {
        book.refuses(change).await;
    }
    book.must("UPDATE connection_feeds SET last_sequence = 6, missing = '[]', is_unproven = 0")
        .await;
}
