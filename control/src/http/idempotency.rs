//! Creation that is done once, however often it is asked for: `Idempotency-Key`.

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use carnet_core::instant::UnixMillis;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::access::Caller;
use super::problem::ApiError;
use super::{App, MAX_BODY};
use crate::clock;
use crate::store::{Begun, Kept};

/// How long an answer is kept.
const KEPT_MS: i64 = 24 * 3600 * 1000;
/// The longest key, in bytes.
const MAX_KEY: usize = 255;
/// Fields that are shown once; they are never kept.
const SECRETS: [&str; 4] = ["secret", "key", "code", "token"];

/// Answers a repeated request as the first one was answered.
pub async fn once(State(app): State<App>, request: Request, next: Next) -> Response {
    let key = request.headers().get("idempotency-key").cloned();
    let caller = request.extensions().get::<Caller>().cloned();
    match (key, caller) {
        (Some(key), Some(caller)) if request.method() == Method::POST => {
            // In a task of its own: who hangs up and asks again is to find an answer.
            tokio::spawn(async move {
                answer_once(&app, &key, &caller, request, next)
                    .await
                    .unwrap_or_else(IntoResponse::into_response)
            })
            .await
            .unwrap_or_else(|error| ApiError::internal(&error).into_response())
        }
        _ => next.run(request).await,
    }
}

async fn answer_once(
    app: &App,
    key: &HeaderValue,
    caller: &Caller,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let key = key
        .to_str()
        .ok()
        .filter(|key| !key.is_empty() && key.len() <= MAX_KEY)
        .ok_or_else(|| {
            ApiError::fault(
                "Idempotency-Key",
                &String::from_utf8_lossy(key.as_bytes()),
                "not a key",
                "1 to 255 visible ASCII characters",
            )
        })?;
    let (parts, body) = request.into_parts();
    // Or the body broke off, and nobody reads the answer.
    let body = to_bytes(body, MAX_BODY)
        .await
        .map_err(|_| ApiError::too_large())?;
    let mut hash = Sha256::new();
    hash.update(parts.uri.path());
    hash.update([0]);
    hash.update(&body);
    let now = clock::now();
    let begun = app
        .store
        .begin_once(
            caller.account,
            key,
            &hash.finalize(),
            now,
            UnixMillis(now.0 - KEPT_MS),
        )
        .await?;
    match begun {
        Begun::Answered(kept) => return Ok(replay(kept)),
        Begun::UnderWay => {
            return Err(ApiError::conflict(
                "a request with this Idempotency-Key is under way, or was cut off; look whether it was carried out, and use another key",
            ));
        }
        Begun::OtherRequest => {
            return Err(ApiError::fault(
                "Idempotency-Key",
                key,
                "used for another request before",
                "a key of its own for each request",
            ));
        }
        Begun::New => {}
    }
    let response = next.run(Request::from_parts(parts, Body::from(body))).await;
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, usize::MAX)
        .await
        .map_err(|error| ApiError::internal(&error))?;
    // What failed on our side may well succeed the next time.
    let kept = (!parts.status.is_server_error()).then(|| Kept {
        status: parts.status.as_u16(),
        body: without_secrets(&body),
        location: parts
            .headers
            .get(header::LOCATION)
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned),
    });
    app.store
        .end_once(caller.account, key, kept.as_ref())
        .await?;
    Ok(Response::from_parts(parts, Body::from(body)))
}

fn without_secrets(body: &Bytes) -> String {
    match serde_json::from_slice::<Value>(body) {
        Ok(Value::Object(mut object)) => {
            for secret in SECRETS {
                object.remove(secret);
            }
            Value::Object(object).to_string()
        }
        _ => String::from_utf8_lossy(body).into_owned(),
    }
}

fn replay(kept: Kept) -> Response {
    let status = StatusCode::from_u16(kept.status).unwrap_or(StatusCode::OK);
    let kind = if status.is_success() {
        "application/json"
    } else {
        "application/problem+json"
    };
    let mut response = (
        status,
        [
            (header::CONTENT_TYPE.as_str(), kind),
            ("idempotency-replayed", "true"),
        ],
        kept.body,
    )
        .into_response();
    if let Some(location) = kept.location.and_then(|path| path.parse().ok()) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}
