//! Every blocking call: without the GIL, with an ear for signals.
//!
//! Python only notes a signal when it arrives; its handler runs on the main thread once that looks. So the main
//! thread's sleeps call [`look_for_signals`] when something has ended them. A handler that raises ends the wait.

use std::cell::RefCell;
use std::time::Duration;

use pyo3::exceptions::{PyOverflowError, PyValueError};
use pyo3::prelude::*;
use tenfold_engine::sys::clock::Deadline;
use tenfold_engine::sys::{interrupt, process};

thread_local! {
    /// What a signal handler has raised during the wait of this thread.
    static RAISED: RefCell<Option<PyErr>> = const { RefCell::new(None) };
}

/// Runs the handlers that are due; whether one has raised.
fn look_for_signals() -> bool {
    Python::attach(|py| match py.check_signals() {
        Ok(()) => false,
        Err(error) => {
            RAISED.set(Some(error));
            true
        }
    })
}

/// Runs `f`, which may block, without the GIL. All deadlines in `f` must be finite ([`deadline`]) to be interruptible.
///
/// # Errors
/// What a signal handler has raised. `f` may have succeeded nevertheless, with `undo` of its result done then.
pub(crate) fn blocking<R: Send>(
    py: Python<'_>,
    f: impl FnOnce() -> R + Send,
    undo: impl FnOnce(Python<'_>, R),
) -> PyResult<R> {
    match listening(py, f) {
        (result, None) => Ok(result),
        (result, Some(error)) => {
            undo(py, result);
            Err(error)
        }
    }
}

/// The same for a caller that goes on with the result also if a signal handler has raised; returns what was raised, too.
pub(crate) fn listening<R: Send>(py: Python<'_>, f: impl FnOnce() -> R + Send) -> (R, Option<PyErr>) {
    // Handlers run on the main thread only.
    if process::thread_id() != process::pid() {
        return (py.detach(f), None);
    }
    let result = py.detach(|| interrupt::listen(look_for_signals, f));
    (result, RAISED.take())
}

/// The longest that is waited without looking at the clock again: for ever, in effect, but interruptible.
const FOR_EVER: Duration = Duration::from_secs(1 << 32);

/// When a wait of `timeout` seconds ends: never for `None`, at once for a negative number.
///
/// # Errors
/// If the number makes no sense as a time.
pub(crate) fn deadline(timeout: Option<f64>) -> PyResult<Deadline> {
    match timeout {
        None => Ok(Deadline::after(FOR_EVER)),
        Some(seconds) if seconds.is_nan() => {
            Err(PyValueError::new_err("a timeout must be a number of seconds, not NaN"))
        }
        Some(seconds) if seconds <= 0.0 => Ok(Deadline::after(Duration::ZERO)),
        Some(seconds) if seconds > FOR_EVER.as_secs_f64() => {
            Err(PyOverflowError::new_err("timeout is too large; use None to wait for ever"))
        }
        Some(seconds) => Ok(Deadline::after(Duration::from_secs_f64(seconds))),
    }
}
