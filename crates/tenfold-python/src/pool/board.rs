//! A pool's board, as its owner and its workers have it.

use std::sync::{Mutex, OnceLock};

use pyo3::exceptions::PyValueError;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyDict, PyTuple, PyType};
use tenfold_engine::Heap;
use tenfold_engine::shm::board::{self, BoardState, WATCHER_BELL};
use tenfold_engine::sys::clock::Deadline;

use super::failure;
use super::result::PoolResult;
use super::stream::PoolStream;
use super::submit::{Calls, Map, Settings};
use super::{Waited, lock, wait_at, worker};
use crate::shell::Shell;
use crate::{calls, carrier, errors, family};

/// Where a pool's tasks wait for its workers.
#[pyclass(subclass, frozen, module = "tenfold._native")]
pub(crate) struct PoolBoard {
    shared: Shell<board::Board>,
    calls: Mutex<Calls>,
    /// Who tells of results, for those that want it.
    herald: OnceLock<Py<PyAny>>,
}

impl PoolBoard {
    pub(super) fn board(&self) -> PyResult<&board::Board> {
        self.shared.get()
    }

    pub(super) fn heap(&self) -> PyResult<Heap> {
        Ok(self.board()?.handle().heap())
    }

    pub(super) fn calls(&self) -> &Mutex<Calls> {
        &self.calls
    }
}

/// Submits all items of an iterable.
fn submit_all(mut map: Map<'_>, result: &PoolResult, iterable: &Bound<'_, PyAny>, waits: bool) -> PyResult<()> {
    for item in iterable.try_iter()? {
        let Some(batch) = map.push(&item?)? else { continue };
        result.add_batch(batch);
        let ahead = map.ahead();
        while waits && ahead.is_far() && result.collect_first(iterable.py(), || ahead.is_short())? {
            ahead.pop();
        }
    }
    if let Some(batch) = map.submit_rest()? {
        result.add_batch(batch);
    }
    Ok(())
}

#[pymethods]
impl PoolBoard {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> PoolBoard {
        PoolBoard { shared: Shell::empty(), calls: Mutex::default(), herald: OnceLock::new() }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        if let Some(herald) = self.herald.get() {
            visit.call(herald)?;
        }
        self.calls.try_lock().map_or(Ok(()), |calls| calls.visit(&visit))
    }

    fn __clear__(&self) {
        let last = lock(&self.calls).forget();
        drop(last);
    }

    /// Results that are made here are told of by `herald`.
    fn _employ(&self, herald: Py<PyAny>) {
        let _ = self.herald.set(herald);
    }

    /// Makes the board, for so many workers.
    fn _create(&self, workers: u32) -> PyResult<()> {
        if workers > board::WORKERS as u32 {
            let text = format!("a pool can have {} processes at most, not {workers}", board::WORKERS);
            return Err(PyValueError::new_err(text));
        }
        self.shared.fill(board::Board::create(family::heap()?, workers).map_err(errors::heap)?);
        Ok(())
    }

    fn __getstate__(&self) -> PyResult<u64> {
        carrier::mention(self.board()?.handle(), "Pool")
    }

    fn __setstate__(&self, id: u64) -> PyResult<()> {
        self.shared.find(id, board::Board::from_handle)
    }

    /// Runs tasks until the pool ends or `max_tasks` are done (0: any number). To be called with SIGINT blocked;
    /// afterwards it is ignored, for the process is at its end.
    fn work(&self, py: Python<'_>, max_tasks: u32, hears_ctrl_c: bool) -> PyResult<()> {
        worker::work(py, self.board()?, max_tasks, hears_ctrl_c)
    }

    /// Has `function(*args, **keywords)` called. Returns the result to come, a new instance of `class_` (of results) on
    /// which no `__init__` is called. With a time limit in seconds, the worker that takes longer is killed; a task whose
    /// worker dies is tried again `retries` times.
    #[allow(clippy::too_many_arguments, reason = "as for map")]
    fn call<'py>(
        &self,
        class_: &Bound<'py, PyType>,
        function: &Bound<'py, PyAny>,
        args: &Bound<'py, PyTuple>,
        keywords: Option<&Bound<'py, PyDict>>,
        limit: Option<f64>,
        retries: u8,
    ) -> PyResult<Bound<'py, PoolResult>> {
        let result = calls::instance(class_)?.cast_into::<PoolResult>()?;
        if let Some(herald) = self.herald.get() {
            result.get().set_herald(herald.clone_ref(class_.py()));
        }
        let place = Calls::submit(self, function, args, keywords, Settings::new(limit, retries, 1)?)?;
        result.get().await_one(self, place)?;
        Ok(result)
    }

    /// Has `function` called for each item of an iterable, with the item as its arguments if `star`, and the list of
    /// outcomes put into `result`. `chunksize` items count as one task and, if that is `exact`, are taken by a worker at
    /// a time. A caller that `waits` for the result may be kept waiting here.
    #[allow(clippy::too_many_arguments, reason = "all are needed, and a call by place is quicker")]
    fn map(
        &self,
        result: &Bound<'_, PoolResult>,
        function: &Bound<'_, PyAny>,
        iterable: &Bound<'_, PyAny>,
        star: bool,
        length: usize,
        chunksize: u32,
        exact: bool,
        waits: bool,
        limit: Option<f64>,
        retries: u8,
    ) -> PyResult<()> {
        let settings = Settings::new(limit, retries, chunksize)?;
        let map = Map::new(self, function, star, length, exact, settings)?;
        let result_ref = result.get();
        result_ref.await_many(function.py(), self, length)?;
        submit_all(map, result_ref, iterable, waits).inspect_err(|_| result_ref.cancel_rest())
    }

    /// Prepares a stream: `function` is to be called for each item that is fed to it, and results are read in order or as
    /// they come.
    #[allow(clippy::too_many_arguments, reason = "as for map")]
    fn stream(
        &self,
        stream: &Bound<'_, PoolStream>,
        function: &Bound<'_, PyAny>,
        chunksize: u32,
        limit: Option<f64>,
        retries: u8,
        buffersize: Option<usize>,
        ordered: bool,
    ) -> PyResult<()> {
        stream.get().open(self, function, Settings::new(limit, retries, chunksize)?, buffersize, ordered)
    }

    /// Takes nothing new; what was submitted is finished.
    fn close(&self) -> PyResult<()> {
        self.board()?.close();
        lock(&self.calls).end();
        Ok(())
    }

    /// Ends the pool for all who wait for it.
    fn terminate(&self) -> PyResult<()> {
        self.board()?.terminate();
        lock(&self.calls).end();
        Ok(())
    }

    /// The workers cannot start, because of `error`: all calls fail with it. Returns whether this is the first such word.
    fn declare_broken(&self, py: Python<'_>, error: Bound<'_, PyAny>) -> PyResult<bool> {
        let report = failure::report_bytes(py, &PyErr::from_value(error))?;
        self.board()?.declare_broken(&report).map_err(errors::heap)
    }

    /// Why the workers cannot start, as an exception, or None.
    fn reason<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let reason = self.board()?.reason().map_err(errors::heap)?;
        reason.map(|bytes| failure::reported(py, &bytes)).transpose()
    }

    /// Whether the pool takes tasks; "open", "closed", "terminated" or "broken".
    #[getter]
    fn state(&self) -> PyResult<&'static str> {
        Ok(match self.board()?.state() {
            BoardState::Open => "open",
            BoardState::Closed => "closed",
            BoardState::Terminated => "terminated",
            BoardState::Broken => "broken",
        })
    }

    /// Whether tasks wait for a worker.
    fn has_work(&self) -> PyResult<bool> {
        Ok(self.board()?.has_work())
    }

    /// How many workers have become ready for work, ever.
    fn ready_workers(&self) -> PyResult<u32> {
        let handle = self.board()?.handle();
        Ok(board::Board::glance(handle.heap(), handle.id()).map_or(0, |glance| glance.ready))
    }

    /// How many workers that are ready are there now, the dead of whom nobody has learnt included.
    fn present_workers(&self) -> PyResult<usize> {
        Ok(self.board()?.workers().len())
    }

    /// The watcher begins (or ends): its bell is rung for what is watched.
    fn attend(&self, watching: bool) -> PyResult<()> {
        self.board()?.attend(WATCHER_BELL, watching);
        Ok(())
    }

    /// How often the watcher's bell has rung, for `watch`.
    fn rings(&self) -> PyResult<u32> {
        Ok(self.board()?.rings(WATCHER_BELL))
    }

    /// Rings the watcher's bell.
    fn ring(&self) -> PyResult<()> {
        self.board()?.ring(WATCHER_BELL);
        Ok(())
    }

    /// Sleeps until the watcher's bell rings after `seen`, or the pool ends. Returns whether it rang.
    fn watch(&self, py: Python<'_>, seen: u32) -> PyResult<bool> {
        let board = self.board()?;
        let far = Deadline::after(core::time::Duration::from_secs(1 << 32));
        let waited = wait_at(py, board, WATCHER_BELL, far, || board.rings(WATCHER_BELL) != seen)?;
        Ok(waited == Waited::Ready)
    }
}
