//! The operator page in a real browser: every action by keyboard, on every screen, with and without scripts.

use std::path::{Path, PathBuf};

use settled::{
    domain::{decision::Outcome, job::JobType},
    sandbox::{Effect, Fault, On, Record, Times, When},
};

use crate::support::{
    api::People,
    browser::{Browser, ENTER, SPACE, Screen, TAB},
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
    // It finds differences, and says so by its exit code.
    let (_, found, _) = world.run(&["reconcile"]).await;
    assert!(found.contains("difference"), "{found}");
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
        ("jobs", "/page/jobs".to_owned()),
        ("found", "/page/jobs?state=open&olderThan=1s&sort=longest&outcome=cleared".to_owned()),
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

/// Fills a form in and sends it, with the keyboard alone.
async fn act(browser: &Browser, path: &str, reason: &str, button: &str) {
    browser.open(path).await;
    browser.tab_to("Reason").await;
    browser.press(reason).await;
    browser.tab_to(button).await;
    browser.press(ENTER).await;
}

#[tokio::test]
async fn from_an_alert_to_the_cause_and_the_fix_with_the_keyboard_alone() {
    let (world, daemon, people) = open().await;
    let record = parked(&world).await;
    let browser = Browser::at(daemon.base()).await;
    browser.open("/page").await;
    assert!(browser.focused().await.contains("Your token"), "{}", browser.focused().await);
    browser.press(&people.tokens["alice"]).await;
    browser.press(ENTER).await;
    browser.wait_for_text("SettledParked").await;

    // The alert leads to the jobs that it is about, and one of these to what OES answered.
    browser.tab_to("Show parked jobs").await;
    browser.press(ENTER).await;
    browser.wait_for_text("refused_by_oes").await;
    assert_eq!(browser.path().await, "/page/jobs?state=parked");
    let id = record.id.to_string();
    browser.tab_to(&id).await;
    browser.press(ENTER).await;
    browser.wait_for_text("What happened").await;
    assert_eq!(browser.path().await, format!("/page/jobs/{id}"));
    let text = browser.text().await;
    for shown in
        ["refused_answer (status 422)", "Signed body, exactly as sent", "\"status\":\"cleared\""]
    {
        assert!(text.contains(shown), "{shown} in {text}");
    }
    // What to do first, in the runbook.
    browser.tab_to("the runbook").await;
    browser.press(ENTER).await;
    browser.wait_for_text("A job waits for a person").await;
    assert_eq!(browser.path().await, "/page/runbook#settledparked");

    // The cause is gone, and the job is found again by its id.
    world.oes().clear_faults();
    browser.press("/").await;
    assert!(browser.focused().await.starts_with("INPUT find"), "{}", browser.focused().await);
    browser.press(&id).await;
    browser.press(ENTER).await;
    browser.wait_for_text("What you can do").await;
    act(&browser, &format!("/page/jobs/{id}"), "OES knows the currency now", "Send on").await;
    browser.wait_for_text("The job goes on as").await;
    world.wait_for_state(&record, "confirmed").await;
    // The page follows by itself.
    browser.wait_for_text("confirmed").await;
    browser.open("/page").await;
    browser.wait_for_text("Nothing. No alert holds.").await;
    assert_eq!(browser.console().await, Vec::<String>::new());
    browser.close().await;
    daemon.stop().await;
    world.assert_promises().await;
}

#[tokio::test]
async fn every_action_can_be_done_with_the_keyboard_alone() {
    let (world, daemon, people) = open().await;
    let (conflict, lost) = (in_conflict(&world).await, parked(&world).await);
    let (approved, refused) =
        (needs_approval(&world).await, world.submit(JobType::Allocation, "9000000").await);
    world.wait_for_state(&refused, "parked(needs_approval)").await;
    world.publish([b"no job".to_vec()]).await;
    let browser = Browser::at(daemon.base()).await;
    browser.sign_in(&people.tokens["alice"]).await;

    // The first thing that Tab comes to skips what every page begins with.
    browser.open("/page/switches").await;
    browser.press(TAB).await;
    assert!(browser.focused().await.contains("Skip to content"));
    browser.press(ENTER).await;
    assert!(browser.focused().await.starts_with("MAIN main"), "{}", browser.focused().await);
    browser.tab_to("Reason").await;
    browser.press("the broker is being moved").await;
    browser.press(ENTER).await;
    browser.wait_for_text("intake is off.").await;
    act(&browser, "/page/switches", "it has been moved", "Switch intake on").await;
    browser.wait_for_text("intake is on.").await;

    let job = |record: &Record| format!("/page/jobs/{}", record.id);
    act(&browser, &job(&approved), "the desk knows of it", "Approve").await;
    browser.wait_for_text("The job is decided: cleared.").await;
    act(&browser, &job(&refused), "nobody knows of it", "Refuse").await;
    browser.wait_for_text("The job is decided: released").await;
    act(&browser, "/page/quarantine/1", "to see that it is read again", "Put back in").await;
    browser.wait_for_text("It is as bad as it was").await;

    // All that match, first shown.
    world.oes().clear_faults();
    browser.open("/page/jobs?state=parked").await;
    browser.tab_to("Send on").await;
    browser.press(SPACE).await;
    browser.wait_for_text("1 job\n").await;
    assert!(browser.text().await.contains("BTC"), "{}", browser.text().await);
    browser.tab_to("Reason").await;
    browser.press("OES is well again").await;
    browser.tab_to("Send on 1 job").await;
    browser.press(ENTER).await;
    browser.wait_for_text("1 × The job goes on as").await;
    world.wait_for_state(&lost, "confirmed").await;

    // A conflict takes two.
    act(&browser, &job(&conflict), "ticket 4711", "OES ended it as released").await;
    browser.wait_for_text("Proposed. The job stays in conflict").await;
    assert!(browser.has("button[value=close-released]:disabled").await);
    let other = Browser::at(daemon.base()).await;
    other.sign_in(&people.tokens["bob"]).await;
    act(&other, &job(&conflict), "BitGo said so to me too", "Confirm: OES ended it as released")
        .await;
    other.wait_for_text("The job is closed as overruled.").await;
    other.open("/page/actions").await;
    let log = other.text().await;
    for said in
        ["ticket 4711", "BitGo said so to me too", "OES is well again", "the desk knows of it"]
    {
        assert!(log.contains(said), "{said} in {log}");
    }
    other.tab_to("Sign out").await;
    other.press(ENTER).await;
    other.wait_for_text("Your token").await;
    for browser in [browser, other] {
        assert_eq!(browser.console().await, Vec::<String>::new());
        browser.close().await;
    }
    daemon.stop().await;
    world.assert_promises().await;
}

#[tokio::test]
async fn everything_works_without_scripts() {
    let (world, daemon, people) = open().await;
    let record = parked(&world).await;
    let browser = Browser::at(daemon.base()).await;
    browser.without_scripts().await;
    browser.sign_in(&people.tokens["alice"]).await;
    browser.open("/page/jobs").await;
    browser.click("select[name=state] option[value=parked]").await;
    browser.follow("form.filters button").await;
    assert!(browser.path().await.contains("state=parked"), "{}", browser.path().await);
    browser.follow("tbody a").await;
    assert_eq!(browser.path().await, format!("/page/jobs/{}", record.id));
    browser.click("#timeline summary").await;
    assert!(browser.has("#timeline details[open]").await);
    world.oes().clear_faults();
    browser.type_into("#reason", "OES knows the currency now").await;
    browser.follow("button[value=retry]").await;
    assert!(browser.text_of(".said").await.contains("The job goes on as"));
    world.wait_for_state(&record, "confirmed").await;
    // Whoever may only look is shown no way to act.
    browser.follow(".who button").await;
    browser.sign_in(&people.tokens["eve"]).await;
    browser.open(&format!("/page/jobs/{}", record.id)).await;
    assert!(browser.text().await.contains("confirmed") && !browser.has("#reason").await);
    browser.open("/page/jobs?state=parked").await;
    assert!(!browser.has(".deeds").await);
    assert_eq!(browser.console().await, Vec::<String>::new());
    browser.close().await;
    daemon.stop().await;
}

#[tokio::test]
async fn what_is_shown_follows_by_itself_until_it_is_paused_or_the_session_ends() {
    let (world, daemon, people) = open().await;
    let browser = Browser::at(daemon.base()).await;
    browser.sign_in(&people.tokens["eve"]).await;
    browser.open("/page/jobs").await;
    browser.wait_for_text("No job matches.").await;
    let first = world.submit(JobType::Allocation, "5").await;
    browser.wait_for_text(&first.id.to_string()).await;
    // What somebody reads stays as it is.
    browser.click("#live button").await;
    assert!(browser.text().await.contains("Go on updating"));
    let second = world.submit(JobType::Allocation, "6").await;
    world.wait_for_state(&second, "confirmed").await;
    browser.click("#live button").await;
    browser.wait_for_text(&second.id.to_string()).await;
    std::fs::write(world.path("tokens"), "").unwrap();
    browser.wait_for_text("Your token").await;
    browser.close().await;
    daemon.stop().await;
}
