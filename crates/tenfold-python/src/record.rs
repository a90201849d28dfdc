//! How a process ended, on record: for those who cannot ask the system, since somebody else has reaped it.

use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use tenfold_engine::shm::process_record::{Ending, ProcessRecord};
use tenfold_engine::sys::clock::Deadline;
use tenfold_engine::sys::process::ExitStatus;

use crate::shell::Shell;
use crate::{carrier, errors, family};

/// What is known of one process, kept by those who asked for it.
#[pyclass(subclass, frozen, module = "tenfold._native")]
pub(crate) struct Record {
    shared: Shell<ProcessRecord>,
}

#[pymethods]
impl Record {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Record {
        Record { shared: Shell::empty() }
    }

    /// The record's id, while something carries the pickle.
    fn __getstate__(&self) -> PyResult<u64> {
        carrier::mention(self.shared.get()?.handle(), "Record")
    }

    fn __setstate__(&self, id: u64) -> PyResult<()> {
        self.shared.find(id, ProcessRecord::from_handle)
    }

    /// How the process ended, as `Process.exitcode` says it: waits at most `timeout` seconds for somebody to put it on
    /// record. None if nobody has, 255 if nobody knows.
    fn exit_code(&self, py: Python<'_>, timeout: f64) -> PyResult<Option<i32>> {
        let record = self.shared.get()?;
        let deadline = Deadline::after(Duration::from_secs_f64(timeout.max(0.0)));
        let ending = py.detach(|| {
            loop {
                let seen = record.changes();
                match record.ending() {
                    None if !deadline.expired() => record.wait(seen, deadline),
                    ending => break ending,
                }
            }
        });
        Ok(ending.map(|ending| match ending {
            Ending::Known(ExitStatus::Exited(code)) => code,
            Ending::Known(ExitStatus::Signaled { signal, .. }) => -signal,
            Ending::Unknown => 255,
        }))
    }
}

impl Record {
    /// The calling process puts itself on record.
    pub(crate) fn take_up(&self) -> PyResult<()> {
        self.shared.get()?.take_up().map_err(errors::heap)
    }
}

/// A blank record for a child, which puts itself on it when it settles.
#[pyfunction]
fn new_record() -> PyResult<Record> {
    let shared = Shell::empty();
    shared.fill(ProcessRecord::blank(family::heap()?).map_err(errors::heap)?);
    Ok(Record { shared })
}

/// Puts the class and the function into the module.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Record>()?;
    module.add_function(wrap_pyfunction!(new_record, module)?)
}
