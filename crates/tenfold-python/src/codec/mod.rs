//! Objects as bytes: a native path for plain values, pickle for the rest.
//!
//! ```text
//!  ┌ tag u8 ┬ body … ┐
//!    0  pickle (protocol 5), all of it
//!    1  None      2  True      3  False
//!    4  int that fits 64 bits, little-endian      5  float
//!    10  int that fits 32 bits                    11  int that fits 48 bits
//!    6  str, UTF-8                                7  bytes
//!    12  bytearray
//!    8  flat tuple of up to 32: { count u8, then each as { tag, body }, str and bytes with a length u32 before them }
//!    9  pickle with buffers out of band: { buffers u32, pickle's length u64, each buffer's length u64, the pickle,
//!       then the buffers, each at a multiple of 64 bytes from the tag }
//! ```
//!
//! Only exact types take the native path: a subclass of int is pickled. Whoever wrote the bytes, decoding them is safe up
//! to what unpickling does: lengths are checked, and nonsense is an error.
//!
//! ```text
//!   sender                                 block of the heap                        receiver
//!   bytes, parts of a pickle ── one copy ─▶ ┌ head │ pickle ┬ buffer ┬ buffer ┐ ── one copy ─▶ bytes, strings
//!   memory of an array ──────── one copy ─▶ └───────────────┴────────┴────────┘ ── mapped privately: no copy
//! ```

mod decode;
mod encode;
mod large;
mod pickling;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

pub(crate) use decode::{as_pickle, decode, decode_payload, unpickle};
pub(crate) use encode::{Encoded, encode, encode_short, exactly};
pub(crate) use pickling::{Reducers, share_descriptors};

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
const BYTEARRAY: u8 = 12;

/// Longer strings and byte strings are not copied before they are written.
const LONG: usize = 4096;
/// Buffers out of band begin at multiples of this.
const ALIGN: usize = 64;

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
    module.add_class::<Reducers>()?;
    module.add_function(wrap_pyfunction!(encoded, module)?)?;
    module.add_function(wrap_pyfunction!(decoded, module)?)
}
