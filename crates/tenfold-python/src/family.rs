//! Who belongs to the program: processes join and leave the family, the warden watches over it.

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use tenfold_engine::guest::{self, GuestError, Invitation, Standing};
use tenfold_engine::sys::process::{ExitStatus, exit_now};
use tenfold_engine::{Heap, HeapError};

use crate::errors;
use crate::record::Record;

/// The exit code of a process whose program was killed while it was on its way.
const FAMILY_ENDED: i32 = 70;

impl From<GuestErrorForPython> for PyErr {
    fn from(GuestErrorForPython(error): GuestErrorForPython) -> PyErr {
        match error {
            GuestError::Heap(error) => errors::heap(error),
            error => PyRuntimeError::new_err(error.to_string()),
        }
    }
}

struct GuestErrorForPython(GuestError);

/// The heap of this process's family; the first call makes it.
///
/// # Errors
/// If the memory file cannot be made or mapped.
pub(crate) fn heap() -> PyResult<Heap> {
    Heap::get().map_err(errors::heap)
}

/// An invitation to the family, and the descriptor that the invited process is to inherit.
#[pyfunction]
fn invite() -> PyResult<(String, i32)> {
    let invitation = guest::invite(heap()?).map_err(errors::heap)?;
    Ok((invitation.to_string(), invitation.fd()))
}

/// Joins the family that the invitation is to. The process ends with the family's root from now on, a daemon also with
/// the process that made it. Where the root is gone already, so is this process.
#[pyfunction]
#[pyo3(signature = (invitation, *, daemon=false, outlive=false))]
fn join(invitation: &str, daemon: bool, outlive: bool) -> PyResult<()> {
    let invitation: Invitation = invitation.parse().map_err(GuestErrorForPython)?;
    match invitation.accept(Standing { daemon, outlive }) {
        Err(GuestError::Heap(HeapError::FamilyEnded)) => exit_now(FAMILY_ENDED),
        accepted => accepted.map(drop).map_err(|error| GuestErrorForPython(error).into()),
    }
}

/// In a child of fork, before anything else: the process ends with the family's root from now on, a daemon also with the
/// process that made it. It puts itself on that record. Where the root is gone already, so is this process.
///
/// One call, since each Python function costs such a child some pages.
#[pyfunction]
#[pyo3(signature = (daemon, record=None))]
fn settle(daemon: bool, record: Option<&Record>) -> PyResult<()> {
    if let Some(heap) = Heap::existing() {
        match guest::settle(heap, Standing { daemon, outlive: false }, None) {
            Err(HeapError::FamilyEnded) => exit_now(FAMILY_ENDED),
            settled => settled.map_err(errors::heap)?,
        }
    }
    record.map_or(Ok(()), Record::take_up)
}

/// Says with which code this process is about to exit, for those who cannot reap it.
#[pyfunction]
fn leave(code: i32) {
    if let Some(heap) = Heap::existing() {
        guest::leave(heap, code);
    }
}

/// This thread has just forked the child `pid`. Returns whether the warden, if there is to be one, knows.
#[pyfunction]
fn forked(pid: u32) -> bool {
    Heap::existing().is_none_or(|heap| guest::forked(heap, pid))
}

/// The kernel has refused this thread a fork.
#[pyfunction]
fn not_forked() {
    if let Some(heap) = Heap::existing() {
        guest::not_forked(heap);
    }
}

/// A child was reaped; `status` is what `os.waitpid` gave.
#[pyfunction]
fn reaped(py: Python<'_>, pid: u32, status: i32) {
    if let (Some(heap), Some(status)) = (Heap::existing(), ExitStatus::from_wait(status)) {
        py.detach(|| guest::reaped(heap, pid, status));
    }
}

/// Makes sure that the family has a warden; `start(invitation, fd)` execs a process that calls `run_warden` and returns
/// its pid.
#[pyfunction]
fn ensure_warden(start: &Bound<'_, PyAny>) -> PyResult<()> {
    struct Failed(PyErr);
    impl From<HeapError> for Failed {
        fn from(error: HeapError) -> Failed {
            Failed(errors::heap(error))
        }
    }
    let start = |invitation: &str, fd: i32| -> Result<u32, Failed> {
        start.call1((invitation, fd)).and_then(|pid| pid.extract()).map_err(Failed)
    };
    guest::ensure_warden(heap()?, start).map_err(|Failed(error)| error)
}

/// The variable that makes a process which has this module preloaded the warden: its name and its value.
#[pyfunction]
fn warden_variable(invitation: &str) -> (&'static str, String) {
    guest::warden_variable(invitation)
}

/// Becomes the warden; returns only if that fails.
#[pyfunction]
fn run_warden(py: Python<'_>, invitation: &str) -> PyResult<()> {
    let error = py.detach(|| guest::run_warden(invitation));
    Err(GuestErrorForPython(error).into())
}

/// The pid of the warden, or None.
#[pyfunction]
fn warden_pid() -> Option<u32> {
    guest::warden_pid(Heap::existing()?)
}

/// Figures of the shared heap: `bytes_live`, `bytes_committed`, `limit`, `blocks`. Empty if there is no heap yet.
#[pyfunction]
fn heap_stats(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let figures = PyDict::new(py);
    if let Some(heap) = Heap::existing() {
        let stats = heap.stats();
        figures.set_item("bytes_live", stats.live_bytes)?;
        figures.set_item("bytes_committed", stats.committed_bytes)?;
        figures.set_item("limit", stats.limit_bytes)?;
        figures.set_item("blocks", stats.live_blocks)?;
    }
    Ok(figures)
}

/// Blocks in use, by the number of the process that took them and by what they are for. Walks all descriptors: for
/// tests, and for whoever looks for a leak.
#[pyfunction]
fn heap_census(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let census = PyDict::new(py);
    for ((process, kind), count) in Heap::existing().map(Heap::census).unwrap_or_default() {
        census.set_item((process, kind), count)?;
    }
    Ok(census)
}

/// Sets the most bytes that the shared heap may take from the system, for all processes of the program.
#[pyfunction]
fn set_heap_limit(bytes: u64) -> PyResult<()> {
    heap()?.set_limit(bytes);
    Ok(())
}

/// Puts the functions into the module.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(invite, module)?)?;
    module.add_function(wrap_pyfunction!(join, module)?)?;
    module.add_function(wrap_pyfunction!(settle, module)?)?;
    module.add_function(wrap_pyfunction!(leave, module)?)?;
    module.add_function(wrap_pyfunction!(forked, module)?)?;
    module.add_function(wrap_pyfunction!(not_forked, module)?)?;
    module.add_function(wrap_pyfunction!(reaped, module)?)?;
    module.add_function(wrap_pyfunction!(ensure_warden, module)?)?;
    module.add_function(wrap_pyfunction!(warden_variable, module)?)?;
    module.add_function(wrap_pyfunction!(run_warden, module)?)?;
    module.add_function(wrap_pyfunction!(warden_pid, module)?)?;
    module.add_function(wrap_pyfunction!(heap_stats, module)?)?;
    module.add_function(wrap_pyfunction!(heap_census, module)?)?;
    module.add_function(wrap_pyfunction!(set_heap_limit, module)?)
}
