//! The Python door: native classes on the engine.
//!
//! ```text
//!  python/tenfold     names, signatures, docstrings, what is borrowed from the standard library
//!       │
//!  family  record     who belongs to the program: joining, leaving, the warden; how a process ended
//!  sync  queues  containers  data  pool        the native classes, each a thin shell around the engine's
//!       │
//!  connection         messages through pipes and sockets, as the standard library has them
//!  codec              objects ⇄ bytes: a native path for plain values, pickle for the rest
//!  carrier            which handles a pickle mentions
//!  waiting            every blocking call: lets go of the GIL, hears of signals
//!  arguments  shell   what native classes have in common
//!  numbers            numbers of C, from objects and to them
//!  quick              the hottest methods as bare C functions
//!  errors             the engine's errors as Python's
//!  kill_points        deaths at named places, for tests
//! ```
//!
//! It is built with panics that abort (`profile.python` of the workspace): a daemon thread that waits here when the
//! interpreter ends is unwound by force, which frames that catch panics would take for a crash.
//!
//! All methods that may block let go of the GIL first and go through [`waiting`]. Nothing here keeps state of its own
//! beside what Python objects hold, so a fork needs no care.

mod arguments;
mod buffers;
mod calls;
mod carrier;
mod codec;
mod connection;
mod containers;
mod errors;
mod family;
#[cfg(feature = "kill-points")]
mod kill_points;
mod memory;
mod numbers;
mod pool;
mod queues;
mod quick;
mod record;
mod shell;
mod sync;
mod synchronized;
mod waiting;

use pyo3::prelude::*;

/// The native half of the package `tenfold`.
#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    errors::register(module)?;
    family::register(module)?;
    buffers::register(module)?;
    codec::register(module)?;
    carrier::register(module)?;
    connection::register(module)?;
    #[cfg(feature = "kill-points")]
    kill_points::register(module)?;
    memory::register(module)?;
    pool::register(module)?;
    queues::register(module)?;
    containers::register(module)?;
    record::register(module)?;
    sync::register(module)?;
    synchronized::register(module)
}
