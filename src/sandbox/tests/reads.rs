//! What both sides can read, and how lists are filtered, sorted and cut.

use super::*;

fn ids(told: &Told) -> Vec<String> {
    let records = told.body["allocations"].as_array().unwrap().iter();
    records.map(|record| record["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn whoever_does_not_ask_for_a_page_size_gets_a_small_one() {
    let rig = Rig::with(|config| config.rules.page_size_default = 3).await;
    let records: Vec<String> = (0..8).map(|_| rig.allocation().id.to_string()).collect();
    let all = records.join(",");
    let list = async |query: &str| ids(&rig.get(&format!("/partners/allocations?{query}")).await);
    assert_eq!(list("").await.len(), 3);
    assert_eq!(list(&format!("allocationIds={all}")).await.len(), 3);
    assert_eq!(list(&format!("allocationIds={all}&pageSize=8")).await.len(), 8);
    let mut pages = list("pageNumber=0").await;
    pages.extend(list("pageNumber=1").await);
    pages.extend(list("pageNumber=2").await);
    assert!(list("pageNumber=3").await.is_empty());
    pages.sort_unstable();
    let mut expected = records;
    expected.sort_unstable();
    assert_eq!(pages, expected);
}

#[tokio::test]
async fn lists_have_what_their_filters_let_through() {
    let rig = Rig::new().await;
    let first = rig.allocation();
    let second = rig.reserve(JobType::Deallocation, "eth", "7");
    rig.settle(&first, Outcome::Cleared).await;
    let client = first.client_id;
    let elsewhere = Uuid::new_v4();
    let both = vec![first.id, second.id];
    for (query, expected) in [
        ("types=allocation".to_owned(), vec![first.id]),
        ("types=allocation,deallocation".to_owned(), both.clone()),
        ("statuses=reserved".to_owned(), vec![second.id]),
        ("statuses=cleared,released".to_owned(), vec![first.id]),
        ("currencies=BTC".to_owned(), vec![first.id]),
        ("currencies=btc".to_owned(), vec![]),
        (format!("connectionIds={}", rig.connection), both.clone()),
        (format!("connectionIds={elsewhere}"), vec![]),
        (format!("clientIds={client},{elsewhere}"), both.clone()),
        (format!("partnerIds={DEFAULT_PARTNER_ID}"), both.clone()),
        (format!("partnerIds={elsewhere}"), vec![]),
        (format!("allocationIds={},{elsewhere}", second.id), vec![second.id]),
        (format!("allocationIds={}&statuses=cleared", second.id), vec![]),
        ("sortField=quantity".to_owned(), vec![second.id, first.id]),
        ("sortField=quantity&sortDirection=DESC".to_owned(), both),
    ] {
        let mut found = ids(&rig.get(&format!("/partners/allocations?{query}")).await);
        let mut expected: Vec<String> = expected.iter().map(ToString::to_string).collect();
        if !query.starts_with("sort") {
            // Records of one millisecond are sorted by their random ids.
            found.sort_unstable();
            expected.sort_unstable();
        }
        assert_eq!(found, expected, "{query}");
    }
}

#[tokio::test]
async fn a_filter_that_is_not_in_order_is_refused() {
    let rig = Rig::new().await;
    for query in [
        "allocationIds=x",
        "allocationIds=",
        "types=all",
        "statuses=Reserved",
        "pageSize=0",
        "pageSize=-1",
        "pageNumber=x",
        "sortField=age",
        "sortDirection=asc",
        "allocationsIds=x",
        "types=allocation&types=deallocation",
    ] {
        let told = rig.get(&format!("/partners/allocations?{query}")).await;
        assert_eq!((told.status, told.name()), (400, "InvalidQuery"), "{query}");
    }
    let told = rig.get("/partners/allocations/x").await;
    assert_eq!(told.status, 400);
    let told = rig.get(&format!("/partners/allocations/{}", Uuid::nil())).await;
    assert_eq!(told.status, 404);
    let told = rig.get("/partners/nothing").await;
    assert_eq!((told.status, told.name()), (404, "NoSuchRoute"));
    let told = rig.ask(Method::POST, rig.partner_url("/partners/balances"), PARTNER_TOKEN, None);
    assert_eq!(told.await.status, 405);
}

#[tokio::test]
async fn connections_are_shown_as_they_are() {
    let rig = Rig::new().await;
    let connection = rig.state.connection(rig.connection).unwrap();
    let new = Uuid::new_v4().into();
    rig.state
        .add_connection(ConnectionSeed {
            id: new,
            client_id: connection.client_id,
            name: "not set up".to_owned(),
            partners_client_id: None,
            partners_connection_id: None,
            active: false,
            balances: [].into(),
        })
        .unwrap();
    let list = async |query: &str| {
        let told = rig.get(&format!("/partners/connections?{query}")).await;
        told.body["connections"].as_array().unwrap().clone()
    };
    assert_eq!(list("").await.len(), 3);
    let inactive = list("active=false").await;
    assert_eq!(inactive[0]["id"], new.to_string());
    assert_eq!(inactive[0]["initialized"], false);
    assert!(inactive[0]["partnersClientId"].is_null());
    assert_eq!(list("active=true").await.len(), 2);
    assert_eq!(list("partnersConnectionIds=conn-002").await.len(), 1);
    assert_eq!(list(&format!("connectionIds={new}")).await.len(), 1);
    assert_eq!(list("partnersClientIds=nobody").await.len(), 0);
    assert_eq!(list("pageSize=1&pageNumber=2").await.len(), 1);
    let one = rig.get(&format!("/partners/connections/{}", rig.connection)).await;
    assert_eq!(one.body["connection"]["partnersConnectionId"], "conn-001");
    assert_eq!(rig.get("/partners/connections?active=1").await.status, 400);
}

#[tokio::test]
async fn balances_show_what_is_held() {
    let rig = Rig::new().await;
    rig.allocation();
    rig.reserve(JobType::Deallocation, "btc", "70");
    let told = rig.get("/partners/balances").await;
    let connection = &told.body["networkBalances"][rig.connection.to_string()];
    assert_eq!(connection["partnersConnectionId"], "conn-001");
    let expected = serde_json::json!({ "available": "499999930", "held": "70" });
    assert_eq!(connection["balances"]["BTC"], expected);
    let told = rig.client.balances().await.unwrap();
    let expected = serde_json::json!({ "available": "99999850000", "held": "150000" });
    assert_eq!(told["balances"]["btc"], expected);
    let connection = &told["networkBalances"][rig.connection.to_string()];
    assert_eq!(connection["balances"]["btc"]["held"], "70");
}

#[tokio::test]
async fn the_partner_reads_decimals_if_the_rule_says_so() {
    let rig = Rig::with(|config| config.rules.read_amounts = ReadAmounts::Decimals).await;
    let record = rig.allocation();
    let told = rig.get(&format!("/partners/allocations/{}", record.id)).await;
    assert_eq!(told.body["allocation"]["amount"]["quantity"], "0.0015");
    let told = rig.get("/partners/balances").await;
    let balances = &told.body["networkBalances"][rig.connection.to_string()]["balances"];
    assert_eq!(balances["BTC"]["available"], "5");
    // Clients, and updates, always have base units.
    let seen = rig.client.get(record.id).await.unwrap();
    assert_eq!(seen.record.amount.quantity, "150000");
    assert_eq!(rig.settle(&record, Outcome::Cleared).await.status, 200);
}

#[tokio::test]
async fn currencies_are_shown_with_the_partner_s_names() {
    let rig = Rig::new().await;
    let path = format!("/supportedCurrencies?partnerIds={DEFAULT_PARTNER_ID}");
    let told = rig.get(&path).await;
    assert_eq!(told.body["domain"], "bitgo-network");
    let currencies = &told.body["supportedCurrencies"][DEFAULT_PARTNER_ID.to_string()];
    assert_eq!(currencies.as_array().unwrap().len(), 3);
    assert_eq!(currencies[0]["partnerNames"][0], "BTC");
    assert_eq!(rig.get("/supportedCurrencies").await.status, 400);
}

#[tokio::test]
async fn a_reserved_record_shows_the_partner_s_id_of_it_if_told_so() {
    let rig = Rig::new().await;
    let record = rig.allocation();
    let path = format!("/partners/allocations/{}", record.id);
    assert!(rig.get(&path).await.body["allocation"].get("partnerExternalId").is_none());
    let rules = Rules { reserved_partner_id: ReservedPartnerId::Shown, ..rig.state.rules() };
    rig.state.set_rules(rules);
    let shown = rig.get(&path).await.body["allocation"]["partnerExternalId"].clone();
    assert_eq!(shown, record.partners_record_id);
}
