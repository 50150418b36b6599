use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use crate::http::problem::ApiError;

/// The field in which something is picked for the list `name`.
pub(super) fn pick_name(name: &str) -> String {
    format!("{name}_pick")
}

/// The field that says how it is meant: `allowed` or `excluded`.
pub(super) fn pick_as_name(name: &str) -> String {
    format!("{name}_as")
}

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

    /// The text of a list, and what was picked for it from the list beside.
    pub(super) fn list(&self, name: &str) -> String {
        let text = self.text(name);
        let picked = self.text(&pick_name(name));
        if picked.is_empty() {
            return text.to_owned();
        }
        let sign = if self.text(&pick_as_name(name)) == "excluded" {
            "-"
        } else {
            ""
        };
        let picked = format!("{sign}{picked}");
        if text.is_empty() || text == "*" {
            picked
        } else if text.split(',').any(|listed| listed.trim() == picked) {
            text.to_owned()
        } else {
            format!("{text},{picked}")
        }
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
