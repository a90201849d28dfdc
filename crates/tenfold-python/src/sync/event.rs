//! The flag to wait for.

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use tenfold_engine::shm::sync;

use crate::shell::Shell;
use crate::waiting::{blocking, deadline};
use crate::{carrier, errors, family};

/// A flag that processes set, clear and wait for.
#[pyclass(subclass, frozen, module = "tenfold._native")]
pub(crate) struct Event {
    shared: Shell<sync::Event>,
}

#[pymethods]
impl Event {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Event {
        Event { shared: Shell::empty() }
    }

    /// Makes the shared event.
    fn _create(&self) -> PyResult<()> {
        self.shared.fill(sync::Event::create(family::heap()?).map_err(errors::heap)?);
        Ok(())
    }

    /// The event's id, while something carries the pickle.
    fn __getstate__(&self) -> PyResult<u64> {
        carrier::mention(self.shared.get()?.handle(), "Event")
    }

    fn __setstate__(&self, id: u64) -> PyResult<()> {
        self.shared.find(id, sync::Event::from_handle)
    }

    /// Whether the flag is set.
    fn is_set(&self) -> PyResult<bool> {
        Ok(self.shared.get()?.is_set())
    }

    /// Sets the flag and wakes all who wait for it.
    fn set(&self) -> PyResult<()> {
        self.shared.get()?.set();
        Ok(())
    }

    /// Clears the flag.
    fn clear(&self) -> PyResult<()> {
        self.shared.get()?.clear();
        Ok(())
    }

    /// Waits until the flag is set, for at most `timeout` seconds. Returns whether it was, also if it has been cleared
    /// again by now.
    #[pyo3(signature = (timeout=None))]
    fn wait(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<bool> {
        let event = self.shared.get()?;
        if event.is_set() {
            return Ok(true);
        }
        let deadline = deadline(timeout)?;
        blocking(py, || event.wait(deadline), |_, _| ())?.map_err(errors::heap)
    }
}
