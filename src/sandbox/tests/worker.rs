//! The worker's own code against the sandbox: here, and only here, the two meet.

use std::{os::unix::fs::PermissionsExt as _, path::Path};

use super::*;
use crate::{
    config::{AuthStyle, OesConfig},
    domain::{
        decision::{Decision, RejectCode},
        message::parse_job,
        payload::{Nonce, Update},
        record::{Reading, RecordStatus},
        reply::{Verdict, classify},
    },
    oes::OesClient,
};

fn oes(rig: &Rig, folder: &Path, auth: AuthStyle) -> OesClient {
    let token = folder.join("token");
    std::fs::write(&token, PARTNER_TOKEN).unwrap();
    std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o600)).unwrap();
    let config = OesConfig {
        base_url: Some(rig.sandbox.base_url()),
        enterprise_id: Some(PARTNER_ENTERPRISE.to_owned()),
        access_token_file: Some(token),
        auth,
        ..OesConfig::default()
    };
    OesClient::new(&config, Arc::new(SystemClock)).unwrap()
}

#[tokio::test]
async fn a_job_message_becomes_an_update_that_is_accepted_with_either_way_of_proving_oneself() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::new().await;
    rig.state
        .add_connection(ConnectionSeed {
            id: rig.connection,
            client_id: rig.state.connection(rig.connection).unwrap().client_id,
            name: "unicode".to_owned(),
            partners_client_id: Some("客户 \"1\" \\ \u{2028}\u{1f511}\t/".to_owned()),
            partners_connection_id: Some("é\u{7f}".to_owned()),
            active: true,
            balances: [(
                "eth".parse().unwrap(),
                "115792089237316195423570985008687907853269984665640564039457584007913129639935"
                    .parse()
                    .unwrap(),
            )]
            .into(),
        })
        .unwrap();
    for auth in [AuthStyle::Bearer, AuthStyle::Hmac] {
        let oes = oes(&rig, folder.path(), auth);
        oes.probe().await.unwrap();
        for (record_type, decision, status) in [
            (
                JobType::Allocation,
                Decision::released(RejectCode::ConnectionUnknown),
                RecordStatus::Released,
            ),
            (JobType::Deallocation, Decision::Cleared, RecordStatus::Cleared),
        ] {
            let quantity = match record_type {
                JobType::Allocation => "18446744073709551616",
                JobType::Deallocation => "340282366920938463463374607431768211456",
            };
            let record = rig.reserve(record_type, "eth", quantity);
            let message = rig.state.job_message(record.id).unwrap();
            let terms = parse_job(message.as_bytes()).unwrap();
            let nonce =
                Nonce::new(crate::domain::time::TimestampMs::from_millis(0), rand::random());
            let update = Update::new(&terms, &decision, &nonce).unwrap();
            let signature = rig.partner.sign(update.payload().as_bytes()).unwrap();
            let body = update.into_body(&signature).unwrap();
            let answer = oes.put_update(record_type, body).await.unwrap();
            let text = String::from_utf8_lossy(answer.body.as_deref().unwrap_or_default());
            assert_eq!(answer.status, 200, "{text}");
            assert!(answer.request_id.is_some());
            let verdict = classify(&terms, answer.status, answer.body.as_deref());
            assert_eq!(verdict, Verdict::Accepted);
            let reading = oes.read_record(record.id).await.unwrap();
            assert!(matches!(reading, Reading::Found(found) if found.status == status));
            let many = oes.read_records(&[record.id]).await.unwrap();
            assert_eq!(many.len(), 1);
        }
    }
    assert_eq!(rig.state.contradictions(), []);
    assert_eq!(rig.state.repeated_nonces(), []);
    assert_eq!(rig.state.counts().bad_signatures, 0);
}

#[tokio::test]
async fn a_job_message_is_written_as_the_worker_s_queue_expects_it() {
    let rig = Rig::new().await;
    let record = rig
        .state
        .reserve(Reservation {
            record_type: JobType::Deallocation,
            connection_id: rig.connection,
            currency: "usdc".parse().unwrap(),
            quantity: 12.into(),
            partners_record_id: Some("mine \"1\"".to_owned()),
        })
        .unwrap();
    let expected = format!(
        concat!(
            r#"{{"type":"deallocation","deallocationId":"{id}","#,
            r#""amount":{{"currency":"USDC","quantity":"12"}},"clientId":"{client}","#,
            r#""connectionId":"{connection}","partnersClientId":"client-001","#,
            r#""partnersConnectionId":"conn-001","partnersDeallocationId":"mine \"1\""}}"#
        ),
        id = record.id,
        client = record.client_id,
        connection = rig.connection,
    );
    assert_eq!(rig.state.job_message(record.id).unwrap(), expected);
}

#[test]
fn the_sandbox_shares_no_code_about_payloads_with_the_worker() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/sandbox");
    let mut read = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            let text = std::fs::read_to_string(&path).unwrap();
            for foreign in ["payload::", "pipeline::", "store::", "writer::", "policy::"] {
                assert!(!text.contains(foreign), "{}: {foreign}", path.display());
            }
            read += 1;
        }
    }
    assert!(read > 20);
}
