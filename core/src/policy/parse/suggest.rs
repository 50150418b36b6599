use super::super::Country;

/// How alike two words must be (Jaro-Winkler, 0 to 1) for one to be taken for the other.
const ALIKE: f64 = 0.8;

/// Longer than anything that is known, in bytes. Likeness takes time by the length of both.
const MAX_WRITTEN: usize = 128;

/// What is often written for a country and is no code of ISO 3166-1.
const OTHER_NAMES: [(&str, &str); 8] = [
    ("uk", "gb"),
    ("england", "gb"),
    ("usa", "us"),
    ("america", "us"),
    ("korea", "kr"),
    ("russia", "ru"),
    ("taiwan", "tw"),
    ("vietnam", "vn"),
];

/// The word of `known` that `written` is most alike to, if any is alike at all.
pub fn nearest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if written.len() > MAX_WRITTEN {
        return None;
    }
    let written = written.to_lowercase();
    known
        .into_iter()
        .map(|word| (strsim::jaro_winkler(&written, &word.to_lowercase()), word))
        .filter(|(likeness, _)| *likeness >= ALIKE)
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, word)| word)
}

/// The code of the country that `written` may have meant: an English name, a three-letter code,
/// or a name like one.
pub(super) fn country(written: &str) -> Option<String> {
    if written.len() > MAX_WRITTEN {
        return None;
    }
    let lower = written.to_lowercase();
    if let Some((_, code)) = OTHER_NAMES.iter().find(|(name, _)| *name == lower) {
        return Some((*code).to_owned());
    }
    let all = rust_iso3166::ALL;
    let code = |alpha2: &str| Country::from_code(alpha2).map(|country| country.to_string());
    if let Some(found) = all.iter().find(|country| {
        country.alpha3.eq_ignore_ascii_case(&lower) || country.name.to_lowercase() == lower
    }) {
        return code(found.alpha2);
    }
    if lower.len() < 3 {
        return None;
    }
    all.iter()
        .map(|country| {
            (
                strsim::jaro_winkler(&lower, &country.name.to_lowercase()),
                country.alpha2,
            )
        })
        .filter(|(likeness, _)| *likeness >= ALIKE)
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .and_then(|(_, alpha2)| code(alpha2))
}
