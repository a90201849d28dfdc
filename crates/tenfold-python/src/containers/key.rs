//! Keys as bytes: equal keys have equal bytes, in all processes.
//!
//! Python's `1`, `1.0` and `True` are one key, and so are tuples of them; but the key that came first is the one that comes
//! back. So the bytes that are compared are those of a *plain* value, and how the key was written stands behind them:
//!
//! ```text
//!  ┌ plain value … ┬ nothing, or the key itself as the codec writes it ┐
//!    1  None               3  float that is no whole number
//!    2  int: i64           4  int beyond: { length u32, two's complement }
//!    5  str: { length u32, UTF-8 }            6  bytes: { length u32, … }
//!    7  tuple: { count u32, plain values }    8  frozenset: the same, in the order of their bytes
//!    9  complex: two f64
//!  ┌ 10 ┬ number u64 ┬ the key as the codec writes it ┐     a key that equals no plain value
//! ```
//!
//! No plain value's bytes are the beginning of another's. A key of another type (`IntEnum`, `Decimal`, a number of
//! numpy's, a named tuple …) is first tried as the plain value that it could equal. What equals none has a number of its own
//! and can only be compared by `==`, which [`super::dict`] does. NaN equals nothing, itself included: across processes
//! there is no identity that would find it again, so each insertion makes another entry, as with the standard library.

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyComplex, PyFloat, PyFrozenSet, PyInt, PyString, PyTuple};
use smallvec::SmallVec;
use tenfold_engine::Handle;
use tenfold_engine::shm::dict;
use tenfold_engine::shm::message::Outgoing;

use crate::codec::{self, exactly};

const NONE: u8 = 1;
const INT: u8 = 2;
const FLOAT: u8 = 3;
const LONG: u8 = 4;
const STR: u8 = 5;
const BYTES: u8 = 6;
const TUPLE: u8 = 7;
const FROZENSET: u8 = 8;
const COMPLEX: u8 = 9;
/// What all keys begin with that equal no plain value.
pub(crate) const OTHER: u8 = 10;
/// Bytes of such a key that name it.
const OTHER_NAME: usize = 9;

/// Deeper tuples are not looked into.
const DEPTH_MAX: u32 = 100;

/// 2^63, beyond which a whole float is no i64.
const I64_END: f64 = 9_223_372_036_854_775_808.0;

type Bytes = SmallVec<[u8; 64]>;

/// A key's bytes.
pub(crate) struct Key {
    bytes: Bytes,
    hashed: usize,
    compared: usize,
    /// Shared objects inside the key.
    pub(crate) handles: Vec<Handle>,
}

impl Key {
    /// A key to be filled.
    #[inline]
    pub(crate) fn empty() -> Key {
        Key { bytes: Bytes::new(), hashed: 0, compared: 0, handles: Vec::new() }
    }

    /// The bytes by which `object` is found. Returns false if it equals no plain value.
    ///
    /// # Errors
    /// If it is not hashable.
    #[inline]
    pub(crate) fn seek(&mut self, object: &Bound<'_, PyAny>) -> PyResult<bool> {
        Ok(self.fill(object)? != Likeness::None)
    }

    /// The bytes under which `object` is inserted. Returns false if it equals no plain value.
    ///
    /// # Errors
    /// If it is not hashable, or cannot be pickled.
    #[inline]
    pub(crate) fn spell(&mut self, object: &Bound<'_, PyAny>) -> PyResult<bool> {
        match self.fill(object)? {
            Likeness::Same => Ok(true),
            Likeness::Equal => self.append_spelling(object).map(|()| true),
            Likeness::None => Ok(false),
        }
    }

    /// The bytes of the plain value that `object` equals.
    #[inline]
    fn fill(&mut self, object: &Bound<'_, PyAny>) -> PyResult<Likeness> {
        self.bytes.clear();
        let likeness = append(object, &mut self.bytes, 0)?;
        (self.hashed, self.compared) = (self.bytes.len(), self.bytes.len());
        Ok(likeness)
    }

    /// All bytes, and how many of them are compared.
    pub(crate) fn parts(&self) -> (&[u8], usize) {
        (&self.bytes, self.compared)
    }

    /// The bytes, for the engine.
    #[inline]
    pub(crate) fn get(&self) -> dict::Key<'_> {
        dict::Key::spelled(&self.bytes, self.hashed, self.compared)
    }

    /// The key of an entry that equals no plain value, by its bytes.
    pub(crate) fn named(bytes: &[u8]) -> Key {
        let compared = bytes.len().min(OTHER_NAME);
        Key { bytes: bytes.into(), hashed: compared.min(1), compared, handles: Vec::new() }
    }

    /// `object`, which equals no plain value, under a number of its own.
    ///
    /// # Errors
    /// If it cannot be pickled.
    pub(crate) fn other(object: &Bound<'_, PyAny>, number: u64) -> PyResult<Key> {
        let mut bytes = Bytes::new();
        bytes.push(OTHER);
        bytes.extend_from_slice(&number.to_le_bytes());
        let mut key = Key { bytes, hashed: 1, compared: OTHER_NAME, handles: Vec::new() };
        key.append_spelling(object)?;
        Ok(key)
    }

    /// Calls `f` with the value, which then holds what the key refers to as well.
    #[inline]
    pub(crate) fn holding<R>(&self, value: Outgoing<'_>, f: impl FnOnce(Outgoing<'_>) -> R) -> R {
        if self.handles.is_empty() {
            return f(value);
        }
        let handles = [&self.handles[..], value.handles].concat();
        f(Outgoing { parts: value.parts, handles: &handles })
    }

    #[cold]
    fn append_spelling(&mut self, object: &Bound<'_, PyAny>) -> PyResult<()> {
        let encoded = codec::encode(object)?;
        encoded.with(object.py(), |outgoing| {
            for part in outgoing.parts {
                self.bytes.extend_from_slice(part);
            }
            self.handles = outgoing.handles.to_vec();
        })
    }
}

/// How a key and the plain value that was found for it are alike.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Likeness {
    /// The key is that value.
    Same,
    /// It equals that value.
    Equal,
    /// No value was found.
    None,
}

/// Appends the plain value that `object` equals.
#[inline]
fn append(object: &Bound<'_, PyAny>, bytes: &mut Bytes, depth: u32) -> PyResult<Likeness> {
    if object.is_exact_instance_of::<PyString>() {
        if let Ok(text) = object.cast::<PyString>().map_err(PyErr::from).and_then(|text| text.to_str()) {
            append_long(bytes, STR, text.as_bytes());
            return Ok(Likeness::Same);
        }
    } else if object.is_exact_instance_of::<PyInt>()
        && let Ok(number) = object.extract::<i64>()
    {
        append_int(bytes, number);
        return Ok(Likeness::Same);
    }
    append_other(object, bytes, depth)
}

fn append_int(bytes: &mut Bytes, number: i64) {
    let mut whole = [INT; 9];
    whole[1..].copy_from_slice(&number.to_le_bytes());
    bytes.extend_from_slice(&whole);
}

#[inline]
fn append_long(bytes: &mut Bytes, tag: u8, body: &[u8]) {
    bytes.push(tag);
    bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
    bytes.extend_from_slice(body);
}

/// As [`append`], for what is not an ordinary int or string.
fn append_other(object: &Bound<'_, PyAny>, bytes: &mut Bytes, depth: u32) -> PyResult<Likeness> {
    let py = object.py();
    if let Some(tuple) = exactly::<PyTuple>(object) {
        return append_tuple(tuple, bytes, depth);
    }
    if let Some(truth) = exactly::<PyBool>(object) {
        append_int(bytes, truth.is_true().into());
        return Ok(Likeness::Equal);
    }
    if object.is_none() {
        bytes.push(NONE);
        return Ok(Likeness::Same);
    }
    if let Some(number) = exactly::<PyFloat>(object) {
        return append_float(py, number.value(), bytes);
    }
    if let Some(string) = exactly::<PyBytes>(object) {
        append_long(bytes, BYTES, string.as_bytes());
        return Ok(Likeness::Same);
    }
    if object.is_exact_instance_of::<PyString>() {
        // Lone surrogates; these bytes are no UTF-8 string's.
        let encoded = object.call_method1("encode", ("utf-8", "surrogatepass"))?;
        append_long(bytes, STR, encoded.cast::<PyBytes>()?.as_bytes());
        return Ok(Likeness::Same);
    }
    if object.is_exact_instance_of::<PyInt>() {
        append_large(object, bytes)?;
        return Ok(Likeness::Same);
    }
    if let Some(number) = exactly::<PyComplex>(object) {
        return append_complex(py, number, bytes);
    }
    if let Some(set) = exactly::<PyFrozenSet>(object) {
        return append_set(set, bytes, depth);
    }
    // Unhashable keys are refused here.
    let hash = object.hash()?;
    match equal_plain_value(object, hash)? {
        Some(value) => Ok(match append(&value, bytes, depth + 1)? {
            Likeness::None => Likeness::None,
            _ => Likeness::Equal,
        }),
        None => Ok(Likeness::None),
    }
}

fn append_large(number: &Bound<'_, PyAny>, bytes: &mut Bytes) -> PyResult<()> {
    let bits: usize = number.call_method0("bit_length")?.extract()?;
    let keywords = pyo3::types::PyDict::new(number.py());
    keywords.set_item("signed", true)?;
    let body = number.call_method("to_bytes", (bits / 8 + 1, "little"), Some(&keywords))?;
    append_long(bytes, LONG, body.cast::<PyBytes>()?.as_bytes());
    Ok(())
}

fn append_float(py: Python<'_>, number: f64, bytes: &mut Bytes) -> PyResult<Likeness> {
    if number.is_nan() {
        return Ok(Likeness::None);
    }
    if number.fract() != 0.0 || number.is_infinite() {
        bytes.push(FLOAT);
        bytes.extend_from_slice(&number.to_le_bytes());
        return Ok(Likeness::Same);
    }
    if (-I64_END..I64_END).contains(&number) {
        append_int(bytes, number as i64);
    } else {
        append_large(&PyFloat::new(py, number).call_method0("__int__")?, bytes)?;
    }
    Ok(Likeness::Equal)
}

fn append_complex(py: Python<'_>, number: &Bound<'_, PyComplex>, bytes: &mut Bytes) -> PyResult<Likeness> {
    let (real, imaginary): (f64, f64) = (number.getattr("real")?.extract()?, number.getattr("imag")?.extract()?);
    if imaginary == 0.0 {
        return Ok(match append_float(py, real, bytes)? {
            Likeness::None => Likeness::None,
            _ => Likeness::Equal,
        });
    }
    if real.is_nan() || imaginary.is_nan() {
        return Ok(Likeness::None);
    }
    bytes.push(COMPLEX);
    // Zero plus zero has no sign.
    bytes.extend_from_slice(&(real + 0.0).to_le_bytes());
    bytes.extend_from_slice(&imaginary.to_le_bytes());
    Ok(if real == 0.0 && real.is_sign_negative() { Likeness::Equal } else { Likeness::Same })
}

fn append_tuple(tuple: &Bound<'_, PyTuple>, bytes: &mut Bytes, depth: u32) -> PyResult<Likeness> {
    bytes.push(TUPLE);
    bytes.extend_from_slice(&(tuple.len() as u32).to_le_bytes());
    let mut likeness = Likeness::Same;
    for item in tuple.iter() {
        let this = if depth < DEPTH_MAX { append(&item, bytes, depth + 1)? } else { Likeness::None };
        match this {
            Likeness::Same => {}
            Likeness::Equal => likeness = Likeness::Equal,
            Likeness::None => {
                // The others must be hashable, too.
                tuple.hash()?;
                return Ok(Likeness::None);
            }
        }
    }
    Ok(likeness)
}

fn append_set(set: &Bound<'_, PyFrozenSet>, bytes: &mut Bytes, depth: u32) -> PyResult<Likeness> {
    let mut likeness = Likeness::Same;
    let mut members: Vec<Bytes> = Vec::with_capacity(set.len());
    for member in set.iter() {
        let mut one = Bytes::new();
        let this = if depth < DEPTH_MAX { append(&member, &mut one, depth + 1)? } else { Likeness::None };
        match this {
            Likeness::Same => {}
            Likeness::Equal => likeness = Likeness::Equal,
            Likeness::None => return Ok(Likeness::None),
        }
        members.push(one);
    }
    members.sort_unstable();
    bytes.push(FROZENSET);
    bytes.extend_from_slice(&(members.len() as u32).to_le_bytes());
    members.iter().for_each(|member| bytes.extend_from_slice(member));
    Ok(likeness)
}

/// The plain value that is `==` to an object of another type, with an equal hash.
fn equal_plain_value<'py>(object: &Bound<'py, PyAny>, hash: isize) -> PyResult<Option<Bound<'py, PyAny>>> {
    let py = object.py();
    let same = |candidate: Bound<'py, PyAny>| -> PyResult<Option<Bound<'py, PyAny>>> {
        let equal = candidate.hash()? == hash && candidate.eq(object)?;
        Ok(equal.then_some(candidate))
    };
    if object.is_instance_of::<PyString>() {
        return same(py.get_type::<PyString>().call_method1("__str__", (object,))?);
    }
    if object.is_instance_of::<PyInt>() {
        return same(py.get_type::<PyInt>().call_method1("__int__", (object,))?);
    }
    if let Ok(string) = object.cast::<PyBytes>() {
        return same(PyBytes::new(py, string.as_bytes()).into_any());
    }
    if let Ok(number) = object.cast::<PyFloat>() {
        return same(PyFloat::new(py, number.value()).into_any());
    }
    if let Ok(tuple) = object.cast::<PyTuple>() {
        return same(PyTuple::new(py, tuple.iter())?.into_any());
    }
    if object.is_instance_of::<PyFrozenSet>() {
        let members: Vec<_> = object.cast::<PyFrozenSet>()?.iter().collect();
        return same(PyFrozenSet::new(py, members)?.into_any());
    }
    // A small int is its own hash; most others that equal a number say which.
    let mut candidates = vec![PyInt::new(py, hash).into_any()];
    let kind = object.get_type();
    let has = |name: &str| kind.hasattr(name).unwrap_or(false);
    if has("__index__") {
        candidates.extend(object.call_method0("__index__").ok());
    } else if has("__float__") {
        if let Ok(number) = object.extract::<f64>() {
            candidates.push(PyFloat::new(py, number).into_any());
            // Beyond the range of floats an int may take for ever to make.
            if number.is_finite() && has("__int__") {
                candidates.extend(py.get_type::<PyInt>().call1((object,)).ok());
            }
        }
    } else if has("__complex__") {
        candidates.extend(py.get_type::<PyComplex>().call1((object,)).ok());
    }
    for candidate in candidates {
        if let Some(value) = same(candidate)? {
            return Ok(Some(value));
        }
    }
    // A string in disguise, such as a UserString, writes itself without a frill.
    let writes_itself = !kind.getattr("__str__")?.is(&py.get_type::<PyAny>().getattr("__str__")?);
    match object.str() {
        Ok(text) if writes_itself => same(text.into_any()),
        _ => Ok(None),
    }
}

/// The key that these bytes stand for.
///
/// # Errors
/// If they make no sense, or unpickling fails.
pub(crate) fn decode(py: Python<'_>, bytes: &[u8]) -> PyResult<Py<PyAny>> {
    if bytes.first() == Some(&OTHER) {
        return codec::decode(py, bytes.get(OTHER_NAME..).ok_or_else(nonsense)?);
    }
    let mut rest = bytes;
    let value = decode_plain(py, &mut rest, 0)?;
    if rest.is_empty() { Ok(value.unbind()) } else { codec::decode(py, rest) }
}

fn nonsense() -> PyErr {
    PyValueError::new_err("a key of a shared dict does not make sense: some process has written over shared memory")
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> PyResult<&'a [u8]> {
    let (front, back) = rest.split_at_checked(count).ok_or_else(nonsense)?;
    *rest = back;
    Ok(front)
}

fn fixed<const N: usize>(rest: &mut &[u8]) -> PyResult<[u8; N]> {
    let (front, back) = rest.split_first_chunk::<N>().ok_or_else(nonsense)?;
    *rest = back;
    Ok(*front)
}

fn decode_plain<'py>(py: Python<'py>, rest: &mut &[u8], depth: u32) -> PyResult<Bound<'py, PyAny>> {
    let [tag] = fixed(rest)?;
    let float = |rest: &mut &[u8]| fixed(rest).map(f64::from_le_bytes);
    let length = |rest: &mut &[u8]| fixed(rest).map(|bytes| u32::from_le_bytes(bytes) as usize);
    Ok(match tag {
        NONE => py.None().into_bound(py),
        INT => PyInt::new(py, i64::from_le_bytes(fixed(rest)?)).into_any(),
        FLOAT => PyFloat::new(py, float(rest)?).into_any(),
        COMPLEX => PyComplex::from_doubles(py, float(rest)?, float(rest)?).into_any(),
        LONG => {
            let count = length(rest)?;
            let keywords = pyo3::types::PyDict::new(py);
            keywords.set_item("signed", true)?;
            let body = PyBytes::new(py, take(rest, count)?);
            py.get_type::<PyInt>().call_method("from_bytes", (body, "little"), Some(&keywords))?
        }
        STR => {
            let count = length(rest)?;
            let body = take(rest, count)?;
            match core::str::from_utf8(body) {
                Ok(text) => PyString::new(py, text).into_any(),
                Err(_) => PyBytes::new(py, body).call_method1("decode", ("utf-8", "surrogatepass"))?,
            }
        }
        BYTES => {
            let count = length(rest)?;
            PyBytes::new(py, take(rest, count)?).into_any()
        }
        TUPLE | FROZENSET if depth <= DEPTH_MAX => {
            let count = length(rest)?;
            let mut items = Vec::with_capacity(count.min(rest.len()));
            for _ in 0..count {
                items.push(decode_plain(py, rest, depth + 1)?);
            }
            if tag == TUPLE { PyTuple::new(py, items)?.into_any() } else { PyFrozenSet::new(py, items)?.into_any() }
        }
        _ => return Err(nonsense()),
    })
}

/// Whether two keys are one to Python: `stored` is in a dict, `wanted` is looked for and has this hash.
///
/// # Errors
/// What their comparison raises.
pub(crate) fn is_same(stored: &Bound<'_, PyAny>, wanted: &Bound<'_, PyAny>, hash: isize) -> PyResult<bool> {
    match stored.hash() {
        Ok(other) if other == hash => stored.eq(wanted),
        Ok(_) => Ok(false),
        // What was hashable when it was stored may be no more.
        Err(error) if error.is_instance_of::<PyTypeError>(wanted.py()) => Ok(false),
        Err(error) => Err(error),
    }
}
