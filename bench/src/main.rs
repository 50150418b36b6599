//! `carnet-bench`: what Carnet's parts cost, measured on this machine.

mod ledger;

use std::process::ExitCode;

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
    /// Enter decisions into a ledger, and the same rows into its table without the tree.
    ///
    /// The databases are made in the directory for temporary files (TMPDIR), which must be on a
    /// disk.
    Ledger,
}

#[tokio::main]
async fn main() -> ExitCode {
    let measured = match Arguments::parse().part {
        Part::Ledger => ledger::measure().await.map(|measured| measured.to_string()),
    };
    match measured {
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
