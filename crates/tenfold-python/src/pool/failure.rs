//! Why a task has no result: as bytes on the way from the worker, and as the exception that the caller gets.
//!
//! ```text
//!  ┌ kind u8 ┬ length u32 ┬ the traceback as text … ┬ payload … ┐
//!    1  raised: the exception        2  unsent: a pair, why something could not be pickled, and that thing's text
//! ```

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString, PyTuple};
use tenfold_engine::shm::board::{Chunk, Outcome};
use tenfold_engine::shm::message::Outgoing;
use tenfold_engine::sys::process::ExitStatus;

use crate::codec::{self, Encoded};
use crate::errors;

const RAISED: u8 = 1;
const UNSENT: u8 = 2;

/// A task's failure, ready to be committed.
pub(super) struct Failure {
    head: Vec<u8>,
    payload: Encoded,
}

impl Failure {
    /// The task has raised an exception.
    ///
    /// # Errors
    /// If not even the exception's text can be had.
    pub(super) fn raised(py: Python<'_>, error: &PyErr) -> PyResult<Failure> {
        let exception = error.value(py);
        let text = traceback_text(py, error);
        match codec::encode(exception.as_any()) {
            Ok(payload) => Ok(Failure { head: head(RAISED, &text), payload }),
            Err(reason) => Failure::of_pair(py, &text, &reason, exception.as_any()),
        }
    }

    /// Something that was to be sent cannot be pickled.
    ///
    /// # Errors
    /// As [`Failure::raised`].
    pub(super) fn unsent(py: Python<'_>, reason: &PyErr, object: &Bound<'_, PyAny>) -> PyResult<Failure> {
        Failure::of_pair(py, &traceback_text(py, reason), reason, object)
    }

    fn of_pair(py: Python<'_>, text: &[u8], reason: &PyErr, object: &Bound<'_, PyAny>) -> PyResult<Failure> {
        let pair = PyTuple::new(py, [repr(reason.value(py).as_any()), repr(object)])?;
        Ok(Failure { head: head(UNSENT, text), payload: codec::encode(pair.as_any())? })
    }

    /// Commits that the running item of the chunk has failed thus.
    ///
    /// # Errors
    /// If the heap has no room for the report.
    pub(super) fn commit(&self, py: Python<'_>, chunk: &mut Chunk) -> PyResult<()> {
        let commit = |payload: Outgoing<'_>| {
            let parts: Vec<&[u8]> = [&self.head[..]].into_iter().chain(payload.parts.iter().copied()).collect();
            chunk.commit_failure(Outgoing { parts: &parts, handles: payload.handles })
        };
        self.payload.with(py, commit)?.map_err(errors::heap)
    }
}

fn head(kind: u8, text: &[u8]) -> Vec<u8> {
    let mut head = Vec::with_capacity(5 + text.len());
    head.push(kind);
    head.extend_from_slice(&(text.len() as u32).to_le_bytes());
    head.extend_from_slice(text);
    head
}

/// An object's repr, or what there is instead.
fn repr<'py>(object: &Bound<'py, PyAny>) -> Bound<'py, PyAny> {
    let plain = |text: Bound<'py, PyString>| {
        if text.to_str().is_ok() { Some(text.into_any()) } else { None }
    };
    object.repr().ok().and_then(plain).unwrap_or_else(|| {
        let name = object.get_type().name().map(|name| name.to_string()).unwrap_or_default();
        PyString::new(object.py(), &format!("<{name} without a repr>")).into_any()
    })
}

/// An exception with its traceback, as text.
fn traceback_text(py: Python<'_>, error: &PyErr) -> Vec<u8> {
    let exception = error.value(py);
    let format = || -> PyResult<Vec<u8>> {
        let traceback = error.traceback(py);
        let format = py.import("traceback")?.getattr("format_exception")?;
        let lines = format.call1((exception.get_type(), exception, traceback))?;
        let text = PyString::new(py, "").call_method1("join", (lines,))?;
        let bytes = text.call_method1("encode", ("utf-8", "backslashreplace"))?;
        Ok(bytes.cast::<PyBytes>()?.as_bytes().to_vec())
    };
    format().unwrap_or_else(|_| repr(exception.as_any()).to_string().into_bytes())
}

/// The exception that tells what has become of a task, whose number in its job is `index`; `None` if it has a result.
///
/// # Errors
/// If the exception cannot be made.
pub(super) fn exception<'py>(py: Python<'py>, index: u64, outcome: &Outcome) -> PyResult<Option<Bound<'py, PyAny>>> {
    let faults = || py.import("tenfold._faults");
    Ok(Some(match outcome {
        Outcome::Short(..) | Outcome::Word(_) | Outcome::Long(..) | Outcome::Large(_) => return Ok(None),
        Outcome::Failed(bytes, _) => reported(py, bytes)?,
        Outcome::Died { status, pid } => {
            let code = status.map(|status| match status {
                ExitStatus::Exited(code) => code,
                ExitStatus::Signaled { signal, .. } => -signal,
            });
            faults()?.getattr("WorkerDied")?.call1((index, *pid, code))?
        }
        Outcome::TimedOut => faults()?.getattr("TaskTimeout")?.call1((index,))?,
        Outcome::Cancelled => faults()?.getattr("TaskCancelled")?.call1((index,))?,
    }))
}

/// The exception that a worker has reported.
///
/// # Errors
/// If it cannot be made.
pub(super) fn reported<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    let parse = || {
        let (&kind, rest) = bytes.split_first()?;
        let (len, rest) = rest.split_first_chunk::<4>()?;
        let (text, payload) = rest.split_at_checked(u32::from_le_bytes(*len) as usize)?;
        Some((kind, String::from_utf8_lossy(text), payload))
    };
    let Some((kind, text, payload)) = parse() else {
        return Ok(PyRuntimeError::new_err("a task failed, and its report cannot be read")
            .into_value(py)
            .into_bound(py)
            .into_any());
    };
    let faults = py.import("tenfold._faults")?;
    let object = codec::decode(py, payload);
    match (kind, object) {
        (RAISED, Ok(exception)) => faults.getattr("with_remote_traceback")?.call1((exception, text)),
        (UNSENT, Ok(pair)) => faults.getattr("unsent")?.call1((pair, text)),
        (_, Err(reason)) => faults.getattr("unreadable")?.call1((reason.value(py), text)),
        (_, Ok(_)) => Ok(PyRuntimeError::new_err(text.into_owned()).into_value(py).into_bound(py).into_any()),
    }
}

/// The bytes of a report that an initializer has failed with `error`.
///
/// # Errors
/// If the report cannot be made.
pub(super) fn report_bytes(py: Python<'_>, error: &PyErr) -> PyResult<Vec<u8>> {
    let failure = Failure::raised(py, error)?;
    failure.payload.with(py, |payload| [&failure.head[..], &payload.parts.concat()].concat())
}
