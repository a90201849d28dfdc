//! The engine's errors as Python's.

use pyo3::create_exception;
use pyo3::exceptions::{PyMemoryError, PyOSError, PyRuntimeError, PyTimeoutError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;
use tenfold_engine::HeapError;
use tenfold_engine::shm::queue::QueueError;
use tenfold_engine::shm::sync::SyncError;

create_exception!(
    tenfold,
    HeapFull,
    PyMemoryError,
    "The shared heap has no room: the message names the limit, which `tenfold.set_heap_limit()` sets."
);
create_exception!(
    tenfold,
    OwnerDied,
    PyRuntimeError,
    "The process that held a lock was killed or crashed while it did. Raised once; the lock is free (after \
     `acquire(recover=True)` it is held): what it guards may be half changed."
);
create_exception!(
    tenfold,
    StaleHandle,
    PyRuntimeError,
    "A lock, queue or other shared object is gone: the last process that held it has let go of it."
);

create_exception!(
    tenfold,
    FamilyEnded,
    PyRuntimeError,
    "The program that this process belongs to has ended: its first process is gone."
);

/// A heap's error as Python's.
pub(crate) fn heap(error: HeapError) -> PyErr {
    let text = error.to_string();
    match error {
        HeapError::Stale => StaleHandle::new_err(text),
        HeapError::FamilyEnded => FamilyEnded::new_err(text),
        HeapError::OutOfMemory { .. }
        | HeapError::FileSize { .. }
        | HeapError::TooLarge { .. }
        | HeapError::AddressSpace { .. } => HeapFull::new_err(text),
        HeapError::Os { errno, .. } => PyOSError::new_err((errno.raw_os_error(), text)),
        _ => PyRuntimeError::new_err(text),
    }
}

/// A lock's error as Python's, in the standard library's types.
pub(crate) fn sync(error: SyncError) -> PyErr {
    match error {
        SyncError::Heap(error) => heap(error),
        SyncError::NotOwner => {
            pyo3::exceptions::PyAssertionError::new_err("attempt to release recursive lock not owned by thread")
        }
        SyncError::NotHeld | SyncError::OverRelease { .. } => {
            PyValueError::new_err("semaphore or lock released too many times")
        }
        error => PyValueError::new_err(error.to_string()),
    }
}

/// The same for a re-entrant lock, where the standard library asserts who releases it.
pub(crate) fn recursive(error: SyncError) -> PyErr {
    match error {
        SyncError::NotHeld => sync(SyncError::NotOwner),
        error => sync(error),
    }
}

/// The notice that the holder of a lock was killed; the lock is free.
pub(crate) fn owner_died() -> PyErr {
    OwnerDied::new_err(
        "the process that held this lock was killed or crashed while it did; what the lock guards may be half changed \
         (the lock is free now; acquire(recover=True) takes it all the same)",
    )
}

static BROKEN_BARRIER: PyOnceLock<Py<PyType>> = PyOnceLock::new();

/// `threading.BrokenBarrierError`.
pub(crate) fn broken_barrier(py: Python<'_>, text: &'static str) -> PyErr {
    match BROKEN_BARRIER.import(py, "threading", "BrokenBarrierError") {
        Ok(class) => PyErr::from_type(class.clone(), text),
        Err(error) => error,
    }
}

static EMPTY: PyOnceLock<Py<PyType>> = PyOnceLock::new();
static FULL: PyOnceLock<Py<PyType>> = PyOnceLock::new();

/// A queue's error as Python's.
pub(crate) fn queue(py: Python<'_>, error: QueueError) -> PyErr {
    let named = |cell: &PyOnceLock<Py<PyType>>, name| match cell.import(py, "queue", name) {
        Ok(class) => PyErr::from_type(class.clone(), ()),
        Err(error) => error,
    };
    match error {
        QueueError::Full => named(&FULL, "Full"),
        QueueError::Empty => named(&EMPTY, "Empty"),
        QueueError::TimedOut => PyTimeoutError::new_err(error.to_string()),
        QueueError::TooManyDone => PyValueError::new_err("task_done() called too many times"),
        QueueError::Heap(error) => heap(error),
        error => PyValueError::new_err(error.to_string()),
    }
}

/// Puts the exceptions into the module.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    module.add("FamilyEnded", py.get_type::<FamilyEnded>())?;
    module.add("HeapFull", py.get_type::<HeapFull>())?;
    module.add("OwnerDied", py.get_type::<OwnerDied>())?;
    module.add("StaleHandle", py.get_type::<StaleHandle>())
}
