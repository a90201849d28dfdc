//! The `tenfold` command.
#![forbid(unsafe_code)]

mod demo;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "tenfold", version, about = "Process-based parallelism that is fast and cannot hang")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Index a folder of source files with a pool of processes, then again while one of them is killed.
    Demo {
        /// The folder; without it, the sources of the dependencies named in ./Cargo.lock.
        folder: Option<PathBuf>,
        /// Worker processes; without it, one for each processor.
        #[arg(long)]
        workers: Option<usize>,
    },
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Demo { folder, workers } => demo::run(folder.as_deref(), workers),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tenfold: {error}");
            ExitCode::FAILURE
        }
    }
}
