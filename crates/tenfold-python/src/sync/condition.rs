//! The place to wait for a change that a lock guards.
//!
//! The native object keeps the Python object of its lock, since that knows which thread holds it.

use pyo3::exceptions::{PyAssertionError, PyTypeError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use tenfold_engine::HeapError;
use tenfold_engine::shm::sync::{self, Acquired, LetGo, UserLock};

use super::{Lock, RLock};
use crate::quick::{install, quick};
use crate::shell::Shell;
use crate::waiting::{deadline, listening};
use crate::{carrier, errors, family};

enum OwnLock {
    Lock(Py<Lock>),
    RLock(Py<RLock>),
}

impl OwnLock {
    fn new(lock: &Bound<'_, PyAny>) -> PyResult<OwnLock> {
        if let Ok(lock) = lock.cast::<Lock>() {
            return Ok(OwnLock::Lock(lock.clone().unbind()));
        }
        match lock.cast::<RLock>() {
            Ok(lock) => Ok(OwnLock::RLock(lock.clone().unbind())),
            Err(_) => Err(PyTypeError::new_err("the lock of a condition must be a Lock or an RLock")),
        }
    }

    fn shared(&self) -> PyResult<UserLock> {
        match self {
            OwnLock::Lock(lock) => Ok(UserLock::Lock(lock.get().shared()?.clone())),
            OwnLock::RLock(lock) => Ok(UserLock::RLock(lock.get().shared()?.clone())),
        }
    }

    fn is_mine(&self) -> PyResult<bool> {
        match self {
            OwnLock::Lock(lock) => lock.get().is_mine(),
            OwnLock::RLock(lock) => lock.get().is_mine(),
        }
    }

    /// A wait has taken the lock back.
    fn taken_here(&self) {
        match self {
            OwnLock::Lock(lock) => lock.get().taken_here(),
            OwnLock::RLock(_) => {}
        }
    }
}

/// A place where processes wait to be notified, with the lock that guards what they wait for.
#[pyclass(subclass, frozen, module = "tenfold._native")]
pub(crate) struct Condition {
    shared: Shell<sync::Condition>,
    lock: Shell<OwnLock>,
}

/// Takes the lock back after a wait, in case the wait's own attempt was cut short by a signal handler that raised. A
/// further signal cuts this short, too: then the lock is not held.
fn take_back(
    py: Python<'_>,
    lock: &UserLock,
    how: LetGo,
    first: Result<Acquired, HeapError>,
    heard: Option<PyErr>,
) -> PyResult<(Acquired, Option<PyErr>)> {
    let first = first.map_err(errors::heap)?;
    if first.is_held() || heard.is_none() {
        return Ok((first, heard));
    }
    let deadline = deadline(None)?;
    let (again, heard_again) = listening(py, || lock.take_back(how, deadline));
    Ok((again.map_err(errors::heap)?, heard_again.or(heard)))
}

#[pymethods]
impl Condition {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Condition {
        Condition { shared: Shell::empty(), lock: Shell::empty() }
    }

    /// Makes the shared condition, around `lock`.
    fn _create(&self, lock: &Bound<'_, PyAny>) -> PyResult<()> {
        let lock = OwnLock::new(lock)?;
        self.shared.fill(sync::Condition::create(family::heap()?, lock.shared()?).map_err(errors::heap)?);
        self.lock.fill(lock);
        Ok(())
    }

    /// The condition's id, while something carries the pickle, and the lock.
    fn __getstate__(&self, py: Python<'_>) -> PyResult<(u64, Py<PyAny>)> {
        Ok((carrier::mention(self.shared.get()?.handle(), "Condition")?, self._lock(py)?))
    }

    fn __setstate__(&self, state: (u64, Bound<'_, PyAny>)) -> PyResult<()> {
        self.lock.fill(OwnLock::new(&state.1)?);
        self.shared.find(state.0, sync::Condition::from_handle)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self.lock.get() {
            Ok(OwnLock::Lock(lock)) => visit.call(lock),
            Ok(OwnLock::RLock(lock)) => visit.call(lock),
            Err(_) => Ok(()),
        }
    }

    /// The lock.
    #[getter]
    fn _lock(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        Ok(match self.lock.get()? {
            OwnLock::Lock(lock) => lock.clone_ref(py).into_any(),
            OwnLock::RLock(lock) => lock.clone_ref(py).into_any(),
        })
    }

    fn __enter__(&self, py: Python<'_>) -> PyResult<bool> {
        match self.lock.get()? {
            OwnLock::Lock(lock) => lock.get().enter(py),
            OwnLock::RLock(lock) => lock.get().enter(py),
        }
    }

    #[pyo3(signature = (kind=None, value=None, traceback=None, /))]
    fn __exit__(
        &self,
        kind: Option<&Bound<'_, PyAny>>,
        value: Option<&Bound<'_, PyAny>>,
        traceback: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let _ = (kind, value, traceback);
        match self.lock.get()? {
            OwnLock::Lock(lock) => lock.get().let_go(),
            OwnLock::RLock(lock) => lock.get().let_go(),
        }
    }

    /// Lets go of the lock, waits to be notified or for `timeout` seconds, and takes the lock back. Returns whether it
    /// was notified.
    ///
    /// Raises `OwnerDied` if the lock came back from a process that was killed or crashed while it held it. The lock is
    /// held by the caller then, as after every wait: a `with` statement around the wait frees it.
    #[pyo3(signature = (timeout=None))]
    fn wait(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<bool> {
        let (condition, lock) = (self.shared.get()?, self.lock.get()?);
        if !lock.is_mine()? {
            return Err(PyAssertionError::new_err("must acquire() condition before using wait()"));
        }
        let (until, for_ever) = (deadline(timeout)?, deadline(None)?);
        let waiter = condition.enlist().map_err(errors::heap)?;
        let how = condition.lock().let_go().map_err(errors::recursive)?;
        let ((slept, taken), heard) = listening(py, || {
            let slept = waiter.sleep(until);
            (slept, condition.lock().take_back(how, for_ever))
        });
        let back = take_back(py, condition.lock(), how, taken, heard);
        // In the list until the lock is held again: whoever dies before that passes the notice on.
        let notified = waiter.leave().map_err(errors::heap)?;
        let (acquired, heard) = back?;
        if acquired.is_held() {
            lock.taken_here();
        }
        if let Some(raised) = heard {
            if notified {
                condition.notify(1).map_err(errors::heap)?;
            }
            if acquired == Acquired::OwnerDied {
                raised.set_cause(py, Some(held_by_dead()));
            }
            return Err(raised);
        }
        slept.map_err(errors::heap)?;
        match acquired {
            Acquired::OwnerDied => Err(held_by_dead()),
            Acquired::Yes | Acquired::TimedOut => Ok(notified),
        }
    }

    /// Wakes the `n` that have waited longest. The caller holds the lock.
    #[pyo3(signature = (n=1))]
    fn notify(&self, n: i64) -> PyResult<()> {
        if !self.lock.get()?.is_mine()? {
            return Err(PyAssertionError::new_err("lock is not owned"));
        }
        // A negative number is none.
        self.shared.get()?.notify(usize::try_from(n).unwrap_or(0)).map_err(errors::heap)?;
        Ok(())
    }

    /// Wakes all who wait. The caller holds the lock.
    fn notify_all(&self) -> PyResult<()> {
        self.notify(i64::MAX)
    }

    /// How many wait and are not notified.
    fn _waiting(&self) -> PyResult<u64> {
        Ok(self.shared.get()?.waiting())
    }
}

fn held_by_dead() -> PyErr {
    errors::OwnerDied::new_err(
        "the process that held the lock of this condition was killed or crashed while it did; what the lock guards may \
         be half changed (this thread holds the lock again, as after every wait)",
    )
}

quick!(Enter: Condition, c"__enter__", 0, |condition| match condition.lock.peek()? {
    OwnLock::Lock(lock) => lock.get().quick_acquire(),
    OwnLock::RLock(lock) => lock.get().quick_acquire(),
});
quick!(Exit: Condition, c"__exit__", 3, |condition| match condition.lock.peek()? {
    OwnLock::Lock(lock) => lock.get().quick_release(),
    OwnLock::RLock(lock) => lock.get().quick_release(),
});

pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Condition>()?;
    install::<Enter>(module.py())?;
    install::<Exit>(module.py())
}
