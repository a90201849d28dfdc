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
use tenfold_engine::HeapError;
use tenfold_engine::shm::message::{InPlace, Payload};
use tenfold_engine::shm::private_view::PrivateView;

use super::decode::{self, Layout, unpickle};
use super::{BUFFERS, BYTEARRAY, BYTES, PICKLE, nonsense};
use crate::buffers::{self, View};
use crate::errors;

/// Messages from this size on are decoded here.
pub(super) const LARGE: usize = 64 << 10;
/// Buffers from this size on are mapped, smaller ones copied. A page that is mapped costs three times as much, once it is
/// read, as one that is copied to memory that was used before; but fresh memory costs more than either, and what is
/// not read costs nothing.
const MAPPED: usize = 1 << 20;

/// So much of a message is copied rather than mapped to be looked at.
const COPIED: usize = 128 << 10;

/// Decodes a large payload.
///
/// # Errors
/// If the bytes make no sense, or unpickling fails.
#[cold]
pub(super) fn decode(py: Python<'_>, payload: &Arc<Payload>) -> PyResult<Py<PyAny>> {
    let mut tag = [0];
    payload.read(0, &mut tag).map_err(errors::heap)?;
    if tag[0] == BUFFERS {
        return decode_buffers(py, payload);
    }
    let (source, all) = (Source::of(payload)?, 1..payload.len());
    Ok(match tag[0] {
        PICKLE => unpickle(&source.pickle(py, all)?, None)?.unbind(),
        BYTES => source.bytes(py, all)?.into_any().unbind(),
        BYTEARRAY => source.bytearray(py, all)?.into_any().unbind(),
        _ => payload.with(|bytes| decode::decode(py, bytes)).map_err(errors::heap)??,
    })
}

fn decode_buffers(py: Python<'_>, payload: &Arc<Payload>) -> PyResult<Py<PyAny>> {
    let layout = Layout::read(payload.len(), |at, bytes| payload.read(at, bytes).map_err(errors::heap))?;
    let mapped = map_large(payload, &layout)?;
    let is_mapped = |range: &Range<usize>| mapped.is_some() && range.len() >= MAPPED;
    let rest: usize = layout.buffers.iter().filter(|range| !is_mapped(range)).map(Range::len).sum();
    let source =
        if layout.pickle.len() + rest > COPIED { Source::of(payload)? } else { Source::File(Arc::clone(payload)) };
    let list = PyList::empty(py);
    for range in &layout.buffers {
        match &mapped {
            Some((start, view)) if is_mapped(range) => {
                list.append(Bound::new(py, View::of_private(view, range.start - start, range.len()))?)?;
            }
            _ => list.append(source.bytearray(py, range.clone())?)?,
        }
    }
    Ok(unpickle(&source.pickle(py, layout.pickle)?, Some(&list))?.unbind())
}

/// One private view from the first to the last of the large buffers, and where it begins. None if there is no large
/// buffer, or it cannot be mapped.
fn map_large(payload: &Payload, layout: &Layout) -> PyResult<Option<(usize, Arc<PrivateView>)>> {
    let mut large = layout.buffers.iter().filter(|range| range.len() >= MAPPED);
    let Some(first) = large.next() else { return Ok(None) };
    let last = large.next_back().unwrap_or(first);
    let (from, len) = (first.start, last.end - first.start);
    let view = match payload.look_alone(from, len) {
        Ok(None) => payload.look_privately(from, len),
        other => other,
    };
    match view {
        Ok(view) => Ok(view.map(|view| (first.start, Arc::new(view)))),
        Err(HeapError::AddressSpace { .. } | HeapError::FileTaken) => Ok(None),
        Err(error) => Err(errors::heap(error)),
    }
}

/// Where the parts of a message are copied from.
enum Source {
    /// From where it lies.
    Message(Arc<InPlace<Arc<Payload>>>),
    /// Through the file: little of it is wanted, or this process cannot map it.
    File(Arc<Payload>),
}

impl Source {
    fn of(payload: &Arc<Payload>) -> PyResult<Source> {
        let in_place = InPlace::of(Arc::clone(payload)).map_err(errors::heap)?;
        Ok(in_place.map_or_else(|| Source::File(Arc::clone(payload)), |bytes| Source::Message(Arc::new(bytes))))
    }

    fn bytes<'py>(&self, py: Python<'py>, range: Range<usize>) -> PyResult<Bound<'py, PyBytes>> {
        match self {
            Source::Message(message) => buffers::bytes(py, message.get(range).ok_or_else(nonsense)?),
            Source::File(payload) => {
                let len = range.len();
                PyBytes::new_with(py, len, |bytes| payload.read(range.start, bytes).map_err(errors::heap))
                    .map_err(|error| buffers::no_room(py, error, len))
            }
        }
    }

    fn bytearray<'py>(&self, py: Python<'py>, range: Range<usize>) -> PyResult<Bound<'py, PyByteArray>> {
        match self {
            Source::Message(message) => buffers::bytearray(py, message.get(range).ok_or_else(nonsense)?),
            Source::File(payload) => {
                buffers::bytearray_with(py, range.len(), |bytes| payload.read(range.start, bytes).map_err(errors::heap))
            }
        }
    }

    /// Something that unpickling can read from.
    fn pickle<'py>(&self, py: Python<'py>, range: Range<usize>) -> PyResult<Bound<'py, PyAny>> {
        match self {
            Source::Message(message) => {
                Ok(Bound::new(py, View::of_message(message, range.start, range.len()))?.into_any())
            }
            Source::File(_) => Ok(self.bytes(py, range)?.into_any()),
        }
    }
}
