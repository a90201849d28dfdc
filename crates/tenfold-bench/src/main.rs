//! `make bench-rust`: tenfold beside its peers, in interleaved runs.
//!
//! ```text
//!  the caller's process            prints the table, writes the JSON
//!     └─ one fresh process a cell  `--row R --system S`: measures once, prints one number
//!           └─ what the cell needs: workers, producers, plain children
//! ```
//!
//! In each repetition all cells of a row run one after the other, so that a slow spell of the machine
//! hits all systems alike. A cell that does not end in time, or ends in an error, is shown as such.
#![deny(unsafe_code)]

mod cell;
mod clock;
mod options;
mod plain_fork;
mod report;
mod rows;
mod summary;

use std::process::ExitCode;

use options::{Command, Options};

fn main() -> ExitCode {
    // The children of procspawn begin here and do not come back.
    procspawn::init();
    let done = match Command::from_args(std::env::args().skip(1)) {
        Ok(Command::Measure { row, system }) => measure(&row, &system),
        Ok(Command::IpcChild { role, server }) => rows::ipc_child(&role, &server),
        Ok(Command::Nothing) => Ok(()),
        Ok(Command::Run(options)) => run(&options),
        Err(message) => Err(message),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

/// Measures one cell in this process and prints the number.
fn measure(row: &str, system: &str) -> Result<(), String> {
    let row = rows::find(row).ok_or_else(|| format!("no row is called {row}"))?;
    let cell = row.cells.iter().find(|c| c.system == system).ok_or_else(|| format!("no such cell: {system}"))?;
    let measured = (cell.measure)().map_err(|error| error.to_string())?;
    println!("{}{measured}", cell::ANSWER);
    Ok(())
}

/// Runs the rows that were asked for, prints the table as it grows, and writes the JSON.
fn run(options: &Options) -> Result<(), String> {
    let mut results = Vec::new();
    report::print_head(options);
    for row in rows::ALL.iter().filter(|row| options.wants_row(row.name)) {
        let result = summary::measure_row(row, options);
        report::print_row(&result);
        results.push(result);
    }
    if results.is_empty() {
        let names: Vec<&str> = rows::ALL.iter().map(|row| row.name).collect();
        return Err(format!("no row matches; the rows are: {}", names.join(" ")));
    }
    report::write_json(&options.json, &results, options)
}
