//! Long lists, a page at a time.

use form_urlencoded::Serializer;

use crate::http::listing::Listing;
use crate::store::listing::Listed;

/// How many rows a page shows of a list.
pub(super) const ROWS: u32 = 50;

/// What is asked for in a page's address, of which one is the number of the page of a list.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    path: String,
    /// In the order in which they stand in addresses; those that are empty are left out.
    fields: Vec<(&'static str, String)>,
}

impl Asked {
    pub(super) fn new(path: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            fields: Vec::new(),
        }
    }

    pub(super) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.fields.push((name, value.into()));
        self
    }

    /// The page of the list `list`, if it is asked for.
    pub(super) fn with_page(self, list: &'static str, page: Option<u32>) -> Self {
        self.with(list, page.map(|page| page.to_string()).unwrap_or_default())
    }

    /// What is asked for, as the part of an address behind its `?`.
    pub(super) fn query(&self) -> String {
        let mut query = Serializer::new(String::new());
        for (name, value) in &self.fields {
            if !value.is_empty() {
                query.append_pair(name, value);
            }
        }
        query.finish()
    }

    /// The same address, with another value of a field.
    pub(super) fn but(&self, name: &'static str, value: &str) -> String {
        let mut other = self.clone();
        match other.fields.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => value.clone_into(known),
            None => other.fields.push((name, value.to_owned())),
        }
        match other.query() {
            query if query.is_empty() => other.path,
            query => format!("{}?{query}", other.path),
        }
    }
}

/// Which part of a list is shown, and where the parts beside it are.
#[derive(Debug, Clone, Default)]
pub(super) struct Pager {
    /// The first that is shown, counted from 1.
    pub first: u64,
    pub last: u64,
    /// How many there are in all.
    pub count: u64,
    pub before: Option<String>,
    pub behind: Option<String>,
}

impl Pager {
    /// Whether there is more than one page.
    pub(super) fn is_needed(&self) -> bool {
        self.before.is_some() || self.behind.is_some()
    }
}

/// A part of a list.
#[derive(Debug, Clone)]
pub(super) struct Paged<T> {
    pub rows: Vec<T>,
    pub pager: Pager,
}

impl<T> Paged<T> {
    pub(super) fn map<U>(self, row: impl FnMut(T) -> U) -> Paged<U> {
        Paged {
            rows: self.rows.into_iter().map(row).collect(),
            pager: self.pager,
        }
    }
}

/// What is to be read for the page `page` of a list, from 1.
pub(super) fn listing(search: &str, page: Option<u32>) -> Listing {
    Listing {
        search: Some(search.to_owned()),
        offset: Some(number(page).saturating_sub(1).saturating_mul(ROWS)),
        limit: Some(ROWS),
    }
}

/// What was read for the page `page`. `list` is the field of the address that names the page.
pub(super) fn paged<T>(
    asked: &Asked,
    list: &'static str,
    page: Option<u32>,
    found: Listed<T>,
) -> Paged<T> {
    of_pages(asked, list, number(page), ROWS, found.items, found.count)
}

fn number(page: Option<u32>) -> u32 {
    page.unwrap_or(1).max(1)
}

/// The page `page` of a list that is known whole, of which a page shows `rows`.
pub(super) fn cut<T>(
    asked: &Asked,
    list: &'static str,
    page: Option<u32>,
    rows: u32,
    all: Vec<T>,
) -> Paged<T> {
    let page = number(page);
    let count = all.len() as u64;
    let skipped = (page - 1) as usize * rows as usize;
    let shown = all.into_iter().skip(skipped).take(rows as usize).collect();
    of_pages(asked, list, page, rows, shown, count)
}

fn of_pages<T>(
    asked: &Asked,
    list: &'static str,
    page: u32,
    rows: u32,
    shown: Vec<T>,
    count: u64,
) -> Paged<T> {
    let skipped = u64::from(page - 1) * u64::from(rows);
    // Behind the last page there is nothing, and the way back to it.
    let last_page = u32::try_from(count.div_ceil(rows.into())).unwrap_or(u32::MAX);
    let before = match (page - 1).min(last_page) {
        0 => None,
        // The first page has the plain address.
        1 => Some(asked.but(list, "")),
        before => Some(asked.but(list, &before.to_string())),
    };
    let last = skipped + shown.len() as u64;
    let pager = Pager {
        first: if shown.is_empty() { 0 } else { skipped + 1 },
        last: if shown.is_empty() { 0 } else { last },
        count,
        before,
        behind: (last < count).then(|| asked.but(list, &(page + 1).to_string())),
    };
    Paged { rows: shown, pager }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(page: Option<u32>) -> Paged<u32> {
        let asked = Asked::new("/things")
            .with("search", "a&b")
            .with_page("page", page);
        cut(&asked, "page", page, 10, (1..=25).collect())
    }

    #[test]
    fn pages_lead_to_each_other_and_keep_what_was_asked() {
        let first = numbers(None);
        assert_eq!(first.rows, (1..=10).collect::<Vec<_>>());
        assert_eq!(first.pager.before, None);
        assert_eq!(
            first.pager.behind.as_deref(),
            Some("/things?search=a%26b&page=2")
        );
        let second = numbers(Some(2));
        assert_eq!((second.pager.first, second.pager.last), (11, 20));
        assert_eq!(second.pager.before.as_deref(), Some("/things?search=a%26b"));
        let third = numbers(Some(3));
        assert_eq!(third.rows, [21, 22, 23, 24, 25]);
        assert_eq!((third.pager.first, third.pager.last), (21, 25));
        assert_eq!(third.pager.behind, None);
        assert_eq!(
            third.pager.before.as_deref(),
            Some("/things?search=a%26b&page=2")
        );
    }

    #[test]
    fn behind_the_last_page_is_the_way_back_to_it() {
        assert_eq!(numbers(Some(0)).rows, numbers(None).rows);
        let behind = numbers(Some(u32::MAX));
        assert!(behind.rows.is_empty());
        assert_eq!((behind.pager.first, behind.pager.last), (0, 0));
        assert_eq!(
            behind.pager.before.as_deref(),
            Some("/things?search=a%26b&page=3")
        );
        assert_eq!(behind.pager.behind, None);
    }

    #[test]
    fn of_nothing_there_is_one_page() {
        let none: Paged<u32> = cut(&Asked::new("/things"), "page", Some(7), 10, Vec::new());
        assert!(!none.pager.is_needed());
        assert_eq!(
            (none.pager.first, none.pager.last, none.pager.count),
            (0, 0, 0)
        );
        assert_eq!(Asked::new("/things").but("page", ""), "/things");
    }
}
