//! A broker of the tests' own, to be stopped, killed and starved.

use std::{
    path::{Path, PathBuf},
    process::{Child, Stdio},
};

use tokio::{
    process::Command,
    sync::{Mutex, MutexGuard},
};

/// The node; whoever holds the lock may do anything to it.
static NODE: Mutex<Option<Node>> = Mutex::const_new(None);

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/rabbitmq.sh");

/// Memory that a broker may use before it blocks publishers.
const PLENTY: &str = "2GB";

/// Has each quorum queue elect a leader that has none, and answers which had none; fails where that fails.
const LEAD_EVERY_QUEUE: &str = "
    [begin
         ra:trigger_election(Server),
         {ok, _, _} = ra:members(Server, 10000),
         amqqueue:get_name(Queue)
     end || Queue <- rabbit_amqqueue:list(),
            amqqueue:get_type(Queue) =:= rabbit_quorum_queue,
            Server <- [amqqueue:get_pid(Queue)],
            element(1, ra:members(Server, 2000)) =/= ok].";

pub(crate) struct Node {
    pub(crate) url: String,
    folder: PathBuf,
    /// It is down, or publishers are blocked: what a test that failed may leave behind.
    spoilt: bool,
    /// Stops the node when this process ends, however it ends: its input is then closed.
    _guardian: Child,
}

/// The node for one test at a time, started for the first of them and in order for each.
pub(crate) async fn private_node() -> PrivateNode {
    let mut node = NODE.lock().await;
    if let Some(node) = node.as_mut() {
        node.repair().await;
    } else {
        *node = Some(Node::start().await);
    }
    PrivateNode(node)
}

pub(crate) struct PrivateNode(MutexGuard<'static, Option<Node>>);

impl std::ops::Deref for PrivateNode {
    type Target = Node;

    fn deref(&self) -> &Node {
        self.0.as_ref().expect("it was started")
    }
}

impl std::ops::DerefMut for PrivateNode {
    fn deref_mut(&mut self) -> &mut Node {
        self.0.as_mut().expect("it was started")
    }
}

impl Node {
    async fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("settled-rabbitmq.").tempdir().unwrap().keep();
        // Before the node, so that there is no moment in which nobody would stop it.
        let guardian = guardian(&folder);
        let url = script("start", &folder, &[]).await;
        Self { url, folder, spoilt: false, _guardian: guardian }
    }

    /// Ends the node as an administrator would, and starts it again.
    pub(crate) async fn restart(&mut self) {
        self.spoilt = true;
        script("stop", &self.folder, &[]).await;
        self.resume().await;
    }

    /// Ends the node as a crash would, and starts it again.
    pub(crate) async fn crash(&mut self) {
        // RabbitMQ writes down where a new quorum queue lies half a second late, and a queue that was
        // declared just before a crash has no leader ever after. That is not what is tested here.
        self.ctl(&["-q", "eval", "dets:sync(ra_directory_reverse), dets:sync(ra_log_meta)."]).await;
        self.spoilt = true;
        script("kill", &self.folder, &[]).await;
        self.resume().await;
    }

    async fn resume(&mut self) {
        script("resume", &self.folder, &[]).await;
        // Should a queue have lost its leader all the same, then no daemon can announce to it, and the tests
        // would wait in vain.
        let queues = self.ctl(&["-q", "eval", LEAD_EVERY_QUEUE]).await;
        if queues != "[]" {
            eprintln!("RabbitMQ had lost the leaders of queues; they have others now: {queues}");
        }
        self.spoilt = false;
    }

    /// `rabbitmqctl` on the node.
    pub(crate) async fn ctl(&self, arguments: &[&str]) -> String {
        script("ctl", &self.folder, arguments).await
    }

    /// Makes the node short of memory, so that it blocks publishers, or gives it back.
    pub(crate) async fn starve(&mut self, starve: bool) {
        self.spoilt = true;
        let most = if starve { "1MB" } else { PLENTY };
        self.ctl(&["-q", "set_vm_memory_high_watermark", "absolute", most]).await;
        self.spoilt = starve;
    }

    async fn repair(&mut self) {
        if self.spoilt {
            // Whatever it was, a start brings the configuration back.
            self.restart().await;
        }
    }
}

fn guardian(folder: &Path) -> Child {
    use std::os::unix::process::CommandExt as _;
    let mut command = std::process::Command::new("bash");
    command
        .args(["-c", r#"cat >/dev/null; "$0" stop "$1"; rm -rf "$1""#, SCRIPT])
        .arg(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // An interrupt from the terminal is for the tests; the guardian ends after them.
        .process_group(0);
    command.spawn().unwrap()
}

async fn script(command: &str, folder: &Path, arguments: &[&str]) -> String {
    let mut script = Command::new(SCRIPT);
    let output = script.arg(command).arg(folder).args(arguments).output().await.unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "rabbitmq.sh {command} {arguments:?}: {error}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}
