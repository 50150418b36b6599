//! The pages, in a real browser, against `carnet serve` with real agents and a real container: what
//! both owners do, from the first visit to the container that has moved; every form with bad
//! input; and what every screen has to keep to.
//!
//! It runs the program `carnet` beside `carnet-lab`: `cargo build -p carnet` first, as `./test`
//! does. Pictures of every screen are in `target/screenshots` afterwards.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod container_owner;
mod driver;
mod edge_owner;
mod forms;
mod screens;
mod stage;
mod strangers;
#[path = "../traces/mod.rs"]
mod traces;
mod window;

use std::collections::BTreeSet;

use carnet_lab::fleet::ADMINISTRATOR;
use stage::Stage;
use traces::traces;

const LAB: &str = "t-pages";

/// One lab for all of it: what each part leaves is what the next begins with.
#[test]
fn both_owners_do_all_of_it_in_a_browser() {
    let mut stage = Stage::begin(LAB);
    let (erin, key) = edge_owner::journey(&mut stage);
    let carol = container_owner::journey(&mut stage, &erin, &key);
    let migration = container_owner::cancels(&mut stage, &carol);
    let container = carol.text_of("return document.querySelector('td a').pathname");
    let dana = strangers::come(&stage);
    strangers::find_nothing(&dana, &container, &migration);

    let everyone = [
        ("nobody", stage.window()),
        ("edge-owner", erin),
        ("container-owner", carol),
        ("newcomer", dana),
        ("auditor", stage.window_of_account("audrey")),
        ("administrator", stage.window_of_account(ADMINISTRATOR)),
    ];
    let seen = everyone
        .each_ref()
        .map(|(who, window)| stage.screens.walk_links(window, who));
    stage.screens.assert_good();
    let mut tried = BTreeSet::new();
    for ((_, window), seen) in everyone.iter().zip(&seen) {
        forms::fill_badly(window, seen, &mut tried);
    }
    forms::assert_all_found(&tried);
    drop(stage);
    assert_eq!(traces(LAB), Vec::<String>::new());
}
