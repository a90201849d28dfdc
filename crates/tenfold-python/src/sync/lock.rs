//! The plain lock.

use std::sync::OnceLock;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use tenfold_engine::shm::sync::{self, Acquired};

use crate::waiting::{blocking, deadline};
use crate::{carrier, errors, family};

/// A lock for mutual exclusion among processes; any process may release it.
#[pyclass(subclass, frozen, module = "tenfold._native")]
pub(crate) struct Lock {
    inner: OnceLock<sync::Lock>,
}

impl Lock {
    fn inner(&self) -> PyResult<&sync::Lock> {
        self.inner.get().ok_or_else(|| PyRuntimeError::new_err("Lock.__init__() was not called"))
    }
}

#[pymethods]
impl Lock {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Lock {
        Lock { inner: OnceLock::new() }
    }

    /// Makes the shared lock.
    fn _create(&self) -> PyResult<()> {
        let _ = self.inner.set(sync::Lock::create(family::heap()?).map_err(errors::heap)?);
        Ok(())
    }

    /// The lock's id, while something carries the pickle.
    fn __getstate__(&self) -> PyResult<u64> {
        carrier::mention(self.inner()?.handle(), "Lock")
    }

    fn __setstate__(&self, id: u64) -> PyResult<()> {
        let _ = self.inner.set(sync::Lock::from_handle(carrier::found(id)?).map_err(errors::heap)?);
        Ok(())
    }

    /// Takes the lock. Blocks for at most `timeout` seconds, or for as long as it takes; returns whether it is held.
    ///
    /// If the process that held it was killed or crashed, raises `OwnerDied` once and leaves the lock free; with
    /// `recover=True` it is held then, and what it guards is for the caller to mend.
    #[pyo3(signature = (block=true, timeout=None, *, recover=false))]
    fn acquire(&self, py: Python<'_>, block: bool, timeout: Option<f64>, recover: bool) -> PyResult<bool> {
        let lock = self.inner()?;
        let mut acquired = lock.try_acquire().map_err(errors::heap)?;
        if acquired == Acquired::TimedOut && block {
            let deadline = deadline(timeout)?;
            let undo = |_: Python<'_>, result: Result<Acquired, _>| {
                if result.is_ok_and(Acquired::is_held) {
                    let _ = lock.release();
                }
            };
            acquired = blocking(py, || lock.acquire(deadline), undo)?.map_err(errors::heap)?;
        }
        match acquired {
            Acquired::Yes => Ok(true),
            Acquired::TimedOut => Ok(false),
            Acquired::OwnerDied if recover => Ok(true),
            Acquired::OwnerDied => {
                lock.release().map_err(errors::sync)?;
                Err(errors::OwnerDied::new_err(
                    "the process that held this lock was killed or crashed while it did; what the lock guards may be \
                     half changed (the lock is free now; acquire(recover=True) takes it all the same)",
                ))
            }
        }
    }

    /// Frees the lock, whoever holds it.
    fn release(&self) -> PyResult<()> {
        self.inner()?.release().map_err(errors::sync)
    }

    fn __enter__(&self, py: Python<'_>) -> PyResult<bool> {
        self.acquire(py, true, None, false)
    }

    #[pyo3(signature = (*_exc))]
    fn __exit__(&self, _exc: &Bound<'_, PyTuple>) -> PyResult<()> {
        self.release()
    }
}
