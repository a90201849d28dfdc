//! Locks and meeting points: the native half of `tenfold.synchronize`.
//!
//! Each class is a shell around the engine's object of the same name. `__new__` makes an empty shell, `_create` makes the
//! shared object, `__setstate__` finds one that a pickle mentions; so a Python subclass may have any `__init__`.

mod lock;

use pyo3::prelude::*;

/// Puts the classes into the module.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<lock::Lock>()
}
