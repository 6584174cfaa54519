//! Signing in with a token, and out.

use askama::Template;
use axum::{
    extract::{Query, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Redirect, Response},
};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;

use super::{
    HOME, Page, assets,
    failure::{Failure, html},
    guard::Visitor,
    session::LIFE_MAX,
};
use crate::web::auth::TokenHash;

/// Largest form to sign in with, in bytes.
const FORM_BYTES_MAX: usize = 4 * 1_024;

/// Where to after signing in.
#[derive(Deserialize)]
pub(super) struct Where {
    #[serde(default)]
    next: String,
}

#[derive(Deserialize)]
struct SignIn {
    #[serde(default)]
    token: SecretString,
    #[serde(default)]
    next: String,
}

#[derive(Template)]
#[template(path = "sign_in.html")]
struct SignInPage<'a> {
    version: &'a str,
    next: &'a str,
    wrong: Option<&'a str>,
}

/// A page of ours, whatever a link says.
fn page_of_ours(next: &str) -> &str {
    let ours = next == HOME || next.starts_with("/page/") || next.starts_with("/page?");
    let plain = next.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    if ours && plain { next } else { HOME }
}

/// The form.
pub(super) async fn show(
    State(page): State<Page>,
    headers: HeaderMap,
    Query(to): Query<Where>,
) -> Response {
    let next = page_of_ours(&to.next);
    if page.visitor(&headers).is_some() {
        return Redirect::to(next).into_response();
    }
    html(&SignInPage { version: assets::version(), next, wrong: None })
}

fn again(status: StatusCode, next: &str, wrong: &str) -> Response {
    let page = SignInPage { version: assets::version(), next, wrong: Some(wrong) };
    (status, html(&page)).into_response()
}

/// Begins a session for a token.
pub(super) async fn sign_in(State(page): State<Page>, request: Request) -> Response {
    let bytes = axum::body::to_bytes(request.into_body(), FORM_BYTES_MAX).await;
    let form = bytes.ok().and_then(|bytes| serde_urlencoded::from_bytes::<SignIn>(&bytes).ok());
    let Some(SignIn { token, next }) = form else {
        return Failure::new(StatusCode::BAD_REQUEST, "the form did not arrive").into_response();
    };
    let next = page_of_ours(&next);
    if page.sign_ins.check().is_err() {
        let wrong = "Too many have tried to sign in. Wait some seconds and try again.";
        return again(StatusCode::TOO_MANY_REQUESTS, next, wrong);
    }
    let token = token.expose_secret().trim();
    let Some(principal) = page.tokens.principal(token) else {
        tracing::warn!("a sign-in on the page failed: that is not a token of http.tokens_file");
        return again(StatusCode::UNAUTHORIZED, next, "That is not a token of this daemon.");
    };
    let (who, role) = (principal.name, principal.role);
    tracing::info!(who, %role, "signed in on the page");
    let word = page.sessions.begin(TokenHash::of(token), page.api.clock.now());
    keeping(&page.cookie(&word, LIFE_MAX.as_secs()), Redirect::to(next))
}

fn keeping(cookie: &str, response: Redirect) -> Response {
    match HeaderValue::from_str(cookie) {
        Ok(cookie) => ([(header::SET_COOKIE, cookie)], response).into_response(),
        Err(error) => {
            Failure::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response()
        }
    }
}

/// Ends the session.
pub(super) async fn sign_out(State(page): State<Page>, visitor: Visitor) -> Response {
    page.sessions.end(&visitor.open);
    keeping(&page.cookie("", 0), Redirect::to("/page/sign-in"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signing_in_leads_to_a_page_of_ours_and_nowhere_else() {
        for ours in ["/page", "/page/jobs?state=open&text=a%20b", "/page?x=1"] {
            assert_eq!(page_of_ours(ours), ours);
        }
        for other in [
            "",
            "/",
            "/pages",
            "//evil.example",
            "https://evil.example/page/",
            "/page/\\evil",
            "/page/\r\nset-cookie: x=y",
            "/v1/jobs",
            "page/",
        ] {
            assert_eq!(page_of_ours(other), HOME, "{other}");
        }
    }
}
