use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use crate::http::problem::ApiError;

/// What was filled into a form.
#[derive(Debug, Clone, Default)]
pub(super) struct Fields(Arc<Vec<(String, String)>>);

impl Fields {
    /// Reads a body of the type `application/x-www-form-urlencoded`; every body is one.
    pub(super) fn read(body: &[u8]) -> Self {
        Self(Arc::new(
            form_urlencoded::parse(body).into_owned().collect(),
        ))
    }

    /// The text of a field, without what is blank around it; empty where there is none.
    pub(super) fn text(&self, name: &str) -> &str {
        self.raw(name).trim()
    }

    /// The same as it was typed: blanks are a part of a password.
    pub(super) fn raw(&self, name: &str) -> &str {
        self.all(name).next().unwrap_or_default()
    }

    /// Every value of a field.
    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0
            .iter()
            .filter(move |(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Fields {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Self::Rejection> {
        let fields = parts.extensions.get::<Self>().cloned();
        fields.ok_or_else(|| ApiError::internal(&"a page that takes no form asks for its fields"))
    }
}
