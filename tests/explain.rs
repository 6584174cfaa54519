//! Each decision can be shown with what it saw, and made again from it.

use serde_json::Value;
use settled::domain::{decision::Outcome, job::JobType};

use crate::support::world::World;

async fn explained(world: &World, id: &str, against: &str) -> Value {
    let told = world.must_run(&["jobs", "explain", id, "--against", against, "--json"]).await;
    serde_json::from_str(&told).unwrap()
}

#[tokio::test]
async fn a_decision_is_made_again_from_what_it_saw_whatever_the_book_has_become() {
    let world = World::new().await;
    let daemon = world.daemon().await;
    // All that there is goes out, so that what comes after it finds nothing.
    let all = world.submit(JobType::Deallocation, "1000000").await;
    world.wait_for_state(&all, "confirmed").await;
    let more = world.submit(JobType::Deallocation, "1").await;
    let history = world.wait_for_state(&more, "confirmed").await;
    assert_eq!(history.job.final_outcome, Some(Outcome::Released));

    let then = explained(&world, &all.id.to_string(), "then").await;
    assert_eq!(then["saw"]["available"], "1000000");
    assert_eq!((&then["says"], &then["agrees"]), (&"cleared".into(), &true.into()));
    let now = explained(&world, &all.id.to_string(), "now").await;
    assert_eq!(now["saw"]["available"], "0", "it went out");
    assert_eq!(now["says"], "released (insufficient_available)");
    assert_eq!(now["agrees"], false);

    let then = explained(&world, &more.id.to_string(), "then").await;
    assert_eq!(then["saw"]["available"], "0");
    assert_eq!(then["decided"]["as"], "released (insufficient_available)");
    assert_eq!(then["agrees"], true);

    let before = world.history(more.id).await.unwrap().job;
    let told = world.must_run(&["jobs", "explain", &more.id.to_string()]).await;
    for part in ["available", "exposure of the connection", "decided at", "by policy", ", the same"]
    {
        assert!(told.contains(part), "{part} is missing in\n{told}");
    }
    assert!(!told.contains("NOT the same"));
    let after = world.history(more.id).await.unwrap().job;
    assert_eq!((before.state, before.attempts_made), (after.state, after.attempts_made));
    let (success, _, error) =
        world.run(&["jobs", "explain", "0b4a3f3e-7d0a-4b5e-9a0e-3d1c5f2b7a10"]).await;
    assert!(!success && error.contains("there is no job about record"), "{error}");
    daemon.stop().await;
    world.must_run(&["verify"]).await;
}
