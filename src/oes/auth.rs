//! How requests prove who sends them, and answers who sent them.
//!
//! Source: BitGo's OES samples (a plain bearer token) and the behaviour of its SDK for tokens that
//! begin with `v2x` (a hash of the token, and an HMAC over time, path and body).

use hmac::{Hmac, KeyInit as _, Mac as _};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};

use super::header_text;
use crate::{config::AuthStyle, domain::time::TimestampMs};

const AUTH_VERSION: HeaderName = HeaderName::from_static("bitgo-auth-version");
const AUTH_TIMESTAMP: HeaderName = HeaderName::from_static("auth-timestamp");
const HMAC: HeaderName = HeaderName::from_static("hmac");
const RESPONSE_TIMESTAMP: &str = "timestamp";

/// The headers that authenticate one request.
pub(super) fn headers(
    style: AuthStyle,
    token: &SecretString,
    now: TimestampMs,
    path_and_query: &str,
    body: &str,
) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let mut put = |name: HeaderName, text: String| {
        // Tokens were checked when they were read; all else here is hexadecimal or digits.
        if let Ok(mut value) = HeaderValue::try_from(text) {
            value.set_sensitive(true);
            headers.insert(name, value);
        }
    };
    match style {
        AuthStyle::Bearer => put(AUTHORIZATION, format!("Bearer {}", token.expose_secret())),
        AuthStyle::Hmac => {
            let timestamp = now.as_millis().to_string();
            let hashed = hex::encode(Sha256::digest(token.expose_secret()));
            let subject = format!("{timestamp}|{path_and_query}|{body}");
            put(AUTHORIZATION, format!("Bearer {hashed}"));
            put(AUTH_VERSION, "2.0".to_owned());
            put(HMAC, hex::encode(mac(token, &[subject.as_bytes()])));
            put(AUTH_TIMESTAMP, timestamp);
        }
    }
    headers
}

fn mac(token: &SecretString, parts: &[&[u8]]) -> Vec<u8> {
    // HMAC takes a key of any length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(token.expose_secret().as_bytes()) else {
        return Vec::new();
    };
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().to_vec()
}

/// What an answer says to prove itself.
pub(super) struct ResponseProof {
    claimed: Option<(String, String)>,
}

impl ResponseProof {
    pub(super) fn from_headers(headers: &HeaderMap) -> Self {
        let claimed = header_text(headers, HMAC.as_str())
            .zip(header_text(headers, RESPONSE_TIMESTAMP))
            .map(|(hmac, timestamp)| (hmac.to_owned(), timestamp.to_owned()));
        Self { claimed }
    }

    /// Whether the answer may be believed. One without an HMAC rests on TLS alone, as with plain
    /// bearer tokens; one with a wrong HMAC is not believed.
    pub(super) fn is_right(
        &self,
        style: AuthStyle,
        token: &SecretString,
        path_and_query: &str,
        status: u16,
        body: &[u8],
    ) -> bool {
        match (style, &self.claimed) {
            (AuthStyle::Bearer, _) | (AuthStyle::Hmac, None) => true,
            (AuthStyle::Hmac, Some((hmac, timestamp))) => {
                let subject = format!("{timestamp}|{path_and_query}|{status}|");
                let Ok(mut expected) =
                    Hmac::<Sha256>::new_from_slice(token.expose_secret().as_bytes())
                else {
                    return false;
                };
                expected.update(subject.as_bytes());
                expected.update(body);
                hex::decode(hmac).is_ok_and(|claimed| expected.verify_slice(&claimed).is_ok())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: TimestampMs = TimestampMs::from_millis(1_700_000_000_000);

    fn token() -> SecretString {
        SecretString::from("v2x0123456789abcdef")
    }

    #[test]
    fn a_plain_token_is_sent_as_it_is_and_marked_as_a_secret() {
        let headers = headers(AuthStyle::Bearer, &token(), NOW, "/x", "");
        let value = headers.get(AUTHORIZATION).unwrap();
        assert_eq!(value.to_str().unwrap(), "Bearer v2x0123456789abcdef");
        assert!(value.is_sensitive() && !format!("{headers:?}").contains("v2x"));
    }

    #[test]
    fn the_sdk_s_way_never_sends_the_token() {
        let headers = headers(AuthStyle::Hmac, &token(), NOW, "/api/x?y=1", "{}");
        let text = |name: &str| headers.get(name).unwrap().to_str().unwrap();
        // Computed with `printf … | openssl dgst -sha256 [-hmac …]`.
        assert_eq!(
            text("authorization"),
            "Bearer 02f9b1c8f5ba173a55577ef2b12f0dba1ba1f55b96ce6194df0eb15b2d8c3ae1"
        );
        assert_eq!(text("bitgo-auth-version"), "2.0");
        assert_eq!(text("auth-timestamp"), "1700000000000");
        assert_eq!(
            text("hmac"),
            "e2dd94caaeefda052f4b96995af4118da97e3f7948cad24f90636869baf012c1"
        );
    }

    #[test]
    fn an_answer_with_a_wrong_hmac_is_not_believed() {
        let right = hex::encode(mac(&token(), &[b"17|/x|200|body"]));
        let proof =
            |hmac: &str| ResponseProof { claimed: Some((hmac.to_owned(), "17".to_owned())) };
        let judge = |proof: &ResponseProof, status, body: &[u8]| {
            proof.is_right(AuthStyle::Hmac, &token(), "/x", status, body)
        };
        assert!(judge(&proof(&right), 200, b"body"));
        assert!(!judge(&proof(&right), 200, b"bodY"));
        assert!(!judge(&proof(&right), 500, b"body"));
        assert!(!judge(&proof("not hexadecimal"), 200, b"body"));
        assert!(judge(&ResponseProof { claimed: None }, 200, b"body"));
    }
}
