//! The lock that its holder can take again.

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use tenfold_engine::shm::sync;

use super::taking;
use crate::arguments::Truth;
use crate::quick::{Answer, install, quick};
use crate::shell::Shell;
use crate::{carrier, errors, family};

/// A lock among processes that the thread which holds it may take again, and alone may release.
#[pyclass(subclass, frozen, module = "tenfold._native")]
pub(crate) struct RLock {
    shared: Shell<sync::RLock>,
}

impl RLock {
    #[inline]
    pub(crate) fn shared(&self) -> PyResult<&sync::RLock> {
        self.shared.get()
    }

    /// `with` begins.
    #[inline]
    pub(crate) fn enter(&self, py: Python<'_>) -> PyResult<bool> {
        taking::acquire(py, self.shared()?, Truth(true), None, false)
    }

    #[inline]
    pub(crate) fn let_go(&self) -> PyResult<()> {
        self.shared()?.release().map_err(errors::recursive)
    }

    /// Takes it if that is a matter of one step.
    #[inline]
    pub(super) fn quick_acquire(&self) -> Option<Answer> {
        self.shared.peek()?.acquire_at_once().ok()?.then_some(Answer::Yes)
    }

    #[inline]
    pub(super) fn quick_release(&self) -> Option<Answer> {
        self.shared.peek()?.release().is_ok().then_some(Answer::Done)
    }

    /// Whether this thread holds it.
    pub(super) fn is_mine(&self) -> PyResult<bool> {
        self.shared()?.is_mine().map_err(errors::heap)
    }
}

#[pymethods]
impl RLock {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> RLock {
        RLock { shared: Shell::empty() }
    }

    /// Makes the shared lock.
    fn _create(&self) -> PyResult<()> {
        self.shared.fill(sync::RLock::create(family::heap()?).map_err(errors::heap)?);
        Ok(())
    }

    /// The lock's id, while something carries the pickle.
    fn __getstate__(&self) -> PyResult<u64> {
        carrier::mention(self.shared()?.handle(), "RLock")
    }

    fn __setstate__(&self, id: u64) -> PyResult<()> {
        self.shared.find(id, sync::RLock::from_handle)
    }

    /// Takes the lock, once more if this thread holds it. Blocks for at most `timeout` seconds, or for as long as it
    /// takes; returns whether it is held.
    ///
    /// If the process that held it was killed or crashed, raises `OwnerDied` once and leaves the lock free; with
    /// `recover=True` it is held then, and what it guards is for the caller to mend.
    #[pyo3(signature = (block=Truth(true), timeout=None, *, recover=false),
           text_signature = "($self, block=True, timeout=None, *, recover=False)")]
    fn acquire(&self, py: Python<'_>, block: Truth, timeout: Option<f64>, recover: bool) -> PyResult<bool> {
        taking::acquire(py, self.shared()?, block, timeout, recover)
    }

    /// Undoes one `acquire` of this thread; `AssertionError` if it does not hold the lock.
    fn release(&self) -> PyResult<()> {
        self.let_go()
    }

    fn __enter__(&self, py: Python<'_>) -> PyResult<bool> {
        self.enter(py)
    }

    #[pyo3(signature = (_type=None, _error=None, _traceback=None, /))]
    fn __exit__(
        &self,
        _type: Option<&Bound<'_, PyAny>>,
        _error: Option<&Bound<'_, PyAny>>,
        _traceback: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        self.let_go()
    }

    /// Whether this thread holds it.
    fn _is_mine(&self) -> PyResult<bool> {
        self.is_mine()
    }

    /// How often a thread of this process has taken it.
    fn _count(&self) -> PyResult<u32> {
        self.shared()?.depth_here().map_err(errors::heap)
    }

    /// 0 if somebody holds it, else 1.
    fn _get_value(&self) -> PyResult<u32> {
        Ok(u32::from(!self.shared()?.is_locked()))
    }

    /// What names it in the heap.
    fn _handle(&self) -> PyResult<u64> {
        Ok(self.shared()?.handle().id().bits())
    }
}

quick!(Acquire: RLock, c"acquire", 1, RLock::quick_acquire);
quick!(Release: RLock, c"release", 0, RLock::quick_release);
quick!(Enter: RLock, c"__enter__", 0, RLock::quick_acquire);
quick!(Exit: RLock, c"__exit__", 3, RLock::quick_release);

pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<RLock>()?;
    let py = module.py();
    install::<Acquire>(py)?;
    install::<Release>(py)?;
    install::<Enter>(py)?;
    install::<Exit>(py)
}
