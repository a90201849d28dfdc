//! Bytes to objects.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};
use smallvec::SmallVec;
use tenfold_engine::shm::message::Payload;

use super::{
    ALIGN, BUFFERS, BYTEARRAY, BYTES, FALSE, FLOAT, INT, INT_32, INT_48, NONE, PICKLE, STR, TRUE, TUPLE, large,
    nonsense, take,
};
use crate::{buffers, errors};

/// Decodes a payload that has arrived. The payload is let go of as soon as the object does not lean on it any more;
/// handles inside it have been taken by then.
///
/// # Errors
/// If the bytes make no sense, or unpickling fails.
#[inline]
pub(crate) fn decode_payload(py: Python<'_>, payload: Payload) -> PyResult<Py<PyAny>> {
    if payload.len() >= large::LARGE {
        return large::decode(py, &Arc::new(payload));
    }
    payload.with(|bytes| decode(py, bytes)).map_err(errors::heap)?
}

/// The payload as a pickle, for those who unpickle it themselves.
///
/// # Errors
/// If the bytes make no sense, or cannot be unpickled and pickled again.
pub(crate) fn as_pickle(py: Python<'_>, payload: Payload) -> PyResult<Bound<'_, PyBytes>> {
    let pickled = |bytes: &[u8]| match bytes.split_first() {
        Some((&PICKLE, body)) => Some(buffers::bytes(py, body)),
        _ => None,
    };
    match payload.with(pickled).map_err(errors::heap)? {
        Some(pickle) => pickle,
        None => {
            let object = decode_payload(py, payload)?;
            let pickler = py.import("multiprocessing.reduction")?.getattr("ForkingPickler")?;
            let buffer = pickler.call_method1("dumps", (object,))?;
            Ok(buffer.call_method0("tobytes")?.cast_into()?)
        }
    }
}

/// Decodes bytes.
///
/// # Errors
/// If they make no sense, or unpickling fails.
#[inline]
pub(crate) fn decode(py: Python<'_>, bytes: &[u8]) -> PyResult<Py<PyAny>> {
    let Some((&tag, body)) = bytes.split_first() else { return Err(nonsense()) };
    match tag {
        INT_32 => {
            let number = body.try_into().map_err(|_| nonsense())?;
            Ok(PyInt::new(py, i32::from_le_bytes(number)).into_any().unbind())
        }
        TUPLE => Ok(decode_tuple(py, body)?.into_any().unbind()),
        _ => decode_others(py, tag, body),
    }
}

fn decode_others(py: Python<'_>, tag: u8, body: &[u8]) -> PyResult<Py<PyAny>> {
    Ok(match tag {
        PICKLE => unpickle(&buffers::bytes(py, body)?, None)?.unbind(),
        BUFFERS => decode_buffers(py, body)?.unbind(),
        STR => text(py, body)?.into_any().unbind(),
        BYTES => buffers::bytes(py, body)?.into_any().unbind(),
        BYTEARRAY => buffers::bytearray(py, body)?.into_any().unbind(),
        _ => {
            let mut rest = body;
            let value = decode_fixed(py, tag, &mut rest)?;
            if rest.is_empty() { value.unbind() } else { return Err(nonsense()) }
        }
    })
}

/// A string from its UTF-8.
pub(super) fn text<'py>(py: Python<'py>, utf8: &[u8]) -> PyResult<Bound<'py, PyString>> {
    Ok(PyString::new(py, core::str::from_utf8(utf8).map_err(|_| nonsense())?))
}

#[inline]
fn decode_fixed<'py>(py: Python<'py>, tag: u8, rest: &mut &[u8]) -> PyResult<Bound<'py, PyAny>> {
    Ok(match tag {
        INT_32 => PyInt::new(py, i32::from_le_bytes(take(rest)?)).into_any(),
        INT_48 => {
            let [a, b, c, d, e, f] = take(rest)?;
            PyInt::new(py, i64::from_le_bytes([0, 0, a, b, c, d, e, f]) >> 16).into_any()
        }
        INT => PyInt::new(py, i64::from_le_bytes(take(rest)?)).into_any(),
        FLOAT => PyFloat::new(py, f64::from_le_bytes(take(rest)?)).into_any(),
        NONE => py.None().into_bound(py),
        TRUE | FALSE => PyBool::new(py, tag == TRUE).to_owned().into_any(),
        _ => return Err(nonsense()),
    })
}

fn decode_tuple<'py>(py: Python<'py>, body: &[u8]) -> PyResult<Bound<'py, PyTuple>> {
    let (&count, mut rest) = body.split_first().ok_or_else(nonsense)?;
    let mut items: SmallVec<[Bound<'py, PyAny>; 4]> = SmallVec::new();
    for _ in 0..count {
        let [tag] = take::<1>(&mut rest)?;
        items.push(match tag {
            STR | BYTES => {
                let length = u32::from_le_bytes(take(&mut rest)?) as usize;
                let (bytes, behind) = rest.split_at_checked(length).ok_or_else(nonsense)?;
                rest = behind;
                if tag == BYTES { PyBytes::new(py, bytes).into_any() } else { text(py, bytes)?.into_any() }
            }
            tag => decode_fixed(py, tag, &mut rest)?,
        });
    }
    if rest.is_empty() { PyTuple::new(py, items) } else { Err(nonsense()) }
}

/// Where the parts of a message with buffers out of band are, counted from its tag.
#[derive(Debug)]
pub(super) struct Layout {
    /// The pickle.
    pub(super) pickle: core::ops::Range<usize>,
    /// The buffers.
    pub(super) buffers: Vec<core::ops::Range<usize>>,
}

/// Bytes of the head of a message with `buffers` buffers, and of the tag.
const fn head_len(buffers: usize) -> usize {
    1 + 4 + 8 + 8 * buffers
}

impl Layout {
    /// The layout of a message of `len` bytes; `read(at, bytes)` copies some of them out.
    ///
    /// # Errors
    /// If it makes no sense; what `read` fails with.
    pub(super) fn read(len: usize, mut read: impl FnMut(usize, &mut [u8]) -> PyResult<()>) -> PyResult<Layout> {
        let mut fixed = [0; head_len(0) - 1];
        if len < head_len(0) {
            return Err(nonsense());
        }
        read(1, &mut fixed)?;
        let mut rest = &fixed[..];
        let count = u32::from_le_bytes(take(&mut rest)?) as usize;
        let pickle_len = u64::from_le_bytes(take(&mut rest)?) as usize;
        if count > (len - head_len(0)) / 8 {
            return Err(nonsense());
        }
        let mut lengths = vec![0; 8 * count];
        read(head_len(0), &mut lengths)?;
        let mut lengths = &lengths[..];
        let range = |at: usize, length: usize| match at.checked_add(length) {
            Some(end) if end <= len => Ok(at..end),
            _ => Err(nonsense()),
        };
        let pickle = range(head_len(count), pickle_len)?;
        let mut at = pickle.end;
        let mut buffers = Vec::with_capacity(count);
        for _ in 0..count {
            let length = u64::from_le_bytes(take(&mut lengths)?) as usize;
            let buffer = range(at.next_multiple_of(ALIGN), length)?;
            at = buffer.end;
            buffers.push(buffer);
        }
        Ok(Layout { pickle, buffers })
    }
}

fn decode_buffers<'py>(py: Python<'py>, body: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    // The tag is not part of the body, but of what is counted.
    let part = |range: core::ops::Range<usize>| body.get(range.start - 1..range.end - 1).ok_or_else(nonsense);
    let layout = Layout::read(1 + body.len(), |at, bytes| {
        bytes.copy_from_slice(part(at..at + bytes.len())?);
        Ok(())
    })?;
    let copies = PyList::empty(py);
    for buffer in layout.buffers {
        copies.append(buffers::bytearray(py, part(buffer)?)?)?;
    }
    unpickle(&buffers::bytes(py, part(layout.pickle)?)?, Some(&copies))
}

/// The object of which `pickled`, something with a buffer, is the pickle.
pub(crate) fn unpickle<'py, T>(
    pickled: &Bound<'py, T>,
    buffers: Option<&Bound<'py, PyList>>,
) -> PyResult<Bound<'py, PyAny>> {
    static LOADS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let py = pickled.py();
    // `pickle` has the same function, but imports `re` and `enum`, which a fresh worker can do without.
    let loads = LOADS.import(py, "_pickle", "loads")?;
    match buffers {
        None => loads.call1((pickled.as_any(),)),
        Some(buffers) => {
            let keywords = PyDict::new(py);
            keywords.set_item(pyo3::intern!(py, "buffers"), buffers)?;
            loads.call((pickled.as_any(),), Some(&keywords))
        }
    }
}
