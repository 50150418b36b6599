use std::fs;
use std::io::{self, Read as _};
use std::path::Path;

use carnet_core::policy::{
    Attributes, EdgeRow, Faults, Requirements, attributes_from_compact, attributes_from_csv,
    attributes_from_json, attributes_from_toml, nearest, requirements_from_compact,
    requirements_from_csv, requirements_from_json, requirements_from_toml,
};
use serde_json::Value;

use crate::failure::Failure;

/// What people may give for a policy; for the help texts.
pub const FORMATS: &str = "\
A policy is one of:
  a TOML file (.toml) or JSON file (.json) with the long names
  a CSV file (.csv) with a column `name` and the long names or the paper's; the row of that NAME
  a compact row in quotes: every field in the order of the table, separated by spaces
  `-`: one of TOML, JSON or a compact row, from standard input";

/// A policy with the name that stands in its row.
type Named<T> = (String, T);

/// A policy of one kind, and how each format of it is read.
pub struct PolicyKind<T> {
    what: &'static str,
    from_toml: fn(&str) -> Result<T, Faults>,
    from_json: fn(&Value) -> Result<T, Faults>,
    from_compact: fn(&str) -> Result<T, Faults>,
    from_csv: fn(&str) -> Result<Vec<Named<T>>, Faults>,
}

/// What a container's owner requires.
pub const REQUIREMENTS: PolicyKind<Requirements> = PolicyKind {
    what: "requirements",
    from_toml: requirements_from_toml,
    from_json: requirements_from_json,
    from_compact: requirements_from_compact,
    from_csv: requirements_from_csv,
};

/// What an edge's owner declares.
pub const ATTRIBUTES: PolicyKind<Attributes> = PolicyKind {
    what: "attributes",
    from_toml: attributes_from_toml,
    from_json: attributes_from_json,
    from_compact: attributes_from_compact,
    from_csv: |text| {
        let rows: Vec<EdgeRow> = attributes_from_csv(text)?;
        Ok(rows
            .into_iter()
            .map(|row| (row.name, row.attributes))
            .collect())
    },
};

impl<T> PolicyKind<T> {
    /// Reads the policy of `name` out of what was given for it: a file, a row, or `-`.
    ///
    /// # Errors
    /// Every fault of it at once, with its place.
    pub fn read(&self, given: &str, name: &str) -> Result<T, Failure> {
        if given == "-" {
            let mut text = String::new();
            io::stdin().read_to_string(&mut text).map_err(|error| {
                Failure::bad_input(format!("cannot read standard input: {error}"))
            })?;
            return self.by_content(&text, "standard input");
        }
        let path = Path::new(given);
        if !path.exists() && given.trim().contains(char::is_whitespace) {
            return (self.from_compact)(given)
                .map_err(|faults| Failure::faults(self.what, &faults));
        }
        let source = format!("`{given}`");
        let text = fs::read_to_string(path).map_err(|error| {
            Failure::bad_input(format!("cannot read {} from {source}: {error}", self.what))
                .with_help("give a file, or a compact row in quotes; --help says more")
        })?;
        let extension = path.extension().unwrap_or_default();
        match extension.to_ascii_lowercase().to_str() {
            Some("toml") => {
                (self.from_toml)(&text).map_err(|faults| Failure::faults(&source, &faults))
            }
            Some("json") => self.by_json(&text, &source),
            Some("csv") => self.row_of(name, &text, &source),
            _ => self.by_content(&text, &source),
        }
    }

    fn by_content(&self, text: &str, source: &str) -> Result<T, Failure> {
        let start = text.trim_start();
        if start.starts_with('{') {
            return self.by_json(text, source);
        }
        let parsed = if text.contains('=') || start.starts_with('#') {
            (self.from_toml)(text)
        } else {
            (self.from_compact)(text)
        };
        parsed.map_err(|faults| Failure::faults(source, &faults))
    }

    fn by_json(&self, text: &str, source: &str) -> Result<T, Failure> {
        let value = serde_json::from_str(text)
            .map_err(|error| Failure::bad_input(format!("{source} is not JSON: {error}")))?;
        (self.from_json)(&value).map_err(|faults| Failure::faults(source, &faults))
    }

    fn row_of(&self, name: &str, text: &str, source: &str) -> Result<T, Failure> {
        let rows = (self.from_csv)(text).map_err(|faults| Failure::faults(source, &faults))?;
        let names: Vec<String> = rows.iter().map(|(name, _)| name.clone()).collect();
        let mut matching = rows.into_iter().filter(|(row, _)| row == name);
        match (matching.next(), matching.next()) {
            (Some((_, policy)), None) => Ok(policy),
            (Some(_), Some(_)) => Err(Failure::bad_input(format!(
                "{source} has several rows named `{name}`"
            ))),
            (None, _) => {
                let failure = Failure::bad_input(format!("{source} has no row named `{name}`"));
                let known = names.iter().map(String::as_str);
                Err(match nearest(name, known) {
                    Some(near) => failure.with_help(format!("did you mean `{near}`?")),
                    None => failure,
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROW: &str = "jp,us,fr -caB * lxc 60 50 1.6 4 * * *";

    fn app1() -> Requirements {
        requirements_from_compact(ROW).unwrap()
    }

    fn written(name: &str, text: &str) -> (tempfile::TempDir, String) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(name);
        fs::write(&path, text).unwrap();
        let path = path.display().to_string();
        (directory, path)
    }

    #[test]
    fn every_format_says_the_same() {
        assert_eq!(REQUIREMENTS.read(ROW, "App1").unwrap(), app1());
        let toml = "allowed_locations = [\"jp\", \"us\", \"fr\"]\nallowed_organizations = \"-caB\"\n\
                    virtualization = \"lxc\"\nmax_cpu_percent = 60\nmax_memory_percent = 50\n\
                    min_cpu_ghz = 1.6\nmin_memory_gb = 4\n";
        let json = app1().to_json().to_string();
        let csv = include_str!("../../core/fixtures/paper/containers.csv");
        for (file, text) in [
            ("a.toml", toml),
            ("a.json", &json),
            ("a.csv", csv),
            ("toml-by-content", toml),
            ("json-by-content", &json),
            ("row-by-content", ROW),
        ] {
            let (_directory, path) = written(file, text);
            assert_eq!(REQUIREMENTS.read(&path, "App1").unwrap(), app1(), "{file}");
        }
    }

    #[test]
    fn attributes_come_out_of_the_papers_table() {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../core/fixtures/paper/edges.csv"
        );
        assert_eq!(
            ATTRIBUTES.read(path, "Edge2").unwrap().to_compact(),
            "B de caA deB lxc 2.6 8 - - -"
        );
        let text = ATTRIBUTES.read(path, "Egde2").unwrap_err().to_string();
        assert!(text.contains("no row named `Egde2`"), "{text}");
        assert!(text.contains("did you mean `Edge2`?"), "{text}");
    }

    #[test]
    fn every_fault_of_a_file_is_told_with_its_place() {
        let (_directory, path) = written(
            "a.toml",
            "allowed_locations = [\"uk\"]\nmax_cpu = 60\nmin_cpu_ghz = \"fast\"\n",
        );
        let text = REQUIREMENTS.read(&path, "App1").unwrap_err().to_string();
        for part in [
            "3 faults",
            "line 1",
            "did you mean `gb`?",
            "line 2",
            "line 3",
            "`fast`",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn what_is_neither_a_file_nor_a_row_is_said_to_be_so() {
        for given in ["nothing-of-that-name.toml", "jp"] {
            let text = REQUIREMENTS.read(given, "App1").unwrap_err().to_string();
            assert!(text.contains("cannot read requirements from"), "{text}");
        }
        let text = REQUIREMENTS.read("jp us", "App1").unwrap_err().to_string();
        assert!(text.contains("2 fields instead of 11"), "{text}");
        let (_directory, path) = written("a.json", "{\"a\": }");
        let text = REQUIREMENTS.read(&path, "App1").unwrap_err().to_string();
        assert!(
            text.contains("is not JSON") && text.contains("line 1 column 7"),
            "{text}"
        );
    }
}
