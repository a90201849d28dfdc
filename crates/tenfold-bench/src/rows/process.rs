//! How long it takes to start a process that does nothing, and to wait for its end.

use std::process::{Command, Stdio};

use tenfold::{Process, StartMethod};

use super::{Failure, Row, Unit};
use crate::cell::Cell;
use crate::clock::{now, seconds_since};
use crate::plain_fork::fork_and_wait;

pub(crate) const ROW: Row = Row {
    name: "process",
    title: "start a process and join it",
    unit: Unit::Seconds,
    cells: &[
        Cell { system: "tenfold", measure: || one_by_one(|| tenfold(StartMethod::Forkserver)) },
        Cell { system: "tenfold, spawn", measure: || one_by_one(|| tenfold(StartMethod::Spawn)) },
        Cell { system: "tenfold, fork", measure: || one_by_one(|| tenfold(StartMethod::Fork)) },
        Cell { system: "plain fork + wait", measure: || one_by_one(fork_and_wait) },
        Cell { system: "std::process, a trivial program", measure: || one_by_one(run_true) },
        Cell { system: "procspawn", measure: || one_by_one(procspawn) },
    ],
};

const PROCESSES: u32 = 300;

/// Seconds a process, after a few to warm up.
fn one_by_one(mut start_and_join: impl FnMut() -> Result<(), Failure>) -> Result<f64, Failure> {
    (0..10).try_for_each(|_| start_and_join())?;
    let start = now();
    (0..PROCESSES).try_for_each(|_| start_and_join())?;
    Ok(seconds_since(start) / f64::from(PROCESSES))
}

fn nothing((): ()) {}

fn tenfold(method: StartMethod) -> Result<(), Failure> {
    Ok(Process::builder().start_method(method).spawn(nothing, ())?.join()?)
}

fn run_true() -> Result<(), Failure> {
    Command::new("true").stdin(Stdio::null()).status()?;
    Ok(())
}

fn procspawn() -> Result<(), Failure> {
    Ok(procspawn::spawn((), |()| ()).join()?)
}
