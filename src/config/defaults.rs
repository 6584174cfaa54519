//! What holds where nothing is configured; `config/settled.example.toml` shows and explains the same.

use std::{net::SocketAddr, path::PathBuf};

use super::{
    AmountForm, ArchiveConfig, AuthStyle, BrokerConfig, BrokerUrl, DecideConfig, HealthConfig,
    HttpConfig, LogConfig, LogFormat, OesConfig, OperatorConfig, RetryConfig, ShutdownConfig,
    StoreConfig, WriterConfig,
};

impl Default for StoreConfig {
    fn default() -> Self {
        Self { path: PathBuf::from("settled.db"), mark_path: None }
    }
}

impl Default for BrokerConfig {
    fn default() -> Self {
        Self {
            url: BrokerUrl::from("amqp://127.0.0.1:5672/%2f".to_owned()),
            password_file: None,
            declare: false,
            jobs_queue: "settled.jobs".to_owned(),
            book_queue: None,
            outcomes_exchange: "settled.outcomes".to_owned(),
            dead_letter_exchange: "settled.dead".to_owned(),
            prefetch: 256,
            heartbeat_s: 10,
            connect_timeout_ms: 10_000,
            call_timeout_ms: 10_000,
            watchdog_s: 10,
            reconnect_base_ms: 200,
            reconnect_max_ms: 5_000,
        }
    }
}

impl Default for OesConfig {
    fn default() -> Self {
        Self {
            base_url: None,
            enterprise_id: None,
            access_token_file: None,
            auth: AuthStyle::Bearer,
            amounts: AmountForm::BaseUnits,
            allow_plain_http: false,
            connect_timeout_ms: 5_000,
            request_timeout_ms: 30_000,
            response_bytes_max: 1_024 * 1_024,
            in_flight_max: 512,
            rate_limit: 360,
            rate_window_s: 60,
            rate_burst: 60,
        }
    }
}

impl Default for DecideConfig {
    fn default() -> Self {
        Self { unknown_connection_grace_s: 60, verify_with_oes: true }
    }
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self {
            base_ms: 500,
            max_ms: 300_000,
            attempts_max: 20,
            age_max_s: 86_400,
            not_found_attempts_max: 4,
            absent_reads_max: 8,
            approval_read_every_s: 30,
            slow_read_every_s: 900,
        }
    }
}

impl Default for WriterConfig {
    fn default() -> Self {
        Self { batch_max: 256, queue_len_max: 1_024, lazy_ms: 250 }
    }
}

impl Default for ArchiveConfig {
    fn default() -> Self {
        Self { path: None, after_days: 90, every_s: 3_600 }
    }
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 9_464)),
            tokens_file: None,
            page: true,
            behind_tls: false,
        }
    }
}

impl Default for OperatorConfig {
    fn default() -> Self {
        Self { confirm_within_s: 4 * 3_600 }
    }
}

impl Default for HealthConfig {
    fn default() -> Self {
        Self { stuck_after_s: 120 }
    }
}

impl Default for ShutdownConfig {
    fn default() -> Self {
        Self { grace_s: 20 }
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { format: LogFormat::Text, filter: "info".to_owned() }
    }
}
