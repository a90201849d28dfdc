//! The result of a call or a map.
//!
//! ```text
//!  PoolResult:  parts ─▶ batch, item 3          (a call)
//!               parts ─▶ batch, batch, …        (a map), collected one by one into `values`
//!               settled: what `get` returns or raises, for ever
//! ```
//!
//! A result with a callback, or one that is awaited, is *heralded*: it is ready once that has been called.

use core::sync::atomic::{AtomicU32, Ordering};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyFloat, PyList, PyTuple};
use tenfold_engine::shm::board::{Batch, Board, Cancel, Outcome};
use tenfold_engine::shm::participant::{Identity, is_me};
use tenfold_engine::sys::clock::Deadline;
use tenfold_engine::sys::futex;

use super::board::PoolBoard;
use super::submit::Place;
use super::{Waited, failure, lock, wait_at};
use crate::waiting::{self, deadline};
use crate::{codec, errors};

/// Some of a result's tasks.
struct Part {
    batch: Batch,
    /// The one task, or all of the batch.
    item: Option<usize>,
}

impl Part {
    fn is_final(&self) -> bool {
        match self.item {
            Some(item) => self.batch.is_final(item),
            None => self.batch.is_finished(),
        }
    }
}

/// What a result has come to.
enum Settled {
    Value(Py<PyAny>),
    Error(Py<PyAny>),
}

#[derive(Default)]
struct State {
    board: Option<Board>,
    /// The process that made the call.
    owner: Option<Identity>,
    parts: VecDeque<Part>,
    /// Results of a map, so far, and its first error.
    values: Vec<Py<PyAny>>,
    error: Option<Py<PyAny>>,
    many: bool,
    settled: Option<Settled>,
    /// Somebody is unpickling.
    busy: bool,
}

/// What outlives the object's own lock: state, and whether heralds have been called.
#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// 1 while there is somebody to be told first, 2 once that has been done, 0 if there is nobody.
    herald: AtomicU32,
}

impl Drop for Shared {
    fn drop(&mut self) {
        // The batch may live on for other calls.
        for part in &self.state().parts {
            if let Some(item) = part.item {
                let _ = part.batch.discard(item);
            }
        }
    }
}

/// The outcome of a call or a map, now or later.
#[pyclass(subclass, frozen, module = "tenfold._native")]
pub(crate) struct PoolResult {
    shared: Arc<Shared>,
}

const HERALDED: u32 = 1;
const TOLD: u32 = 2;

impl Shared {
    /// The state. In a child of fork the parent's tasks are forgotten: their results are not ours.
    fn state(&self) -> MutexGuard<'_, State> {
        let mut state = lock(&self.state);
        if state.owner.is_some_and(|owner| !is_me(owner)) {
            state.parts.clear();
            (state.board, state.owner) = (None, None);
        }
        state
    }
}

impl PoolResult {
    /// The result is that of one task.
    ///
    /// # Errors
    /// If the pool is not initialised.
    pub(super) fn await_one(&self, pool: &PoolBoard, place: Place) -> PyResult<()> {
        let board = pool.board()?.clone();
        let mut state = self.shared.state();
        state.board = Some(board);
        state.parts.push_back(Part { batch: place.batch, item: Some(place.item) });
        state.owner = Some(super::me()?);
        Ok(())
    }

    /// The result is that of batches to come.
    ///
    /// # Errors
    /// If the pool is not initialised.
    pub(super) fn await_many(&self, pool: &PoolBoard) -> PyResult<()> {
        let mut state = self.shared.state();
        state.board = Some(pool.board()?.clone());
        state.many = true;
        state.owner = Some(super::me()?);
        Ok(())
    }

    pub(super) fn add_batch(&self, batch: Batch) {
        self.shared.state().parts.push_back(Part { batch, item: None });
    }

    fn is_settled(&self) -> bool {
        self.shared.state().settled.is_some()
    }

    /// Waits until the first part is final, or all are.
    fn wait_for_parts(&self, py: Python<'_>, deadline: Deadline, all: bool) -> PyResult<Waited> {
        let (board, bell) = {
            let state = self.shared.state();
            let Some((board, part)) = state.board.as_ref().zip(state.parts.front()) else { return Ok(Waited::Ready) };
            let count = if all { state.parts.len() } else { 1 };
            if state.parts.iter().take(count).all(Part::is_final) {
                return Ok(Waited::Ready);
            }
            (board.clone(), part.batch.bell())
        };
        let mut known = 0;
        let ready = || {
            let state = self.shared.state();
            let count = if all { state.parts.len() } else { state.parts.len().min(1) };
            // What is final stays so.
            while known < count && state.parts[known].is_final() {
                known += 1;
            }
            known >= count
        };
        wait_at(py, &board, bell, deadline, ready)
    }

    /// Unpickles the first part, which is final. Nobody else is at it.
    fn collect_part(&self, py: Python<'_>) -> PyResult<()> {
        let (board, part, first, one) = {
            let state = self.shared.state();
            let Some((part, board)) = state.parts.front().zip(state.board.as_ref()) else { return Ok(()) };
            (board.clone(), part.batch.clone(), part.item, !state.many)
        };
        let items = first.map_or(0..part.items(), |item| item..item + 1);
        let (mut values, mut error) = (Vec::with_capacity(items.len()), None);
        let mut next = items.start;
        while next < items.end {
            for (word, len) in part.short_results(next).map_err(errors::heap)?.take(items.end - next) {
                values.push(short_value(py, word, len)?);
                next += 1;
            }
            let item = next;
            next += 1;
            if item >= items.end {
                break;
            }
            let index = if one { 0 } else { part.base() + item as u64 };
            let outcome = part.take(item).map_err(errors::heap)?;
            match unpickled(py, || Ok(board.clone()), index, outcome)? {
                Ok(value) => values.push(value),
                Err(exception) => error = error.or(Some(exception)),
            }
        }
        let mut state = self.shared.state();
        state.values.append(&mut values);
        // What is let go of here is so after the lock.
        let second = if state.error.is_some() { error } else { core::mem::replace(&mut state.error, error) };
        let done = state.parts.pop_front();
        drop(state);
        drop((second, done));
        Ok(())
    }

    /// Runs `f` as the only one who collects.
    fn alone<R>(&self, py: Python<'_>, f: impl FnOnce() -> PyResult<R>) -> PyResult<R> {
        while core::mem::replace(&mut self.shared.state().busy, true) {
            // Another thread is unpickling the same result.
            py.check_signals()?;
            py.detach(|| std::thread::sleep(core::time::Duration::from_micros(200)));
        }
        let result = f();
        self.shared.state().busy = false;
        result
    }

    /// Has what has not begun never begin.
    pub(super) fn cancel_rest(&self) {
        for part in &self.shared.state().parts {
            part.batch.cancel_rest();
        }
    }

    /// Waits for the first part of a map and unpickles it, if the pool lives.
    ///
    /// # Errors
    /// What a signal handler has raised; if the heap is corrupt.
    pub(super) fn collect_first(&self, py: Python<'_>) -> PyResult<()> {
        if self.wait_for_parts(py, deadline(None)?, false)? == Waited::Ready {
            self.alone(py, || self.collect_part(py))?;
        }
        Ok(())
    }

    /// Waits for all parts and settles. Returns whether it is settled.
    fn settle_until(&self, py: Python<'_>, deadline: Deadline) -> PyResult<bool> {
        loop {
            if self.is_settled() {
                return Ok(true);
            }
            match self.wait_for_parts(py, deadline, false)? {
                Waited::TimedOut => return Ok(false),
                Waited::Ended => {
                    let error = ended(py, self.shared.state().board.as_ref())?;
                    self.settle(Settled::Error(error));
                    return Ok(true);
                }
                Waited::Ready => {}
            }
            self.alone(py, || {
                let parts = self.shared.state().parts.len();
                if parts > 0 {
                    self.collect_part(py)?;
                }
                if parts <= 1 { self.finish(py) } else { Ok(()) }
            })?;
        }
    }

    /// All parts are collected.
    fn finish(&self, py: Python<'_>) -> PyResult<()> {
        let mut state = self.shared.state();
        if state.settled.is_some() {
            return Ok(());
        }
        let (values, error, many) = (core::mem::take(&mut state.values), state.error.take(), state.many);
        let known = state.board.is_some();
        drop(state);
        let settled = match (error, many) {
            (Some(error), _) => Settled::Error(error),
            (None, true) => Settled::Value(PyList::new(py, values)?.into_any().unbind()),
            (None, false) => match values.into_iter().next() {
                Some(value) => Settled::Value(value),
                None if known => return Err(PyRuntimeError::new_err("a result without a task")),
                None => return Err(PyRuntimeError::new_err("the result belongs to the process that made the call")),
            },
        };
        self.settle(settled);
        Ok(())
    }

    fn settle(&self, settled: Settled) {
        let mut state = self.shared.state();
        if state.settled.is_none() {
            state.settled = Some(settled);
        }
        let _parts = core::mem::take(&mut state.parts);
        let _board = state.board.take();
        drop(state);
    }

    /// Whether the tasks are done, whoever is still to be told.
    fn is_final(&self) -> bool {
        let state = self.shared.state();
        let over = || state.board.as_ref().is_some_and(super::has_ended);
        state.settled.is_some() || (!state.busy && state.parts.iter().all(Part::is_final)) || over()
    }

    fn outcome<'py>(&self, py: Python<'py>) -> PyResult<(bool, Bound<'py, PyAny>)> {
        match &self.shared.state().settled {
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
        PoolResult { shared: Arc::default() }
    }

    /// An exception that was raised refers to frames, which may refer to the result.
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        let Ok(state) = self.shared.state.try_lock() else { return Ok(()) };
        if let Some(Settled::Value(object) | Settled::Error(object)) = &state.settled {
            visit.call(object)?;
        }
        state.values.iter().chain(&state.error).try_for_each(|object| visit.call(object))
    }

    fn __clear__(&self) {
        let mut state = self.shared.state();
        let (settled, values, error) = (state.settled.take(), core::mem::take(&mut state.values), state.error.take());
        drop(state);
        drop((settled, values, error));
    }

    /// Whether the call has completed.
    fn ready(&self) -> bool {
        match self.shared.herald.load(Ordering::Acquire) {
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
        let heralded = self.shared.herald.load(Ordering::Acquire) != 0;
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
            let state = self.shared.state();
            let Some(board) = state.board.clone() else { return Ok(false) };
            let parts: Vec<_> = state.parts.iter().map(|part| (part.batch.clone(), part.item)).collect();
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
        let _ = self.shared.herald.compare_exchange(0, HERALDED, Ordering::AcqRel, Ordering::Acquire);
        let state = self.shared.state();
        for part in &state.parts {
            part.batch.watch();
        }
    }

    /// All that were to be told have been.
    fn _tell(&self) {
        self.shared.herald.store(TOLD, Ordering::Release);
        futex::wake(&self.shared.herald, u32::MAX);
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
        let herald = &self.shared.herald;
        if herald.load(Ordering::Acquire) == 0 {
            return Ok(self.wait_for_parts(py, deadline, true)? != Waited::TimedOut);
        }
        let told = || herald.load(Ordering::Acquire) != HERALDED;
        let wait = || {
            while !told() && !deadline.expired() {
                let slice = Deadline::after(core::time::Duration::from_millis(super::SLICE));
                futex::wait(herald, HERALDED, slice.min(deadline));
            }
            told()
        };
        if told() { Ok(true) } else { waiting::blocking(py, wait, |_, _| ()) }
    }
}
