//! How a native object finds its shared one: not at all until `__init__` or `__setstate__` has said which.

use std::sync::OnceLock;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use tenfold_engine::{Handle, HeapError};

use crate::{carrier, errors};

/// A place for the engine's object, filled once.
pub(crate) struct Shell<T>(OnceLock<T>);

impl<T> Shell<T> {
    pub(crate) const fn empty() -> Shell<T> {
        Shell(OnceLock::new())
    }

    /// The object.
    ///
    /// # Errors
    /// If nothing has filled the shell.
    #[inline]
    pub(crate) fn get(&self) -> PyResult<&T> {
        self.0.get().ok_or_else(|| PyRuntimeError::new_err("__init__() of this object was not called"))
    }

    /// The object, if the shell is filled.
    #[inline]
    pub(crate) fn peek(&self) -> Option<&T> {
        self.0.get()
    }

    /// Fills an empty shell; one that is full stays as it is.
    pub(crate) fn fill(&self, object: T) {
        let _ = self.0.set(object);
    }

    /// Fills an empty shell with the object whose id a pickle contained.
    ///
    /// # Errors
    /// If it is gone, or another kind of object.
    pub(crate) fn find(&self, id: u64, open: impl FnOnce(Handle) -> Result<T, HeapError>) -> PyResult<()> {
        self.fill(open(carrier::found(id)?).map_err(errors::heap)?);
        Ok(())
    }
}
