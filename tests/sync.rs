//! `settled book sync`: what OES has is shown first, applied when asked, and then in step; what the
//! exchange has said stays its own.

use serde_json::{Value, json};
use settled::{
    domain::ids::ConnectionId,
    sandbox::{ConnectionSeed, CurrencySeed, Effect, Fault, On, Times, When},
};
use uuid::Uuid;

use crate::support::{
    eventually,
    world::{PARTNERS_CLIENT, World},
};

async fn sync(world: &World, arguments: &[&str]) -> Value {
    let all: Vec<&str> = ["book", "sync", "--json"].iter().chain(arguments).copied().collect();
    serde_json::from_str(&world.must_run(&all).await).unwrap()
}

fn kinds(report: &Value) -> Vec<String> {
    let lines = report["lines"].as_array().unwrap().iter();
    lines.map(|line| line["kind"].as_str().unwrap().to_owned()).collect()
}

fn count(report: &Value, kind: &str) -> usize {
    kinds(report).iter().filter(|found| *found == kind).count()
}

/// Whether each connection of the book is active.
async fn activity(world: &World, id: ConnectionId) -> Option<bool> {
    let readers = world.readers().await;
    let connections = readers.connections().await.unwrap();
    readers.close().await;
    connections.iter().find(|known| known.connection_id == id).map(|known| known.active)
}

fn seed(world: &World, id: ConnectionId, active: bool, is_set_up: bool) -> ConnectionSeed {
    ConnectionSeed {
        id,
        client_id: world.client_id,
        name: "connection".to_owned(),
        partners_client_id: is_set_up.then(|| PARTNERS_CLIENT.to_owned()),
        partners_connection_id: is_set_up.then(|| format!("conn-{id}")),
        active,
        balances: [].into(),
    }
}

fn set_active(world: &World, id: ConnectionId, active: bool) {
    world.oes().add_connection(seed(world, id, active, true)).unwrap();
}

fn new_connection(world: &World) -> ConnectionId {
    let id = Uuid::new_v4().into();
    set_active(world, id, true);
    id
}

#[tokio::test]
async fn many_pages_are_shown_then_applied_then_nothing_is_left() {
    let world = World::new().await;
    // Smaller than what is asked for, so that the size of a page is the server's.
    let mut rules = world.oes().rules();
    rules.page_size_max = 7;
    world.oes().set_rules(rules);
    let new: Vec<ConnectionId> = (0..40).map(|_| new_connection(&world)).collect();
    for number in 0..3 {
        let name = format!("T{number}").parse().unwrap();
        world
            .oes()
            .add_currency(CurrencySeed { partner_name: Clone::clone(&name), name, decimals: 8 })
            .unwrap();
    }

    let shown = sync(&world, &[]).await;
    assert_eq!((count(&shown, "new_connection"), count(&shown, "new_currency")), (40, 3));
    assert_eq!((&shown["connections"], &shown["applied"]), (&json!(41), &Value::Null));
    assert_eq!(activity(&world, new[0]).await, None, "nothing is changed without --apply");
    let text = world.must_run(&["book", "sync"]).await;
    assert!(text.contains("43 to apply with --apply"), "{text}");

    let applied = sync(&world, &["--apply"]).await;
    assert_eq!(applied["applied"], 43);
    for id in &new {
        assert_eq!(activity(&world, *id).await, Some(true));
    }
    let book: Value =
        serde_json::from_str(&world.must_run(&["book", "show", "--json"]).await).unwrap();
    let currencies = book["currencies"].as_array().unwrap();
    assert_eq!(currencies.len(), 4);
    for currency in currencies {
        assert_eq!(currency["enabled"], currency["currency"] == "BTC", "{currency}");
    }
    assert_eq!(kinds(&sync(&world, &[]).await), Vec::<String>::new());
    let text = world.must_run(&["book", "sync", "--apply"]).await;
    assert!(text.contains("0 facts taken into the book"), "{text}");
}

#[tokio::test]
async fn what_the_exchange_suspended_stays_so_and_what_oes_took_comes_back() {
    let world = World::new().await;
    let daemon = world.daemon().await;
    let (suspended, taken) = (new_connection(&world), new_connection(&world));
    sync(&world, &["--apply"]).await;
    world.import(&[world.connection_event("suspend", suspended, false)]).await;

    set_active(&world, taken, false);
    set_active(&world, suspended, false);
    let report = sync(&world, &["--apply"]).await;
    assert_eq!(kinds(&report), ["deactivated"], "the other is inactive already");
    assert_eq!(activity(&world, taken).await, Some(false));

    set_active(&world, taken, true);
    set_active(&world, suspended, true);
    let report = sync(&world, &["--apply"]).await;
    assert_eq!(kinds(&report), ["reactivated", "suspended_here"]);
    assert_eq!(activity(&world, taken).await, Some(true));
    assert_eq!(activity(&world, suspended).await, Some(false));
    let left = "settled_sync_differences{kind=\"suspended_here\"}";
    assert_eq!(daemon.count(left).await, 1);

    let id = suspended.to_string();
    let report = sync(&world, &["--apply", "--activate", &id]).await;
    assert_eq!(kinds(&report), ["activated"]);
    assert_eq!(activity(&world, suspended).await, Some(true));
    assert_eq!(kinds(&sync(&world, &[]).await), Vec::<String>::new());
    assert_eq!(daemon.count(left).await, 0);
    // The exchange has the last word again.
    world.import(&[world.connection_event("suspend-again", suspended, false)]).await;
    assert_eq!(kinds(&sync(&world, &["--apply"]).await), ["suspended_here"]);
    daemon.stop().await;
}

#[tokio::test]
async fn a_connection_that_is_gone_or_not_set_up_is_never_guessed_at() {
    let world = World::new().await;
    let (gone, unset) = (new_connection(&world), Uuid::new_v4().into());
    sync(&world, &["--apply"]).await;
    world.oes().add_connection(seed(&world, unset, true, false)).unwrap();
    assert!(world.oes().remove_connection(gone));
    let report = sync(&world, &["--apply"]).await;
    assert_eq!(kinds(&report), ["gone_connection", "not_ready"]);
    assert_eq!(activity(&world, gone).await, Some(false));
    assert_eq!(activity(&world, unset).await, None);

    // An enterprise without any connection is a wrong one, until a person has looked.
    assert!(world.oes().remove_connection(world.connection_id));
    assert!(world.oes().remove_connection(unset));
    let (success, _, error) = world.run(&["book", "sync", "--apply"]).await;
    assert!(!success && error.contains("OES shows no connection at all"), "{error}");
    assert_eq!(activity(&world, world.connection_id).await, Some(true));
}

#[tokio::test]
async fn a_list_that_cannot_be_read_changes_nothing() {
    let world = World::new().await;
    let new = new_connection(&world);
    let fail = Effect::Answer { when: When::Before, status: 500 };
    world.inject(Fault::new(On::OtherRead, fail).times(Times::Always));
    let (success, _, error) = world.run(&["book", "sync", "--apply"]).await;
    assert!(!success && error.contains("500"), "{error}");
    assert_eq!(activity(&world, new).await, None);
}

#[tokio::test]
async fn a_schedule_tells_and_applies_as_configured() {
    let mut world = World::with(&[("book.sync_every_s", "1")]).await;
    let new = new_connection(&world);
    let daemon = world.daemon().await;
    eventually("the schedule to see the connection", || async {
        let seen = daemon.count("settled_sync_differences{kind=\"new_connection\"}").await;
        (seen == 1).then_some(())
    })
    .await;
    assert_eq!(activity(&world, new).await, None, "it only tells");
    daemon.stop().await;
    world.set("book.sync_apply", "true");
    let daemon = world.daemon().await;
    eventually("the schedule to add the connection", || async { activity(&world, new).await })
        .await;
    daemon.stop().await;
}
