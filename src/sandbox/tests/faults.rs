//! What goes wrong on request, seen from the other end of the connection.

use std::io;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

fn is_reset(error: &reqwest::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        let io = error.downcast_ref::<io::Error>();
        if io.is_some_and(|error| error.kind() == io::ErrorKind::ConnectionReset) {
            return true;
        }
        cause = error.source();
    }
    false
}

fn body_of(rig: &Rig, record: &Record) -> String {
    rig.draft(record, Outcome::Cleared).body(&rig.partner)
}

#[tokio::test]
async fn a_reset_is_a_real_one_and_happens_before_or_after_the_update_is_applied() {
    let rig = Rig::new().await;
    for (when, standing) in
        [(When::Before, Standing::Reserved), (When::After, Standing::Final(Outcome::Cleared))]
    {
        let record = rig.allocation();
        rig.state
            .inject(Fault::new(On::Update, Effect::Reset { when }).of_record(record.id))
            .unwrap();
        let body = body_of(&rig, &record);
        let error = rig.try_put(JobType::Allocation, body).await.unwrap_err();
        assert!(is_reset(&error), "{error:?}");
        assert_eq!(rig.record(record.id).standing, standing);
        let puts = rig.state.puts_of(record.id);
        assert_eq!((puts.len(), puts[0].answered), (1, None));
        assert_eq!(puts[0].applied, when == When::After);
        assert_eq!(puts[0].fault, Some("reset"));
    }
}

#[tokio::test]
async fn an_error_is_answered_before_or_after_the_update_is_applied() {
    let rig = Rig::new().await;
    for (when, status, standing) in [
        (When::Before, 500, Standing::Reserved),
        (When::After, 503, Standing::Final(Outcome::Cleared)),
        (When::Before, 401, Standing::Reserved),
        (When::Before, 403, Standing::Reserved),
        (When::Before, 404, Standing::Reserved),
        (When::Before, 409, Standing::Reserved),
        (When::Before, 422, Standing::Reserved),
        (When::Before, 400, Standing::Reserved),
    ] {
        let record = rig.allocation();
        rig.state.inject(Fault::new(On::Update, Effect::Answer { when, status })).unwrap();
        let told = rig.settle(&record, Outcome::Cleared).await;
        assert_eq!(told.status, status);
        assert!(told.body["error"].is_string());
        assert_eq!(rig.record(record.id).standing, standing);
        assert_eq!(rig.state.puts_of(record.id)[0].answered, Some(status));
    }
    assert!(rig.state.faults().is_empty());
}

#[tokio::test]
async fn a_web_page_a_redirect_and_a_rate_limit_are_answered_instead() {
    let rig = Rig::new().await;
    let record = rig.allocation();
    let limited = |retry_after| Effect::RateLimited { retry_after, retry_after_s: 7 };
    for effect in [
        Effect::Html { when: When::Before, status: 502 },
        Effect::Redirect { location: "https://example.com/".to_owned() },
        limited(RetryAfter::Absent),
        limited(RetryAfter::Seconds),
        limited(RetryAfter::HttpDate),
    ] {
        rig.state.inject(Fault::new(On::Update, effect)).unwrap();
    }
    let mut answers = Vec::new();
    for _ in 0..5 {
        let body = body_of(&rig, &record);
        answers.push(rig.try_put(JobType::Allocation, body).await.unwrap());
    }
    let header = |index: usize, name: &str| {
        let value = answers[index].headers().get(name);
        value.map(|value| value.to_str().unwrap().to_owned())
    };
    assert_eq!(answers[0].status(), 502);
    assert_eq!(header(0, "content-type").unwrap(), "text/html");
    assert_eq!(answers[1].status(), 302);
    assert_eq!(header(1, "location").unwrap(), "https://example.com/");
    for (index, expected) in [(2, None), (3, Some("7"))] {
        assert_eq!(answers[index].status(), 429);
        assert_eq!(header(index, "retry-after").as_deref(), expected);
    }
    assert!(httpdate::parse_http_date(&header(4, "retry-after").unwrap()).is_ok());
    assert_eq!(rig.record(record.id), record);
    assert_eq!(rig.settle(&record, Outcome::Cleared).await.status, 200);
}

#[tokio::test]
async fn a_truncated_answer_breaks_off_after_the_update_was_applied() {
    let rig = Rig::new().await;
    let record = rig.allocation();
    rig.state.inject(Fault::new(On::Update, Effect::Truncate)).unwrap();
    let body = body_of(&rig, &record);
    let mut answer = rig.try_put(JobType::Allocation, body).await.unwrap();
    assert_eq!(answer.status(), 200);
    let promised = answer.content_length().unwrap();
    let first = answer.chunk().await.unwrap().unwrap();
    assert_eq!(u64::try_from(first.len()).unwrap(), promised / 2);
    assert!(answer.chunk().await.is_err());
    assert_eq!(rig.record(record.id).standing, Standing::Final(Outcome::Cleared));
}

#[tokio::test]
async fn an_oversize_answer_is_the_right_one_with_white_space() {
    let rig = Rig::new().await;
    let record = rig.allocation();
    rig.state.inject(Fault::new(On::Update, Effect::Oversize { bytes: 3_000_000 })).unwrap();
    let told = rig.settle(&record, Outcome::Cleared).await;
    assert_eq!(told.header("content-length"), Some("3000000"));
    assert_eq!(told.body["allocationId"], record.id.to_string());
}

#[tokio::test]
async fn a_wrong_echo_and_other_decisions_come_with_a_200() {
    let rig = Rig::new().await;
    let reject = |record| Effect::PolicyRejects { record };
    for (effect, pointer, value, standing) in [
        (
            Effect::WrongEcho { quantity: 7.into() },
            "/amount/quantity",
            "7",
            Standing::Final(Outcome::Cleared),
        ),
        (
            reject(AfterRejection::OtherOutcome),
            "/policyResult",
            "rejected",
            Standing::Final(Outcome::Released),
        ),
        (reject(AfterRejection::StaysReserved), "/policyResult", "rejected", Standing::Reserved),
        (
            Effect::DecideOtherwise { status: 200 },
            "/amount/quantity",
            "150000",
            Standing::Final(Outcome::Released),
        ),
    ] {
        let record = rig.allocation();
        rig.state.inject(Fault::new(On::Update, effect)).unwrap();
        let told = rig.settle(&record, Outcome::Cleared).await;
        assert_eq!(told.status, 200);
        assert_eq!(told.body.pointer(pointer).unwrap(), value);
        assert_eq!(rig.record(record.id).standing, standing);
    }
    let record = rig.allocation();
    let otherwise = Effect::DecideOtherwise { status: 409 };
    rig.state.inject(Fault::new(On::Update, otherwise)).unwrap();
    assert_eq!(rig.settle(&record, Outcome::Cleared).await.status, 409);
    let standing = rig.record(record.id).standing;
    assert_eq!(standing, Standing::Final(Outcome::Released));
    // OES changed its mind here, not the partner.
    assert_eq!(rig.state.contradictions(), []);
}

#[tokio::test]
async fn a_delayed_update_is_applied_though_its_sender_has_gone() {
    let rig = Rig::new().await;
    let record = rig.allocation();
    rig.state
        .inject(Fault::new(On::Update, Effect::Delay { when: When::Before, delay_ms: 1_500 }))
        .unwrap();
    let body = body_of(&rig, &record);
    let mut stream = tokio::net::TcpStream::connect(rig.sandbox.address()).await.unwrap();
    let head = format!(
        "PUT /api/network/v1/enterprises/{PARTNER_ENTERPRISE}/partners/allocations HTTP/1.1\r\n\
         host: x\r\nauthorization: Bearer {PARTNER_TOKEN}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let arrived = rig.state.wait_for(LIMIT, |state| state.counts().puts == 1);
    assert!(arrived.await);
    drop(stream);
    assert_eq!(rig.record(record.id).standing, Standing::Reserved);
    let cleared = Standing::Final(Outcome::Cleared);
    let applied =
        rig.state.wait_for(LIMIT, |state| state.record(record.id).unwrap().standing == cleared);
    assert!(applied.await);
}

#[tokio::test]
async fn a_delayed_answer_comes_after_the_update_was_applied() {
    let rig = Rig::new().await;
    let record = rig.allocation();
    let delay = Effect::Delay { when: When::After, delay_ms: 1_000 };
    rig.state.inject(Fault::new(On::Update, delay)).unwrap();
    let put = rig.settle(&record, Outcome::Cleared);
    let applied = rig
        .state
        .wait_for(LIMIT, |state| state.record(record.id).unwrap().standing.outcome().is_some());
    let (told, was_applied) = tokio::join!(put, async {
        let applied = applied.await;
        (applied, rig.state.puts_of(record.id)[0].answered)
    });
    assert_eq!(told.status, 200);
    assert_eq!(was_applied, (true, None));
}

#[tokio::test]
async fn reads_and_orders_have_faults_of_their_own() {
    let rig = Rig::new().await;
    let record = rig.allocation();
    let answer = |status| Effect::Answer { when: When::Before, status };
    rig.state.inject(Fault::new(On::Read, answer(404)).of_record(record.id)).unwrap();
    let listed = Fault::new(On::List, answer(500)).of_record(record.id);
    rig.state.inject(listed).unwrap();
    let one = format!("/partners/allocations/{}", record.id);
    let some = format!("/partners/allocations?allocationIds={}", record.id);
    assert_eq!(rig.get("/partners/allocations").await.status, 200);
    assert_eq!(rig.get(&some).await.status, 500);
    assert_eq!(rig.get(&some).await.status, 200);
    assert_eq!(rig.get(&one).await.status, 404);
    assert_eq!(rig.get(&one).await.status, 200);

    let lost = Effect::Reset { when: When::After };
    rig.state.inject(Fault::new(On::Order, lost)).unwrap();
    let order = ClientOrder {
        record_type: JobType::Allocation,
        connection_id: rig.connection,
        currency: "btc".to_owned(),
        quantity: "5".to_owned(),
        client_external_id: "lost reply".to_owned(),
        notes: None,
    };
    assert!(rig.client.order(&rig.client_key, &order).await.is_err());
    // The record was made, and the same order again answers it.
    let made = rig.state.records().last().unwrap().id;
    let again = rig.client.order(&rig.client_key, &order).await.unwrap();
    assert_eq!(again.record.id, made);
}

#[tokio::test]
async fn a_refused_token_is_refused_for_everything_that_the_partner_asks() {
    let rig = Rig::new().await;
    let record = rig.allocation();
    let refused = Effect::Answer { when: When::Before, status: 401 };
    rig.state.inject(Fault::of_partner(refused).times(Times::Next(3))).unwrap();
    assert_eq!(rig.settle(&record, Outcome::Cleared).await.status, 401);
    assert_eq!(rig.get("/partners/balances").await.status, 401);
    assert!(rig.client.get(record.id).await.is_ok());
    assert_eq!(rig.get("/partners/allocations").await.status, 401);
    assert_eq!(rig.settle(&record, Outcome::Cleared).await.status, 200);
}

#[tokio::test]
async fn a_connection_without_a_fault_is_kept_for_the_next_request() {
    let rig = Rig::new().await;
    let mut stream = tokio::net::TcpStream::connect(rig.sandbox.address()).await.unwrap();
    for _ in 0..2 {
        let request = b"GET /_sandbox/rules HTTP/1.1\r\nhost: x\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut buffer = [0; 4_096];
        let read = stream.read(&mut buffer).await.unwrap();
        let text = String::from_utf8_lossy(&buffer[..read]).into_owned();
        assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    }
}
