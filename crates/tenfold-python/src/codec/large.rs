//! Large messages: decoded from where they lie.
//!
//! Bytes and strings take one copy, out of the message. Large buffers take none: they are views of the message that are
//! private to this process (copied on write), and the message's block is held as long as one of them is left.
//!
//! Where this process cannot map what it wants to look at (a limit of its address space, too many mappings), the parts
//! are read into memory of their own, which is one copy as well.

use core::ops::Range;
use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyList};
use tenfold_engine::shm::message::{InPlace, Payload};
use tenfold_engine::shm::private_view::PrivateView;

use super::decode::{self, Layout, unpickle};
use super::{BUFFERS, BYTEARRAY, BYTES, PICKLE, nonsense};
use crate::buffers::{self, View};
use crate::errors;

/// Messages from this size on are decoded here.
pub(super) const LARGE: usize = 64 << 10;
/// Buffers from this size on are mapped, smaller ones copied: below it, a copy into memory that was used before costs
/// less than a mapping and its page faults.
const MAPPED: usize = 512 << 10;

/// Decodes a large payload.
///
/// # Errors
/// If the bytes make no sense, or unpickling fails.
#[cold]
pub(super) fn decode(py: Python<'_>, payload: &Arc<Payload>) -> PyResult<Py<PyAny>> {
    match InPlace::of(Arc::clone(payload)).map_err(errors::heap)? {
        Some(bytes) => decode_in_place(py, payload, Arc::new(bytes)),
        None => decode_by_reading(py, payload),
    }
}

type Message = Arc<InPlace<Arc<Payload>>>;

fn decode_in_place(py: Python<'_>, payload: &Arc<Payload>, bytes: Message) -> PyResult<Py<PyAny>> {
    match bytes[0] {
        PICKLE => {
            let view = Bound::new(py, View::of_message(&bytes, 1, bytes.len() - 1))?;
            Ok(unpickle(&view, None)?.unbind())
        }
        BUFFERS => {
            let layout = Layout::read(bytes.len(), |at, part| {
                part.copy_from_slice(bytes.get(at..at + part.len()).ok_or_else(nonsense)?);
                Ok(())
            })?;
            let copy = |range: Range<usize>| buffers::bytearray(py, &bytes[range]);
            let list = buffers_of(py, payload, &layout, copy)?;
            let view = Bound::new(py, View::of_message(&bytes, layout.pickle.start, layout.pickle.len()))?;
            // What is mapped holds the message; nothing else does once the pickle is read.
            drop(bytes);
            Ok(unpickle(&view, Some(&list))?.unbind())
        }
        _ => decode::decode(py, &bytes),
    }
}

/// The buffers, the large ones mapped and the others copied.
fn buffers_of<'py>(
    py: Python<'py>,
    payload: &Payload,
    layout: &Layout,
    copy: impl Fn(Range<usize>) -> PyResult<Bound<'py, PyByteArray>>,
) -> PyResult<Bound<'py, PyList>> {
    let mapped = map_large(payload, layout)?;
    let list = PyList::empty(py);
    for range in &layout.buffers {
        match &mapped {
            Some((start, view)) if range.len() >= MAPPED => {
                list.append(Bound::new(py, View::of_private(view, range.start - start, range.len()))?)?;
            }
            _ => list.append(copy(range.clone())?)?,
        }
    }
    Ok(list)
}

/// One private view from the first to the last of the large buffers, and where it begins. None if there is no large
/// buffer, or it cannot be mapped.
fn map_large(payload: &Payload, layout: &Layout) -> PyResult<Option<(usize, Arc<PrivateView>)>> {
    let mut large = layout.buffers.iter().filter(|range| range.len() >= MAPPED);
    let Some(first) = large.next() else { return Ok(None) };
    let last = large.next_back().unwrap_or(first);
    match payload.look_privately(first.start, last.end - first.start) {
        Ok(view) => Ok(view.map(|view| (first.start, Arc::new(view)))),
        Err(tenfold_engine::HeapError::AddressSpace { .. } | tenfold_engine::HeapError::FileTaken) => Ok(None),
        Err(error) => Err(errors::heap(error)),
    }
}

/// Decodes a payload that cannot be looked at in one piece.
#[cold]
fn decode_by_reading(py: Python<'_>, payload: &Arc<Payload>) -> PyResult<Py<PyAny>> {
    let read = |at: usize, bytes: &mut [u8]| payload.read(at, bytes).map_err(errors::heap);
    let read_bytes = |range: Range<usize>| {
        let made = PyBytes::new_with(py, range.len(), |bytes| read(range.start, bytes));
        made.map_err(|error| buffers::no_room(py, error, range.len()))
    };
    let read_bytearray =
        |range: Range<usize>| buffers::bytearray_with(py, range.len(), |bytes| read(range.start, bytes));
    let all = 1..payload.len();
    let mut tag = [0];
    read(0, &mut tag)?;
    Ok(match tag[0] {
        PICKLE => unpickle(&read_bytes(all)?, None)?.unbind(),
        BYTES => read_bytes(all)?.into_any().unbind(),
        BYTEARRAY => read_bytearray(all)?.into_any().unbind(),
        BUFFERS => {
            let layout = Layout::read(payload.len(), read)?;
            let list = buffers_of(py, payload, &layout, read_bytearray)?;
            unpickle(&read_bytes(layout.pickle)?, Some(&list))?.unbind()
        }
        _ => decode::decode(py, &payload.to_vec().map_err(errors::heap)?)?,
    })
}
