//! Pickling, for what is not plain.
//!
//! pickle writes to a [`Sink`], which keeps what it is given: large byte strings as the objects that they are, large
//! buffers apart (protocol 5, out of band). So they are copied once, into the message.

use core::mem;

use pyo3::buffer::PyBuffer;
use pyo3::exceptions::{PyAttributeError, PyBufferError, PyKeyError, PyTypeError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict};
use tenfold_engine::Handle;

use super::encode::{Encoded, Head, Tail, exactly};
use super::{ALIGN, BUFFERS, LONG, PICKLE};
use crate::buffers::bytes_of;
use crate::carrier;

/// Smaller buffers are cheaper inside of the pickle.
const OUT_OF_BAND: usize = 64 << 10;
/// The protocol with buffers out of band.
const PROTOCOL: u8 = 5;

/// What a pickler writes to, as a file and as its `buffer_callback`.
#[pyclass(module = "tenfold._native")]
struct Sink {
    pickle: Vec<Tail>,
    buffers: Vec<PyBuffer<u8>>,
}

#[pymethods]
impl Sink {
    /// A part of the pickle.
    fn write(&mut self, part: &Bound<'_, PyAny>) -> PyResult<()> {
        self.pickle.push(match exactly::<PyBytes>(part) {
            Some(bytes) => Tail::Bytes(bytes.clone().unbind()),
            None => Tail::Buffer { padding: 0, buffer: PyBuffer::get(part)? },
        });
        Ok(())
    }

    /// A `PickleBuffer`; whether it is to go into the pickle.
    fn __call__(slf: &Bound<'_, Self>, buffer: &Bound<'_, PyAny>) -> PyResult<bool> {
        let raw = match buffer.call_method0(pyo3::intern!(slf.py(), "raw")) {
            Ok(raw) => PyBuffer::<u8>::get(&raw)?,
            // Not contiguous.
            Err(error) if error.is_instance_of::<PyBufferError>(slf.py()) => return Ok(true),
            Err(error) => return Err(error),
        };
        if raw.len_bytes() < OUT_OF_BAND {
            return Ok(true);
        }
        slf.try_borrow_mut()?.buffers.push(raw);
        Ok(false)
    }
}

/// The reducers that pickle looks up by class: those of `multiprocessing.reduction` before those of `copyreg`.
///
/// They are looked up where they are registered, since anybody may register further ones at any time.
#[pyclass(frozen, module = "tenfold._native")]
pub(crate) struct Reducers {
    first: Py<PyDict>,
    second: Py<PyDict>,
}

#[pymethods]
impl Reducers {
    #[new]
    fn new(first: Py<PyDict>, second: Py<PyDict>) -> Reducers {
        Reducers { first, second }
    }

    fn __getitem__<'py>(&self, class: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = class.py();
        if let Some(reducer) = self.first.bind(py).get_item(class)? {
            if class.hasattr("fileno")? {
                share_descriptors(py)?;
            }
            return Ok(reducer);
        }
        self.second.bind(py).get_item(class)?.ok_or_else(|| PyKeyError::new_err(()))
    }
}

/// Before something is pickled that may have a descriptor: what hands that out shall leave no folder behind.
///
/// # Errors
/// Those of an import.
pub(crate) fn share_descriptors(py: Python<'_>) -> PyResult<()> {
    static USE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    USE.import(py, "tenfold._sharer", "use")?.call0().map(drop)
}

/// Encodes by pickle.
///
/// # Errors
/// pickle's own.
pub(super) fn pickle(object: &Bound<'_, PyAny>) -> PyResult<Encoded> {
    static DUMP: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let py = object.py();
    let (dumped, handles) = carrier::carrying(|| dump(object));
    let error = match dumped {
        Ok(sink) => return Ok(encoded(&sink, handles)),
        Err(error) => error,
    };
    if !is_about_the_object(py, &error) {
        return Err(error);
    }
    // Perhaps cloudpickle can.
    let dump_by_cloudpickle = DUMP.import(py, "tenfold._payload", "dump_by_cloudpickle")?;
    let (dumped, handles) = carrier::carrying(|| {
        let sink = new_sink(py)?;
        Ok(dump_by_cloudpickle.call1((object, &sink))?.is_truthy()?.then_some(sink))
    });
    match dumped {
        Ok(Some(sink)) => Ok(encoded(&sink, handles)),
        Ok(None) => Err(error),
        Err(second) if is_about_the_object(py, &second) => Err(error),
        Err(second) => Err(second),
    }
}

/// Whether pickle says that it cannot pickle such an object.
fn is_about_the_object(py: Python<'_>, error: &PyErr) -> bool {
    static PICKLING_ERROR: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    error.is_instance_of::<PyTypeError>(py)
        || error.is_instance_of::<PyAttributeError>(py)
        || PICKLING_ERROR.import(py, "pickle", "PicklingError").is_ok_and(|class| error.is_instance(py, class))
}

fn new_sink(py: Python<'_>) -> PyResult<Bound<'_, Sink>> {
    Bound::new(py, Sink { pickle: Vec::new(), buffers: Vec::new() })
}

fn dump<'py>(object: &Bound<'py, PyAny>) -> PyResult<Bound<'py, Sink>> {
    static PICKLER: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let py = object.py();
    let class = PICKLER.import(py, "tenfold._payload", "Pickler")?;
    let sink = new_sink(py)?;
    let keywords = PyDict::new(py);
    keywords.set_item(pyo3::intern!(py, "buffer_callback"), &sink)?;
    class.call((&sink, PROTOCOL), Some(&keywords))?.call_method1(pyo3::intern!(py, "dump"), (object,))?;
    Ok(sink)
}

/// What has come into a sink, as a payload.
fn encoded(sink: &Bound<'_, Sink>, handles: Vec<Handle>) -> Encoded {
    let py = sink.py();
    let (pickle, buffers) = {
        let mut sink = sink.borrow_mut();
        (mem::take(&mut sink.pickle), mem::take(&mut sink.buffers))
    };
    let part_len = |part: &Tail| match part {
        Tail::Bytes(bytes) => bytes.as_bytes(py).len(),
        Tail::Text(_) => 0,
        Tail::Buffer { buffer, .. } => bytes_of(buffer).len(),
    };
    let pickle_len: usize = pickle.iter().map(part_len).sum();
    let mut head = Head::new();
    if buffers.is_empty() {
        head.push(PICKLE);
    } else {
        head.push(BUFFERS);
        head.extend_from_slice(&(buffers.len() as u32).to_le_bytes());
        head.extend_from_slice(&(pickle_len as u64).to_le_bytes());
        for buffer in &buffers {
            head.extend_from_slice(&(bytes_of(buffer).len() as u64).to_le_bytes());
        }
    }
    let mut at = head.len() + pickle_len;
    let mut tail = pickle;
    if let [Tail::Bytes(only)] = tail.as_slice()
        && pickle_len <= LONG
    {
        head.extend_from_slice(only.as_bytes(py));
        tail.clear();
    }
    for buffer in buffers {
        let padding = at.next_multiple_of(ALIGN) - at;
        at += padding + bytes_of(&buffer).len();
        tail.push(Tail::Buffer { padding, buffer });
    }
    Encoded { head, tail, handles }
}
