//! The results of a stream of tasks, one by one, while inputs are still being fed.
//!
//! ```text
//!  feeder:  next input ─▶ pickle ─▶ open batch ─▶ announce                 pieces, in the order of the inputs:
//!  reader:  pieces ─▶ first that is final ─▶ unpickle                      batch 0..512 │ an error │ batch 0..37 …
//! ```
//!
//! The feeder is a thread of its own for inputs that may keep it waiting, else whoever makes the stream. It stays ahead
//! of the workers by a number of tasks and of bytes and, with a buffer size, of the reader by that many results.

use core::sync::atomic::{AtomicU32, Ordering};
use core::time::Duration;
use std::sync::{Mutex, MutexGuard};

use pyo3::exceptions::{PyException, PyRuntimeError, PyStopIteration};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyIterator, PyTuple};
use tenfold_engine::Heap;
use tenfold_engine::shm::board::{Board, Preamble};
use tenfold_engine::shm::participant::is_me;
use tenfold_engine::sys::clock::Deadline;
use tenfold_engine::sys::futex;

use super::board::PoolBoard;
use super::pieces::{Found, Piece, State};
use super::result::{ended, unpickled};
use super::submit::{Settings, add, open};
use super::task::{Function, Kind};
use super::{SLICE, Waited, has_ended, lock, me, wait_at};
use crate::codec::{self, Encoded};
use crate::errors;
use crate::waiting::{self, deadline};

/// Inputs after which the feeder lets other threads run.
const TURN: usize = 256;

/// The results of `imap` or `imap_unordered`.
#[pyclass(subclass, frozen, module = "tenfold._native")]
pub(crate) struct PoolStream {
    state: Mutex<State>,
    /// Moves when a result has been read.
    reads: AtomicU32,
}

impl PoolStream {
    /// The state. In a child of fork the parent's tasks are forgotten.
    fn state(&self) -> MutexGuard<'_, State> {
        let mut state = lock(&self.state);
        if state.owner.is_some_and(|owner| !is_me(owner)) {
            state.pieces.retain(|piece| matches!(piece, Piece::Error(_)));
            state.open = None;
            state.complete = true;
            (state.board, state.owner) = (None, None);
        }
        state
    }

    /// Prepares the stream.
    ///
    /// # Errors
    /// If the function cannot be pickled.
    pub(super) fn open(
        &self,
        pool: &PoolBoard,
        function: &Bound<'_, PyAny>,
        settings: Settings,
        buffersize: Option<usize>,
        ordered: bool,
    ) -> PyResult<()> {
        let function = Function::encode(function)?;
        let board = pool.board()?.clone();
        let mut plan = settings.plan(Kind::Map, &board);
        plan.tell_each = true;
        plan.preamble = Preamble::Message(function.bytes, function.handles);
        let mut state = self.state();
        state.owner = Some(me()?);
        state.plan = plan;
        state.board = Some(board);
        state.buffersize = buffersize;
        state.ordered = ordered;
        Ok(())
    }

    fn board(&self) -> PyResult<(Board, usize)> {
        let state = self.state();
        let board = state
            .board
            .clone()
            .ok_or_else(|| PyRuntimeError::new_err("the results belong to the process that made the call"))?;
        Ok((board, state.plan.bell as usize))
    }

    /// Adds an input that has been pickled.
    fn add(&self, py: Python<'_>, heap: Heap, board: &Board, encoded: &Encoded) -> PyResult<()> {
        encoded.with(py, |input| {
            let mut state = self.state();
            let State { open: current, plan, room, .. } = &mut *state;
            let place = add(current, board, input, |before| open(heap, board, plan, room, before))?;
            if matches!(state.plan.preamble, Preamble::Message(..)) {
                state.plan.preamble = Preamble::Of(place.batch.clone());
            }
            state.task(place, input.len());
            Ok(())
        })?
    }

    /// Waits until the feeder may go on. Returns whether it may; not if the pool has ended.
    fn wait_for_room(&self, py: Python<'_>, board: &Board, bell: usize) -> PyResult<bool> {
        let room = || !self.state().is_far_ahead();
        let by_reader = self.state().buffersize.is_some();
        let wait = || {
            loop {
                let seen = self.reads.load(Ordering::Acquire);
                if room() {
                    return true;
                }
                if has_ended(board) {
                    return false;
                }
                futex::wait(&self.reads, seen, Deadline::after(Duration::from_millis(SLICE)));
            }
        };
        if by_reader {
            return waiting::blocking(py, wait, |_, _| ());
        }
        let far = deadline(None)?;
        Ok(wait_at(py, board, bell, far, room)? == Waited::Ready)
    }

    /// The next result; `None` at the end.
    fn read<'py>(&self, py: Python<'py>, deadline: Deadline) -> PyResult<Option<Bound<'py, PyAny>>> {
        loop {
            let (found, held_back) = {
                let mut state = self.state();
                let found = if state.ordered { state.first() } else { state.any() };
                (found, state.buffersize.is_some())
            };
            let outcome = match found.map_err(errors::heap)? {
                Found::End => return Ok(None),
                Found::Error(error) => Err(error),
                Found::Outcome(number, outcome) => unpickled(py, || Ok(self.board()?.0), number, outcome)?,
                Found::NotYet => {
                    let (board, bell) = self.board()?;
                    let ready = || self.state().has_result();
                    match wait_at(py, &board, bell, deadline, ready)? {
                        Waited::Ready => continue,
                        Waited::TimedOut => {
                            let class = py.import("multiprocessing.context")?.getattr("TimeoutError")?;
                            return Err(PyErr::from_value(class.call0()?));
                        }
                        Waited::Ended => {
                            let error = ended(py, Some(&board))?;
                            let _lost = self.state().end();
                            Err(error)
                        }
                    }
                }
            };
            if held_back {
                self.reads.fetch_add(1, Ordering::Release);
                futex::wake(&self.reads, u32::MAX);
            }
            return match outcome {
                Ok(value) => Ok(Some(value.into_bound(py))),
                Err(error) => Err(PyErr::from_value(error.into_bound(py))),
            };
        }
    }
}

#[pymethods]
impl PoolStream {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> PoolStream {
        PoolStream { state: Mutex::default(), reads: AtomicU32::new(0) }
    }

    /// An error of the inputs refers to frames, which may refer to the stream.
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        let Ok(state) = self.state.try_lock() else { return Ok(()) };
        state.pieces.iter().try_for_each(|piece| match piece {
            Piece::Error(error) => visit.call(error),
            Piece::Tasks(_) | Piece::Raised => Ok(()),
        })
    }

    fn __clear__(&self) {
        let pieces = self.state().end();
        drop(pieces);
    }

    /// The pool has ended: wakes the feeder.
    fn _wake(&self) {
        futex::wake(&self.reads, u32::MAX);
    }

    /// Feeds inputs from an iterator, in groups of `group` of which one that is not whole for an error of the iterator
    /// is left out. Without `wait`, stops when it is far enough ahead. Returns whether the inputs are at an end.
    fn _feed(&self, iterator: &Bound<'_, PyIterator>, group: usize, wait: bool) -> PyResult<bool> {
        let py = iterator.py();
        let (board, bell) = self.board()?;
        let heap = board.handle().heap();
        let mut items = iterator.clone();
        let mut fed = 0;
        loop {
            let far_ahead = self.state().is_far_ahead();
            if far_ahead && !wait {
                return Ok(false);
            }
            if far_ahead && !self.wait_for_room(py, &board, bell)? || has_ended(&board) {
                let error = ended(py, Some(&board))?;
                self.state().error(error);
                return Ok(true);
            }
            let mut inputs = Vec::with_capacity(group.min(1024));
            let mut end = None;
            while inputs.len() < group {
                match items.next() {
                    Some(Ok(item)) => inputs.push(codec::encode(&item)),
                    None => end = Some(None),
                    Some(Err(error)) if error.is_instance_of::<PyException>(py) => end = Some(Some(error)),
                    Some(Err(error)) => return Err(error),
                }
                if end.is_some() {
                    break;
                }
            }
            if matches!(end, Some(Some(_))) {
                inputs.clear();
            }
            fed += inputs.len();
            for input in inputs {
                match input {
                    Ok(encoded) => self.add(py, heap, &board, &encoded)?,
                    Err(error) => {
                        let error = error.into_value(py).into_any();
                        self.state().error(error);
                    }
                }
            }
            if let Some(error) = end {
                if let Some(error) = error {
                    let error = error.into_value(py).into_any();
                    self.state().error(error);
                }
                return Ok(true);
            }
            board.ring_for_waiters(bell);
            if wait && fed >= TURN {
                fed = 0;
                py.detach(|| ());
            }
        }
    }

    /// There are no further inputs; `error`, if there is one, comes after the last of them.
    #[pyo3(signature = (error=None))]
    fn _complete(&self, error: Option<Py<PyAny>>) -> PyResult<()> {
        let (board, bell) = self.board()?;
        let open = {
            let mut state = self.state();
            if let Some(error) = error {
                state.error(error);
            }
            state.complete = true;
            state.open.take()
        };
        drop(open);
        board.ring(bell);
        board.ring(tenfold_engine::shm::board::WATCHER_BELL);
        Ok(())
    }

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.read(py, deadline(None)?)
    }

    /// Returns the next result, or raises what its task has raised; `multiprocessing.TimeoutError` if it does not arrive
    /// within `timeout` seconds.
    #[pyo3(signature = (timeout=None))]
    fn next<'py>(&self, py: Python<'py>, timeout: Option<f64>) -> PyResult<Bound<'py, PyAny>> {
        self.read(py, deadline(timeout)?)?.ok_or_else(|| PyStopIteration::new_err(()))
    }

    /// The watcher is to hear of results.
    fn _be_heralded(&self) {
        let mut state = self.state();
        if core::mem::replace(&mut state.watched, true) {
            return;
        }
        for piece in &state.pieces {
            if let Piece::Tasks(tasks) = piece {
                tasks.batch.watch();
            }
        }
    }

    /// Whether a result can be read without waiting, or the stream is at its end.
    #[pyo3(name = "_is_final")]
    fn py_has_result(&self) -> bool {
        let state = self.state();
        state.has_result() || state.board.as_ref().is_none_or(has_ended)
    }
}
