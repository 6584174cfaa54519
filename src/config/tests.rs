use super::*;

fn load(environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let environment =
        environment.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    let nothing = tempfile::NamedTempFile::new().unwrap();
    Config::load_with(Some(nothing.path()), Some(environment.collect()))
}

#[test]
fn the_environment_overrides_keys_of_every_type() {
    let config = load(&[
        ("SETTLED__BROKER__URL", "amqp://user:pass@host/%2f"),
        ("SETTLED__BROKER__PREFETCH", "7"),
        ("SETTLED__BROKER__DECLARE", "true"),
        ("SETTLED__OES__ENTERPRISE_ID", "12345678"),
        ("SETTLED__OES__AUTH", "hmac"),
        ("SETTLED__HTTP__LISTEN", "127.0.0.1:0"),
        ("SETTLED_CONFIG", "is not a key"),
    ])
    .unwrap();
    assert_eq!(config.broker.prefetch, 7);
    assert!(config.broker.declare);
    assert_eq!(config.oes.enterprise_id.as_deref(), Some("12345678"));
    assert_eq!(config.oes.auth, AuthStyle::Hmac);
    assert_eq!(config.http.listen.port(), 0);
}

#[test]
fn unknown_keys_are_refused_and_named() {
    for key in ["SETTLED__BROKER__URI", "SETTLED__BROKR__URL"] {
        let error = load(&[(key, "x")]).unwrap_err().to_string();
        assert!(error.contains("uri") || error.contains("brokr"), "{error}");
    }
}

#[test]
fn what_cannot_work_is_refused_with_all_its_reasons() {
    let error = load(&[("SETTLED__BROKER__PREFETCH", "0"), ("SETTLED__OES__RATE_BURST", "360")])
        .unwrap_err()
        .to_string();
    assert!(error.contains("broker.prefetch") && error.contains("oes.rate_burst"), "{error}");
}

#[test]
fn the_broker_s_password_is_never_shown() {
    let config =
        load(&[("SETTLED__BROKER__URL", "amqps://user:p@ss:w0rd@broker.example:5671/live")])
            .unwrap();
    let shown = format!("{config:?} {}", config.broker.url);
    assert!(!shown.contains("w0rd") && !shown.contains("user"), "{shown}");
    assert!(shown.contains("amqps://broker.example:5671/live"));
}
