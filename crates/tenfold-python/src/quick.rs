//! The hottest methods as bare C functions.
//!
//! CPython looks that `self` is of the class before it calls a method. PyO3 looks again, parses arguments, counts how
//! deep it is in Python and readies itself for a panic: half of what an uncontended `acquire` takes. So in front of some
//! methods stands a function that does the common case alone, and hands everything else on:
//!
//! ```text
//!  lock.acquire() ─▶ bare function ─ step: free? taken ───────────▶ True
//!                          │ arguments, a wait, an error
//!                          └▶ PyO3's method, as if it had been called itself
//! ```
//!
//! A step neither blocks nor calls Python. Should it panic, the process aborts: nothing unwinds into C.
//!
//! One of the rooms of this crate for code that the compiler cannot check.
#![allow(unsafe_code)]

use core::ffi::{CStr, c_int};
use core::mem::transmute;
use core::ptr::null_mut;
use std::ffi::CString;
use std::sync::OnceLock;

use pyo3::ffi::{
    self, METH_FASTCALL, METH_KEYWORDS, METH_NOARGS, PyCFunction, PyCFunctionFastWithKeywords, PyMethodDef,
    PyMethodDefPointer, PyObject,
};
use pyo3::prelude::*;
use pyo3::pyclass::boolean_struct::True;
use pyo3::{Borrowed, PyClass};

/// What a step has brought.
#[derive(Clone, Copy)]
pub(crate) enum Answer {
    /// `True`.
    Yes,
    /// `None`.
    Done,
}

impl Answer {
    /// A new reference, for Python.
    #[inline]
    fn object(self) -> *mut PyObject {
        // SAFETY: the GIL is held; both objects live for ever.
        unsafe {
            let object = match self {
                Answer::Yes => ffi::Py_True(),
                Answer::Done => ffi::Py_None(),
            };
            ffi::Py_IncRef(object);
            object
        }
    }
}

/// PyO3's own function for a method, in one of the two shapes that it gives them.
#[derive(Clone, Copy)]
pub(crate) enum Ordinary {
    Bare(PyCFunction),
    Fast(PyCFunctionFastWithKeywords),
}

/// A method with a common case.
pub(crate) trait Quick: 'static {
    /// Whose method it is.
    type Class: PyClass<Frozen = True> + Sync;
    /// The method's name.
    const NAME: &'static CStr;
    /// With how many arguments, of whatever value, the case is still the common one.
    const ARGUMENTS: isize;
    /// Where PyO3's function is kept.
    fn ordinary() -> &'static OnceLock<Ordinary>;
    /// The common case; `None` if it is not that, and nothing was done.
    fn step(of: &Self::Class) -> Option<Answer>;
}

/// Names a method's common case: `quick!(ACQUIRE: Lock, c"acquire", 1, |lock| …)`.
macro_rules! quick {
    ($name:ident: $class:ty, $method:literal, $arguments:literal, $step:expr) => {
        struct $name;

        impl $crate::quick::Quick for $name {
            type Class = $class;
            const NAME: &'static core::ffi::CStr = $method;
            const ARGUMENTS: isize = $arguments;

            fn ordinary() -> &'static std::sync::OnceLock<$crate::quick::Ordinary> {
                static ORDINARY: std::sync::OnceLock<$crate::quick::Ordinary> = std::sync::OnceLock::new();
                &ORDINARY
            }

            #[inline]
            fn step(of: &$class) -> Option<$crate::quick::Answer> {
                let step: fn(&$class) -> Option<$crate::quick::Answer> = $step;
                step(of)
            }
        }
    };
}
pub(crate) use quick;

/// # Safety
/// As [`bare`].
#[inline]
unsafe fn step<Q: Quick>(slf: *mut PyObject) -> Option<*mut PyObject> {
    // SAFETY: the caller answers for the GIL and for the class; the reference does not outlive this call.
    let object = unsafe { Borrowed::from_ptr(Python::assume_attached(), slf).cast_unchecked::<Q::Class>() };
    Q::step(object.get()).map(Answer::object)
}

/// # Safety
/// For CPython only: the GIL is held, and `slf` is an object of the class, which its method descriptor has checked.
unsafe extern "C" fn bare<Q: Quick>(slf: *mut PyObject, nothing: *mut PyObject) -> *mut PyObject {
    // SAFETY: as the caller promises.
    match (unsafe { step::<Q>(slf) }, Q::ordinary().get()) {
        (Some(answer), _) => answer,
        // SAFETY: the very call that PyO3's function would have got; it has this shape.
        (None, Some(Ordinary::Bare(ordinary))) => unsafe { ordinary(slf, nothing) },
        (None, _) => not_installed(),
    }
}

/// # Safety
/// As [`bare`]; `args` are `nargs` positional arguments, and those that the tuple `kwnames` names.
unsafe extern "C" fn fast<Q: Quick>(
    slf: *mut PyObject,
    args: *const *mut PyObject,
    nargs: ffi::Py_ssize_t,
    kwnames: *mut PyObject,
) -> *mut PyObject {
    if nargs <= Q::ARGUMENTS && kwnames.is_null() {
        // SAFETY: as the caller promises.
        if let Some(answer) = unsafe { step::<Q>(slf) } {
            return answer;
        }
    }
    match Q::ordinary().get() {
        // SAFETY: the very call that PyO3's function would have got; it has this shape.
        Some(Ordinary::Fast(ordinary)) => unsafe { ordinary(slf, args, nargs, kwnames) },
        _ => not_installed(),
    }
}

#[cold]
fn not_installed() -> *mut PyObject {
    // SAFETY: the GIL is held, the text ends with a zero.
    unsafe { ffi::PyErr_SetString(ffi::PyExc_SystemError, c"a quick method without its ordinary one".as_ptr()) };
    null_mut()
}

/// Puts the bare function before PyO3's method. Where PyO3 makes its methods in another shape, they stay as they are.
///
/// # Errors
/// If Python has no memory.
pub(crate) fn install<Q: Quick>(py: Python<'_>) -> PyResult<()> {
    let class = py.get_type::<Q::Class>();
    let name = Q::NAME.to_str()?;
    // An empty shell will do to ask for its method.
    let method = class.call0()?.getattr(name)?;
    // SAFETY: both accept any object and answer with an error if it is not a built-in function.
    let (flags, function) =
        unsafe { (ffi::PyCFunction_GetFlags(method.as_ptr()), ffi::PyCFunction_GetFunction(method.as_ptr())) };
    let Some(function) = function else { return Err(PyErr::fetch(py)) };
    const FAST: c_int = METH_FASTCALL | METH_KEYWORDS;
    let (ordinary, pointer) = match flags {
        METH_NOARGS => (Ordinary::Bare(function), PyMethodDefPointer { PyCFunction: bare::<Q> }),
        FAST => {
            // SAFETY: the flags say which shape the function really has.
            let function = unsafe { transmute::<PyCFunction, PyCFunctionFastWithKeywords>(function) };
            (Ordinary::Fast(function), PyMethodDefPointer { PyCFunctionFastWithKeywords: fast::<Q> })
        }
        _ => return Ok(()),
    };
    let _ = Q::ordinary().set(ordinary);
    let signature = method.getattr("__text_signature__")?.extract::<Option<String>>()?.unwrap_or_default();
    let text = method.getattr("__doc__")?.extract::<Option<String>>()?.unwrap_or_default();
    let doc = CString::new(format!("{name}{signature}\n--\n\n{text}"))?;
    // As long as the class, which is for ever.
    let definition = Box::leak(Box::new(PyMethodDef {
        ml_name: Q::NAME.as_ptr(),
        ml_meth: pointer,
        ml_flags: flags,
        ml_doc: doc.into_raw(),
    }));
    // SAFETY: the class is a type object, the definition is whole and lives on.
    let quick = unsafe {
        Bound::from_owned_ptr_or_err(py, ffi::PyDescr_NewMethod(class.as_type_ptr(), core::ptr::from_mut(definition)))?
    };
    class.setattr(name, quick)
}
