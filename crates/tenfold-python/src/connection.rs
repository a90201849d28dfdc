//! The hot half of `multiprocessing.connection.Connection`: what moves messages.
//!
//! ```text
//!   ┌ length i32, big-endian ┬ message … ┐      or, from 2 GiB on: -1, then the length as u64
//! ```
//!
//! The same bytes through the same pipe or socket as in the standard library, so either end may be its. What is faster is
//! all around: no Python code in between, one system call to send, two to receive, plain objects past the table of
//! reducers, and a receiver that looks for a while before it sleeps.

use pyo3::buffer::PyBuffer;
use pyo3::exceptions::{PyEOFError, PyOSError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};
use tenfold_engine::sys::Errno;
use tenfold_engine::sys::looks::Looks;
use tenfold_engine::sys::stream::{self, Taker};

use crate::buffers::{self, Arriving};
use crate::{codec, waiting};

/// Seconds that the most looks before a receiver sleeps take, about.
const LOOKING: f64 = 100e-6;
/// Bodies of up to so many bytes are read at once with the length, and copied into their object.
const SHORT: u64 = 16 << 10;
/// And up to so many, into an object that is made beforehand. Of a greater length no more is believed at once than has
/// arrived before.
const LONG: u64 = 64 << 20;
/// Objects with more inside are pickled like those of unknown classes.
const PLAIN_MAX: usize = 64;

/// The methods of a connection that move messages. What it is a connection of, the standard library's class keeps:
/// `_handle`, `_readable`, `_writable`.
#[pyclass(subclass, frozen, module = "tenfold._native")]
pub(crate) struct Connection {
    looks: Looks,
    taker: Taker,
}

/// Which way messages go.
#[derive(Clone, Copy)]
enum Way {
    In,
    Out,
}

#[pymethods]
impl Connection {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Connection {
        Connection { looks: Looks::default(), taker: Taker::default() }
    }

    /// Send a (picklable) object
    fn send(slf: &Bound<'_, Self>, obj: &Bound<'_, PyAny>) -> PyResult<()> {
        static DUMPS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        static DUMPS_ANY: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let py = slf.py();
        let fd = descriptor(slf, Way::Out)?;
        let dumps = if is_plain(obj, &mut 0) {
            DUMPS.import(py, "pickle", "dumps")?.clone()
        } else {
            let dumps = DUMPS_ANY.get_or_try_init(py, || {
                codec::share_descriptors(py)?;
                Ok::<_, PyErr>(
                    py.import("multiprocessing.reduction")?.getattr("ForkingPickler")?.getattr("dumps")?.unbind(),
                )
            })?;
            dumps.bind(py).clone()
        };
        let pickle = dumps.call1((obj,))?;
        match codec::exactly::<PyBytes>(&pickle) {
            Some(bytes) => send(py, fd, bytes.as_bytes()),
            // A view of what ForkingPickler has written.
            None => send(py, fd, buffers::bytes_of(&PyBuffer::get(&pickle)?)),
        }
    }

    /// The standard library's `send_bytes` has looked at its arguments; `buf` is contiguous.
    fn _send_bytes(slf: &Bound<'_, Self>, buf: PyBuffer<u8>) -> PyResult<()> {
        send(slf.py(), descriptor(slf, Way::Out)?, buffers::bytes_of(&buf))
    }

    /// Receive a (picklable) object
    fn recv<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        codec::unpickle(Self::recv_bytes(slf, None)?.as_any(), None)
    }

    /// Receive bytes data as a bytes object.
    #[pyo3(signature = (maxlength=None))]
    fn recv_bytes<'py>(slf: &Bound<'py, Self>, maxlength: Option<i64>) -> PyResult<Bound<'py, PyBytes>> {
        let py = slf.py();
        let fd = descriptor(slf, Way::In)?;
        let most = match maxlength {
            None => u64::MAX,
            Some(most) => u64::try_from(most).map_err(|_| PyValueError::new_err("negative maxlength"))?,
        };
        let this = slf.get();
        let mut incoming = Incoming::new(most);
        let mut worth_looking = true;
        loop {
            let went = py.detach(|| {
                if core::mem::take(&mut worth_looking)
                    && let Some(0) = this.looks.look(|| incoming.begin(fd, &this.taker))?
                {
                    return Ok(Went::Ended);
                }
                incoming.advance(fd)
            });
            match went {
                Ok(Went::Whole) => return buffers::bytes(py, &incoming.body),
                Ok(Went::Long(len)) => return receive_body(py, fd, len),
                // Raises. Nobody knows where the next message begins: nothing more is received.
                Ok(Went::TooLong) => return Ok(slf.call_method0(intern!(py, "_bad_message_length"))?.cast_into()?),
                Ok(Went::Ended) => return Err(end(incoming.is_between_parts())),
                Err(Errno::INTR) => py.check_signals()?,
                Err(errno) => return Err(error(py, errno)),
            }
        }
    }

    /// Whether there is any input available to be read
    #[pyo3(signature = (timeout=Some(0.0)), text_signature = "($self, timeout=0.0)")]
    fn poll(slf: &Bound<'_, Self>, timeout: Option<f64>) -> PyResult<bool> {
        let py = slf.py();
        let fd = descriptor(slf, Way::In)?;
        let this = slf.get();
        let deadline = waiting::deadline(timeout)?;
        let mut worth_looking = timeout.is_none_or(|seconds| seconds > LOOKING);
        loop {
            let found = py.detach(|| {
                let look = || Ok(stream::has_input(fd)?.then_some(()));
                if core::mem::take(&mut worth_looking) && this.looks.look(look)?.is_some() {
                    return Ok(true);
                }
                stream::await_input(fd, deadline)
            });
            match found {
                Err(Errno::INTR) => py.check_signals()?,
                found => return found.map_err(|errno| error(py, errno)),
            }
        }
    }
}

/// A message on its way in.
struct Incoming {
    head: Vec<u8>,
    body: Vec<u8>,
    /// Bytes of the longest that is taken.
    most: u64,
}

/// How far that is.
enum Went {
    Whole,
    /// The length is there, and is that of a long body.
    Long(usize),
    TooLong,
    Ended,
}

impl Incoming {
    fn new(most: u64) -> Incoming {
        Incoming { head: Vec::new(), body: Vec::new(), most }
    }

    /// Takes the length, or as much of it as is there; how many bytes, 0 at the end, or `None`.
    fn begin(&mut self, fd: i32, taker: &Taker) -> Result<Option<usize>, Errno> {
        let mut head = [0; 4];
        let taken = taker.take(fd, &mut head)?;
        self.head.extend_from_slice(&head[..taken.unwrap_or(0)]);
        Ok(taken)
    }

    /// Reads on until the message is whole. Bytes that come after it are left where they are. After an error it can go on.
    fn advance(&mut self, fd: i32) -> Result<Went, Errno> {
        let len = loop {
            let missing = match (self.head.first_chunk(), self.head.get(4..)) {
                (Some(&[0xff, 0xff, 0xff, 0xff]), Some(rest)) => match rest.try_into() {
                    Ok(len) => break u64::from_be_bytes(len),
                    Err(_) => 8 - rest.len(),
                },
                (Some(&len), _) => break i32::from_be_bytes(len).max(0) as u64,
                (None, _) => 4 - self.head.len(),
            };
            if stream::read_more(fd, &mut self.head, missing)? == 0 {
                return Ok(Went::Ended);
            }
        };
        if len > self.most {
            return Ok(Went::TooLong);
        }
        if len > SHORT && len <= LONG {
            return Ok(Went::Long(len as usize));
        }
        loop {
            let missing = len - self.body.len() as u64;
            if missing == 0 {
                return Ok(Went::Whole);
            }
            let step = missing.min((self.body.len() as u64).max(LONG)) as usize;
            if stream::read_more(fd, &mut self.body, step)? == 0 {
                return Ok(Went::Ended);
            }
        }
    }

    /// Whether nothing has come of what was to come next, which is how the standard library tells an end from a cut.
    fn is_between_parts(&self) -> bool {
        self.body.is_empty() && matches!(self.head.len(), 0 | 4 | 12)
    }
}

/// Receives the body of a message whose length has come.
fn receive_body(py: Python<'_>, fd: i32, len: usize) -> PyResult<Bound<'_, PyBytes>> {
    let mut body = Arriving::new(py, len)?;
    loop {
        match body.read(fd) {
            Ok(true) => return Ok(body.finish()),
            Ok(false) => return Err(end(body.is_empty())),
            Err(Errno::INTR) => py.check_signals()?,
            Err(errno) => return Err(error(py, errno)),
        }
    }
}

/// What an end is: expected between the parts of a message, which is how the standard library sees it, and nowhere else.
fn end(between_parts: bool) -> PyErr {
    if between_parts { PyEOFError::new_err(()) } else { PyOSError::new_err("got end of file during message") }
}

/// Sends a message: all of it, or as much as went before an error.
fn send(py: Python<'_>, fd: i32, message: &[u8]) -> PyResult<()> {
    let mut head = [0xff; 12];
    let head = match i32::try_from(message.len()) {
        Ok(len) => {
            head[..4].copy_from_slice(&len.to_be_bytes());
            &head[..4]
        }
        Err(_) => {
            head[4..].copy_from_slice(&(message.len() as u64).to_be_bytes());
            &head[..]
        }
    };
    let (mut parts, mut left) = ([head, message], head.len() + message.len());
    while left > 0 {
        match py.detach(|| stream::write(fd, parts)) {
            Ok(count) => {
                left -= count;
                let of_head = count.min(parts[0].len());
                parts = [&parts[0][of_head..], &parts[1][count - of_head..]];
            }
            Err(Errno::INTR) => py.check_signals()?,
            Err(errno) => return Err(error(py, errno)),
        }
    }
    Ok(())
}

/// The descriptor of a connection that is open this way.
fn descriptor(connection: &Bound<'_, Connection>, way: Way) -> PyResult<i32> {
    let py = connection.py();
    let Some(fd) = connection.getattr(intern!(py, "_handle"))?.extract::<Option<i32>>()? else {
        return Err(PyOSError::new_err("handle is closed"));
    };
    let (open, otherwise) = match way {
        Way::In => (intern!(py, "_readable"), "connection is write-only"),
        Way::Out => (intern!(py, "_writable"), "connection is read-only"),
    };
    if connection.getattr(open)?.is_truthy()? { Ok(fd) } else { Err(PyOSError::new_err(otherwise)) }
}

/// Whether pickle itself knows all about the object, so that no reducer that a program has registered is asked.
fn is_plain(object: &Bound<'_, PyAny>, seen: &mut usize) -> bool {
    *seen += 1;
    if *seen > PLAIN_MAX {
        return false;
    }
    if let Some(tuple) = codec::exactly::<PyTuple>(object) {
        return tuple.iter_borrowed().all(|item| is_plain(&item, seen));
    }
    if let Some(list) = codec::exactly::<PyList>(object) {
        return list.iter().all(|item| is_plain(&item, seen));
    }
    if let Some(dict) = codec::exactly::<PyDict>(object) {
        return dict.iter().all(|(key, value)| is_plain(&key, seen) && is_plain(&value, seen));
    }
    object.is_none()
        || object.is_exact_instance_of::<PyInt>()
        || object.is_exact_instance_of::<PyString>()
        || object.is_exact_instance_of::<PyBytes>()
        || object.is_exact_instance_of::<PyFloat>()
        || object.is_exact_instance_of::<PyBool>()
}

/// The kernel's error as Python's, of the class that Python has for it.
fn error(py: Python<'_>, errno: Errno) -> PyErr {
    let code = errno.raw_os_error();
    let text = py.import("os").and_then(|os| os.call_method1("strerror", (code,))?.extract::<String>());
    text.map_or_else(|error| error, |text| PyOSError::new_err((code, text)))
}

/// Puts the class into the module.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Connection>()
}
