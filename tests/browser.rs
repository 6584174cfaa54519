//! The operator page in a real browser: every action by keyboard, on every screen, with and without scripts.

use std::path::{Path, PathBuf};

use settled::{
    domain::{decision::Outcome, job::JobType},
    sandbox::{Effect, Fault, On, Record, Times, When},
};

use crate::support::{
    api::People,
    browser::{Browser, Screen},
    daemon::Daemon,
    eventually,
    world::World,
};

/// Alerts that are told at once.
const AT_ONCE: [(&str, &str); 3] =
    [("alerts.every_s", "1"), ("alerts.hold_s", "0"), ("alerts.calm_s", "0")];

async fn open() -> (World, Daemon, People) {
    let mut world = World::with(&AT_ONCE).await;
    let tokens = People::known_to(&mut world);
    let daemon = world.daemon().await;
    let people = People::at(&daemon, tokens);
    (world, daemon, people)
}

/// A deallocation that OES does not take.
async fn parked(world: &World) -> Record {
    let parked = world.reserve(JobType::Deallocation, "7000");
    let refuse = Effect::Answer { when: When::Before, status: 422 };
    world.inject(Fault::new(On::Update, refuse).of_record(parked.id).times(Times::Always));
    world.publish([world.job(&parked)]).await;
    world.wait_for_state(&parked, "parked(refused_by_oes)").await;
    parked
}

/// A record whose updates never arrive, and that OES ends by itself, against the decision.
async fn in_conflict(world: &World) -> Record {
    let record = world.reserve(JobType::Allocation, "50000");
    let lost = Effect::Answer { when: When::Before, status: 500 };
    world.inject(Fault::new(On::Update, lost).of_record(record.id).times(Times::Always));
    world.publish([world.job(&record)]).await;
    eventually("an update to be on its way", || async {
        (!world.puts_of(&record).is_empty()).then_some(())
    })
    .await;
    world.oes().finish(record.id, Outcome::Released).unwrap();
    world.wait_for_state(&record, "conflict(other_outcome)").await;
    record
}

/// A job that waits for an operator.
async fn needs_approval(world: &World) -> Record {
    let limit = serde_json::json!({
        "eventId": "k-2", "type": "currency.configured", "currency": "BTC", "enabled": true,
        "quantityMin": "1", "quantityMax": "100000000000", "decimals": 8,
        "exposureMaxTotal": "900000000000", "approvalAbove": "5000000",
    });
    world.import(&[limit]).await;
    let record = world.submit(JobType::Allocation, "12500000").await;
    world.wait_for_state(&record, "parked(needs_approval)").await;
    record
}

/// Where pictures are written.
fn pictures() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("pages");
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

#[tokio::test]
async fn every_page_fits_every_screen_says_nothing_in_the_console_and_asks_no_other_host() {
    let (world, daemon, people) = open().await;
    for quantity in ["150000", "2100000", "330000"] {
        let record = world.submit(JobType::Allocation, quantity).await;
        world.wait_for_state(&record, "confirmed").await;
    }
    let released = world.submit(JobType::Deallocation, "90000000").await;
    world.wait_for_state(&released, "confirmed").await;
    let (parked, conflict) = (parked(&world).await, in_conflict(&world).await);
    let approval = needs_approval(&world).await;
    world.publish([b"{\"type\":\"allocation\",\"allocationId\":7}".to_vec()]).await;
    world.must_run(&["switch", "intake", "off", "--reason", "the broker is being moved"]).await;
    world.run(&["reconcile", "--reason", "a look before the weekend"]).await;
    let browser = Browser::at(daemon.base()).await;
    let folder = pictures();
    for screen in Screen::ALL {
        browser.show_on(screen, false).await;
        browser.open("/page/sign-in").await;
        browser.picture(&folder.join(format!("sign-in-{screen:?}-light.png"))).await;
    }
    browser.sign_in(&people.tokens["alice"]).await;
    eventually("alerts to be told", || async {
        browser.open("/page").await;
        let text = browser.text().await;
        ["SettledConflict", "SettledParked", "SettledQuarantine"]
            .into_iter()
            .all(|name| text.contains(name))
            .then_some(())
    })
    .await;
    let job = |record: &Record| format!("/page/jobs/{}", record.id);
    for (name, path) in [
        ("overview", "/page".to_owned()),
        ("parked", job(&parked)),
        ("conflict", job(&conflict)),
        ("approval", job(&approval)),
        ("released", job(&released)),
        ("quarantine", "/page/quarantine".to_owned()),
        ("message", "/page/quarantine/1".to_owned()),
        ("book", "/page/book?history=on".to_owned()),
        ("switches", "/page/switches".to_owned()),
        ("reconcile", "/page/reconcile".to_owned()),
        ("comparison", "/page/reconcile/1".to_owned()),
        ("actions", "/page/actions".to_owned()),
        ("runbook", "/page/runbook#settledparked".to_owned()),
    ] {
        browser.open(&path).await;
        assert!(!browser.text().await.contains("Not Found"), "{path}");
        for screen in Screen::ALL {
            for (dark, shade) in [(false, "light"), (true, "dark")] {
                browser.show_on(screen, dark).await;
                let too_wide = browser
                    .script("return document.documentElement.scrollWidth - window.innerWidth")
                    .await;
                assert!(
                    too_wide.as_i64().unwrap() <= 0,
                    "{name} on {screen:?}: {too_wide} too wide"
                );
                browser.picture(&folder.join(format!("{name}-{screen:?}-{shade}.png"))).await;
            }
        }
        assert_eq!(browser.console().await, Vec::<String>::new(), "{name}");
    }
    let hosts: Vec<String> = browser.hosts().await.into_iter().collect();
    assert_eq!(hosts, [daemon.base()]);
    browser.close().await;
    daemon.stop().await;
}
