//! The meeting point.

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use tenfold_engine::shm::sync::{self, BarrierWait};

use crate::shell::Shell;
use crate::waiting::{blocking, deadline};
use crate::{carrier, errors, family};

/// A place where a fixed number of parties wait for each other.
#[pyclass(subclass, frozen, module = "tenfold._native")]
pub(crate) struct Barrier {
    shared: Shell<sync::Barrier>,
}

impl Barrier {
    fn shared(&self) -> PyResult<&sync::Barrier> {
        self.shared.get()
    }
}

#[pymethods]
impl Barrier {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Barrier {
        Barrier { shared: Shell::empty() }
    }

    /// Makes the shared barrier.
    fn _create(&self, parties: i64) -> PyResult<()> {
        // A negative number is out of range as well.
        let parties = u64::try_from(parties).unwrap_or(0);
        self.shared.fill(sync::Barrier::create(family::heap()?, parties).map_err(errors::sync)?);
        Ok(())
    }

    /// The barrier's id, while something carries the pickle.
    fn __getstate__(&self) -> PyResult<u64> {
        carrier::mention(self.shared()?.handle(), "Barrier")
    }

    fn __setstate__(&self, id: u64) -> PyResult<()> {
        self.shared.find(id, sync::Barrier::from_handle)
    }

    /// Waits for the other parties; the last one calls `action` before anybody goes on. Returns in which place this
    /// party came.
    fn _wait(&self, py: Python<'_>, timeout: Option<f64>, action: Option<Py<PyAny>>) -> PyResult<u32> {
        let (barrier, deadline) = (self.shared()?, deadline(timeout)?);
        let mut raised = None;
        let act = || match &action {
            None => true,
            Some(action) => Python::attach(|py| action.call0(py)).map_err(|error| raised = Some(error)).is_ok(),
        };
        let end = blocking(py, || barrier.wait_and(deadline, act), |_, _| ())?;
        match (raised, end.map_err(errors::heap)?) {
            (Some(error), _) => Err(error),
            (None, BarrierWait::Passed { index }) => Ok(index),
            (None, BarrierWait::Broken) => Err(errors::broken_barrier(
                py,
                "the barrier is broken: it was aborted or reset, or a party gave up, failed or was killed",
            )),
            (None, BarrierWait::TimedOut) => Err(errors::broken_barrier(
                py,
                "the other parties did not come in time; the barrier is broken for all now",
            )),
        }
    }

    /// Breaks the barrier: all who wait and all who come get `BrokenBarrierError`.
    fn abort(&self) -> PyResult<()> {
        self.shared()?.abort().map_err(errors::heap)
    }

    /// Makes the barrier as new; those who wait get `BrokenBarrierError`.
    fn reset(&self) -> PyResult<()> {
        self.shared()?.reset().map_err(errors::heap)
    }

    /// How many parties it takes.
    #[getter]
    fn parties(&self) -> PyResult<u64> {
        Ok(self.shared()?.parties())
    }

    /// How many wait now.
    #[getter]
    fn n_waiting(&self) -> PyResult<u32> {
        Ok(self.shared()?.waiting())
    }

    /// Whether it is broken.
    #[getter]
    fn broken(&self) -> PyResult<bool> {
        Ok(self.shared()?.is_broken())
    }
}
