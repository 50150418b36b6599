//! `carnet-bench`: what Carnet's parts cost, measured on this machine.

mod handover;
mod ledger;
mod pages;

use std::error::Error;
use std::process::ExitCode;

use carnet_lab::progress::Progress;
use carnet_lab::signals;
use clap::{Parser, Subcommand};

/// Measure what a part of Carnet costs, beside the same without it.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    part: Part,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// Move containers of three sizes in a lab, by Carnet, by the paper's way, and in place.
    ///
    /// It takes several minutes, and needs what the lab needs; `cargo build --release --workspace`
    /// first. Progress goes to standard error.
    Handover,
    /// Enter decisions into a ledger, and the same rows into its table without the tree.
    ///
    /// The databases are made in the directory for temporary files (TMPDIR), which must be on a
    /// disk.
    Ledger,
    /// Load the pages of an owner of 1,000 edges, and of one who has none.
    Pages,
}

fn main() -> ExitCode {
    match measure(&Arguments::parse().part) {
        Ok(measured) => {
            println!("{measured}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("carnet-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(part: &Part) -> Result<String, Box<dyn Error>> {
    let runtime = tokio::runtime::Runtime::new()?;
    match part {
        Part::Handover => {
            // So that the lab goes away in order.
            let progress = Progress::new(signals::watch()?);
            Ok(handover::measure(progress)?.to_string())
        }
        Part::Ledger => Ok(runtime.block_on(ledger::measure())?.to_string()),
        Part::Pages => Ok(runtime.block_on(pages::measure())?.to_string()),
    }
}
