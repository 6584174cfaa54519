//! Who gets to a page, and what every answer says to the browser.

use askama::Template;
use axum::{
    body::{Body, to_bytes},
    extract::{FromRequest, FromRequestParts, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header, request::Parts},
    middleware::Next,
    response::{IntoResponse as _, Redirect, Response},
};
use serde::{Deserialize, de::DeserializeOwned};

use super::{
    Page, assets,
    failure::{Failure, html},
    session::Open,
};
use crate::{
    domain::action::Operator,
    web::auth::{Acting, Principal},
};

/// What a browser keeps where it comes over TLS: the prefix makes it refuse one that was set otherwise.
const COOKIE_OVER_TLS: &str = "__Host-settled";
/// What it keeps where it comes in the clear.
const COOKIE: &str = "settled";

/// Largest form, in bytes; the limits of the listener keep the same.
const FORM_BYTES_MAX: usize = 64 * 1_024;

/// On requests of a page that refreshes itself.
const LIVE: HeaderName = HeaderName::from_static("x-settled-live");
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// What each answer says. Everything comes from here, nothing is inline, and no other site may show it.
const HEADERS: [(HeaderName, HeaderValue); 6] = [
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; \
             form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
        ),
    ),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::REFERRER_POLICY, HeaderValue::from_static("same-origin")),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        HeaderValue::from_static("same-origin"),
    ),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        HeaderValue::from_static("same-origin"),
    ),
];

/// Adds what every answer says.
pub(super) async fn harden(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.extend(HEADERS);
    headers.entry(header::CACHE_CONTROL).or_insert(const { HeaderValue::from_static("no-store") });
    response
}

/// Refuses what a page of another origin had the browser send. Ports count: whatever else runs on this host
/// is another origin, although it is the same site to a cookie.
pub(super) async fn same_origin(request: Request, next: Next) -> Response {
    if !request.method().is_safe() && !is_same_origin(request.headers()) {
        let detail = "the request comes from a page of another origin: nothing was done";
        return Failure::new(StatusCode::FORBIDDEN, detail).into_response();
    }
    next.run(request).await
}

fn is_same_origin(headers: &HeaderMap) -> bool {
    if let Some(site) = headers.get(FETCH_SITE) {
        return site == "same-origin";
    }
    // Browsers leave that out where the page came in the clear from another machine.
    let Some(origin) = headers.get(header::ORIGIN) else {
        // No browser leaves both out; whoever does still needs a form of the session.
        return true;
    };
    let origin = origin.to_str().ok().and_then(|origin| origin.parse::<Uri>().ok());
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    origin.and_then(|origin| origin.authority().map(ToString::to_string)).as_deref() == host
}

impl Page {
    /// The header that has a browser keep a session's word, or forget it where that is empty.
    pub(super) fn cookie(&self, word: &str, life_s: u64) -> String {
        let (name, secure) =
            if self.behind_tls { (COOKIE_OVER_TLS, "; Secure") } else { (COOKIE, "") };
        format!("{name}={word}; Path=/; HttpOnly; SameSite=Strict; Max-Age={life_s}{secure}")
    }

    /// The word that a browser has kept.
    fn kept<'h>(&self, headers: &'h HeaderMap) -> Option<&'h str> {
        let name = if self.behind_tls { COOKIE_OVER_TLS } else { COOKIE };
        let cookies = headers.get_all(header::COOKIE).iter();
        let pairs = cookies.filter_map(|cookie| cookie.to_str().ok()).flat_map(|c| c.split(';'));
        pairs
            .filter_map(|pair| pair.trim().split_once('='))
            .find_map(|(key, word)| (key == name).then_some(word))
    }

    /// Who is signed in, if somebody is.
    pub(super) fn visitor(&self, headers: &HeaderMap) -> Option<Visitor> {
        let is_live = headers.contains_key(LIVE);
        let open = self.sessions.find(self.kept(headers)?, !is_live, self.api.clock.now())?;
        let Some(principal) = self.tokens.principal_of(open.token) else {
            // Their line is gone from the file of tokens.
            self.sessions.end(&open);
            return None;
        };
        Some(Visitor { open, principal, is_live })
    }
}

/// Somebody who is signed in.
#[derive(Clone)]
pub(super) struct Visitor {
    /// Their session.
    pub(super) open: Open,
    /// Who they are.
    pub(super) principal: Principal,
    /// Whether a page refreshes itself, and nobody clicked anything.
    pub(super) is_live: bool,
}

impl FromRequestParts<Page> for Visitor {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &Page) -> Result<Self, Failure> {
        let visitor = parts.extensions.get::<Self>().cloned();
        visitor.ok_or_else(|| Failure::new(StatusCode::UNAUTHORIZED, "sign in first"))
    }
}

/// Every form's word that it is this session's.
#[derive(Deserialize)]
struct FromForm {
    #[serde(default)]
    csrf: String,
}

/// Lets those in who are signed in. What they send must come from a form of their session.
pub(super) async fn admit(State(page): State<Page>, request: Request, next: Next) -> Response {
    let Some(visitor) = page.visitor(request.headers()) else {
        return sign_in_first(&request);
    };
    let (mut parts, mut body) = request.into_parts();
    if !parts.method.is_safe() {
        let Ok(bytes) = to_bytes(body, FORM_BYTES_MAX).await else {
            return Failure::new(StatusCode::BAD_REQUEST, "the form did not arrive")
                .into_response();
        };
        let form = serde_urlencoded::from_bytes::<FromForm>(&bytes);
        if !form.is_ok_and(|form| visitor.open.owns(&form.csrf)) {
            let detail = "the form is not of this session: nothing was done. Open the page again";
            return Failure::new(StatusCode::FORBIDDEN, detail).into_response();
        }
        body = Body::from(bytes);
    }
    parts.extensions.insert(visitor.principal.clone());
    parts.extensions.insert(visitor);
    next.run(Request::from_parts(parts, body)).await
}

#[derive(Template)]
#[template(path = "from_elsewhere.html")]
struct FromElsewhere<'a> {
    version: &'a str,
    to: &'a str,
}

fn sign_in_first(request: &Request) -> Response {
    if !request.method().is_safe() || request.headers().contains_key(LIVE) {
        let detail = "you are not signed in any more: nothing was done";
        return Failure::new(StatusCode::UNAUTHORIZED, detail).into_response();
    }
    let to = request.uri().path_and_query().map_or(super::HOME, |to| to.as_str());
    if request.headers().get(FETCH_SITE).is_some_and(|site| site == "cross-site") {
        // A link in an alert was followed, and the browser holds the cookie back. It sends it when it asks
        // once more from here.
        return html(&FromElsewhere { version: assets::version(), to });
    }
    let next = serde_urlencoded::to_string([("next", to)]).unwrap_or_default();
    Redirect::to(&format!("/page/sign-in?{next}")).into_response()
}

/// A form that an operator has filled in.
pub(super) struct Filled<T> {
    /// Who.
    pub(super) acting: Acting,
    /// Their session.
    pub(super) open: Open,
    /// What.
    pub(super) form: T,
}

impl<T> Filled<T> {
    /// They, with their reason.
    pub(super) fn because(&self, reason: &str) -> Result<Operator, Failure> {
        self.acting.because(reason).map_err(Failure::from)
    }
}

impl<T: DeserializeOwned> FromRequest<Page> for Filled<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, page: &Page) -> Result<Self, Failure> {
        let (mut parts, body) = request.into_parts();
        let acting = Acting::from_request_parts(&mut parts, page).await?;
        let visitor = Visitor::from_request_parts(&mut parts, page).await?;
        let bytes = to_bytes(body, FORM_BYTES_MAX).await;
        let bad = |error: String| Failure::new(StatusCode::BAD_REQUEST, error);
        let bytes = bytes.map_err(|error| bad(error.to_string()))?;
        let form = serde_urlencoded::from_bytes(&bytes).map_err(|error| bad(error.to_string()))?;
        Ok(Self { acting, open: visitor.open, form })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_page_of_the_same_origin_may_send_anything() {
        let ask = |headers: &[(&'static str, &'static str)]| {
            let headers = headers.iter().map(|(name, value)| {
                (HeaderName::from_static(name), HeaderValue::from_static(value))
            });
            is_same_origin(&headers.collect())
        };
        let host = ("host", "127.0.0.1:9464");
        assert!(ask(&[host, ("sec-fetch-site", "same-origin")]));
        assert!(ask(&[host, ("origin", "http://127.0.0.1:9464")]));
        assert!(ask(&[host]), "no browser");
        for other in [
            [host, ("sec-fetch-site", "same-site")],
            [host, ("sec-fetch-site", "cross-site")],
            [host, ("sec-fetch-site", "none")],
            [host, ("origin", "http://127.0.0.1:8080")],
            [host, ("origin", "null")],
            [("origin", "https://evil.example"), ("x-no-host", "")],
        ] {
            assert!(!ask(&other), "{other:?}");
        }
        let mixed = [("sec-fetch-site", "cross-site"), host, ("origin", "http://127.0.0.1:9464")];
        assert!(!ask(&mixed));
    }
}
