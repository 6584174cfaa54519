//! What clients may ask for, and what they are told.

use super::*;

fn order(rig: &Rig, record_type: JobType, quantity: &str) -> ClientOrder {
    ClientOrder {
        record_type,
        connection_id: rig.connection,
        currency: "btc".to_owned(),
        quantity: quantity.to_owned(),
        client_external_id: Uuid::new_v4().to_string(),
        notes: Some("for \"trading\" 💱".to_owned()),
    }
}

fn refusal(result: Result<ClientAnswer, SandboxClientError>) -> (u16, String) {
    match result {
        Err(SandboxClientError::Refused { status, error, .. }) => (status, error),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_whole_life_is_seen_from_both_sides() {
    let rig = Rig::new().await;
    for (record_type, outcome) in
        [(JobType::Allocation, Outcome::Cleared), (JobType::Deallocation, Outcome::Released)]
    {
        let order = order(&rig, record_type, "150000");
        let placed = rig.client.order(&rig.client_key, &order).await.unwrap();
        assert_eq!(placed.record.status, "reserved");
        assert_eq!(placed.raw["retriable"], false);
        assert_eq!(placed.raw["notes"], "for \"trading\" 💱");
        let record = rig.record(placed.record.id);
        assert_eq!(rig.settle(&record, outcome).await.status, 200);
        let ended = rig.client.wait_until_final(record.id, LIMIT).await.unwrap();
        assert_eq!(ended.record.status, outcome.as_str());
        let reason = (outcome == Outcome::Released).then_some("No, \"thanks\".");
        assert_eq!(ended.record.reason.as_deref(), reason);
        assert_eq!(ended.record.partner_external_id, Some(record.partners_record_id));
        assert_eq!(ended.record.amount.currency, "btc");
    }
}

#[tokio::test]
async fn the_same_order_again_is_the_same_record_and_holds_nothing_twice() {
    let rig = Rig::new().await;
    let order = order(&rig, JobType::Allocation, "150000");
    let first = rig.client.order(&rig.client_key, &order).await.unwrap();
    let client_id = rig.record(first.record.id).client_id;
    let funds = rig.state.client_funds(client_id, &btc());
    let second = rig.client.order(&rig.client_key, &order).await.unwrap();
    assert_eq!(second, first);
    assert_eq!(rig.state.client_funds(client_id, &btc()), funds);
    assert_eq!(rig.state.records().len(), 1);
    for other in [
        ClientOrder { quantity: "150001".to_owned(), ..order.clone() },
        ClientOrder { record_type: JobType::Deallocation, ..order.clone() },
        ClientOrder { notes: None, ..order.clone() },
    ] {
        let (status, error) = refusal(rig.client.order(&rig.client_key, &other).await);
        assert_eq!(status, 400);
        assert!(error.contains("another order"), "{error}");
    }
    let record = rig.record(first.record.id);
    rig.settle(&record, Outcome::Released).await;
    let released = rig.client.order(&rig.client_key, &order).await.unwrap();
    assert_eq!(released.record.status, "released");
    assert_eq!(released.error.as_deref(), Some("No, \"thanks\"."));
}

#[tokio::test]
async fn an_order_that_was_taken_and_answered_with_500_can_be_placed_again() {
    let rig = Rig::new().await;
    let order = order(&rig, JobType::Allocation, "150000");
    rig.state
        .inject(Fault::new(On::Order, Effect::Answer { when: When::After, status: 500 }))
        .unwrap();
    let failed = rig.client.order(&rig.client_key, &order).await.unwrap();
    assert_eq!(
        (failed.record.status.as_str(), &failed.raw["retriable"]),
        ("reserved", &true.into())
    );
    let again = rig.client.order(&rig.client_key, &order).await.unwrap();
    assert_eq!((again.record.id, &again.raw["retriable"]), (failed.record.id, &false.into()));
    assert_eq!(rig.state.records().len(), 1);
}

#[tokio::test]
async fn an_order_that_cannot_be_is_released_at_once_and_moves_nothing() {
    let rig = Rig::new().await;
    let total = rig.state.total(&btc());
    for (record_type, quantity, word) in [
        (JobType::Allocation, "100000000001", "balance"),
        (JobType::Deallocation, "500000001", "allocated"),
    ] {
        let answer =
            rig.client.order(&rig.client_key, &order(&rig, record_type, quantity)).await.unwrap();
        assert_eq!(answer.record.status, "released");
        assert!(answer.record.reason.unwrap().contains(word));
        assert!(answer.error.is_some());
    }
    let connection = rig.state.connection(rig.connection).unwrap();
    let seed = |active, partners_client_id: Option<&str>| ConnectionSeed {
        id: connection.id,
        client_id: connection.client_id,
        name: "again".to_owned(),
        partners_client_id: partners_client_id.map(str::to_owned),
        partners_connection_id: connection.partners_connection_id.clone(),
        active,
        balances: [].into(),
    };
    for (seed, word) in
        [(seed(false, Some("client-001")), "active"), (seed(true, None), "initialized")]
    {
        rig.state.add_connection(seed).unwrap();
        let order = order(&rig, JobType::Allocation, "1");
        let answer = rig.client.order(&rig.client_key, &order).await.unwrap();
        assert_eq!(answer.record.status, "released");
        assert!(answer.record.reason.unwrap().contains(word));
    }
    assert_eq!(rig.state.total(&btc()), total);
    let held = rig.state.client_funds(connection.client_id, &btc()).unwrap().held;
    assert_eq!(held, Units::ZERO);
}

#[tokio::test]
async fn what_is_not_in_order_is_refused_as_documented() {
    let rig = Rig::new().await;
    let good = || order(&rig, JobType::Allocation, "1");
    let place = async |order: ClientOrder| refusal(rig.client.order(&rig.client_key, &order).await);
    for quantity in ["0", "-1", "1.0", "01", "", "1e3"] {
        let order = ClientOrder { quantity: quantity.to_owned(), ..good() };
        assert_eq!(place(order).await.0, 400, "{quantity}");
    }
    let currency = ClientOrder { currency: "BTC".to_owned(), ..good() };
    assert_eq!(place(currency).await.0, 400);
    let connection_id = Uuid::new_v4().into();
    assert_eq!(place(ClientOrder { connection_id, ..good() }).await.0, 404);
    let stranger = rig.client.order(&key('7'), &good()).await;
    assert_eq!(refusal(stranger).0, 400);
    for (enterprise, token, status) in [
        (CLIENT_ENTERPRISE, "nobody", 401),
        (CLIENT_ENTERPRISE, PARTNER_TOKEN, 403),
        ("elsewhere", CLIENT_TOKEN, 404),
    ] {
        let base_url = rig.sandbox.base_url();
        let client = SandboxClient::new(&base_url, enterprise, token, false).unwrap();
        let refused = refusal(client.order(&rig.client_key, &good()).await);
        assert_eq!(refused.0, status, "{enterprise} {token}");
    }
    assert!(rig.state.records().is_empty());
}

#[tokio::test]
async fn a_client_s_payload_names_its_connection_and_enterprise() {
    let rig = Rig::new().await;
    let amount = r#""amount":{"currency":"btc","quantity":"5"},"clientExternalId":"x","nonce":"n""#;
    let url = |connection: ConnectionId| {
        let base_url = rig.sandbox.base_url();
        format!(
            "{base_url}/api/network/v1/enterprises/{CLIENT_ENTERPRISE}/clients/connections/{connection}/allocations"
        )
    };
    let send = async |connection: ConnectionId, payload: String| {
        let signature = rig.client_key.sign(payload.as_bytes()).unwrap();
        let payload = serde_json::to_string(&payload).unwrap();
        let body = format!("{{{amount},\"payload\":{payload},\"signature\":\"{signature}\"}}");
        let told = rig.ask(Method::POST, url(connection), CLIENT_TOKEN, Some(body));
        let told = told.await;
        (told.status, told.name().to_owned())
    };
    let (here, other) = (rig.connection, Uuid::new_v4().into());
    let payload = |connection: ConnectionId, enterprise: &str| {
        format!("{{{amount},\"connectionId\":\"{connection}\",\"enterpriseId\":\"{enterprise}\"}}")
    };
    let bad = (400, "InvalidPayload".to_owned());
    assert_eq!(send(here, payload(other, CLIENT_ENTERPRISE)).await, bad);
    assert_eq!(send(here, payload(here, "elsewhere")).await, bad);
    assert_eq!(send(here, format!("{{{amount}}}")).await, bad);
    let good = send(here, payload(here, CLIENT_ENTERPRISE)).await;
    assert_eq!(good.0, 200);
    // The same request again, byte for byte, is the same order.
    let again = send(here, payload(here, CLIENT_ENTERPRISE)).await;
    assert_eq!(again.0, 200);
    assert_eq!(rig.state.records().len(), 1);
}

#[tokio::test]
async fn a_synchronous_partner_clears_at_once() {
    let rig = Rig::with(|config| config.rules.settlement = Settlement::Sync).await;
    let answer =
        rig.client.allocate(&rig.client_key, rig.connection, "btc", "150000").await.unwrap();
    assert_eq!(answer.record.status, "cleared");
    let funds = rig.state.connection_funds(rig.connection, &btc()).unwrap();
    assert_eq!(funds.available, Units::from(500_150_000));
}

#[tokio::test]
async fn a_client_sees_its_own_records_only() {
    let rig = Rig::new().await;
    let record = rig.allocation();
    let other_key = key('6');
    rig.state
        .add_client(ClientSeed {
            id: Uuid::new_v4().into(),
            enterprise_id: "another".to_owned(),
            public_keys: vec![other_key.public_key()],
            balances: [].into(),
        })
        .unwrap();
    let base_url = rig.sandbox.base_url();
    let other = SandboxClient::new(&base_url, "another", CLIENT_TOKEN, false).unwrap();
    assert_eq!(refusal(other.get(record.id).await).0, 404);
    assert!(rig.client.get(record.id).await.is_ok());
    let placed = other.allocate(&other_key, rig.connection, "btc", "1").await;
    assert_eq!(refusal(placed).0, 404);
}

#[tokio::test]
async fn waiting_for_the_end_survives_reads_that_go_wrong_and_ends_in_time() {
    let rig = Rig::new().await;
    let record = rig.allocation();
    let lost = Effect::Reset { when: When::After };
    let limited = Effect::RateLimited { retry_after: RetryAfter::Absent, retry_after_s: 1 };
    for effect in [lost, limited] {
        rig.state.inject(Fault::new(On::ClientRead, effect)).unwrap();
    }
    let (ended, told) = tokio::join!(
        rig.client.wait_until_final(record.id, LIMIT),
        rig.settle(&record, Outcome::Released)
    );
    assert_eq!((ended.unwrap().record.status, told.status), ("released".to_owned(), 200));
    let waiting = rig.allocation();
    let ended = rig.client.wait_until_final(waiting.id, Duration::from_millis(400)).await;
    assert!(
        matches!(ended, Err(SandboxClientError::NotFinal { status, .. }) if status == "reserved")
    );
}
