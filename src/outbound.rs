//! What all requests that leave the process have in common, whoever makes them: to which addresses they may
//! go, that a request is made once and follows nobody, and how its failure is told.
//!
//! What must never happen here: a second try, a redirect, a proxy; an address in a message, because some have
//! a secret in their path.

use std::net::IpAddr;

use reqwest::{Client, ClientBuilder, Url, redirect};

/// How this program names itself.
const USER_AGENT: &str = concat!("settled/", env!("CARGO_PKG_VERSION"));

/// A client for one address. How long it waits, and how many connections it keeps, is for the caller.
pub fn client_for(url: &Url) -> ClientBuilder {
    crate::tls::use_ring();
    // Plain HTTP needs no certificates, and a small machine may have none.
    let builder = if url.scheme() == "http" {
        Client::builder().tls_certs_only([])
    } else {
        Client::builder()
    };
    builder
        .user_agent(USER_AGENT)
        .redirect(redirect::Policy::none())
        .retry(reqwest::retry::never())
        .no_proxy()
}

/// Whether secrets may be sent to an address: over TLS, to this machine, or where an operator allows it.
/// `carried` is what would go in the clear otherwise, `allowing` how that is allowed.
///
/// # Errors
/// What is wrong with the address, for a reader.
pub fn check(
    url: &Url,
    allow_plain_http: bool,
    carried: &str,
    allowing: &str,
) -> Result<(), String> {
    match url.scheme() {
        "https" => {}
        "http" if allow_plain_http || is_loopback(url) => {}
        "http" => {
            return Err(format!(
                "http would send {carried} in the clear to another machine; use https, or {allowing} if the \
                 way there is protected otherwise"
            ));
        }
        _ => return Err("it must begin with https:// or http://".to_owned()),
    }
    if url.username().is_empty() && url.password().is_none() {
        Ok(())
    } else {
        Err("it must not hold a user or a password".to_owned())
    }
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// What went wrong, without the address: a reader wants the cause.
#[must_use]
pub fn describe(error: &reqwest::Error) -> String {
    let kind = if error.is_timeout() {
        "timed out"
    } else if error.is_connect() {
        "could not connect"
    } else {
        "was cut off"
    };
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    // The library's own words about a request repeat its address; those of a cause below it do not.
    if cause.is::<reqwest::Error>() { kind.to_owned() } else { format!("{kind}: {cause}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_secret_goes_in_the_clear_to_another_machine_unless_that_is_allowed() {
        let checked = |url: &str, allow| {
            check(&url.parse().unwrap(), allow, "the token", "set x.allow_plain_http = true")
        };
        for good in
            ["https://far.example/x", "http://127.0.0.1:1", "http://localhost", "http://[::1]:1"]
        {
            assert_eq!(checked(good, false), Ok(()), "{good}");
        }
        let refused = checked("http://far.example", false).unwrap_err();
        assert!(refused.contains("the token in the clear"), "{refused}");
        assert!(refused.contains("set x.allow_plain_http = true"), "{refused}");
        assert_eq!(checked("http://far.example", true), Ok(()));
        // What only begins like this machine is another one.
        for far in ["http://localhost.example", "http://127.0.0.1.example", "http://10.0.0.1"] {
            assert!(checked(far, false).is_err(), "{far}");
        }
        for bad in ["ftp://far.example", "https://user@far.example", "https://u:p@far.example"] {
            assert!(checked(bad, true).is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn a_failure_is_told_without_the_address() {
        let url: Url = "http://127.0.0.1:1/canary".parse().unwrap();
        let error = client_for(&url).build().unwrap().get(url).send().await.unwrap_err();
        let told = describe(&error);
        assert!(told.starts_with("could not connect") && !told.contains("canary"), "{told}");
    }
}
