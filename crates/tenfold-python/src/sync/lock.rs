//! The plain lock.

use core::cell::Cell;
use core::sync::atomic::{AtomicUsize, Ordering};

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use tenfold_engine::shm::sync;

use super::taking;
use crate::arguments::Truth;
use crate::quick::{Answer, install, quick};
use crate::shell::Shell;
use crate::{carrier, errors, family};

thread_local! {
    static HERE: Cell<u8> = const { Cell::new(0) };
}

/// Tells the threads of this process apart while they live.
fn this_thread() -> usize {
    HERE.with(|here| core::ptr::from_ref(here).addr())
}

/// A lock for mutual exclusion among processes; any process may release it.
#[pyclass(subclass, frozen, module = "tenfold._native")]
pub(crate) struct Lock {
    shared: Shell<sync::Lock>,
    /// The thread of this process that took the lock last by this object. The shared lock knows only which process
    /// holds it; conditions and `repr` ask for the thread, as in the standard library.
    taker: AtomicUsize,
}

impl Lock {
    #[inline]
    pub(super) fn shared(&self) -> PyResult<&sync::Lock> {
        self.shared.get()
    }

    /// This thread has taken the lock.
    #[inline]
    pub(super) fn taken_here(&self) {
        self.taker.store(this_thread(), Ordering::Relaxed);
    }

    #[inline]
    fn take(&self, py: Python<'_>, block: Truth, timeout: Option<f64>, recover: bool) -> PyResult<bool> {
        let held = taking::acquire(py, self.shared()?, block, timeout, recover)?;
        if held {
            self.taken_here();
        }
        Ok(held)
    }

    /// `with` begins.
    #[inline]
    pub(crate) fn enter(&self, py: Python<'_>) -> PyResult<bool> {
        self.take(py, Truth(true), None, false)
    }

    #[inline]
    pub(crate) fn let_go(&self) -> PyResult<()> {
        self.shared()?.release().map_err(errors::sync)
    }

    /// Takes it if that is a matter of one step.
    #[inline]
    pub(super) fn quick_acquire(&self) -> Option<Answer> {
        let taken = self.shared.peek()?.acquire_at_once().ok()?;
        taken.then(|| {
            self.taken_here();
            Answer::Yes
        })
    }

    #[inline]
    pub(super) fn quick_release(&self) -> Option<Answer> {
        self.shared.peek()?.release().is_ok().then_some(Answer::Done)
    }

    /// Whether this thread holds it.
    pub(super) fn is_mine(&self) -> PyResult<bool> {
        let ours = self.shared()?.is_mine().map_err(errors::heap)?;
        Ok(ours && self.taker.load(Ordering::Relaxed) == this_thread())
    }
}

#[pymethods]
impl Lock {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Lock {
        Lock { shared: Shell::empty(), taker: AtomicUsize::new(0) }
    }

    /// Makes the shared lock.
    fn _create(&self) -> PyResult<()> {
        self.shared.fill(sync::Lock::create(family::heap()?).map_err(errors::heap)?);
        Ok(())
    }

    /// The lock's id, while something carries the pickle.
    fn __getstate__(&self) -> PyResult<u64> {
        carrier::mention(self.shared()?.handle(), "Lock")
    }

    fn __setstate__(&self, id: u64) -> PyResult<()> {
        self.shared.find(id, sync::Lock::from_handle)
    }

    /// Takes the lock. Blocks for at most `timeout` seconds, or for as long as it takes; returns whether it is held.
    ///
    /// If the process that held it was killed or crashed, raises `OwnerDied` once and leaves the lock free; with
    /// `recover=True` it is held then, and what it guards is for the caller to mend.
    #[pyo3(signature = (block=Truth(true), timeout=None, *, recover=false),
           text_signature = "($self, block=True, timeout=None, *, recover=False)")]
    fn acquire(&self, py: Python<'_>, block: Truth, timeout: Option<f64>, recover: bool) -> PyResult<bool> {
        self.take(py, block, timeout, recover)
    }

    /// Frees the lock, whoever holds it; `ValueError` if nobody does.
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

    /// How often this process holds it.
    fn _count(&self) -> PyResult<u32> {
        Ok(u32::from(self.shared()?.is_mine().map_err(errors::heap)?))
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

quick!(Acquire: Lock, c"acquire", 1, Lock::quick_acquire);
quick!(Release: Lock, c"release", 0, Lock::quick_release);
quick!(Enter: Lock, c"__enter__", 0, Lock::quick_acquire);
quick!(Exit: Lock, c"__exit__", 3, Lock::quick_release);

pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Lock>()?;
    let py = module.py();
    install::<Acquire>(py)?;
    install::<Release>(py)?;
    install::<Enter>(py)?;
    install::<Exit>(py)
}
