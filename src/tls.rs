//! The cryptography behind TLS, chosen once for the process: both reqwest and lapin ask rustls for it.

/// Makes ring the process's provider. Whoever opens a connection calls it first; calls after the
/// first change nothing.
pub fn use_ring() {
    // A second installation is refused, which is fine: there is a provider then.
    let _installed = rustls::crypto::ring::default_provider().install_default();
}
