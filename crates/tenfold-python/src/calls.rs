//! Calls of Python functions without a tuple around their argument, which would cost a third of a short call.
//!
//! A room of this crate for code that the compiler cannot check.
#![allow(unsafe_code)]

use core::ptr::null_mut;

use pyo3::ffi;
use pyo3::prelude::*;

/// Returns `function(argument)`.
///
/// # Errors
/// What the function raises.
#[inline]
pub(crate) fn with_one<'py>(function: &Bound<'py, PyAny>, argument: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let end = null_mut::<ffi::PyObject>();
    // SAFETY: the GIL is held, as the references prove; both objects live until after the call. The arguments end with a
    // null pointer. What comes back is a new reference, or null with an exception set.
    unsafe {
        let result = ffi::PyObject_CallFunctionObjArgs(function.as_ptr(), argument.as_ptr(), end);
        Bound::from_owned_ptr_or_err(function.py(), result)
    }
}
