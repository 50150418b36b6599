//! Every form with bad input: each text field is given what would run, were it more than text.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::screens::{Seen, pattern};
use crate::window::Window;

/// Were any of it more than text, it would leave a mark, or be complained of by the browser.
pub const HOSTILE: &str =
    r#""><script>globalThis.isMarked=1</script><img src=x onerror=globalThis.isMarked=1>"#;

/// What is filled in, ticked or chosen.
const FILLED_IN: &str = "input:not([type=hidden], [hidden]), select, textarea";

/// Of each form that is sent to change something, at which fields such input is at fault; with a
/// button's label, of what that button does. A form that is not here is one that nobody has tested.
const AT_FAULT: &[(&str, &[&str])] = &[
    // Neither name nor password is said to be the wrong one.
    ("/log-in", &[]),
    ("/register", &["name", "password", "roles"]),
    ("/account/password", &["current"]),
    (
        "/register-edge",
        &[
            "name",
            "address",
            "region",
            "organizations",
            "manufacturer",
            "virtualization",
            "cpu_ghz",
            "memory_gb",
            "ai_accessories",
            "ai_frameworks",
        ],
    ),
    (
        "/edges/{}/attributes",
        &[
            "region",
            "organizations",
            "manufacturer",
            "virtualization",
            "cpu_ghz",
            "memory_gb",
            "ai_accessories",
            "ai_frameworks",
        ],
    ),
    ("/edges/{}/share", &["grantee"]),
    ("/share-keys", &["key"]),
    ("/register-container", REGISTERED),
    // Nothing is registered by this button: name and edge are not looked at.
    ("/register-container: Where could it go?", REQUIRED),
    ("/containers/{}/requirements", REQUIRED),
    ("/containers/{}/map", REQUIRED),
    // Nothing is chosen.
    ("/containers/{}/move", &[]),
    ("/accounts", &["name", "roles"]),
    // It is asked for once more whether that is meant.
    ("/admin/rotate-key", &[]),
];
const REGISTERED: &[&str] = &[
    "name",
    "edge",
    "allowed_locations",
    "allowed_organizations",
    "allowed_manufacturers",
    "virtualization",
    "max_cpu_percent",
    "max_memory_percent",
    "min_cpu_ghz",
    "min_memory_gb",
    "ai_accessories",
    "ai_frameworks",
];
const REQUIRED: &[&str] = REGISTERED.split_at(2).1;

/// Fills in badly every form that somebody sees, but for those that were tried already. Those that
/// were are in `tried` then.
pub fn fill_badly(window: &Window, seen: &Seen, tried: &mut BTreeSet<String>) {
    for (action, page) in seen {
        if !tried.insert(action.clone()) {
            continue;
        }
        let form = Form::find(window, action, page);
        for button in &form.buttons {
            form.send(window, button);
        }
    }
}

/// Fails where a form is in the table that is nowhere.
pub fn assert_all_found(found: &BTreeSet<String>) {
    for (action, _) in AT_FAULT {
        let form = action.split(':').next().unwrap();
        assert!(found.contains(form), "no page has {action}");
    }
}

struct Form {
    page: String,
    action: String,
    is_sent: bool,
    /// What can be typed into.
    fields: Vec<String>,
    /// Those that are not shown again: passwords, and a key that may be another's.
    secret: Vec<String>,
    buttons: Vec<String>,
}

fn texts(value: &Value) -> Vec<String> {
    let texts = value.as_array().unwrap().iter();
    texts
        .map(|text| text.as_str().unwrap().to_owned())
        .collect()
}

impl Form {
    fn find(window: &Window, kind: &str, page: &str) -> Self {
        window.go(page);
        let forms = window.script_with(
            "return [...document.forms].filter((form) => form.querySelector(arguments[0])).map((form) => ({
                action: form.getAttribute('action'),
                is_sent: form.method === 'post',
                fields: [...form.elements].filter((field) => field.matches('input:not([type=hidden], [hidden], [type=checkbox], [type=radio]), textarea'))
                    .map((field) => field.name),
                secret: [...form.elements].filter((field) => field.type === 'password' || field.name === 'key').map((field) => field.name),
                buttons: [...form.elements].filter((field) => field.matches('button')).map((button) => button.innerText),
            }))",
            vec![json!(FILLED_IN)],
        );
        let form = forms
            .as_array()
            .unwrap()
            .iter()
            .find(|form| pattern(form["action"].as_str().unwrap()) == kind)
            .unwrap_or_else(|| panic!("{page} has no form {kind}"));
        Self {
            page: page.to_owned(),
            action: form["action"].as_str().unwrap().to_owned(),
            is_sent: form["is_sent"] == json!(true),
            fields: texts(&form["fields"]),
            secret: texts(&form["secret"]),
            buttons: texts(&form["buttons"]),
        }
    }

    fn send(&self, window: &Window, button: &str) {
        window.go(&self.page);
        // At once: typed key by key, it takes most of this test's time. What the browser itself
        // would hold up is sent too.
        window.script_with(
            "const form = [...document.forms].find((form) => form.getAttribute('action') === arguments[0] && form.querySelector(arguments[3]));
            form.noValidate = true;
            form.dataset.isTried = 'yes';
            for (const field of form.elements) {
                if (arguments[1].includes(field.name)) { field.value = arguments[2]; field.dispatchEvent(new Event('input', { bubbles: true })); }
            }",
            vec![
                json!(self.action),
                json!(self.fields),
                json!(HOSTILE),
                json!(FILLED_IN),
            ],
        );
        window.leave_by(&format!(
            "//form[@data-is-tried]//button[normalize-space()='{button}']"
        ));
        let what = format!("{} of {}: {}", self.action, self.page, window.text());
        for field in self
            .fields
            .iter()
            .filter(|field| !self.secret.contains(field))
        {
            assert_eq!(window.value(field), HOSTILE, "{field} was lost, {what}");
        }
        let marks = window.script(
            "return [globalThis.isMarked ?? 0, document.querySelectorAll('main script, [onerror], [onload]').length]",
        );
        assert_eq!(marks, json!([0, 0]), "{what}");
        assert_eq!(window.complaints(), Vec::<String>::new(), "{what}");
        if self.is_sent {
            self.assert_refused(window, button, &what);
        } else {
            assert!(window.status() < 500, "{what}");
        }
    }

    fn assert_refused(&self, window: &Window, button: &str, what: &str) {
        assert!((400..500).contains(&window.status()), "{what}");
        let kind = pattern(&self.action);
        let by_button = format!("{kind}: {button}");
        let of = |form: &str| AT_FAULT.iter().find(|(action, _)| *action == form);
        let (_, at_fault) = of(&by_button)
            .or_else(|| of(&kind))
            .unwrap_or_else(|| panic!("nothing is said here of the form {kind}"));
        assert_eq!(window.faulty(), *at_fault, "{what}");
        let summary = "return document.querySelector('[role=alert]')?.innerText ?? ''";
        assert_ne!(window.text_of(summary), "", "{what}");
        if at_fault.is_empty() {
            return;
        }
        // Whoever sees nothing is at the summary, and gets from it to each fault.
        let led = window.script(
            "const at = document.activeElement;
            return at.matches('[role=alert]')
                ? [...at.querySelectorAll('a')].map((link) => document.querySelector(link.getAttribute('href'))?.getAttribute('name') ?? '')
                : [`the focus is at ${at.tagName}`]",
        );
        assert_eq!(texts(&led), *at_fault, "{what}");
    }
}
