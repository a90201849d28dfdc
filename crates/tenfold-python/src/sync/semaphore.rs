//! The counter of permits, with and without a bound.
//!
//! A permit that `with` takes is this process's: it goes back if the process is killed. One that `acquire` takes is a
//! token, which anyone may put back, since semaphores are also used as signals.

use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use tenfold_engine::HeapError;
use tenfold_engine::shm::sync::{self, SyncResult};
use tenfold_engine::sys::clock::Deadline;

use crate::arguments::Truth;
use crate::quick::{Answer, install, quick};
use crate::shell::Shell;
use crate::waiting::{blocking, deadline};
use crate::{carrier, errors, family};

/// What sem_open answers to such a value.
const EINVAL: i32 = 22;

/// A counter that processes take permits from and put permits back into.
#[pyclass(subclass, frozen, module = "tenfold._native")]
pub(crate) struct Semaphore {
    shared: Shell<sync::Semaphore>,
}

impl Semaphore {
    #[inline]
    fn shared(&self) -> PyResult<&sync::Semaphore> {
        self.shared.get()
    }
}

/// Waits for a permit. `undo` puts it back.
#[cold]
fn wait(
    py: Python<'_>,
    timeout: Option<f64>,
    take: impl FnOnce(Deadline) -> Result<bool, HeapError> + Send,
    undo: impl FnOnce() -> SyncResult<()>,
) -> PyResult<bool> {
    let deadline = deadline(timeout)?;
    let undo = |_: Python<'_>, result: Result<bool, _>| {
        if result.is_ok_and(|taken| taken) {
            let _ = undo();
        }
    };
    blocking(py, || take(deadline), undo)?.map_err(errors::heap)
}

#[pymethods]
impl Semaphore {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Semaphore {
        Semaphore { shared: Shell::empty() }
    }

    /// Makes the shared semaphore, with `value` permits; `bound` is the most that it can have.
    #[pyo3(signature = (value, bound=None))]
    fn _create(&self, value: i32, bound: Option<i32>) -> PyResult<()> {
        let refused = |value: i32| {
            PyOSError::new_err((EINVAL, format!("a semaphore cannot have {value} permits: the least is 0")))
        };
        let permits = |value: i32| u64::try_from(value).map_err(|_| refused(value));
        let (value, bound) = (permits(value)?, bound.map(permits).transpose()?);
        self.shared.fill(sync::Semaphore::create(family::heap()?, value, bound).map_err(errors::sync)?);
        Ok(())
    }

    /// The semaphore's id, while something carries the pickle.
    fn __getstate__(&self) -> PyResult<u64> {
        carrier::mention(self.shared()?.handle(), "Semaphore")
    }

    fn __setstate__(&self, id: u64) -> PyResult<()> {
        self.shared.find(id, sync::Semaphore::from_handle)
    }

    /// Takes a permit. Blocks for at most `timeout` seconds, or for as long as it takes; returns whether there was one.
    ///
    /// The permit is a token: if this process is killed it stays taken, and anyone may put it back. One that a `with`
    /// statement takes goes back then.
    #[pyo3(signature = (block=Truth(true), timeout=None), text_signature = "($self, block=True, timeout=None)")]
    fn acquire(&self, py: Python<'_>, block: Truth, timeout: Option<f64>) -> PyResult<bool> {
        let semaphore = self.shared()?;
        let Truth(block) = block;
        if !block {
            return semaphore.try_acquire().map_err(errors::heap);
        }
        // Without a wait, but without overtaking those who have waited for long.
        if semaphore.acquire(Deadline::passed()).map_err(errors::heap)? {
            return Ok(true);
        }
        wait(py, timeout, |deadline| semaphore.acquire(deadline), || semaphore.release(1))
    }

    /// Puts a permit back; `ValueError` if there would be more than the bound.
    fn release(&self) -> PyResult<()> {
        self.shared()?.release(1).map_err(errors::sync)
    }

    fn __enter__(&self, py: Python<'_>) -> PyResult<bool> {
        let semaphore = self.shared()?;
        if semaphore.acquire_held(Deadline::passed()).map_err(errors::heap)? {
            return Ok(true);
        }
        let undo = || semaphore.release_held().map(|_| ());
        wait(py, None, |deadline| semaphore.acquire_held(deadline), undo)
    }

    #[pyo3(signature = (kind=None, value=None, traceback=None, /))]
    fn __exit__(
        &self,
        kind: Option<&Bound<'_, PyAny>>,
        value: Option<&Bound<'_, PyAny>>,
        traceback: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let _ = (kind, value, traceback);
        let semaphore = self.shared()?;
        // Not held: taken by `acquire`, or by the process that this one was forked from. Then it is put back all the
        // same, as the standard library does.
        if semaphore.release_held().map_err(errors::sync)? {
            return Ok(());
        }
        semaphore.release(1).map_err(errors::sync)
    }

    /// How many permits can be taken now.
    fn _get_value(&self) -> PyResult<u64> {
        Ok(self.shared()?.value())
    }

    /// The most permits that it can have.
    fn _max_value(&self) -> PyResult<u64> {
        Ok(self.shared()?.bound().unwrap_or(sync::semaphore::PERMITS_MAX))
    }

    /// What names it in the heap.
    fn _handle(&self) -> PyResult<u64> {
        Ok(self.shared()?.handle().id().bits())
    }
}

quick!(Acquire: Semaphore, c"acquire", 1, |semaphore| {
    // Without overtaking those who have waited for long.
    semaphore.shared.peek()?.acquire(Deadline::passed()).ok()?.then_some(Answer::Yes)
});
quick!(Release: Semaphore, c"release", 0, |semaphore| {
    semaphore.shared.peek()?.release(1).is_ok().then_some(Answer::Done)
});
quick!(Enter: Semaphore, c"__enter__", 0, |semaphore| {
    semaphore.shared.peek()?.acquire_held(Deadline::passed()).ok()?.then_some(Answer::Yes)
});
quick!(Exit: Semaphore, c"__exit__", 3, |semaphore| {
    semaphore.shared.peek()?.release_held().ok()?.then_some(Answer::Done)
});

pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Semaphore>()?;
    let py = module.py();
    install::<Acquire>(py)?;
    install::<Release>(py)?;
    install::<Enter>(py)?;
    install::<Exit>(py)
}
