//! Every signature comes out byte for byte as from BitGo's own packages.

use serde::Deserialize;
use settled::signer::{SigningKey, recover};

#[derive(Deserialize)]
struct Vector {
    name: String,
    xprv: String,
    privkey_hex: String,
    pubkey_hex: String,
    address: String,
    payload: String,
    signature_hex: String,
}

fn vectors() -> Vec<Vector> {
    include_str!("vectors/signing-vectors.jsonl")
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn all_vectors_come_out_byte_for_byte() {
    let vectors = vectors();
    assert_eq!(vectors.len(), 184);
    for vector in vectors {
        for form in [&vector.xprv, &vector.privkey_hex] {
            let key = SigningKey::from_text(form).unwrap();
            assert_eq!(key.public_key(), vector.pubkey_hex, "{}", vector.name);
            assert_eq!(key.address(), vector.address, "{}", vector.name);
            let signature = key.sign(vector.payload.as_bytes()).unwrap();
            assert_eq!(signature.as_str(), vector.signature_hex, "{}", vector.name);
        }
        assert_eq!(
            recover(vector.payload.as_bytes(), &vector.signature_hex),
            Some(vector.pubkey_hex),
            "{}",
            vector.name
        );
    }
}
