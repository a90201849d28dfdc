//! Arguments as the standard library's functions take them.

use pyo3::prelude::*;

/// An argument of which only the truth matters: `get(0)` is `get(False)`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Truth(pub(crate) bool);

impl<'py> FromPyObject<'_, 'py> for Truth {
    type Error = PyErr;

    #[inline]
    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Truth> {
        object.is_truthy().map(Truth)
    }
}
