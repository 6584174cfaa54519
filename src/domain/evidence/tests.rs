//! Evidence that holds, and each way in which it may have been tampered with or put together wrongly.

use serde_json::json;

use super::*;

const ID: &str = "0b4a3f3e-7d0a-4b5e-9a0e-3d1c5f2b7a10";

/// Rows as they are written down, with their kind and number.
type Rows = Vec<(Kind, i64, Value)>;

fn body() -> String {
    let payload = json!({"status": "cleared", "allocationId": ID, "nonce": "n"});
    let mut body = payload.clone();
    body["payload"] = payload.to_string().into();
    body["signature"] = "s".into();
    body.to_string()
}

fn decision() -> (Kind, i64, Value) {
    (Kind::Decisions, 1, json!(["cleared", null]))
}

/// A whole life, and a row of another record between.
fn life() -> Rows {
    vec![
        (Kind::SigningKeys, 1, json!([1, "another key"])),
        (Kind::SigningKeys, 2, json!([2, "the key"])),
        (Kind::Jobs, 1, json!([ID, "allocation"])),
        decision(),
        (Kind::Attempts, 7, json!([7, "n", body(), "s", 2])),
        (Kind::Endings, 1, json!(["confirmed", "cleared"])),
    ]
}

fn columns() -> BTreeMap<Kind, Vec<String>> {
    let named = |kind: Kind, names: &[&str]| (kind, names.iter().map(|it| (*it).into()).collect());
    BTreeMap::from([
        named(Kind::SigningKeys, &["key_id", "public_key"]),
        named(Kind::Jobs, &["record_id", "type"]),
        named(Kind::Decisions, &["outcome", "reject_reason"]),
        named(Kind::Attempts, &["attempt_seq", "nonce", "body", "signature", "key_id"]),
        named(Kind::Endings, &["state", "final_outcome"]),
    ])
}

/// Seals rows, each in a seal of its own.
fn evidence(rows: &Rows) -> Evidence {
    let mut previous = (4, Hash32::of(b"before"));
    let mut seals = Vec::new();
    for (kind, number, row) in rows {
        let (mut leaves, mut sealed) = (Leaves::default(), SealedRows::default());
        sealed.add(*kind, [*number]);
        leaves.add(*kind, &row.to_string());
        let sealed_rows = serde_json::to_string(&sealed).unwrap();
        let at = TimestampMs::from_millis(1_000);
        let seal = Seal::next(previous, at, sealed, &sealed_rows, leaves.digest());
        seals.push(SealEvidence {
            commit: seal.commit,
            sealed_at_ms: at,
            form: seal.form,
            sealed_rows,
            previous: previous.1,
            digest: seal.digest,
            chain: seal.chain,
            leaves,
            rows: BTreeMap::from([(*kind, BTreeMap::from([(0, row.to_string())]))]),
        });
        previous = (seal.commit, seal.chain);
    }
    Evidence {
        format: FORMAT.to_owned(),
        ledger: Uuid::nil(),
        record_id: ID.parse().unwrap(),
        exported_at_ms: TimestampMs::from_millis(2_000),
        columns: columns(),
        accounts: BTreeMap::new(),
        timeline: Value::Null,
        seals,
    }
}

fn fault(rows: &Rows) -> String {
    evidence(rows).check().unwrap_err()
}

#[test]
fn what_holds_says_what_was_decided_how_it_ended_and_which_signatures_to_check() {
    let found = evidence(&life()).check().unwrap();
    assert_eq!((found.decided, found.ended), (Some(Outcome::Cleared), Some(Outcome::Cleared)));
    assert_eq!((found.rows, found.seals), (6, Some((5, 10))));
    let [claim] = &found.signatures[..] else { panic!("one attempt was made") };
    assert_eq!((claim.attempt, claim.signature.as_str()), (7, "s"));
    assert_eq!(claim.public_key, "the key");
    assert!(body().contains(&claim.payload.replace('"', "\\\"")));
}

#[test]
fn a_job_that_is_open_or_refused_has_no_outcome_and_any_other_end_must_say_its_own() {
    let undecided = life()[2..3].to_vec();
    assert_eq!(evidence(&undecided).check().map(|found| found.ended), Ok(None));
    let ended = |state: &str| {
        let mut rows = undecided.clone();
        rows.push((Kind::Endings, 1, json!([state, null])));
        evidence(&rows).check().map(|found| found.ended)
    };
    assert_eq!(ended("refused"), Ok(None));
    assert!(ended("confirmed").is_err());
    let contradicted = vec![life()[2].clone(), (Kind::Endings, 1, json!(["refused", "gone"]))];
    assert!(fault(&contradicted).contains("no outcome"));
}

#[test]
fn rows_that_contradict_each_other_are_told() {
    let without = |place: usize| {
        let mut rows = life();
        rows.remove(place);
        fault(&rows)
    };
    assert!(without(2).contains("exactly one job"));
    assert!(without(3).contains("no decision"));
    assert!(without(1).contains("key is missing"));
    let with = |place: usize, row: Value| {
        let mut rows = life();
        rows[place].2 = row;
        fault(&rows)
    };
    assert!(with(2, json!(["another", "allocation"])).contains("another record"));
    assert!(with(3, json!(["released", null])).contains("another status"));
    assert!(with(3, json!(["cleared"])).contains("do not fit"));
    assert!(with(3, json!({})).contains("cannot be read"));
    let mut twice = life();
    twice.push(decision());
    assert!(fault(&twice).contains("two decisions"));
    let other = Evidence { format: "settled-evidence-2".to_owned(), ..evidence(&life()) };
    assert!(other.check().unwrap_err().contains("format"));
}

#[test]
fn what_was_sealed_cannot_be_changed() {
    let tampered = |change: &dyn Fn(&mut SealEvidence)| {
        let mut evidence = evidence(&life());
        change(&mut evidence.seals[3]);
        evidence.check().unwrap_err()
    };
    let row = |text: String| BTreeMap::from([(Kind::Decisions, BTreeMap::from([(0, text)]))]);
    let released = || json!(["released", null]).to_string();
    assert!(tampered(&|seal| seal.rows = row(released())).contains("not what was sealed"));
    let with_leaf = |seal: &mut SealEvidence| {
        seal.rows = row(released());
        seal.leaves = Leaves::default();
        seal.leaves.add(Kind::Decisions, &released());
    };
    assert!(tampered(&with_leaf).contains("do not make its digest"));
    let with_digest = |seal: &mut SealEvidence| {
        with_leaf(seal);
        seal.digest = seal.leaves.digest();
    };
    assert!(tampered(&with_digest).contains("does not follow"));
    let one_more = |seal: &mut SealEvidence| seal.leaves.add(Kind::Decisions, &released());
    assert!(tampered(&one_more).contains("not as many leaves"));
    assert!(tampered(&|seal| seal.sealed_rows.clear()).contains("cannot be read"));
}
