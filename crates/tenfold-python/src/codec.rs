//! Objects as bytes: a native path for plain values, pickle for the rest.
//!
//! ```text
//!  ┌ tag u8 ┬ body … ┐
//!    0  pickle (protocol 5), all of it
//!    1  None      2  True      3  False
//!    4  int that fits 64 bits, little-endian      5  float
//!    10  int that fits 32 bits                    11  int that fits 48 bits
//!    6  str, UTF-8                                7  bytes
//!    8  flat tuple of 1 to 7: { count u8, then each as { tag, body }, str and bytes with a length u32 before them }
//!    9  pickle with buffers out of band: { buffers u32, pickle's length u64, each buffer's length u64, the pickle,
//!       then the buffers, each at a multiple of 64 bytes from the tag }
//! ```
//!
//! Only exact types take the native path: a subclass of int is pickled. Whoever wrote the bytes, decoding them is safe up
//! to what unpickling does: lengths are checked, and nonsense is an error.

use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::type_object::{PyTypeCheck, PyTypeInfo};
use pyo3::types::{PyBool, PyByteArray, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};
use smallvec::SmallVec;
use tenfold_engine::Handle;
use tenfold_engine::shm::message::{Outgoing, Payload};

use crate::{carrier, errors};

/// The tag of a pickle.
pub(crate) const PICKLE: u8 = 0;
const NONE: u8 = 1;
const TRUE: u8 = 2;
const FALSE: u8 = 3;
const INT: u8 = 4;
const FLOAT: u8 = 5;
const STR: u8 = 6;
const BYTES: u8 = 7;
const TUPLE: u8 = 8;
const BUFFERS: u8 = 9;
const INT_32: u8 = 10;
const INT_48: u8 = 11;

/// Longer strings and byte strings are not copied before they are written.
const LONG: usize = 4096;
/// Elements of the longest tuple that takes the native path.
const TUPLE_MAX: usize = 32;
/// Buffers out of band begin at multiples of this.
const ALIGN: usize = 64;

/// Bytes that are in most cases few.
type Head = SmallVec<[u8; 64]>;

/// An object as bytes, and what those bytes lean on.
pub(crate) struct Encoded {
    head: Head,
    tail: Vec<Tail>,
    handles: Vec<Handle>,
}

/// Memory of a Python object that is written as it is, after this many bytes of padding.
enum Tail {
    Bytes(Py<PyBytes>),
    Text(Py<PyString>),
    Buffer { padding: usize, buffer: PyBuffer<u8> },
}

impl Encoded {
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
                    parts.push(buffer_bytes(buffer));
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

#[allow(unsafe_code)]
fn buffer_bytes(buffer: &PyBuffer<u8>) -> &[u8] {
    if buffer.len_bytes() == 0 {
        return &[];
    }
    // SAFETY: the buffer is contiguous (`raw()` sees to it) and its exporter keeps the memory in place and of this length
    // until the export is released, which the borrow prevents. Another thread of the program may write to it meanwhile, as
    // to any buffer that a C function reads without the GIL: the bytes that are sent are then a mixture, and nothing else
    // is derived from them here.
    unsafe { core::slice::from_raw_parts(buffer.buf_ptr().cast::<u8>(), buffer.len_bytes()) }
}

/// Encodes an object that is to travel.
///
/// # Errors
/// If it cannot be pickled: pickle's own error.
#[inline]
pub(crate) fn encode(object: &Bound<'_, PyAny>) -> PyResult<Encoded> {
    let mut head = Head::new();
    match encode_plain(object, &mut head, false)? {
        Plain::Yes => Ok(Encoded::of_head(head)),
        Plain::Long(tail) => Ok(Encoded { head, tail: vec![tail], handles: Vec::new() }),
        Plain::No => encode_tuple(object, head),
    }
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
fn encode_plain(object: &Bound<'_, PyAny>, head: &mut Head, nested: bool) -> PyResult<Plain> {
    if object.is_exact_instance_of::<PyInt>() {
        let Ok(number) = object.extract::<i64>() else { return Ok(Plain::No) };
        append_int(head, number);
    } else if let Some(text) = exactly::<PyString>(object) {
        // Lone surrogates have no UTF-8: pickle knows what to do.
        let Ok(utf8) = text.to_str() else { return Ok(Plain::No) };
        head.push(STR);
        if !nested && utf8.len() > LONG {
            return Ok(Plain::Long(Tail::Text(text.clone().unbind())));
        }
        append(head, utf8.as_bytes(), nested);
    } else if let Some(bytes) = exactly::<PyBytes>(object) {
        head.push(BYTES);
        if !nested && bytes.as_bytes().len() > LONG {
            return Ok(Plain::Long(Tail::Bytes(bytes.clone().unbind())));
        }
        append(head, bytes.as_bytes(), nested);
    } else if let Some(number) = exactly::<PyFloat>(object) {
        head.push(FLOAT);
        head.extend_from_slice(&number.value().to_le_bytes());
    } else if object.is_none() {
        head.push(NONE);
    } else if let Some(truth) = exactly::<PyBool>(object) {
        head.push(if truth.is_true() { TRUE } else { FALSE });
    } else {
        return Ok(Plain::No);
    }
    Ok(Plain::Yes)
}

/// The object as what it is exactly, no subclass.
pub(crate) fn exactly<'a, 'py, T: PyTypeInfo + PyTypeCheck>(
    object: &'a Bound<'py, PyAny>,
) -> Option<&'a Bound<'py, T>> {
    if object.is_exact_instance_of::<T>() { object.cast::<T>().ok() } else { None }
}

/// The fewer bytes, the more ints there are that need no block of their own on their way.
#[inline]
fn append_int(head: &mut Head, number: i64) {
    let bytes = number.to_le_bytes();
    let (tag, len) = match number {
        n if n == i64::from(n as i32) => (INT_32, 4),
        n if n == n << 16 >> 16 => (INT_48, 6),
        _ => (INT, 8),
    };
    head.push(tag);
    head.extend_from_slice(&bytes[..len]);
}

fn append(head: &mut Head, bytes: &[u8], with_length: bool) {
    if with_length {
        head.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    }
    head.extend_from_slice(bytes);
}

/// Encodes a flat tuple natively, and anything else by pickle.
fn encode_tuple(object: &Bound<'_, PyAny>, mut head: Head) -> PyResult<Encoded> {
    let Some(tuple) = exactly::<PyTuple>(object).filter(|tuple| tuple.len() <= TUPLE_MAX) else {
        return pickle(object);
    };
    head.clear();
    head.extend_from_slice(&[TUPLE, tuple.len() as u8]);
    for item in tuple.iter() {
        match encode_plain(&item, &mut head, true)? {
            Plain::Yes if head.len() <= LONG => {}
            _ => return pickle(object),
        }
    }
    Ok(Encoded::of_head(head))
}

fn pickle(object: &Bound<'_, PyAny>) -> PyResult<Encoded> {
    static DUMPS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let py = object.py();
    let dumps = DUMPS.import(py, "tenfold._payload", "dumps")?;
    let (pickled, handles) = carrier::carrying(|| dumps.call1((object,)));
    let (bytes, buffers): (Bound<'_, PyBytes>, Option<Vec<PyBuffer<u8>>>) = pickled?.extract()?;
    let buffers = buffers.unwrap_or_default();
    let mut head = Head::new();
    let mut tail = Vec::with_capacity(1 + buffers.len());
    if buffers.is_empty() {
        head.push(PICKLE);
    } else {
        head.push(BUFFERS);
        head.extend_from_slice(&(buffers.len() as u32).to_le_bytes());
        head.extend_from_slice(&(bytes.as_bytes().len() as u64).to_le_bytes());
        for buffer in &buffers {
            head.extend_from_slice(&(buffer.len_bytes() as u64).to_le_bytes());
        }
    }
    let mut at = head.len() + bytes.as_bytes().len();
    if bytes.as_bytes().len() <= LONG {
        head.extend_from_slice(bytes.as_bytes());
    } else {
        tail.push(Tail::Bytes(bytes.unbind()));
    }
    for buffer in buffers {
        let padding = at.next_multiple_of(ALIGN) - at;
        at += padding + buffer.len_bytes();
        tail.push(Tail::Buffer { padding, buffer });
    }
    Ok(Encoded { head, tail, handles })
}

/// Decodes a payload that has arrived. The payload is let go of afterwards; handles inside it have been taken by then.
///
/// # Errors
/// If the bytes make no sense, or unpickling fails.
pub(crate) fn decode_payload(py: Python<'_>, payload: &Payload) -> PyResult<Py<PyAny>> {
    payload.with(|bytes| decode(py, bytes)).map_err(errors::heap)?
}

/// The payload as a pickle, for those who unpickle it themselves.
///
/// # Errors
/// If the bytes make no sense, or cannot be unpickled and pickled again.
pub(crate) fn as_pickle<'py>(py: Python<'py>, payload: &Payload) -> PyResult<Bound<'py, PyBytes>> {
    let pickled = |bytes: &[u8]| match bytes.split_first() {
        Some((&PICKLE, body)) => Some(PyBytes::new(py, body)),
        _ => None,
    };
    match payload.with(pickled).map_err(errors::heap)? {
        Some(pickle) => Ok(pickle),
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
pub(crate) fn decode(py: Python<'_>, bytes: &[u8]) -> PyResult<Py<PyAny>> {
    let Some((&tag, body)) = bytes.split_first() else { return Err(nonsense()) };
    Ok(match tag {
        PICKLE => unpickle(py, body, None)?.unbind(),
        TUPLE => decode_tuple(py, body)?.into_any().unbind(),
        BUFFERS => decode_buffers(py, body)?.unbind(),
        STR => PyString::new(py, core::str::from_utf8(body).map_err(|_| nonsense())?).into_any().unbind(),
        BYTES => PyBytes::new(py, body).into_any().unbind(),
        _ => {
            let mut rest = body;
            let value = decode_fixed(py, tag, &mut rest)?;
            if rest.is_empty() { value.unbind() } else { return Err(nonsense()) }
        }
    })
}

fn nonsense() -> PyErr {
    PyValueError::new_err(
        "a message does not make sense: it was not written by tenfold, or some process has written over shared memory",
    )
}

/// Takes `N` bytes from the front.
fn take<const N: usize>(rest: &mut &[u8]) -> PyResult<[u8; N]> {
    let (front, back) = rest.split_first_chunk::<N>().ok_or_else(nonsense)?;
    *rest = back;
    Ok(*front)
}

fn decode_fixed<'py>(py: Python<'py>, tag: u8, rest: &mut &[u8]) -> PyResult<Bound<'py, PyAny>> {
    Ok(match tag {
        NONE => py.None().into_bound(py),
        TRUE | FALSE => PyBool::new(py, tag == TRUE).to_owned().into_any(),
        INT => PyInt::new(py, i64::from_le_bytes(take(rest)?)).into_any(),
        INT_32 => PyInt::new(py, i32::from_le_bytes(take(rest)?)).into_any(),
        INT_48 => {
            let [a, b, c, d, e, f] = take(rest)?;
            PyInt::new(py, i64::from_le_bytes([0, 0, a, b, c, d, e, f]) >> 16).into_any()
        }
        FLOAT => PyFloat::new(py, f64::from_le_bytes(take(rest)?)).into_any(),
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
                if tag == BYTES {
                    PyBytes::new(py, bytes).into_any()
                } else {
                    PyString::new(py, core::str::from_utf8(bytes).map_err(|_| nonsense())?).into_any()
                }
            }
            tag => decode_fixed(py, tag, &mut rest)?,
        });
    }
    if rest.is_empty() { PyTuple::new(py, items) } else { Err(nonsense()) }
}

fn decode_buffers<'py>(py: Python<'py>, body: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    let mut rest = body;
    let count = u32::from_le_bytes(take(&mut rest)?) as usize;
    let pickle_length = u64::from_le_bytes(take(&mut rest)?) as usize;
    if rest.len() / 8 < count {
        return Err(nonsense());
    }
    let mut lengths = Vec::with_capacity(count);
    for _ in 0..count {
        lengths.push(u64::from_le_bytes(take(&mut rest)?) as usize);
    }
    let (pickled, mut rest) = rest.split_at_checked(pickle_length).ok_or_else(nonsense)?;
    let buffers = PyList::empty(py);
    // The tag is not part of the body, but of what is aligned.
    let mut at = 1 + body.len() - rest.len();
    for length in lengths {
        let padding = at.next_multiple_of(ALIGN) - at;
        let (_, behind) = rest.split_at_checked(padding).ok_or_else(nonsense)?;
        let (bytes, behind) = behind.split_at_checked(length).ok_or_else(nonsense)?;
        rest = behind;
        at += padding + length;
        buffers.append(PyByteArray::new(py, bytes))?;
    }
    unpickle(py, pickled, Some(&buffers))
}

fn unpickle<'py>(py: Python<'py>, pickled: &[u8], buffers: Option<&Bound<'py, PyList>>) -> PyResult<Bound<'py, PyAny>> {
    static LOADS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let loads = LOADS.import(py, "pickle", "loads")?;
    let bytes = PyBytes::new(py, pickled);
    match buffers {
        None => loads.call1((bytes,)),
        Some(buffers) => {
            let keywords = PyDict::new(py);
            keywords.set_item("buffers", buffers)?;
            loads.call((bytes,), Some(&keywords))
        }
    }
}

/// `object` as the bytes that would travel; for tests and for measuring. Shared objects inside it are mentioned by id
/// and not kept alive.
#[pyfunction]
fn encoded(object: &Bound<'_, PyAny>) -> PyResult<Vec<u8>> {
    let encoded = encode(object)?;
    encoded.with(object.py(), |outgoing| outgoing.parts.concat())
}

/// The object that such bytes are.
#[pyfunction]
fn decoded(py: Python<'_>, bytes: &[u8]) -> PyResult<Py<PyAny>> {
    decode(py, bytes)
}

/// Puts the functions into the module.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(encoded, module)?)?;
    module.add_function(wrap_pyfunction!(decoded, module)?)
}
