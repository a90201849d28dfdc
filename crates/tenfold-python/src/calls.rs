//! Calls of Python functions without a tuple around their argument, which would cost a third of a short call, and of
//! classes without `__init__`.
//!
//! A room of this crate for code that the compiler cannot check.
#![allow(unsafe_code)]

use core::ffi::c_void;
use core::mem::transmute;
use core::ptr::null_mut;

use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyTuple, PyType};

// Python 3.11 exports it as a public function; from 3.12 on it is part of the stable ABI, in this very form.
unsafe extern "C" {
    fn PyObject_Vectorcall(
        callable: *mut ffi::PyObject,
        args: *const *mut ffi::PyObject,
        nargsf: usize,
        kwnames: *mut ffi::PyObject,
    ) -> *mut ffi::PyObject;
}

/// Says that the callee may use the place before the first argument, so that it need not copy them for a method.
const ARGUMENTS_OFFSET: usize = 1 << (usize::BITS - 1);

/// Returns `function(argument)`.
///
/// # Errors
/// What the function raises.
#[inline]
pub(crate) fn with_one<'py>(function: &Bound<'py, PyAny>, argument: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let mut args = [null_mut(), argument.as_ptr()];
    // SAFETY: the GIL is held, as the references prove; both objects live until after the call. There is one argument,
    // and a place before it. What comes back is a new reference, or null with an exception set.
    unsafe {
        let result = PyObject_Vectorcall(function.as_ptr(), args.as_mut_ptr().add(1), 1 | ARGUMENTS_OFFSET, null_mut());
        Bound::from_owned_ptr_or_err(function.py(), result)
    }
}

/// A new instance of a class on which no `__init__` is called.
///
/// # Errors
/// What the class's `__new__` raises.
#[inline]
pub(crate) fn instance<'py>(class: &Bound<'py, PyType>) -> PyResult<Bound<'py, PyAny>> {
    let (py, nothing) = (class.py(), PyTuple::empty(class.py()));
    // SAFETY: the GIL is held; a class's slot of this name is null or a function of this type. It gets the class that it
    // is asked of, a tuple, and no keywords. What comes back is a new reference, or null with an exception set.
    unsafe {
        let slot = ffi::PyType_GetSlot(class.as_type_ptr(), ffi::Py_tp_new);
        let Some(new) = transmute::<*mut c_void, Option<ffi::newfunc>>(slot) else {
            return Err(PyTypeError::new_err("a class without instances"));
        };
        Bound::from_owned_ptr_or_err(py, new(class.as_type_ptr(), nothing.as_ptr(), null_mut()))
    }
}
