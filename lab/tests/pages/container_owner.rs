//! What a container's owner does: from the share key to the container that has moved.

use std::net::Ipv4Addr;

use carnet_lab::host::ContainerSpec;
use serde_json::json;

use crate::stage::{FAR, NEAR, OWN, PASSWORD, Stage, log_in};
use crate::window::{DOWN, ENTER, SPACE, TAB, UP, Window};

pub const APP: &str = "App1";
/// So slow that what is to be seen of a move is seen before it is over; the link is made fast
/// again then.
const SLOW: &str = "2mbit";
const FAST: &str = "1gbit";
/// How long a move may take, in seconds.
const MOVE_LIMIT: u64 = 60;

/// Returns the browser of carol, who owns App1 then.
pub fn journey(stage: &mut Stage, erin: &Window, key: &str) -> Window {
    let carol = stage.window();
    log_in(&carol, "carol", PASSWORD);
    enter_keys(stage, &carol, key);
    register_container(stage, &carol);
    prove(stage, &carol);
    move_by_keyboard(stage, &carol, erin);
    carol
}

fn enter_keys(stage: &mut Stage, carol: &Window, key: &str) {
    let keys = [
        (OWN, key.to_owned()),
        (NEAR, stage.key_of(NEAR, "carol")),
        (FAR, stage.key_of(FAR, "carol")),
    ];
    for (edge, key) in keys {
        carol.go("/edges");
        carol.fill("key", &key);
        carol.press("Enter");
        assert_eq!(carol.path(), format!("/edges/{edge}"));
    }
}

fn register_container(stage: &mut Stage, carol: &Window) {
    let edge = stage.fleet.host(OWN).unwrap();
    let address = Ipv4Addr::new(10, 88, 2, 1);
    edge.start(&ContainerSpec::redis(APP, address)).unwrap();
    carol.go("/containers");
    carol.follow("Register a container");
    carol.fill("name", APP);
    carol.fill("edge", OWN);
    carol.fill("allowed_locations", "jp");
    carol.fill("virtualization", "lxc");
    carol.fill("max_memory_percent", "99");
    carol.press("Where could it go?");
    assert_eq!(carol.status(), 200, "{}", carol.text());
    assert!(carol.row(NEAR).contains("permitted"), "{}", carol.text());
    let denied = carol.row(FAR);
    assert!(
        denied.contains("denied") && denied.contains("cDAl"),
        "{denied}"
    );
    // Nothing is saved, and nothing that was typed is lost.
    assert_eq!(carol.value("name"), APP);
    assert_eq!(carol.value("edge"), OWN);
    assert_eq!(carol.value("allowed_locations"), "jp");
    stage.screens.look(carol, "container-form-preview");
    carol.press("Register");
    assert!(carol.path().starts_with("/containers/"), "{}", carol.text());
}

fn prove(stage: &mut Stage, carol: &Window) {
    carol.until_it_says("It is not shown yet that it is yours");
    stage.screens.look(carol, "container-to-confirm");
    // Before the code is there.
    carol.press("Make a code");
    let code = carol.secret();
    stage.screens.look(carol, "container-code");
    carol.press("Check the code");
    assert_eq!(carol.status(), 409, "{}", carol.text());
    stage.screens.look(carol, "container-code-not-found");
    let edge = stage.fleet.host(OWN).unwrap();
    edge.run("lxc-attach", &["-n", APP, "--", "/bin/sh", "-c", &code])
        .unwrap();
    carol.press("Check the code");
    assert_eq!(carol.at("Registration"), "● confirmed");
}

/// The target of the focus: what it says, or how it is labelled.
fn focused(window: &Window) -> String {
    window.text_of(
        "const at = document.activeElement;
        return (at.labels?.[0] ?? at).innerText.replace(/\\s+/g, ' ').trim()",
    )
}

/// Goes on by the key Tab until the focus is where it is to be, and is seen to be there.
fn tab_to(window: &Window, label: &str) {
    let mut passed = Vec::new();
    for _ in 0..60 {
        window.keys([TAB]);
        let at = focused(window);
        if at == label {
            let outline = window.text_of(
                "const style = getComputedStyle(document.activeElement);
                return `${style.outlineStyle} ${style.outlineWidth}`",
            );
            assert_eq!(outline, "solid 3px", "{label}");
            return;
        }
        passed.push(at);
    }
    panic!("the key Tab does not lead to {label}, but to {passed:?}");
}

fn move_by_keyboard(stage: &mut Stage, carol: &Window, erin: &Window) {
    let elsewhere = stage.window();
    log_in(&elsewhere, "carol", PASSWORD);
    for other in [&elsewhere, erin] {
        other.go("/containers");
        other.until_it_says("running");
        other.script("globalThis.isLeft = false");
    }
    carol.go("/containers");
    tab_to(carol, "Move");
    carol.leave(|| carol.keys([ENTER]));
    stage.screens.look(carol, "move");
    tab_to(carol, "See where it may go");
    carol.leave(|| carol.keys([ENTER]));
    stage.screens.look(carol, "move-audited");
    denied_cannot_be_picked(carol);
    tab_to(carol, NEAR);
    carol.keys([SPACE]);
    // The denied one is passed over.
    carol.keys([DOWN]);
    assert_eq!(focused(carol), "Region A");
    carol.keys([UP]);
    assert_eq!(focused(carol), NEAR);
    assert_eq!(carol.value("to"), format!("edge:{NEAR}"));
    tab_to(carol, "Move");
    stage.set_rate(OWN, SLOW);
    carol.leave(|| carol.keys([ENTER]));
    assert!(carol.path().starts_with("/migrations/"), "{}", carol.text());

    // While it runs.
    carol.until(
        "the phase that goes on now",
        "return document.querySelector('.phases .now')?.innerText.startsWith('copying ahead') === true",
    );
    stage.screens.look(carol, "migration-under-way");
    for other in [&elsewhere, erin] {
        other.until_it_says("being moved");
    }
    stage.screens.look(&elsewhere, "containers-while-one-moves");
    let container = elsewhere.text_of("return document.querySelector('td a').pathname");
    stage.set_rate(OWN, FAST);

    // And after.
    carol.until_within(MOVE_LIMIT, "the end of the move", || {
        carol.text().contains("completed")
    });
    let text = carol.text();
    assert!(text.contains(&format!("{APP}: {OWN} → {NEAR}")), "{text}");
    assert!(carol.at("Stood still").ends_with("ms"), "{text}");
    let bars = "return document.querySelectorAll('.timeline rect').length";
    assert!(carol.script(bars).as_u64() > Some(5), "{text}");
    assert!(text.contains("Permit") && text.contains("ledger"), "{text}");
    assert!(
        carol.row(NEAR).contains("every requirement is met"),
        "{text}"
    );
    stage.screens.look(carol, "migration");
    elsewhere.until(
        "the new place",
        &format!("return document.querySelector('tbody tr').innerText.includes('{NEAR}')"),
    );
    erin.until_it_says("No container of others is registered on your edges");
    for other in [&elsewhere, erin] {
        assert_eq!(
            other.script("return globalThis.isLeft"),
            json!(false),
            "it was loaded anew"
        );
    }
    elsewhere.go(&container);
    assert_eq!(elsewhere.at("Edge"), NEAR);
    assert_eq!(running_on(stage), [NEAR]);
    elsewhere.close();
}

fn denied_cannot_be_picked(carol: &Window) {
    let far = format!("const radio = document.querySelector('input[value=\"edge:{FAR}\"]');");
    assert_eq!(
        carol.script(&format!(
            "{far} radio.click(); return [radio.disabled, radio.checked]"
        )),
        json!([true, false])
    );
    let denied = carol.row(FAR);
    assert!(denied.contains("required jp, found us"), "{denied}");
    let near = carol.row(NEAR);
    assert!(near.contains("permitted"), "{near}");
}

/// On which edges App1 has a process.
fn running_on(stage: &Stage) -> Vec<&'static str> {
    [OWN, NEAR, FAR]
        .into_iter()
        .filter(|edge| {
            let host = stage.fleet.host(edge).unwrap();
            let state = host.run("lxc-info", &["-n", APP, "-sH"]);
            state.is_ok_and(|state| state.trim() == "RUNNING")
        })
        .collect()
}

/// A move that is called off by its button while files are on their way. Returns its page.
pub fn cancels(stage: &mut Stage, carol: &Window) -> String {
    carol.go("/containers");
    carol.follow("Move");
    carol.tick("to", "anywhere:");
    stage.set_rate(NEAR, SLOW);
    carol.press("Move");
    carol.until(
        "files on their way",
        "return document.querySelector('.phases .now')?.innerText.startsWith('copying ahead') === true",
    );
    tab_to(carol, "Cancel the move");
    // The focus stays where it is when the page is put in place of the old one.
    carol.script("globalThis.before = document.querySelector('.phases')");
    carol.until(
        "the page to be fetched anew",
        "document.dispatchEvent(new Event('visibilitychange')); return !document.contains(globalThis.before)",
    );
    assert_eq!(focused(carol), "Cancel the move");
    carol.leave(|| carol.keys([ENTER]));
    carol.until_within(MOVE_LIMIT, "the end of the move", || {
        carol.text().contains("▲ cancelled")
    });
    stage.set_rate(NEAR, FAST);
    stage.screens.look(carol, "migration-cancelled");
    assert_eq!(running_on(stage), [NEAR]);
    let migration = carol.path();
    carol.go("/containers");
    assert!(carol.row(APP).contains(NEAR), "{}", carol.text());
    assert!(carol.row(APP).contains("running"), "{}", carol.text());
    migration
}
