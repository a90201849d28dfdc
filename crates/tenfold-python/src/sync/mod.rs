//! Locks and meeting points: the native half of `tenfold.synchronize`.
//!
//! ```text
//!  taking     acquire and release as Python's locks spell them: arguments, OwnerDied, the step without a wait
//!  lock  rlock  semaphore  condition  event  barrier
//! ```
//!
//! Each class is a shell around the engine's object of the same name. `__new__` makes an empty shell, `_create` makes the
//! shared object, `__setstate__` finds one that a pickle mentions; so a Python subclass may have any `__init__`.

mod barrier;
mod condition;
mod event;
mod lock;
mod rlock;
mod semaphore;
mod taking;

use pyo3::prelude::*;

pub(crate) use lock::Lock;
pub(crate) use rlock::RLock;

/// Puts the classes into the module.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    lock::register(module)?;
    rlock::register(module)?;
    semaphore::register(module)?;
    condition::register(module)?;
    module.add_class::<event::Event>()?;
    module.add_class::<barrier::Barrier>()
}
