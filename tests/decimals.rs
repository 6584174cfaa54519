//! OES may show amounts as decimals. Wherever the book is compared with them it is to the last base unit,
//! and an amount that cannot be read is never taken for another one.

use serde_json::{Value, json};
use settled::{
    domain::job::JobType,
    sandbox::{ReadAmounts, Record, ReservedPartnerId, Rules},
};

use crate::support::world::{AVAILABLE, World};

/// A world whose OES shows decimals; the book knows how many a bitcoin has, or does not.
async fn decimal_world(decimals: Option<u8>) -> World {
    let world = World::with(&[("oes.amounts", "decimals"), ("reconcile.sweep_age_s", "0")]).await;
    world.set_funds(world.connection_id, "BTC", AVAILABLE);
    world.oes().set_rules(Rules {
        read_amounts: ReadAmounts::Decimals,
        reserved_partner_id: ReservedPartnerId::Shown,
        ..world.oes().rules()
    });
    if let Some(decimals) = decimals {
        import_decimals(&world, decimals).await;
    }
    world
}

async fn import_decimals(world: &World, decimals: u8) {
    let mut currency = world.book_lines().remove(1);
    currency["eventId"] = json!("decimals");
    currency["decimals"] = json!(decimals);
    world.import(&[currency]).await;
}

async fn reconcile(world: &World, arguments: &[&str]) -> (Option<i32>, Value) {
    let all: Vec<&str> = ["reconcile", "--json"].iter().chain(arguments).copied().collect();
    let (code, output, error) = world.run_code(&all).await;
    let report =
        serde_json::from_str(&output).unwrap_or_else(|_| panic!("no report: {output}{error}"));
    (code, report)
}

/// The only thing that was found.
fn only(report: &Value) -> &Value {
    let findings = report["findings"].as_array().unwrap();
    assert_eq!(findings.len(), 1, "{report}");
    &findings[0]
}

fn is_about(finding: &Value, kind: &str, record: &Record) {
    assert_eq!((&finding["kind"], &finding["recordId"]), (&json!(kind), &json!(record.id)));
}

#[tokio::test]
async fn jobs_and_balances_are_compared_to_the_last_base_unit() {
    let world = decimal_world(Some(8)).await;
    let daemon = world.daemon().await;
    let large = world.submit(JobType::Allocation, "150000001").await;
    world.submit(JobType::Allocation, "1").await;
    world.submit(JobType::Deallocation, "100").await;
    world.wait_for_final(3).await;
    let total = AVAILABLE + 150_000_001 + 1 - 100;

    let (code, report) = reconcile(&world, &[]).await;
    assert_eq!((code, &report["jobs"]), (Some(0), &json!(3)), "{report}");
    let balance = &report["balances"][0];
    assert_eq!(balance["oesAvailable"], total.to_string(), "{report}");
    assert_eq!(balance["available"], total.to_string());

    // One base unit more in a record, and then in what the connection has.
    world.oes().falsify(large.id, "150000002".parse().unwrap()).unwrap();
    let (code, report) = reconcile(&world, &[]).await;
    assert_eq!(code, Some(1));
    is_about(only(&report), "amount", &large);
    assert_eq!(only(&report)["oes"], "1.50000002 BTC");
    world.oes().falsify(large.id, "150000001".parse().unwrap()).unwrap();
    world.set_funds(world.connection_id, "BTC", total + 1);
    let (code, report) = reconcile(&world, &[]).await;
    assert_eq!(code, Some(1));
    assert_eq!(only(&report)["kind"], "balance");
    assert_eq!(report["balances"][0]["unexplained"], "1");
    world.set_funds(world.connection_id, "BTC", total);
    assert_eq!(reconcile(&world, &[]).await.0, Some(0));
    world.assert_promises().await;
    daemon.stop().await;
}

#[tokio::test]
async fn a_job_that_never_came_is_taken_in_with_its_exact_amount() {
    let world = decimal_world(Some(8)).await;
    let daemon = world.daemon().await;
    let missing = world.reserve(JobType::Allocation, "70000001");
    let (code, report) = reconcile(&world, &[]).await;
    assert_eq!(code, Some(1));
    is_about(only(&report), "without_job", &missing);
    assert_eq!(report["atRisk"]["BTC"], "70000001");
    let quantity = "settled_records_without_job_quantity{currency=\"BTC\"}";
    assert_eq!(daemon.count(quantity).await, 70_000_001);

    let (code, report) = reconcile(&world, &["--adopt"]).await;
    assert_eq!(code, Some(0), "{report}");
    is_about(only(&report), "adopted", &missing);
    let history = world.wait_for_state(&missing, "confirmed").await;
    assert_eq!(history.job.terms.amount.quantity().to_string(), "70000001");
    // It is the job of the message that comes after all, and its update was what OES asks for.
    assert_eq!(world.puts_of(&missing).len(), 1);
    assert_eq!(world.balances().await[0], (AVAILABLE + 70_000_001).to_string());
    assert_eq!(reconcile(&world, &[]).await.0, Some(0));
    world.assert_promises().await;
    daemon.stop().await;
}

#[tokio::test]
async fn what_cannot_be_read_is_told_and_neither_compared_nor_taken_in() {
    let world = decimal_world(None).await;
    let missing = world.reserve(JobType::Allocation, "70000001");
    let (code, report) = reconcile(&world, &["--adopt"]).await;
    assert_eq!(code, Some(1));
    let findings = report["findings"].as_array().unwrap();
    let kinds: Vec<&Value> = findings.iter().map(|finding| &finding["kind"]).collect();
    assert_eq!(kinds, ["without_job", "unreadable"], "{report}");
    for finding in findings {
        let note = finding["note"].as_str().unwrap();
        assert!(note.contains("feed currency.configured with its decimals"), "{note}");
    }
    assert_eq!(report["atRisk"], json!({}));
    assert_eq!(report["balances"], json!([]), "nothing is said about what cannot be read");
    assert!(world.history(missing.id).await.is_none());

    // With fewer decimals than OES shows digits, it cannot be read either.
    import_decimals(&world, 7).await;
    let (code, report) = reconcile(&world, &["--adopt"]).await;
    assert_eq!(code, Some(1));
    is_about(&report["findings"][0], "without_job", &missing);
    let note = report["findings"][0]["note"].as_str().unwrap();
    assert!(note.contains("\"0.70000001\" is no amount with at most 7 decimals"), "{note}");
    assert!(world.history(missing.id).await.is_none());
}

#[tokio::test]
async fn a_sync_keeps_the_decimals_that_the_exchange_has_set() {
    let world = decimal_world(Some(8)).await;
    world.add_currency("ETH");
    let synced = world.must_run(&["book", "sync", "--apply", "--json"]).await;
    let synced: Value = serde_json::from_str(&synced).unwrap();
    assert_eq!(synced["lines"][0]["kind"], "new_currency", "{synced}");
    assert_eq!(synced["applied"], 1);
    let shown = world.must_run(&["book", "show", "--json"]).await;
    let book: Value = serde_json::from_str(&shown).unwrap();
    let currencies = book["currencies"].as_array().unwrap().iter();
    let decimals: Vec<(&Value, &Value)> =
        currencies.map(|known| (&known["currency"], &known["decimals"])).collect();
    assert_eq!(decimals, [(&json!("BTC"), &json!(8)), (&json!("ETH"), &Value::Null)]);
    // OES shows the balance as a decimal, and it is what the book has.
    let (code, report) = reconcile(&world, &[]).await;
    assert_eq!(code, Some(0), "{report}");
    assert_eq!(report["balances"][0]["oesAvailable"], AVAILABLE.to_string());
}
