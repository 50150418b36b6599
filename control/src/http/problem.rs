use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use carnet_api::v1::{InputFault, Problem};
use carnet_core::policy::{Fault, Faults};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::MAX_BODY;
use crate::store::StoreError;

/// An error as the API answers it.
#[derive(Debug, Clone)]
pub struct ApiError(pub Problem);

impl ApiError {
    fn new(status: StatusCode, name: &str, title: &str, detail: impl Into<String>) -> Self {
        Self(Problem {
            kind: format!("urn:carnet:problem:{name}"),
            title: title.to_owned(),
            status: status.as_u16(),
            detail: Some(detail.into()),
            faults: Vec::new(),
        })
    }

    pub fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// There is no such thing, or it is not the caller's to see.
    pub fn not_found(what: &str, name: &str) -> Self {
        let shown: String = name.chars().take(80).collect();
        Self::new(
            StatusCode::NOT_FOUND,
            "not-found",
            "not found",
            format!("there is no {what} `{shown}`, or you may not see it"),
        )
    }

    pub fn no_route(path: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "no-such-route",
            "no such route",
            format!("the API has nothing at `{path}`; /v1/openapi.json describes what it has"),
        )
    }

    pub fn method(method: &str, path: &str) -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method-not-allowed",
            "method not allowed",
            format!("`{method}` cannot be done to `{path}`"),
        )
    }

    pub fn unauthenticated(detail: &str) -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "unauthenticated",
            "not authenticated",
            detail,
        )
    }

    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", "not allowed", detail)
    }

    /// What was put in is right in form, and refused.
    pub fn refused_input(detail: impl Into<String>) -> Self {
        Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "refused-input",
            "not accepted",
            detail,
        )
    }

    /// It was asked for too often.
    pub fn too_many(detail: impl Into<String>) -> Self {
        Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "too-many-attempts",
            "too many attempts",
            detail,
        )
    }

    /// It is there already, or in a state in which this cannot be done.
    pub fn conflict(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "conflict", "conflict", detail)
    }

    /// An edge's agent did not do what it was asked.
    pub fn edge(detail: impl Into<String>) -> Self {
        Self::new(
            StatusCode::BAD_GATEWAY,
            "edge-failed",
            "the edge did not do what it was asked",
            detail,
        )
    }

    /// The body is not one that this route takes.
    fn unfit_body(status: StatusCode, title: &str, detail: impl Into<String>) -> Self {
        Self::new(status, "unfit-body", title, detail)
    }

    /// The body is larger than any that is read.
    pub fn too_large() -> Self {
        Self::unfit_body(
            StatusCode::PAYLOAD_TOO_LARGE,
            "the body is too large",
            format!("a body may have {MAX_BODY} bytes at most"),
        )
    }

    /// The input is understood and wrong; every fault is told.
    pub fn faults(faults: Vec<InputFault>) -> Self {
        let mut error = Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "faulty-input",
            "faulty input",
            match faults.len() {
                1 => "the input has a fault".to_owned(),
                count => format!("the input has {count} faults"),
            },
        );
        error.0.faults = faults;
        error
    }

    /// One field is wrong.
    pub fn fault(place: &str, found: &str, problem: &str, allowed: &str) -> Self {
        Self::faults(vec![InputFault {
            place: place.to_owned(),
            found: found.chars().take(80).collect(),
            problem: problem.to_owned(),
            allowed: allowed.to_owned(),
            suggestion: None,
        }])
    }

    /// Something that must not happen. What it is goes to the log, not to the caller.
    pub fn internal(error: &dyn std::fmt::Display) -> Self {
        tracing::error!(%error, "internal error");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "internal error",
            "Carnet is at fault; its log says more",
        )
    }
}

/// For people, in one line.
impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.detail.as_deref().unwrap_or(&self.0.title))?;
        for fault in &self.0.faults {
            write!(f, "; {}: {}: `{}`", fault.place, fault.problem, fault.found)?;
        }
        Ok(())
    }
}

impl std::error::Error for ApiError {}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        Self::internal(&error)
    }
}

/// A fault of a policy, as the API tells it.
pub fn input_fault(fault: &Fault) -> InputFault {
    InputFault {
        place: fault.place.clone(),
        found: fault.found.clone(),
        problem: fault.problem.clone(),
        allowed: fault.allowed.clone(),
        suggestion: fault.suggestion.clone(),
    }
}

impl From<Faults> for ApiError {
    fn from(faults: Faults) -> Self {
        Self::faults(faults.0.iter().map(input_fault).collect())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = self.status();
        let mut response = (
            status,
            [(header::CONTENT_TYPE, "application/problem+json")],
            Json(self.0),
        )
            .into_response();
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(
                header::WWW_AUTHENTICATE,
                header::HeaderValue::from_static("Bearer"),
            );
        }
        response
    }
}

/// A JSON body. Whatever is wrong with it is told as a [`Problem`].
pub struct Input<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Input<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, Self::Rejection> {
        let (parts, body) = request.into_parts();
        let body = Bytes::from_request(Request::from_parts(parts.clone(), body), state)
            .await
            .map_err(JsonRejection::from)?;
        let request = Request::from_parts(parts, Body::from(body.clone()));
        let is_object = body.trim_ascii_start().starts_with(b"{");
        match Json::<T>::from_request(request, state).await {
            // An array would be taken for an object's values in their order.
            Ok(_) | Err(JsonRejection::JsonDataError(_)) if !is_object => {
                Err(ApiError::unfit_body(
                    StatusCode::UNPROCESSABLE_ENTITY,
                    "the body does not fit",
                    "an object is expected",
                ))
            }
            Ok(Json(value)) => Ok(Self(value)),
            Err(JsonRejection::JsonSyntaxError(error)) => {
                Err(misfit::<T>(&body)
                    .unwrap_or_else(|| JsonRejection::JsonSyntaxError(error).into()))
            }
            Err(rejection) => Err(rejection.into()),
        }
    }
}

/// What does not fit in a body that is JSON all the same: to serde_json, an object with two
/// fields where one of several may stand is a fault of syntax.
fn misfit<T: DeserializeOwned>(body: &[u8]) -> Option<ApiError> {
    let value: Value = serde_json::from_slice(body).ok()?;
    let misfit = T::deserialize(value).err()?;
    Some(ApiError::unfit_body(
        StatusCode::UNPROCESSABLE_ENTITY,
        "the body does not fit",
        misfit.to_string(),
    ))
}

impl From<JsonRejection> for ApiError {
    fn from(rejection: JsonRejection) -> Self {
        let status = rejection.status();
        match &rejection {
            JsonRejection::JsonDataError(error) => {
                Self::unfit_body(status, "the body does not fit", cause(error))
            }
            JsonRejection::JsonSyntaxError(error) => {
                Self::unfit_body(status, "the body is not JSON", cause(error))
            }
            JsonRejection::MissingJsonContentType(_) => Self::unfit_body(
                status,
                "the body is not declared as JSON",
                "send it with the header `Content-Type: application/json`",
            ),
            _ if status == StatusCode::PAYLOAD_TOO_LARGE => Self::too_large(),
            _ => Self::unfit_body(status, "the body cannot be read", rejection.body_text()),
        }
    }
}

/// What serde says: which field, what of it, and where.
fn cause(error: &dyn std::error::Error) -> String {
    error
        .source()
        .map_or_else(|| error.to_string(), ToString::to_string)
}

/// The name or id in a path. What is not UTF-8 names nothing.
pub struct Named(pub String);

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        let named = Path::<String>::from_request_parts(parts, state).await;
        named
            .map(|Path(name)| Self(name))
            .map_err(|_: PathRejection| ApiError::no_route(parts.uri.path()))
    }
}

/// Two of them, in the order in which they stand in a path.
pub struct NamedPair(pub String, pub String);

impl<S: Send + Sync> FromRequestParts<S> for NamedPair {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        let named = Path::<(String, String)>::from_request_parts(parts, state).await;
        named
            .map(|Path((one, two))| Self(one, two))
            .map_err(|_: PathRejection| ApiError::no_route(parts.uri.path()))
    }
}

impl From<QueryRejection> for ApiError {
    fn from(rejection: QueryRejection) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "unfit-query",
            "the query does not fit",
            rejection.body_text(),
        )
    }
}
