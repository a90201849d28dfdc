//! Numbers, as C has them and as Python has them.
//!
//! Under the stable ABI each look at an object is a call into CPython, so as few as possible are made. Those that are made
//! here neither run Python code nor let go of the GIL.
//!
//! One of the rooms of this crate for code that the compiler cannot check.
#![allow(unsafe_code)]

use pyo3::Borrowed;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyFloat, PyInt, PyList};

use crate::codec::exactly;

/// A type of number.
pub(crate) trait Number: bytemuck::Pod {
    fn to_python<'py>(self, py: Python<'py>) -> Bound<'py, PyAny>;
    /// The number that ctypes would store for such an object, if that is plain.
    fn from_python(object: &Bound<'_, PyAny>) -> Option<Self>;
}

macro_rules! integers {
    ($($number:ty),*) => {
        $(impl Number for $number {
            #[inline]
            fn to_python<'py>(self, py: Python<'py>) -> Bound<'py, PyAny> {
                PyInt::new(py, self).into_any()
            }

            #[inline]
            fn from_python(object: &Bound<'_, PyAny>) -> Option<$number> {
                // Bits that do not fit are cut off, as C does.
                bits(object).map(|bits| bits as $number)
            }
        })*
    };
}
integers!(i8, u8, i16, u16, i32, u32, i64, u64);

macro_rules! floats {
    ($($number:ty),*) => {
        $(impl Number for $number {
            #[inline]
            fn to_python<'py>(self, py: Python<'py>) -> Bound<'py, PyAny> {
                PyFloat::new(py, self.into()).into_any()
            }

            #[inline]
            fn from_python(object: &Bound<'_, PyAny>) -> Option<$number> {
                if let Some(float) = exactly::<PyFloat>(object) {
                    return Some(float.value() as $number);
                }
                exactly::<PyInt>(object)?.extract::<f64>().ok().map(|number| number as $number)
            }
        })*
    };
}
floats!(f32, f64);

/// C's `_Bool`: any byte but zero is true.
#[derive(Clone, Copy, Default, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(transparent)]
pub(crate) struct Truth(u8);

impl Number for Truth {
    #[inline]
    fn to_python<'py>(self, py: Python<'py>) -> Bound<'py, PyAny> {
        PyBool::new(py, self.0 != 0).to_owned().into_any()
    }

    #[inline]
    fn from_python(object: &Bound<'_, PyAny>) -> Option<Truth> {
        exactly::<PyBool>(object).map(|truth| Truth(truth.is_true().into()))
    }
}

/// The low bits of an ordinary int.
#[inline]
fn bits(object: &Bound<'_, PyAny>) -> Option<u64> {
    if !object.is_exact_instance_of::<PyInt>() {
        return None;
    }
    // SAFETY: the GIL is held, as the reference proves; the object is an int, for which this cannot fail.
    Some(unsafe { ffi::PyLong_AsUnsignedLongLongMask(object.as_ptr()) })
}

/// An ordinary int, if it is not a large one.
#[inline]
pub(crate) fn index(object: &Bound<'_, PyAny>) -> Option<isize> {
    if !object.is_exact_instance_of::<PyInt>() {
        return None;
    }
    // SAFETY: the GIL is held, as the reference proves; the object is an int.
    let index = unsafe { ffi::PyLong_AsSsize_t(object.as_ptr()) };
    if index == -1 && PyErr::take(object.py()).is_some() { None } else { Some(index) }
}

/// What is at `index` of the list, if that is a plain number.
#[inline]
pub(crate) fn at<T: Number>(list: &Bound<'_, PyList>, index: usize) -> Option<T> {
    // SAFETY: the GIL is held, as the reference proves. The list lends its item, or gives null and an exception if it has
    // none there. It keeps the item until some other code runs, and none does before the number is read.
    let item = unsafe { Borrowed::from_ptr_or_opt(list.py(), ffi::PyList_GetItem(list.as_ptr(), index as isize)) };
    match item {
        Some(item) => T::from_python(&item),
        None => {
            drop(PyErr::take(list.py()));
            None
        }
    }
}
