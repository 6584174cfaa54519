//! Who asks, and may they: tokens, scopes, the SDK's HMAC, and the rate limit.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    time::{Duration, UNIX_EPOCH},
};

use axum::http::{HeaderMap, header::AUTHORIZATION};
use hmac::{Hmac, KeyInit as _, Mac as _};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{
    answer::{Answer, Refusal},
    rules::{RateLimit, RetryAfter},
};
use crate::domain::time::TimestampMs;

/// How far the time in a request may be from ours, either way.
const CLOCK_SKEW_MAX: Duration = Duration::from_secs(300);

/// On which side of a connection somebody stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Side {
    /// The exchange.
    Partner,
    /// Its clients.
    Client,
}

/// What a token may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Scope {
    /// `settlement_network_read`.
    Read,
    /// `settlement_network_write`; a write needs both.
    Write,
}

/// A token that is accepted.
#[derive(Clone, Debug)]
pub struct AccessToken {
    secret: SecretString,
    side: Side,
    scopes: BTreeSet<Scope>,
}

impl AccessToken {
    /// A token with both scopes.
    #[must_use]
    pub fn new(side: Side, secret: &str) -> Self {
        Self {
            secret: SecretString::from(secret),
            side,
            scopes: BTreeSet::from([Scope::Read, Scope::Write]),
        }
    }

    /// The same with these scopes only.
    #[must_use]
    pub fn with_scopes(mut self, scopes: impl IntoIterator<Item = Scope>) -> Self {
        self.scopes = scopes.into_iter().collect();
        self
    }
}

/// How a request said who sends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    Bearer,
    Hmac,
}

/// Somebody with a token.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caller {
    token: usize,
    pub(super) side: Side,
    style: Style,
}

/// The tokens, and what each has asked for lately.
#[derive(Debug, Default)]
pub(super) struct Access {
    tokens: Vec<AccessToken>,
    recent: HashMap<usize, VecDeque<TimestampMs>>,
}

fn unauthorized(error: &str) -> Refusal {
    Refusal::new(401, "Unauthorized", error.to_owned())
}

impl Access {
    pub(super) fn new(tokens: Vec<AccessToken>) -> Self {
        Self { tokens, recent: HashMap::new() }
    }

    /// Finds out who sent a request: by a plain bearer token, or in the SDK's way.
    pub(super) fn authenticate(
        &self,
        headers: &HeaderMap,
        path_and_query: &str,
        body: &[u8],
        now: TimestampMs,
    ) -> Result<Caller, Refusal> {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let bearer = text(AUTHORIZATION.as_str())
            .and_then(|value| value.strip_prefix("Bearer "))
            .ok_or_else(|| unauthorized("there is no bearer token"))?;
        let style = match text("bitgo-auth-version") {
            None => Style::Bearer,
            Some("2.0") => Style::Hmac,
            Some(_) => return Err(unauthorized("BitGo-Auth-Version is not 2.0")),
        };
        let is_it = |token: &AccessToken| match style {
            Style::Bearer => token.secret.expose_secret() == bearer,
            Style::Hmac => hex::encode(Sha256::digest(token.secret.expose_secret())) == bearer,
        };
        let (index, token) = self
            .tokens
            .iter()
            .enumerate()
            .find(|(_, token)| is_it(token))
            .ok_or_else(|| unauthorized("the token is not known"))?;
        match style {
            Style::Bearer => {}
            Style::Hmac => {
                let timestamp = text("auth-timestamp")
                    .ok_or_else(|| unauthorized("there is no Auth-Timestamp"))?;
                check_time(timestamp, now)?;
                let claimed = text("hmac")
                    .and_then(|text| hex::decode(text).ok())
                    .ok_or_else(|| unauthorized("there is no hexadecimal HMAC"))?;
                let begin = format!("{timestamp}|{path_and_query}|");
                let right = mac(&token.secret, begin.as_bytes(), body)
                    .is_some_and(|mac| mac.verify_slice(&claimed).is_ok());
                if !right {
                    return Err(unauthorized("the HMAC is wrong"));
                }
            }
        }
        Ok(Caller { token: index, side: token.side, style })
    }

    /// Checks that a caller stands on a side and has the scopes.
    pub(super) fn authorize(
        &self,
        caller: Caller,
        side: Option<Side>,
        needed: &[Scope],
    ) -> Result<(), Refusal> {
        let forbidden = |error: String| Err(Refusal::new(403, "Forbidden", error));
        if side.is_some_and(|side| side != caller.side) {
            return forbidden(
                "this token is not one of the side that this route is for".to_owned(),
            );
        }
        let Some(token) = self.tokens.get(caller.token) else {
            return forbidden("the token is not known".to_owned());
        };
        for scope in needed {
            if !token.scopes.contains(scope) {
                let name = match scope {
                    Scope::Read => "settlement_network_read",
                    Scope::Write => "settlement_network_write",
                };
                return forbidden(format!("this token lacks the scope {name}"));
            }
        }
        Ok(())
    }

    /// Counts a request of a caller, unless it is one too many.
    pub(super) fn admit(
        &mut self,
        caller: Caller,
        limit: Option<RateLimit>,
        retry_after: RetryAfter,
        now: TimestampMs,
    ) -> Result<(), Refusal> {
        let Some(limit) = limit else {
            return Ok(());
        };
        let window = Duration::from_millis(limit.window_ms);
        let recent = self.recent.entry(caller.token).or_default();
        while recent.front().is_some_and(|oldest| oldest.after(window) <= now) {
            recent.pop_front();
        }
        let allowed = usize::try_from(limit.requests).unwrap_or(usize::MAX);
        if recent.len() < allowed {
            recent.push_back(now);
            return Ok(());
        }
        let free_at = recent.front().copied().unwrap_or(now).after(window);
        Err(too_many(retry_after, free_at, now))
    }

    /// Adds the headers that prove an answer, for callers who prove their requests.
    pub(super) fn prove(
        &self,
        caller: Caller,
        path_and_query: &str,
        answer: &mut Answer,
        now: TimestampMs,
    ) {
        match caller.style {
            Style::Bearer => {}
            Style::Hmac => {
                let timestamp = now.as_millis().to_string();
                let begin = format!("{timestamp}|{path_and_query}|{}|", answer.status);
                let proof = self
                    .tokens
                    .get(caller.token)
                    .and_then(|token| mac(&token.secret, begin.as_bytes(), &answer.body));
                if let Some(proof) = proof {
                    answer.put("hmac", &hex::encode(proof.finalize().into_bytes()));
                    answer.put("timestamp", &timestamp);
                }
            }
        }
    }
}

fn mac(secret: &SecretString, begin: &[u8], body: &[u8]) -> Option<Hmac<Sha256>> {
    // HMAC takes a key of any length, so there always is one.
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose_secret().as_bytes()).ok()?;
    mac.update(begin);
    mac.update(body);
    Some(mac)
}

fn check_time(timestamp: &str, now: TimestampMs) -> Result<(), Refusal> {
    let sent = timestamp
        .parse()
        .map(TimestampMs::from_millis)
        .map_err(|_| unauthorized("Auth-Timestamp is not a number of milliseconds"))?;
    let apart = sent.since(now).max(now.since(sent));
    if apart > CLOCK_SKEW_MAX {
        return Err(unauthorized("Auth-Timestamp is too far from the time"));
    }
    Ok(())
}

/// The refusal of a request over the limit.
pub(super) fn too_many(retry_after: RetryAfter, free_at: TimestampMs, now: TimestampMs) -> Refusal {
    let wait_s = free_at.since(now).as_millis().div_ceil(1_000);
    let value = match retry_after {
        RetryAfter::Absent => None,
        RetryAfter::Seconds => Some(wait_s.to_string()),
        RetryAfter::HttpDate => {
            let at_ms = u64::try_from(free_at.as_millis()).unwrap_or(0);
            // A date has whole seconds, and must not be before the time that it stands for.
            let date = UNIX_EPOCH.checked_add(Duration::from_secs(at_ms.div_ceil(1_000)));
            date.map(httpdate::fmt_http_date)
        }
    };
    Refusal {
        status: 429,
        name: "TooManyRequests",
        error: "the rate limit is reached".to_owned(),
        retry_after: value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: TimestampMs = TimestampMs::from_millis(1_700_000_000_000);

    fn access() -> Access {
        Access::new(vec![
            AccessToken::new(Side::Client, "client"),
            AccessToken::new(Side::Partner, "v2x0123456789abcdef"),
        ])
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    /// As the SDK makes them; the HMAC was computed with `openssl dgst -sha256 -hmac`.
    fn proven() -> HeaderMap {
        headers(&[
            (
                "authorization",
                "Bearer 02f9b1c8f5ba173a55577ef2b12f0dba1ba1f55b96ce6194df0eb15b2d8c3ae1",
            ),
            ("bitgo-auth-version", "2.0"),
            ("auth-timestamp", "1700000000000"),
            ("hmac", "e2dd94caaeefda052f4b96995af4118da97e3f7948cad24f90636869baf012c1"),
        ])
    }

    #[test]
    fn a_proven_request_is_believed_and_a_changed_one_is_not() {
        let ask = |headers: &HeaderMap, path, body: &[u8], now| {
            access().authenticate(headers, path, body, now)
        };
        let caller = ask(&proven(), "/api/x?y=1", b"{}", NOW).unwrap();
        assert_eq!(caller.side, Side::Partner);
        assert!(ask(&proven(), "/api/x?y=2", b"{}", NOW).is_err());
        assert!(ask(&proven(), "/api/x?y=1", b"{ }", NOW).is_err());
        let late = NOW.after(Duration::from_secs(301));
        assert!(ask(&proven(), "/api/x?y=1", b"{}", late).is_err());
        let mut other_version = proven();
        other_version.insert("bitgo-auth-version", "3.0".parse().unwrap());
        assert!(ask(&other_version, "/api/x?y=1", b"{}", NOW).is_err());
    }

    #[test]
    fn an_answer_to_a_proven_request_is_proven_too() {
        let access = access();
        let caller = access.authenticate(&proven(), "/api/x?y=1", b"{}", NOW).unwrap();
        let mut answer = Answer::json(200, &serde_json::json!({}));
        access.prove(caller, "/api/x?y=1", &mut answer, NOW);
        let header = |name: &str| answer.headers.get(name).unwrap().to_str().unwrap();
        assert_eq!(header("timestamp"), "1700000000000");
        // printf '1700000000000|/api/x?y=1|200|{}' | openssl dgst -sha256 -hmac v2x0123456789abcdef
        assert_eq!(
            header("hmac"),
            "0523395ea40b07a0c54c1e794e643ec2b725ce6b889f74723fb26a0ea37b3dc6"
        );
    }

    #[test]
    fn a_token_opens_its_own_side_and_nothing_beyond_its_scopes() {
        let access =
            Access::new(vec![AccessToken::new(Side::Partner, "reader").with_scopes([Scope::Read])]);
        let bearer = |token: &str| headers(&[("authorization", &format!("Bearer {token}"))]);
        let caller = access.authenticate(&bearer("reader"), "/", b"", NOW).unwrap();
        let may = |side, scopes: &[Scope]| access.authorize(caller, side, scopes).is_ok();
        assert!(may(Some(Side::Partner), &[Scope::Read]));
        assert!(may(None, &[Scope::Read]));
        assert!(!may(Some(Side::Client), &[Scope::Read]));
        assert!(!may(Some(Side::Partner), &[Scope::Read, Scope::Write]));
        for wrong in [bearer("other"), headers(&[]), headers(&[("authorization", "Basic x")])] {
            let refusal = access.authenticate(&wrong, "/", b"", NOW).unwrap_err();
            assert_eq!(refusal.status, 401);
        }
    }

    #[test]
    fn no_window_has_more_requests_than_the_limit() {
        let mut access = access();
        let caller = Caller { token: 0, side: Side::Client, style: Style::Bearer };
        let limit = Some(RateLimit { requests: 2, window_ms: 1_000 });
        let mut ask = |at_ms, retry_after| {
            let now = TimestampMs::from_millis(at_ms);
            access.admit(caller, limit, retry_after, now).map_err(|refusal| refusal.retry_after)
        };
        assert_eq!(ask(0, RetryAfter::Absent), Ok(()));
        assert_eq!(ask(600, RetryAfter::Absent), Ok(()));
        assert_eq!(ask(900, RetryAfter::Absent), Err(None));
        assert_eq!(ask(900, RetryAfter::Seconds), Err(Some("1".to_owned())));
        let date = "Thu, 01 Jan 1970 00:00:01 GMT".to_owned();
        assert_eq!(ask(900, RetryAfter::HttpDate), Err(Some(date)));
        assert_eq!(ask(1_000, RetryAfter::Absent), Ok(()));
        assert_eq!(ask(1_599, RetryAfter::Absent), Err(None));
        assert_eq!(ask(1_600, RetryAfter::Absent), Ok(()));
    }
}
