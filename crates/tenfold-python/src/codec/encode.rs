//! Objects to bytes.

use pyo3::buffer::PyBuffer;
use pyo3::prelude::*;
use pyo3::type_object::{PyTypeCheck, PyTypeInfo};
use pyo3::types::{PyBool, PyByteArray, PyBytes, PyFloat, PyInt, PyString, PyTuple};
use smallvec::SmallVec;
use tenfold_engine::Handle;
use tenfold_engine::shm::message::Outgoing;

use super::{
    ALIGN, BYTEARRAY, BYTES, FALSE, FLOAT, INT, INT_32, INT_48, LONG, NONE, PICKLE, STR, TRUE, TUPLE, pickling,
};
use crate::buffers;

/// Elements of the longest tuple that takes the native path.
const TUPLE_MAX: usize = 32;

/// Bytes that are in most cases few.
pub(super) type Head = SmallVec<[u8; 64]>;

/// An object as bytes, and what those bytes lean on.
pub(crate) struct Encoded {
    pub(super) head: Head,
    pub(super) tail: Vec<Tail>,
    pub(super) handles: Vec<Handle>,
}

/// Memory of a Python object that is written as it is, after this many bytes of padding.
pub(super) enum Tail {
    Bytes(Py<PyBytes>),
    Text(Py<PyString>),
    Buffer { padding: usize, buffer: PyBuffer<u8> },
}

impl Encoded {
    #[inline]
    fn of_head(head: Head) -> Encoded {
        Encoded { head, tail: Vec::new(), handles: Vec::new() }
    }

    /// What `pickled`, which is contiguous, is a pickle of.
    pub(crate) fn of_pickle(pickled: PyBuffer<u8>) -> Encoded {
        let head = Head::from_slice(&[PICKLE]);
        Encoded { head, tail: vec![Tail::Buffer { padding: 0, buffer: pickled }], handles: Vec::new() }
    }

    /// Calls `f` with the payload.
    ///
    /// # Errors
    /// If a string cannot be read any more.
    #[inline]
    pub(crate) fn with<R>(&self, py: Python<'_>, f: impl FnOnce(Outgoing<'_>) -> R) -> PyResult<R> {
        if self.tail.is_empty() {
            return Ok(f(self.outgoing(&[&self.head])));
        }
        Ok(f(self.outgoing(&self.parts(py)?)))
    }

    /// The payload that has these [`Encoded::parts`].
    #[inline]
    pub(crate) fn outgoing<'a>(&'a self, parts: &'a [&'a [u8]]) -> Outgoing<'a> {
        Outgoing { parts, handles: &self.handles }
    }

    /// The bytes of the payload, in parts that are laid end to end.
    ///
    /// # Errors
    /// If a string cannot be read any more.
    pub(crate) fn parts(&self, py: Python<'_>) -> PyResult<SmallVec<[&[u8]; 2]>> {
        const ZEROS: [u8; ALIGN] = [0; ALIGN];
        let mut parts: SmallVec<[&[u8]; 2]> = SmallVec::new();
        parts.push(&self.head);
        for tail in &self.tail {
            match tail {
                Tail::Bytes(bytes) => parts.push(bytes.as_bytes(py)),
                Tail::Text(text) => parts.push(text.to_str(py)?.as_bytes()),
                Tail::Buffer { padding, buffer } => {
                    parts.push(&ZEROS[..*padding]);
                    parts.push(buffers::bytes_of(buffer));
                }
            }
        }
        Ok(parts)
    }

    /// Bytes of the payload, about.
    pub(crate) fn len(&self, py: Python<'_>) -> usize {
        let tail = |tail: &Tail| match tail {
            Tail::Bytes(bytes) => bytes.as_bytes(py).len(),
            Tail::Text(text) => text.to_str(py).map_or(0, str::len),
            Tail::Buffer { padding, buffer } => padding + buffer.len_bytes(),
        };
        self.head.len() + self.tail.iter().map(tail).sum::<usize>()
    }
}

/// Encodes an object that is to travel.
///
/// # Errors
/// If it cannot be pickled: pickle's own error.
#[inline]
pub(crate) fn encode(object: &Bound<'_, PyAny>) -> PyResult<Encoded> {
    let mut head = Head::new();
    match encode_plain(object, &mut head, false) {
        Plain::Yes => Ok(Encoded::of_head(head)),
        Plain::Long(tail) => Ok(Encoded { head, tail: vec![tail], handles: Vec::new() }),
        Plain::No => encode_others(object, head),
    }
}

/// The payload of an object that is short enough to lie in a word, and the number of its bytes; `None` for all others.
/// The same bytes as from [`encode`], sooner.
#[inline]
pub(crate) fn encode_short(object: &Bound<'_, PyAny>) -> Option<(u64, usize)> {
    if object.is_exact_instance_of::<PyInt>() {
        let word = |tag: u8, number: i64, len| Some(((number as u64) << 8 | u64::from(tag), len));
        return match object.extract::<i64>().ok()? {
            n if n == i64::from(n as i32) => word(INT_32, i64::from(n as u32), 5),
            n if n == n << 16 >> 16 => word(INT_48, n & 0xffff_ffff_ffff, 7),
            _ => None,
        };
    }
    let tag = match exactly::<PyBool>(object) {
        _ if object.is_none() => NONE,
        Some(truth) if truth.is_true() => TRUE,
        Some(_) => FALSE,
        None => return None,
    };
    Some((u64::from(tag), 1))
}

/// Whether an object took the native path.
enum Plain {
    Yes,
    /// The tag did; the body is to be written from where it lies.
    Long(Tail),
    No,
}

/// Appends a plain value to `head`. With `nested`, strings get a length and are always copied.
#[inline]
fn encode_plain(object: &Bound<'_, PyAny>, head: &mut Head, nested: bool) -> Plain {
    if object.is_exact_instance_of::<PyInt>() {
        let Ok(number) = object.extract::<i64>() else { return Plain::No };
        append_int(head, number);
    } else if let Some(text) = exactly::<PyString>(object) {
        // Lone surrogates have no UTF-8: pickle knows what to do.
        let Ok(utf8) = text.to_str() else { return Plain::No };
        if !nested && utf8.len() > LONG {
            head.push(STR);
            return Plain::Long(Tail::Text(text.clone().unbind()));
        }
        append(head, STR, utf8.as_bytes(), nested);
    } else if let Some(bytes) = exactly::<PyBytes>(object) {
        let content = bytes.as_bytes();
        if !nested && content.len() > LONG {
            head.push(BYTES);
            return Plain::Long(Tail::Bytes(bytes.clone().unbind()));
        }
        append(head, BYTES, content, nested);
    } else if let Some(number) = exactly::<PyFloat>(object) {
        append_number::<9>(head, FLOAT, number.value().to_le_bytes());
    } else if object.is_none() {
        head.push(NONE);
    } else if let Some(truth) = exactly::<PyBool>(object) {
        head.push(if truth.is_true() { TRUE } else { FALSE });
    } else {
        return Plain::No;
    }
    Plain::Yes
}

/// The object as what it is exactly, no subclass.
#[inline]
pub(crate) fn exactly<'a, 'py, T: PyTypeInfo + PyTypeCheck>(
    object: &'a Bound<'py, PyAny>,
) -> Option<&'a Bound<'py, T>> {
    if object.is_exact_instance_of::<T>() { object.cast::<T>().ok() } else { None }
}

/// The fewer bytes, the more ints there are that need no block of their own on their way.
#[inline]
fn append_int(head: &mut Head, number: i64) {
    let bytes = number.to_le_bytes();
    match number {
        n if n == i64::from(n as i32) => append_number::<5>(head, INT_32, bytes),
        n if n == n << 16 >> 16 => append_number::<7>(head, INT_48, bytes),
        _ => append_number::<9>(head, INT, bytes),
    }
}

/// `LEN` bytes in one go: the tag, and the first ones of a number.
#[inline]
fn append_number<const LEN: usize>(head: &mut Head, tag: u8, number: [u8; 8]) {
    let mut bytes = [tag; LEN];
    bytes[1..].copy_from_slice(&number[..LEN - 1]);
    head.extend_from_slice(&bytes);
}

#[inline]
fn append(head: &mut Head, tag: u8, bytes: &[u8], with_length: bool) {
    head.push(tag);
    if with_length {
        head.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    }
    head.extend_from_slice(bytes);
}

/// Encodes a flat tuple and a bytearray natively, and anything else by pickle.
fn encode_others(object: &Bound<'_, PyAny>, mut head: Head) -> PyResult<Encoded> {
    if object.is_exact_instance_of::<PyByteArray>() {
        head.push(BYTEARRAY);
        let tail = vec![Tail::Buffer { padding: 0, buffer: PyBuffer::get(object)? }];
        return Ok(Encoded { head, tail, handles: Vec::new() });
    }
    let Some(tuple) = exactly::<PyTuple>(object).filter(|tuple| tuple.len() <= TUPLE_MAX) else {
        return pickling::pickle(object);
    };
    head.extend_from_slice(&[TUPLE, tuple.len() as u8]);
    for item in tuple.iter_borrowed() {
        match encode_plain(&item, &mut head, true) {
            Plain::Yes if head.len() <= LONG => {}
            _ => return pickling::pickle(object),
        }
    }
    Ok(Encoded::of_head(head))
}
