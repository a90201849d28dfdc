//! The native half of `NamespaceProxy`: names that are keys of a dict.
//!
//! Names that begin with an underscore belong to the proxy itself, as in the standard library; so all others need not be
//! looked for in the proxy and its classes first.

use pyo3::exceptions::PyAttributeError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyString, PyTuple};

use super::dict::Dict;
use super::manager::{Manager, State};

/// Names with values that processes share.
#[pyclass(subclass, frozen, module = "tenfold._native")]
pub(crate) struct Namespace {
    names: Dict,
}

/// The attribute of the proxy itself.
#[cold]
fn own_attribute(proxy: &Bound<'_, Namespace>, name: &Bound<'_, PyString>) -> PyResult<Py<PyAny>> {
    static ATTRIBUTE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let py = proxy.py();
    let look =
        ATTRIBUTE.get_or_try_init(py, || py.get_type::<PyAny>().getattr("__getattribute__").map(Bound::unbind))?;
    look.call1(py, (proxy, name))
}

fn missing(name: &Bound<'_, PyAny>) -> PyResult<PyErr> {
    let name = name.repr()?;
    Ok(PyAttributeError::new_err(format!("'Namespace' object has no attribute {name}")))
}

#[pymethods]
impl Namespace {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Namespace {
        Namespace { names: Dict::empty() }
    }

    /// Makes the shared names, those of `manager`'s.
    fn _create(&self, py: Python<'_>, manager: &Manager, names: &Bound<'_, PyDict>) -> PyResult<()> {
        self.names._create(py, manager, &PyTuple::empty(py), Some(names))
    }

    fn _state(&self) -> PyResult<State> {
        self.names._state()
    }

    fn _restore(&self, state: State) -> PyResult<()> {
        self.names._restore(state)
    }

    fn __getattribute__(slf: &Bound<'_, Self>, name: &Bound<'_, PyString>) -> PyResult<Py<PyAny>> {
        if name.to_str().is_ok_and(|name| name.starts_with('_')) {
            return own_attribute(slf, name);
        }
        Namespace::_look_up(slf.get(), slf.py(), name)
    }

    fn _look_up(&self, py: Python<'_>, name: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        match self.names.look_up(py, name)? {
            Some(value) => Ok(value),
            None => Err(missing(name)?),
        }
    }

    fn _assign(&self, py: Python<'_>, name: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) -> PyResult<()> {
        self.names.store(py, name, value)
    }

    fn _remove(&self, py: Python<'_>, name: &Bound<'_, PyAny>) -> PyResult<()> {
        match self.names.take(py, name)? {
            Some(_) => Ok(()),
            None => Err(missing(name)?),
        }
    }

    fn _copy<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        self.names.copy(py)
    }
}
