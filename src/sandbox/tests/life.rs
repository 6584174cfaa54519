//! Repetitions, nonces, contradictions and approvals: the life of a record.

use super::*;

#[tokio::test]
async fn a_nonce_is_never_accepted_twice_and_the_rule_says_how_it_is_refused() {
    for (refusal, status) in [(NonceRefusal::Conflict, 409), (NonceRefusal::BadRequest, 400)] {
        let rig = Rig::with(|config| config.rules.nonce_refusal = refusal).await;
        let (first, second) = (rig.allocation(), rig.allocation());
        let draft = rig.draft(&first, Outcome::Cleared);
        let nonce = &draft.members.last().unwrap().1;
        let again = rig.draft(&second, Outcome::Cleared).with("nonce", nonce);
        let told = rig.put(JobType::Allocation, draft.body(&rig.partner)).await;
        assert_eq!(told.status, 200);
        let told = rig.put(JobType::Allocation, again.body(&rig.partner)).await;
        assert_eq!((told.status, told.name()), (status, "NonceUsed"));
        assert_eq!(rig.record(second.id).standing, Standing::Reserved);
        let repeated = rig.state.repeated_nonces();
        assert_eq!((repeated.len(), repeated[0].first, repeated[0].put), (1, 0, 1));
    }
}

#[tokio::test]
async fn a_nonce_of_a_refused_update_is_used_up_too() {
    let rig = Rig::new().await;
    let record = rig.allocation();
    let draft = rig.draft(&record, Outcome::Cleared);
    let wrong = draft.clone().with("partnersClientId", "\"other\"");
    let told = rig.put(JobType::Allocation, wrong.body(&rig.partner)).await;
    assert_eq!(told.status, 422);
    let told = rig.put(JobType::Allocation, draft.body(&rig.partner)).await;
    assert_eq!((told.status, told.name()), (409, "NonceUsed"));
}

#[tokio::test]
async fn an_identical_repetition_is_refused_or_answered_alike_as_the_rule_says() {
    let rig = Rig::new().await;
    let record = rig.allocation();
    let body = rig.draft(&record, Outcome::Cleared).body(&rig.partner);
    let first = rig.put(JobType::Allocation, body.clone()).await;
    let second = rig.put(JobType::Allocation, body.clone()).await;
    assert_eq!((second.status, second.name()), (409, "NonceUsed"));
    rig.state.set_rules(Rules { identical_repeat: Stance::Accept, ..rig.state.rules() });
    let third = rig.put(JobType::Allocation, body).await;
    assert_eq!((third.status, &third.body), (200, &first.body));
    // It was accepted, and is a repeated nonce all the same; nothing happened twice.
    assert_eq!(rig.state.repeated_nonces().len(), 2);
    assert_eq!(rig.state.counts().applied, 1);
    assert_eq!(rig.state.contradictions(), []);
}

#[tokio::test]
async fn the_same_outcome_again_is_refused_or_answered_as_the_rule_says() {
    for (stance, refusal, status) in [
        (Stance::Refuse, FinalRefusal::Conflict, 409),
        (Stance::Refuse, FinalRefusal::Unprocessable, 422),
        (Stance::Accept, FinalRefusal::Conflict, 200),
    ] {
        let rig = Rig::with(|config| {
            config.rules.final_repeat = stance;
            config.rules.final_refusal = refusal;
        })
        .await;
        let record = rig.allocation();
        assert_eq!(rig.settle(&record, Outcome::Released).await.status, 200);
        let funds = rig.state.client_funds(record.client_id, &btc());
        let again = rig.settle(&record, Outcome::Released).await;
        assert_eq!(again.status, status, "{again:?}");
        assert_eq!(rig.state.client_funds(record.client_id, &btc()), funds);
        assert_eq!(rig.state.contradictions(), []);
    }
}

#[tokio::test]
async fn the_other_outcome_is_a_conflict_and_a_contradiction_whatever_the_rules() {
    let rig = Rig::with(|config| {
        config.rules.final_repeat = Stance::Accept;
        config.rules.final_refusal = FinalRefusal::Unprocessable;
    })
    .await;
    let record = rig.allocation();
    assert_eq!(rig.settle(&record, Outcome::Cleared).await.status, 200);
    let told = rig.settle(&record, Outcome::Released).await;
    assert_eq!((told.status, told.name()), (409, "FinalOtherwise"));
    assert_eq!(
        rig.state.contradictions(),
        [Contradiction {
            record_id: record.id,
            said: Outcome::Released,
            put: 1,
            against: Against::EarlierPut(0),
        }]
    );
    assert_eq!(rig.record(record.id).standing, Standing::Final(Outcome::Cleared));
}

#[tokio::test]
async fn signing_both_outcomes_is_a_contradiction_even_if_none_was_carried_out() {
    let rig = Rig::new().await;
    let record = rig.allocation();
    let fault = Fault::new(On::Update, Effect::Answer { when: When::Before, status: 500 });
    rig.state.inject(fault.times(Times::Always)).unwrap();
    rig.settle(&record, Outcome::Cleared).await;
    rig.settle(&record, Outcome::Released).await;
    assert_eq!(rig.record(record.id), record);
    let contradictions = rig.state.contradictions();
    assert_eq!(contradictions.len(), 1);
    assert_eq!(contradictions[0].against, Against::EarlierPut(0));
}

#[tokio::test]
async fn a_first_word_against_what_oes_has_decided_is_told_apart() {
    let rig = Rig::new().await;
    let record = rig.allocation();
    rig.state.finish(record.id, Outcome::Released).unwrap();
    let told = rig.settle(&record, Outcome::Cleared).await;
    assert_eq!((told.status, told.name()), (409, "FinalOtherwise"));
    let contradictions = rig.state.contradictions();
    assert_eq!(contradictions.len(), 1);
    assert_eq!(contradictions[0].against, Against::FinalRecord);
}

#[tokio::test]
async fn a_statement_that_the_partner_did_not_sign_is_nobody_s_contradiction() {
    let rig = Rig::new().await;
    let record = rig.allocation();
    let forged = rig.draft(&record, Outcome::Released).body(&key('5'));
    assert_eq!(rig.put(JobType::Allocation, forged).await.status, 400);
    assert_eq!(rig.settle(&record, Outcome::Cleared).await.status, 200);
    assert_eq!(rig.state.contradictions(), []);
    assert_eq!(rig.state.bad_signatures().len(), 1);
}

#[tokio::test]
async fn a_nonce_that_ended_in_an_error_is_free_again_only_if_the_rule_says_so() {
    for (rule, when, status) in [
        (NonceAfterError::Consumed, When::Before, 409),
        (NonceAfterError::Free, When::Before, 200),
        // Carried out, and then the answer was lost: the nonce is free, but the record is final.
        (NonceAfterError::Free, When::After, 409),
    ] {
        let rig = Rig::with(|config| config.rules.nonce_after_error = rule).await;
        let record = rig.allocation();
        rig.state.inject(Fault::new(On::Update, Effect::Answer { when, status: 500 })).unwrap();
        let body = rig.draft(&record, Outcome::Cleared).body(&rig.partner);
        let told = rig.put(JobType::Allocation, body.clone()).await;
        assert_eq!(told.status, 500);
        let told = rig.put(JobType::Allocation, body).await;
        assert_eq!(told.status, status, "{rule:?} {when:?} {told:?}");
        if when == When::After {
            assert_eq!(told.name(), "AlreadyFinal");
        }
    }
}

#[tokio::test]
async fn an_approval_keeps_the_record_reserved_until_it_is_given() {
    let rig = Rig::new().await;
    let record = rig.allocation();
    rig.state.inject(Fault::new(On::Update, Effect::AwaitApproval)).unwrap();
    let told = rig.settle(&record, Outcome::Cleared).await;
    assert_eq!(told.status, 200);
    let approval = told.body["pendingApprovalId"].as_str().unwrap().to_owned();
    assert!(told.body.get("policyResult").is_none());
    let path = format!("/partners/allocations/{}", record.id);
    let read = rig.get(&path).await;
    assert_eq!(read.body["allocation"]["status"], "reserved");
    assert_eq!(read.body["allocation"]["pendingApprovalId"], approval.as_str());
    let told = rig.settle(&record, Outcome::Cleared).await;
    assert_eq!((told.status, told.name()), (409, "ApprovalPending"));
    rig.state.approve(record.id).unwrap();
    let read = rig.get(&path).await;
    assert_eq!(read.body["allocation"]["status"], "cleared");
    assert_eq!(read.body["allocation"]["policyResult"], "approved");
    assert_eq!(rig.state.approve(record.id), Err(WorldError::NotWaiting(record.id)));
}

#[tokio::test]
async fn a_rejected_approval_ends_the_record_otherwise_or_leaves_it_reserved() {
    let rig = Rig::new().await;
    for (then, standing) in [
        (AfterRejection::OtherOutcome, Standing::Final(Outcome::Released)),
        (AfterRejection::StaysReserved, Standing::Reserved),
    ] {
        let record = rig.allocation();
        rig.state.inject(Fault::new(On::Update, Effect::AwaitApproval)).unwrap();
        rig.settle(&record, Outcome::Cleared).await;
        rig.state.reject(record.id, then).unwrap();
        let after = rig.record(record.id);
        assert_eq!(after.standing, standing);
        assert_eq!(after.policy_result, Some(PolicyResult::Rejected));
    }
}
