//! Memory that processes share, for ctypes objects: what `Value`, `Array` and their raw forms live in.
//!
//! ```text
//!   ctypes object ── _wrapper ─▶ Memory ── handle ─▶ { lock, length … │ the bytes, aligned to 64 … }   in the heap
//!        └──────── from_buffer ─▶ View ─────────────────────────────────┘ same addresses for as long as the view
//! ```
//!
//! The bytes are zero at first. More than a window of them is mapped in one piece, once a process. The memory goes back
//! when no process has a `Memory` or a `View` of it and no message mentions it.

use pyo3::exceptions::{PyOverflowError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use tenfold_engine::shm::data::{Access, Data};

use crate::buffers::View;
use crate::shell::Shell;
use crate::{carrier, errors, family};

/// Marks the memory as Python's.
const FINGERPRINT: u64 = u64::from_le_bytes(*b"pyctypes");

/// A number of bytes that processes share.
#[pyclass(frozen, subclass, module = "tenfold._native")]
pub(crate) struct Memory {
    shared: Shell<Data>,
}

impl Memory {
    /// The memory itself.
    ///
    /// # Errors
    /// If `_create` was not called.
    pub(crate) fn data(&self) -> PyResult<&Data> {
        self.shared.get()
    }
}

#[pymethods]
impl Memory {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Memory {
        Memory { shared: Shell::empty() }
    }

    /// Makes `size` bytes of zeros.
    fn _create(&self, py: Python<'_>, size: &Bound<'_, PyAny>) -> PyResult<()> {
        let size: i64 = size.extract().map_err(|error: PyErr| {
            if error.is_instance_of::<PyOverflowError>(py) { too_large(size) } else { error }
        })?;
        let Ok(bytes) = u64::try_from(size) else {
            return Err(PyValueError::new_err(format!("Size {size} out of range")));
        };
        let heap = family::heap()?;
        // Filling much memory with zeros takes a while.
        let made = py.detach(|| Data::create(heap, Access::Raw, FINGERPRINT, bytes));
        self.shared.fill(made.map_err(errors::heap)?);
        Ok(())
    }

    fn __len__(&self) -> PyResult<usize> {
        Ok(self.shared.get()?.len() as usize)
    }

    /// A writable buffer of the bytes, which keeps them in place.
    fn _view(&self) -> PyResult<View> {
        View::of_shared(self.shared.get()?)
    }

    /// The memory's id, while something carries the pickle.
    fn __getstate__(&self) -> PyResult<u64> {
        carrier::mention(self.shared.get()?.handle(), "ctypes")
    }

    fn __setstate__(&self, id: u64) -> PyResult<()> {
        self.shared.find(id, |handle| Data::from_handle(handle, Access::Raw))
    }
}

fn too_large(size: &Bound<'_, PyAny>) -> PyErr {
    PyOverflowError::new_err(format!("Size {size} too large"))
}

/// Puts the class into the module.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Memory>()
}
