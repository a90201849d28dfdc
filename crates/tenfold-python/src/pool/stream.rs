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
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};

use pyo3::exceptions::{PyException, PyRuntimeError, PyStopIteration};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyIterator, PyTuple};
use tenfold_engine::Heap;
use tenfold_engine::shm::board::{Batch, BatchPlan, Board, OpenBatch, Outcome, Preamble};
use tenfold_engine::shm::participant::{Identity, is_me};
use tenfold_engine::sys::clock::Deadline;
use tenfold_engine::sys::futex;

use super::board::PoolBoard;
use super::result::{ended, unpickled};
use super::submit::{OPEN_MOST, Place, Settings, add, open};
use super::task::{Function, Kind};
use super::{SLICE, Waited, has_ended, lock, me, wait_at};
use crate::codec::{self, Encoded};
use crate::errors;
use crate::waiting::{self, deadline};

/// Tasks that wait for a worker when the feeder pauses, and bytes of their inputs.
const AHEAD: usize = 8192;
const AHEAD_BYTES: usize = 32 << 20;
/// Inputs after which the feeder lets other threads run.
const TURN: usize = 256;

/// Some results in the order of their inputs.
enum Piece {
    /// Items of a batch.
    Tasks(Tasks),
    /// An input that could not be sent, or could not be had.
    Error(Py<PyAny>),
    /// That error, when it has been raised.
    Raised,
}

struct Tasks {
    batch: Batch,
    /// The number of the first one's input.
    base: u64,
    first: usize,
    end: usize,
    /// Items before this one have been taken.
    next: usize,
    taken: Vec<bool>,
    left: usize,
    /// Bytes of the inputs.
    bytes: usize,
}

#[derive(Default)]
struct State {
    /// The process that made the call.
    owner: Option<Identity>,
    pieces: VecDeque<Piece>,
    open: Option<OpenBatch>,
    /// Items that the next open batch is to have.
    room: usize,
    plan: BatchPlan,
    board: Option<Board>,
    /// Inputs so far, and results that have been read.
    fed: u64,
    read: u64,
    /// No further inputs.
    complete: bool,
    buffersize: Option<usize>,
    watched: bool,
    ordered: bool,
}

/// The results of `imap` or `imap_unordered`.
#[pyclass(subclass, frozen, module = "tenfold._native")]
pub(crate) struct PoolStream {
    state: Mutex<State>,
    /// Moves when a result has been read.
    reads: AtomicU32,
}

/// What a reader finds.
enum Found {
    Outcome(u64, Option<Outcome>),
    Error(Py<PyAny>),
    NotYet,
    End,
}

impl State {
    fn error(&mut self, error: Py<PyAny>) {
        self.pieces.push_back(Piece::Error(error));
        self.fed += 1;
    }

    fn task(&mut self, place: Place, bytes: usize) {
        let number = self.fed;
        self.fed += 1;
        if let Some(Piece::Tasks(tasks)) = self.pieces.back_mut()
            && tasks.end == place.item
            && tasks.batch.handle() == place.batch.handle()
        {
            tasks.end += 1;
            tasks.left += 1;
            tasks.bytes += bytes;
            return;
        }
        if self.watched {
            place.batch.watch();
        }
        let (first, end) = (place.item, place.item + 1);
        let taken = Vec::new();
        let tasks = Tasks { batch: place.batch, base: number, first, end, next: first, taken, left: 1, bytes };
        self.pieces.push_back(Piece::Tasks(tasks));
    }

    /// Nothing more will come. Returns what is let go of.
    fn end(&mut self) -> VecDeque<Piece> {
        self.complete = true;
        core::mem::take(&mut self.pieces)
    }

    /// Whether the feeder is as far ahead as it may be.
    fn is_far_ahead(&self) -> bool {
        if let Some(most) = self.buffersize {
            return self.fed - self.read >= most as u64;
        }
        if self.fed - self.read <= OPEN_MOST as u64 && self.pieces.len() < 16 {
            return false;
        }
        let (mut waiting, mut bytes) = (0, 0);
        for piece in self.pieces.iter().rev() {
            let Piece::Tasks(tasks) = piece else { continue };
            let unclaimed = (tasks.end - tasks.first).min(tasks.end.saturating_sub(tasks.batch.claimed()));
            if unclaimed == 0 {
                break;
            }
            waiting += unclaimed;
            bytes += tasks.bytes / (tasks.end - tasks.first).max(1) * unclaimed;
        }
        waiting >= AHEAD || bytes >= AHEAD_BYTES
    }

    /// Takes the next result in order.
    fn first(&mut self) -> Result<Found, tenfold_engine::HeapError> {
        loop {
            let last = self.pieces.len() == 1;
            let Some(piece) = self.pieces.front_mut() else {
                return Ok(if self.complete { Found::End } else { Found::NotYet });
            };
            match piece {
                Piece::Raised => {}
                Piece::Error(_) => {
                    if let Some(Piece::Error(error)) = self.pieces.pop_front() {
                        self.read += 1;
                        return Ok(Found::Error(error));
                    }
                }
                Piece::Tasks(tasks) if tasks.next < tasks.end => {
                    if !tasks.batch.is_final(tasks.next) {
                        return Ok(Found::NotYet);
                    }
                    let item = tasks.next;
                    tasks.next += 1;
                    tasks.left -= 1;
                    self.read += 1;
                    let number = tasks.base + (item - tasks.first) as u64;
                    return Ok(Found::Outcome(number, tasks.batch.take(item)?));
                }
                // More may be added to the last one.
                Piece::Tasks(_) if last && !self.complete => return Ok(Found::NotYet),
                Piece::Tasks(_) => {}
            }
            self.pieces.pop_front();
        }
    }

    /// Takes any result that is there.
    fn any(&mut self) -> Result<Found, tenfold_engine::HeapError> {
        while self.pieces.front().is_some_and(|piece| match piece {
            Piece::Raised => true,
            Piece::Error(_) => false,
            Piece::Tasks(tasks) => tasks.left == 0,
        }) && (self.pieces.len() > 1 || self.complete)
        {
            self.pieces.pop_front();
        }
        if self.pieces.is_empty() && self.complete {
            return Ok(Found::End);
        }
        let Some((place, item)) = self.find_any() else { return Ok(Found::NotYet) };
        self.read += 1;
        match &mut self.pieces[place] {
            Piece::Tasks(tasks) => {
                tasks.mark_taken(item);
                let number = tasks.base + (item - tasks.first) as u64;
                Ok(Found::Outcome(number, tasks.batch.take(item)?))
            }
            piece => match core::mem::replace(piece, Piece::Raised) {
                Piece::Error(error) => Ok(Found::Error(error)),
                _ => Ok(Found::NotYet),
            },
        }
    }

    fn find_any(&self) -> Option<(usize, usize)> {
        for (place, piece) in self.pieces.iter().enumerate() {
            match piece {
                Piece::Raised => {}
                Piece::Error(_) => return Some((place, 0)),
                Piece::Tasks(tasks) if tasks.left == 0 => {}
                Piece::Tasks(tasks) => {
                    let end = tasks.end.min(tasks.batch.claimed());
                    let found = (tasks.next..end).find(|&item| !tasks.is_taken(item) && tasks.batch.is_final(item));
                    if let Some(item) = found {
                        return Some((place, item));
                    }
                    // Batches are claimed one after the other.
                    if end < tasks.end {
                        return None;
                    }
                }
            }
        }
        None
    }

    fn has_result(&self) -> bool {
        if !self.ordered {
            return self.find_any().is_some() || (self.complete && self.left() == 0);
        }
        for piece in &self.pieces {
            match piece {
                Piece::Raised => {}
                Piece::Error(_) => return true,
                Piece::Tasks(tasks) if tasks.next < tasks.end => return tasks.batch.is_final(tasks.next),
                Piece::Tasks(_) => {}
            }
        }
        self.complete
    }

    fn left(&self) -> usize {
        let left = |piece: &Piece| match piece {
            Piece::Tasks(tasks) => tasks.left,
            Piece::Error(_) => 1,
            Piece::Raised => 0,
        };
        self.pieces.iter().map(left).sum()
    }
}

impl Tasks {
    fn is_taken(&self, item: usize) -> bool {
        self.taken.get(item - self.first).copied().unwrap_or(false)
    }

    fn mark_taken(&mut self, item: usize) {
        let at = item - self.first;
        if self.taken.len() <= at {
            self.taken.resize(at + 1, false);
        }
        self.taken[at] = true;
        self.left -= 1;
        while self.next < self.end && self.is_taken(self.next) {
            self.next += 1;
        }
    }
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
