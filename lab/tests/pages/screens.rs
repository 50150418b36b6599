//! Every screen, looked at as people see it: what it has to keep to, and a picture of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::window::{LIGHT, TAB, View, Window};

const RULES: &str = include_str!("rules.js");
const FOCUS: &str = include_str!("focus.js");

/// Where links lead, but for files.
const LINKS: &str = "
    return [...document.querySelectorAll('a[href]')]
        .filter((link) => link.origin === location.origin && !link.hasAttribute('download'))
        .map((link) => link.pathname + link.search)";
/// Where forms lead in which there is something to be filled in.
const FORMS: &str = "
    return [...document.forms]
        .filter((form) => [...form.elements].some((field) => field.matches('input:not([type=hidden], [hidden]), select, textarea')))
        .map((form) => new URL(form.action).pathname)";

const DARK: View = View {
    name: "dark",
    scheme: "dark",
    ..LIGHT
};
const PHONE: View = View {
    name: "phone",
    width: 390,
    ..LIGHT
};

/// The forms that somebody can fill in, by their kind, and a page that has each.
pub type Seen = BTreeMap<String, String>;

/// What was found on all that was looked at.
pub struct Screens {
    /// Where pictures go: `target/screenshots`.
    pictures: PathBuf,
    /// What is wrong, and where it was seen first.
    faults: BTreeMap<String, String>,
}

impl Screens {
    pub fn new() -> Self {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
        let pictures = target.join("screenshots");
        // Those of screens that are no more would be mistaken for new ones.
        let _ = fs::remove_dir_all(&pictures);
        fs::create_dir_all(&pictures).unwrap();
        Self {
            pictures,
            faults: BTreeMap::new(),
        }
    }

    /// Holds a screen to the rules, in light, in dark and on a phone, and by the keyboard alone.
    pub fn look(&mut self, window: &Window, name: &str) {
        for view in [DARK, PHONE, LIGHT] {
            window.look_at(view, 900);
            let found = window.script(RULES);
            let found = found.as_array().unwrap().iter();
            for fault in found {
                self.note(name, view.name, fault.as_str().unwrap());
            }
            let picture = STANDARD.decode(window.picture(view)).unwrap();
            let file = format!("{name}-{}.png", view.name);
            fs::write(self.pictures.join(file), picture).unwrap();
        }
        self.walk(window, name);
        let complaints = window.complaints();
        for complaint in complaints {
            self.note(name, "the browser", &complaint);
        }
    }

    /// The same fault of many screens is told once, with the first.
    fn note(&mut self, screen: &str, view: &str, fault: &str) {
        let first = format!("{screen}, {view}");
        self.faults.entry(fault.to_owned()).or_insert(first);
    }

    /// Everything that can be used is reached by the key Tab, and one sees where one is.
    fn walk(&mut self, window: &Window, name: &str) {
        let targets = window.script(FOCUS).as_u64().unwrap();
        window.keys((0..=targets).map(|_| TAB));
        let found = window.script("document.activeElement.blur(); return globalThis.focused()");
        for (what, told) in [
            ("missed", "the key Tab does not lead to"),
            ("unseen", "it is not seen that the focus is at"),
        ] {
            for key in found[what].as_array().unwrap() {
                self.note(name, "the keyboard", &format!("{told} {key}"));
            }
        }
    }

    /// Goes wherever links lead that somebody sees, and looks at one page of each kind. Returns
    /// the forms that are there.
    pub fn walk_links(&mut self, window: &Window, who: &str) -> Seen {
        let mut forms = Seen::new();
        let mut seen = BTreeSet::new();
        let mut ahead = vec!["/".to_owned()];
        while let Some(path) = ahead.pop() {
            if !seen.insert(pattern(&path)) {
                continue;
            }
            window.go(&path);
            assert!(window.status() < 400, "{who}: {path}: {}", window.text());
            let there = pattern(&window.path());
            seen.insert(there.clone());
            let name: String = there
                .replace("{}", "one")
                .chars()
                .map(|letter| {
                    if letter.is_ascii_alphanumeric() {
                        letter
                    } else {
                        '-'
                    }
                })
                .collect();
            self.look(window, &format!("{who}{}", name.trim_end_matches('-')));
            for action in texts(window, FORMS) {
                forms.entry(pattern(&action)).or_insert(path.clone());
            }
            ahead.extend(texts(window, LINKS));
        }
        forms
    }

    /// Fails where anything was at fault; with all of it.
    pub fn assert_good(&self) {
        let told: Vec<String> = self
            .faults
            .iter()
            .map(|(fault, screen)| format!("{screen}: {fault}"))
            .collect();
        assert!(told.is_empty(), "{}", told.join("\n"));
    }
}

fn texts(window: &Window, body: &str) -> Vec<String> {
    let texts = window.script(body);
    let texts = texts.as_array().unwrap().iter();
    texts
        .map(|text| text.as_str().unwrap().to_owned())
        .collect()
}

/// A page's kind: its address without what it is of.
pub fn pattern(address: &str) -> String {
    let (path, query) = address.split_once('?').unwrap_or((address, ""));
    let of_one = [
        "accounts",
        "edges",
        "containers",
        "migrations",
        "entries",
        "sessions",
        "share-keys",
    ];
    let mut pattern = String::new();
    let mut before = "";
    for part in path.split('/').skip(1) {
        let is_one = of_one.contains(&before);
        pattern.push('/');
        pattern.push_str(if is_one { "{}" } else { part });
        before = part;
    }
    for (at, field) in query
        .split('&')
        .filter(|field| !field.is_empty())
        .enumerate()
    {
        pattern.push(if at == 0 { '?' } else { '&' });
        pattern.push_str(field.split('=').next().unwrap_or_default());
    }
    pattern
}
