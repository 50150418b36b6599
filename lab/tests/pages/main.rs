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
mod screens;
mod stage;
#[path = "../traces/mod.rs"]
mod traces;
mod window;

use stage::Stage;
use traces::traces;

const LAB: &str = "t-pages";

/// One lab for all of it: what each part leaves is what the next begins with.
#[test]
fn both_owners_do_all_of_it_in_a_browser() {
    let mut stage = Stage::begin(LAB);
    let (erin, key) = edge_owner::journey(&mut stage);
    let carol = container_owner::journey(&mut stage, &erin, &key);
    container_owner::cancels(&mut stage, &carol);
    stage.screens.assert_good();
    drop(stage);
    assert_eq!(traces(LAB), Vec::<String>::new());
}
