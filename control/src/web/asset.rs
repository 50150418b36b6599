use std::sync::LazyLock;

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

use super::page::secured;
use crate::http::problem::{ApiError, Named};

/// A file that pages load.
struct Asset {
    name: String,
    kind: &'static str,
    text: &'static str,
}

impl Asset {
    /// Named by what it holds: it may be kept for ever.
    fn new(name: &str, ending: &str, kind: &'static str, text: &'static str) -> Self {
        let hash = hex::encode(Sha256::digest(text));
        let short = hash.get(..16).unwrap_or(&hash);
        Self {
            name: format!("{name}-{short}.{ending}"),
            kind,
            text,
        }
    }

    fn path(&self) -> String {
        format!("/assets/{}", self.name)
    }
}

static STYLE: LazyLock<Asset> = LazyLock::new(|| {
    let text = include_str!("../../assets/style.css");
    Asset::new("style", "css", "text/css; charset=utf-8", text)
});

static LIVE: LazyLock<Asset> = LazyLock::new(|| {
    let text = include_str!("../../assets/live.js");
    Asset::new("live", "js", "text/javascript; charset=utf-8", text)
});

static PREVIEW: LazyLock<Asset> = LazyLock::new(|| {
    let text = include_str!("../../assets/preview.js");
    Asset::new("preview", "js", "text/javascript; charset=utf-8", text)
});

static ICON: LazyLock<Asset> = LazyLock::new(|| {
    let text = include_str!("../../assets/icon.svg");
    Asset::new("icon", "svg", "image/svg+xml", text)
});

/// Where the style sheet is.
pub(super) fn style_path() -> String {
    STYLE.path()
}

/// Where the module for live updates is.
pub(super) fn live_path() -> String {
    LIVE.path()
}

/// Where the module is that shows what a form would do, as it is filled in.
pub(super) fn preview_path() -> String {
    PREVIEW.path()
}

/// Where the icon is.
pub(super) fn icon_path() -> String {
    ICON.path()
}

/// Answers with a file that pages load.
pub(super) async fn serve(Named(file): Named) -> Response {
    let known = [&*STYLE, &*LIVE, &*PREVIEW, &*ICON];
    let Some(asset) = known.into_iter().find(|asset| asset.name == file) else {
        return super::told(ApiError::not_found("file", &file).0);
    };
    let headers = [
        (header::CONTENT_TYPE, asset.kind),
        (header::CACHE_CONTROL, "public, max-age=31536000, immutable"),
    ];
    secured((StatusCode::OK, headers, asset.text).into_response())
}
