//! Lists that may be long: who looks, which of the things are wanted, and how many at a time.

use std::collections::{BTreeSet, HashMap};

use carnet_core::ids::AccountId;
use carnet_core::policy::Country;
use sqlx::Row;

use super::{Store, StoreError};

/// Whose eyes a list is made for. What they may not see is not in it, and is not counted.
#[derive(Debug, Clone, Copy)]
pub struct Sight {
    pub account: AccountId,
    /// Sees what is others'.
    pub sees_everything: bool,
    pub is_edge_owner: bool,
    pub is_container_owner: bool,
}

/// Which of what is seen is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    All,
    Own,
    Others,
}

impl Whose {
    /// Whether it is to be the viewer's own; `None`: either will do.
    pub(super) fn is_own(self) -> Option<bool> {
        match self {
            Self::All => None,
            Self::Own => Some(true),
            Self::Others => Some(false),
        }
    }
}

/// What is looked for, and how many of what is found are wanted.
#[derive(Debug, Clone, Default)]
pub struct Search {
    /// What stands in one of the texts that are looked through; `None`: anything.
    pub text: Option<String>,
    /// So many of the first are left out.
    pub offset: u32,
    /// At most so many; `None`: all.
    pub limit: Option<u32>,
}

impl Search {
    /// For `LIKE … ESCAPE '\\'`: the text anywhere, whatever its case.
    pub(super) fn pattern(&self) -> Option<String> {
        let text = self.text.as_deref()?;
        let mut pattern = String::from("%");
        for character in text.chars() {
            if matches!(character, '%' | '_' | '\\') {
                pattern.push('\\');
            }
            pattern.push(character);
        }
        pattern.push('%');
        Some(pattern)
    }

    /// The codes of the countries that are meant, as a JSON array: by their code, or by a part of
    /// their name.
    pub(super) fn countries(&self) -> Result<String, StoreError> {
        let text = self.text.as_deref().unwrap_or_default().to_lowercase();
        let meant: Vec<String> = Country::every()
            .into_iter()
            .filter(|(code, name)| {
                *code == text || (text.len() > 2 && name.to_lowercase().contains(&text))
            })
            .map(|(code, _)| code)
            .collect();
        super::to_json(&meant)
    }

    /// For `LIMIT`: SQLite takes a negative one for none.
    pub(super) fn limit(&self) -> i64 {
        self.limit.map_or(-1, i64::from)
    }
}

/// A part of a list.
#[derive(Debug, Clone)]
pub struct Listed<T> {
    pub items: Vec<T>,
    /// How many there are in all.
    pub count: u64,
}

impl Store {
    /// What accounts, containers and edges with these ids are called now; of what there is no more
    /// there is no name.
    ///
    /// # Errors
    /// Where the database does.
    pub async fn names(
        &self,
        ids: &BTreeSet<String>,
    ) -> Result<HashMap<String, String>, StoreError> {
        let wanted = super::to_json(ids)?;
        sqlx::query(
            "WITH wanted AS (SELECT value AS id FROM json_each(?))
             SELECT id, name FROM accounts WHERE id IN wanted
             UNION ALL SELECT id, name FROM containers WHERE id IN wanted
             UNION ALL SELECT id, name FROM edges WHERE id IN wanted",
        )
        .bind(wanted)
        .fetch_all(&self.pool)
        .await?
        .iter()
        .map(|row| Ok((row.try_get("id")?, row.try_get("name")?)))
        .collect()
    }
}
