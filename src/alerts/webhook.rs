//! Notices over HTTP, signed as <https://www.standardwebhooks.com> has it: `webhook-id`,
//! `webhook-timestamp` in seconds, and `webhook-signature`, which is `v1,` and the base64 of the
//! HMAC-SHA256 over `id.timestamp.body`. The receiver refuses what is old, and drops an id that it has seen.

use std::{path::PathBuf, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use reqwest::{Client, Url, header::CONTENT_TYPE};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::channels::{ChannelError, Undelivered};
use crate::{config::PrivateUrl, domain::time::TimestampMs, outbound, secret_file};

/// Before the base64 of a secret.
const SECRET_PREFIX: &str = "whsec_";

/// Least bytes of a secret, as the scheme has it.
const SECRET_BYTES_MIN: usize = 24;

/// One address that notices are sent to.
pub(super) struct Webhook {
    http: Client,
    url: Url,
    shown: String,
    secret_file: Option<PathBuf>,
}

impl Webhook {
    pub(super) fn new(
        key: &'static str,
        url: &PrivateUrl,
        secret_file: Option<PathBuf>,
        timeout: Duration,
    ) -> Result<Self, ChannelError> {
        let shown = url.to_string();
        let parsed = Url::parse(url.expose()).map_err(|error| ChannelError::BadUrl {
            key,
            shown: shown.clone(),
            reason: error.to_string(),
        })?;
        if let Some(file) = &secret_file {
            read_secret(file)?;
        }
        let http = outbound::client_for(&parsed)
            .timeout(timeout)
            .pool_max_idle_per_host(0)
            .build()
            .map_err(|error| ChannelError::Client(error.without_url().to_string()))?;
        Ok(Self { http, url: parsed, shown, secret_file })
    }

    /// One request. Anything but a 2xx is a failure, and the answer's body is nobody's affair.
    pub(super) async fn send(
        &self,
        id: &str,
        body: &str,
        now: TimestampMs,
    ) -> Result<(), Undelivered> {
        let timestamp = now.as_millis().div_euclid(1_000).to_string();
        let mut request = self
            .http
            .post(self.url.clone())
            .header(CONTENT_TYPE, "application/json")
            .header("webhook-id", id)
            .header("webhook-timestamp", &timestamp);
        if let Some(file) = &self.secret_file {
            // Read each time, because notices are rare and secrets are replaced.
            let secret = read_secret(file).map_err(|error| Undelivered(error.to_string()))?;
            request = request.header("webhook-signature", sign(&secret, id, &timestamp, body));
        }
        let answer = request.body(body.to_owned()).send().await;
        match answer {
            Ok(answer) if answer.status().is_success() => Ok(()),
            Ok(answer) => {
                Err(Undelivered(format!("{} answers {}", self.shown, answer.status().as_u16())))
            }
            Err(error) => {
                Err(Undelivered(format!("{}: {}", self.shown, outbound::describe(&error))))
            }
        }
    }
}

fn read_secret(file: &std::path::Path) -> Result<Zeroizing<Vec<u8>>, ChannelError> {
    let text = secret_file::read(file)?;
    let bytes = match text.strip_prefix(SECRET_PREFIX) {
        Some(encoded) => BASE64_STANDARD
            .decode(encoded)
            .map_err(|_| ChannelError::BadSecret("what follows whsec_ is not base64"))?,
        None => text.as_bytes().to_vec(),
    };
    let bytes = Zeroizing::new(bytes);
    if bytes.len() < SECRET_BYTES_MIN {
        return Err(ChannelError::BadSecret("the secret has fewer than 24 bytes"));
    }
    Ok(bytes)
}

fn sign(secret: &[u8], id: &str, timestamp: &str, body: &str) -> String {
    // HMAC takes a key of any length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret) else {
        return String::new();
    };
    for part in [id, ".", timestamp, ".", body] {
        mac.update(part.as_bytes());
    }
    format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the scheme's own specification.
    #[test]
    fn signs_as_the_scheme_says() {
        let secret = BASE64_STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        assert_eq!(
            sign(&secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", r#"{"test": 2432232314}"#),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
    }

    #[test]
    fn a_secret_is_text_or_base64_and_never_short() {
        use std::os::unix::fs::OpenOptionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let write = |text: &str| {
            let path = folder.path().join(hex::encode(text));
            let mut options = std::fs::OpenOptions::new();
            let mut file =
                options.write(true).create(true).truncate(true).mode(0o600).open(&path).unwrap();
            std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
            path
        };
        let plain = "twenty-four characters!!";
        assert_eq!(read_secret(&write(plain)).unwrap().as_slice(), plain.as_bytes());
        let encoded = format!("whsec_{}", BASE64_STANDARD.encode(plain));
        assert_eq!(read_secret(&write(&encoded)).unwrap().as_slice(), plain.as_bytes());
        for bad in ["twenty-three characters", "whsec_not base64", "whsec_c2hvcnQ="] {
            let error = read_secret(&write(bad)).unwrap_err().to_string();
            assert!(error.contains("webhook_secret_file") && !error.contains(bad), "{error}");
        }
    }
}
