//! The result of a call or a map.
//!
//! ```text
//!  PoolResult:  tasks ─▶ batch, item 3          (a call)
//!               tasks ─▶ batch, batch, …        (a map), collected one by one into `values`
//!               settled: what `get` returns or raises, for ever
//! ```
//!
//! A result with a callback, or one that is awaited, is *heralded*: it is ready once that has been called.

use core::sync::atomic::{AtomicU32, Ordering};
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, OnceLock};

use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyFloat, PyTuple};
use tenfold_engine::shm::board::{Batch, Board, Cancel, Outcome};
use tenfold_engine::shm::participant::is_me;
use tenfold_engine::sys::clock::Deadline;
use tenfold_engine::sys::futex;

use super::board::PoolBoard;
use super::pending::{Many, Results, Settled, State, Step, Tasks};
use super::submit::Place;
use super::{Waited, failure, lock, wait_at};
use crate::waiting::{self, deadline};
use crate::{codec, errors};

/// The outcome of a call or a map, now or later.
///
/// There may be a million of them, so they are small, and have no attributes of Python's unless they have callbacks.
#[pyclass(subclass, frozen, module = "tenfold._native")]
pub(crate) struct PoolResult {
    state: Mutex<State>,
    /// Who tells others of the result, if anybody wants that.
    herald: OnceLock<Py<PyAny>>,
    /// `HERALDED` while there is somebody to be told first, `TOLD` once that has been done, 0 if there is nobody.
    heralded: AtomicU32,
}

const HERALDED: u32 = 1;
const TOLD: u32 = 2;

impl Drop for PoolResult {
    fn drop(&mut self) {
        // The batch may live on for other calls.
        if let Tasks::One(batch, item) = &self.state().tasks {
            let _ = batch.discard(*item);
        }
    }
}

impl PoolResult {
    /// The state. In a child of fork the parent's tasks are forgotten: their results are not ours.
    fn state(&self) -> MutexGuard<'_, State> {
        let mut state = lock(&self.state);
        if state.owner.is_some_and(|owner| !is_me(owner)) {
            match &mut state.tasks {
                Tasks::Many(many) => many.batches.clear(),
                tasks => *tasks = Tasks::None,
            }
            (state.board, state.owner) = (None, None);
        }
        state
    }

    /// The result is that of some tasks of a pool.
    fn belong_to(&self, pool: &PoolBoard, tasks: Tasks) -> PyResult<()> {
        let (board, owner) = (pool.board()?.clone(), super::me()?);
        let mut state = self.state();
        (state.board, state.owner, state.tasks) = (Some(board), Some(owner), tasks);
        Ok(())
    }

    /// The result is that of one task.
    ///
    /// # Errors
    /// If the pool is not initialised.
    pub(super) fn await_one(&self, pool: &PoolBoard, place: Place) -> PyResult<()> {
        self.belong_to(pool, Tasks::One(place.batch, place.item))
    }

    /// The result is that of batches to come, of about so many items.
    ///
    /// # Errors
    /// If the pool is not initialised, or there is no memory for their results.
    pub(super) fn await_many(&self, py: Python<'_>, pool: &PoolBoard, length: usize) -> PyResult<()> {
        let results = Results::with_room(py, length)?;
        self.belong_to(pool, Tasks::Many(Box::new(Many { batches: VecDeque::new(), results, error: None })))
    }

    pub(super) fn add_batch(&self, batch: Batch) {
        if let Some(many) = self.state().many() {
            many.batches.push_back(batch);
        }
    }

    /// Waits until the first part is final, or all are; or until there is something else to do.
    fn wait_for_parts(
        &self,
        py: Python<'_>,
        deadline: Deadline,
        all: bool,
        otherwise: impl Fn() -> bool + Send + Sync,
    ) -> PyResult<Waited> {
        let wanted = |tasks: &Tasks| if all { tasks.len() } else { tasks.len().min(1) };
        let (board, bell) = {
            let state = self.state();
            let Some((board, batch)) = state.board.as_ref().zip(state.tasks.batches().next()) else {
                return Ok(Waited::Ready);
            };
            if (0..wanted(&state.tasks)).all(|part| state.tasks.is_final(part)) {
                return Ok(Waited::Ready);
            }
            (board.clone(), batch.bell())
        };
        let mut known = 0;
        let ready = || {
            let state = self.state();
            let wanted = wanted(&state.tasks);
            // What is final stays so.
            while known < wanted && state.tasks.is_final(known) {
                known += 1;
            }
            known >= wanted || otherwise()
        };
        wait_at(py, &board, bell, deadline, ready)
    }

    fn begin_step(&self) -> Step {
        self.state().begin_step()
    }

    /// Does what [`State::begin_step`] has said.
    fn do_step(&self, py: Python<'_>, step: Step) -> PyResult<()> {
        let result = match step {
            Step::Settled | Step::Busy | Step::Wait => return Ok(()),
            Step::Take(batch, item) => self.take(py, &batch, item),
            Step::Collect(batch) => self.collect(py, &batch),
            Step::Finish => self.finish(py),
        };
        self.state().busy = false;
        result
    }

    /// Unpickles a call's result, which is final, and settles.
    fn take(&self, py: Python<'_>, batch: &Batch, item: usize) -> PyResult<()> {
        let outcome = batch.take(item).map_err(errors::heap)?;
        let board = || self.state().board.clone().ok_or_else(|| PyRuntimeError::new_err("a task without a pool"));
        self.settle(match unpickled(py, board, 0, outcome)? {
            Ok(value) => Settled::Value(value),
            Err(exception) => Settled::Error(exception),
        });
        Ok(())
    }

    /// Unpickles the first batch of a map, which is finished.
    fn collect(&self, py: Python<'_>, batch: &Batch) -> PyResult<()> {
        let (board, mut results) = {
            let mut state = self.state();
            let (board, many) = (state.board.clone(), state.many());
            let Some((board, many)) = board.zip(many) else { return Ok(()) };
            (board, many.results.clone_ref(py))
        };
        let mut error = None;
        let mut next = 0;
        while next < batch.items() {
            for (word, len) in batch.short_results(next) {
                results.push(py, short_value(py, word, len)?)?;
                next += 1;
            }
            let item = next;
            next += 1;
            if item >= batch.items() {
                break;
            }
            let outcome = batch.take(item).map_err(errors::heap)?;
            match unpickled(py, || Ok(board.clone()), batch.base() + item as u64, outcome)? {
                Ok(value) => results.push(py, value)?,
                Err(exception) => error = error.or(Some(exception)),
            }
        }
        let mut state = self.state();
        let mut let_go = None;
        if let Some(many) = state.many() {
            let before = core::mem::replace(&mut many.results, results);
            // What is let go of here is so after the lock.
            let second = if many.error.is_some() { error } else { core::mem::replace(&mut many.error, error) };
            let_go = Some((before, second, many.batches.pop_front()));
        }
        drop(state);
        drop(let_go);
        Ok(())
    }

    /// Has what has not begun never begin.
    pub(super) fn cancel_rest(&self) {
        self.state().tasks.batches().for_each(Batch::cancel_rest);
    }

    /// Waits for the first batch of a map and unpickles it, if the pool lives; or until the caller would rather do
    /// something else, of which `false` tells.
    ///
    /// # Errors
    /// What a signal handler has raised; if the heap is corrupt.
    pub(super) fn collect_first(&self, py: Python<'_>, otherwise: impl Fn() -> bool + Send + Sync) -> PyResult<bool> {
        if self.wait_for_parts(py, deadline(None)?, false, &otherwise)? == Waited::Ready {
            match self.begin_step() {
                Step::Wait => return Ok(false),
                step => self.do_step(py, step)?,
            }
        }
        Ok(true)
    }

    /// Waits for all parts and settles. Returns whether it is settled.
    fn settle_until(&self, py: Python<'_>, deadline: Deadline) -> PyResult<bool> {
        loop {
            match self.begin_step() {
                Step::Settled => return Ok(true),
                Step::Busy => {
                    py.check_signals()?;
                    py.detach(|| std::thread::sleep(core::time::Duration::from_micros(200)));
                }
                Step::Wait => match self.wait_for_parts(py, deadline, false, || false)? {
                    Waited::TimedOut => return Ok(false),
                    Waited::Ended => {
                        let error = ended(py, self.state().board.as_ref())?;
                        self.settle(Settled::Error(error));
                    }
                    Waited::Ready => {}
                },
                step => self.do_step(py, step)?,
            }
        }
    }

    /// All is unpickled.
    fn finish(&self, py: Python<'_>) -> PyResult<()> {
        let mut state = self.state();
        if state.board.is_none() {
            return Err(PyRuntimeError::new_err("the result belongs to the process that made the call"));
        }
        let Some(many) = state.many() else { return Err(PyRuntimeError::new_err("a result without a task")) };
        let (results, error) = (many.results.clone_ref(py), many.error.take());
        drop(state);
        self.settle(match error {
            Some(error) => Settled::Error(error),
            None => Settled::Value(results.finish(py)?),
        });
        Ok(())
    }

    /// From now on `settled` stands. The first one does.
    fn settle(&self, settled: Settled) {
        let mut state = self.state();
        let unwanted = if state.settled.is_none() {
            state.settled = Some(settled);
            None
        } else {
            Some(settled)
        };
        let let_go = (core::mem::take(&mut state.tasks), state.board.take(), unwanted);
        drop(state);
        drop(let_go);
    }

    /// Whether the tasks are done, whoever is still to be told.
    fn is_final(&self) -> bool {
        let state = self.state();
        let over = || state.board.as_ref().is_some_and(super::has_ended);
        let all = || (0..state.tasks.len()).all(|part| state.tasks.is_final(part));
        state.settled.is_some() || (!state.busy && all()) || over()
    }

    fn outcome<'py>(&self, py: Python<'py>) -> PyResult<(bool, Bound<'py, PyAny>)> {
        match &self.state().settled {
            Some(Settled::Value(value)) => Ok((true, value.bind(py).clone())),
            Some(Settled::Error(error)) => Ok((false, error.bind(py).clone())),
            None => Err(PyRuntimeError::new_err("the result is not settled")),
        }
    }
}

/// The value that a short result is.
#[inline]
fn short_value(py: Python<'_>, word: u64, len: Option<usize>) -> PyResult<Py<PyAny>> {
    match len {
        None => Ok(PyFloat::new(py, f64::from_bits(word)).into_any().unbind()),
        Some(len) => codec::decode(py, &word.to_le_bytes()[..len.min(8)]),
    }
}

/// What has become of a task: a value, or an exception.
///
/// # Errors
/// If a signal handler raises while the value is unpickled, or the exception cannot be made.
pub(super) fn unpickled(
    py: Python<'_>,
    board: impl FnOnce() -> PyResult<Board>,
    index: u64,
    outcome: Option<Outcome>,
) -> PyResult<Result<Py<PyAny>, Py<PyAny>>> {
    let decoded = match outcome {
        Some(Outcome::Short(bytes, len)) => short_value(py, u64::from_le_bytes(bytes), Some(len)),
        Some(Outcome::Word(bits)) => short_value(py, bits, None),
        Some(Outcome::Long(bytes, _handles)) => codec::decode(py, &bytes),
        Some(Outcome::Large(payload)) => codec::decode_payload(py, payload),
        Some(other) => {
            let board = board()?;
            // Killed because the pool was.
            if matches!(other, Outcome::Died { .. } | Outcome::TimedOut) && super::has_ended(&board) {
                return ended(py, Some(&board)).map(Err);
            }
            match failure::exception(py, index, &other)? {
                Some(exception) => return Ok(Err(exception.unbind())),
                None => Err(PyRuntimeError::new_err("a task's outcome makes no sense")),
            }
        }
        None => Err(PyRuntimeError::new_err("a task has no outcome")),
    };
    Ok(decoded.map_err(|error| error.into_value(py).into_any()))
}

/// Why a task of a pool that has ended has no result.
///
/// # Errors
/// If the exception cannot be made.
pub(super) fn ended(py: Python<'_>, board: Option<&Board>) -> PyResult<Py<PyAny>> {
    let faults = py.import("tenfold._faults")?;
    let reason = board.and_then(|board| board.reason().ok().flatten());
    let exception = match reason {
        Some(reason) => faults.getattr("BrokenPool")?.call1((failure::reported(py, &reason)?,))?,
        None => faults.getattr("PoolTerminated")?.call0()?,
    };
    Ok(exception.unbind())
}

#[pymethods]
impl PoolResult {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> PoolResult {
        PoolResult { state: Mutex::default(), herald: OnceLock::new(), heralded: AtomicU32::new(0) }
    }

    /// An exception that was raised refers to frames, which may refer to the result.
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        if let Some(herald) = self.herald.get() {
            visit.call(herald)?;
        }
        let Ok(state) = self.state.try_lock() else { return Ok(()) };
        if let Some(Settled::Value(object) | Settled::Error(object)) = &state.settled {
            visit.call(object)?;
        }
        let Tasks::Many(many) = &state.tasks else { return Ok(()) };
        many.results.visit(&visit)?;
        many.error.as_ref().map_or(Ok(()), |error| visit.call(error))
    }

    fn __clear__(&self) {
        let mut state = self.state();
        let settled = state.settled.take();
        // A call's task is discarded at last.
        let tasks = state.many().is_some().then(|| core::mem::take(&mut state.tasks));
        drop(state);
        drop((settled, tasks));
    }

    /// Who tells others of the result.
    #[getter(_herald)]
    fn herald(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.herald.get().map(|herald| herald.clone_ref(py))
    }

    /// There is one for a result: the first.
    #[setter(_herald)]
    pub(super) fn set_herald(&self, herald: Py<PyAny>) {
        let _ = self.herald.set(herald);
    }

    /// Whether the call has completed.
    fn ready(&self) -> bool {
        match self.heralded.load(Ordering::Acquire) {
            HERALDED => false,
            TOLD => true,
            _ => self.is_final(),
        }
    }

    /// Whether the call has completed without an exception. Raises ValueError if it has not completed.
    fn successful(slf: &Bound<'_, Self>) -> PyResult<bool> {
        let py = slf.py();
        if !slf.get().ready() || !slf.get().settle_until(py, Deadline::after(core::time::Duration::ZERO))? {
            return Err(PyValueError::new_err(format!("{} not ready", slf.repr()?)));
        }
        Ok(slf.get().outcome(py)?.0)
    }

    /// Waits until the call has completed, for at most `timeout` seconds.
    #[pyo3(signature = (timeout=None))]
    fn wait(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<()> {
        self.await_ready(py, deadline(timeout)?).map(drop)
    }

    /// Returns the result when it arrives, or raises what the call has raised; `multiprocessing.TimeoutError` if it
    /// does not arrive within `timeout` seconds.
    #[pyo3(signature = (timeout=None))]
    fn get<'py>(&self, py: Python<'py>, timeout: Option<f64>) -> PyResult<Bound<'py, PyAny>> {
        let deadline = deadline(timeout)?;
        let heralded = self.heralded.load(Ordering::Acquire) != 0;
        if (heralded && !self.await_ready(py, deadline)?) || !self.settle_until(py, deadline)? {
            let class = py.import("multiprocessing.context")?.getattr("TimeoutError")?;
            return Err(PyErr::from_value(class.call0()?));
        }
        match self.outcome(py)? {
            (true, value) => Ok(value),
            (false, error) => Err(PyErr::from_value(error)),
        }
    }

    /// Cancels what has not completed: a call that runs is ended by killing its worker, one that waits never runs, of a
    /// map what waits never runs. Returns whether that changed anything.
    fn cancel(&self) -> PyResult<bool> {
        let (board, parts) = {
            let state = self.state();
            let Some(board) = state.board.clone() else { return Ok(false) };
            let item = if let Tasks::One(_, item) = &state.tasks { Some(*item) } else { None };
            let parts: Vec<_> = state.tasks.batches().map(|batch| (batch.clone(), item)).collect();
            (board, parts)
        };
        let mut changed = false;
        for (batch, item) in parts {
            match item {
                Some(item) => match batch.cancel(item).map_err(errors::heap)? {
                    Cancel::NeverBegun => changed = true,
                    Cancel::Running(worker) => {
                        tenfold_engine::pool::kill(board.handle().heap(), worker);
                        changed = true;
                    }
                    Cancel::TooLate => {}
                },
                None if !batch.is_finished() => {
                    batch.cancel_rest();
                    changed = true;
                }
                None => {}
            }
            board.ring(batch.bell());
        }
        board.ring(tenfold_engine::shm::board::WATCHER_BELL);
        Ok(changed)
    }

    /// The call fails with this exception, without having been submitted.
    fn _fail(&self, error: Py<PyAny>) {
        self.settle(Settled::Error(error));
    }

    /// Somebody is to be told before the result is ready, and `_tell` will be called after that.
    fn _be_heralded(&self) {
        let _ = self.heralded.compare_exchange(0, HERALDED, Ordering::AcqRel, Ordering::Acquire);
        let state = self.state();
        state.tasks.batches().for_each(Batch::watch);
    }

    /// All that were to be told have been.
    fn _tell(&self) {
        self.heralded.store(TOLD, Ordering::Release);
        futex::wake(&self.heralded, u32::MAX);
    }

    /// Whether the tasks are done, whoever is still to be told.
    #[pyo3(name = "_is_final")]
    fn py_is_final(&self) -> bool {
        self.is_final()
    }

    /// What the call has come to, once its tasks are done: whether it succeeded, and its value or exception.
    fn _outcome<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyBool>, Bound<'py, PyAny>)> {
        self.settle_until(py, deadline(None)?)?;
        let (success, value) = self.outcome(py)?;
        Ok((PyBool::new(py, success).to_owned(), value))
    }
}

impl PoolResult {
    /// Waits until the result is ready, its heralds called. Returns whether it is.
    fn await_ready(&self, py: Python<'_>, deadline: Deadline) -> PyResult<bool> {
        let heralded = &self.heralded;
        if heralded.load(Ordering::Acquire) == 0 {
            return Ok(self.wait_for_parts(py, deadline, true, || false)? != Waited::TimedOut);
        }
        let told = || heralded.load(Ordering::Acquire) != HERALDED;
        let wait = || {
            while !told() && !deadline.expired() {
                let slice = Deadline::after(core::time::Duration::from_millis(super::SLICE));
                futex::wait(heralded, HERALDED, slice.min(deadline));
            }
            told()
        };
        if told() { Ok(true) } else { waiting::blocking(py, wait, |_, _| ()) }
    }
}
