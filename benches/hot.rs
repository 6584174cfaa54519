//! The hot parts alone: read a message, decide, write the payload, sign, and one batch of the writer.
#![allow(missing_docs, reason = "the macros of criterion make functions without any")]
#![allow(clippy::expect_used, reason = "a bench that cannot be set up may abort")]

#[path = "shared/book.rs"]
mod book;

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use book::Book;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use settled::domain::{
    decision::Decision,
    message::parse_job,
    payload::{NONCE_RANDOM_BYTES, Nonce, Update},
    policy::{BookView, rule},
    time::TimestampMs,
};

const BATCHES: [usize; 4] = [1, 8, 64, 256];

fn rules(criterion: &mut Criterion) {
    let message = book::message();
    criterion.bench_function("parse", |bencher| {
        bencher.iter(|| parse_job(black_box(&message)).expect("a job"));
    });
    let terms = parse_job(&message).expect("a job");
    let view = view(&terms);
    criterion.bench_function("decide", |bencher| {
        bencher.iter(|| rule(black_box(&terms), black_box(&view)));
    });
    let nonce = Nonce::new(TimestampMs::from_millis(7), [7; NONCE_RANDOM_BYTES]);
    criterion.bench_function("payload", |bencher| {
        bencher.iter(|| {
            Update::new(black_box(&terms), &Decision::Cleared, &nonce).expect("a payload")
        });
    });
    let update = Update::new(&terms, &Decision::Cleared, &nonce).expect("a payload");
    let key = book::key().expect("a key");
    criterion.bench_function("sign and verify", |bencher| {
        bencher.iter(|| key.sign(black_box(update.payload().as_bytes())).expect("a signature"));
    });
}

fn view(terms: &settled::domain::job::JobTerms) -> BookView {
    use settled::domain::{
        amount::Balance,
        book::{Connection, Currency},
        limits::ConnectionCaps,
        time::TimestampMs,
    };
    BookView {
        connection: Some(Connection {
            connection_id: terms.connection_id,
            client_id: terms.client_id,
            partners_client_id: terms.partners_client_id.clone(),
            partners_connection_id: terms.partners_connection_id.clone(),
            active: true,
        }),
        currency: Some(Currency {
            currency: terms.amount.currency().clone(),
            enabled: true,
            quantity_min: "1".parse().expect("a quantity"),
            quantity_max: "1000000000".parse().expect("a quantity"),
            exposure_max_total: None,
            caps: ConnectionCaps::default(),
            decimals: None,
        }),
        connection_caps: ConnectionCaps::default(),
        available: Balance::ZERO,
        exposure: Balance::ZERO,
        exposure_total: Balance::ZERO,
        day: TimestampMs::from_millis(0).day(),
        cleared_that_day: Balance::ZERO,
        connection_grace_over: false,
        operator: None,
        ended: None,
    }
}

/// A batch from the commands to the answers: with the disk that the target folder is on.
fn batches(criterion: &mut Criterion) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut group = criterion.benchmark_group("writer batch");
    group.measurement_time(Duration::from_secs(5));
    for size in BATCHES {
        group.throughput(Throughput::Elements(u64::try_from(size).unwrap_or(0)));
        for name in ["record, decide, sign", "confirm"] {
            let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
            let mut book = runtime.block_on(Book::new(folder.path())).expect("a book");
            group.bench_function(BenchmarkId::new(name, size), |bencher| {
                bencher.iter_custom(|iterations| {
                    runtime.block_on(async {
                        let mut took = Duration::ZERO;
                        for _ in 0..iterations {
                            let intakes = (0..size)
                                .map(|_| book::intake())
                                .collect::<Result<Vec<_>, _>>()
                                .expect("messages");
                            let begun = Instant::now();
                            let prepared = book.record(intakes).await.expect("a batch");
                            let recorded = begun.elapsed();
                            let replies = prepared.into_iter().map(book::accepted).collect();
                            let begun = Instant::now();
                            book.finish(replies).await.expect("a batch");
                            let batch = if name == "confirm" { begun.elapsed() } else { recorded };
                            took = took.saturating_add(batch);
                        }
                        took
                    })
                });
            });
        }
    }
    group.finish();
}

criterion_group!(hot, rules, batches);
criterion_main!(hot);
