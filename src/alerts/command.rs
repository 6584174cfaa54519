//! Notices to a program on this machine: started anew for each, without a shell, with the notice on its
//! standard input and nothing of ours in its environment.

use std::{os::unix::fs::PermissionsExt as _, process::Stdio, time::Duration};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    process::{Child, Command},
};

use super::channels::{ChannelError, Undelivered};

/// What a program finds in its environment.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Most of what a program says of its failure that is kept, in bytes.
const COMPLAINT_BYTES_MAX: usize = 200;

/// Whether there is a program that may be run.
pub(super) fn check(program: &str) -> Result<(), ChannelError> {
    let bad = |reason: String| ChannelError::BadProgram { program: program.to_owned(), reason };
    let metadata = std::fs::metadata(program).map_err(|error| bad(error.to_string()))?;
    if !metadata.is_file() || metadata.permissions().mode() & 0o111 == 0 {
        return Err(bad("it is no executable file".to_owned()));
    }
    Ok(())
}

/// Runs a program once. It has taken the notice if it exits with 0 in time; a program that does not is
/// killed, with everything that it has started.
pub(super) async fn run(argv: &[String], body: &str, limit: Duration) -> Result<(), Undelivered> {
    let Some((program, arguments)) = argv.split_first() else {
        return Err(Undelivered("alerts.command is empty".to_owned()));
    };
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .env("PATH", PATH)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        // A group of its own, so that what it starts can be ended with it.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| Undelivered(format!("{program} cannot be started: {error}")))?;
    let group = Group::of(&child);
    match tokio::time::timeout(limit, talk(&mut child, body)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(complaint)) => Err(Undelivered(format!("{program} {complaint}"))),
        Err(_) => {
            drop(group);
            // Reaped, so that no zombie is left; it has been killed and cannot take long.
            let _status = child.wait().await;
            Err(Undelivered(format!("{program} did not end within {limit:?} and was killed")))
        }
    }
}

/// Everything that a program has started; killed when this is dropped.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        Self(id.and_then(Pid::from_raw))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // What has ended already needs no killing.
            let _gone = kill_process_group(group, Signal::KILL);
        }
    }
}

async fn talk(child: &mut Child, body: &str) -> Result<(), String> {
    let (stdin, stderr) = (child.stdin.take(), child.stderr.take());
    let writing = async {
        if let Some(mut stdin) = stdin {
            // A program that does not want to read it all may still succeed.
            let _unread = stdin.write_all(body.as_bytes()).await;
        }
    };
    let complaining = async {
        match stderr {
            Some(stderr) => start_of(stderr).await,
            None => String::new(),
        }
    };
    let ((), complaint, status) = tokio::join!(writing, complaining, child.wait());
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("ended with {status}: {complaint}")),
        Err(error) => Err(format!("cannot be waited for: {error}")),
    }
}

/// The start of what a program says; the rest is read too, so that it is not held up.
async fn start_of(mut pipe: impl AsyncRead + Unpin) -> String {
    let (mut kept, mut buffer) = (Vec::new(), [0; 1_024]);
    while let Ok(read @ 1..) = pipe.read(&mut buffer).await {
        let room = COMPLAINT_BYTES_MAX.saturating_sub(kept.len()).min(read);
        kept.extend_from_slice(buffer.get(..room).unwrap_or_default());
    }
    String::from_utf8_lossy(&kept).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    fn shell(script: &str) -> Vec<String> {
        ["/bin/sh", "-c", script].map(str::to_owned).to_vec()
    }

    #[tokio::test]
    async fn a_program_gets_the_notice_and_nothing_of_our_environment() {
        let folder = tempfile::tempdir().unwrap();
        let heard = folder.path().join("heard");
        let script = format!("cat > {0}; env >> {0}", heard.display());
        run(&shell(&script), "{\"alert\":\"x\"}", LIMIT).await.unwrap();
        let heard = std::fs::read_to_string(heard).unwrap();
        assert!(heard.starts_with("{\"alert\":\"x\"}"), "{heard}");
        assert!(!heard.contains("CARGO") && !heard.contains("HOME="), "{heard}");
    }

    #[tokio::test]
    async fn a_program_that_fails_is_told_with_its_own_words_and_may_say_much() {
        let script = "yes complaint | head -c 1000000 >&2; exit 3";
        let error = run(&shell(script), "{}", LIMIT).await.unwrap_err().to_string();
        assert!(error.contains("exit status: 3") && error.contains("complaint"), "{error}");
        assert!(error.len() < 400, "{error}");
        let error = run(&["/no/such/program".to_owned()], "{}", LIMIT).await.unwrap_err();
        assert!(error.to_string().contains("cannot be started"));
        let unread = "x".repeat(1_000_000);
        run(&shell("exec true"), &unread, LIMIT).await.unwrap();
    }

    #[tokio::test]
    async fn a_program_that_hangs_is_ended_with_all_that_it_has_started() {
        let folder = tempfile::tempdir().unwrap();
        let id_file = folder.path().join("id");
        let script = format!("sleep 600 & echo $! > {}; wait", id_file.display());
        let begun = Instant::now();
        let error = run(&shell(&script), "{}", Duration::from_millis(700)).await.unwrap_err();
        assert!(error.to_string().contains("was killed"), "{error}");
        assert!(begun.elapsed() < LIMIT);
        let id: i32 = std::fs::read_to_string(id_file).unwrap().trim().parse().unwrap();
        let ended = || {
            let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
            // Nobody may be there to reap an orphan in a container; a zombie has ended.
            stat.is_empty() || stat.contains(") Z ")
        };
        while !ended() {
            assert!(begun.elapsed() < LIMIT, "process {id} goes on");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[test]
    fn only_a_program_can_be_configured() {
        assert!(check("/bin/sh").is_ok());
        for bad in ["/", "/etc/passwd", "/no/such/program"] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
