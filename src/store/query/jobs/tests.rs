//! How every listing is read, and that pages are whole.

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, Row as _, SqliteConnection};
use uuid::Uuid;

use super::{order::By, *};
use crate::{
    domain::{decision::RejectCode, state::State, time::TimestampMs},
    store::open::{open_readers, open_writer},
};

/// A book with many jobs in all states, some connections and clients, and no more than lists look at.
async fn book(jobs: i64) -> (tempfile::TempDir, SqliteConnection, Readers) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("book.db");
    let opened = open_writer(&path, TimestampMs::from_millis(0)).await.unwrap();
    let mut connection = opened.writer.connection;
    connection
        .execute(
            "INSERT INTO book_events VALUES (1, 'c', 'connection.upserted', '{}', zeroblob(32), 'test', 0);
             INSERT INTO connections
             SELECT 'd0000000-0000-4000-8000-' || printf('%012d', value),
               'c0000000-0000-4000-8000-' || printf('%012d', value % 4), 'pc-' || (value % 4),
               'pl-' || value, 1, 1 FROM json_each('[0, 1, 2, 3, 4, 5, 6, 7]')",
        )
        .await
        .unwrap();
    add_jobs(&mut connection, 1, jobs).await;
    (folder, connection, open_readers(&path).await.unwrap())
}

/// Adds jobs by their numbers; what each is follows from its number.
async fn add_jobs(connection: &mut SqliteConnection, first: i64, last: i64) {
    let ids = |prefix: &str, number: &str| {
        format!("'{prefix}-0000-4000-8000-' || printf('%012d', {number})")
    };
    let sql = format!(
        "WITH RECURSIVE n (n) AS (SELECT {first} UNION ALL SELECT n + 1 FROM n WHERE n < {last})
         INSERT INTO jobs (job_seq, record_id, type, currency, quantity, client_id, connection_id,
           partners_client_id, partners_connection_id, partners_record_id, content_sha256, received_at_ms,
           state, state_reason, state_since_ms, outcome, final_outcome, next_step_at_ms, attempts_made,
           attempts_counted, reads_made, absences) SELECT n, {record}, iif(n % 3, 'allocation', 'deallocation'),
           iif(n % 5, 'BTC', 'ETH'), '' || (n * 7), {client}, {connection}, 'pc-' || (n % 4),
           'pl-' || (n % 8), 'pr-' || n, zeroblob(32), n * 1000,
           CASE n % 10 WHEN 0 THEN 'parked' WHEN 1 THEN 'received' WHEN 2 THEN 'decided'
             WHEN 3 THEN 'overruled' WHEN 4 THEN 'refused' ELSE 'confirmed' END,
           iif(n % 10, NULL, 'refused_by_oes'), n * 1000 + (n * 7919) % 5000,
           CASE WHEN n % 10 IN (0, 2) THEN 'released' WHEN n % 10 IN (1, 4) THEN NULL
             ELSE 'cleared' END,
           CASE n % 10 WHEN 3 THEN 'released' WHEN 0 THEN NULL WHEN 1 THEN NULL WHEN 2 THEN NULL
             WHEN 4 THEN NULL ELSE 'cleared' END,
           CASE WHEN n % 10 IN (0, 2) THEN n * 10 + (n * 31) % 7 END, 0, 0, 0, 0
         FROM n",
        record = ids("00000000", "n"),
        client = ids("c0000000", "(n % 4)"),
        connection = ids("d0000000", "(n % 8)"),
    );
    connection.execute(AssertSqlSafe(sql)).await.unwrap();
    let decisions = format!(
        "INSERT INTO decisions (job_seq, outcome, reject_code, reject_reason, source, seen, decided_at_ms)
         SELECT job_seq, outcome, iif(outcome = 'released', 'daily_limit', NULL),
           iif(outcome = 'released', 'so', NULL), 'policy', '{{}}', received_at_ms
         FROM jobs WHERE job_seq BETWEEN {first} AND {last} AND outcome IS NOT NULL"
    );
    connection.execute(AssertSqlSafe(decisions)).await.unwrap();
}

fn client(number: u128) -> ClientId {
    Uuid::from_u128(0xc000_0000_0000_4000_8000_0000_0000_0000 + number).to_string().parse().unwrap()
}

fn link(number: u128) -> ConnectionId {
    Uuid::from_u128(0xd000_0000_0000_4000_8000_0000_0000_0000 + number).to_string().parse().unwrap()
}

/// Every question that a list can be asked, alone, and some together.
fn filters() -> Vec<JobFilter> {
    let any = JobFilter::default;
    let states = |text: &str| JobFilter::parse_states(text).unwrap();
    let text = |text: &str| JobFilter { text: Some(text.to_owned()), ..any() };
    let mut filters = vec![
        any(),
        JobFilter { job_type: Some(JobType::Allocation), ..any() },
        JobFilter { connection_id: Some(link(3)), ..any() },
        JobFilter { client_id: Some(client(1)), ..any() },
        JobFilter { currency: Some("ETH".parse().unwrap()), ..any() },
        JobFilter { outcome: Some(Outcome::Released), ..any() },
        JobFilter { outcome: Some(Outcome::Cleared), ..any() },
        JobFilter { reason: Some("refused_by_oes".to_owned()), ..any() },
        JobFilter { reason: Some("daily_limit".to_owned()), ..any() },
        JobFilter { received_since: Some(TimestampMs::from_millis(40_000)), ..any() },
        JobFilter { received_until: Some(TimestampMs::from_millis(70_500)), ..any() },
        JobFilter {
            states: states("open"),
            connection_id: Some(link(2)),
            currency: Some("BTC".parse().unwrap()),
            ..any()
        },
        JobFilter { states: states("confirmed,parked"), client_id: Some(client(2)), ..any() },
        text("0000"),
        text("PR-1"),
        text("pr-1"),
        text("c0000000-0000-4000-8000-000000000001"),
        text("D0000000"),
        text("pl-3"),
        text("pc-1"),
        text("nothing"),
    ];
    filters.extend(
        State::NAMES
            .into_iter()
            .chain(["open"])
            .map(|state| JobFilter { states: states(state), ..any() }),
    );
    filters
}

fn is_meant(filter: &JobFilter, job: &JobLine) -> bool {
    let begins = |text: &String| {
        let low = text.to_lowercase();
        [job.record_id.to_string(), job.client_id.to_string(), job.connection_id.to_string()]
            .iter()
            .any(|id| id.starts_with(&low))
            || [
                job.partners_record_id.as_str(),
                job.partners_client_id.as_str(),
                job.partners_connection_id.as_str(),
            ]
            .iter()
            .any(|id| id.starts_with(text))
    };
    (filter.states.is_empty() || filter.states.contains(&job.state))
        && filter.job_type.is_none_or(|wanted| wanted == job.job_type)
        && filter.connection_id.is_none_or(|wanted| wanted == job.connection_id)
        && filter.client_id.is_none_or(|wanted| wanted == job.client_id)
        && filter.currency.as_ref().is_none_or(|wanted| wanted == job.amount.currency())
        && filter.outcome.is_none_or(|wanted| Some(wanted) == job.outcome)
        && filter.received_since.is_none_or(|since| job.received_at_ms >= since)
        && filter.received_until.is_none_or(|until| job.received_at_ms <= until)
        && filter.reason.as_ref().is_none_or(|wanted| {
            [&job.state_reason, &job.reject_code].contains(&&Some(wanted.clone()))
        })
        && filter.text.as_ref().is_none_or(begins)
}

/// What a list should have, by looking at every job.
fn expected(all: &[JobLine], filter: &JobFilter, sort: Sort) -> Vec<i64> {
    let order = sort.order();
    let mut jobs: Vec<&JobLine> = all
        .iter()
        .filter(|job| is_meant(filter, job))
        .filter(|job| match order.by {
            By::Number | By::Change => true,
            By::OpenSince => job.final_outcome.is_none() && job.state != "refused",
            By::NextStep => job.next_step_at_ms.is_some(),
        })
        .collect();
    jobs.sort_by(|one, other| order.compare(order.place_of(one), order.place_of(other)));
    jobs.into_iter().map(|job| job.seq.get()).collect()
}

fn numbers(page: &JobPage) -> Vec<i64> {
    page.jobs.iter().map(|job| job.seq.get()).collect()
}

#[tokio::test]
async fn every_list_is_whole_forwards_and_backwards_whatever_is_asked_for() {
    let (_folder, _connection, readers) = book(100).await;
    let (any, whole) = (JobFilter::default(), PageWanted::first(Sort::Oldest, 1_000));
    let all = readers.list_jobs(&any, &whole).await.unwrap().jobs;
    assert_eq!(all.len(), 100);
    for filter in filters() {
        for sort in Sort::ALL {
            let wanted = expected(&all, &filter, sort);
            let (mut forwards, mut page) = (Vec::new(), PageWanted::first(sort, 7));
            let last = loop {
                let found = readers.list_jobs(&filter, &page).await.unwrap();
                assert!(found.jobs.len() <= 7 && found.looked_at.is_none() && !found.is_cut);
                forwards.extend(numbers(&found));
                match found.next {
                    Some(next) => page = PageWanted::after(next, 7),
                    None => break found,
                }
            };
            assert_eq!(forwards, wanted, "{sort:?} {filter:?}");
            let (mut backwards, mut before) = (numbers(&last), last.previous);
            while let Some(cursor) = before {
                let page = PageWanted::new(None, None, Some(cursor), 7).unwrap();
                let found = readers.list_jobs(&filter, &page).await.unwrap();
                backwards = [numbers(&found), backwards].concat();
                before = found.previous;
            }
            assert_eq!(backwards, wanted, "backwards {sort:?} {filter:?}");
        }
        let counted = readers.count_jobs(&filter).await.unwrap();
        let jobs = u64::try_from(expected(&all, &filter, Sort::Newest).len()).unwrap();
        if !filter.is_counted() {
            assert_eq!(counted, JobCount { jobs, is_exact: true }, "{filter:?}");
        }
    }
}

#[tokio::test]
async fn a_page_looks_at_so_many_jobs_only_and_says_where_to_go_on() {
    let (_folder, _connection, readers) = book(45_000).await;
    // The only job of its kind is the first one: a currency that no index leads to.
    let filter = JobFilter {
        currency: Some("BTC".parse().unwrap()),
        job_type: Some(JobType::Allocation),
        received_until: Some(TimestampMs::from_millis(44_999_000)),
        outcome: Some(Outcome::Cleared),
        states: JobFilter::parse_states("overruled,confirmed").unwrap(),
        client_id: None,
        ..JobFilter::default()
    };
    let none = JobFilter { currency: Some("XRP".parse().unwrap()), ..filter.clone() };
    let (mut looked_at, mut page) = (Vec::new(), PageWanted::first(Sort::Newest, 10));
    loop {
        let found = readers.list_jobs(&none, &page).await.unwrap();
        assert_eq!(numbers(&found), Vec::<i64>::new());
        looked_at.push(found.looked_at);
        match found.next {
            Some(next) => page = PageWanted::after(next, 10),
            None => break,
        }
    }
    assert_eq!(looked_at, [Some(20_000), Some(20_000), None]);
    let counted = readers.count_jobs(&none).await.unwrap();
    assert_eq!(counted, JobCount { jobs: 0, is_exact: false });
    let counted = readers.count_jobs(&filter).await.unwrap();
    assert!(counted.jobs > 1_000 && !counted.is_exact, "{counted:?}");
}

#[tokio::test]
async fn a_list_has_each_job_once_while_others_come_and_none_of_them_is_lost() {
    let (_folder, mut connection, readers) = book(100).await;
    for (sort, there) in [(Sort::Newest, 100), (Sort::Oldest, 100)] {
        let (mut read, mut page, mut last) = (Vec::new(), PageWanted::first(sort, 9), 0);
        loop {
            let found = readers.list_jobs(&JobFilter::default(), &page).await.unwrap();
            read.extend(numbers(&found));
            let Some(next) = found.next else { break };
            if last < 200 {
                let newest = PageWanted::first(Sort::Newest, 1);
                let newest = readers.list_jobs(&JobFilter::default(), &newest).await.unwrap();
                last = newest.jobs[0].seq.get();
                add_jobs(&mut connection, last + 1, last + 5).await;
            }
            page = PageWanted::after(next, 9);
        }
        let once: std::collections::BTreeSet<i64> = read.iter().copied().collect();
        assert_eq!(once.len(), read.len(), "{sort:?}: none twice");
        assert!((1..=there).all(|seq| once.contains(&seq)), "{sort:?}: none is lost");
    }
    connection.close().await.unwrap();
}

/// Every path that a list can have, with the orders it is read in.
fn every_path() -> Vec<(Path, By)> {
    let key = || "key".to_owned();
    vec![
        (Path::All, By::Number),
        (Path::OpenByState(key()), By::Number),
        (Path::OpenByTime, By::OpenSince),
        (Path::OpenByTime, By::Change),
        (Path::OpenByNextStep(key()), By::NextStep),
        (Path::EndedByTime, By::Change),
        (Path::RefusedByTime, By::Change),
        (Path::Overruled, By::Number),
        (Path::Connection(key()), By::Number),
        (Path::Client(key()), By::Number),
        (Path::Rejected(key()), By::Number),
        (Path::Jobs(vec![1, 2]), By::Number),
    ]
}

#[tokio::test]
async fn no_list_scans_a_table_or_sorts() {
    let (_folder, mut connection, _readers) = book(1_000).await;
    connection.execute("ANALYZE").await.unwrap();
    let place = Some(Place { at_ms: 5, seq: 500 });
    for (path, by) in every_path() {
        for (is_descending, after, up_to) in
            [(true, None, None), (false, place, None), (true, place, place), (false, None, place)]
        {
            let order = Order { by, is_descending };
            let stretch = Stretch { order, after, up_to, arrived: (1, 1_000) };
            for filter in filters() {
                let page = page_sql(&path, &stretch, &filter, 50);
                let end = path.end_sql(&stretch, 4_000);
                for sql in [page.sql(), end.sql()] {
                    let sql = sql.as_str().to_owned();
                    let plan = sqlx::query(AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}")))
                        .fetch_all(&mut connection)
                        .await
                        .unwrap();
                    let steps: Vec<String> = plan.iter().map(|row| row.get("detail")).collect();
                    for step in &steps {
                        // An index that has the wanted rows and no others is followed from its end.
                        let follows = step.contains("USING INDEX jobs_")
                            || step.contains("USING COVERING INDEX jobs_")
                            || step == "SCAN json_each VIRTUAL TABLE INDEX 1:";
                        assert!(!step.starts_with("SCAN") || follows, "{steps:?}\n{sql}");
                        assert!(!step.contains("TEMP B-TREE"), "{steps:?}\n{sql}");
                    }
                }
            }
        }
    }
    // Codes are tried one by one, so each that there is has a path.
    assert_eq!(RejectCode::ALL.len(), 11);
    connection.close().await.unwrap();
}
