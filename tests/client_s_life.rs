//! A whole life as a partner's test would play it, with nothing but the program's own commands: a
//! client orders, OES's stand-in reserves and puts the job on the queue, the worker decides, and the
//! client reads how it ended.

use std::net::TcpListener;

use serde_json::Value;
use tokio::process::Child;

use crate::support::{
    daemon::{binary, run, text},
    eventually,
    world::World,
};

const CONNECTION: &str = "0e5a0000-0000-4000-8000-000000000011";

/// The sandbox's process and what its clients need.
struct Play {
    world: World,
    folder: String,
    base_url: String,
    _sandbox: Child,
}

impl Play {
    /// `settled sandbox init` and `serve`, and the worker's configuration pointed at it.
    async fn new() -> Self {
        let mut world = World::new().await;
        let folder = world.path("sandbox").to_str().unwrap().to_owned();
        world.must_run(&["sandbox", "init", &folder]).await;
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let base_url = format!("http://127.0.0.1:{port}");
        world.set("oes.base_url", &base_url);
        world.set("oes.access_token_file", &format!("{folder}/partner.token"));
        world.set("signer.key_file", &format!("{folder}/partner.key"));
        world.must_run(&["book", "import", &format!("{folder}/book.jsonl")]).await;
        let sandbox = binary(&world.config_file())
            .args(["sandbox", "serve", "--listen", &format!("127.0.0.1:{port}")])
            .args(["--seed", &format!("{folder}/seed.json")])
            .args(["--partner-token-file", &format!("{folder}/partner.token")])
            .args(["--client-token-file", &format!("{folder}/client.token")])
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let play = Self { world, folder, base_url, _sandbox: sandbox };
        eventually("the sandbox to answer", || async { play.state().await }).await;
        play
    }

    /// What the sandbox has seen; nothing while it does not answer.
    async fn state(&self) -> Option<Value> {
        let arguments = ["sandbox", "state", "--base-url", &self.base_url];
        let (success, output, _) = self.world.run(&arguments).await;
        success.then(|| serde_json::from_str(&output).unwrap())
    }

    /// A client's command; answers what it printed first, and the rest.
    async fn client(&self, arguments: &[&str]) -> (Value, String) {
        let mut command = binary(&self.world.config_file());
        command
            .env("SETTLED_SANDBOX_BASE_URL", &self.base_url)
            .env("SETTLED_SANDBOX_ENTERPRISE_ID", "client-enterprise")
            .env("SETTLED_SANDBOX_TOKEN_FILE", format!("{}/client.token", self.folder))
            .env("SETTLED_SANDBOX_KEY_FILE", format!("{}/client.key", self.folder));
        let output = run(command, &[&["sandbox"], arguments].concat()).await;
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        let printed = text(&output.stdout);
        let mut values = serde_json::Deserializer::from_str(&printed).into_iter();
        let value = values.next().unwrap().unwrap();
        (value, printed[values.byte_offset()..].trim().to_owned())
    }

    async fn order(&self, what: &str, quantity: &str, more: &[&str]) -> (Value, String) {
        let order =
            [what, "--connection-id", CONNECTION, "--currency", "btc", "--quantity", quantity];
        self.client(&[&order[..], &["--wait"], more].concat()).await
    }
}

#[tokio::test]
async fn a_client_orders_and_reads_how_it_ended() {
    let play = Play::new().await;
    let worker = play.world.process().await;

    let (placed, end) = play.order("allocate", "150000", &["--client-external-id", "mine"]).await;
    assert_eq!((placed["status"].as_str(), end.as_str()), (Some("reserved"), "cleared"));
    let (read, _) = play.client(&["get", placed["id"].as_str().unwrap()]).await;
    assert_eq!((read["status"].as_str(), &read["reason"]), (Some("cleared"), &Value::Null));
    // The same order again is the same record, and no other job.
    let (again, _) = play.order("allocate", "150000", &["--client-external-id", "mine"]).await;
    assert_eq!((&again["id"], again["status"].as_str()), (&placed["id"], Some("cleared")));

    let (placed, end) = play.order("deallocate", "140000", &[]).await;
    assert_eq!((placed["status"].as_str(), end.as_str()), (Some("reserved"), "cleared"));

    // The exchange has traded everything away, which OES does not know.
    let (_, end) = {
        let traded = play.world.path("traded.jsonl");
        let event = serde_json::json!({
            "type": "balance.adjusted", "eventId": "traded", "connectionId": CONNECTION,
            "currency": "BTC", "delta": "-500000000",
        });
        std::fs::write(&traded, event.to_string()).unwrap();
        play.world.must_run(&["book", "import", traded.to_str().unwrap()]).await;
        play.order("deallocate", "20000", &[]).await
    };
    assert_eq!(end, "released: The available balance does not cover the quantity.");

    let state = play.state().await.unwrap();
    for (count, expected) in
        [("puts", 3), ("applied", 3), ("contradictions", 0), ("badSignatures", 0)]
    {
        assert_eq!(state["counts"][count], expected, "{count}: {state}");
    }
    play.world.must_run(&["book", "verify"]).await;
    worker.kill().await;
}
