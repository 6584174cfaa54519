//! Style, script and icon: in the binary, so that nothing is fetched from anywhere else.

use std::sync::OnceLock;

use axum::{
    extract::Path,
    http::{HeaderValue, header},
    response::{IntoResponse as _, Response},
};
use sha2::{Digest as _, Sha256};

use super::failure::Failure;

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");
const ICON: &str = include_str!("icon.svg");

/// They are asked for with a version in their address, so that they can be kept.
const KEPT: HeaderValue = HeaderValue::from_static("private, max-age=604800, immutable");

/// Bytes of the hash that tells one version from another.
const VERSION_BYTES: usize = 6;

/// Tells this version of style and script from others.
pub(super) fn version() -> &'static str {
    static VERSION: OnceLock<String> = OnceLock::new();
    VERSION.get_or_init(|| {
        let hash = Sha256::new().chain_update(STYLE).chain_update(SCRIPT).finalize();
        hex::encode(hash.get(..VERSION_BYTES).unwrap_or_default())
    })
}

/// One of them.
pub(super) async fn get(Path(file): Path<String>) -> Result<Response, Failure> {
    let (kind, text) = match file.as_str() {
        "page.css" => ("text/css; charset=utf-8", STYLE),
        "page.js" => ("text/javascript; charset=utf-8", SCRIPT),
        "icon.svg" => ("image/svg+xml", ICON),
        _ => return Err(Failure::not_found("there is no such file")),
    };
    let headers =
        [(header::CONTENT_TYPE, HeaderValue::from_static(kind)), (header::CACHE_CONTROL, KEPT)];
    Ok((headers, text).into_response())
}
