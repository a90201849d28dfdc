//! The two ends of a queue, as far as programs use those of the standard library, where they are connections.
//!
//! Programs wait on `_reader` with `multiprocessing.connection.wait`, select or asyncio, and then call `recv`
//! (concurrent.futures); the standard library's Pool sends and receives through both.

use std::sync::Arc;

use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyBufferError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};

use super::channel::Channel;
use crate::codec::{self, Encoded};

/// The end of a queue from which one takes: like a `multiprocessing.connection.Connection` that only receives.
#[pyclass(frozen, module = "tenfold._native")]
pub(crate) struct Reader {
    channel: Arc<Channel>,
}

/// The end of a queue into which one puts: like a `multiprocessing.connection.Connection` that only sends.
#[pyclass(frozen, module = "tenfold._native")]
pub(crate) struct Writer {
    channel: Arc<Channel>,
}

impl Reader {
    pub(super) fn of(channel: Arc<Channel>) -> Reader {
        Reader { channel }
    }
}

impl Writer {
    pub(super) fn of(channel: Arc<Channel>) -> Writer {
        Writer { channel }
    }
}

#[pymethods]
impl Reader {
    /// Return a descriptor that is readable while there is a message. Do not read from it.
    ///
    /// It belongs to this process; a child of fork asks for its own. Each call, and each look at an empty queue by this
    /// process, silences it until the next message.
    fn fileno(&self) -> PyResult<i32> {
        self.channel.fileno()
    }

    /// Return whether there is a message, waiting for one for at most `timeout` seconds; None waits for ever.
    #[pyo3(signature = (timeout=Some(0.0)), text_signature = "($self, timeout=0.0)")]
    fn poll(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<bool> {
        self.channel.poll(py, timeout)
    }

    /// Take the next object; waits until there is one.
    fn recv(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.channel.check_reader()?;
        self.channel.get(py, true, None)
    }

    /// Take the next object as a pickle; waits until there is one.
    fn recv_bytes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        self.channel.check_reader()?;
        codec::as_pickle(py, self.channel.wait_and_take(py, None)?)
    }

    /// Take nothing more in this process, and close the descriptor.
    fn close(&self) {
        self.channel.close_reader();
    }

    /// Whether this process has closed it.
    #[getter]
    fn closed(&self) -> bool {
        self.channel.reader_is_closed()
    }

    #[getter]
    fn readable(&self) -> bool {
        true
    }

    #[getter]
    fn writable(&self) -> bool {
        false
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    #[pyo3(signature = (*_exc))]
    fn __exit__(&self, _exc: &Bound<'_, PyTuple>) {
        self.close();
    }
}

#[pymethods]
impl Writer {
    /// Put an object at the end.
    fn send(&self, obj: &Bound<'_, PyAny>) -> PyResult<()> {
        self.channel.check_writer()?;
        self.channel.put(obj.py(), &codec::encode(obj)?, true, None)
    }

    /// Put an object of which `buf` is the pickle.
    fn send_bytes(&self, py: Python<'_>, buf: PyBuffer<u8>) -> PyResult<()> {
        self.channel.check_writer()?;
        if !buf.is_c_contiguous() {
            return Err(PyBufferError::new_err("the bytes of a pickle must lie in one piece"));
        }
        self.channel.put(py, &Encoded::of_pickle(buf), true, None)
    }

    /// Put nothing more in this process.
    fn close(&self) {
        self.channel.close_writer();
    }

    /// Whether this process has closed it.
    #[getter]
    fn closed(&self) -> bool {
        self.channel.writer_is_closed()
    }

    #[getter]
    fn readable(&self) -> bool {
        false
    }

    #[getter]
    fn writable(&self) -> bool {
        true
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    #[pyo3(signature = (*_exc))]
    fn __exit__(&self, _exc: &Bound<'_, PyTuple>) {
        self.close();
    }
}
