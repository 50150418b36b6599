//! The database's schema: each version is the one before, and one file of `control/migrations`.
//!
//! sqlx has a macro that finds the files by itself; it would have SQLite built a second time, for
//! the compiler, which takes a processor more than a minute.

use sqlx::SqlSafeStr;
use sqlx::migrate::{Migration, MigrationType, Migrator};

/// Number, name and text of each version.
const VERSIONS: [(i64, &str, &str); 10] = [
    (1, "first", include_str!("../../migrations/0001_first.sql")),
    (
        2,
        "ledger",
        include_str!("../../migrations/0002_ledger.sql"),
    ),
    (
        3,
        "witness",
        include_str!("../../migrations/0003_witness.sql"),
    ),
    (
        4,
        "renewal",
        include_str!("../../migrations/0004_renewal.sql"),
    ),
    (
        5,
        "strategies",
        include_str!("../../migrations/0005_strategies.sql"),
    ),
    (
        6,
        "cancel",
        include_str!("../../migrations/0006_cancel.sql"),
    ),
    (7, "web", include_str!("../../migrations/0007_web.sql")),
    (
        8,
        "auditor",
        include_str!("../../migrations/0008_auditor.sql"),
    ),
    (
        9,
        "utilization",
        include_str!("../../migrations/0009_utilization.sql"),
    ),
    (10, "terms", include_str!("../../migrations/0010_terms.sql")),
];

/// Brings a database of whatever earlier version to this one.
pub(super) fn migrator() -> Migrator {
    let versions = VERSIONS.map(|(number, name, text)| {
        let kind = MigrationType::Simple;
        Migration::new(number, name.into(), kind, text.into_sql_str(), false)
    });
    Migrator::with_migrations(versions.into())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn every_file_is_a_version() {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations");
        let mut files: Vec<(String, String)> = fs::read_dir(directory)
            .unwrap()
            .map(|file| file.unwrap())
            .map(|file| {
                let name = file.file_name().into_string().unwrap();
                (name, fs::read_to_string(file.path()).unwrap())
            })
            .collect();
        files.sort();
        let versions = VERSIONS
            .map(|(number, name, text)| (format!("{number:04}_{name}.sql"), text.to_owned()));
        assert_eq!(files, versions);
    }
}
