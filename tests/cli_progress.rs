//! How far long work has come: on a terminal a bar that goes away again, elsewhere plain lines now and then,
//! and never anything between the answers.

use std::{
    fs::File,
    io::Read as _,
    process::Stdio,
    time::{Duration, Instant},
};

use rustix::{
    fs::{Mode, OFlags},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Winsize, tcsetwinsize},
};
use settled::{
    domain::job::JobType,
    sandbox::{Effect, Fault, On, ReservedPartnerId, Times, When},
};

use crate::support::{
    daemon::{binary, text},
    eventually,
    world::{AVAILABLE, World},
};

/// How a terminal is told to empty the line.
const ERASE_LINE: &str = "\u{1b}[2K";

/// Time between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// A command's answer, and what it wrote on the terminal that its standard error is.
struct OnTerminal {
    answer: String,
    seen: String,
}

async fn on_terminal(world: &World, arguments: &[&str]) -> OnTerminal {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&ours).unwrap();
    unlockpt(&ours).unwrap();
    let name = ptsname(&ours, Vec::new()).unwrap();
    let theirs = rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
    let size = Winsize { ws_row: 24, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&theirs, size).unwrap();
    let mut command = binary(&world.config_file());
    command.args(arguments).env("TERM", "xterm").stderr(Stdio::from(theirs));
    let child = command.spawn().unwrap();
    // The command has the only other end now, so that reading ends with it.
    drop(command);
    let seen = tokio::task::spawn_blocking(move || {
        let (mut seen, mut part) = (Vec::new(), [0; 4096]);
        let mut terminal = File::from(ours);
        // The end of a terminal is an error, not an empty read.
        while let Ok(length @ 1..) = terminal.read(&mut part) {
            seen.extend_from_slice(&part[..length]);
        }
        seen
    });
    let output = child.wait_with_output().await.unwrap();
    let seen = text(&seen.await.unwrap());
    assert!(output.status.success(), "{seen}");
    OnTerminal { answer: text(&output.stdout), seen }
}

impl OnTerminal {
    /// There was a bar, its total was known, nothing of it is left, and the answer is without it.
    fn assert_bar(&self, what: &str, of: &str) {
        let Self { answer, seen } = self;
        assert!(seen.contains(what), "no picture: {seen:?}");
        assert!(seen.contains(&format!(" of {of}, ")), "no total: {seen:?}");
        assert!(seen.contains(['█', '░']), "no bar: {seen:?}");
        let left = seen.rsplit(ERASE_LINE).next().unwrap();
        assert_eq!(left.trim(), "", "something is left: {seen:?}");
        assert!(!answer.contains('\u{1b}') && !answer.contains(what), "{answer:?}");
    }
}

/// Three jobs that are over, a daemon that has ended, and an archive that was not begun.
async fn three_jobs() -> World {
    let mut world = World::new().await;
    world.set_funds(world.connection_id, "BTC", AVAILABLE);
    let mut rules = world.oes().rules();
    rules.reserved_partner_id = ReservedPartnerId::Shown;
    world.oes().set_rules(rules);
    let daemon = world.daemon().await;
    for quantity in ["1", "2", "3"] {
        world.submit(JobType::Allocation, quantity).await;
    }
    world.wait_for_final(3).await;
    let readers = world.readers().await;
    eventually("everything to be announced", || async {
        (readers.unpublished_count().await.unwrap() == 0).then_some(())
    })
    .await;
    readers.close().await;
    daemon.stop().await;
    let archive = world.path("archive.db").to_str().unwrap().to_owned();
    world.set("archive.path", &archive);
    world.set("archive.after_days", "0");
    world
}

fn slow_lists(world: &World, delay_ms: u64) {
    let slow = Effect::Delay { when: When::Before, delay_ms };
    world.inject(Fault::new(On::List, slow).times(Times::Always));
}

#[tokio::test]
async fn on_a_terminal_long_work_shows_a_bar_and_takes_it_away() {
    let world = three_jobs().await;
    let readers = world.readers().await;
    let rows = readers.rows_to_verify().await.unwrap();
    readers.close().await;
    let verified = on_terminal(&world, &["verify"]).await;
    verified.assert_bar("verifying the book", &rows.to_string());
    assert!(verified.answer.contains("holds"), "{}", verified.answer);

    slow_lists(&world, 300);
    let reconciled = on_terminal(&world, &["reconcile"]).await;
    reconciled.assert_bar("comparing with OES", "3");
    assert!(reconciled.answer.contains("0 differences"), "{}", reconciled.answer);

    let archived = on_terminal(&world, &["archive"]).await;
    archived.assert_bar("archiving old history", "3");
    assert!(archived.answer.contains("the history of 3 jobs"), "{}", archived.answer);
}

#[tokio::test]
async fn elsewhere_long_work_says_a_plain_line_now_and_then_and_short_work_nothing() {
    let mut world = three_jobs().await;
    // Two lists: of the jobs' records, and of those that are reserved.
    slow_lists(&world, 6_000);
    world.set("oes.request_timeout_ms", "20000");
    let begun = Instant::now();
    let (code, answer, said) = world.run_code(&["reconcile"]).await;
    let lines_max = begun.elapsed().as_secs() / LINE_EVERY.as_secs();
    assert_eq!(code, Some(0), "{said}");
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[..2], ["comparing with OES: 0 of 3", "comparing with OES: 3 of 3"], "{said}");
    assert!(u64::try_from(lines.len()).unwrap() <= lines_max, "{said}");
    assert!(!said.replace('\n', "").contains(char::is_control), "{said:?}");
    assert!(answer.contains("0 differences") && !answer.contains('\u{1b}'), "{answer:?}");

    for arguments in [["verify"], ["archive"]] {
        let (code, answer, said) = world.run_code(&arguments).await;
        assert_eq!((code, said.as_str()), (Some(0), ""), "{answer}");
        assert!(!answer.contains('\u{1b}'), "{answer:?}");
    }
}
