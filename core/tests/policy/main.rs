//! The data-audit: the paper's decisions, tables of our own, a plain model, and all that people
//! may write.
//!
//! `paper` decides what the paper decides; `tables` the files of `fixtures/policy`; `model` is a
//! second, naive reading of a policy, held against `audit`; `compiled` holds the form for fleets
//! against `audit`. `formats` is what may be written, `faults` what is said of everything else.
//! `written` makes up policies as people write them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod compiled;
mod faults;
mod formats;
mod model;
mod paper;
mod tables;
mod written;
