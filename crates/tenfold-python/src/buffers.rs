//! Memory from and to Python: one of the rooms of this crate for code that the compiler cannot check.
//!
//! ```text
//!   numpy array ── base ──▶ View ── owner ──▶ private view of a message │ message │ shared memory
//!                             └── address, length
//! ```
//!
//! A [`View`] shows memory that belongs to the engine to whatever understands Python's buffers. It keeps the owner
//! of the memory as long as anything looks through it.

use core::ffi::{c_char, c_int};
use core::mem::{self, MaybeUninit};
use core::ptr::{NonNull, null};
use std::sync::Arc;

use pyo3::buffer::PyBuffer;
use pyo3::exceptions::{PyMemoryError, PyTypeError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::pyclass::CompareOp;
use pyo3::types::{PyByteArray, PyBytes, PyMemoryView, PyTuple};
use tenfold_engine::shm::data::Data;
use tenfold_engine::shm::message::{InPlace, Payload};
use tenfold_engine::shm::private_view::PrivateView;
use tenfold_engine::sys::limits::{self, Resource};
use tenfold_engine::sys::{Errno, huge_pages, stream};

use crate::errors;

/// What keeps the memory behind a view in place.
#[derive(Debug)]
enum Owner {
    Private(#[expect(dead_code, reason = "held")] Arc<PrivateView>),
    Message(#[expect(dead_code, reason = "held")] Arc<InPlace<Arc<Payload>>>),
    Shared(#[expect(dead_code, reason = "held")] Data),
}

/// Memory that another process wrote, or that processes share; understands Python's buffer protocol.
#[pyclass(frozen, module = "tenfold._native")]
pub(crate) struct View {
    address: NonNull<u8>,
    len: usize,
    readonly: bool,
    _owner: Owner,
}

// SAFETY: an address whose memory stays as long as the owner, which may be held and dropped by any thread. Who reads
// and writes there from where is the business of those who take a buffer, as with all buffers of Python.
unsafe impl Send for View {}
// SAFETY: as above.
unsafe impl Sync for View {}

impl View {
    /// `len` bytes of a private view of a message, from byte `at` on; writable.
    pub(crate) fn of_private(view: &Arc<PrivateView>, at: usize, len: usize) -> View {
        assert!(at.checked_add(len).is_some_and(|end| end <= view.len()));
        // SAFETY: inside the view's mapping, as just checked.
        let address = unsafe { view.address().add(at) };
        View { address, len, readonly: false, _owner: Owner::Private(Arc::clone(view)) }
    }

    /// `len` bytes of a message that nobody writes to any more, from byte `at` on.
    pub(crate) fn of_message(message: &Arc<InPlace<Arc<Payload>>>, at: usize, len: usize) -> View {
        let bytes = &message[at..][..len];
        let address = NonNull::from(bytes).cast();
        View { address, len, readonly: true, _owner: Owner::Message(Arc::clone(message)) }
    }

    /// All of the memory that processes share; writable.
    ///
    /// # Errors
    /// If this process cannot map it.
    pub(crate) fn of_shared(data: &Data) -> PyResult<View> {
        let address = data.address().map_err(errors::heap)?;
        Ok(View { address, len: data.len() as usize, readonly: false, _owner: Owner::Shared(data.clone()) })
    }
}

#[pymethods]
impl View {
    fn __len__(&self) -> usize {
        self.len
    }

    fn __getitem__<'py>(slf: &Bound<'py, Self>, key: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        PyMemoryView::from(slf)?.get_item(key)
    }

    fn __setitem__(slf: &Bound<'_, Self>, key: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) -> PyResult<()> {
        PyMemoryView::from(slf)?.set_item(key, value)
    }

    fn __richcmp__(slf: &Bound<'_, Self>, other: &Bound<'_, PyAny>, op: CompareOp) -> PyResult<Py<PyAny>> {
        Ok(PyMemoryView::from(slf)?.rich_compare(other, op)?.unbind())
    }

    fn __hash__(&self) -> PyResult<isize> {
        Err(PyTypeError::new_err("unhashable type: 'View'"))
    }

    /// Travels as a buffer, as it came.
    fn __reduce_ex__<'py>(slf: &Bound<'py, Self>, protocol: u32) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyTuple>)> {
        let py = slf.py();
        if protocol < 5 {
            let content = PyByteArray::from(slf)?;
            return Ok((
                py.get_type::<PyByteArray>().into_any(),
                PyTuple::new(py, [PyBytes::new(py, &content.to_vec())])?,
            ));
        }
        let buffer = py.import("pickle")?.getattr("PickleBuffer")?.call1((slf,))?;
        Ok((py.import("tenfold._payload")?.getattr("received")?, PyTuple::new(py, [buffer])?))
    }

    /// # Safety
    /// As Python's C interface says.
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        let this = slf.get();
        // SAFETY: `view` is the caller's to be filled in; the memory stays as long as this object, to which the
        // filled-in view holds a reference.
        let result = unsafe {
            let address = this.address.as_ptr().cast();
            ffi::PyBuffer_FillInfo(view, slf.as_ptr(), address, this.len as isize, this.readonly.into(), flags)
        };
        if result == 0 { Ok(()) } else { Err(PyErr::fetch(slf.py())) }
    }
}

/// The bytes that a buffer shows.
pub(crate) fn bytes_of(buffer: &PyBuffer<u8>) -> &[u8] {
    if buffer.len_bytes() == 0 || !buffer.is_c_contiguous() {
        return &[];
    }
    // SAFETY: the buffer is contiguous and its exporter keeps the memory in place and of this length until the export
    // is released, which the borrow prevents. Another thread of the program may write to it meanwhile, as to any
    // buffer that a C function reads without the GIL: the bytes that are sent are then a mixture, and nothing else is
    // derived from them here.
    unsafe { core::slice::from_raw_parts(buffer.buf_ptr().cast::<u8>(), buffer.len_bytes()) }
}

/// A bytes object with a copy of `content`.
///
/// # Errors
/// If there is no memory for it.
pub(crate) fn bytes<'py>(py: Python<'py>, content: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
    if content.len() >= huge_pages::NEVER_KEPT {
        let arriving = Arriving::new(py, content.len()).map_err(|error| no_room(py, error, content.len()))?;
        return Ok(arriving.copy(content));
    }
    let (start, len) = (content.as_ptr().cast::<c_char>(), content.len() as isize);
    // SAFETY: `start` is readable for `len` bytes; the result is a new reference to a bytes object, or null with an
    // error set.
    let made = unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyBytes_FromStringAndSize(start, len)) };
    Ok(made.map_err(|error| no_room(py, error, content.len()))?.cast_into()?)
}

/// A bytearray with a copy of `content`.
///
/// # Errors
/// If there is no memory for it.
pub(crate) fn bytearray<'py>(py: Python<'py>, content: &[u8]) -> PyResult<Bound<'py, PyByteArray>> {
    let (array, start) = fresh_bytearray(py, content.len())?;
    // SAFETY: nobody else knows the array, which has room for as many bytes.
    unsafe { start.copy_from_nonoverlapping(content.as_ptr(), content.len()) };
    Ok(array)
}

/// A bytearray of `len` bytes that `fill` writes.
///
/// # Errors
/// If there is no memory for it; what `fill` fails with.
pub(crate) fn bytearray_with(
    py: Python<'_>,
    len: usize,
    fill: impl FnOnce(&mut [u8]) -> PyResult<()>,
) -> PyResult<Bound<'_, PyByteArray>> {
    let (array, start) = fresh_bytearray(py, len)?;
    // SAFETY: as in `bytearray`; the bytes are set before there is a reference to them.
    let bytes = unsafe {
        start.write_bytes(0, len);
        core::slice::from_raw_parts_mut(start, len)
    };
    fill(bytes)?;
    Ok(array)
}

/// A bytearray whose bytes are yet to be written, and where they are.
fn fresh_bytearray(py: Python<'_>, len: usize) -> PyResult<(Bound<'_, PyByteArray>, *mut u8)> {
    // Made empty and enlarged: Python's function for a large one reports a second error where there is no memory.
    let array = PyByteArray::new(py, &[]);
    // SAFETY: a bytearray that nobody else knows, so that nobody has a buffer of it.
    if unsafe { ffi::PyByteArray_Resize(array.as_ptr(), len as isize) } != 0 {
        return Err(no_room(py, PyErr::fetch(py), len));
    }
    // SAFETY: as above.
    let start = unsafe { ffi::PyByteArray_AsString(array.as_ptr()) }.cast();
    // SAFETY: as above; there is room for so many bytes.
    huge_pages::populate(unsafe { core::slice::from_raw_parts_mut(start, len) });
    Ok((array, start.cast()))
}

/// Says which limit stands in the way of `len` bytes, if one is set.
pub(crate) fn no_room(py: Python<'_>, error: PyErr, len: usize) -> PyErr {
    if !error.is_instance_of::<PyMemoryError>(py) {
        return error;
    }
    let limits: Vec<String> = [(Resource::AddressSpace, "RLIMIT_AS"), (Resource::Data, "RLIMIT_DATA")]
        .into_iter()
        .filter_map(|(resource, name)| limits::get(resource).0.map(|limit| format!("{name} is {limit} bytes")))
        .collect();
    match limits.as_slice() {
        [] => error,
        set => PyMemoryError::new_err(format!(
            "no memory for {len} bytes that have arrived in a message: this process has a limit ({})",
            set.join(", ")
        )),
    }
}

/// Puts the class into the module.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<View>()
}

/// A bytes object in the making: what arrives is written where it stays.
pub(crate) struct Arriving<'py> {
    bytes: Bound<'py, PyBytes>,
    space: &'py mut [MaybeUninit<u8>],
    whole: usize,
}

impl<'py> Arriving<'py> {
    /// An object for `len` bytes. Pages are taken as they are filled.
    ///
    /// # Errors
    /// MemoryError.
    pub(crate) fn new(py: Python<'py>, len: usize) -> PyResult<Arriving<'py>> {
        assert!(len > 1, "the shortest objects are not ours alone");
        let size = isize::try_from(len).map_err(|_| PyMemoryError::new_err(()))?;
        // SAFETY: the GIL is held. The object has room for `len` bytes, and nobody else knows it before it is finished; the
        // space is used as long as the object is held here.
        unsafe {
            let bytes = Bound::from_owned_ptr_or_err(py, ffi::PyBytes_FromStringAndSize(null(), size))?;
            let start = ffi::PyBytes_AsString(bytes.as_ptr()).cast::<MaybeUninit<u8>>();
            let space = core::slice::from_raw_parts_mut(start, len);
            Ok(Arriving { bytes: bytes.cast_into_unchecked(), space, whole: len })
        }
    }

    /// The object with `content`, which is as long, in it.
    fn copy(self, content: &[u8]) -> Bound<'py, PyBytes> {
        huge_pages::populate(self.space);
        self.space.write_copy_of_slice(content);
        self.bytes
    }

    /// Whether nothing has arrived yet.
    pub(crate) fn is_empty(&self) -> bool {
        self.space.len() == self.whole
    }

    /// Reads what is missing, while other threads run; returns false at the end.
    ///
    /// # Errors
    /// The kernel's. It can go on after that.
    pub(crate) fn read(&mut self, fd: i32) -> Result<bool, Errno> {
        let space = &mut self.space;
        self.bytes.py().detach(|| {
            while !space.is_empty() {
                match stream::read(fd, space)? {
                    0 => return Ok(false),
                    count => *space = &mut mem::take(space)[count..],
                }
            }
            Ok(true)
        })
    }

    /// The object.
    ///
    /// # Panics
    /// If a part of it has not arrived.
    pub(crate) fn finish(self) -> Bound<'py, PyBytes> {
        assert!(self.space.is_empty(), "a bytes object with a part that has not arrived");
        self.bytes
    }
}
