use std::sync::LazyLock;

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

use super::page::secured;
use crate::http::problem::{ApiError, Named};

const STYLE: &str = include_str!("../../assets/style.css");

/// Names what it holds: it may be kept for ever.
static STYLE_NAME: LazyLock<String> = LazyLock::new(|| {
    let hash = hex::encode(Sha256::digest(STYLE));
    format!("style-{}.css", hash.get(..16).unwrap_or(&hash))
});

/// Where the style sheet is.
pub(super) fn style_path() -> String {
    format!("/assets/{}", *STYLE_NAME)
}

/// A file that pages load.
pub(super) async fn serve(Named(file): Named) -> Response {
    if file != *STYLE_NAME {
        return super::told(ApiError::not_found("file", &file).0);
    }
    let headers = [
        (header::CONTENT_TYPE, "text/css; charset=utf-8"),
        (header::CACHE_CONTROL, "public, max-age=31536000, immutable"),
    ];
    secured((StatusCode::OK, headers, STYLE).into_response())
}
