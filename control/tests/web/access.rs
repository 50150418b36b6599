//! Who may see which page, and what every page says to a browser.

use carnet_api::v1::Role;
use carnet_control::http::access::Access;
use carnet_control::web::access::PAGES;
use reqwest::Method;

use crate::browser::{Browser, Page};
use crate::plane::Plane;

const ALL: [Role; 4] = [
    Role::EdgeOwner,
    Role::ContainerOwner,
    Role::Auditor,
    Role::Administrator,
];

fn filled(route: &str) -> String {
    let parts = route.split('/');
    let parts: Vec<&str> = parts
        .map(|part| if part.starts_with('{') { "none" } else { part })
        .collect();
    parts.join("/")
}

/// Every page but the stream of events, which does not end.
fn pages() -> impl Iterator<Item = &'static (Method, &'static str, Access)> {
    PAGES.iter().filter(|(_, route, _)| *route != "/live")
}

/// What a browser is told of every page.
fn hold(page: &Page) {
    let policy = page.headers["content-security-policy"].to_str().unwrap();
    for rule in [
        "default-src 'none'",
        "style-src 'self'",
        "script-src 'self'",
        "connect-src 'self'",
        "img-src 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    ] {
        assert!(policy.split("; ").any(|it| it == rule), "{policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(page.headers["x-content-type-options"], "nosniff");
    assert_eq!(page.headers["cache-control"], "no-store");
    for inline in [" style=", "<style", " onclick=", "javascript:"] {
        assert!(!page.html.contains(inline), "{inline}: {}", page.html);
    }
    // Without one, browsers ask for a file that is not there.
    let icon = r#"<link rel="icon" type="image/svg+xml" href="/assets/icon-"#;
    assert!(
        !page.html.contains("<head>") || page.html.contains(icon),
        "{}",
        page.html
    );
    for script in page.html.split("<script").skip(1) {
        let ours = ["live", "preview"];
        let ours = ours.map(|name| format!(r#" type="module" src="/assets/{name}-"#));
        assert!(ours.iter().any(|it| script.starts_with(it)), "{script}");
        assert!(script.contains(r#".js"></script>"#), "{script}");
    }
}

#[tokio::test]
async fn every_page_lets_in_whom_the_table_names_and_nobody_else() {
    let plane = Plane::start().await;
    let alone = ALL.map(|role| vec![role]);
    for (index, roles) in alone.into_iter().chain([ALL.to_vec()]).enumerate() {
        let someone = plane.account(&format!("someone-{index}"), &roles).await;
        let mut browser = Browser::of(&plane, &someone).await;
        for (method, route, access) in pages() {
            let path = filled(route);
            if browser.get("/account").await.status != 200 {
                // The page before has ended the session.
                browser = Browser::of(&plane, &someone).await;
            }
            let token = browser.get("/account").await.form_token();
            let page = if *method == Method::GET {
                browser.get(&path).await
            } else {
                browser.send(&path, &[("form_token", &token)]).await
            };
            hold(&page);
            let may = match access {
                Access::Public | Access::AnyAccount => true,
                Access::Roles(allowed) => roles.iter().any(|role| allowed.contains(role)),
            };
            let is_refused = page.html.contains("this page is for the roles");
            assert_eq!(
                is_refused, !may,
                "{roles:?} {method} {route}: {}",
                page.html
            );
            if !may {
                page.is(403);
            }
        }
    }
}

/// The table itself: what is said of the roles elsewhere holds in it.
#[test]
fn who_reads_everything_changes_nothing_and_the_ledger_is_theirs_alone() {
    let public: Vec<&str> = PAGES
        .iter()
        .filter(|(_, _, access)| *access == Access::Public)
        .map(|(_, route, _)| *route)
        .collect();
    assert_eq!(public, ["/log-in", "/log-in", "/register", "/register"]);
    for (method, route, access) in PAGES {
        let Access::Roles(roles) = access else {
            let own = ["/", "/log-in", "/register", "/log-out"];
            assert!(
                own.contains(route) || route.starts_with("/account"),
                "{route}"
            );
            continue;
        };
        // To check the ledger changes nothing: it is sent as a form because it takes a while.
        let checks = *route == "/entries";
        assert!(
            !roles.contains(&Role::Auditor) || *method == Method::GET || checks,
            "{method} {route}"
        );
        // Accounts and keys are the administrator's, and nobody else's.
        let administers = route.starts_with("/accounts") || route.starts_with("/admin");
        assert!(
            !roles.contains(&Role::Administrator)
                || *method == Method::GET
                || checks
                || administers,
            "{method} {route}"
        );
        if administers && *method != Method::GET {
            assert_eq!(*roles, [Role::Administrator], "{method} {route}");
        }
        if route.starts_with("/entries") || *route == "/stays" {
            assert_eq!(*roles, [Role::Auditor, Role::Administrator], "{route}");
        }
        if route.starts_with("/migrations") {
            assert!(!roles.contains(&Role::EdgeOwner), "{route}");
        }
    }
}

#[tokio::test]
async fn who_is_not_logged_in_is_led_to_where_one_logs_in() {
    let plane = Plane::start().await;
    for (method, route, access) in pages() {
        let path = filled(route);
        let mut browser = Browser::new(&plane);
        let token = browser.get("/log-in").await.form_token();
        let page = if *method == Method::GET {
            browser.get(&path).await
        } else {
            browser.send(&path, &[("form_token", &token)]).await
        };
        hold(&page);
        if *access == Access::Public {
            assert!([200, 422].contains(&page.status.as_u16()), "{}", page.html);
        } else {
            assert_eq!(page.status, 303, "{method} {route}: {}", page.html);
            let to = page.headers["location"].to_str().unwrap();
            assert!(to.starts_with("/log-in"), "{to}");
        }
    }
}

#[tokio::test]
async fn what_is_no_page_says_so_in_words() {
    let plane = Plane::start().await;
    let mut browser = Browser::new(&plane);
    for path in ["/nothing", "/edges/a/b/c", "/assets/other.css", "/v2/x"] {
        let page = browser.get(path).await;
        hold(&page);
        assert!(page.is(404).contains("Not found"), "{}", page.html);
    }
    let page = browser.ask(Method::PUT, "/log-in", &[], None).await;
    hold(&page);
    page.is(405);
    // A name that is no text.
    let mut ann = Browser::registered(&plane, "ann", &["edge_owner"]).await;
    let token = ann.get("/account").await.form_token();
    let path = "/account/sessions/%ff/end";
    ann.send(path, &[("form_token", &token)]).await.is(404);
}

#[tokio::test]
async fn what_pages_load_is_kept_by_browsers_and_named_by_what_it_holds() {
    let plane = Plane::start().await;
    let mut ann = Browser::registered(&plane, "ann", &["edge_owner"]).await;
    let page = ann.get("/edges").await;
    let (_, rest) = page
        .is(200)
        .split_once(r#"<script type="module" src=""#)
        .unwrap();
    let module = ann.get(rest.split('"').next().unwrap()).await;
    assert_eq!(module.status, 200);
    let kind = module.headers["content-type"].to_str().unwrap();
    assert_eq!(kind, "text/javascript; charset=utf-8");
    let kept = module.headers["cache-control"].to_str().unwrap();
    assert!(kept.contains("immutable"));
    assert!(!module.html.contains("http"), "{}", module.html);

    let mut browser = Browser::new(&plane);
    let page = browser.get("/log-in").await;
    let (_, rest) = page
        .is(200)
        .split_once(r#"<link rel="stylesheet" href=""#)
        .unwrap();
    let path = rest.split('"').next().unwrap();
    let style = browser.get(path).await;
    assert_eq!(style.status, 200);
    assert_eq!(style.headers["content-type"], "text/css; charset=utf-8");
    assert!(
        style.headers["cache-control"]
            .to_str()
            .unwrap()
            .contains("immutable")
    );
    assert!(!style.headers.contains_key("set-cookie"));
    // Nothing is fetched from elsewhere.
    assert!(!style.html.contains("url(") && !style.html.contains("@import"));
}
