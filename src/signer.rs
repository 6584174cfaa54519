//! The signing key, and the only code that touches it.
//!
//! A signature is a Bitcoin signed message over the exact bytes of a payload: double SHA-256 with
//! the mainnet prefix, RFC 6979, low S, as `[31 + recovery id] ‖ r ‖ s`. It comes out byte for byte
//! as from BitGo's own packages; `tests/vectors/` has the proof.
//!
//! What must never happen here: a key from an argument or the environment, a key or a part of one in
//! a log, an error or `Debug`, a signature that was not verified against our own public key.

use std::{fmt, sync::LazyLock};

use bip32::{ExtendedKey, Prefix};
use ripemd::Ripemd160;
use secp256k1::{
    All, Message, PublicKey, Secp256k1, SecretKey,
    ecdsa::{RecoverableSignature, RecoveryId},
};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::domain::payload::Signature;

/// Always the mainnet prefix, whatever the network.
const MESSAGE_PREFIX: &[u8] = b"\x18Bitcoin Signed Message:\n";

/// First byte of a signature by a compressed key, less its recovery id.
const HEADER_BASE: u8 = 31;

/// Version byte of a mainnet pay-to-public-key-hash address.
const ADDRESS_VERSION: u8 = 0;

/// What the daemon signs at its start to see that key and signer work.
const SELF_TEST_PAYLOAD: &[u8] = b"settled self-test";

/// Why a text is no signing key. No message has any of the key in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Another kind of extended key.
    #[error(
        "the key is a {prefix}, and an xprv is needed: the private key of the trading wallet's user keychain"
    )]
    WrongPrefix {
        /// The first four characters: they tell the kind and nothing else.
        prefix: String,
    },
    /// Mistyped or cut off.
    #[error("the key is not a valid xprv: its checksum or length is wrong; copy it again")]
    Damaged,
    /// A well-formed text that BIP 32 does not allow.
    #[error("the key is not a valid xprv: {0}")]
    Invalid(&'static str),
    /// Neither form.
    #[error("the key is neither an xprv nor 64 hexadecimal characters")]
    UnknownForm,
    /// Zero, or beyond the order of the curve.
    #[error("the key is not a private key of secp256k1")]
    OutOfRange,
}

/// For what takes no secret.
static PUBLIC_CONTEXT: LazyLock<Secp256k1<All>> = LazyLock::new(Secp256k1::new);

/// A private key with its public key. Neither is ever shown by `Debug`; the public one by name.
pub struct SigningKey {
    secret: SecretKey,
    public: PublicKey,
}

/// A context that is blinded by fresh random bytes, so that what a signature takes in time and power tells
/// nothing of the key.
fn blinded_context() -> Secp256k1<All> {
    let mut context = PUBLIC_CONTEXT.clone();
    context.seeded_randomize(&rand::random());
    context
}

impl SigningKey {
    /// Reads an `xprv…`, used at its own node without derivation, or 64 hexadecimal characters.
    ///
    /// # Errors
    /// [`KeyError`], without a word of the key.
    pub fn from_text(text: &str) -> Result<Self, KeyError> {
        let bytes = if text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            let mut bytes = Zeroizing::new([0; 32]);
            hex::decode_to_slice(text, bytes.as_mut_slice()).map_err(|_| KeyError::UnknownForm)?;
            bytes
        } else {
            extended_key_bytes(text)?
        };
        let secret = SecretKey::from_byte_array(*bytes).map_err(|_| KeyError::OutOfRange)?;
        Ok(Self { public: secret.public_key(&blinded_context()), secret })
    }

    /// The compressed public key, hexadecimal.
    #[must_use]
    pub fn public_key(&self) -> String {
        hex::encode(self.public.serialize())
    }

    /// The mainnet pay-to-public-key-hash address, by which signed messages are usually checked.
    #[must_use]
    pub fn address(&self) -> String {
        bs58::encode(self.public_key_hash()).with_check_version(ADDRESS_VERSION).into_string()
    }

    /// The first four bytes of the public key's hash, as BIP 32 identifies keys.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let [first, second, third, fourth, ..] = self.public_key_hash();
        hex::encode([first, second, third, fourth])
    }

    fn public_key_hash(&self) -> [u8; 20] {
        Ripemd160::digest(Sha256::digest(self.public.serialize())).into()
    }

    /// Signs a payload, and verifies the signature against our own public key before it is shown to
    /// anyone. `None` if it does not verify: memory or library are faulty, and nothing may be sent.
    #[must_use]
    pub fn sign(&self, payload: &[u8]) -> Option<Signature> {
        self.sign_with(&blinded_context(), payload)
    }

    fn sign_with(&self, context: &Secp256k1<All>, payload: &[u8]) -> Option<Signature> {
        let message = Message::from_digest(digest(payload));
        let signature = context.sign_ecdsa_recoverable(message, &self.secret);
        context.verify_ecdsa(message, &signature.to_standard(), &self.public).ok()?;
        let (recovery_id, compact) = signature.serialize_compact();
        let mut bytes = [0; 65];
        let (header, rest) = bytes.split_first_mut()?;
        *header = HEADER_BASE.checked_add(u8::try_from(i32::from(recovery_id)).ok()?)?;
        rest.copy_from_slice(&compact);
        Some(Signature::from_bytes(bytes))
    }

    /// Signs payloads, each as [`SigningKey::sign`] does, and blinds the context once for all of them.
    #[must_use]
    pub fn sign_all(&self, payloads: &[&[u8]]) -> Vec<Option<Signature>> {
        let context = blinded_context();
        payloads.iter().map(|payload| self.sign_with(&context, payload)).collect()
    }

    /// Signs and checks something that is no payload: whether key and signer work on this machine.
    #[must_use]
    pub fn self_test(&self) -> bool {
        self.sign(SELF_TEST_PAYLOAD)
            .and_then(|signature| recover(SELF_TEST_PAYLOAD, signature.as_str()))
            .is_some_and(|public_key| public_key == self.public_key())
    }
}

impl Drop for SigningKey {
    fn drop(&mut self) {
        // Best effort: the type is `Copy`, so it is kept in this one place.
        self.secret.non_secure_erase();
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("public_key", &self.public_key()).finish_non_exhaustive()
    }
}

fn extended_key_bytes(text: &str) -> Result<Zeroizing<[u8; 32]>, KeyError> {
    let prefix: String = text.chars().take(Prefix::LENGTH).collect();
    let looks_extended = ["prv", "pub"].iter().any(|kind| prefix.ends_with(kind));
    if !looks_extended {
        return Err(KeyError::UnknownForm);
    }
    if prefix != Prefix::XPRV.as_str() {
        return Err(KeyError::WrongPrefix { prefix });
    }
    let key: ExtendedKey = text.parse().map_err(|_| KeyError::Damaged)?;
    if key.prefix.version() != Prefix::XPRV.version() {
        return Err(KeyError::Damaged);
    }
    let is_master = key.attrs.depth == 0;
    if is_master && (key.attrs.parent_fingerprint != [0; 4] || key.attrs.child_number.0 != 0) {
        return Err(KeyError::Invalid("a master key with a parent"));
    }
    let (marker, rest) = key.key_bytes.split_first().ok_or(KeyError::Damaged)?;
    if *marker != 0 {
        return Err(KeyError::Invalid("it holds a public key"));
    }
    let mut bytes = Zeroizing::new([0; 32]);
    bytes.copy_from_slice(rest);
    Ok(bytes)
}

/// The digest of a Bitcoin signed message.
fn digest(payload: &[u8]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    hasher.update(MESSAGE_PREFIX);
    hasher.update(compact_size(payload.len()));
    hasher.update(payload);
    Sha256::digest(hasher.finalize()).into()
}

/// A length as Bitcoin writes it.
fn compact_size(length: usize) -> Vec<u8> {
    match (u8::try_from(length), u16::try_from(length), u32::try_from(length)) {
        (Ok(short), ..) if short < 0xfd => vec![short],
        (_, Ok(short), _) => [&[0xfd][..], &short.to_le_bytes()].concat(),
        (_, _, Ok(long)) => [&[0xfe][..], &long.to_le_bytes()].concat(),
        (_, _, Err(_)) => {
            let length = u64::try_from(length).unwrap_or(u64::MAX);
            [&[0xff][..], &length.to_le_bytes()].concat()
        }
    }
}

/// The compressed public key, hexadecimal, that a signature over `payload` is by; `None` if it is
/// by none.
#[must_use]
pub fn recover(payload: &[u8], signature_hex: &str) -> Option<String> {
    let is_canonical = signature_hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let bytes: [u8; 65] =
        hex::decode(signature_hex).ok()?.try_into().ok().filter(|_| is_canonical)?;
    let (header, compact) = bytes.split_first()?;
    let recovery_id = header.checked_sub(HEADER_BASE).filter(|id| *id < 4)?;
    let signature =
        RecoverableSignature::from_compact(compact, RecoveryId::from_u8_masked(recovery_id))
            .ok()?;
    let message = Message::from_digest(digest(payload));
    let public = PUBLIC_CONTEXT.recover_ecdsa(message, &signature).ok()?;
    Some(hex::encode(public.serialize()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const XPRV: &str = "xprv9s21ZrQH143K3X5CyVygwsC12UHhWEQW63TGSMkKN4f21ok4G5MKKkf7684zjBjGtCYTz8kEHPaSAfbDanAngnY99yGp2pxHeacKJ1L8kwg";

    fn refused(text: &str) -> KeyError {
        SigningKey::from_text(text).map(|key| key.public_key()).unwrap_err()
    }

    #[test]
    fn an_xprv_and_its_hexadecimal_form_are_one_key() {
        let extended = SigningKey::from_text(XPRV).unwrap();
        let plain = SigningKey::from_text(
            "88c4670be22d23e10e6914266f622500564ee1c1c4b31af25eaccb86eedd6d74",
        )
        .unwrap();
        assert_eq!(extended.public_key(), plain.public_key());
        assert_eq!(extended.address(), "1BxL7Bx6YBwZtyNj7QZPUqpfB3QptrHKUh");
        assert!(extended.self_test());
        assert_eq!(extended.sign(b"x"), plain.sign(b"x"));
    }

    #[test]
    fn refuses_keys_that_are_something_else_and_says_what() {
        // Test vectors of BIP 32 (1 and 5), BIP 49 and BIP 84.
        for (text, prefix) in [
            (
                "xpub661MyMwAqRbcFtXgS5sYJABqqG9YLmC4Q1Rdap9gSE8NqtwybGhePY2gZ29ESFjqJoCu1Rupje8YtGqsefD265TMg7usUDFdp6W1EGMcet8",
                "xpub",
            ),
            (
                "tprv8ZgxMBicQKsPe5YMU9gHen4Ez3ApihUfykaqUorj9t6FDqy3nP6eoXiAo2ssvpAjoLroQxHqr3R5nE3a5dU3DHTjTgJDd7zrbniJr6nrCzd",
                "tprv",
            ),
            (
                "zprvAWgYBBk7JR8Gjrh4UJQ2uJdG1r3WNRRfURiABBE3RvMXYSrRJL62XuezvGdPvG6GFBZduosCc1YP5wixPox7zhZLfiUm8aunE96BBa4Kei5",
                "zprv",
            ),
        ] {
            assert_eq!(refused(text), KeyError::WrongPrefix { prefix: prefix.to_owned() });
        }
        for (text, error) in [
            // Private key 0, private key n, a public key under a private version, wrong checksum,
            // a master key with a parent fingerprint, one with an index.
            (
                "xprv9s21ZrQH143K24Mfq5zL5MhWK9hUhhGbd45hLXo2Pq2oqzMMo63oStZzF93Y5wvzdUayhgkkFoicQZcP3y52uPPxFnfoLZB21Teqt1VvEHx",
                KeyError::OutOfRange,
            ),
            (
                "xprv9s21ZrQH143K24Mfq5zL5MhWK9hUhhGbd45hLXo2Pq2oqzMMo63oStZzFAzHGBP2UuGCqWLTAPLcMtD5SDKr24z3aiUvKr9bJpdrcLg1y3G",
                KeyError::OutOfRange,
            ),
            (
                "xprv9s21ZrQH143K24Mfq5zL5MhWK9hUhhGbd45hLXo2Pq2oqzMMo63oStZzFGTQQD3dC4H2D5GBj7vWvSQaaBv5cxi9gafk7NF3pnBju6dwKvH",
                KeyError::Invalid("it holds a public key"),
            ),
            (
                "xprv9s21ZrQH143K3QTDL4LXw2F7HEK3wJUD2nW2nRk4stbPy6cq3jPPqjiChkVvvNKmPGJxWUtg6LnF5kejMRNNU3TGtRBeJgk33yuGBxrMPHL",
                KeyError::Damaged,
            ),
            (
                "xprv9s2SPatNQ9Vc6GTbVMFPFo7jsaZySyzk7L8n2uqKXJen3KUmvQNTuLh3fhZMBoG3G4ZW1N2kZuHEPY53qmbZzCHshoQnNf4GvELZfqTUrcv",
                KeyError::Invalid("a master key with a parent"),
            ),
            (
                "xprv9s21ZrQH4r4TsiLvyLXqM9P7k1K3EYhA1kkD6xuquB5i39AU8KF42acDyL3qsDbU9NmZn6MsGSUYZEsuoePmjzsB3eFKSUEh3Gu1N3cqVUN",
                KeyError::Invalid("a master key with a parent"),
            ),
        ] {
            assert_eq!(refused(text), error, "{text}");
        }
        let cut = &XPRV[..XPRV.len() - 1];
        assert_eq!(refused(cut), KeyError::Damaged);
        for other in
            ["", "hello", &"0".repeat(63), &"0".repeat(65), "-----BEGIN EC PRIVATE KEY-----"]
        {
            assert_eq!(refused(other), KeyError::UnknownForm, "{other}");
        }
        assert_eq!(refused(&"0".repeat(64)), KeyError::OutOfRange);
        assert_eq!(refused(&"f".repeat(64)), KeyError::OutOfRange);
    }

    #[test]
    fn debug_shows_no_secret() {
        let key = SigningKey::from_text(XPRV).unwrap();
        let shown = format!("{key:?}");
        assert!(shown.contains(&key.public_key()));
        assert!(!shown.contains("88c4670b") && !shown.contains("xprv"));
    }

    #[test]
    fn a_signature_that_does_not_verify_is_shown_to_nobody() {
        // As if memory had changed under the key: it signs with one, and stands for another.
        let sound = SigningKey::from_text(&"1".repeat(64)).unwrap();
        let other = SigningKey::from_text(&"2".repeat(64)).unwrap();
        let faulty = SigningKey { secret: sound.secret, public: other.public };
        let payloads: Vec<&[u8]> = vec![b"payload"; 24];
        assert!(faulty.sign(b"payload").is_none());
        assert!(faulty.sign_all(&payloads).iter().all(Option::is_none));
        assert!(!faulty.self_test());
        assert_eq!(sound.sign_all(&payloads), vec![sound.sign(b"payload"); payloads.len()]);
    }

    #[test]
    fn recovers_the_signer_and_nothing_from_a_changed_payload() {
        let key = SigningKey::from_text(XPRV).unwrap();
        let signature = key.sign(b"payload").unwrap();
        assert_eq!(recover(b"payload", signature.as_str()), Some(key.public_key()));
        assert_ne!(recover(b"payloae", signature.as_str()), Some(key.public_key()));
        for bad in ["", "00", &"zz".repeat(65), &signature.as_str().to_uppercase()] {
            assert_eq!(recover(b"payload", bad), None, "{bad}");
        }
    }
}
