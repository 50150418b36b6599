//! What an edge's owner does: from the first visit to the share key that is given away.

use crate::stage::{OWN, PASSWORD, Stage, log_in, register};
use crate::window::Window;

/// Returns the browser of erin, who owns the first edge then, and the key of it that carol is to
/// enter.
pub fn journey(stage: &mut Stage) -> (Window, String) {
    let erin = stage.window();
    erin.go("/register");
    stage.screens.look(&erin, "register");
    register(&erin, "erin", &["edge_owner"]);
    assert_eq!(erin.path(), "/edges");
    erin.press("Log out");
    assert_eq!(erin.path(), "/log-in");
    stage.screens.look(&erin, "log-in");
    log_in(&erin, "erin", PASSWORD);
    assert_eq!(erin.path(), "/edges");
    stage.screens.look(&erin, "edge-owner-new");

    register_edge(stage, &erin);
    enrol(stage, &erin);
    declared_beside_detected(stage, &erin);
    let key = share(stage, &erin);
    (erin, key)
}

fn register_edge(stage: &mut Stage, erin: &Window) {
    let address = stage.fleet.host(OWN).unwrap().address;
    erin.follow("Register an edge");
    let typed = [
        ("name", "Edge 1"),
        ("address", "nowhere"),
        ("region", "A"),
        ("organizations", "caA"),
        ("manufacturer", "deA"),
        ("virtualization", "lxc"),
        ("cpu_ghz", "fast"),
        ("memory_gb", "8"),
    ];
    for (field, text) in typed {
        erin.fill(field, text);
    }
    erin.fill("location", "jp");
    erin.press("Register");
    assert_eq!(erin.status(), 422);
    assert_eq!(erin.faulty(), ["name", "address", "cpu_ghz"]);
    for (field, text) in typed {
        assert_eq!(erin.value(field), text);
    }
    assert_eq!(erin.value("location"), "jp");
    stage.screens.look(erin, "edge-form-faults");

    erin.fill("name", OWN);
    erin.fill("address", &format!("{address}:7701"));
    erin.fill("cpu_ghz", "2.6");
    erin.press("Register");
    assert_eq!(erin.path(), format!("/edges/{OWN}"));
    erin.until_it_says("It has no agent yet");
    stage.screens.look(erin, "edge-without-agent");
}

fn enrol(stage: &mut Stage, erin: &Window) {
    erin.press("Make the enrolment command");
    let command = erin.secret();
    assert!(command.starts_with("carnet agent enrol "), "{command}");
    stage.screens.look(erin, "edge-enrolment-command");
    stage.run(OWN, &command);
    // The page that shows a secret stays as it is.
    erin.go(&format!("/edges/{OWN}"));
    erin.script("globalThis.isLeft = false");
    stage.fleet.start_agent(OWN).unwrap();
    erin.until_it_says("healthy");
    assert_eq!(
        erin.script("return globalThis.isLeft"),
        false,
        "it was loaded anew"
    );
    // The command was good for one use.
    let again = stage.fleet.host(OWN).unwrap();
    let line = format!(
        "/opt/{}",
        command.replace("/var/lib/carnet-agent", "/tmp/again")
    );
    assert!(again.run("sh", &["-c", &line]).is_err());
}

fn declared_beside_detected(stage: &mut Stage, erin: &Window) {
    let row = erin.row("Virtualization tools eHRt");
    let cells: Vec<&str> = row.split('\t').map(str::trim).collect();
    assert_eq!(cells, ["Virtualization tools eHRt", "lxc", "lxc"]);
    assert!(erin.row("Country eDAl").contains("Japan (jp)"));
    assert!(erin.at("CPU").contains('%'), "{}", erin.text());
    stage.screens.look(erin, "edge");
}

fn share(stage: &mut Stage, erin: &Window) -> String {
    // Two who are to have one must be there.
    for name in ["carol", "carl"] {
        let window = stage.window();
        register(&window, name, &["container_owner"]);
        if name == "carol" {
            assert_eq!(window.path(), "/containers");
            stage.screens.look(&window, "container-owner-new");
            window.go("/edges");
            stage.screens.look(&window, "container-owner-without-edges");
        }
        window.close();
    }
    for grantee in ["carl", "carol"] {
        erin.fill("grantee", grantee);
        erin.press("Make a share key");
        assert!(erin.row(grantee).contains("not entered yet"));
    }
    let key = erin.secret();
    stage.screens.look(erin, "edge-share-key");
    erin.press_in_row("carl", "Revoke");
    assert_eq!(erin.path(), format!("/edges/{OWN}"));
    assert!(erin.row("carl").contains("revoked"), "{}", erin.text());
    assert!(erin.row("carol").contains("not entered yet"));
    key
}
