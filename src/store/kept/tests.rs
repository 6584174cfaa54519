//! On a real database: what is kept is what was committed.

use std::future::ready;

use super::*;
use crate::{
    domain::{book::BookEvent, message::parse_job, time::TimestampMs},
    store::{
        batch::{Batch, NotCommitted},
        open_writer,
        work::{BookEventOutcome, Counters, WorkError},
    },
};

const CONNECTION: &str = "0e4ae5f2-5f3c-4c39-9d0d-3a0a6f1f2b11";

struct Book {
    _folder: tempfile::TempDir,
    writer: crate::store::WriteConnection,
    counters: Counters,
}

async fn new_book() -> Book {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("book.db");
    let opened = open_writer(&path, TimestampMs::from_millis(0)).await.unwrap();
    Book { _folder: folder, writer: opened.writer, counters: opened.counters }
}

fn connection() -> ConnectionId {
    CONNECTION.parse().unwrap()
}

fn pair() -> Pair {
    (connection(), "BTC".parse().unwrap())
}

fn needs() -> Needs {
    let mut needs = Needs::default();
    needs.connections.insert(connection());
    needs.currencies.insert(pair().1);
    needs.accounts.insert(pair());
    needs
}

fn upserted() -> BookEvent {
    let text = format!(
        r#"{{"eventId":"e-1","type":"connection.upserted","connectionId":"{CONNECTION}",
            "clientId":"7b1d6f0a-9d8f-4a59-8d6c-0a4f3f7d9a22","partnersClientId":"client",
            "partnersConnectionId":"conn","active":true}}"#
    );
    BookEvent::parse(&text).unwrap()
}

fn adjusted(id: &str, delta: &str) -> BookEvent {
    let text = format!(
        r#"{{"eventId":"{id}","type":"balance.adjusted","connectionId":"{CONNECTION}",
            "currency":"BTC","delta":"{delta}"}}"#
    );
    BookEvent::parse(&text).unwrap()
}

impl Book {
    async fn begin(&mut self, needs: &Needs) -> Batch<'_> {
        self.writer.begin(TimestampMs::from_millis(1_000), self.counters, needs).await.unwrap()
    }

    async fn apply(&mut self, events: &[BookEvent]) {
        let mut batch = self.begin(&needs()).await;
        for event in events {
            let outcome = batch.work.apply_book_event(event, "test").unwrap();
            assert_eq!(outcome, BookEventOutcome::Applied);
        }
        self.counters = batch.commit(0, ready(Ok(Vec::new()))).await.unwrap();
    }

    /// What a batch is shown without a read.
    fn shown(&self) -> (Work, Wanted) {
        let mut work = Work::new(TimestampMs::from_millis(1_000), self.counters);
        let wanted = Wanted::of(&work, &needs());
        let unknown = self.writer.kept.show(&mut work, &wanted);
        (work, unknown)
    }

    fn available(&self) -> String {
        let (work, unknown) = self.shown();
        assert!(unknown.accounts.is_empty());
        work.balance(connection(), &pair().1, AccountKind::Available).to_string()
    }
}

#[tokio::test]
async fn what_a_batch_wrote_is_shown_to_the_next_one_without_a_read() {
    let mut book = new_book().await;
    book.apply(&[upserted(), adjusted("e-2", "700")]).await;
    assert_eq!(book.available(), "700");
    book.apply(&[adjusted("e-3", "-200")]).await;
    assert_eq!(book.available(), "500");
    let (work, unknown) = book.shown();
    assert!(unknown.connections.is_empty() && unknown.currencies.is_empty());
    assert!(unknown.days.is_empty());
    assert!(work.connections.contains_key(&connection()));
    assert!(work.currencies.is_empty(), "that the book has none is known too");
}

#[tokio::test]
async fn a_batch_that_is_rolled_back_changes_nothing_that_is_kept() {
    let mut book = new_book().await;
    book.apply(&[upserted(), adjusted("e-2", "700")]).await;
    let mut batch = book.begin(&needs()).await;
    batch.work.apply_book_event(&adjusted("e-3", "-200"), "test").unwrap();
    batch.roll_back().await.unwrap();
    assert_eq!(book.available(), "700");
    let batch = book.begin(&needs()).await;
    batch.roll_back().await.unwrap();
}

#[tokio::test]
async fn after_a_commit_that_failed_everything_is_read_again() {
    let mut book = new_book().await;
    book.apply(&[upserted(), adjusted("e-2", "700")]).await;
    let mut batch = book.begin(&needs()).await;
    batch.work.apply_book_event(&adjusted("e-3", "-200"), "test").unwrap();
    // A reference that leads nowhere, which is looked at only when the transaction commits.
    for sql in ["PRAGMA defer_foreign_keys = ON", "INSERT INTO messages VALUES (999, '{}')"] {
        sqlx::query(sql).execute(&mut *batch.transaction).await.unwrap();
    }
    batch.commit(0, ready(Ok(Vec::new()))).await.unwrap_err();
    let (_, unknown) = book.shown();
    assert_eq!(unknown.accounts, needs().accounts);
    book.apply(&[]).await;
    assert_eq!(book.available(), "700");
}

#[tokio::test]
async fn a_batch_whose_attempts_cannot_be_signed_changes_nothing() {
    let mut book = new_book().await;
    book.apply(&[upserted(), adjusted("e-2", "700")]).await;
    let mut batch = book.begin(&needs()).await;
    batch.work.apply_book_event(&adjusted("e-3", "-200"), "test").unwrap();
    let unsigned = WorkError::BadSignature(JobSeq::from(1));
    let error = batch.commit(0, ready(Err(unsigned))).await.unwrap_err();
    assert!(matches!(error, NotCommitted::Unsigned(WorkError::BadSignature(_))), "{error}");
    assert_eq!(book.available(), "700");
    // What the database has is compared with what is kept.
    book.begin(&needs()).await.roll_back().await.unwrap();
}

#[tokio::test]
async fn a_batch_that_lacks_an_attempt_that_was_begun_is_not_committed() {
    let mut book = new_book().await;
    let raw = format!(
        r#"{{"type":"allocation","allocationId":"0b4a3f3e-7d0a-4b5e-9a0e-3d1c5f2b7a10",
            "amount":{{"currency":"BTC","quantity":"5"}},
            "clientId":"7b1d6f0a-9d8f-4a59-8d6c-0a4f3f7d9a22","connectionId":"{CONNECTION}",
            "partnersClientId":"client","partnersConnectionId":"conn",
            "partnersAllocationId":"alloc"}}"#
    );
    let terms = parse_job(raw.as_bytes()).unwrap();
    let mut batch = book.begin(&needs()).await;
    let job = batch.work.insert_job(terms, raw, None);
    batch.work.begin_attempt(job).unwrap();
    let error = batch.commit(0, ready(Ok(Vec::new()))).await.unwrap_err();
    let NotCommitted::Store(StoreError::Moved { doing, expected: 1, changed: 0 }) = error else {
        panic!("{error}");
    };
    assert_eq!(doing, "the new attempts");
    let jobs: i64 = sqlx::query_scalar("SELECT count(*) FROM jobs")
        .fetch_one(&mut book.writer.connection)
        .await
        .unwrap();
    assert_eq!(jobs, 0);
}

#[tokio::test]
async fn what_a_batch_has_without_having_wanted_it_is_forgotten() {
    let mut book = new_book().await;
    book.apply(&[upserted(), adjusted("e-2", "700")]).await;
    // The accounts of the connection as a whole, and not those of a pair.
    let mut whole = Needs::default();
    whole.connections.insert(connection());
    whole.whole_connections.insert(connection());
    let mut batch = book.begin(&whole).await;
    batch.work.apply_book_event(&adjusted("e-3", "-200"), "test").unwrap();
    book.counters = batch.commit(0, ready(Ok(Vec::new()))).await.unwrap();
    let (_, unknown) = book.shown();
    assert_eq!(unknown.accounts, needs().accounts);
    book.apply(&[]).await;
    assert_eq!(book.available(), "500");
}

#[tokio::test]
async fn a_book_that_was_changed_behind_the_writer_s_back_is_told_from_what_is_kept() {
    let mut book = new_book().await;
    book.apply(&[upserted(), adjusted("e-2", "700")]).await;
    sqlx::query("UPDATE accounts SET credits = '701' WHERE kind = 'available'")
        .execute(&mut book.writer.connection)
        .await
        .unwrap();
    let refused = book.writer.begin(TimestampMs::from_millis(1_000), book.counters, &needs()).await;
    let error = refused.err().map(|error| error.to_string()).unwrap_or_default();
    assert!(error.contains("accounts"), "{error}");
}

#[test]
fn what_is_kept_is_bounded() {
    let mut kept = HashMap::new();
    for key in 0..=KEPT_MAX {
        insert(&mut kept, key, key);
        insert(&mut kept, key, key);
    }
    assert_eq!(kept.len(), 1);
    assert!(kept.contains_key(&KEPT_MAX));
}
