//! What belongs to others answers as if it were not there.

use serde_json::json;

use crate::forms::HOSTILE;
use crate::stage::{OWN, Stage, register};
use crate::window::Window;

/// What there is of nobody.
const NOBODY: &str = "019ac000-0000-7000-8000-000000000000";

/// Returns the browser of dana, who may lend edges and own containers, and has neither; it calls
/// itself what would run, were it more than text.
pub fn come(stage: &Stage) -> Window {
    let dana = stage.window_of(HOSTILE);
    register(&dana, "dana", &["edge_owner", "container_owner"]);
    dana.go("/account");
    assert!(dana.text().contains(HOSTILE), "{}", dana.text());
    dana
}

/// `container` and `migration` are the addresses of pages of carol's.
pub fn find_nothing(dana: &Window, container: &str, migration: &str) {
    let id = |page: &str| page.rsplit('/').next().unwrap().to_owned();
    let (container, migration) = (id(container), id(migration));
    let pages = [
        ("/edges/{}", OWN, "Edge9"),
        ("/edges/{}/attributes", OWN, "Edge9"),
        ("/containers/{}", &container, NOBODY),
        ("/containers/{}/requirements", &container, NOBODY),
        ("/containers/{}/move", &container, NOBODY),
        ("/migrations/{}", &migration, NOBODY),
    ];
    for (page, others, nobodys) in pages {
        let told = |name: &str| {
            dana.go(&page.replace("{}", name));
            assert_eq!(dana.status(), 404, "{page}: {}", dana.text());
            dana.text().replace(name, "it")
        };
        assert_eq!(told(others), told(nobodys), "{page}");
    }
    // Nor is anything done to it.
    let acts = [
        format!("/edges/{OWN}/enrol"),
        format!("/edges/{OWN}/share"),
        format!("/containers/{container}/move"),
        format!("/containers/{container}/forget"),
        format!("/migrations/{migration}/cancel"),
    ];
    dana.go("/account");
    for act in acts {
        let status = dana.script_with(
            "const body = new URLSearchParams({ form_token: document.querySelector('[name=form_token]').value });
            return fetch(arguments[0], { method: 'POST', body }).then((answer) => answer.status)",
            vec![json!(act)],
        );
        assert_eq!(status, 404, "{act}");
    }
}
